//! The descriptor that marks belong to, and that notices are read from.
#![allow(unsafe_code, reason = "no crate that is used here offers fanotify")]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use rustix::{
    fs::{FileType, fstat},
    io::Errno,
};

use super::{
    Mask, Notice,
    parse::{UnknownVersion, parse},
};

/// As many bytes as are read at a time: some 600 notices.
const BUFFER_LEN: usize = 64 << 10;
/// How often one call reads: more than a full queue of the usual length (`fs.fanotify.max_queued_events`, 16384
/// notices of some 100 bytes), so that who makes notices as fast as they are read does not keep the reader for ever.
const MAX_READS: usize = 64;

/// How many notices may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Queue {
    /// As many as `fs.fanotify.max_queued_events` says when the group is opened. What is over that is lost, and
    /// [`Notice::Overflow`] tells of it.
    #[default]
    Limited,
    /// Any number, in the memory of the agent's control group.
    Unlimited,
}

/// What the kernel can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// What was created, deleted or moved is told by its handle, besides its name. Linux 5.17, and later versions of
    /// 5.10 and 5.15. <https://git.kernel.org/torvalds/c/d61fd650e9d206a71fda789f02a1ced4b19944c4>
    pub target_fid: bool,
    /// A rename is one notice with both names ([`Mask::RENAME`]), rather than two without a tie between them. Linux
    /// 5.17 as well. <https://git.kernel.org/torvalds/c/8cc3b1ccd930fe6971e1527f0c4f1bdc8cb56026>
    pub rename: bool,
}

/// Marks, and a queue of what happened to what is marked.
#[derive(Debug)]
pub struct Group {
    fd: OwnedFd,
    features: Features,
}

/// Where notices are read to. Apart from the [`Group`], so that marks can be set while they are looked at.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

/// What came of a [`Group::read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// How many notices were given.
    pub notices: u64,
    /// How many were not, since they are not well formed.
    pub malformed: u64,
    /// Whether some may still wait: reading stopped for now though they came in without a pause.
    pub more: bool,
}

/// Why files cannot be watched by fanotify.
#[derive(Debug, thiserror::Error)]
pub enum FanotifyError {
    /// `EPERM` for the group.
    #[error(
        "cannot watch files by fanotify: CAP_SYS_ADMIN is missing; start the agent as root, or give it CAP_SYS_ADMIN \
         in the first user namespace until it has started"
    )]
    NotPermitted,
    /// `ENOSYS` for the group.
    #[error(
        "cannot watch files by fanotify: the kernel was built without it, or a seccomp filter hides it; use a kernel \
         with CONFIG_FANOTIFY=y, and let the agent call fanotify_init and fanotify_mark"
    )]
    NotBuilt,
    /// `EINVAL` for the group.
    #[error(
        "cannot watch files by fanotify: the kernel does not tell names of files; use Linux 5.9 or later"
    )]
    TooOld,
    /// `EMFILE` for the group.
    #[error(
        "cannot watch files by fanotify: too many groups or open files; raise fs.fanotify.max_user_groups or the \
         limit of open files (LimitNOFILE=, ulimit -n)"
    )]
    TooManyGroups,
    /// Something else for the group.
    #[error("cannot watch files by fanotify")]
    Open(#[source] Errno),
    /// `ENOSPC`.
    #[error("no more files can be marked; raise fs.fanotify.max_user_marks")]
    TooManyMarks,
    /// `EOPNOTSUPP`. OverlayFS has them since Linux 6.6, and what has none of its own since 6.7.
    #[error("cannot mark it: its file system has no file handles; leave it out, or use a later kernel")]
    NoHandles,
    /// `ENODEV`. Since Linux 6.8 it can have a group of its own, see [`Self::OtherFileSystem`].
    #[error("cannot mark it: its file system has no ID, as FUSE; leave it out, or use Linux 6.8 or later")]
    NoFsid,
    /// `EXDEV`. A Btrfs subvolume, or a file system without an ID (FUSE, an overlay without an upper layer), shares a
    /// group with no other file system, so the first mark of a group decides. Since Linux 6.8 it can have a group of
    /// its own.
    /// <https://git.kernel.org/torvalds/c/30ad1938326bf9303ca38090339d948975a626f5>
    #[error(
        "cannot mark it: a Btrfs subvolume, or a file system without an ID, cannot be watched together with others; \
         use a group of its own, on Linux 6.8 or later"
    )]
    OtherFileSystem,
    /// `EACCES`.
    #[error("cannot mark it: the agent may not read it; give it CAP_DAC_READ_SEARCH")]
    NotReadable,
    /// Something else for the mark.
    #[error("cannot mark it")]
    Mark(#[source] Errno),
    /// Its handle is not known.
    #[error("cannot tell which file it is")]
    Identify(#[source] Errno),
    /// The kernel speaks another language.
    #[error(
        "the kernel tells of files in version {0} of fanotify's format, of which only 3 is known; update the agent"
    )]
    UnknownVersion(u8),
    /// Notices cannot be read.
    #[error("cannot read what happened to files")]
    Read(#[source] Errno),
}

/// What is marked, and how the kernel finds it.
#[derive(Clone, Copy)]
enum Object<'a> {
    Directory(BorrowedFd<'a>),
    File(BorrowedFd<'a>),
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

// === impl Group ===

impl Group {
    /// Asks the kernel for a group that tells directory, name and, where it can, object.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or where the kernel cannot do it.
    pub fn open(queue: Queue) -> Result<Self, FanotifyError> {
        let flags = flags(queue);
        let (fd, target_fid) = match init(flags | libc::FAN_REPORT_TARGET_FID) {
            Err(Errno::INVAL) => (init(flags).map_err(FanotifyError::open)?, false),
            answer => (answer.map_err(FanotifyError::open)?, true),
        };
        let rename = knows_rename(fd.as_fd());
        Ok(Self { fd, features: Features { target_fid, rename } })
    }

    /// As a kernel before 5.17 would have it.
    #[cfg(test)]
    pub(super) fn open_without_features() -> Self {
        let fd = init(flags(Queue::Limited)).expect("this needs root");
        Self { fd, features: Features { target_fid: false, rename: false } }
    }

    /// What the kernel can tell.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Tells from now on what is in `mask` of a directory and of what is directly in it, besides what was asked for
    /// before. What happens to a directory in it, as that it is opened, is told by that directory's own handle.
    ///
    /// The descriptor may be one with `O_PATH`, and is not needed afterwards.
    ///
    /// The mark keeps the directory's inode in memory. It goes with the last name of the directory.
    ///
    /// # Errors
    /// When it is no directory, cannot be read, or its file system cannot be watched.
    pub fn mark_directory(&self, dir: BorrowedFd<'_>, mask: Mask) -> Result<(), FanotifyError> {
        self.add(Object::Directory(dir), mask)
    }

    /// As [`Self::mark_directory`], of something that is not a directory. What happens to names in a directory, as
    /// [`Mask::CREATE`], is left out of `mask`. With an `O_PATH` descriptor `/proc` must be mounted.
    ///
    /// # Errors
    /// When it cannot be read, or its file system cannot be watched.
    pub fn mark_file(&self, file: BorrowedFd<'_>, mask: Mask) -> Result<(), FanotifyError> {
        self.add(Object::File(file), mask)
    }

    /// Tells from now on what is in `to`, where `from` was asked for until now. What is in both is told all the time.
    ///
    /// # Errors
    /// As the call that marked it.
    pub fn replace(&self, object: BorrowedFd<'_>, from: Mask, to: Mask) -> Result<(), FanotifyError> {
        let object = Object::of(object)?;
        let (from, to) = (self.known(object, from), self.known(object, to));
        if to.is_empty() {
            return self.remove(object).map(|_| ());
        }
        if !from.contains(to) {
            self.add(object, to)?;
        }
        let removed = from - to;
        if !removed.is_empty() {
            // No flags: those of a directory stay as long as the mark does.
            self.mark(libc::FAN_MARK_REMOVE, object, removed.bits()).map_err(FanotifyError::mark)?;
        }
        Ok(())
    }

    /// Tells nothing more of it. Whether it had a mark.
    ///
    /// What waits to be read is still told.
    ///
    /// # Errors
    /// As the call that marked it.
    pub fn unmark(&self, object: BorrowedFd<'_>) -> Result<bool, FanotifyError> {
        self.remove(Object::of(object)?)
    }

    /// Gives all that waits to be read, oldest first. Does not wait for more, and does not go on for ever: see
    /// [`Drained::more`].
    ///
    /// # Errors
    /// When it cannot be read, or is in another format than is known.
    pub fn read(
        &self,
        buffer: &mut Buffer,
        mut take: impl FnMut(Notice<'_>),
    ) -> Result<Drained, FanotifyError> {
        let mut drained = Drained::default();
        for _ in 0..MAX_READS {
            let len = match rustix::io::read(&self.fd, &mut *buffer.0) {
                Ok(len) if len > 0 => len,
                Ok(_) | Err(Errno::AGAIN) => return Ok(drained),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(FanotifyError::Read(error)),
            };
            let counted = |notice: Notice<'_>| {
                drained.notices += 1;
                take(notice);
            };
            let malformed = parse(&buffer.0[..len], counted);
            drained.malformed +=
                malformed.map_err(|UnknownVersion(found)| FanotifyError::UnknownVersion(found))?;
        }
        drained.more = true;
        Ok(drained)
    }

    fn known(&self, object: Object<'_>, mask: Mask) -> Mask {
        let mask = mask.known(self.features.rename);
        match object {
            Object::Directory(_) => mask,
            Object::File(_) => mask.of_file(),
        }
    }

    fn add(&self, object: Object<'_>, mask: Mask) -> Result<(), FanotifyError> {
        let mask = self.known(object, mask);
        if mask.is_empty() {
            return Ok(());
        }
        self.mark(libc::FAN_MARK_ADD, object, object.bits(mask)).map_err(FanotifyError::mark)
    }

    fn remove(&self, object: Object<'_>) -> Result<bool, FanotifyError> {
        let every = self.known(object, Mask::every(self.features.rename));
        match self.mark(libc::FAN_MARK_REMOVE, object, object.bits(every)) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(FanotifyError::mark(error)),
        }
    }

    fn mark(&self, command: libc::c_uint, object: Object<'_>, bits: u64) -> Result<(), Errno> {
        let mark = |flags, dir: RawFd, path: Option<&CStr>| {
            let path = path.map_or(ptr::null(), CStr::as_ptr);
            // SAFETY: the path is null or ends with a NUL, and the kernel keeps none of it.
            let result =
                unsafe { libc::fanotify_mark(self.fd.as_raw_fd(), command | flags, bits, dir, path) };
            if result == 0 { Ok(()) } else { Err(last_errno()) }
        };
        match object {
            Object::Directory(dir) => mark(libc::FAN_MARK_ONLYDIR, dir.as_raw_fd(), Some(c".")),
            // Without a path the kernel takes no O_PATH descriptor, and an empty one it never takes.
            Object::File(file) => match mark(0, file.as_raw_fd(), None) {
                Err(Errno::BADF) => {
                    let link = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
                        .expect("there is no NUL in a number");
                    mark(0, libc::AT_FDCWD, Some(&link))
                }
                answer => answer,
            },
        }
    }
}

/// To wait until something can be read.
impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What every kernel is asked for.
fn flags(queue: Queue) -> libc::c_uint {
    let queue = match queue {
        Queue::Limited => 0,
        Queue::Unlimited => libc::FAN_UNLIMITED_QUEUE,
    };
    // No FAN_REPORT_TID: notices of two threads would not be merged. No FAN_REPORT_PIDFD: the kernel would open one
    // for each notice that is read.
    queue
        | libc::FAN_CLASS_NOTIF
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK
        | libc::FAN_UNLIMITED_MARKS
        | libc::FAN_REPORT_FID
        | libc::FAN_REPORT_DFID_NAME
}

fn init(flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // How the kernel would open files for a notice; with handles it opens none.
    let opened = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE).cast_unsigned();
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::fanotify_init(flags, opened) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel knows [`Mask::RENAME`]. It looks at the mask before the object, so none is needed to ask.
fn knows_rename(group: BorrowedFd<'_>) -> bool {
    let bits = Mask::RENAME.bits();
    // SAFETY: a null path is allowed, and then the descriptor, which is none, is looked at.
    let result = unsafe { libc::fanotify_mark(group.as_raw_fd(), libc::FAN_MARK_ADD, bits, -1, ptr::null()) };
    result != 0 && last_errno() == Errno::BADF
}

// === impl Object ===

impl<'a> Object<'a> {
    fn of(fd: BorrowedFd<'a>) -> Result<Self, FanotifyError> {
        let stat = fstat(fd).map_err(FanotifyError::Mark)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Directory(fd),
            _ => Self::File(fd),
        })
    }

    fn bits(self, mask: Mask) -> u64 {
        match self {
            Self::Directory(_) => mask.of_directory(),
            Self::File(_) => mask.bits(),
        }
    }
}

// === impl Buffer ===

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER_LEN].into())
    }
}

// === impl FanotifyError ===

impl FanotifyError {
    fn open(error: Errno) -> Self {
        match error {
            Errno::PERM => Self::NotPermitted,
            Errno::NOSYS => Self::NotBuilt,
            Errno::INVAL => Self::TooOld,
            Errno::MFILE => Self::TooManyGroups,
            other => Self::Open(other),
        }
    }

    fn mark(error: Errno) -> Self {
        match error {
            Errno::NOSPC => Self::TooManyMarks,
            Errno::OPNOTSUPP => Self::NoHandles,
            Errno::NODEV => Self::NoFsid,
            Errno::XDEV => Self::OtherFileSystem,
            Errno::ACCESS => Self::NotReadable,
            other => Self::Mark(other),
        }
    }

    pub(super) fn identify(error: Errno) -> Self {
        match error {
            Errno::OPNOTSUPP => Self::NoHandles,
            other => Self::Identify(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_advice() {
        for (error, advice) in [
            (FanotifyError::open(Errno::PERM), "CAP_SYS_ADMIN"),
            (FanotifyError::open(Errno::NOSYS), "CONFIG_FANOTIFY"),
            (FanotifyError::open(Errno::INVAL), "5.9"),
            (FanotifyError::open(Errno::MFILE), "fs.fanotify.max_user_groups"),
            (FanotifyError::mark(Errno::NOSPC), "fs.fanotify.max_user_marks"),
            (FanotifyError::mark(Errno::OPNOTSUPP), "no file handles"),
            (FanotifyError::mark(Errno::NODEV), "no ID"),
            (FanotifyError::mark(Errno::XDEV), "a group of its own"),
            (FanotifyError::mark(Errno::ACCESS), "CAP_DAC_READ_SEARCH"),
            (FanotifyError::identify(Errno::OPNOTSUPP), "no file handles"),
        ] {
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
