//! Records and notifications to file events.

mod calls;
mod copies;
mod mounts;
mod notices;
mod opens;
mod repeats;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map::Entry},
    mem,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nightjar_abi::{
    files::{FileSettings, FoldKey, PROC_NAMES, WatchKey, Watched, key_of_name},
    record::TaskInfo,
};
use nightjar_proto::v1::{self, FileActivity};
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat},
};
use tracing::{debug, info, warn};

use super::{
    describe,
    echo::Echoes,
    fanotify::{Buffer, FanotifyError, Group, Handle, Mask, Queue},
    paths::{bytes_of, hold},
    policy::Policies,
    resolve::{self, Limits, Resolution, Root},
    session::Sessions,
    tree::{self, ByHash, Known, Marked, Tree},
};
use crate::{
    kernel::{FileControls, InodeNumber, give_back_memory},
    pipeline::since_boot,
    process::Pids,
};

/// Groups of notifications: file systems with numbers of their own for each part, as btrfs, need one each.
const GROUPS: usize = 4;
/// The most root directories of containers that are looked at.
const MOST_ROOTS: usize = 1024;
/// The most directories that are looked at in one of them.
const CONTAINER_DIRECTORIES: usize = 4096;
/// Of what is known of inodes, at most so much is about single files, so that there is room for directories.
const MOST_SINGLE: usize = 8192;
/// The most files of which attributes are kept.
const MOST_FILES: usize = 200_000;
/// Kinds that notifications alone can tell of.
pub const NOTICED: &[&str] = &[
    "file.open",
    "file.create",
    "file.modify",
    "file.close",
    "file.delete",
    "file.rename",
    "file.link",
    "file.attributes",
    "file.mkdir",
    "file.rmdir",
];

/// What is asked of file events.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is watched.
    pub policies: Policies,
    /// Every open is wanted, wherever.
    pub all: bool,
    /// Opens that failed are wanted.
    pub failed: bool,
    /// How long repeats are counted into one event; zero: not at all.
    pub fold: Duration,
    /// Most directories that are watched.
    pub directories: usize,
}

/// Who did something.
#[derive(Debug)]
pub enum Actor {
    /// The task of a record.
    Task(Box<TaskInfo>),
    /// The process that has this ID now, or had it last.
    Pid(u32),
    /// Nobody knows.
    Unknown,
}

/// An event that is not of one record.
#[derive(Debug)]
pub struct Act {
    /// Its kind.
    pub kind: &'static str,
    /// When, nanoseconds since boot.
    pub time: u64,
    /// When the last of those that it counts was.
    pub last: Option<u64>,
    /// Who.
    pub actor: Actor,
    /// What.
    pub body: FileActivity,
}

/// What was told first of something that is repeated.
struct First {
    info: TaskInfo,
    kind: &'static str,
    body: FileActivity,
    time: u64,
}

/// A file that has come to be.
struct Recent {
    when: Instant,
    pid: u32,
    changed: bool,
    /// Only a notification tells of the open that made it, and another one that it is open.
    open_follows: bool,
}

/// A copy that is added up.
struct Copying {
    info: Box<TaskInfo>,
    body: FileActivity,
    time: u64,
    touched: Instant,
}

/// Makes events of what is done with files.
pub struct Monitor {
    options: Options,
    controls: FileControls,
    groups: Arc<[Group]>,
    buffer: Option<Buffer>,
    tree: Tree,
    echoes: Echoes,
    sessions: Sessions,
    copies: HashMap<(u32, u64, u64, u64), Copying>,
    /// What is spliced into pipes, by their inode numbers.
    pipes: HashMap<u64, FileActivity>,
    folds: HashMap<FoldKey, Option<Box<First>>>,
    next_window: Instant,
    /// When the window in force began.
    turned: Instant,
    acts: Vec<Act>,
    /// What notifications tell of writers, and when that was read: records may yet tell who they are.
    writings: VecDeque<(Instant, Act)>,
    /// Files that were found in directories that are new, and may have been made before those were watched.
    found: VecDeque<(Instant, Vec<u8>)>,
    /// Hashes of their paths.
    found_paths: HashSet<u64>,
    /// Files that have come to be just now, by the hash of their path: when, by whom, and whether a change was told
    /// since.
    recent: ByHash<Recent>,
    /// Places in `WATCHED`, with the generation that they are of.
    places: HashMap<WatchKey, (u64, Watched)>,
    generation: u64,
    /// When notifications were read last, nanoseconds since boot.
    last_read: u64,
    resolve_at: Option<Instant>,
    /// How long it took to find everything that is watched.
    took: Duration,
    /// When notifications were lost last.
    overflowed: Option<Instant>,
    lost: BTreeMap<(&'static str, &'static str), u64>,
    own_pid: u32,
    /// As notifications have them.
    pids: Pids,
    mount_namespace: u64,
    /// Mount namespaces with a root directory of their own, and a process in each.
    roots: HashMap<u32, u32>,
}

/// How much is walked where so many directories may be watched.
#[must_use]
pub fn limits(directories: usize) -> Limits {
    Limits { directories, files: MOST_FILES, ..Limits::default() }
}

// === impl Monitor ===

impl Monitor {
    /// Opens what takes rights to open. What is watched is yet to be found.
    #[must_use]
    pub fn new(options: Options, controls: FileControls) -> Self {
        let mut groups = Vec::new();
        for _ in 0..GROUPS {
            match Group::open(Queue::Limited) {
                Ok(group) => groups.push(group),
                Err(error) => {
                    if groups.is_empty() {
                        warn!("{}; file events rest on system calls alone", chain(&error));
                    }
                    break;
                }
            }
        }
        let mount_namespace = rustix::fs::stat("/proc/self/ns/mnt").map_or(0, |stat| stat.st_ino);
        Self {
            options,
            controls,
            buffer: Some(Buffer::default()),
            groups: groups.into(),
            tree: Tree::of(MOST_FILES),
            echoes: Echoes::default(),
            sessions: Sessions::default(),
            copies: HashMap::new(),
            pipes: HashMap::new(),
            folds: HashMap::new(),
            next_window: Instant::now(),
            turned: Instant::now(),
            acts: Vec::new(),
            writings: VecDeque::new(),
            found: VecDeque::new(),
            found_paths: HashSet::new(),
            recent: ByHash::default(),
            places: HashMap::new(),
            generation: 0,
            last_read: 0,
            resolve_at: None,
            took: Duration::ZERO,
            overflowed: None,
            lost: BTreeMap::new(),
            own_pid: std::process::id(),
            pids: Pids::of_this_process(),
            mount_namespace,
            roots: HashMap::new(),
        }
    }

    /// Watches by these options from now on.
    pub fn configure(&mut self, options: Options) {
        self.options = options;
        self.watch();
    }

    /// Finds what is to be watched and watches it. What was watched before and still is, is so all the time.
    pub fn watch(&mut self) {
        self.generation += 1;
        self.tree.single = 0;
        self.resolve_at = None;
        let start = Instant::now();
        let root = Root { fs: "/".into(), prefix: String::new(), containers_only: false };
        let policies = self.options.policies.clone();
        let mut visited = Vec::new();
        let mut visit = |path: &Path, stat: &rustix::fs::Statx| {
            if visited.len() < MOST_FILES {
                visited.push((tree::hash(path.as_os_str().as_bytes()), Known::of(stat)));
            }
        };
        let found = resolve::resolve(&policies, &root, self.limits(), &mut visit);
        for (key, known) in visited {
            // What is known of others is of before their changes, which may yet be told.
            self.tree.learn_absent(key, known);
        }
        let proc_names = found.proc_names.clone();
        let (files, directories) = (found.files, found.directories);
        for skipped in &found.skipped {
            info!("{}: {}", skipped.path, skipped.why);
        }
        if found.truncated {
            warn!(
                "not all that the watch policies name is watched: raise files.directories (now {})",
                self.options.directories
            );
        }
        self.install(found);
        for (namespace, pid) in mem::take(&mut self.roots) {
            self.entered(namespace, pid);
        }
        self.drop_old();
        self.tell_programs(&proc_names);
        give_back_memory();
        self.took = start.elapsed();
        info!(
            "{directories} directories with {files} files are watched, found in {} ms",
            start.elapsed().as_millis()
        );
    }

    fn limits(&self) -> Limits {
        limits(self.options.directories)
    }

    /// A task runs a program.
    pub fn runs(&mut self, info: &TaskInfo) {
        self.entered(info.namespaces.mnt, self.pids.of(info));
    }

    /// A program runs in a mount namespace: if that has a root directory of its own, as containers have, what policies
    /// name is looked for there too. Its directories are not marked: notifications do not say whose name of many they
    /// use.
    fn entered(&mut self, namespace: u32, pid: u32) {
        if u64::from(namespace) == self.mount_namespace
            || self.roots.len() >= MOST_ROOTS
            || self.roots.contains_key(&namespace)
        {
            return;
        }
        let policies = self.options.policies.in_containers();
        let fs = PathBuf::from(format!("/proc/{pid}/root"));
        let is_theirs = |root: &rustix::fs::Stat| {
            rustix::fs::stat("/").is_ok_and(|ours| (ours.st_dev, ours.st_ino) != (root.st_dev, root.st_ino))
        };
        if policies.iter().next().is_none() || !rustix::fs::stat(&fs).is_ok_and(|root| is_theirs(&root)) {
            return;
        }
        self.roots.insert(namespace, pid);
        let root = Root { prefix: format!("process {pid}: "), fs, containers_only: true };
        let limits =
            Limits { directories: CONTAINER_DIRECTORIES, files: 0, hard_links: 0, ..Limits::default() };
        let found = resolve::resolve(&policies, &root, limits, &mut |_, _| {});
        self.install(Resolution { marks: Vec::new(), ..found });
        self.forget_verdicts();
    }

    /// Lets programs forget what they found out about directories.
    fn forget_verdicts(&mut self) {
        let now = self.controls.settings();
        let settings = FileSettings { epoch: now.epoch + (1 << 32), hard_links: self.tree.single, ..now };
        if let Err(error) = self.controls.set(settings) {
            warn!("the kernel programs keep what they found out about directories: {error}");
        }
    }

    /// Puts settings into force, and lets programs forget what they found out about directories.
    fn tell_programs(&mut self, proc_names: &[Vec<u8>]) {
        let mut names = [0; PROC_NAMES];
        for (place, name) in names.iter_mut().zip(proc_names) {
            let mut bytes = [0; 8];
            for (byte, of_name) in bytes.iter_mut().zip(name) {
                *byte = *of_name;
            }
            *place = u64::from_ne_bytes(bytes);
        }
        let now = self.controls.settings();
        let folds = !self.options.fold.is_zero();
        let settings = FileSettings {
            epoch: now.epoch + (1 << 32),
            all: u64::from(self.options.all),
            failed: u64::from(self.options.failed),
            hard_links: self.tree.single,
            window: if folds { now.window.max(2) } else { 0 },
            proc_names: names,
            ..now
        };
        if let Err(error) = self.controls.set(settings) {
            warn!("the kernel programs keep their old settings about files: {error}");
        }
    }

    /// Watches what was found.
    fn install(&mut self, found: Resolution) {
        for anchor in found.anchors {
            let opened = self.controls.identify(|| hold(&anchor.path));
            let Ok((file, number)) = opened else {
                debug!("{} is gone again", anchor.path.display());
                continue;
            };
            let names = std::iter::once(&anchor.canonical).chain(&anchor.aliases);
            let names = names.map(|name| bytes_of(name)).collect();
            self.tree.add_anchor(number, names, self.generation);
            let has_names = !anchor.read_names.is_empty();
            let key = WatchKey { inode: number.inode, name: 0, device: number.device, reserved: 0 };
            let watched = Watched {
                reads: u32::from(anchor.reads),
                writes: u32::from(anchor.writes),
                names: u32::from(has_names),
                reserved: 0,
            };
            let now = tree::look(&anchor.path).map(|now| describe::kind(now.mode));
            let is_directory = now.as_deref() == Some("directory");
            self.place(key, &watched, !is_directory);
            if !is_directory {
                self.watch_single(&anchor, &file, now.as_deref() == Some("regular"));
            }
            for name in anchor.read_names {
                let key = WatchKey { name: key_of_name(&name), ..key };
                self.place(key, &Watched { reads: 1, ..Watched::default() }, true);
            }
        }
        for mark in found.marks {
            let mask = mask_of(&mark);
            let Ok(object) = hold(&mark.path) else { continue };
            let Some(handle) = self.mark(&object, &mark.path, mark.is_directory, mask) else { continue };
            let names =
                std::iter::once(&mark.canonical).chain(&mark.aliases).map(|name| bytes_of(name)).collect();
            if mark.is_directory
                && let Some(now) = tree::look(&mark.path)
            {
                self.tree.learn(mark.canonical.as_os_str().as_bytes(), now);
            }
            let generation = self.generation;
            self.tree.mark(handle, Marked { path: mark.path, names, mask, generation }, since_boot());
        }
    }

    /// Watches a file by itself, wherever its names are.
    fn watch_single(&mut self, anchor: &resolve::Anchor, file: &OwnedFd, is_regular: bool) {
        if is_regular {
            self.tree.single |= u64::from(anchor.reads > 0) | u64::from(anchor.writes > 0) << 1;
        }
        let mut mask = Mask::EMPTY;
        if anchor.reads > 0 {
            mask |= Mask::OPEN;
        }
        if anchor.writes > 0 {
            mask |= Mask::MODIFY | Mask::CLOSE_WRITE | Mask::ATTRIB;
        }
        if let Some(handle) = self.mark(file, &anchor.path, false, mask) {
            let names = std::iter::once(&anchor.canonical).chain(&anchor.aliases).map(|name| bytes_of(name));
            let marked = Marked {
                path: anchor.path.clone(),
                names: names.collect(),
                mask,
                generation: self.generation,
            };
            self.tree.mark(handle, marked, since_boot());
        }
    }

    fn place(&mut self, key: WatchKey, watched: &Watched, is_single: bool) {
        let generation = self.generation;
        let before = self.places.get(&key).filter(|(of, _)| *of == generation);
        // It may be reached by another path, which was found before.
        let watched = before.map_or(*watched, |(_, before)| Watched {
            reads: before.reads.max(watched.reads),
            writes: before.writes.max(watched.writes),
            names: before.names | watched.names,
            reserved: 0,
        });
        let crowded = is_single && self.places.len() >= MOST_SINGLE && !self.places.contains_key(&key);
        if crowded || self.controls.watch(&key, &watched).is_err() {
            // The first tells the story.
            let lost = self.lost.entry(("files", "map_full")).or_default();
            if *lost == 0 {
                warn!("there is no room for more watched inodes; watch fewer places");
            }
            *lost += 1;
            return;
        }
        self.places.insert(key, (generation, watched));
    }

    fn mark(&mut self, object: &OwnedFd, path: &Path, is_directory: bool, mask: Mask) -> Option<Handle> {
        let handle = Handle::of(object.as_fd()).ok()?;
        if let Entry::Vacant(place) = self.tree.volumes.entry(handle.as_ref().volume())
            && is_directory
            && let Ok(volume) =
                openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        {
            place.insert(volume);
        }
        let known = self.tree.marked.get(&handle);
        let before = known.map(|marked| marked.mask);
        // Of this time: it may be reached by another path, which was found before.
        let more = known.filter(|known| known.generation == self.generation).map(|known| known.mask);
        let mask = mask | more.unwrap_or(Mask::EMPTY);
        if known.is_none() && self.tree.marked.len() >= self.options.directories + MOST_SINGLE {
            *self.lost.entry(("files", "map_full")).or_default() += 1;
            return None;
        }
        for group in self.groups.iter() {
            let marked = match before {
                Some(before) if before != mask => group.replace(object.as_fd(), before, mask),
                _ if is_directory => group.mark_directory(object.as_fd(), mask),
                _ => group.mark_file(object.as_fd(), mask),
            };
            match marked {
                Ok(()) => return Some(handle),
                Err(FanotifyError::OtherFileSystem) => {}
                Err(error) => {
                    debug!("{}: {}", path.display(), chain(&error));
                    return None;
                }
            }
        }
        None
    }

    /// Lets go of what is not watched any more.
    fn drop_old(&mut self) {
        let generation = self.generation;
        let old: Vec<_> =
            self.places.extract_if(|_, (of, _)| *of != generation).map(|(key, _)| key).collect();
        for key in old {
            self.controls.unwatch(&key);
            if key.name == 0 {
                self.tree.anchors.remove(&InodeNumber { inode: key.inode, device: key.device });
            }
        }
        let old: Vec<_> = self.tree.marked.extract_if(|_, marked| marked.generation != generation).collect();
        self.tree.count_places();
        for (handle, marked) in old {
            // What is gone has taken its mark with it, and another may be at its path.
            if let Ok(object) = hold(&marked.path)
                && Handle::of(object.as_fd()).is_ok_and(|now| now == handle)
            {
                for group in self.groups.iter() {
                    let _had_none = group.unmark(object.as_fd());
                }
            }
        }
    }

    /// What can be waited for.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Directories that are watched, and files of which attributes are kept.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.tree.marked.len(), self.tree.files())
    }

    /// Events that are not of one record, in order.
    pub fn take_acts(&mut self) -> Vec<Act> {
        mem::take(&mut self.acts)
    }

    /// What was lost of notifications: place, reason and how often, since the start.
    #[must_use]
    pub fn lost(&self) -> &BTreeMap<(&'static str, &'static str), u64> {
        &self.lost
    }

    /// Does what is due: to be called after every drain of the rings. `drained`: all records of what was done until
    /// then have been here.
    pub fn tick(&mut self, drained: Instant) {
        let now = Instant::now();
        self.read();
        for echo in self.echoes.expired(drained) {
            self.unconfirmed(&echo);
        }
        if !self.sessions.is_empty() {
            for session in self.sessions.long(now) {
                self.written(&session, None, None, true);
            }
        }
        self.tell_writings(drained);
        self.tell_found(drained);
        self.end_copies(now);
        // Whoever was first in the window before must have been here.
        if now >= self.next_window && drained >= self.turned && !self.options.fold.is_zero() {
            self.turn_window(now);
        }
        if self.resolve_at.is_some_and(|at| at <= now) {
            self.watch();
        }
    }

    /// Tells all that is still held back: nothing comes any more.
    pub fn finish(&mut self) {
        let long = Instant::now() + Duration::from_hours(1);
        self.read();
        for echo in self.echoes.expired(long) {
            self.unconfirmed(&echo);
        }
        for session in self.sessions.long(long) {
            self.written(&session, None, None, true);
        }
        self.tell_writings(long);
        self.tell_found(long);
        self.end_copies(long);
        // Both windows.
        for _ in 0..2 {
            self.turn_window(long);
        }
    }

    /// Whether something is due soon.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.echoes.is_empty()
            || !self.writings.is_empty()
            || !self.found.is_empty()
            || !self.copies.is_empty()
            || self.resolve_at.is_some()
    }
}

/// What a mark asks for.
fn mask_of(mark: &resolve::Mark) -> Mask {
    let mut wanted = Mask::EMPTY;
    if mark.changes {
        wanted |= Mask::MODIFY | Mask::CLOSE_WRITE | Mask::ATTRIB;
    }
    if mark.changes || mark.entries {
        wanted |= Mask::CREATE | Mask::DELETE | Mask::RENAME;
    }
    if mark.reads {
        wanted |= Mask::OPEN;
    }
    wanted
}

fn replaced_of(known: Known) -> v1::FileReplaced {
    v1::FileReplaced {
        inode: known.inode,
        size: Some(known.size),
        mode: describe::mode(known.mode),
        uid: Some(known.uid),
        gid: Some(known.gid),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
