//! Inodes that are looked at without being opened for anything, so that neither FIFOs nor devices nor automounts
//! take notice.

use std::{io, ops::ControlFlow, os::fd::OwnedFd, path::Path};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxAttributes, StatxFlags, fstatfs, open, openat, statx,
};

/// Bytes of entries that are read at a time.
const LISTING: usize = 32 << 10;

/// File systems that somebody's program serves, or that show what the kernel has in memory, by the magic numbers
/// of <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/magic.h>.
const SPECIAL: &[(u32, &str)] = &[
    (0x0000_0187, "autofs"),
    (0x0000_1cd1, "devpts"),
    (0x0000_9fa0, "proc"),
    (0x0027_e0eb, "cgroup"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6265_6570, "configfs"),
    (0x6265_6572, "sysfs"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x6165_676c, "pstore"),
    (0x6573_5546, "fuse"),
    (0x6e73_6673, "nsfs"),
    (0x7363_6673, "securityfs"),
    (0x7472_6163, "tracefs"),
    (0xcafe_4a11, "bpf"),
    (0xf97c_ff8c, "selinuxfs"),
];

/// An inode that is held.
pub(super) struct Inode {
    pub(super) fd: OwnedFd,
    pub(super) stat: Statx,
}

/// What an inode is known by as long as it is held: device and number.
pub(super) type Key = (u32, u32, u64);

/// What an entry of a directory is, without asking the server of a file system for the latest.
pub(super) fn stat_entry(directory: &OwnedFd, name: &[u8]) -> io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    Ok(statx(directory, name, flags, StatxFlags::BASIC_STATS)?)
}

/// The kind of file.
pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Each entry of a directory but itself and its parent, until there is a break.
pub(super) fn each_entry(
    directory: &OwnedFd,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8], FileType) -> ControlFlow<()>,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let listed = openat(directory, ".", flags, Mode::empty())?;
    buffer.clear();
    buffer.reserve(LISTING);
    let mut entries = RawDir::new(listed, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && each(name, entry.file_type()).is_break() {
            break;
        }
    }
    Ok(())
}

// === impl Inode ===

impl Inode {
    /// A directory by a path of the agent's own, links followed: `/proc/123/root` is one.
    pub(super) fn root(path: &Path) -> io::Result<Self> {
        Self::of(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// An entry of a directory: the symbolic link if it is one, and not what would be mounted on it.
    pub(super) fn entry(&self, name: &[u8]) -> io::Result<Self> {
        // With O_DIRECTORY an automount would be set off.
        // https://github.com/torvalds/linux/blob/v6.12/fs/namei.c#L1418
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::of(openat(&self.fd, name, flags, Mode::empty())?)
    }

    /// The same once more.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, stat: self.stat })
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let stat = statx(&fd, "", flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        Ok(Self { fd, stat })
    }

    pub(super) fn kind(&self) -> FileType {
        kind(&self.stat)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    pub(super) fn key(&self) -> Key {
        (self.stat.stx_dev_major, self.stat.stx_dev_minor, self.stat.stx_ino)
    }

    /// Whether it is on another mount or file system than the other.
    pub(super) fn is_mounted_apart_from(&self, other: &Self) -> bool {
        let device = |inode: &Self| (inode.stat.stx_dev_major, inode.stat.stx_dev_minor);
        // Mounts have numbers since Linux 5.8.
        let mount = |inode: &Self| {
            (inode.stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(inode.stat.stx_mnt_id)
        };
        device(self) != device(other) || mount(self) != mount(other)
    }

    /// Whether going there would mount something.
    pub(super) fn is_automount(&self) -> bool {
        self.stat.stx_attributes.contains(StatxAttributes::AUTOMOUNT)
    }

    /// The name of its file system, if that is not one of files that are kept somewhere.
    pub(super) fn special(&self) -> Option<&'static str> {
        // The number has 32 bits, and on some machines a sign.
        let magic = u32::try_from(fstatfs(&self.fd).ok()?.f_type & 0xffff_ffff).ok()?;
        SPECIAL.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
    }
}
