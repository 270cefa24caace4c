//! One agent of a name on a host.
//!
//! The lock is the kernel's (`flock`), so it ends with its holder, however that ends, and a file that is left
//! over locks nobody out. What is written in the file is for people: who holds the lock is asked of the
//! kernel.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use procfs::{
    LockKind, LockType,
    process::{Process, Status},
};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, major, minor,
        mkdir, openat, statat,
    },
    io::Errno,
    process::geteuid,
};
use tracing::warn;

/// How often a file may be replaced, or its holder not be found, before that is said.
const TRIES: u32 = 5;
/// Between two looks for a holder: one that ends is gone by then.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest name of an instance; it names files.
const LONGEST_NAME: usize = 64;
/// What is read of a lock file, whoever wrote it.
const LONGEST_NOTE: usize = 128;
/// What is shown of a program's path.
const LONGEST_PATH: usize = 200;
/// Those who may not write also may not read. Who can open a file can lock it, and with a file that all may
/// read, all could keep the agent from starting.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// The right to be the one agent of a name. It ends when this is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Who holds a lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its process ID: as this process would name it, unless the holder cannot be [seen](Self::seen).
    pub pid: Option<u32>,
    /// When it took the lock, as RFC 3339 in UTC.
    pub since: Option<String>,
    /// Path of its program, or its name where the path may not be read.
    pub program: Option<String>,
    /// Whether it is in this process's PID namespace or below. Where it is not, its process ID is what it wrote
    /// down, which means nothing here.
    pub seen: bool,
    /// Whether it is in this process's PID namespace itself.
    pub same_namespace: bool,
}

/// Why the lock cannot be had. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is held.
    #[error(
        "instance {instance} runs already: {holder}; stop it ({}), or start this one with --instance NAME to \
         run two on purpose",
        holder.how_to_stop()
    )]
    Held {
        /// The name that is taken.
        instance: String,
        /// By whom.
        holder: Holder,
    },
    /// A name that cannot be.
    #[error(
        "instance name {0:?} cannot be; use 1 to {LONGEST_NAME} letters, digits, '-', '_' and '.', and no '.' \
         at the start"
    )]
    Name(String),
    /// The folder is not there and cannot be made.
    #[error("cannot make the folder {} for locks; {}", .0.display(), mend_access("make it, with mode 755"))]
    MakeFolder(PathBuf, #[source] Errno),
    /// The folder cannot be used.
    #[error("cannot open the folder {} for locks; {}", .0.display(), mend_access("it must be a folder"))]
    OpenFolder(PathBuf, #[source] Errno),
    /// Somebody else could replace files in the folder.
    #[error(
        "the folder {} is {why}, who could put another lock in place; make it root's, with mode 755",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be opened.
    #[error("cannot open the lock {}; {}", .0.display(), mend_access("remove what is there"))]
    Open(PathBuf, #[source] Errno),
    /// What is there is not a lock of ours.
    #[error("{} is {why}, which is no lock of an agent's; remove it", path.display())]
    File {
        /// What is there.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be locked.
    #[error("cannot lock {}; its file system must know flock(2)", .0.display())]
    Flock(PathBuf, #[source] Errno),
    /// Something replaces the file all the time.
    #[error("{} is replaced again and again; find out what does that", .0.display())]
    Replaced(PathBuf),
}

fn mend_access(else_mend: &'static str) -> &'static str {
    if geteuid().is_root() { else_mend } else { "the agent needs root: run it with sudo" }
}

// === impl Lock ===

impl Lock {
    /// Takes the lock of `instance` in `folder`, which is made, with mode 755 and with those above it, if it is missing.
    ///
    /// # Errors
    /// When another process holds it, with what can be told of that process; when the folder cannot be made or
    /// used, or somebody else than root and this process's user may write to it.
    pub fn take(folder: &Path, instance: &str) -> Result<Self, LockError> {
        check_name(instance)?;
        let name = format!("{instance}.lock");
        let path = folder.join(&name);
        let folder = open_folder(folder)?;
        let mut unseen = None;
        for _ in 0..TRIES {
            let file = open_file(&folder, &name, &path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &folder, &name) => {
                    let lock = Self { file };
                    if let Err(error) = lock.note() {
                        warn!("cannot write into {}, so it does not say who runs: {error}", path.display());
                    }
                    return Ok(lock);
                }
                // Replaced since it was opened: the next would open and lock the new one.
                Ok(()) => unseen = None,
                Err(Errno::WOULDBLOCK) => {
                    let holder = Holder::of(&file);
                    if holder.seen {
                        return Err(LockError::Held { instance: instance.to_owned(), holder });
                    }
                    // It may be about to end. Else it is where this process cannot see it.
                    unseen = Some(holder);
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(LockError::Flock(path, error)),
            }
        }
        match unseen {
            Some(holder) => Err(LockError::Held { instance: instance.to_owned(), holder }),
            None => Err(LockError::Replaced(path)),
        }
    }

    /// Writes down who holds it.
    fn note(&self) -> io::Result<()> {
        let mut now = prost_types::Timestamp::from(SystemTime::now());
        now.nanos = 0;
        let note = format!("{} {now} {}\n", std::process::id(), env!("CARGO_PKG_VERSION"));
        self.file.write_all_at(note.as_bytes(), 0)?;
        self.file.set_len(note.len() as u64)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Of no consequence where it fails: nobody decides by it. The file stays, since a file cannot be removed
        // without a moment in which two processes hold the lock of a name.
        let _stale_note = self.file.set_len(0);
    }
}

fn check_name(instance: &str) -> Result<(), LockError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let length = 1..=LONGEST_NAME;
    if length.contains(&instance.len()) && instance.chars().all(fits) && !instance.starts_with('.') {
        return Ok(());
    }
    Err(LockError::Name(instance.chars().take(LONGEST_NAME).collect()))
}

fn open_folder(path: &Path) -> Result<OwnedFd, LockError> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty())
    };
    let failed = |error| LockError::OpenFolder(path.to_owned(), error);
    let folder = match open() {
        Err(Errno::NOENT) => {
            if let Some(parent) = path.parent()
                && let Err(error) = DirBuilder::new().recursive(true).mode(0o755).create(parent)
            {
                let error = Errno::from_io_error(&error).unwrap_or(Errno::NOENT);
                return Err(LockError::MakeFolder(path.to_owned(), error));
            }
            match mkdir(path, FOLDER_MODE) {
                // Another agent may start at the same time.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(LockError::MakeFolder(path.to_owned(), error)),
            }
            let folder = open().map_err(failed)?;
            if uid_of(&fstat(&folder).map_err(failed)?) == geteuid().as_raw() {
                // Whatever the umask.
                fchmod(&folder, FOLDER_MODE).map_err(failed)?;
            }
            folder
        }
        opened => opened.map_err(failed)?,
    };
    let stat = fstat(&folder).map_err(failed)?;
    let wrong = |why| Err(LockError::Folder { path: path.to_owned(), why });
    if let Some(owner) = foreign_owner(&stat) {
        return wrong(format!("owned by user {owner}"));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        return wrong(format!("open to writing by others (mode {:o})", stat.st_mode & 0o7777));
    }
    Ok(folder)
}

fn open_file(folder: &OwnedFd, name: &str, path: &Path) -> Result<File, LockError> {
    let wrong = |why: &str| Err(LockError::File { path: path.to_owned(), why: why.to_owned() });
    let failed = |error| LockError::Open(path.to_owned(), error);
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        // What is there may be a terminal, or a device that waits.
        | OFlags::NOCTTY
        | OFlags::NONBLOCK;
    let file = match openat(folder, name, flags, FILE_MODE) {
        Err(Errno::LOOP) => return wrong("a symbolic link"),
        Err(Errno::ISDIR) => return wrong("a folder"),
        opened => File::from(opened.map_err(failed)?),
    };
    let stat = fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return wrong("no regular file");
    }
    if let Some(owner) = foreign_owner(&stat) {
        return wrong(&format!("owned by user {owner}"));
    }
    if Mode::from_raw_mode(stat.st_mode) != FILE_MODE && uid_of(&stat) == geteuid().as_raw() {
        fchmod(&file, FILE_MODE).map_err(failed)?;
    }
    Ok(file)
}

/// Whether the file is still the one of that name.
fn is_at(file: &File, folder: &OwnedFd, name: &str) -> bool {
    let (Ok(opened), Ok(there)) = (fstat(file), statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)) else {
        return false;
    };
    (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)
}

fn uid_of(stat: &Stat) -> u32 {
    stat.st_uid
}

/// The owner, if that is neither root nor this process's user.
fn foreign_owner(stat: &Stat) -> Option<u32> {
    let owner = uid_of(stat);
    (owner != 0 && owner != geteuid().as_raw()).then_some(owner)
}

// === impl Holder ===

/// What a holder wrote down.
#[derive(Debug, PartialEq, Eq)]
struct Note {
    pid: u32,
    since: String,
}

impl Holder {
    /// Who has locked `file`.
    fn of(file: &File) -> Self {
        let note = Note::read(file);
        let Some(pid) = locked_by(file) else {
            let (pid, since) = note.map(|note| (note.pid, note.since)).unzip();
            return Self { pid, since, ..Self::default() };
        };
        let status = Process::new(pid.cast_signed()).and_then(|process| process.status()).ok();
        // What the process takes its own number to be.
        let inner = status.as_ref().and_then(innermost_pid).unwrap_or(pid);
        Self {
            pid: Some(pid),
            // Else it is of a holder before this one.
            since: note.filter(|note| note.pid == inner).map(|note| note.since),
            program: program_of(pid).or_else(|| Some(printable(&status?.name))),
            seen: true,
            same_namespace: match (namespace_of("self"), namespace_of(&pid.to_string())) {
                (Some(ours), Some(theirs)) => ours == theirs,
                // Without the right to ask: a process that has two numbers is in two namespaces.
                _ => inner == pid,
            },
        }
    }

    fn how_to_stop(&self) -> String {
        match self.pid {
            Some(pid) if self.seen => format!("systemctl stop nightjar, or kill {pid}"),
            _ => "systemctl stop nightjar on the host, or in its container".to_owned(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seen, self.pid) {
            (true, Some(pid)) => write!(f, "process {pid}")?,
            (false, Some(pid)) => write!(f, "a process that is {pid} in a PID namespace not seen from here")?,
            (_, None) => write!(f, "a process in a PID namespace not seen from here")?,
        }
        if let Some(program) = &self.program {
            write!(f, " ({program})")?;
        }
        if self.seen && !self.same_namespace {
            write!(f, ", of another PID namespace such as a container's")?;
        }
        if let Some(since) = &self.since {
            write!(f, ", since {since}")?;
        }
        Ok(())
    }
}

impl Note {
    fn read(file: &File) -> Option<Self> {
        let mut bytes = [0; LONGEST_NOTE];
        let length = file.read_at(&mut bytes, 0).ok()?;
        Self::parse(bytes.get(..length)?)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.lines().next()?.split(' ');
        let pid = words.next()?.parse().ok()?;
        let since: prost_types::Timestamp = words.next()?.parse().ok()?;
        Some(Self { pid, since: since.to_string() })
    }
}

/// The process that has `file` locked, as the kernel tells it: of this process's PID namespace or below, as
/// others are not shown.
fn locked_by(file: impl AsFd) -> Option<u32> {
    let stat = fstat(file).ok()?;
    let device = (major(stat.st_dev), minor(stat.st_dev));
    let rows = procfs::locks().ok()?;
    let of_file = rows.iter().filter(|row| {
        row.lock_type == LockType::FLock && matches!(row.kind, LockKind::Write) && row.inode == stat.st_ino
    });
    // On btrfs and overlayfs the device is not the one that a process is told: then the inode must do.
    let row =
        of_file.clone().find(|row| (row.devmaj, row.devmin) == device).or_else(|| of_file.clone().next());
    row?.pid?.try_into().ok()
}

fn innermost_pid(status: &Status) -> Option<u32> {
    status.nspid.as_ref()?.last()?.cast_unsigned().into()
}

fn namespace_of(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/pid")).ok()
}

fn program_of(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(printable(&path.to_string_lossy()))
}

/// Without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().take(LONGEST_PATH).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
        process,
    };

    use rustix::{fs::mknodat, thread::set_thread_uid};
    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::service::testing::{Other, is_root, other, say};

    const FOLDER: &str = "NIGHTJAR_TEST_FOLDER";
    const IN_PID_NAMESPACE: &[&str] = &["unshare", "--pid", "--fork", "--mount-proc"];

    /// What another process does: takes the lock, says how that went, and waits for its input to end.
    #[test]
    #[ignore = "is the other process of tests below"]
    fn another_agent() {
        let Some(folder) = std::env::var_os(FOLDER) else { return };
        let lock = Lock::take(Path::new(&folder), "one");
        say(&lock.as_ref().map_or_else(ToString::to_string, |_| "taken".to_owned()));
        let _ended = io::stdin().read(&mut [0]);
        drop(lock);
    }

    fn another(through: &[&str], folder: &Path) -> Other {
        Other::start(other(through, module_path!(), "another_agent").env(FOLDER, folder))
    }

    fn folder() -> TempDir {
        tempdir().unwrap()
    }

    fn refusal(folder: &Path) -> String {
        Lock::take(folder, "one").unwrap_err().to_string()
    }

    #[test]
    fn the_second_of_a_name_is_told_who_runs_and_what_to_do() {
        let folder = folder();
        let mut first = another(&[], folder.path());
        assert_eq!(first.next(), "taken");
        let Err(LockError::Held { instance, holder }) = Lock::take(folder.path(), "one") else {
            panic!("two hold it");
        };
        let pid = first.child.id();
        let program = std::env::current_exe().unwrap();
        assert_eq!(instance, "one");
        assert_eq!((holder.pid, holder.seen, holder.same_namespace), (Some(pid), true, true));
        assert_eq!(holder.program.as_deref(), program.to_str());
        let since: prost_types::Timestamp = holder.since.clone().unwrap().parse().unwrap();
        let now = prost_types::Timestamp::from(SystemTime::now());
        assert!((now.seconds - 60..=now.seconds).contains(&since.seconds), "{since}");
        assert_eq!(
            LockError::Held { instance, holder }.to_string(),
            format!(
                "instance one runs already: process {pid} ({}), since {since}; stop it (systemctl stop nightjar, \
                 or kill {pid}), or start this one with --instance NAME to run two on purpose",
                program.display()
            )
        );
    }

    #[test]
    fn a_holder_that_is_killed_leaves_the_lock_to_the_next() {
        let folder = folder();
        let mut first = another(&[], folder.path());
        assert_eq!(first.next(), "taken");
        Lock::take(folder.path(), "one").unwrap_err();
        first.child.kill().unwrap();
        first.child.wait().unwrap();
        Lock::take(folder.path(), "one").unwrap();
    }

    #[test]
    fn two_instances_run_side_by_side() {
        let folder = folder();
        let mut first = another(&[], folder.path());
        assert_eq!(first.next(), "taken");
        Lock::take(folder.path(), "two").unwrap();
    }

    #[test]
    fn a_lock_is_free_once_it_is_dropped_and_says_no_more_who_held_it() {
        let folder = folder();
        let lock = Lock::take(folder.path(), "one").unwrap();
        assert!(refusal(folder.path()).contains(&format!("process {} (", process::id())));
        let note = fs::read_to_string(folder.path().join("one.lock")).unwrap();
        assert!(note.starts_with(&format!("{} 20", process::id())), "{note}");
        assert!(note.ends_with(&format!("Z {}\n", env!("CARGO_PKG_VERSION"))), "{note}");
        drop(lock);
        assert_eq!(fs::read(folder.path().join("one.lock")).unwrap(), b"");
        Lock::take(folder.path(), "one").unwrap();
    }

    #[test]
    fn what_a_dead_holder_wrote_locks_nobody_out_and_is_not_blamed() {
        let folder = folder();
        let path = folder.path().join("one.lock");
        fs::write(&path, format!("{} 2001-02-03T04:05:06Z 0.0.1 and more of it\n", process::id())).unwrap();
        let mut first = another(&[], folder.path());
        assert_eq!(first.next(), "taken");
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        // As where the holder has not come to write yet.
        fs::write(&path, format!("{} 2001-02-03T04:05:06Z 0.0.1\n", process::id())).unwrap();
        let text = refusal(folder.path());
        assert!(text.contains(&format!("process {} (", first.child.id())), "{text}");
        assert!(!text.contains("since"), "{text}");
    }

    #[test]
    fn a_holder_in_a_container_is_marked() {
        if !is_root() {
            return;
        }
        let folder = folder();
        let mut first = another(IN_PID_NAMESPACE, folder.path());
        assert_eq!(first.next(), "taken");
        let text = refusal(folder.path());
        assert!(text.contains(", of another PID namespace such as a container's, since 20"), "{text}");
        let Err(LockError::Held { holder, .. }) = Lock::take(folder.path(), "one") else { panic!() };
        // By the number that it has here, where it can be killed.
        assert_eq!(holder.program, std::env::current_exe().unwrap().to_str().map(ToOwned::to_owned));
    }

    #[test]
    fn a_holder_that_cannot_be_seen_is_told_by_what_it_wrote() {
        if !is_root() {
            return;
        }
        let folder = folder();
        let _lock = Lock::take(folder.path(), "one").unwrap();
        let text = another(IN_PID_NAMESPACE, folder.path()).next();
        let start = format!(
            "instance one runs already: a process that is {} in a PID namespace not seen from here, since 20",
            process::id()
        );
        assert!(text.starts_with(&start), "{text}");
        assert!(
            text.contains("stop it (systemctl stop nightjar on the host, or in its container)"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_was_replaced_is_not_the_one_to_lock() {
        let folder = folder();
        let path = folder.path().join("one.lock");
        let open = open_folder(folder.path()).unwrap();
        let old = open_file(&open, "one.lock", &path).unwrap();
        assert!(is_at(&old, &open, "one.lock"));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&old, &open, "one.lock"));
        fs::write(&path, "").unwrap();
        assert!(!is_at(&old, &open, "one.lock"));
    }

    #[test]
    fn nobody_else_can_read_the_file_and_so_lock_it() {
        let folder = folder();
        let path = folder.path().join("one.lock");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let _lock = Lock::take(folder.path(), "one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn the_folder_is_made_for_all_to_look_into_whatever_the_umask() {
        let folder = folder();
        let run = folder.path().join("run");
        let mut first = another(&["sh", "-c", r#"umask 077; exec "$0" "$@""#], &run);
        assert_eq!(first.next(), "taken");
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn what_is_no_lock_file_is_refused_and_left_alone() {
        let folder = folder();
        let path = folder.path().join("one.lock");
        let precious = folder.path().join("precious");
        fs::write(&precious, "content").unwrap();
        symlink(&precious, &path).unwrap();
        assert!(
            refusal(folder.path()).ends_with("is a symbolic link, which is no lock of an agent's; remove it")
        );
        assert_eq!(fs::read(&precious).unwrap(), b"content");
        fs::remove_file(&path).unwrap();

        fs::create_dir(&path).unwrap();
        assert!(refusal(folder.path()).contains("is a folder"));
        fs::remove_dir(&path).unwrap();

        mknodat(CWD, &path, FileType::Fifo, FILE_MODE, 0).unwrap();
        assert!(refusal(folder.path()).contains("is no regular file"));
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = folder();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        for (mode, fits) in [(0o777, false), (0o1777, false), (0o775, false), (0o755, true), (0o700, true)] {
            fs::set_permissions(&run, PermissionsExt::from_mode(mode)).unwrap();
            match Lock::take(&run, "one") {
                Ok(_) => assert!(fits, "{mode:o}"),
                Err(error) => {
                    assert!(!fits, "{mode:o}: {error}");
                    let wrong = format!("is open to writing by others (mode {mode:o})");
                    assert!(error.to_string().contains(&wrong), "{error}");
                }
            }
        }
        let link = folder.path().join("link");
        symlink(&run, &link).unwrap();
        assert!(matches!(Lock::take(&link, "one"), Err(LockError::OpenFolder(..))));
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !is_root() {
            return;
        }
        let folder = folder();
        let path = folder.path().join("one.lock");
        fs::write(&path, "").unwrap();
        chown(&path, Some(65534), None).unwrap();
        assert!(refusal(folder.path()).contains("one.lock is owned by user 65534"));
        chown(folder.path(), Some(65534), None).unwrap();
        assert!(
            refusal(folder.path()).contains("is owned by user 65534, who could put another lock in place")
        );
    }

    #[test]
    fn folders_that_are_missing_are_made() {
        let folder = folder();
        // As in a container with nothing but the program in it.
        let deep = folder.path().join("run/nightjar");
        let _lock = Lock::take(&deep, "one").unwrap();
        assert_eq!(fs::metadata(deep).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn without_root_the_error_says_that_root_is_needed() {
        if !is_root() {
            return;
        }
        let folder = folder();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        // Users are each thread's own.
        thread::scope(|scope| {
            scope.spawn(|| {
                set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
                for (folder, what) in [
                    (folder.path().join("missing"), "cannot make the folder"),
                    (closed.clone(), "cannot open the folder"),
                    (folder.path().to_owned(), "cannot open the lock"),
                ] {
                    let text = refusal(&folder);
                    assert!(text.starts_with(&format!("{what} {}", folder.display())), "{text}");
                    assert!(text.ends_with("; the agent needs root: run it with sudo"), "{text}");
                }
            });
        });
    }

    #[test]
    fn names_of_instances_cannot_leave_the_folder() {
        let folder = folder();
        let long = "a".repeat(LONGEST_NAME + 1);
        for wrong in ["", ".", "..", ".hidden", "a/b", "../one", "a b", "a\0b", "a\n", "ä", &long] {
            assert!(matches!(Lock::take(folder.path(), wrong), Err(LockError::Name(_))), "{wrong:?}");
        }
        for right in ["default", "A-b_c.9", &long[1..]] {
            Lock::take(folder.path(), right).unwrap();
        }
    }

    #[test]
    fn a_note_is_read_only_where_it_makes_sense() {
        let note = Note { pid: 12, since: "2024-01-02T03:04:05Z".to_owned() };
        assert_eq!(Note::parse(b"12 2024-01-02T03:04:05Z 0.1.0\n"), Some(note));
        for wrong in [
            &b""[..],
            b"12",
            b"12 ",
            b"-1 2024-01-02T03:04:05Z",
            b"12 \x1b[2J",
            b"99999999999 2024",
            b"\xff\xfe",
        ] {
            assert_eq!(Note::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn names_of_programs_do_not_command_the_terminal() {
        assert_eq!(printable("/bin/\x1b[2Jsh\n"), "/bin/?[2Jsh?");
        assert_eq!(printable(&"a".repeat(1000)).len(), LONGEST_PATH);
    }
}
