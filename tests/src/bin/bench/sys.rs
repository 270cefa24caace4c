//! System calls that no safe wrapper has.
#![expect(
    unsafe_code,
    reason = "posix_spawn, getrusage, CPU clocks of processes, interfaces and handlers need libc"
)]

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, UdpSocket},
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt},
    path::Path,
    ptr::{null, null_mut},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    process::{Pid, WaitOptions, waitpid},
    thread::{UnshareFlags, unshare_unsafe},
};

/// A program with one argument, its name, and no environment, ready to be run many times.
pub struct Program {
    path: CString,
    name: CString,
}

impl Program {
    pub fn new(path: &Path, name: &str) -> Result<Self> {
        Ok(Self { path: CString::new(path.as_os_str().as_bytes())?, name: CString::new(name)? })
    }

    /// Runs it to its end: what a shell does for a command, by `vfork` and `execve`.
    pub fn run(&self) -> Result<()> {
        let argv = [self.name.as_ptr().cast_mut(), null_mut()];
        let envp = [null_mut()];
        let mut pid = 0;
        // SAFETY: both strings end with a NUL and both arrays with a null pointer, all of them outlive the
        // call, and null stands for no file actions and no attributes.
        let code = unsafe {
            libc::posix_spawn(&raw mut pid, self.path.as_ptr(), null(), null(), argv.as_ptr(), envp.as_ptr())
        };
        if code != 0 {
            let error = io::Error::from_raw_os_error(code);
            return Err(error).with_context(|| format!("cannot run {}", self.path.to_string_lossy()));
        }
        let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty())?.context("no child")?;
        if status.exit_status() != Some(0) {
            bail!("{} did not succeed", self.path.to_string_lossy());
        }
        Ok(())
    }
}

/// CPU time, user and system, of this process and of the children it has waited for; exact to 1 µs.
pub fn own_cpu_time() -> io::Result<Duration> {
    Ok(usage(libc::RUSAGE_SELF)? + usage(libc::RUSAGE_CHILDREN)?)
}

fn usage(who: libc::c_int) -> io::Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is good for writing a `rusage`.
    if unsafe { libc::getrusage(who, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(duration(usage.ru_utime) + duration(usage.ru_stime))
}

/// CPU time of all threads of another process; exact to 1 ns, where `/proc/PID/stat` counts in 10 ms.
pub fn cpu_time_of(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: the pointer is good for writing a clock number.
    let code = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is good for writing a `timespec`.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_nanos(time.tv_nsec.unsigned_abs()))
}

/// `getppid` as often as told: it does next to nothing, so what the way into the kernel costs shows, and
/// no hook of the agent asks about it.
pub fn getppid_many_times(calls: u32) {
    for _ in 0..calls {
        // SAFETY: takes no arguments and cannot fail.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
}

/// Gives this thread, and what it starts from now on, a network namespace of its own, with a loopback interface
/// that is up and nothing else.
pub fn own_network() -> Result<()> {
    const LOOPBACK: &[u8] = b"lo";
    // SAFETY: another network, of this thread alone, leaves memory and descriptors as they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("no network namespace of our own")?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all zeros are a name of no letters and flags of none.
    let mut request = unsafe { MaybeUninit::<libc::ifreq>::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).expect("the lowest of the flags");
    // SAFETY: the descriptor is open, and the pointer good for reading an `ifreq` with a name and flags.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error()).context("the loopback interface does not go up");
    }
    Ok(())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Makes Ctrl-C and SIGTERM end the benchmark at the next [`go_on`], so that what it changed on the
/// machine is put back.
pub fn end_gracefully() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is allowed in a handler.
        unsafe { libc::signal(signal, interrupt as *const () as libc::sighandler_t) };
    }
}

/// # Errors
///
/// When a signal asked for the end.
pub fn go_on() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
