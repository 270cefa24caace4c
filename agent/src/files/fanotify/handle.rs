//! Which file or directory something is, whatever it is called.
//!
//! The kernel tells an object by the ID of its file system and a file handle. In a notice these lie one behind the
//! other: `fsid` (8 bytes), length of the handle (4), its type (4), its bytes
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/fanotify.h>. A [`Handle`] keeps just
//! these bytes, so that it is found by those of a notice.
#![allow(unsafe_code, reason = "libc does not offer this call, and hides what is in a fsid")]

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::{
    fs::{Mode, OFlags, fstatfs, openat},
    io::Errno,
};

use super::FanotifyError;

const FSID_LEN: usize = 8;
/// Where the handle's own bytes begin.
const HEAD: usize = FSID_LEN + 8;
/// The longest that the kernel makes: `MAX_HANDLE_SZ`.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/exportfs.h>
const MAX_LEN: usize = 128;
/// What fits without an allocation: with its two bytes before it a line of the cache. That of ext4 takes 24, of tmpfs
/// and XFS 28, of Btrfs 36, of an overlay over these up to 60.
const INLINE: usize = 62;
/// A handle that only says which object it is; it need not lead back to it. Linux 6.5 or later. It is what fanotify
/// itself asks file systems for, and all that overlayfs gives without `nfs_export`.
/// <https://git.kernel.org/torvalds/c/96b2b072ee62be8ae68c8ecf14854c4d0505a8f8>
const AT_HANDLE_FID: libc::c_int = 0x200;

/// Whether the kernel is asked with [`AT_HANDLE_FID`]: until it says that it does not know it.
static KNOWS_FID: AtomicBool = AtomicBool::new(true);

/// Which object it is, as long as its file system is mounted.
///
/// A map with this key is asked with [`HandleRef::as_bytes`], without an allocation.
#[derive(Clone)]
pub struct Handle(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

/// A [`Handle`] that lies in a notice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleRef<'a>(&'a [u8]);

/// `struct file_handle` with as much room as it can need.
#[repr(C)]
struct FileHandle {
    len: u32,
    kind: i32,
    bytes: [u8; MAX_LEN],
}

// === impl Handle ===

impl Handle {
    /// Of what is open; a descriptor with `O_PATH` will do, also of a symbolic link.
    ///
    /// # Errors
    /// When the file system has no handles, or does not say which one it is.
    pub fn of(object: BorrowedFd<'_>) -> Result<Self, FanotifyError> {
        let stat = fstatfs(object).map_err(FanotifyError::identify)?;
        // SAFETY: it is two numbers of 4 bytes under all of the names that C libraries have for it, without padding.
        let fsid: [u8; FSID_LEN] = unsafe { mem::transmute(stat.f_fsid) };
        let handle = FileHandle::of(object).map_err(FanotifyError::identify)?;

        let len = usize::try_from(handle.len).unwrap_or(MAX_LEN).min(MAX_LEN);
        let mut bytes = [0; HEAD + MAX_LEN];
        bytes[..FSID_LEN].copy_from_slice(&fsid);
        bytes[FSID_LEN..12].copy_from_slice(&handle.len.to_ne_bytes());
        bytes[12..HEAD].copy_from_slice(&handle.kind.to_ne_bytes());
        bytes[HEAD..HEAD + len].copy_from_slice(&handle.bytes[..len]);
        Ok(HandleRef(&bytes[..HEAD + len]).into())
    }

    /// Of what a name in a directory stands for; of the link itself if it is a symbolic link.
    ///
    /// # Errors
    /// When there is no such name; else as [`Self::of`].
    pub fn at(dir: BorrowedFd<'_>, name: impl AsRef<Path>) -> Result<Self, FanotifyError> {
        // Something else may be mounted there, with another fsid: both answers must be of one object.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = openat(dir, name.as_ref(), flags, Mode::empty()).map_err(FanotifyError::Identify)?;
        Self::of(object.as_fd())
    }

    /// What a map is asked with.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }

    /// As it would be in a notice.
    #[must_use]
    pub fn as_ref(&self) -> HandleRef<'_> {
        HandleRef(self.as_bytes())
    }
}

impl From<HandleRef<'_>> for Handle {
    fn from(HandleRef(from): HandleRef<'_>) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..from.len()), u8::try_from(from.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(from);
                Self(Repr::Inline { len, bytes })
            }
            _ => Self(Repr::Heap(from.into())),
        }
    }
}

impl Borrow<[u8]> for Handle {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

// As those of bytes, which `Borrow` asks for.
impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Handle {}

impl PartialOrd for Handle {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Handle {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialEq<HandleRef<'_>> for Handle {
    fn eq(&self, other: &HandleRef<'_>) -> bool {
        self.as_ref() == *other
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

// === impl HandleRef ===

impl<'a> HandleRef<'a> {
    /// From the head of a record and what is behind it, and what is left then; `None` if it does not fit.
    pub(super) fn split_from(record: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let len = record.get(FSID_LEN..12)?.try_into().ok()?;
        // Without bytes it names no object; so the kernel tells of file systems, which are not watched here.
        let len = usize::try_from(u32::from_ne_bytes(len)).ok().filter(|len| *len > 0)?;
        let (handle, rest) = record.split_at_checked(HEAD.checked_add(len)?)?;
        Some((Self(handle), rest))
    }

    /// Names the file system that the object is on.
    #[must_use]
    pub fn volume(self) -> [u8; FSID_LEN] {
        let mut volume = [0; FSID_LEN];
        volume.copy_from_slice(&self.0[..FSID_LEN]);
        volume
    }

    /// The object itself (`O_PATH`), whatever its name is by now. `volume` is open on its file system.
    ///
    /// # Errors
    /// When it is gone, its file system does not find objects by handles, or `CAP_DAC_READ_SEARCH` is missing.
    pub fn open(self, volume: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let mut handle = FileHandle { len: 0, kind: 0, bytes: [0; MAX_LEN] };
        let number = |at: usize| self.0.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok());
        let (Some(len), Some(kind)) = (number(FSID_LEN), number(FSID_LEN + 4)) else {
            return Err(Errno::STALE);
        };
        (handle.len, handle.kind) = (u32::from_ne_bytes(len), i32::from_ne_bytes(kind));
        let bytes = &self.0[HEAD..];
        handle.bytes.get_mut(..bytes.len()).ok_or(Errno::STALE)?.copy_from_slice(bytes);
        // SAFETY: a `struct file_handle` with as many bytes as it says, which the kernel only reads.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                volume.as_raw_fd(),
                &raw const handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        match RawFd::try_from(fd) {
            // SAFETY: the kernel has just made it, for nobody else.
            Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(super::group::last_errno()),
        }
    }

    /// What a map with the key [`Handle`] is asked with.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for HandleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        let (fsid, handle) = self.0.split_at(FSID_LEN.min(self.0.len()));
        hex(f, fsid)?;
        f.write_str(":")?;
        hex(f, handle.get(4..).unwrap_or_default())
    }
}

// === impl FileHandle ===

impl FileHandle {
    fn of(object: BorrowedFd<'_>) -> Result<Self, Errno> {
        if KNOWS_FID.load(Relaxed) {
            match Self::ask(object, libc::AT_EMPTY_PATH | AT_HANDLE_FID) {
                Err(Errno::INVAL) => KNOWS_FID.store(false, Relaxed),
                answer => return answer,
            }
        }
        Self::ask(object, libc::AT_EMPTY_PATH)
    }

    fn ask(object: BorrowedFd<'_>, flags: libc::c_int) -> Result<Self, Errno> {
        const ROOM: u32 = 128;
        const _: () = assert!(ROOM as usize == MAX_LEN);
        let mut handle = Self { len: ROOM, kind: 0, bytes: [0; MAX_LEN] };
        let mut mount_id: libc::c_int = 0;
        // SAFETY: the path ends with a NUL; the handle has the room that it says, and the kernel writes no more.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                object.as_raw_fd(),
                c"".as_ptr(),
                &raw mut handle,
                &raw mut mount_id,
                flags,
            )
        };
        if result == 0 { Ok(handle) } else { Err(super::group::last_errno()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn record(len: usize) -> Vec<u8> {
        let mut bytes = vec![7; HEAD + len];
        bytes[FSID_LEN..12].copy_from_slice(&u32::try_from(len).unwrap().to_ne_bytes());
        bytes
    }

    #[test]
    fn handles_of_all_lengths_are_found_by_the_bytes_of_a_notice() {
        let records: Vec<_> = (1..=MAX_LEN).map(record).collect();
        let handles = records.iter().map(|bytes| HandleRef::split_from(bytes).unwrap().0);
        let map: HashMap<Handle, usize> = handles.clone().map(Handle::from).zip(0..).collect();
        assert_eq!(map.len(), records.len());
        for (at, handle) in handles.enumerate() {
            assert_eq!(map.get(handle.as_bytes()), Some(&at));
        }
    }

    #[test]
    fn a_handle_with_nothing_or_less_than_it_says_is_none() {
        assert_eq!(HandleRef::split_from(&record(0)), None);
        let mut bytes = record(8);
        bytes.pop();
        assert_eq!(HandleRef::split_from(&bytes), None);
        bytes[FSID_LEN..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(HandleRef::split_from(&bytes), None);
        assert_eq!(HandleRef::split_from(&bytes[..HEAD - 1]), None);
    }

    #[test]
    fn a_handle_takes_one_line_of_the_cache() {
        assert_eq!(size_of::<Handle>(), 64);
    }
}
