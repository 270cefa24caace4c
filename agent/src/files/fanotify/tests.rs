//! Against the kernel. Where a test needs root, it is skipped without, with a line that says so.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    fs::{self, File, OpenOptions, Permissions},
    hint::black_box,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, symlink},
        },
    },
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, Uid, chown, openat},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::geteuid,
    thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities, unshare_unsafe},
    time::{ClockId, clock_gettime},
};
use tempfile::TempDir;

use super::*;

/// A place in a directory, by the directory's handle.
type Place = (Handle, String);

/// A notice that was kept.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    mask: Mask,
    pid: i32,
    dir: Option<Place>,
    target: Option<Handle>,
    old: Option<Place>,
    new: Option<Place>,
}

impl Seen {
    fn of(event: &Event<'_>) -> Self {
        let place = |entry: DirEntry<'_>| (entry.dir.into(), String::from_utf8(entry.name.to_vec()).unwrap());
        Self {
            mask: event.mask,
            pid: event.pid,
            dir: event.dir.map(place),
            target: event.target.map(Handle::from),
            old: event.old.map(place),
            new: event.new.map(place),
        }
    }
}

/// A group and a folder of its own.
struct Watch {
    group: Group,
    buffer: Buffer,
    folder: TempDir,
}

impl Watch {
    /// None without root, or where the kernel cannot tell what is expected here.
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("skipped: this needs root");
            return None;
        }
        let group = Group::open(Queue::Limited).unwrap();
        if group.features() != (Features { target_fid: true, rename: true }) {
            eprintln!("skipped: this needs Linux 5.17");
            return None;
        }
        Some(Self { group, buffer: Buffer::default(), folder: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mkdir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn mark(&self, path: &Path, mask: Mask) {
        let object = o_path(path);
        if path.is_dir() {
            self.group.mark_directory(object.as_fd(), mask).unwrap();
        } else {
            self.group.mark_file(object.as_fd(), mask).unwrap();
        }
    }

    fn seen(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let drained = self
            .group
            .read(&mut self.buffer, |notice| match notice {
                Notice::Event(event) => seen.push(Seen::of(&event)),
                Notice::Overflow => panic!("lost notices"),
            })
            .unwrap();
        let notices = u64::try_from(seen.len()).unwrap();
        assert_eq!(drained, Drained { notices, malformed: 0, more: false });
        seen
    }

    /// What is seen of an act, and that it is this process that did it.
    fn of(&mut self, act: impl FnOnce()) -> Vec<Seen> {
        assert_eq!(self.seen(), []);
        act();
        let seen = self.seen();
        let own = i32::try_from(process::id()).unwrap();
        assert!(seen.iter().all(|one| one.pid == own), "{seen:?}");
        seen
    }

    /// The only notice of an act.
    #[track_caller]
    fn one(&mut self, act: impl FnOnce()) -> Seen {
        let seen = self.of(act);
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.into_iter().next().unwrap()
    }
}

fn o_path(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).unwrap()
}

fn handle(path: &Path) -> Handle {
    Handle::of(o_path(path).as_fd()).unwrap()
}

/// A name that is, or was, in a directory.
fn place(path: &Path) -> Place {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    (handle(path.parent().unwrap()), name)
}

/// How many marks the kernel says that a group has.
fn marks(group: &Group) -> usize {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_fd().as_raw_fd()));
    info.unwrap().lines().filter(|line| line.starts_with("fanotify ino:")).count()
}

/// Runs in a mount namespace, of which nothing is seen outside.
#[allow(unsafe_code, reason = "rustix leaves it to the caller what threads share")]
fn with_own_mounts(act: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: no memory, descriptors or identity are unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            act();
        });
    });
}

/// Whether the kernel has handles for a file system where it had none at first.
fn has_handles(path: &Path) -> bool {
    let handle = Handle::of(o_path(path).as_fd());
    if matches!(handle, Err(FanotifyError::NoHandles)) {
        eprintln!("skipped: {} has no handles before Linux 6.6 or 6.7", path.display());
        return false;
    }
    handle.is_ok()
}

fn mount_at(path: &Path, kind: &str, options: &str) {
    let options = CString::new(options).unwrap();
    mount(kind, path, kind, MountFlags::empty(), Some(options.as_c_str())).unwrap();
}

#[allow(unsafe_code, reason = "the standard library truncates only what is open")]
fn truncate(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends with a NUL.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), 2) }, 0);
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_file_that_is_made_and_written_is_one_notice() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let file = dir.join("file");
    watch.mark(&dir, Mask::CREATE | Mask::OPEN | Mask::MODIFY | Mask::CLOSE_WRITE);

    let seen = watch.one(|| fs::write(&file, "text").unwrap());

    assert_eq!(seen.mask, Mask::CREATE | Mask::OPEN | Mask::MODIFY | Mask::CLOSE_WRITE);
    assert_eq!(seen.dir, Some(place(&file)));
    assert_eq!(seen.target, Some(handle(&file)));
    assert_eq!((seen.old, seen.new), (None, None));
}

#[test]
fn what_is_read_in_between_is_not_merged() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let path = dir.join("file");
    watch.mark(&dir, Mask::CREATE | Mask::CLOSE_WRITE);

    let mut file = None;
    assert_eq!(watch.one(|| file = Some(File::create(&path).unwrap())).mask, Mask::CREATE);
    assert_eq!(watch.one(|| drop(file)).mask, Mask::CLOSE_WRITE);
}

#[test]
fn acts_of_two_processes_are_two_notices() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    fs::write(dir.join("file"), "").unwrap();
    watch.mark(&dir, Mask::ATTRIB);

    chmod(&dir.join("file"), 0o600);
    let mut other = Command::new("/bin/chmod").arg("640").arg(dir.join("file")).spawn().unwrap();
    assert!(other.wait().unwrap().success());

    let pids: Vec<_> = watch.seen().iter().map(|one| one.pid.cast_unsigned()).collect();
    assert_eq!(pids, [process::id(), other.id()]);
}

type Act = fn(&Path);

#[test]
fn each_change_of_a_file_has_its_own_bit() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let file = dir.join("file");
    fs::write(&file, "text").unwrap();
    watch.mark(&dir, Mask::every(true));

    let acts: [(Mask, Act); 5] = [
        (Mask::ATTRIB, |file| chmod(file, 0o700)),
        (Mask::OPEN | Mask::CLOSE_NOWRITE, |file| drop(File::open(file).unwrap())),
        (Mask::MODIFY, truncate),
        (Mask::OPEN | Mask::MODIFY | Mask::CLOSE_WRITE, |file| {
            OpenOptions::new().write(true).open(file).unwrap().set_len(1).unwrap();
        }),
        (Mask::DELETE, |file| fs::remove_file(file).unwrap()),
    ];
    for (mask, act) in acts {
        let (place, target) = (place(&file), handle(&file));
        let seen = watch.one(|| act(&file));
        assert_eq!((seen.mask, seen.dir, seen.target), (mask, Some(place), Some(target)));
    }
}

#[test]
fn an_exec_is_told_apart_from_an_open() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let program = dir.join("true");
    // By another process: while this one has it open for writing, a child of another test may have it too.
    assert!(Command::new("/bin/cp").arg("/bin/true").arg(&program).status().unwrap().success());
    watch.mark(&dir, Mask::OPEN_EXEC);

    drop(File::open(&program).unwrap());
    assert_eq!(watch.seen(), []);

    assert!(Command::new(&program).status().unwrap().success());
    let seen = watch.seen();
    assert!(seen.iter().all(|one| one.mask == Mask::OPEN_EXEC && one.dir == Some(place(&program))));
    assert_eq!(seen.len(), 1, "{seen:#?}");
}

#[test]
fn links_and_directories_are_made_by_their_names() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    fs::write(watch.path("file"), "").unwrap();
    let file = watch.path("file");
    watch.mark(&dir, Mask::CREATE | Mask::DELETE);

    let hard = watch.one(|| fs::hard_link(&file, dir.join("hard")).unwrap());
    assert_eq!(
        (hard.mask, hard.dir, hard.target),
        (Mask::CREATE, Some(place(&dir.join("hard"))), Some(handle(&file)))
    );

    let soft = watch.one(|| symlink(&file, dir.join("soft")).unwrap());
    assert_eq!(
        (soft.mask, soft.dir, soft.target),
        (Mask::CREATE, Some(place(&dir.join("soft"))), Some(handle(&dir.join("soft"))))
    );

    let sub = dir.join("sub");
    let made = watch.one(|| fs::create_dir(&sub).unwrap());
    let place = Some(place(&sub));
    assert_eq!((made.mask, &made.dir), (Mask::CREATE | Mask::ON_DIR, &place));
    assert_eq!(made.target, Some(handle(&sub)));

    let removed = watch.one(|| fs::remove_dir(&sub).unwrap());
    assert_eq!((removed.mask, removed.dir), (Mask::DELETE | Mask::ON_DIR, place));
    assert_eq!(removed.target, made.target);
}

#[test]
fn a_rename_is_told_by_the_names_in_marked_directories() {
    let Some(mut watch) = Watch::new() else { return };
    let [one, two, unmarked] = ["one", "two", "unmarked"].map(|name| watch.mkdir(name));
    fs::write(one.join("a"), "").unwrap();
    let target = Some(handle(&one.join("a")));
    watch.mark(&one, Mask::RENAME);
    watch.mark(&two, Mask::RENAME);

    for (from, to, old_told, new_told) in [
        (one.join("a"), one.join("b"), true, true),
        (one.join("b"), two.join("c"), true, true),
        (two.join("c"), unmarked.join("d"), true, false),
        (unmarked.join("d"), one.join("e"), false, true),
    ] {
        let seen = watch.one(|| fs::rename(&from, &to).unwrap());
        let told = |path, told: bool| told.then(|| place(path));
        assert_eq!((seen.mask, &seen.dir, &seen.target), (Mask::RENAME, &None, &target));
        assert_eq!((seen.old, seen.new), (told(&from, old_told), told(&to, new_told)));
    }

    let dir = unmarked.join("dir");
    fs::create_dir(&dir).unwrap();
    let seen = watch.one(|| fs::rename(&dir, one.join("dir")).unwrap());
    assert_eq!(seen.mask, Mask::RENAME | Mask::ON_DIR);
}

#[test]
fn an_older_kernel_tells_both_halves_of_a_rename_and_no_targets() {
    let Some(mut watch) = Watch::new() else { return };
    watch.group = Group::open_without_features();
    let dir = watch.mkdir("dir");
    watch.mark(&dir, Mask::CREATE | Mask::RENAME | Mask::ATTRIB);

    let made = watch.one(|| fs::write(dir.join("a"), "").unwrap());
    let place_of_a = Some(place(&dir.join("a")));
    assert_eq!((made.mask, &made.dir, made.target), (Mask::CREATE, &place_of_a, None));

    let changed = watch.one(|| chmod(&dir.join("a"), 0o600));
    assert_eq!((changed.dir, changed.target), (place_of_a, Some(handle(&dir.join("a")))));

    let moved = watch.of(|| fs::rename(dir.join("a"), dir.join("b")).unwrap());
    let [from, to] = moved.as_slice() else { panic!("{moved:#?}") };
    assert_eq!((from.mask, &from.dir), (Mask::MOVED_FROM, &Some(place(&dir.join("a")))));
    assert_eq!((to.mask, &to.dir), (Mask::MOVED_TO, &Some(place(&dir.join("b")))));

    let object = o_path(&dir);
    watch.group.replace(object.as_fd(), Mask::CREATE | Mask::RENAME | Mask::ATTRIB, Mask::RENAME).unwrap();
    assert_eq!(watch.of(|| chmod(&dir.join("b"), 0o640)), []);
    assert!(watch.group.unmark(object.as_fd()).unwrap());
    assert_eq!(marks(&watch.group), 0);
}

#[test]
fn a_directory_tells_of_itself_by_a_dot() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let itself = Some((handle(&dir), ".".to_owned()));
    watch.mark(&dir, Mask::every(true));

    let moved = watch.path("moved");
    let acts: [(Mask, &dyn Fn()); 4] = [
        (Mask::OPEN | Mask::CLOSE_NOWRITE, &|| drop(File::open(&dir).unwrap())),
        (Mask::ATTRIB, &|| chmod(&dir, 0o700)),
        (Mask::MOVE_SELF, &|| fs::rename(&dir, &moved).unwrap()),
        (Mask::DELETE_SELF, &|| fs::remove_dir(&moved).unwrap()),
    ];
    for (mask, act) in acts {
        let seen = watch.one(act);
        assert_eq!((seen.mask, &seen.dir), (mask | Mask::ON_DIR, &itself));
        assert_eq!(seen.target, None);
    }
    assert_eq!(marks(&watch.group), 0);
}

#[test]
fn what_happens_to_a_directory_below_is_told_by_its_own_handle() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let sub = watch.mkdir("dir/sub");
    watch.mark(&dir, Mask::ATTRIB);

    let seen = watch.one(|| chmod(&sub, 0o700));

    assert_eq!(seen.dir, Some((handle(&sub), ".".to_owned())));
}

#[test]
fn a_file_is_marked_by_any_descriptor_of_it() {
    let Some(mut watch) = Watch::new() else { return };
    let file = watch.path("file");
    fs::write(&file, "").unwrap();
    for object in [o_path(&file), File::open(&file).unwrap().into()] {
        watch.group.mark_file(object.as_fd(), Mask::every(true)).unwrap();

        let seen = watch.one(|| fs::write(&file, "text").unwrap());

        assert_eq!(seen.mask, Mask::OPEN | Mask::MODIFY | Mask::CLOSE_WRITE);
        assert_eq!((seen.dir, seen.target), (Some(place(&file)), Some(handle(&file))));
        assert!(watch.group.unmark(object.as_fd()).unwrap());
        assert_eq!(watch.of(|| fs::write(&file, "more").unwrap()), []);
    }
}

#[test]
fn a_file_that_goes_is_told_without_a_place() {
    let Some(mut watch) = Watch::new() else { return };
    let (file, new) = (watch.path("file"), watch.path("new"));
    fs::write(&file, "").unwrap();
    let target = Some(handle(&file));
    watch.mark(&file, Mask::MOVE_SELF | Mask::DELETE_SELF);

    let moved = watch.one(|| fs::rename(&file, &new).unwrap());
    assert_eq!((moved.mask, moved.dir, &moved.target), (Mask::MOVE_SELF, None, &target));

    let gone = watch.one(|| fs::remove_file(&new).unwrap());
    assert_eq!((gone.mask, gone.dir, &gone.target), (Mask::DELETE_SELF, None, &target));
    assert_eq!(marks(&watch.group), 0);
}

#[test]
fn a_symbolic_link_is_marked_and_not_what_it_leads_to() {
    let Some(mut watch) = Watch::new() else { return };
    let (file, link) = (watch.path("file"), watch.path("link"));
    fs::write(&file, "").unwrap();
    symlink(&file, &link).unwrap();
    let target = Some(handle(&link));
    watch.group.mark_file(o_path(&link).as_fd(), Mask::OPEN | Mask::DELETE_SELF).unwrap();

    assert_eq!(watch.of(|| drop(File::open(&link).unwrap())), []);
    let gone = watch.one(|| fs::remove_file(&link).unwrap());
    assert_eq!((gone.mask, &gone.target), (Mask::DELETE_SELF, &target));
}

#[test]
fn a_mark_is_replaced_without_a_gap() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let object = o_path(&dir);
    let replace = |watch: &Watch, from, to| watch.group.replace(object.as_fd(), from, to).unwrap();
    watch.mark(&dir, Mask::OPEN | Mask::MODIFY);

    replace(&watch, Mask::OPEN | Mask::MODIFY, Mask::MODIFY | Mask::CLOSE_WRITE);
    assert_eq!(watch.one(|| fs::write(&file, "1").unwrap()).mask, Mask::MODIFY | Mask::CLOSE_WRITE);

    replace(&watch, Mask::MODIFY | Mask::CLOSE_WRITE, Mask::CLOSE_WRITE);
    assert_eq!(watch.one(|| fs::write(&file, "2").unwrap()).mask, Mask::CLOSE_WRITE);

    replace(&watch, Mask::CLOSE_WRITE, Mask::EMPTY);
    assert_eq!(watch.of(|| fs::write(&file, "3").unwrap()), []);
    assert_eq!(marks(&watch.group), 0);
}

#[test]
fn a_mark_is_added_to_and_taken_away_as_a_whole() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let object = o_path(&dir);
    watch.mark(&dir, Mask::CREATE);
    watch.mark(&dir, Mask::DELETE);
    assert_eq!(marks(&watch.group), 1);
    let made = watch.one(|| fs::write(dir.join("file"), "").unwrap());
    let gone = watch.one(|| fs::remove_file(dir.join("file")).unwrap());
    assert_eq!((made.mask, gone.mask), (Mask::CREATE, Mask::DELETE));

    assert!(watch.group.unmark(object.as_fd()).unwrap());
    assert!(!watch.group.unmark(object.as_fd()).unwrap());
    assert_eq!(marks(&watch.group), 0);
}

#[test]
fn a_deleted_directory_that_is_open_can_be_unmarked() {
    let Some(watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let object = File::open(&dir).unwrap();
    watch.mark(&dir, Mask::CREATE);
    fs::remove_dir(&dir).unwrap();
    // Whether the mark is there still is the kernel's affair.
    watch.group.unmark(object.as_fd()).unwrap();
    assert_eq!(marks(&watch.group), 0);
}

#[test]
fn a_file_is_no_directory() {
    let Some(watch) = Watch::new() else { return };
    let file = watch.path("file");
    fs::write(&file, "").unwrap();
    for object in [o_path(&file), File::open(&file).unwrap().into()] {
        let error = watch.group.mark_directory(object.as_fd(), Mask::OPEN).unwrap_err();
        assert!(matches!(error, FanotifyError::Mark(Errno::NOTDIR)), "{error:?}");
    }
}

#[test]
fn marks_need_no_capability_but_to_read() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    chmod(&dir, 0o700);
    chown(&dir, Some(Uid::from_raw(1)), None).unwrap();
    let group = &watch.group;
    let object = o_path(&dir);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective = CapabilitySet::DAC_READ_SEARCH;
            sets.permitted = CapabilitySet::DAC_READ_SEARCH;
            set_capabilities(None, sets).unwrap();
            assert!(matches!(Group::open(Queue::Limited), Err(FanotifyError::NotPermitted)));
            group.mark_directory(object.as_fd(), Mask::CREATE).unwrap();
            Handle::of(object.as_fd()).unwrap();

            sets.effective = CapabilitySet::empty();
            set_capabilities(None, sets).unwrap();
            let refused = group.mark_directory(object.as_fd(), Mask::DELETE);
            assert!(matches!(refused, Err(FanotifyError::NotReadable)), "{refused:?}");
        });
    });
    let seen = watch.one(|| fs::write(dir.join("file"), "").unwrap());
    assert_eq!(seen.mask, Mask::CREATE);
}

#[test]
fn a_full_queue_is_told_and_the_next_notice_is_not_lost() {
    let Some(mut watch) = Watch::new() else { return };
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    if limit > 1 << 17 {
        eprintln!("skipped: fs.fanotify.max_queued_events is {limit}, which takes too long");
        return;
    }
    let dir = watch.mkdir("dir");
    watch.mark(&dir, Mask::CREATE);

    for number in 0..limit + 100 {
        symlink("nowhere", dir.join(number.to_string())).unwrap();
    }

    let (mut told, mut overflows, mut last_is_overflow) = (0, 0, false);
    let count = |notice: Notice<'_>| {
        last_is_overflow = notice == Notice::Overflow;
        if last_is_overflow { overflows += 1 } else { told += 1 }
    };
    let drained = watch.group.read(&mut watch.buffer, count).unwrap();
    assert_eq!((told, overflows, last_is_overflow), (limit, 1, true));
    assert_eq!(drained, Drained { notices: limit + 1, malformed: 0, more: false });

    let seen = watch.one(|| symlink("nowhere", dir.join("next")).unwrap());
    assert_eq!(seen.dir, Some(place(&dir.join("next"))));
}

#[test]
fn the_descriptor_is_readable_when_something_happened() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    watch.mark(&dir, Mask::CREATE);
    let ready = |watch: &Watch| {
        let mut fds = [PollFd::new(&watch.group, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };

    assert!(!ready(&watch));
    fs::write(dir.join("file"), "").unwrap();
    assert!(ready(&watch));
    watch.seen();
    assert!(!ready(&watch));
}

#[test]
fn directories_can_be_marked_while_notices_are_read() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = watch.mkdir("dir");
    let sub = dir.join("sub");
    watch.mark(&dir, Mask::CREATE);
    fs::create_dir(&sub).unwrap();

    let group = &watch.group;
    let mark = |_: Notice<'_>| group.mark_directory(o_path(&sub).as_fd(), Mask::CREATE).unwrap();
    group.read(&mut watch.buffer, mark).unwrap();

    let seen = watch.one(|| fs::write(sub.join("file"), "").unwrap());
    assert_eq!(seen.dir, Some(place(&sub.join("file"))));
}

/// Marks a directory on a file system, and finds what happens there by the handles that were asked for.
fn expect_own_handles(dir: &Path) {
    let group = Group::open(Queue::Limited).unwrap();
    let mut buffer = Buffer::default();
    fs::create_dir_all(dir).unwrap();
    let object = o_path(dir);
    group.mark_directory(object.as_fd(), Mask::every(true)).unwrap();
    let marked = HashMap::from([(Handle::of(object.as_fd()).unwrap(), dir)]);

    let file = dir.join("file");
    fs::write(&file, "text").unwrap();
    let target = Handle::at(object.as_fd(), "file").unwrap();
    assert_eq!(target, handle(&file));
    let mut found = 0;
    let find = |notice: Notice<'_>| {
        let Notice::Event(event) = notice else { panic!("lost notices") };
        let entry = event.dir.unwrap();
        assert_eq!(marked.get(entry.dir.as_bytes()), Some(&dir), "{event:?}");
        assert_eq!((entry.name, event.target), (b"file".as_slice(), Some(target.as_ref())));
        found += 1;
    };
    group.read(&mut buffer, find).unwrap();
    assert_eq!(found, 1, "{}", dir.display());
}

#[test]
fn on_disk_and_in_memory_handles_are_those_of_notices() {
    if Watch::new().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    expect_own_handles(&folder.path().join("disk"));
    with_own_mounts(|| {
        mount_at(folder.path(), "tmpfs", "");
        expect_own_handles(&folder.path().join("memory"));
    });
}

#[test]
fn on_overlayfs_handles_are_those_of_notices_also_when_files_were_copied_up() {
    if Watch::new().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    with_own_mounts(|| {
        let [lower, upper, work, merged] =
            ["lower", "upper", "work", "merged"].map(|name| folder.path().join(name));
        for dir in [&lower.join("lower"), &lower.join("both"), &upper.join("both"), &work, &merged] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(lower.join("lower/old"), "text").unwrap();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        mount_at(&merged, "overlay", &options);
        if !has_handles(&merged) {
            return;
        }
        let before = [handle(&merged.join("lower")), handle(&merged.join("lower/old"))];

        for dir in ["lower", "both", "new"] {
            expect_own_handles(&merged.join(dir));
        }
        fs::write(merged.join("lower/old"), "more").unwrap();

        assert!(upper.join("lower/old").exists());
        assert_eq!(before, [handle(&merged.join("lower")), handle(&merged.join("lower/old"))]);
        unmount(&merged, UnmountFlags::empty()).unwrap();
        mount_at(&merged, "overlay", &options);
        assert_eq!(before, [handle(&merged.join("lower")), handle(&merged.join("lower/old"))]);
    });
}

#[test]
fn in_proc_handles_are_those_of_notices() {
    let Some(mut watch) = Watch::new() else { return };
    let dir = Path::new("/proc/sys/kernel/random");
    if !has_handles(dir) {
        return;
    }
    watch.mark(dir, Mask::OPEN);

    let own = i32::try_from(process::id()).unwrap();
    fs::read(dir.join("uuid")).unwrap();

    let seen = watch.seen().into_iter().find(|one| one.pid == own).unwrap();
    assert_eq!(seen.dir, Some(place(&dir.join("uuid"))));
    assert_eq!(seen.target, Some(handle(&dir.join("uuid"))));
}

#[test]
fn a_file_system_without_an_id_needs_a_group_of_its_own() {
    let Some(watch) = Watch::new() else { return };
    let folder = watch.mkdir("folder");
    with_own_mounts(|| {
        let [one, two, merged] = ["one", "two", "merged"].map(|name| folder.join(name));
        for dir in [&one, &two, &merged] {
            fs::create_dir(dir).unwrap();
        }
        // Without an upper layer an overlay has no ID.
        mount_at(&merged, "overlay", &format!("lowerdir={}:{}", one.display(), two.display()));
        if !has_handles(&merged) {
            return;
        }
        let (strong, weak) = (o_path(&one), o_path(&merged));

        for (first, second) in [(&strong, &weak), (&weak, &strong)] {
            let group = Group::open(Queue::Limited).unwrap();
            group.mark_directory(first.as_fd(), Mask::OPEN).unwrap();
            let refused = group.mark_directory(second.as_fd(), Mask::OPEN);
            assert!(matches!(refused, Err(FanotifyError::OtherFileSystem)), "{refused:?}");
        }
    });
}

#[test]
fn an_unlimited_queue_can_be_had() {
    if Watch::new().is_some() {
        let group = Group::open(Queue::Unlimited).unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_fd().as_raw_fd()));
        let flags = info.unwrap().lines().find_map(|line| {
            let flags = line.strip_prefix("fanotify flags:")?.split(' ').next()?;
            u32::from_str_radix(flags, 16).ok()
        });
        assert_ne!(flags.unwrap() & libc::FAN_UNLIMITED_QUEUE, 0);
    }
}

#[test]
#[ignore = "prints what marks cost, of use in a release build only"]
fn what_marks_cost() {
    const FILES: usize = 8000;
    const ROUNDS: usize = 5;
    let Some(watch) = Watch::new() else { return };
    let Watch { group, mut buffer, folder } = watch;
    let dir = folder.path().join("dir");
    let others = folder.path().join("others");
    for path in [&dir, &others] {
        fs::create_dir(path).unwrap();
    }
    let many: Vec<_> = (0..FILES).map(|number| dir.join(number.to_string())).collect();
    for path in &many {
        fs::write(path, "").unwrap();
    }
    // What is opened again before it is read is merged.
    let one = vec![dir.join("0"); FILES];
    let object = o_path(&dir);
    let mut measure = |what: &str, paths: &[PathBuf]| {
        let (mut acts, mut reads, mut notices) = (f64::MAX, f64::MAX, 0);
        for _ in 0..ROUNDS {
            for part in paths.chunks(500) {
                let open_and_close = |path: &PathBuf| {
                    drop(rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap());
                };
                acts = acts.min(cost(part.len(), || part.iter().for_each(open_and_close)));
            }
            let mut drained = Drained::default();
            let whole =
                cost(1, || drained = group.read(&mut buffer, |notice| _ = black_box(notice)).unwrap());
            notices = drained.notices;
            if notices > 0 {
                reads = reads.min(whole / f64::from(u32::try_from(notices).unwrap()));
            }
        }
        let reads = if notices > 0 { format!(", each read in {reads:.0} ns") } else { String::new() };
        println!("{what}: an open and close in {acts:.0} ns, {notices} notices{reads}");
    };

    measure("no mark on the file system", &many);
    for (what, mask) in [
        ("OPEN", Mask::OPEN),
        ("OPEN|CLOSE_NOWRITE", Mask::OPEN | Mask::CLOSE_NOWRITE),
        ("MODIFY|CLOSE_WRITE", Mask::MODIFY | Mask::CLOSE_WRITE),
        ("DELETE_SELF", Mask::DELETE_SELF),
    ] {
        group.mark_directory(object.as_fd(), mask).unwrap();
        measure(what, &many);
        measure(&format!("{what}, one file"), &one);
        group.unmark(object.as_fd()).unwrap();
    }
    measure("no mark any more", &many);
    measure("no mark any more, one file", &one);

    let open = |number: usize| {
        let path = others.join(number.to_string());
        fs::create_dir(&path).unwrap();
        o_path(&path)
    };
    let objects: Vec<_> = (0..5000).map(open).collect();
    let mark = |object: &OwnedFd| group.mark_directory(object.as_fd(), Mask::every(true)).unwrap();
    println!("a mark: {:.0} ns", cost(objects.len(), || objects.iter().for_each(mark)));
    let mut marked = HashSet::new();
    let insert = || {
        marked.extend(objects.iter().map(|object| Handle::of(object.as_fd()).unwrap()));
    };
    println!("a handle, put in a set: {:.0} ns", cost(objects.len(), insert));
    measure("5000 other directories marked", &many);
    measure("5000 other directories marked, one file", &one);

    let keys: Vec<_> = marked.iter().cloned().collect();
    let find = |key: &Handle| _ = black_box(marked.get(key.as_ref().as_bytes()));
    println!("a handle found in the set: {:.0} ns", cost(keys.len(), || keys.iter().for_each(find)));
}

/// Nanoseconds of processor time that each of so many acts took; others may use the machine too.
fn cost(acts: usize, act: impl FnOnce()) -> f64 {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let from = now();
    act();
    let acts = u32::try_from(acts).unwrap();
    now().saturating_sub(from).as_secs_f64() * 1e9 / f64::from(acts)
}
