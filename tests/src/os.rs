//! System calls that the standard library has no name for.

#![allow(unsafe_code, reason = "the C library's interface: each call says what it relies on")]

use std::{
    ffi::CString,
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// How a child ended, as `wait4` tells it.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What `wait` says.
    pub status: ExitStatus,
    /// Most memory that it had resident.
    pub peak_resident_bytes: u64,
    /// Time on a processor in user mode.
    pub user_time: Duration,
    /// Time on a processor in the kernel.
    pub system_time: Duration,
}

/// A new pseudo-terminal.
#[derive(Debug)]
pub struct PseudoTerminal {
    /// The side that reads what programs print.
    pub reader: File,
    /// The side that programs have as their terminal.
    pub terminal: OwnedFd,
}

/// Waits for a child and takes its status, so that nobody else can.
#[must_use]
pub fn wait4(pid: u32) -> Ended {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let usage = loop {
        let pid = libc::pid_t::try_from(pid).expect("a process ID");
        // SAFETY: both pointers are to memory of ours of the right type.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited == pid {
            // SAFETY: zeros are a value of it, and `wait4` has filled it in.
            break unsafe { usage.assume_init() };
        }
        let error = io::Error::last_os_error();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted, "cannot wait for process {pid}: {error}");
    };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    Ended {
        status: status_of_wait(status),
        peak_resident_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
        user_time: time(usage.ru_utime),
        system_time: time(usage.ru_stime),
    }
}

/// What the number that `wait` gives means.
#[must_use]
pub fn status_of_wait(status: i32) -> ExitStatus {
    std::os::unix::process::ExitStatusExt::from_raw(status)
}

/// Waits until a child ends, at most until `deadline`; does not reap it.
#[must_use]
pub fn await_exit(child: &Child, deadline: Instant) -> bool {
    let pidfd = pidfd_open(pid_of(child), PidfdFlags::empty()).expect("a child that was not reaped");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a time that can be waited");
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(error) => assert_eq!(error, rustix::io::Errno::INTR, "cannot wait for a child"),
        }
    }
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    let pid = i32::try_from(child.id()).expect("a process ID");
    Pid::from_raw(pid).expect("not zero")
}

/// Lets the kernel kill a child when the thread that starts it ends, in whatever way.
pub(crate) fn die_with_this_thread(command: &mut Command) {
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// Calls a function when this program ends by itself.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: the function stays where it is for as long as the program runs.
    let refused = unsafe { libc::atexit(function) };
    assert_eq!(refused, 0, "no room for another exit function");
}

/// Lets a command run in a network namespace.
pub(crate) fn enter_network(command: &mut Command, namespace: &OwnedFd) {
    let namespace = namespace.try_clone().expect("room for one more descriptor");
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(move || Ok(move_into_link_name_space(namespace.as_fd(), NETWORK)?)) };
}

/// Lets this thread go to a network namespace.
pub(crate) fn go_to_network(namespace: &OwnedFd) {
    move_into_link_name_space(namespace.as_fd(), NETWORK).expect("a network namespace, and we are root");
}

/// Makes a network namespace, in which nothing is up; it goes when its last descriptor and process go.
pub(crate) fn new_network() -> OwnedFd {
    let made = thread::spawn(|| {
        // SAFETY: descriptors stay shared; the thread ends here.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a new network namespace, and we are root");
        File::open("/proc/thread-self/ns/net").expect("every thread has one").into()
    });
    made.join().expect("it did not fail")
}

const NETWORK: Option<LinkNameSpaceType> = Some(LinkNameSpaceType::Network);

/// Gives a file the capabilities of a bit set, as `setcap` does with `=ep`.
pub fn set_file_capabilities(path: &Path, capabilities: u32) {
    /// `VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE`
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    let words = [REVISION_2_EFFECTIVE, capabilities, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let text = CString::new(path.as_os_str().as_bytes()).expect("a path without zeros");
    let name = c"security.capability";
    // SAFETY: two strings that end in a zero, and `value.len()` bytes.
    let result =
        unsafe { libc::setxattr(text.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(result, 0, "cannot give {} capabilities: {}", path.display(), io::Error::last_os_error());
}

// === impl PseudoTerminal ===

impl PseudoTerminal {
    /// Opens one of 100 columns.
    #[must_use]
    pub fn open() -> Self {
        let (mut reader, mut terminal) = (0, 0);
        let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let (null, no_settings) = (std::ptr::null_mut(), std::ptr::null());
        // SAFETY: two places for descriptors, no name, no settings, and a size.
        let result =
            unsafe { libc::openpty(&raw mut reader, &raw mut terminal, null, no_settings, &raw const size) };
        assert_eq!(result, 0, "cannot open a pseudo-terminal: {}", io::Error::last_os_error());
        // SAFETY: just opened, and nobody else has them.
        unsafe { Self { reader: File::from_raw_fd(reader), terminal: OwnedFd::from_raw_fd(terminal) } }
    }
}
