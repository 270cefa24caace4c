//! tracefs, where the host has not mounted it.
//!
//! Attaching to a system call's tracepoint needs its number, which only tracefs tells. Many hosts and all
//! containers come without it mounted. It is mounted then in a mount namespace that one thread has for
//! itself and that ends with the thread: nothing changes on the host.

use std::{io, path::Path, thread};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::UnshareFlags,
};

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Runs `with` where tracefs can be read, or tells why it can not.
pub(super) fn with<T: Send>(with: impl FnOnce() -> T + Send) -> io::Result<T> {
    if PLACES.iter().any(|place| Path::new(place).join("events").exists()) {
        return Ok(with());
    }
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            mount_privately()?;
            Ok(with())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mount_privately() -> io::Result<()> {
    #[expect(deprecated, reason = "it became unsafe for the sake of CLONE_FILES, which is not asked for")]
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    // Else the mount below would appear on the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tracefs", PLACES[0], "tracefs", MountFlags::empty(), None)?;
    Ok(())
}
