//! The root of the version 2 cgroup hierarchy, which all sockets belong to: programs that are attached there see all
//! of them.
//!
//! It exists on every kernel that has cgroups, also where nobody has mounted it, and where the agent is in a cgroup
//! namespace that shows it a part only.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use rustix::{
    fs::fstat,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// Inode number of the root in its own file system.
const ROOT: u64 = 1;

/// Opens the root.
///
/// # Errors
/// When it is mounted nowhere and may not be mounted.
pub(super) fn root() -> io::Result<OwnedFd> {
    if let Some(root) = mounted() {
        return Ok(root);
    }
    // A thread of its own: it may have to leave the cgroup namespace of the agent.
    thread::scope(|scope| {
        let thread = scope.spawn(mount);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where somebody has mounted it.
fn mounted() -> Option<OwnedFd> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut places = mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?
    });
    places.find_map(open)
}

fn open(place: &str) -> Option<OwnedFd> {
    let root = OwnedFd::from(File::open(place).ok()?);
    (fstat(&root).ok()?.st_ino == ROOT).then_some(root)
}

fn mount() -> io::Result<OwnedFd> {
    /// The namespace of the first process is that of the host where the agent may see it.
    const HOST: &str = "/proc/1/ns/cgroup";
    if let Ok(host) = File::open(Path::new(HOST)) {
        // Not allowed, or the same: what is mounted then tells.
        let _same =
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&host), Some(LinkNameSpaceType::ControlGroup));
    }
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    if fstat(&root)?.st_ino == ROOT {
        Ok(root)
    } else {
        Err(io::Error::other("the agent is in a cgroup namespace, and may not see the host's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_no_root_is_not_taken_for_one() {
        assert!(open("/proc/self").is_none() && open("/nowhere").is_none());
    }
}
