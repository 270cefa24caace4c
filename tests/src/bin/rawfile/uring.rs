//! An `io_uring`: what is to be done is written to memory that is shared with the kernel, and a thread of the kernel
//! may do it.
//!
//! Layouts and numbers: <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/io_uring.h>

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::said::Skipped;

/// A ring of one entry after another.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    /// The kernel has a thread that looks for entries.
    polled: bool,
    submissions: Queue,
    completions: Queue,
    /// The kernel's word that its thread sleeps.
    flags: *const AtomicU32,
    array: *mut u32,
    entries: *mut Entry,
    results: *const Completion,
    /// The greatest operation that the kernel knows.
    last_operation: u8,
}

/// What is to be done: `struct io_uring_sqe`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Entry {
    pub operation: u8,
    pub flags: u8,
    pub priority: u16,
    pub fd: i32,
    /// Or the second address.
    pub offset: u64,
    pub address: u64,
    pub len: u32,
    pub operation_flags: u32,
    pub user_data: u64,
    pub buffer_index: u16,
    pub personality: u16,
    pub file_index: u32,
    pub address3: u64,
    pub padding: u64,
}

/// What came of it: `struct io_uring_cqe`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

#[derive(Debug)]
struct Queue {
    head: *const AtomicU32,
    tail: *const AtomicU32,
    mask: u32,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Debug, Default)]
struct Parameters {
    entries: [u32; 2],
    flags: u32,
    thread_cpu: u32,
    thread_idle_ms: u32,
    features: u32,
    workers_fd: u32,
    reserved: [u32; 3],
    submissions: Offsets,
    completions: Offsets,
}

/// Of a ring: `head`, `tail`, `ring_mask`, `ring_entries`, then those that the two kinds have on their own.
#[repr(C)]
#[derive(Debug, Default)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    own: [u32; 4],
    user_address: u64,
}

const SETUP_SQPOLL: u32 = 1 << 1;
const SQ_NEED_WAKEUP: u32 = 1;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 1 << 1;
const REGISTER_PROBE: u32 = 8;
const OFFSET_SUBMISSIONS: i64 = 0;
const OFFSET_COMPLETIONS: i64 = 0x800_0000;
const OFFSET_ENTRIES: i64 = 0x1000_0000;
const SIZE: u32 = 4;
const IDLE_MS: u32 = 1000;

// === impl Ring ===

impl Ring {
    /// Sets one up.
    ///
    /// # Errors
    /// `Skipped` where the kernel has none or refuses it; else when it cannot be mapped.
    pub fn new(polled: bool) -> Result<Self> {
        let mut parameters = Parameters::default();
        if polled {
            (parameters.flags, parameters.thread_idle_ms) = (SETUP_SQPOLL, IDLE_MS);
        }
        // SAFETY: live parameters, which the kernel fills.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, SIZE, &raw mut parameters) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EPERM) => {
                    Skipped(format!("io_uring is not there or switched off: {error}")).into()
                }
                _ => error.into(),
            });
        }
        let fd = i32::try_from(fd).context("a descriptor")?;
        // SAFETY: just made, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };

        let (sent, done) = (&parameters.submissions, &parameters.completions);
        let [flags, _, array, _] = sent.own;
        let [_, results, ..] = done.own;
        let (sizes, count) = (parameters.entries, |entries: u32| entries as usize);
        let sent_len = array as usize + count(sizes[0]) * size_of::<u32>();
        let done_len = results as usize + count(sizes[1]) * size_of::<Completion>();
        let sent_base = map(&fd, sent_len, OFFSET_SUBMISSIONS)?;
        let done_base = map(&fd, done_len, OFFSET_COMPLETIONS)?;
        let entries = map(&fd, count(sizes[0]) * size_of::<Entry>(), OFFSET_ENTRIES)?;
        Ok(Self {
            polled,
            submissions: Queue::new(sent_base, sent),
            completions: Queue::new(done_base, done),
            flags: at(sent_base, flags).cast(),
            array: at(sent_base, array).cast(),
            entries: entries.cast(),
            results: at(done_base, results).cast(),
            last_operation: last_operation(&fd)?,
            fd,
        })
    }

    /// Has one thing done and waits for it.
    ///
    /// # Errors
    /// `Skipped` when this kernel does not know the operation; else when the ring does not work.
    ///
    /// # Safety
    /// As the operation asks for: its addresses must be good until it is done, which is when this returns.
    pub unsafe fn perform(&mut self, entry: Entry) -> Result<Result<usize, Errno>> {
        if entry.operation > self.last_operation {
            let reason = format!("this kernel's io_uring has no operation {}", entry.operation);
            return Err(Skipped(reason).into());
        }
        // SAFETY: the queues are mapped as long as the process lives. An entry before the tail is the kernel's,
        // this one is after it; there is never more than one, so there is room.
        unsafe {
            let tail = (*self.submissions.tail).load(Ordering::Relaxed);
            let index = tail & self.submissions.mask;
            self.entries.add(index as usize).write(entry);
            self.array.add(index as usize).write(index);
            (*self.submissions.tail).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.enter()?;
        // SAFETY: as above; the kernel has written what is before the tail.
        let result = unsafe {
            let head = (*self.completions.head).load(Ordering::Relaxed);
            let tail = (*self.completions.tail).load(Ordering::Acquire);
            ensure!(head != tail, "io_uring_enter came back before the operation was done");
            let result = self.results.add((head & self.completions.mask) as usize).read().result;
            (*self.completions.head).store(head.wrapping_add(1), Ordering::Release);
            result
        };
        Ok(usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result)))
    }

    /// Hands over one entry and waits for one result.
    fn enter(&self) -> Result<()> {
        let mut flags = ENTER_GETEVENTS;
        if self.polled {
            // The tail must be out before the flag is read, or both sides might sleep.
            std::sync::atomic::fence(Ordering::SeqCst);
            // SAFETY: mapped as long as the process lives.
            if unsafe { (*self.flags).load(Ordering::Relaxed) } & SQ_NEED_WAKEUP != 0 {
                flags |= ENTER_SQ_WAKEUP;
            }
        }
        let (ring, handed_over) = (self.fd.as_raw_fd(), u32::from(!self.polled));
        loop {
            // SAFETY: no signal mask is given.
            let result = unsafe {
                libc::syscall(libc::SYS_io_uring_enter, ring, handed_over, 1, flags, ptr::null::<()>(), 0)
            };
            let error = io::Error::last_os_error();
            if result >= 0 {
                return Ok(());
            }
            ensure!(error.kind() == io::ErrorKind::Interrupted, "io_uring_enter: {error}");
        }
    }
}

/// Threads of the kernel that work for rings of this process. Asking opens files in `/proc`.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn workers() -> Result<Vec<Value>> {
    let mut workers = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        // One that has ended meanwhile is none.
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if comm.starts_with("iou-") {
            let tid: i32 = task.file_name().to_string_lossy().parse()?;
            workers.push(json!({"tid": tid, "comm": comm.trim_end()}));
        }
    }
    Ok(workers)
}

/// The greatest operation that this kernel knows.
fn last_operation(ring: &OwnedFd) -> Result<u8> {
    // `struct io_uring_probe` with room for 256 operations of 8 bytes; its first byte is the answer.
    let mut probe = [0_u64; 2 + 256];
    // SAFETY: as much room as is told.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_PROBE, probe.as_mut_ptr(), 256)
    };
    ensure!(result >= 0, "io_uring_register: {}", io::Error::last_os_error());
    Ok(probe[0].to_ne_bytes()[0])
}

// === impl Queue ===

impl Queue {
    fn new(base: *mut u8, offsets: &Offsets) -> Self {
        let mask: *const u32 = at(base, offsets.mask).cast();
        // SAFETY: the kernel says that the mapping has the mask there.
        let mask = unsafe { mask.read() };
        Self { head: at(base, offsets.head).cast(), tail: at(base, offsets.tail).cast(), mask }
    }
}

/// An offset that the kernel told of its own mapping.
fn at(base: *mut u8, offset: u32) -> *mut u8 {
    base.wrapping_add(offset as usize)
}

fn map(ring: &OwnedFd, len: usize, offset: i64) -> Result<*mut u8> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    // SAFETY: a new mapping touches nothing that is there.
    let place = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, ring.as_raw_fd(), offset) };
    ensure!(place != libc::MAP_FAILED, "cannot map an io_uring: {}", io::Error::last_os_error());
    Ok(place.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<Entry>(), 64);
        assert_eq!(size_of::<Completion>(), 16);
        assert_eq!(size_of::<Parameters>(), 120);
    }
}
