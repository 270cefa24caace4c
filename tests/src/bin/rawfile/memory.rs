//! Memory for what system calls are told.
//!
//! It is below 4 GiB, so that the 32-bit entry can be told the same addresses, and stays until the process ends.

use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt as _, ptr};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

/// Where strings of a call are kept.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    used: usize,
    strings: Strings,
    /// Those that are not present, as addresses of pages.
    absent: Vec<usize>,
}

/// How a path is kept until the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// In memory that was just written.
    Present,
    /// In a page of a file that this process has never touched.
    PagedOut,
    /// As that, but its first bytes are at the end of a page that is present.
    Straddling,
}

const SIZE: usize = 1 << 16;
const PAGE: usize = 4096;
#[cfg(target_arch = "x86_64")]
const LOW: i32 = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const LOW: i32 = 0;

// === impl Memory ===

impl Memory {
    pub fn new(strings: Strings) -> Result<Self> {
        let base = map(SIZE, libc::MAP_ANONYMOUS, -1)?;
        Ok(Self { base, used: 0, strings, absent: Vec::new() })
    }

    /// Keeps some bytes; gives their address, a multiple of 8.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<usize> {
        let start = self.used.next_multiple_of(8);
        ensure!(start + bytes.len() <= SIZE, "more than {SIZE} bytes of arguments; use shorter ones");
        // SAFETY: the mapping has room for them after `start`, and nothing else is there.
        let place = unsafe {
            let place = self.base.add(start);
            ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            place
        };
        self.used = start + bytes.len();
        Ok(place.addr())
    }

    /// As [`Self::bytes`], but at the end and over what this was given before.
    pub fn bytes_once(&mut self, bytes: &[u8]) -> Result<usize> {
        let used = self.used;
        let place = self.bytes(bytes);
        self.used = used;
        place
    }

    /// What the kernel wrote to memory that [`Self::bytes`] gave.
    pub fn read(&self, address: usize, len: usize) -> Vec<u8> {
        let offset = address - self.base.addr();
        assert!(offset + len <= SIZE, "an address of this memory");
        let mut bytes = vec![0; len];
        // SAFETY: that many bytes are inside of the mapping.
        unsafe { ptr::copy_nonoverlapping(self.base.add(offset), bytes.as_mut_ptr(), len) };
        bytes
    }

    /// Keeps a string with a zero after it; gives its address.
    pub fn string(&mut self, string: impl AsRef<OsStr>) -> Result<usize> {
        let string = string.as_ref().as_bytes();
        ensure!(!string.contains(&0), "{} has a zero inside", string.escape_ascii());
        match self.strings {
            Strings::Present => self.bytes(&[string, &[0]].concat()),
            Strings::PagedOut => self.paged_out(string, 0),
            // Half of it, and so at least its zero, is in the next page.
            Strings::Straddling => self.paged_out(string, PAGE - string.len().div_ceil(2).min(PAGE)),
        }
    }

    /// In a file of memory that is mapped after it was written: the kernel finds no page for it in this
    /// process and has to take a fault in the middle of the call.
    fn paged_out(&mut self, string: &[u8], offset: usize) -> Result<usize> {
        let file = memfd_create("path", MemfdFlags::CLOEXEC)?;
        rustix::io::pwrite(&file, string, offset as u64)?;
        let len = (offset + string.len() + 1).next_multiple_of(PAGE);
        rustix::fs::ftruncate(&file, len as u64)?;
        let base = map_file(len, &file)?;
        if offset > 0 {
            // SAFETY: inside of the mapping.
            unsafe { base.add(offset).read_volatile() };
            // The fault brought the neighbours too ("fault around"); they go again.
            // SAFETY: pages of the mapping behind the first, of which nobody has a reference.
            let result = unsafe { libc::madvise(base.add(PAGE).cast(), len - PAGE, libc::MADV_DONTNEED) };
            ensure!(result == 0, "madvise: {}", io::Error::last_os_error());
        }
        self.absent.push(base.addr() + if offset > 0 { PAGE } else { 0 });
        Ok(base.addr() + offset)
    }

    /// Whether each page that should not be present is, asked from `/proc/self/pagemap`.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn present(&self) -> Result<Vec<bool>> {
        use std::os::unix::fs::FileExt as _;
        if self.absent.is_empty() {
            return Ok(Vec::new());
        }
        let pagemap = fs::File::open("/proc/self/pagemap").context("cannot open /proc/self/pagemap")?;
        let present = |address: &usize| {
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, (address / PAGE * 8) as u64)?;
            // Bit 63: https://github.com/torvalds/linux/blob/v6.12/Documentation/admin-guide/mm/pagemap.rst
            Ok(u64::from_ne_bytes(entry) >> 63 == 1)
        };
        self.absent.iter().map(present).collect()
    }
}

fn map_file(len: usize, file: &impl std::os::fd::AsRawFd) -> Result<*mut u8> {
    map(len, 0, file.as_raw_fd())
}

/// A new private mapping.
fn map(len: usize, flags: i32, file: i32) -> Result<*mut u8> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_PRIVATE | LOW);
    // SAFETY: a new mapping touches nothing that is there.
    let place = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, file, 0) };
    ensure!(place != libc::MAP_FAILED, "cannot map {len} bytes below 4 GiB: {}", io::Error::last_os_error());
    Ok(place.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_has_a_zero_after_it_and_is_in_reach_of_32_bits() {
        let mut memory = Memory::new(Strings::Present).unwrap();
        let address = memory.string("abc").unwrap();
        assert_eq!(memory.read(address, 4), b"abc\0");
        #[cfg(target_arch = "x86_64")]
        assert!(u32::try_from(address).is_ok());
    }

    #[test]
    fn a_string_that_is_paged_out_is_not_present_until_it_is_read() {
        for strings in [Strings::PagedOut, Strings::Straddling] {
            let mut memory = Memory::new(strings).unwrap();
            let address = memory.string("abcdef").unwrap();
            assert_eq!(memory.present().unwrap(), [false], "{strings:?}");
            // SAFETY: a string that was just made there.
            let string = unsafe { std::ffi::CStr::from_ptr(address as *const _) };
            assert_eq!(string.to_bytes(), b"abcdef");
            assert_eq!(memory.present().unwrap(), [true], "{strings:?}");
        }
    }
}
