//! Records and notifications to file events.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map::Entry},
    mem,
    os::{
        fd::AsFd as _,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nightjar_abi::{
    files::{
        Act as CallAct, CALLS, Call, FileSettings, FoldKey, Folded, PROC_NAMES, WatchKey, Watched,
        key_of_name,
    },
    hook::Hook,
    record::{Anchor, FileCall, Operand, TaskInfo, open_facts, operand, task_flags},
};
use nightjar_proto::v1::{self, FileActivity};
use rustix::fs::{CWD, Mode, OFlags, openat};
use tracing::{debug, info, warn};

use super::{
    describe::{self, NameSource},
    echo::{Class, Confirmed, Echo, Echoes, parent},
    fanotify::{Buffer, Event, FanotifyError, Group, Handle, Mask, Notice, Queue},
    policy::{Operation, Policies, Policy},
    resolve::{self, Limits, Resolution, Root},
    session::{Session, Sessions},
    tree::{self, Known, Marked, Tree},
};
use crate::{
    decode::{FileCallRecord, FileOpenRecord, OperandTexts, Text},
    kernel::{FileControls, InodeNumber, file_call_name, give_back_memory},
    pipeline::{Discard, since_boot},
};

/// Groups of notifications: file systems with numbers of their own for each part, as btrfs, need one each.
const GROUPS: usize = 4;
/// How long after something moved or was mounted everything that is watched is looked for anew.
const SETTLE: Duration = Duration::from_millis(200);
/// How long a copy is added up after its last part.
const COPY_PAUSE: Duration = Duration::from_millis(500);
/// The most mount namespaces that are looked at between two times that everything is found anew.
const MOST_NAMESPACES: usize = 4096;
/// How long records are waited for of what was found in a new directory.
const FOUND_PAUSE: Duration = Duration::from_millis(500);
/// How many files that have come to be are remembered before those of long ago are forgotten.
const MOST_RECENT: usize = 4096;
/// The most copies that are added up at a time.
const MOST_COPIES: usize = 4096;
/// The most files of which attributes are kept.
const MOST_FILES: usize = 200_000;

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
    groups: Vec<Group>,
    buffer: Option<Buffer>,
    tree: Tree,
    echoes: Echoes,
    sessions: Sessions,
    copies: HashMap<(u32, u64, u64, u64), Copying>,
    /// What is spliced into pipes: process and pipe to source.
    pipes: HashMap<(u32, u64), FileActivity>,
    folds: HashMap<FoldKey, Option<Box<First>>>,
    next_window: Instant,
    acts: Vec<Act>,
    /// Files that were found in directories that are new, and may have been made before those were watched.
    found: VecDeque<(Instant, Vec<u8>)>,
    /// Files that have come to be just now, by the hash of their path: when, by whom, and whether a change was told
    /// since.
    recent: HashMap<u64, Recent>,
    /// Places in `WATCHED`, with the generation that they are of.
    places: HashMap<WatchKey, u64>,
    generation: u64,
    /// When notifications were read last, nanoseconds since boot.
    last_read: u64,
    resolve_at: Option<Instant>,
    lost: BTreeMap<(&'static str, &'static str), u64>,
    own_pid: u32,
    mount_namespace: u64,
    /// Mount namespaces with a root directory of their own, and a process in each.
    roots: HashMap<u32, u32>,
    /// Those that were looked at.
    namespaces: HashSet<u32>,
}

/// A name that a call was given, and what is known of it.
struct Named {
    /// To be told.
    path: Vec<u8>,
    /// As policies may see it; none if there is no saying.
    names: Vec<Vec<u8>>,
    source: NameSource,
    truncated: bool,
    unreadable: bool,
    unreachable: bool,
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
            groups,
            tree: Tree::of(MOST_FILES),
            echoes: Echoes::default(),
            sessions: Sessions::default(),
            copies: HashMap::new(),
            pipes: HashMap::new(),
            folds: HashMap::new(),
            next_window: Instant::now(),
            acts: Vec::new(),
            found: VecDeque::new(),
            recent: HashMap::new(),
            places: HashMap::new(),
            generation: 0,
            last_read: 0,
            resolve_at: None,
            lost: BTreeMap::new(),
            own_pid: std::process::id(),
            mount_namespace,
            roots: HashMap::new(),
            namespaces: HashSet::new(),
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
            self.tree.learn_hashed(key, known);
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
        self.namespaces.clear();
        for (namespace, pid) in mem::take(&mut self.roots) {
            self.entered(namespace, pid);
        }
        self.drop_old();
        self.tell_programs(&proc_names);
        give_back_memory();
        info!(
            "{directories} directories with {files} files are watched, found in {} ms",
            start.elapsed().as_millis()
        );
    }

    fn limits(&self) -> Limits {
        Limits { directories: self.options.directories, files: MOST_FILES, ..Limits::default() }
    }

    /// A program runs in a mount namespace: if that has a root directory of its own, as containers have, what policies
    /// name is looked for there too. Its directories are not marked: notifications do not say whose name of many they
    /// use.
    pub fn entered(&mut self, namespace: u32, pid: u32) {
        if u64::from(namespace) == self.mount_namespace
            || self.namespaces.len() >= MOST_NAMESPACES
            || !self.namespaces.insert(namespace)
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
        let limits = Limits { directories: 0, files: 0, hard_links: 0, ..Limits::default() };
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
            self.tree.anchors.insert(number, names);
            let has_names = !anchor.read_names.is_empty();
            let key = WatchKey { inode: number.inode, name: 0, device: number.device, reserved: 0 };
            let watched = Watched {
                reads: u32::from(anchor.reads),
                writes: u32::from(anchor.writes),
                names: u32::from(has_names),
                reserved: 0,
            };
            self.place(key, &watched);
            if !tree::look(&anchor.path).is_some_and(|now| describe::kind(now.mode) == "directory") {
                self.watch_single(&anchor, &file);
            }
            for name in anchor.read_names {
                let key = WatchKey { name: key_of_name(&name), ..key };
                self.place(key, &Watched { reads: 1, ..Watched::default() });
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
            self.tree.mark(handle, Marked { path: mark.path, names, mask, generation });
        }
    }

    /// Watches a file by itself, wherever its names are.
    fn watch_single(&mut self, anchor: &resolve::Anchor, file: &rustix::fd::OwnedFd) {
        self.tree.single |= u64::from(anchor.reads > 0) | u64::from(anchor.writes > 0) << 1;
        let mut mask = Mask::EMPTY;
        if anchor.reads > 0 {
            mask = mask | Mask::OPEN;
        }
        if anchor.writes > 0 {
            mask = mask | Mask::MODIFY | Mask::CLOSE_WRITE | Mask::ATTRIB;
        }
        if let Some(handle) = self.mark(file, &anchor.path, false, mask) {
            let names = std::iter::once(&anchor.canonical).chain(&anchor.aliases).map(|name| bytes_of(name));
            let marked = Marked {
                path: anchor.path.clone(),
                names: names.collect(),
                mask,
                generation: self.generation,
            };
            self.tree.mark(handle, marked);
        }
    }

    fn place(&mut self, key: WatchKey, watched: &Watched) {
        match self.controls.watch(&key, watched) {
            Ok(()) => {
                self.places.insert(key, self.generation);
            }
            Err(error) => warn!("inode {} is not watched in the kernel: {error}", key.inode),
        }
    }

    fn mark(
        &mut self,
        object: &rustix::fd::OwnedFd,
        path: &Path,
        is_directory: bool,
        mask: Mask,
    ) -> Option<Handle> {
        let handle = Handle::of(object.as_fd()).ok()?;
        if let Entry::Vacant(place) = self.tree.volumes.entry(handle.as_ref().volume())
            && is_directory
            && let Ok(volume) =
                openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        {
            place.insert(volume);
        }
        let before = self.tree.marked.get(&handle).map(|marked| marked.mask);
        for group in &self.groups {
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
        let old: Vec<_> = self.places.extract_if(|_, of| *of != generation).map(|(key, _)| key).collect();
        for key in old {
            self.controls.unwatch(&key);
            if key.name == 0 {
                self.tree.anchors.remove(&InodeNumber { inode: key.inode, device: key.device });
            }
        }
        let old: Vec<_> = self
            .tree
            .marked
            .extract_if(|_, marked| marked.generation != generation)
            .map(|(_, old)| old)
            .collect();
        self.tree.count_places();
        for marked in old {
            // What is gone has taken its mark with it.
            if let Ok(object) = hold(&marked.path) {
                for group in &self.groups {
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
        for echo in self.echoes.expired(now, drained) {
            self.unconfirmed(echo);
        }
        if !self.sessions.is_empty() {
            for session in self.sessions.long(now) {
                self.written(&session, None, None, true);
            }
        }
        self.tell_found(now);
        self.end_copies(now);
        if now >= self.next_window && !self.options.fold.is_zero() {
            self.turn_window(now);
        }
        if self.resolve_at.is_some_and(|at| at <= now) {
            self.watch();
        }
    }

    /// Tells all that is still held back: nothing comes any more.
    pub fn finish(&mut self) {
        let long = Instant::now() + Duration::from_secs(3600);
        self.read();
        for echo in self.echoes.expired(long, long) {
            self.unconfirmed(echo);
        }
        for session in self.sessions.long(long) {
            self.written(&session, None, None, true);
        }
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
            || !self.found.is_empty()
            || !self.copies.is_empty()
            || self.resolve_at.is_some()
    }

    // ---- notifications

    fn read(&mut self) {
        let Some(mut buffer) = self.buffer.take() else { return };
        let time = since_boot();
        let groups = mem::take(&mut self.groups);
        for group in &groups {
            match group.read(&mut buffer, |notice| self.notice(&notice, time)) {
                Ok(drained) if drained.malformed > 0 => {
                    *self.lost.entry(("fanotify", "undecodable")).or_default() += drained.malformed;
                }
                Ok(_) => {}
                Err(error) => debug!("{}", chain(&error)),
            }
        }
        self.groups = groups;
        self.buffer = Some(buffer);
        self.last_read = time;
    }

    fn notice(&mut self, notice: &Notice<'_>, time: u64) {
        let event = match notice {
            Notice::Overflow => {
                *self.lost.entry(("fanotify", "queue_overflow")).or_default() += 1;
                // What moved meanwhile is not known.
                self.resolve_soon();
                return;
            }
            Notice::Event(event) => event,
        };
        let Ok(pid) = u32::try_from(event.pid) else { return };
        if pid == self.own_pid {
            return;
        }
        let mask = event.mask;
        let is_directory = mask.intersects(Mask::ON_DIR);
        if mask.intersects(Mask::RENAME) {
            self.rename_notice(event, pid, is_directory, time);
        }
        let entry = event.dir.as_ref().and_then(|entry| self.path_of(entry));
        // What is watched for itself may be used by a name elsewhere.
        let itself = || self.tree.directory(event.target?)?.names.first().cloned();
        let Some(path) = entry.or_else(itself) else { return };
        let echo = |class| Echo::new(class, pid, path.clone(), is_directory, time);
        let classes = [
            (Mask::CREATE | Mask::MOVED_TO, Class::Create),
            (Mask::OPEN, Class::Open),
            (Mask::ATTRIB, Class::Attributes),
            (Mask::DELETE | Mask::MOVED_FROM, Class::Delete),
        ];
        for (bits, class) in classes {
            if mask.intersects(bits) {
                self.echoes.push(echo(class));
            }
        }
        if mask.intersects(Mask::CREATE | Mask::MOVED_TO) {
            self.appeared(&path, is_directory);
        }
        if mask.intersects(Mask::DELETE | Mask::MOVED_FROM) && self.options.policies.may_cover_below(&path) {
            self.resolve_if_anchor(&path);
        }
        if mask.intersects(Mask::MODIFY) && !is_directory {
            self.echoes.push(echo(Class::Modify));
            if let Some(early) = self.sessions.changed(&path, pid, time) {
                self.written(&early, None, None, true);
            }
        }
        if mask.intersects(Mask::CLOSE_WRITE) && !is_directory {
            let session = self.sessions.end(&path);
            let session = session.unwrap_or_else(|| Session::of(&path, pid, time));
            let now = event.target.and_then(|file| self.tree.look_at(file));
            self.written(&session, now, Some(pid), false);
        }
    }

    fn rename_notice(&mut self, event: &Event<'_>, pid: u32, is_directory: bool, time: u64) {
        let old = event.old.as_ref().and_then(|entry| self.path_of(entry)).unwrap_or_default();
        let new = event.new.as_ref().and_then(|entry| self.path_of(entry)).unwrap_or_default();
        if old.is_empty() && new.is_empty() {
            return;
        }
        let mut echo = Echo::new(Class::Rename, pid, old, is_directory, time);
        echo.target = new;
        self.renamed(&echo);
        self.echoes.push(echo);
    }

    /// Path of an entry of a marked directory, as policies see it.
    fn path_of(&self, entry: &super::fanotify::DirEntry<'_>) -> Option<Vec<u8>> {
        let marked = self.tree.directory(entry.dir)?;
        let directory = marked.names.first()?;
        if entry.is_itself() {
            return Some(directory.clone());
        }
        let slash: &[u8] = if directory.as_slice() == b"/" { b"" } else { b"/" };
        Some([directory, slash, entry.name].concat())
    }

    /// A file has come to be.
    fn created(&mut self, path: &[u8], pid: u32) {
        self.recent.insert(
            tree::hash(path),
            Recent { when: Instant::now(), pid, changed: false, open_follows: false },
        );
    }

    /// Tells of files that were made, or written, in a directory before that could be watched.
    fn tell_found(&mut self, now: Instant) {
        while self.found.front().is_some_and(|(when, _)| now.duration_since(*when) >= FOUND_PAUSE) {
            let Some((_, path)) = self.found.pop_front() else { break };
            let Some(file) = tree::look(path_from(&path)) else { continue };
            self.tree.learn(&path, file);
            let recent = self.recent.get(&tree::hash(&path));
            let (kind, operation, actor) = match recent {
                None => ("file.create", Operation::Create, Actor::Unknown),
                Some(recent) if !recent.changed && file.size > 0 => {
                    ("file.modify", Operation::Modify, Actor::Pid(recent.pid))
                }
                Some(_) => continue,
            };
            let Some(policy) = self.options.policies.matching(&path, operation, false) else { continue };
            let mut body = describe::of_known(Some(file), device_at(path_from(&path)));
            body.path = describe::path(&path);
            body.source = NameSource::Scan.name();
            body.policy = policy.name().to_owned();
            if kind == "file.modify" {
                body.after = Some(describe::content(file));
            }
            self.acts.push(Act { kind, time: since_boot(), last: None, actor, body });
        }
        if self.found.is_empty() && self.recent.len() > MOST_RECENT {
            self.recent.retain(|_, recent| now.duration_since(recent.when) < 4 * FOUND_PAUSE);
        }
    }

    /// Something has come to be: a directory is watched from now on, and what is pending may be there.
    fn appeared(&mut self, path: &[u8], is_directory: bool) {
        if is_directory && self.options.policies.may_cover_below(path) {
            self.resolve_below(path, true);
        } else if self.options.policies.any_covering(path) && self.is_linked(path) {
            self.resolve_below(path, false);
        }
    }

    /// Whether a file has names elsewhere: then its inode is watched.
    fn is_linked(&self, path: &[u8]) -> bool {
        tree::look(path_from(path)).is_some_and(|file| file.links > 1)
    }

    /// Watches what is to be watched below a path. `is_new`: what is in there has come to be there.
    fn resolve_below(&mut self, path: &[u8], is_new: bool) {
        let root = Root { fs: "/".into(), prefix: String::new(), containers_only: false };
        let policies = self.options.policies.clone();
        let mut visited = Vec::new();
        let mut visit = |path: &Path, stat: &rustix::fs::Statx| {
            if visited.len() < MOST_FILES {
                visited.push((bytes_of(path), Known::of(stat)));
            }
        };
        let found = resolve::resolve_below(&policies, &root, self.limits(), path_from(path), &mut visit);
        self.install(found);
        self.forget_verdicts();
        for (path, known) in visited {
            if self.tree.known(&path).is_none() {
                self.tree.learn(&path, known);
            }
            if is_new {
                self.found.push_back((Instant::now(), path));
            }
        }
    }

    fn resolve_soon(&mut self) {
        self.resolve_at.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    /// Something that others are found by may be gone or another.
    fn resolve_if_anchor(&mut self, path: &[u8]) {
        if self.tree.anchors.values().flatten().any(|name| name.as_slice() == path) {
            self.resolve_soon();
        }
    }

    /// Names have changed.
    fn renamed(&mut self, echo: &Echo) {
        let (old, new) = (&echo.path, &echo.target);
        if echo.is_directory {
            if !old.is_empty() && !new.is_empty() {
                self.tree.moved(old, new);
            }
            for path in [old, new].into_iter().filter(|path| !path.is_empty()) {
                self.resolve_if_anchor(path);
            }
            if !new.is_empty() && self.options.policies.may_cover_below(new) {
                self.resolve_below(new, false);
            } else if !old.is_empty() {
                // It has left what is watched.
                self.resolve_soon();
            }
        } else if !new.is_empty() {
            self.sessions.renamed(old, new);
            if self.tree.anchors.values().flatten().any(|name| name == new) || self.is_linked(new) {
                self.resolve_below(new, false);
            }
        }
    }

    /// A notification that no record came for.
    fn unconfirmed(&mut self, echo: Echo) {
        let policies = self.options.policies.clone();
        let find = |path: &[u8], operation| policies.matching(path, operation, echo.is_directory);
        let now = tree::look(path_from(&echo.path));
        let (kind, operation) = match echo.class {
            Class::Open => ("file.open", Operation::Open),
            Class::Create if echo.is_directory => ("file.mkdir", Operation::Mkdir),
            Class::Create => match now {
                Some(now) if describe::kind(now.mode) == "symlink" || now.links > 1 => {
                    ("file.link", Operation::Link)
                }
                _ => ("file.create", Operation::Create),
            },
            Class::Delete if echo.is_directory => ("file.rmdir", Operation::Rmdir),
            Class::Delete => ("file.delete", Operation::Delete),
            Class::Rename => ("file.rename", Operation::Rename),
            Class::Attributes => ("file.attributes", Operation::Attributes),
            // Told at the close, or as what is written for long.
            Class::Modify => return,
        };
        let read = if echo.class == Class::Open { find(&echo.path, Operation::Read) } else { None };
        let policy = find(&echo.path, operation).or(read).or_else(|| find(&echo.target, operation));
        let before = match echo.class {
            Class::Delete => self.tree.forget(&echo.path),
            Class::Rename => self.tree.forget(&echo.path),
            _ => self.tree.known(&echo.path),
        };
        let now =
            if echo.class == Class::Rename { tree::look(path_from(&echo.target)).or(before) } else { now };
        let replaced = if echo.class == Class::Rename && !echo.target.is_empty() {
            now.and_then(|now| self.tree.learn(&echo.target, now))
                .filter(|replaced| now.is_none_or(|now| now.inode != replaced.inode))
        } else {
            None
        };
        match (echo.class, now) {
            (Class::Create, Some(now)) => {
                self.tree.learn(&echo.path, now);
            }
            (Class::Attributes, Some(now)) => {
                // What is in it is told by other events, which may yet come.
                let Known { size, modified, .. } = before.unwrap_or(now);
                self.tree.learn(&echo.path, Known { size, modified, ..now });
            }
            _ => {}
        }
        if echo.class == Class::Create {
            self.created(&echo.path, echo.pid);
            if kind == "file.create"
                && let Some(recent) = self.recent.get_mut(&tree::hash(&echo.path))
            {
                recent.open_follows = true;
            }
        }
        if echo.class == Class::Open
            && let Some(recent) = self.recent.get_mut(&tree::hash(&echo.path))
            && recent.pid == echo.pid
            && mem::take(&mut recent.open_follows)
        {
            return;
        }
        let Some(policy) = policy else { return };
        let state = if echo.class == Class::Delete { before } else { now };
        let mut body = describe::of_known(state, self.device_of(&echo));
        if echo.class == Class::Delete && !echo.is_directory {
            body.links = before.map(|before| before.links.saturating_sub(1));
        }
        if echo.is_directory {
            body.r#type = "directory".to_owned();
        }
        body.policy = policy.name().to_owned();
        body.source = NameSource::Fanotify.name();
        body.path = describe::path(&echo.path);
        if echo.class == Class::Rename {
            body.target = (!echo.target.is_empty())
                .then(|| v1::FileTarget { path: describe::path(&echo.target), ..v1::FileTarget::default() });
            body.replaced = replaced.map(replaced_of);
            if echo.path.is_empty() {
                // It came from where nothing is watched.
                body.path = String::new();
            }
        }
        if echo.class == Class::Attributes {
            // Of a file that is gone other events tell.
            if now.is_none() {
                return;
            }
            let (was, is, changed) = describe::differences(before, now);
            if before.is_some_and(|before| now.is_some_and(|now| before.links != now.links))
                && changed.is_empty()
            {
                // It has got or lost a name, of which another event tells.
                return;
            }
            (body.before, body.after, body.changed) = (was, is, changed);
        }
        if kind == "file.link" {
            body.symbolic = body.r#type == "symlink";
            let to = if body.symbolic { std::fs::read_link(path_from(&echo.path)).ok() } else { None };
            body.target = to.map(|to| v1::FileTarget {
                path: describe::path(to.as_os_str().as_bytes()),
                ..v1::FileTarget::default()
            });
        }
        self.acts.push(Act { kind, time: echo.time, last: None, actor: Actor::Pid(echo.pid), body });
    }

    fn device_of(&self, echo: &Echo) -> String {
        let path = if echo.target.is_empty() { &echo.path } else { &echo.target };
        device_at(path_from(parent(path)))
    }

    /// A file was written, and closed or is still open.
    fn written(&mut self, session: &Session, now: Option<Known>, closer: Option<u32>, ongoing: bool) {
        let path = &session.path;
        let policies = self.options.policies.clone();
        let before = self.tree.known(path);
        let now = now.or_else(|| tree::look(path_from(path)));
        if let Some(now) = now {
            // Who owns it and who may what with it is told by other events, which may yet come.
            let Known { mode, uid, gid, .. } = before.unwrap_or(now);
            self.tree.learn(path, Known { mode, uid, gid, ..now });
        }
        if let Some(recent) = self.recent.get_mut(&tree::hash(path)) {
            recent.changed = true;
        }
        let was_touched = match (before, now) {
            (Some(before), Some(now)) => {
                // Of a file that is just being made the time is not known.
                let is_later = before.modified != 0 && before.modified != now.modified;
                session.is_change() || before.size != now.size || before.inode != now.inode || is_later
            }
            // It has another name by now, or was not known: somebody wrote.
            _ => session.is_change(),
        };
        let policy = policies.matching(path, Operation::Modify, false);
        if was_touched && let Some(policy) = policy {
            let mut body = describe::of_known(now.or(before), device_at(path_from(parent(path))));
            body.path = describe::path(path);
            body.source = NameSource::Fanotify.name();
            body.policy = policy.name().to_owned();
            body.before = before.map(describe::content);
            body.after = now.map(describe::content);
            body.ongoing = ongoing;
            body.deleted = now.is_none_or(|now| now.links == 0);
            let actor = Actor::Pid(session.pid);
            self.acts.push(Act { kind: "file.modify", time: session.time, last: None, actor, body });
        }
        if let Some(pid) = closer
            && let Some(policy) = policies.matching(path, Operation::Close, false)
        {
            let mut body = describe::of_known(now.or(before), device_at(path_from(parent(path))));
            body.path = describe::path(path);
            body.source = NameSource::Fanotify.name();
            body.policy = policy.name().to_owned();
            body.deleted = now.is_none_or(|now| now.links == 0);
            let time = since_boot();
            self.acts.push(Act { kind: "file.close", time, last: None, actor: Actor::Pid(pid), body });
        }
    }

    // ---- records of opens

    /// A file was opened, or closed, or could not be opened.
    ///
    /// # Errors
    /// Why that is no event.
    pub fn opened(&mut self, record: &FileOpenRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let body = &record.body;
        let result = if body.errno != 0 { self.failed(record) } else { self.open(record) };
        if body.window != 0 {
            let hook = if body.facts & open_facts::CLOSED != 0 { Hook::FileClose } else { Hook::FileOpen };
            let key = FoldKey {
                inode: body.file.inode,
                start: body.info.task.start,
                exec_id: body.info.task.exec_id,
                device: body.file.device,
                pid: body.info.task.pid,
                flags: body.open_flags,
                hook_and_window: (hook as u32) << 1 | (body.window & 1),
            };
            let first = result.as_ref().ok().map(|(kind, activity)| {
                Box::new(First { info: body.info, kind, body: activity.clone(), time: body.header.time })
            });
            self.folds.insert(key, first);
        }
        result
    }

    fn open(&mut self, record: &FileOpenRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let FileOpenRecord { body, path, .. } = record;
        let created = body.facts & open_facts::CREATED != 0;
        let closed = body.facts & open_facts::CLOSED != 0;
        let can_read = body.facts & open_facts::READ != 0;
        let names = self.names(&body.anchor, path, &record.volume);
        let operations: &[Operation] = if closed {
            &[Operation::Close]
        } else if created {
            &[Operation::Create, Operation::Open]
        } else if can_read {
            &[Operation::Open, Operation::Read]
        } else {
            &[Operation::Open]
        };
        let policies = self.options.policies.clone();
        let policy = names.iter().find_map(|name| {
            operations.iter().find_map(|operation| policies.matching(name, *operation, false))
        });
        let is_elsewhere = self.roots.contains_key(&body.info.namespaces.mnt);
        if created && !is_elsewhere {
            for name in &names {
                let known = Known {
                    inode: body.file.inode,
                    size: 0,
                    modified: 0,
                    mode: body.file.mode,
                    uid: body.file.uid,
                    gid: body.file.gid,
                    links: body.file.links,
                };
                if self.tree.known(name).is_none_or(|known| known.inode != body.file.inode) {
                    self.tree.learn(name, known);
                }
                self.created(name, body.info.task.pid);
            }
        }
        if !closed {
            self.last_read_until(body.header.time);
            for name in &names {
                if body.facts & open_facts::PATH == 0 {
                    if body.window != 0 {
                        let until = Instant::now() + 3 * self.options.fold;
                        self.echoes.expect_opens(body.info.task.pid, name, until);
                    }
                    self.echoes.confirm(Class::Open, body.info.task.pid, name, &[], body.header.time);
                }
                if created {
                    self.echoes.confirm(Class::Create, body.info.task.pid, name, &[], body.header.time);
                }
            }
        }
        if policy.is_none() && (body.facts & open_facts::ALL == 0 || !self.options.all) {
            return Err(Discard::NotWatched);
        }
        let mut activity = describe::of_info(&body.file, body.size);
        activity.path = describe::path(path.bytes);
        activity.path_truncated = path.truncated;
        activity.path_unreachable = path.unreachable;
        activity.policy = policy.map_or_else(String::new, |policy| policy.name().to_owned());
        activity.source = NameSource::Kernel.name();
        activity.call = if closed { "close".to_owned() } else { call_name(body.call) };
        activity.flags = describe::open_flags(body.open_flags | body.asked_flags, body.facts);
        let kind = if closed {
            activity.flags.clear();
            "file.close"
        } else if created {
            "file.create"
        } else {
            "file.open"
        };
        Ok((kind, activity))
    }

    fn failed(&mut self, record: &FileOpenRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let FileOpenRecord { body, name, .. } = record;
        if !self.options.failed {
            return Err(Discard::NotWatched);
        }
        let path = normal(name.bytes);
        let policies = &self.options.policies;
        let policy = policies
            .matching(&path, Operation::Open, false)
            .or_else(|| policies.matching(&path, Operation::Read, false));
        if policy.is_none() && !self.options.all {
            return Err(Discard::NotWatched);
        }
        let activity = FileActivity {
            path: describe::path(name.bytes),
            path_truncated: name.truncated,
            path_unreadable: name.unreadable,
            policy: policy.map_or_else(String::new, |policy| policy.name().to_owned()),
            source: NameSource::UserMemory.name(),
            call: call_name(body.call),
            flags: describe::open_flags(body.asked_flags, describe::asked_facts(body.asked_flags)),
            errno: crate::pipeline::errno_name(body.errno),
            ..FileActivity::default()
        };
        Ok(("file.open", activity))
    }

    /// Paths by which policies see a file.
    fn names(&self, anchor: &Anchor, path: &Text<'_>, volume: &Text<'_>) -> Vec<Vec<u8>> {
        if anchor.device == 0 && anchor.inode == 0 {
            return vec![path.bytes.to_vec()];
        }
        let number = InodeNumber { inode: anchor.inode, device: anchor.device };
        let place = if volume.bytes.is_empty() { path.bytes } else { volume.bytes };
        self.tree.names_below(number, anchor.distance, place)
    }

    /// Makes sure that all notifications of what was done until then are here.
    fn last_read_until(&mut self, time: u64) {
        if time >= self.last_read {
            self.read();
        }
    }

    // ---- records of other calls

    /// A call that changes files succeeded.
    ///
    /// # Errors
    /// Why that is no event.
    pub fn called(&mut self, record: &FileCallRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let FileCallRecord { body, .. } = record;
        let Some(call) = CALLS.iter().find(|call| call.number == body.call) else {
            return Err(Discard::NoEvent);
        };
        match call.act {
            CallAct::Mount
            | CallAct::Umount
            | CallAct::MoveMount
            | CallAct::PivotRoot
            | CallAct::MountSetattr
            | CallAct::DetachedMount => {
                self.resolve_soon();
                Ok(("file.mount", mount(call, record)))
            }
            CallAct::Copy => self.copied(call, record),
            _ => {
                self.last_read_until(body.header.time);
                self.changed(call, record)
            }
        }
    }

    fn changed(
        &mut self,
        call: &Call,
        record: &FileCallRecord<'_>,
    ) -> Result<(&'static str, FileActivity), Discard> {
        let FileCallRecord { body, text, .. } = record;
        let pid = body.info.task.pid;
        let mut first = self.named(&body.first, &record.first, body);
        let mut second =
            (body.second.what != operand::NONE).then(|| self.named(&body.second, &record.second, body));
        let unlinks_directory = call.act == CallAct::Rmdir
            || call.name == "unlinkat" && body.args[2] & libc::AT_REMOVEDIR as u64 != 0;
        let (kind, operation, class) = match call.act {
            CallAct::Delete | CallAct::Rmdir if unlinks_directory => {
                ("file.rmdir", Operation::Rmdir, Class::Delete)
            }
            CallAct::Delete | CallAct::Rmdir => ("file.delete", Operation::Delete, Class::Delete),
            CallAct::Rename => ("file.rename", Operation::Rename, Class::Rename),
            CallAct::Link | CallAct::Symlink => ("file.link", Operation::Link, Class::Create),
            CallAct::Mkdir => ("file.mkdir", Operation::Mkdir, Class::Create),
            CallAct::Mknod => ("file.create", Operation::Create, Class::Create),
            CallAct::Truncate => ("file.truncate", Operation::Truncate, Class::Modify),
            _ => ("file.attributes", Operation::Attributes, Class::Attributes),
        };
        // What the kernel says of it, if what it acted on is watched.
        let by_name = body.first.what == operand::NAME;
        let (path, target) = match (call.act, &second) {
            (CallAct::Link, Some(second)) => (second.lexical(), Vec::new()),
            (CallAct::Rename, Some(second)) => (first.lexical(), second.lexical()),
            _ => (first.lexical(), Vec::new()),
        };
        let exchanged = call.name == "renameat2" && body.args[4] & 2 != 0;
        let time = body.header.time;
        if exchanged && let Some(second) = &mut second {
            let (one, other) = (first.lexical(), second.lexical());
            if self.echoes.confirm_exchange(pid, &one, &other, time) {
                first.is_truly(&one);
                second.is_truly(&other);
            }
        } else {
            let confirmed = self.echoes.confirm(class, pid, &path, &target, time).or_else(|| {
                if !by_name {
                    return None;
                }
                if !self.tree.is_marked(parent(&path)) {
                    let named = self.echoes.confirm_by_name(class, pid, &path, &target, time);
                    // The act of some thread of the process is told by this, whichever.
                    return named.map(|named| Confirmed { is_certain: true, ..named });
                }
                // Had this been the name the kernel would have told of it, and it takes another thread to change it.
                if body.info.flags & task_flags::THREADS == 0 {
                    return None;
                }
                let is_directory = matches!(kind, "file.mkdir" | "file.rmdir");
                self.echoes.confirm_next(class, pid, is_directory, time)
            });
            if let Some(Confirmed { echo, .. }) =
                confirmed.filter(|confirmed| by_name && confirmed.is_certain)
            {
                match (call.act, &mut second) {
                    (CallAct::Link, Some(second)) => second.is_truly(&echo.path),
                    (CallAct::Rename, Some(second)) => {
                        first.is_truly(&echo.path);
                        second.is_truly(&echo.target);
                    }
                    _ => first.is_truly(&echo.path),
                }
            }
        }
        let policies = self.options.policies.clone();
        let is_directory = matches!(kind, "file.mkdir" | "file.rmdir");
        let find = |named: &Named| {
            named.names.iter().find_map(|name| policies.matching(name, operation, is_directory))
        };
        let policy: Option<&Policy> = find(&first).or_else(|| second.as_ref().and_then(find));
        if policy.is_none() && !self.options.all {
            return Err(Discard::NotWatched);
        }
        if call.act == CallAct::Link
            && let Some(linked) = first.names.first().filter(|name| policies.any_covering(name)).cloned()
        {
            // From now on what is done by any of its names counts.
            self.resolve_below(&linked, false);
        }
        // A hard link: the new name is what came into being.
        let (of, other) = match (call.act, second) {
            (CallAct::Link, Some(second)) => (second, Some(first)),
            (_, second) => (first, second),
        };
        // What is known is known of the host's files alone.
        let is_elsewhere = self.roots.contains_key(&body.info.namespaces.mnt);
        let canonical = of.names.first().filter(|_| !is_elsewhere).cloned().unwrap_or_default();
        let is_ours = u64::from(body.info.namespaces.mnt) == self.mount_namespace;
        let place = if of.names.is_empty() && is_ours { &of.path } else { &canonical };
        let look = |path: &[u8]| if path.is_empty() { None } else { tree::look(path_from(path)) };
        let mut activity;
        match call.act {
            CallAct::Delete | CallAct::Rmdir => {
                let before = self.tree.forget(&canonical);
                activity = describe::of_known(
                    before,
                    before.map_or_else(String::new, |_| device_at(path_from(parent(place)))),
                );
                activity.links =
                    before.filter(|_| !is_directory).map(|before| before.links.saturating_sub(1));
                activity.r#type = if is_directory { "directory".to_owned() } else { activity.r#type };
            }
            CallAct::Rename => {
                let other_name = other.as_ref().filter(|_| !is_elsewhere);
                let other_name = other_name.and_then(|other| other.names.first().cloned()).unwrap_or_default();
                let moved = self.tree.forget(&canonical);
                let other_before = self.tree.forget(&other_name);
                let now = moved.or_else(|| look(&other_name));
                activity = describe::of_known(
                    now,
                    device_at(path_from(parent(if other_name.is_empty() { place } else { &other_name }))),
                );
                if let Some(now) = now.filter(|_| !other_name.is_empty()) {
                    self.tree.learn(&other_name, now);
                }
                if exchanged && let Some(before) = other_before {
                    self.tree.learn(&canonical, before);
                }
                // What is there now may have been seen there already.
                let inode = now.map(|now| now.inode);
                activity.replaced = other_before.filter(|other| Some(other.inode) != inode).map(replaced_of);
                activity.exchanged = exchanged;
                self.sessions.renamed(&canonical, &other_name);
                self.created(&other_name, pid);
            }
            CallAct::Mode | CallAct::Owner | CallAct::Times | CallAct::SetXattr | CallAct::RemoveXattr => {
                let before = self.tree.known(&canonical);
                let now = look(place);
                let after = after_call(call.act, body, before, now);
                let mut device = String::new();
                if now.is_some() {
                    device = device_at(path_from(place));
                }
                activity = describe::of_known(after.or(now), device);
                if body.first.what == operand::FILE {
                    activity = describe::of_info(&body.first.file, body.first.size);
                }
                if let Some(after) = after {
                    self.tree.learn(&canonical, after);
                }
                let (was, is, changed) = describe::differences(before, after);
                (activity.before, activity.after) = (was, is);
                activity.changed = changed_by(call.act, body, text, changed);
                if matches!(call.act, CallAct::SetXattr | CallAct::RemoveXattr) {
                    activity.xattr = describe::path(text.bytes);
                }
            }
            CallAct::Truncate => {
                let size = body.args[1];
                // The kernel's word of the same may have come first.
                let before = match self.take_written(&canonical, pid, size) {
                    Some(before) => before,
                    None => self.tree.known(&canonical).map(describe::content),
                };
                activity = if body.first.what == operand::FILE {
                    describe::of_info(&body.first.file, size)
                } else {
                    describe::of_known(look(place), device_at(path_from(place)))
                };
                activity.size = Some(size);
                if let Some(now) = self.tree.known(&canonical).or_else(|| look(place)) {
                    let modified = look(place).map_or(now.modified, |now| now.modified);
                    self.tree.learn(&canonical, Known { size, modified, ..now });
                }
                activity.before = before;
                activity.after =
                    Some(v1::FileAttributes { size: Some(size), ..v1::FileAttributes::default() });
                // Not to be told again at the close, unless more is written.
                self.sessions.end(&canonical);
            }
            _ => {
                let now = look(place);
                if let Some(now) = now {
                    self.tree.learn(&canonical, now);
                }
                self.created(&canonical, pid);
                activity = describe::of_known(
                    now,
                    if now.is_some() { device_at(path_from(place)) } else { String::new() },
                );
                activity.symbolic = call.act == CallAct::Symlink;
                if is_directory {
                    activity.r#type = "directory".to_owned();
                }
            }
        }
        activity.path = describe::path(&of.path);
        activity.path_truncated = of.truncated;
        activity.path_unreadable = of.unreadable;
        activity.path_unreachable = of.unreachable;
        activity.source = of.source.name();
        activity.policy = policy.map_or_else(String::new, |policy| policy.name().to_owned());
        call.name.clone_into(&mut activity.call);
        if call.act == CallAct::Symlink {
            activity.target =
                Some(v1::FileTarget { path: describe::path(text.bytes), ..v1::FileTarget::default() });
        } else if let Some(other) = other {
            let differs = other.source != of.source;
            activity.target = Some(v1::FileTarget {
                path: describe::path(&other.path),
                source: if differs { other.source.name() } else { String::new() },
                ..v1::FileTarget::default()
            });
        }
        Ok((kind, activity))
    }

    /// Takes back that a process has written a file if all it did was to give it this size: what it was before.
    fn take_written(&mut self, path: &[u8], pid: u32, size: u64) -> Option<Option<v1::FileAttributes>> {
        let path = describe::path(path);
        let is_it = |act: &Act| {
            act.kind == "file.modify"
                && matches!(act.actor, Actor::Pid(of) if of == pid)
                && act.body.path == path
                && act.body.after.as_ref().is_some_and(|after| after.size == Some(size))
        };
        let at = self.acts.iter().position(is_it)?;
        Some(self.acts.remove(at).body.before)
    }

    /// What is known of something that a call acted on.
    fn named(&self, operand: &Operand, texts: &OperandTexts<'_>, body: &FileCall) -> Named {
        let base = self.names(&operand.anchor, &texts.path, &texts.volume);
        let has_anchor = operand.anchor.device != 0;
        if operand.what == operand::FILE {
            return Named {
                path: texts.path.bytes.to_vec(),
                names: base,
                source: NameSource::Kernel,
                truncated: texts.path.truncated,
                unreadable: false,
                unreachable: texts.path.unreachable,
            };
        }
        let is_absolute = texts.name.bytes.starts_with(b"/");
        let join = |directory: &[u8]| normal(&[directory, b"/", texts.name.bytes].concat());
        let path = join(texts.path.bytes);
        let is_ours = u64::from(body.info.namespaces.mnt) == self.mount_namespace;
        let mut names: Vec<_> = if has_anchor && !is_absolute {
            base.iter().map(|directory| join(directory)).collect()
        } else {
            Vec::new()
        };
        let is_known = is_ours || self.roots.contains_key(&body.info.namespaces.mnt);
        if is_known && !texts.path.unreachable && !names.contains(&path) {
            names.push(path.clone());
        }
        Named {
            path,
            names,
            source: NameSource::UserMemory,
            truncated: texts.name.truncated,
            unreadable: texts.name.unreadable,
            unreachable: texts.path.unreachable,
        }
    }

    // ---- copies

    fn copied(
        &mut self,
        call: &Call,
        record: &FileCallRecord<'_>,
    ) -> Result<(&'static str, FileActivity), Discard> {
        let FileCallRecord { body, first, second, .. } = record;
        let pid = body.info.task.pid;
        let is_pipe = |operand: &Operand| describe::kind(operand.file.mode) == "fifo";
        let side = |operand: &Operand, texts: &OperandTexts<'_>| FileActivity {
            path: describe::path(texts.path.bytes),
            path_truncated: texts.path.truncated,
            path_unreachable: texts.path.unreachable,
            ..describe::of_info(&operand.file, operand.size)
        };
        let policies = self.options.policies.clone();
        let policy_of = |names: Vec<Vec<u8>>| {
            names
                .iter()
                .find_map(|name| policies.matching(name, Operation::Copy, false))
                .map(|policy| policy.name().to_owned())
        };
        let mut source = side(&body.first, first);
        source.policy =
            policy_of(self.names(&body.first.anchor, &first.path, &first.volume)).unwrap_or_default();
        if is_pipe(&body.second) {
            if self.pipes.len() < MOST_COPIES {
                self.pipes.insert((pid, body.second.file.inode), source);
            }
            return Err(Discard::Folded);
        }
        if is_pipe(&body.first) {
            match self.pipes.get(&(pid, body.first.file.inode)) {
                Some(from) => source = from.clone(),
                None => return Err(Discard::NotWatched),
            }
        }
        let target_policy = policy_of(self.names(&body.second.anchor, &second.path, &second.volume));
        if source.policy.is_empty() {
            source.policy = target_policy.unwrap_or_default();
        }
        if source.policy.is_empty() && !self.options.all || body.result == 0 && call.name != "ioctl" {
            return Err(Discard::NotWatched);
        }
        let is_file = |operand: &Operand| {
            matches!(describe::kind(operand.file.mode).as_str(), "regular" | "block_device")
        };
        if !is_file(&body.second) {
            // Sent away, not copied.
            return Err(Discard::NotWatched);
        }
        let bytes = if call.name == "ioctl" { body.first.size } else { body.result.unsigned_abs() };
        let key = (pid, body.info.task.start, source.inode, body.second.file.inode);
        let copying = self.copies.entry(key).or_insert_with(|| {
            let target = side(&body.second, second);
            source.source = NameSource::Kernel.name();
            call.name.clone_into(&mut source.call);
            source.target = Some(v1::FileTarget {
                path: target.path,
                inode: target.inode,
                device: target.device,
                mode: target.mode,
                ..v1::FileTarget::default()
            });
            Copying {
                info: Box::new(body.info),
                body: source,
                time: body.header.time,
                touched: Instant::now(),
            }
        });
        copying.body.bytes += bytes;
        copying.touched = Instant::now();
        if let Some(target) = &mut copying.body.target {
            target.size = Some(body.second.size);
        }
        Err(Discard::Folded)
    }

    fn end_copies(&mut self, now: Instant) {
        if self.copies.is_empty() {
            return;
        }
        let crowded = self.copies.len() > MOST_COPIES;
        let ended =
            self.copies.extract_if(|_, copy| crowded || now.duration_since(copy.touched) >= COPY_PAUSE);
        let ended = ended.map(|((pid, ..), copy)| (pid, copy)).collect::<Vec<_>>();
        for (pid, copy) in ended {
            self.pipes.retain(|(of, _), _| *of != pid);
            let Copying { info, body, time, .. } = copy;
            self.acts.push(Act { kind: "file.copy", time, last: None, actor: Actor::Task(info), body });
        }
    }

    // ---- repeats

    /// Takes what was counted in the window before the one that ends now, and begins another.
    fn turn_window(&mut self, now: Instant) {
        self.next_window = now + self.options.fold;
        let settings = self.controls.settings();
        if settings.window == 0 {
            return;
        }
        // The window before the one in force has been at rest for its length; what it counted is complete.
        let parity = u32::try_from((settings.window + 1) & 1).unwrap_or_default();
        for (key, folded) in self.controls.take_folded(parity) {
            self.unfold(&key, folded);
        }
        self.folds.retain(|key, _| key.hook_and_window & 1 != parity);
        if let Err(error) = self.controls.set(FileSettings { window: settings.window + 1, ..settings }) {
            warn!("the kernel programs go on counting repeats: {error}");
        }
    }

    fn unfold(&mut self, key: &FoldKey, folded: Folded) {
        if folded.count == 0 {
            return;
        }
        match self.folds.remove(key) {
            Some(Some(first)) => {
                let First { info, kind, mut body, time } = *first;
                body.count = folded.count;
                self.acts.push(Act {
                    kind,
                    time,
                    last: Some(folded.last),
                    actor: Actor::Task(Box::new(info)),
                    body,
                });
            }
            // The first was no event, and so are they.
            Some(None) => {}
            // The first was lost, with all that says what these are.
            None => *self.lost.entry(("file_open", "first_lost")).or_default() += folded.count,
        }
    }
}

// === impl Named ===

impl Named {
    /// As policies see it, as far as can be told.
    fn lexical(&self) -> Vec<u8> {
        self.names.first().unwrap_or(&self.path).clone()
    }

    /// The kernel says what it was.
    fn is_truly(&mut self, path: &[u8]) {
        if path.is_empty() {
            return;
        }
        self.path = path.to_vec();
        self.names = vec![path.to_vec()];
        self.source = NameSource::Fanotify;
        (self.truncated, self.unreadable, self.unreachable) = (false, false, false);
    }
}

/// What a mark asks for.
fn mask_of(mark: &resolve::Mark) -> Mask {
    let mut mask = Mask::EMPTY;
    if mark.changes {
        mask = mask | Mask::MODIFY | Mask::CLOSE_WRITE | Mask::ATTRIB;
    }
    if mark.changes || mark.entries {
        mask = mask | Mask::CREATE | Mask::DELETE | Mask::RENAME;
    }
    if mark.reads {
        mask = mask | Mask::OPEN;
    }
    mask
}

/// Attributes after a call: what it set, and else what is there now.
fn after_call(act: CallAct, body: &FileCall, before: Option<Known>, now: Option<Known>) -> Option<Known> {
    const PERMISSION_BITS: u32 = 0o7777;
    let mut after = now.or(before)?;
    if body.first.what == operand::FILE {
        let file = &body.first.file;
        (after.mode, after.uid, after.gid) = (file.mode, file.uid, file.gid);
        return Some(after);
    }
    // What a later call set is not of this one.
    if let Some(before) = before {
        (after.mode, after.uid, after.gid) = (before.mode, before.uid, before.gid);
    }
    let name_first = |at: usize, plain: usize| if matches!(body.call, 260 | 268 | 452) { at } else { plain };
    let argument = |n: usize| u32::try_from(body.args[n] & u64::from(u32::MAX)).unwrap_or_default();
    match act {
        CallAct::Mode => {
            after.mode = after.mode & !PERMISSION_BITS | argument(name_first(2, 1)) & PERMISSION_BITS;
        }
        CallAct::Owner => {
            let (uid, gid) = (argument(name_first(2, 1)), argument(name_first(3, 2)));
            if uid != u32::MAX {
                after.uid = uid;
            }
            if gid != u32::MAX {
                after.gid = gid;
            }
            // The kernel may have taken privileges away from it.
            if let Some(now) = now {
                after.mode = now.mode;
            }
        }
        _ => {}
    }
    Some(after)
}

/// What a call set, by its own word.
fn changed_by(act: CallAct, body: &FileCall, text: &Text<'_>, found: Vec<String>) -> Vec<String> {
    let one = |what: &str| vec![what.to_owned()];
    match act {
        CallAct::Mode => one("mode"),
        CallAct::Times => one("times"),
        CallAct::SetXattr | CallAct::RemoveXattr if text.bytes.starts_with(b"system.posix_acl_") => {
            one("acl")
        }
        CallAct::SetXattr | CallAct::RemoveXattr => one("xattr"),
        CallAct::Owner => {
            let at = if body.call == 260 { 2 } else { 1 };
            let is_set = |n: usize| body.args[n] & u64::from(u32::MAX) != u64::from(u32::MAX);
            let mut set = Vec::new();
            if is_set(at) {
                set.push("owner".to_owned());
            }
            if is_set(at + 1) {
                set.push("group".to_owned());
            }
            set
        }
        _ => found,
    }
}

/// What a call did to mounts.
fn mount(call: &Call, record: &FileCallRecord<'_>) -> FileActivity {
    /// The source is a mount that a descriptor holds, attached nowhere yet.
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/mount.h#L73>
    const MOVE_MOUNT_F_EMPTY_PATH: u64 = 4;
    let FileCallRecord { body, first, second, text } = record;
    let joined = |operand: &Operand, texts: &OperandTexts<'_>| match operand.what {
        operand::NAME => normal(&[texts.path.bytes, b"/", texts.name.bytes].concat()),
        _ => texts.path.bytes.to_vec(),
    };
    let (one, other) = (joined(&body.first, first), joined(&body.second, second));
    let flags = body.args[3];
    let mut mount = v1::FileMount::default();
    let (mut path, mut texts) = (one.clone(), first);
    let operation = match call.act {
        CallAct::Mount => {
            let raw = describe::path(second.name.bytes);
            mount.flags = describe::mount_flags(flags);
            const PROPAGATION: u64 =
                libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;
            let operation = if flags & libc::MS_REMOUNT != 0 {
                "remount"
            } else if flags & libc::MS_BIND != 0 {
                "bind"
            } else if flags & libc::MS_MOVE != 0 {
                "move"
            } else if flags & PROPAGATION != 0 {
                "change"
            } else {
                mount.filesystem = describe::path(text.bytes);
                "mount"
            };
            mount.source = match operation {
                "bind" | "move" => describe::path(&other),
                "mount" => raw,
                _ => String::new(),
            };
            operation
        }
        CallAct::Umount => {
            mount.flags = describe::umount_flags(body.args[1]);
            "umount"
        }
        CallAct::MoveMount => {
            mount.source = describe::path(&one);
            (path, texts) = (other, second);
            if body.args[4] & MOVE_MOUNT_F_EMPTY_PATH != 0 { "attach" } else { "move" }
        }
        CallAct::PivotRoot => {
            mount.source = describe::path(&other);
            "pivot_root"
        }
        CallAct::MountSetattr => "change",
        _ => {
            if call.name == "open_tree" {
                "clone"
            } else {
                "mount"
            }
        }
    };
    operation.clone_into(&mut mount.operation);
    let source = if texts.name.bytes.is_empty() { NameSource::Kernel } else { NameSource::UserMemory };
    FileActivity {
        path: describe::path(&path),
        path_truncated: texts.name.truncated,
        path_unreadable: texts.name.unreadable,
        path_unreachable: texts.path.unreachable,
        source: source.name(),
        call: call.name.to_owned(),
        mount: Some(mount),
        ..FileActivity::default()
    }
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

fn call_name(number: u32) -> String {
    file_call_name(number).unwrap_or_default().to_owned()
}

/// Device of the file system of a directory, as `stat` has it.
fn device_at(path: &Path) -> String {
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    rustix::fs::lstat(path).map_or_else(
        |_| String::new(),
        |stat| format!("{}:{}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)),
    )
}

/// A path without `.`, `..` and empty components, by its letters alone.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in &parts {
        normal.push(b'/');
        normal.extend_from_slice(part);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

/// Opens something for nothing but to have it.
fn hold(path: &Path) -> rustix::io::Result<rustix::fd::OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn path_from(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn bytes_of(path: &Path) -> Vec<u8> {
    PathBuf::from(path).into_os_string().into_vec()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_leads_nowhere() {
        assert_eq!(normal(b"/etc/../etc//./passwd"), b"/etc/passwd");
        assert_eq!(normal(b"/../.."), b"/");
        assert_eq!(normal(b"/a/b/.."), b"/a");
    }
}
