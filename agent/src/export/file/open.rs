//! Opening the current file, which others may have put there.

use std::{
    fs::{self, File, FileType, Metadata, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, major, minor, open, readlinkat},
    io::Errno,
    process::geteuid,
};

/// What all users ran is nobody else's business.
const MODE: u32 = 0o600;
/// Links that lead to a file, and times that it is replaced while it is being opened.
const TRIES: usize = 8;
/// Devices that never block and keep nothing, by their numbers (`Documentation/admin-guide/devices.txt`):
/// `/dev/null`, and `/dev/full` to see how a full disk is told.
const DEVICES: [(u32, u32); 2] = [(1, 3), (1, 7)];
/// How much is read at once when the end of the last whole line is looked for.
const BLOCK: usize = 64 << 10;

/// Why a file is not written to.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("{path} cannot be opened", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It is a folder, or has no name.
    #[error("{path} is a folder; name a file in it", path = .0.display())]
    Folder(PathBuf),
    /// Its folder is missing.
    #[error(
        "there is no folder {path} to write events in; make it, open to nobody else: mkdir -m 700",
        path = .0.display()
    )]
    NoFolder(PathBuf),
    /// It is not a regular file.
    #[error(
        "{path} is {kind}; events go to a regular file, or to standard output if it is called -",
        path = path.display()
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is a symbolic link that somebody else may have put there.
    #[error(
        "{path} is a symbolic link of user {owner} and is not followed: only links of root and of the \
         agent's own user are; remove it, or name the file that it leads to",
        path = path.display()
    )]
    Link {
        /// The link.
        path: PathBuf,
        /// Who made it.
        owner: u32,
    },
    /// It became a symbolic link after the start.
    #[error(
        "{path} is a symbolic link now; remove it, or start the agent anew to follow it",
        path = .0.display()
    )]
    NewLink(PathBuf),
    /// Links lead to links.
    #[error(
        "{path} is one of more than {TRIES} symbolic links in a row; name the file itself",
        path = .0.display()
    )]
    Links(PathBuf),
    /// Somebody else may have put it there.
    #[error(
        "{path} belongs to user {owner}, in a folder where everybody may make files; delete it, or name a \
         file in a folder of the agent's own",
        path = path.display()
    )]
    Planted {
        /// The file.
        path: PathBuf,
        /// Who made it.
        owner: u32,
    },
    /// It has a second name, which may be that of a system file.
    #[error(
        "{path} is one of {links} hard links to a file, in a folder where others may make such; delete it, \
         or name a file in a folder of the agent's own",
        path = path.display()
    )]
    HardLinks {
        /// The file.
        path: PathBuf,
        /// Names of the file.
        links: u64,
    },
    /// It holds something else.
    #[error(
        "{path} does not hold events: it starts with no {{; name another file, or move it away",
        path = .0.display()
    )]
    NotEvents(PathBuf),
    /// Another agent writes to it.
    #[error("another process writes events to {path}; name another file for each", path = .0.display())]
    Busy(PathBuf),
    /// It changes all the time.
    #[error(
        "{path} was replaced {TRIES} times while it was being opened; see who does that",
        path = .0.display()
    )]
    Restless(PathBuf),
    /// The thread that compresses and deletes cannot be started.
    #[error("cannot start a thread to look after rotated files")]
    Thread(#[source] io::Error),
}

/// A file that may be appended to. It ends with a whole line.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) file: File,
    pub(super) facts: Metadata,
    /// Bytes of an unfinished line that were cut off.
    pub(super) cut: u64,
    pub(super) warnings: Vec<String>,
}

/// What tells a file from all others, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// Whose files are trusted in a folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keepers {
    folder_owner: u32,
    /// Everybody may make files there.
    public: bool,
}

// === impl Keepers ===

impl Keepers {
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let facts = fs::metadata(folder)?;
        Ok(Self { folder_owner: facts.uid(), public: facts.mode() & 0o002 != 0 })
    }

    /// Whether a file of this user may be one of ours.
    pub(super) fn may_own(self, owner: u32) -> bool {
        !self.public || is_trusted(owner) || owner == self.folder_owner
    }

    /// Whether only we and root can have put a file there.
    fn are_trusted(self) -> bool {
        !self.public && is_trusted(self.folder_owner)
    }
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

// === impl FileId ===

impl FileId {
    pub(super) fn of(facts: &Metadata) -> Self {
        Self { device: facts.dev(), inode: facts.ino() }
    }
}

// === resolving ===

/// Follows symbolic links of those who are trusted, at the end of the path.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, FileError> {
    let fail = |source| FileError::Open { path: path.to_owned(), source };
    let mut at = std::path::absolute(path).map_err(fail)?;
    for _ in 0..TRIES {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match open(&at, flags, Mode::empty()) {
            Ok(found) => File::from(found),
            // To be made; else whatever is wrong shows when it is opened.
            Err(_) => return Ok(at),
        };
        let facts = found.metadata().map_err(fail)?;
        if !facts.is_symlink() {
            return Ok(at);
        }
        if !is_trusted(facts.uid()) {
            return Err(FileError::Link { path: at, owner: facts.uid() });
        }
        // /dev/stdout leads there: to something that has no path.
        if fstatfs(&found).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC) {
            return Err(FileError::Kind { path: path.to_owned(), kind: "an open file of a process" });
        }
        // Of the very link that was looked at.
        let target = readlinkat(&found, "", Vec::new()).map_err(|errno| fail(errno.into()))?;
        at.pop();
        at.push(std::ffi::OsStr::from_bytes(target.as_bytes()));
    }
    Err(FileError::Links(at))
}

// === opening ===

/// Opens a file for appending, or makes it. Links are not followed.
pub(super) fn take(path: &Path) -> Result<Taken, FileError> {
    let fail = |source: io::Error| FileError::Open { path: path.to_owned(), source };
    let Some(folder) = path.parent().filter(|_| path.file_name().is_some()) else {
        return Err(FileError::Folder(path.to_owned()));
    };
    for _ in 0..TRIES {
        match create(path) {
            Ok(file) => {
                let facts = file.metadata().map_err(fail)?;
                let warnings = warnings(path, &facts);
                return Ok(Taken { file, facts, cut: 0, warnings });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FileError::NoFolder(folder.to_owned()));
            }
            Err(error) => return Err(fail(error)),
        }
        let Some((file, facts)) = open_existing(path)? else { continue };
        if !facts.is_file() {
            return Ok(Taken { file, facts, cut: 0, warnings: Vec::new() });
        }
        return take_over(path, folder, file, &facts);
    }
    Err(FileError::Restless(path.to_owned()))
}

/// Makes a file that was not there, and holds it against other agents.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
    let file = File::from(open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::from_raw_mode(MODE))?);
    // The umask can only have taken rights away, so nobody else could open it meanwhile. Not every file system
    // has modes or locks; nobody else can hold the lock, as nobody else knows of the file.
    let _ = file.set_permissions(Permissions::from_mode(MODE));
    let _ = file.try_lock();
    Ok(file)
}

/// Opens what is there, unless that changes meanwhile.
fn open_existing(path: &Path) -> Result<Option<(File, Metadata)>, FileError> {
    let fail = |source| FileError::Open { path: path.to_owned(), source };
    // Looked at first: to open a FIFO waits for a reader, to open a device can set it going.
    let expected = match fs::symlink_metadata(path) {
        Ok(expected) => expected,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if expected.is_dir() {
        return Err(FileError::Folder(path.to_owned()));
    }
    if expected.is_symlink() {
        return Err(FileError::NewLink(path.to_owned()));
    }
    let device = (major(expected.rdev()), minor(expected.rdev()));
    let is_harmless = expected.file_type().is_char_device() && DEVICES.contains(&device);
    if !expected.is_file() && !is_harmless {
        return Err(FileError::Kind { path: path.to_owned(), kind: kind(expected.file_type()) });
    }
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match open(path, flags | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(fail(errno.into())),
    };
    let facts = file.metadata().map_err(fail)?;
    Ok((FileId::of(&facts) == FileId::of(&expected)).then_some((file, facts)))
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() => "a block device",
        kind if kind.is_char_device() => "a terminal or another device",
        _ => "no regular file",
    }
}

/// Continues a regular file that was there.
fn take_over(path: &Path, folder: &Path, file: File, facts: &Metadata) -> Result<Taken, FileError> {
    let fail = |source| FileError::Open { path: path.to_owned(), source };
    let (owner, links) = (facts.uid(), facts.nlink());
    let keepers = Keepers::of(folder).map_err(fail)?;
    if !keepers.may_own(owner) {
        return Err(FileError::Planted { path: path.to_owned(), owner });
    }
    if links > 1 && !keepers.are_trusted() {
        return Err(FileError::HardLinks { path: path.to_owned(), links });
    }
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Err(FileError::Busy(path.to_owned())),
        // Not every file system knows locks.
        Ok(()) | Err(fs::TryLockError::Error(_)) => {}
    }
    // A file of somebody else must not lose its end because of a slip of the pen. After a power cut there
    // may be zeros where data never came to the disk.
    let mut first = [b'{'];
    file.read_at(&mut first, 0).map_err(fail)?;
    if !matches!(first, [b'{' | 0]) {
        return Err(FileError::NotEvents(path.to_owned()));
    }
    // Of now: whoever held the lock before may have written until then.
    let len = file.metadata().map_err(fail)?.len();
    let cut = cut_unfinished(&file, len).map_err(fail)?;
    let facts = file.metadata().map_err(fail)?;
    let warnings = warnings(path, &facts);
    Ok(Taken { file, facts, cut, warnings })
}

/// What to tell of a file that is written to all the same.
fn warnings(path: &Path, facts: &Metadata) -> Vec<String> {
    let (path, owner, mode) = (path.display(), facts.uid(), facts.mode() & 0o7777);
    let is_open = (mode & 0o066 != 0).then(|| {
        format!(
            "{path} is open to other users (mode {mode:04o}), who see there what everybody runs: \
             chmod 600 {path}"
        )
    });
    let is_of_another = (!is_trusted(owner)).then(|| {
        format!("{path} belongs to user {owner}, who can read and change what is recorded there: chown it")
    });
    is_open.into_iter().chain(is_of_another).collect()
}

/// Cuts off what follows the last newline; how many bytes that were.
pub(super) fn cut_unfinished(file: &File, len: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut end = len;
    let whole = loop {
        let size = end.min(BLOCK as u64);
        if size == 0 {
            break 0;
        }
        let from = end - size;
        let block = &mut block[..usize::try_from(size).expect("at most BLOCK")];
        file.read_exact_at(block, from)?;
        if let Some(newline) = block.iter().rposition(|byte| *byte == b'\n') {
            break from + newline as u64 + 1;
        }
        end = from;
    };
    if whole < len {
        file.set_len(whole)?;
    }
    Ok(len - whole)
}

/// When the first line of a file came, which is not written down anywhere. Files are made when the one before
/// is rotated, so their birth is close. Where the file system does not tell it, the latest rotation was that
/// moment, if the file was written to since; and if there was none, only the last write is known.
pub(super) fn first_line(
    birth: Option<SystemTime>,
    last_write: Option<SystemTime>,
    last_rotation: Option<SystemTime>,
) -> Option<SystemTime> {
    let rotation = || last_rotation.filter(|rotation| last_write.is_some_and(|write| *rotation <= write));
    birth.or_else(rotation).or(last_write)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn only_an_unfinished_line_is_cut_off() {
        let long = |lines: &[u8], unfinished: usize| [lines, &vec![b'x'; unfinished]].concat();
        for (before, whole) in [
            (Vec::new(), 0),
            (b"{}\n".to_vec(), 3),
            (b"{}\n{\"a\"".to_vec(), 3),
            (b"{\"a\"".to_vec(), 0),
            (b"{}\n\0\0\0".to_vec(), 3),
            (long(b"{}\n", BLOCK - 1), 3),
            (long(b"{}\n", BLOCK), 3),
            (long(b"{}\n", 3 * BLOCK + 7), 3),
            (long(b"", 2 * BLOCK), 0),
        ] {
            let file = file(&before);
            let cut = cut_unfinished(&file, before.len() as u64).unwrap();
            assert_eq!(cut, before.len() as u64 - whole);
            assert_eq!(file.metadata().unwrap().len(), whole);
        }
    }

    #[test]
    fn a_file_is_as_old_as_its_birth_or_else_the_last_rotation() {
        let at = |second| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        for (birth, last_write, last_rotation, first) in [
            (at(1), at(9), at(5), at(1)),
            (None, at(9), at(5), at(5)),
            // Nothing was written since: the file is older than that, or the clock was wrong.
            (None, at(4), at(5), at(4)),
            (None, at(9), None, at(9)),
            (None, None, at(5), None),
        ] {
            assert_eq!(first_line(birth, last_write, last_rotation), first);
        }
    }

    #[test]
    fn in_a_folder_of_everybody_only_files_of_the_trusted_are_ours() {
        let ours = geteuid().as_raw();
        let (private, public) =
            (Keepers { folder_owner: ours, public: false }, Keepers { folder_owner: ours, public: true });
        assert!(private.are_trusted() && !public.are_trusted());
        assert!(private.may_own(4321) && !public.may_own(4321));
        assert!(public.may_own(0) && public.may_own(ours));
        assert!(!Keepers { folder_owner: 4321, public: false }.are_trusted());
    }
}
