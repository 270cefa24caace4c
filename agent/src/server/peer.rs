//! Who is at the other end of a unix socket, as the kernel says.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::net::sockopt::socket_peercred;

/// Groups that are looked at; the kernel allows 65,536.
const GROUPS: usize = 65_536;

/// A process at the moment when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Process ID; 0 when it is in a PID namespace that is not seen from here.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group, and all others that it is in.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it is no unix socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = socket_peercred(socket)?;
        let mut groups = supplementary_groups(socket)?;
        groups.push(credentials.gid.as_raw());
        let pid = u32::try_from(credentials.pid.as_raw_pid()).unwrap_or(0);
        Ok(Self { pid, uid: credentials.uid.as_raw(), groups })
    }

    /// Whether it may see what the agent sees: root may, and members of this group.
    #[must_use]
    pub fn may_read(&self, group: Option<u32>) -> bool {
        self.uid == 0 || group.is_some_and(|group| self.groups.contains(&group))
    }
}

/// `SO_PEERGROUPS` (4.13): groups as they were when the peer connected.
#[allow(unsafe_code, reason = "no crate that is used here has this option")]
fn supplementary_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(0);
        // SAFETY: the kernel writes at most `bytes` bytes into `groups`, which is that long, and tells how many in
        // `bytes`; any bits are a number.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Too small: the length that it needs was told.
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() || needed > GROUPS {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_tells_who_made_it() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&socket).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
        let own: Vec<_> = rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert!(own.iter().all(|group| peer.groups.contains(group)), "{own:?} {peer:?}");
    }

    #[test]
    fn only_root_and_the_group_may_read() {
        let peer = |uid, groups: &[u32]| Peer { pid: 1, uid, groups: groups.to_vec() };
        assert!(peer(0, &[]).may_read(None));
        assert!(!peer(1000, &[0, 4]).may_read(None));
        assert!(peer(1000, &[1000, 4]).may_read(Some(4)));
        assert!(!peer(1000, &[1000]).may_read(Some(4)));
    }
}
