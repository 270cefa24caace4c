//! What is to be watched for the policies on a file system as it is now.
//!
//! Two walks. The first goes along the patterns: names are looked up, directories are listed only where a glob
//! has to be compared. It finds the *anchors*, inodes below which something may be covered, those of files that
//! are not there yet too. The second goes through all that recursive policies cover, for the directories to mark,
//! mount points and the attributes of files. What runs out of a bound loses parts of the second walk: the anchors
//! of the first are few.
//!
//! Whoever owns a part of the file system can arrange it to mislead the agent. Thus symbolic links are followed
//! only where a policy names them and only if they are root's or belong to the owner of what they lead to;
//! neither file systems of user space nor those of the kernel are entered unless a policy names them; nothing but
//! directories is opened; and half of what may be walked is shared out evenly among the trees.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ffi::OsStr,
    fmt,
    io::{self, ErrorKind},
    mem,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Statx, readlinkat};

use super::{
    inode::{Inode, Key, each_entry, kind, stat_entry},
    policy::{Node, Operations, Policies, Position},
};

/// The most links that are followed to one file, as the kernel's `MAXSYMLINKS`
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/namei.h#L13>.
const MAX_LINKS: usize = 40;
/// The most names that an inode is known by: more than that is somebody's play.
const MAX_ALIASES: usize = 8;
/// The most messages of what was passed over.
const MAX_SKIPPED: usize = 100;
/// How many entries of a kind that nobody counts, such as sockets or ignored files, are passed over for each
/// directory or file that may be walked.
const UNCOUNTED: usize = 4;
/// A root directory below which policies hold.
#[derive(Debug, Clone)]
pub struct Root {
    /// Where it is reached: `/`, or `/proc/123/root`.
    pub fs: PathBuf,
    /// What messages about it begin with.
    pub prefix: String,
    /// Whether it is a container's: only policies that hold in containers count.
    pub containers_only: bool,
}

/// How much is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Directories, by each path by which policies cover them.
    pub directories: usize,
    /// Files that are visited.
    pub files: usize,
    /// Files with more than one name that get an anchor.
    pub hard_links: usize,
    /// Components below the root.
    pub depth: usize,
    /// The most levels of changes that are told because of what is not there yet; at least 2.
    ///
    /// With 2 it is found step by step, as its directories are made. More of them show what is made in one go,
    /// before the agent has seen to the first step; but each lets more through that is no policy's concern.
    pub waiting: u8,
    /// How many levels of a recursive directory that is not there yet are among these: what is put into it at
    /// once.
    pub ahead: u8,
}

/// What is to be watched.
#[derive(Debug, Default)]
pub struct Resolution {
    /// Inodes below which something may be covered.
    pub anchors: Vec<Anchor>,
    /// What to mark for fanotify.
    pub marks: Vec<Mark>,
    /// Names of files in `/proc` that are covered: inodes come and go there.
    pub proc_names: Vec<Vec<u8>>,
    /// How many files were visited.
    pub files: usize,
    /// How many directories were walked.
    pub directories: usize,
    /// What was passed over: the first 100, what bounds cost, and how many more there were.
    pub skipped: Vec<Skipped>,
    /// Whether a bound was met; what it cost is in `skipped`.
    pub truncated: bool,
}

/// An inode below which something may be covered.
///
/// Levels: 0 none, 1 itself (also that it is moved, removed or replaced), 2 itself and its direct entries, n the
/// entries n-1 below, 255 all. They are counted within a mount: what is mounted below is an anchor too. Opens
/// count for regular files; a device or the like that is covered by its own name is an anchor itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Where it is. No component of the path below the root is a symbolic link: open it such that none is
    /// followed.
    pub path: PathBuf,
    /// The path by which policies cover it.
    pub canonical: PathBuf,
    /// Other paths by which policies cover it, because of symbolic links, mounts or more than one name. None
    /// where those of `canonical` already cover all that these would.
    pub aliases: Vec<PathBuf>,
    /// Levels that count for opens by readers.
    pub reads: u8,
    /// Levels that count for changes.
    pub writes: u8,
    /// Direct entries whose opens by readers count, where the levels do not say so.
    pub read_names: Vec<Box<[u8]>>,
}

/// What fanotify is to mark.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each stands for events of its own in the mask of the mark"
)]
pub struct Mark {
    /// Where it is, as with an [`Anchor`].
    pub path: PathBuf,
    /// The path by which policies cover it.
    pub canonical: PathBuf,
    /// Other paths by which policies cover it, as with an [`Anchor`].
    pub aliases: Vec<PathBuf>,
    /// It is a directory, and its direct entries count; else the file alone. Where a single file is covered for
    /// reading it is marked and not its directory, which would tell of opens of all that is in there.
    pub is_directory: bool,
    /// Changes of content and attributes count.
    pub changes: bool,
    /// Opens by readers count.
    pub reads: bool,
    /// Names that come, go or change count: something that is to be watched may be among them.
    pub entries: bool,
}

/// Something that is not watched, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The path as policies see it, after the prefix of its root.
    pub path: String,
    /// Why it is not, or what to do.
    pub why: String,
}

/// How far below an inode something counts, as with an [`Anchor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Levels {
    reads: u8,
    writes: u8,
}

/// Where something is: below the root without symbolic links, and as policies see it. `/` is empty.
#[derive(Debug, Clone, Default)]
struct Place {
    real: Vec<u8>,
    canonical: Vec<u8>,
}

/// What a directory has to be watched for.
#[derive(Debug, Default)]
struct Need {
    levels: Levels,
    read_names: Vec<Box<[u8]>>,
    changes: bool,
    reads: bool,
    entries: bool,
}

/// What an entry of a directory is.
enum Entry {
    Missing,
    Directory(Inode),
    /// What a symbolic link leads to, and its path below the root.
    Linked(Inode, Vec<u8>),
    /// A symbolic link that leads nowhere, or to where it should not.
    BrokenLink,
    Other(Inode),
}

/// Entries of a directory by their names.
type Entries = BTreeMap<Box<[u8]>, Entry>;

/// Why a symbolic link is not followed.
enum NotFollowed {
    /// It leads nowhere, which is no news.
    Dangling,
    /// This is to be told.
    Because(String),
}

/// A directory that a walk begins at.
struct Start {
    place: Place,
    position: Position,
    have: Levels,
    is_roots: bool,
}

/// What is known of an inode.
#[derive(Debug, Default)]
struct Known {
    anchor: Option<usize>,
    mark: Option<usize>,
    /// Paths as policies see them.
    names: Vec<Vec<u8>>,
    /// Policies that cover it and all below it, by any of its names.
    tree: u64,
    /// Policies that cover its entries, by any of its names.
    flat: u64,
    /// Policies whose files in it have been visited.
    visited: u64,
}

/// How much may be used of a limit at this time, and whether somebody was told that it is not enough.
#[derive(Debug, Default)]
struct Allowance {
    most: usize,
    told: bool,
}

/// Called for each covered file, with its path as policies see it.
type Visitor<'a> = &'a mut dyn FnMut(&Path, &Statx);

struct Walk<'a> {
    policies: &'a Policies,
    limits: Limits,
    root: &'a Root,
    root_inode: Option<Inode>,
    visit: Visitor<'a>,
    /// Policies that are to be told of readers, and of writers.
    readers: u64,
    writers: u64,
    known: HashMap<Key, Known>,
    /// Directories that symbolic links lead to. They come after what is reached without, which gives its names
    /// to anchors.
    links: VecDeque<Start>,
    /// Directories with something covered below at any depth.
    trees: Vec<Start>,
    result: Resolution,
    directories: Allowance,
    files: Allowance,
    hard_links: Allowance,
    hard_links_found: usize,
    /// Entries that may be neither walked nor visited, and were.
    uncounted: Allowance,
    passed_over: usize,
    depth: Allowance,
    /// Messages that were left out.
    unlisted: usize,
    buffer: Vec<u8>,
}

/// What is to be watched below a root.
///
/// `visit` is called for each covered regular file there is, with the path as policies see it: once, but where
/// different policies cover it by different paths.
pub fn resolve(policies: &Policies, root: &Root, limits: Limits, visit: Visitor<'_>) -> Resolution {
    let policies = &policies_of(policies, root);
    let mut walk = Walk::new(policies, root, limits, visit);
    if let Some(inode) = walk.open_root() {
        walk.named(&inode, &Place::default(), &policies.root(), Levels::default(), false);
    }
    walk.finish()
}

/// As [`resolve`], of one path and what is below it: of a directory that has come to be, or of a file that has,
/// with the directory that it is in.
///
/// `path` is as policies see it. Anchors above it are taken to be there, as [`resolve`] gives them.
pub fn resolve_below(
    policies: &Policies,
    root: &Root,
    limits: Limits,
    path: &Path,
    visit: Visitor<'_>,
) -> Resolution {
    let policies = &policies_of(policies, root);
    let mut walk = Walk::new(policies, root, limits, visit);
    walk.below(path.as_os_str().as_bytes());
    walk.finish()
}

fn policies_of(policies: &Policies, root: &Root) -> Policies {
    if root.containers_only { policies.in_containers() } else { policies.clone() }
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

fn or_root(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"/" } else { path }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { directories: 50_000, files: 500_000, hard_links: 1_000, depth: 128, waiting: 4, ahead: 1 }
    }
}

// === impl Mark ===

impl Mark {
    /// Of a directory. Names are given when everything is found.
    fn directory(path: PathBuf, need: &Need) -> Self {
        Self { is_directory: true, entries: need.entries, ..Self::file(path, need.changes, need.reads) }
    }

    fn file(path: PathBuf, changes: bool, reads: bool) -> Self {
        let (canonical, aliases) = (PathBuf::new(), Vec::new());
        Self { path, canonical, aliases, is_directory: false, changes, reads, entries: false }
    }
}

// === impl Skipped ===

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

// === impl Levels ===

impl Levels {
    const ALL: u8 = u8::MAX;

    fn max(self, other: Self) -> Self {
        Self { reads: self.reads.max(other.reads), writes: self.writes.max(other.writes) }
    }

    /// Those that hold for a direct entry.
    fn of_entry(self) -> Self {
        let less = |levels: u8| if levels == Self::ALL { levels } else { levels.saturating_sub(1) };
        Self { reads: less(self.reads), writes: less(self.writes) }
    }
}

// === impl Place ===

impl Place {
    fn entry(&self, name: &[u8]) -> Self {
        let entry = |path: &[u8]| [path, b"/", name].concat();
        Self { real: entry(&self.real), canonical: entry(&self.canonical) }
    }
}

// === impl Entry ===

impl Entry {
    fn of(inode: Inode) -> Self {
        if inode.is_directory() { Self::Directory(inode) } else { Self::Other(inode) }
    }
}

// === impl NotFollowed ===

impl From<io::Error> for NotFollowed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Dangling,
            _ => Self::Because(format!("this symbolic link cannot be followed: {error}")),
        }
    }
}

// === impl Known ===

impl Known {
    fn is_named(&self, canonical: &[u8]) -> bool {
        self.names.iter().any(|name| name == canonical)
    }
}

// === impl Allowance ===

impl Allowance {
    fn of(most: usize) -> Self {
        Self { most, told: false }
    }

    /// Whether nobody was told yet, who now is.
    fn is_news(&mut self) -> bool {
        !mem::replace(&mut self.told, true)
    }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn new(policies: &'a Policies, root: &'a Root, limits: Limits, visit: Visitor<'a>) -> Self {
        Self {
            policies,
            limits,
            root,
            root_inode: None,
            visit,
            readers: policies.with(Operations::BY_READERS),
            writers: policies.with(Operations::BY_WRITERS),
            known: HashMap::new(),
            links: VecDeque::new(),
            trees: Vec::new(),
            result: Resolution { proc_names: policies.proc_names().to_vec(), ..Resolution::default() },
            // The other half is for trees.
            directories: Allowance::of(limits.directories.div_ceil(2)),
            files: Allowance::of(limits.files.div_ceil(2)),
            hard_links: Allowance::of(limits.hard_links),
            hard_links_found: 0,
            uncounted: Allowance::of(
                limits.directories.saturating_add(limits.files).saturating_mul(UNCOUNTED),
            ),
            passed_over: 0,
            depth: Allowance::of(limits.depth),
            unlisted: 0,
            buffer: Vec::new(),
        }
    }

    fn open_root(&mut self) -> Option<Inode> {
        let opened = Inode::root(&self.root.fs).and_then(|inode| {
            self.root_inode = Some(inode.again()?);
            Ok(inode)
        });
        match opened {
            Ok(inode) => Some(inode),
            Err(error) => {
                self.skip(b"", format!("cannot be opened at {}: {error}", self.root.fs.display()));
                None
            }
        }
    }

    /// Sees to what was put off, and gives what was found its names.
    fn finish(mut self) -> Resolution {
        // A link may lead to a directory with a link.
        while let Some(start) = self.links.pop_front() {
            if let Ok(inode) = self.reopen(&start.place.real) {
                self.named(&inode, &start.place, &start.position, start.have, false);
            }
        }
        self.walk_trees();

        for known in mem::take(&mut self.known).into_values() {
            let mut names = known.names.iter().map(|name| PathBuf::from(OsStr::from_bytes(or_root(name))));
            let canonical = names.next().unwrap_or_default();
            let aliases: Vec<PathBuf> = names.collect();
            if let Some(index) = known.anchor {
                let anchor = &mut self.result.anchors[index];
                (anchor.canonical, anchor.aliases) = (canonical.clone(), aliases.clone());
            }
            if let Some(index) = known.mark {
                let mark = &mut self.result.marks[index];
                (mark.canonical, mark.aliases) = (canonical, aliases);
            }
        }
        if self.unlisted > 0 {
            let why = format!("{} more paths were passed over", self.unlisted);
            let path = self.shown(b"");
            self.result.skipped.push(Skipped { path, why });
        }
        self.result
    }

    // --- The first walk: along the patterns.

    /// Goes along one path alone, and begins there.
    fn below(&mut self, path: &[u8]) {
        let Some(mut inode) = self.open_root() else { return };
        let (mut place, mut position, mut have) = (Place::default(), self.policies.root(), Levels::default());
        for name in names(path) {
            if place.canonical.is_empty() && name == b"proc" {
                return;
            }
            position = self.without_ignored(position, &place);
            let (need, mut entries) = self.assess(&inode, &place, &position);
            let have_here = have.max(need.levels);
            let entry = entries.remove(name).unwrap_or_else(|| self.look_up(&inode, &place, name));
            let at = place.entry(name);
            match entry {
                Entry::Directory(child) => {
                    let is_named = self.is_named_literally(&position, name);
                    let Some((left, _)) =
                        self.enter_mount(&inode, &child, &at, have_here.of_entry(), is_named)
                    else {
                        return;
                    };
                    position = self.policies.enter(&position, name);
                    (inode, place, have) = (child, at, left);
                }
                Entry::Linked(target, real) if target.is_directory() => {
                    position = self.policies.enter_named(&position, name);
                    let canonical = at.canonical;
                    (inode, place, have) = (target, Place { real, canonical }, Levels::default());
                }
                Entry::Linked(target, real) => return self.linked(&position, name, at, &target, real),
                Entry::Other(file) => {
                    // Its directory is no longer one where it is waited for.
                    self.record(&inode, &place, &position, need, have);
                    return self.named_file(&position, name, &at, &file, false);
                }
                Entry::Missing | Entry::BrokenLink => return,
            }
            if position.is_nowhere() {
                return;
            }
        }
        self.named(&inode, &place, &position, have, false);
    }

    /// Sees to a directory that patterns lead through or to.
    ///
    /// `have` is what anchors above say of it, `is_below_tree` that the second walk will come here from above.
    fn named(
        &mut self,
        inode: &Inode,
        place: &Place,
        position: &Position,
        have: Levels,
        is_below_tree: bool,
    ) {
        if !self.may_walk(inode, place) {
            return;
        }
        let position = self.without_ignored(position.clone(), place);
        let (need, entries) = self.assess(inode, place, &position);
        let have_here = have.max(need.levels);
        let Some(visited) = self.record(inode, place, &position, need, have) else { return };
        let is_tree = self.is_tree(&position);
        if is_tree && !is_below_tree {
            self.trees.push(Start {
                place: place.clone(),
                position: position.clone(),
                have,
                is_roots: inode.stat.stx_uid == 0,
            });
        }
        let below = have_here.of_entry();
        let names: Vec<Box<[u8]>> = entries.keys().cloned().collect();
        for (name, entry) in entries {
            self.named_entry(inode, place, &position, below, &name, entry);
        }
        let has_globs = self.followed(&position).any(|node| !node.globs.is_empty());
        if has_globs || (!is_tree && self.policies.enabled(position.covering.flat) != 0) {
            self.listed(inode, place, &position, below, &names, visited);
        }
    }

    /// Sees to the entries of a directory that globs name, and to its files if they are covered.
    fn listed(
        &mut self,
        inode: &Inode,
        place: &Place,
        position: &Position,
        have: Levels,
        seen: &[Box<[u8]>],
        visited: u64,
    ) {
        let is_tree = self.is_tree(position);
        let mut found: Vec<Box<[u8]>> = Vec::new();
        let mut buffer = mem::take(&mut self.buffer);
        let listed = each_entry(&inode.fd, &mut buffer, |name, kind| {
            if seen.binary_search_by(|other| (**other).cmp(name)).is_ok() {
                return ControlFlow::Continue(());
            }
            if kind != FileType::RegularFile && self.is_named(position, name) {
                found.push(name.into());
                return self.may_hold(found.len(), place);
            }
            if !is_tree && matches!(kind, FileType::RegularFile | FileType::Unknown) {
                self.listed_file(inode, place, position, name, visited);
            } else {
                self.passed_over += 1;
            }
            self.may_list(place)
        });
        self.buffer = buffer;
        if let Err(error) = listed {
            self.fail(&place.canonical, "listed", &error);
        }
        if !is_tree && let Some(known) = self.known.get_mut(&inode.key()) {
            known.visited |= position.covering.flat;
        }
        found.sort_unstable();
        for name in found {
            let entry = self.look_up(inode, place, &name);
            self.named_entry(inode, place, position, have, &name, entry);
        }
    }

    /// Sees to an entry that patterns name.
    fn named_entry(
        &mut self,
        directory: &Inode,
        place: &Place,
        position: &Position,
        have: Levels,
        name: &[u8],
        entry: Entry,
    ) {
        let at = place.entry(name);
        match entry {
            Entry::Directory(child) => {
                let is_literal = self.is_named_literally(position, name);
                if let Some((have, is_special)) = self.enter_mount(directory, &child, &at, have, is_literal) {
                    // The second walk does not enter such a file system by itself.
                    let is_below_tree = self.is_tree(position) && !is_special;
                    let child_position = self.policies.enter(position, name);
                    self.named(&child, &at, &child_position, have, is_below_tree);
                }
            }
            Entry::Linked(target, real) => self.linked(position, name, at, &target, real),
            Entry::Other(file) => {
                let visited_later = self.is_tree(position);
                self.named_file(position, name, &at, &file, visited_later);
            }
            Entry::Missing | Entry::BrokenLink => {}
        }
    }

    /// Sees to what a symbolic link leads to that patterns name. What covers the link for the directory it is in
    /// does not go with it.
    fn linked(&mut self, directory: &Position, name: &[u8], at: Place, target: &Inode, real: Vec<u8>) {
        let place = Place { real, canonical: at.canonical };
        let position = self.policies.enter_named(directory, name);
        if target.is_directory() {
            self.links.push_back(Start { place, position, have: Levels::default(), is_roots: false });
            return;
        }
        self.file(&target.stat, &place, &position, 0);
        let policies = self.policies.not_ignored(position.covering.all(), or_root(&place.canonical));
        self.anchor_file(&target.stat, &place, policies);
        self.mark_file(&target.stat, &place, policies);
    }

    /// Sees to a file that patterns name.
    fn named_file(
        &mut self,
        directory: &Position,
        name: &[u8],
        at: &Place,
        file: &Inode,
        visited_later: bool,
    ) {
        let position = self.policies.enter(directory, name);
        if file.kind() != FileType::RegularFile {
            let policies = self.policies.not_ignored(position.covering.all(), &at.canonical);
            self.anchor_file(&file.stat, at, policies);
            return;
        }
        if !visited_later {
            self.file(&file.stat, at, &position, 0);
        }
        let ends = self.policies.enter_named(directory, name).covering;
        let policies = self.policies.not_ignored(ends.tree | ends.flat, &at.canonical);
        if policies & self.readers != 0 {
            self.mark_file(&file.stat, at, policies);
        }
    }

    /// What a directory has to be watched for, and its entries that have a name in patterns.
    fn assess(&mut self, inode: &Inode, place: &Place, position: &Position) -> (Need, Entries) {
        let mut need = self.need_of_covering(position);
        let mut entries = Entries::new();
        let policies = self.policies;
        let is_proc = |name: &[u8]| place.canonical.is_empty() && name == b"proc";
        for node in policies.nodes(position).filter(|node| !node.at_any_depth) {
            for (name, number) in &node.literals {
                let child = policies.node(*number);
                // What is in /proc is known by its name alone.
                if policies.enabled(child.below) == 0 || is_proc(name) {
                    continue;
                }
                let entry = entries.entry(name.clone()).or_insert_with(|| self.look_up(inode, place, name));
                let writes = match entry {
                    Entry::Directory(_) => 1,
                    // It can be replaced.
                    Entry::Linked(..) => 2,
                    Entry::Other(_) if child.is_leaf() => 2,
                    Entry::Other(_) | Entry::Missing | Entry::BrokenLink => self.levels_for_missing(child),
                };
                need.levels.writes = need.levels.writes.max(writes);
                need.entries = true;
                if !matches!(entry, Entry::Directory(_) | Entry::Linked(..)) {
                    let ends = policies.enabled(child.tree | child.flat);
                    // Until it is there, that it comes to be is all that counts.
                    need.changes |= matches!(entry, Entry::Other(_)) && ends & self.writers != 0;
                    if ends & self.readers != 0 {
                        need.read_names.push(name.clone());
                    }
                }
            }
            for (_, number) in &node.globs {
                let child = policies.node(*number);
                if policies.enabled(child.below) == 0 {
                    continue;
                }
                let ends = policies.enabled(child.tree | child.flat);
                need.levels.writes = need.levels.writes.max(self.levels_for_missing(child));
                need.entries = true;
                need.changes |= ends & self.writers != 0;
                if ends & self.readers != 0 {
                    need.reads = true;
                    need.levels.reads = need.levels.reads.max(2);
                }
            }
        }
        need.read_names.sort_unstable();
        need.read_names.dedup();
        (need, entries)
    }

    /// What a directory has to be watched for because of what covers it.
    fn need_of_covering(&self, position: &Position) -> Need {
        let covering = position.covering;
        let tree = covering.tree | self.at_any_depth(position);
        let levels = |policies: u64| {
            if tree & policies != 0 {
                Levels::ALL
            } else if covering.flat & policies != 0 {
                2
            } else {
                u8::from(covering.entry & policies != 0)
            }
        };
        let levels = Levels { reads: levels(self.readers), writes: levels(self.writers) };
        let (reads, changes) = (levels.reads >= 2, levels.writes >= 2);
        Need { levels, reads, changes, entries: reads || changes, ..Need::default() }
    }

    /// Levels of changes in a directory that tell when something comes to be at an edge from there or below.
    fn levels_for_missing(&self, edge: &Node) -> u8 {
        // 1 would be the directory itself, and 2 the entry.
        let flat = edge.longest_flat.map(|components| components.saturating_add(2));
        let tree = edge
            .longest_tree
            .map(|components| components.saturating_add(2).saturating_add(self.limits.ahead));
        flat.max(tree).unwrap_or_default().min(self.limits.waiting.max(2))
    }

    /// Nodes that the first walk follows: after a `**` the second finds everything.
    fn followed(&self, position: &Position) -> impl Iterator<Item = &Node> {
        self.policies.nodes(position).filter(|node| !node.at_any_depth)
    }

    /// Policies that may cover something at any depth below, by a `**`.
    fn at_any_depth(&self, position: &Position) -> u64 {
        let nodes = self.policies.nodes(position).filter(|node| node.stays);
        nodes.fold(0, |set, node| set | self.policies.enabled(node.below))
    }

    fn is_tree(&self, position: &Position) -> bool {
        self.policies.enabled(position.covering.tree) | self.at_any_depth(position) != 0
    }

    fn is_named(&self, directory: &Position, name: &[u8]) -> bool {
        !self.policies.enter_named(directory, name).is_nowhere()
    }

    fn is_named_literally(&self, directory: &Position, name: &[u8]) -> bool {
        self.followed(directory).any(|node| node.has_literal(name))
    }

    /// Without policies that ignore all that is below.
    fn without_ignored(&self, mut position: Position, place: &Place) -> Position {
        let tree = position.covering.tree;
        position.covering.tree &= !self.policies.ignoring_tree(tree, or_root(&place.canonical));
        position
    }

    // --- The second walk: through all that is covered at any depth.

    fn walk_trees(&mut self) {
        let mut trees = mem::take(&mut self.trees);
        // What is root's comes first: others can fill theirs.
        trees.sort_by_key(|tree| !tree.is_roots);
        let shares = trees.len().max(1) * 2;
        for (index, tree) in trees.iter().enumerate() {
            let after = trees.len() - index - 1;
            let but_shares = |limit: usize| Allowance::of(limit - limit / shares * after);
            self.directories = but_shares(self.limits.directories);
            self.files = but_shares(self.limits.files);
            if let Ok(inode) = self.reopen(&tree.place.real) {
                self.tree(&inode, &tree.place, &tree.position, tree.have, 0);
            }
        }
    }

    fn tree(&mut self, inode: &Inode, place: &Place, position: &Position, have: Levels, depth: usize) {
        let position = &self.without_ignored(position.clone(), place);
        if !self.is_tree(position) {
            return;
        }
        if depth > self.depth.most {
            if self.depth.is_news() {
                let why =
                    format!("is deeper than {} directories; it is not marked for fanotify", self.depth.most);
                self.cut(&place.canonical, why);
            }
            return;
        }
        if !self.may_walk(inode, place) {
            return;
        }
        let need = self.need_of_covering(position);
        let below = have.max(need.levels).of_entry();
        let Some(visited) = self.record(inode, place, position, need, have) else { return };

        let mut found: Vec<Box<[u8]>> = Vec::new();
        let mut buffer = mem::take(&mut self.buffer);
        let listed = each_entry(&inode.fd, &mut buffer, |name, kind| {
            match kind {
                FileType::Directory => {
                    found.push(name.into());
                    return self.may_hold(found.len(), place);
                }
                FileType::RegularFile => self.listed_file(inode, place, position, name, visited),
                // Some file systems do not say.
                FileType::Unknown => match stat_entry(&inode.fd, name) {
                    Ok(stat) if self::kind(&stat) == FileType::Directory => found.push(name.into()),
                    _ => self.listed_file(inode, place, position, name, visited),
                },
                _ => self.passed_over += 1,
            }
            self.may_list(place)
        });
        self.buffer = buffer;
        if let Err(error) = listed {
            self.fail(&place.canonical, "listed", &error);
        }
        if let Some(known) = self.known.get_mut(&inode.key()) {
            known.visited |= position.covering.tree | position.covering.flat;
        }

        found.sort_unstable();
        for name in found {
            let at = place.entry(&name);
            match inode.entry(&name) {
                Ok(child) if child.is_directory() => {
                    let position = self.policies.enter(position, &name);
                    if let Some((have, _)) = self.enter_mount(inode, &child, &at, below, false) {
                        self.tree(&child, &at, &position, have, depth + 1);
                    }
                }
                Ok(_) => {}
                Err(error) => self.fail(&at.canonical, "opened", &error),
            }
        }
    }

    // --- What both have in common.

    /// What an entry of a directory is.
    fn look_up(&mut self, directory: &Inode, place: &Place, name: &[u8]) -> Entry {
        let inode = match directory.entry(name) {
            Ok(inode) => inode,
            Err(error) => {
                self.fail(&place.entry(name).canonical, "looked up", &error);
                return Entry::Missing;
            }
        };
        if inode.kind() != FileType::Symlink {
            return Entry::of(inode);
        }
        match self.follow(place, &inode) {
            Ok((target, real)) => Entry::Linked(target, real),
            Err(why) => {
                if let NotFollowed::Because(why) = why {
                    self.skip(&place.entry(name).canonical, why);
                }
                Entry::BrokenLink
            }
        }
    }

    /// What a symbolic link in a directory leads to, within the root, and the path there.
    fn follow(&self, place: &Place, link: &Inode) -> Result<(Inode, Vec<u8>), NotFollowed> {
        let path =
            |real: &[Vec<u8>]| real.iter().flat_map(|name| [b"/", &**name].concat()).collect::<Vec<u8>>();
        let mut real: Vec<Vec<u8>> = names(&place.real).map(<[u8]>::to_vec).collect();
        // What is left to go, the next last.
        let mut left: Vec<Vec<u8>> = Vec::new();
        let mut owners = Vec::new();
        let mut inode = link.again()?;
        loop {
            if inode.kind() == FileType::Symlink {
                owners.push(inode.stat.stx_uid);
                if owners.len() > MAX_LINKS {
                    return Err(NotFollowed::Because(format!(
                        "more than {MAX_LINKS} symbolic links lead from one to the next"
                    )));
                }
                let target = readlinkat(&inode.fd, "", Vec::new()).map_err(io::Error::from)?;
                let target = target.as_bytes();
                if target.starts_with(b"/") {
                    real.clear();
                }
                left.extend(names(target).rev().map(<[u8]>::to_vec));
                inode = self.reopen(&path(&real))?;
            }
            let Some(name) = left.pop() else { break };
            match &*name {
                b"." => {}
                b".." => {
                    real.pop();
                    inode = self.reopen(&path(&real))?;
                }
                _ => {
                    inode = inode.entry(&name)?;
                    if inode.kind() != FileType::Symlink {
                        real.push(name);
                    }
                }
            }
        }
        let owner = inode.stat.stx_uid;
        if let Some(other) = owners.into_iter().find(|&uid| uid != 0 && uid != owner) {
            return Err(NotFollowed::Because(format!(
                "this symbolic link is not followed: it is of user {other} and leads to what belongs to user {owner}; \
                 if that is meant, put the path it leads to into the policy"
            )));
        }
        if inode.is_mounted_apart_from(link)
            && let Some(name) = inode.special()
        {
            return Err(NotFollowed::Because(format!(
                "this symbolic link is not followed: it leads to a file system of type {name}; if that is meant, \
                 put the path it leads to into the policy"
            )));
        }
        Ok((inode, path(&real)))
    }

    /// Something by its path without symbolic links.
    fn reopen(&self, real: &[u8]) -> io::Result<Inode> {
        let root = self.root_inode.as_ref().ok_or(ErrorKind::NotFound)?;
        let inode = names(real).try_fold(root.again()?, |inode, name| inode.entry(name))?;
        if inode.kind() == FileType::Symlink { Err(ErrorKind::NotFound.into()) } else { Ok(inode) }
    }

    /// What anchors above say of a directory, and whether it is of a special file system that begins there; none
    /// if it is not to be entered.
    fn enter_mount(
        &mut self,
        directory: &Inode,
        child: &Inode,
        at: &Place,
        have: Levels,
        is_named_literally: bool,
    ) -> Option<(Levels, bool)> {
        if child.is_automount() {
            self.skip(&at.canonical, "not entered: something would be mounted there; mount it before");
            return None;
        }
        if !child.is_mounted_apart_from(directory) {
            return Some((have, false));
        }
        match child.special() {
            None => Some((Levels::default(), false)),
            Some(_) if is_named_literally => Some((Levels::default(), true)),
            Some(name) => {
                self.skip(
                    &at.canonical,
                    format!(
                        "not entered: it is a file system of type {name}; if that is meant, put the path into a \
                         policy"
                    ),
                );
                None
            }
        }
    }

    /// Takes note of a directory. Returns the policies whose files in it have been visited; nothing if nothing
    /// more is covered by this path than by those it was noted with.
    fn record(
        &mut self,
        inode: &Inode,
        place: &Place,
        position: &Position,
        mut need: Need,
        have: Levels,
    ) -> Option<u64> {
        let (tree, flat) =
            (self.policies.enabled(position.covering.tree), self.policies.enabled(position.covering.flat));
        let known = self.known.entry(inode.key()).or_default();
        if !known.is_named(&place.canonical) {
            let is_new = known.names.is_empty();
            let adds =
                !position.is_settled() || tree & !known.tree != 0 || flat & !(known.flat | known.tree) != 0;
            if !is_new && (!adds || known.names.len() > MAX_ALIASES) {
                return None;
            }
            known.names.push(place.canonical.clone());
        }
        known.tree |= tree;
        known.flat |= flat;
        let visited = known.visited;

        let levels = have.max(need.levels);
        let names_count = !need.read_names.is_empty() && levels.reads < 2;
        if levels != have || names_count {
            self.anchor(inode.key(), place, levels, mem::take(&mut need.read_names));
        }
        if need.changes || need.reads || need.entries {
            self.mark(inode.key(), Mark::directory(path_of(self.root, &place.real), &need));
        }
        Some(visited)
    }

    fn anchor(&mut self, key: Key, place: &Place, levels: Levels, read_names: Vec<Box<[u8]>>) {
        let known = self.known.entry(key).or_default();
        let index = *known.anchor.get_or_insert(self.result.anchors.len());
        if index == self.result.anchors.len() {
            self.result.anchors.push(Anchor {
                path: path_of(self.root, &place.real),
                canonical: PathBuf::new(),
                aliases: Vec::new(),
                reads: 0,
                writes: 0,
                read_names: Vec::new(),
            });
        }
        let anchor = &mut self.result.anchors[index];
        anchor.reads = anchor.reads.max(levels.reads);
        anchor.writes = anchor.writes.max(levels.writes);
        anchor.read_names.extend(read_names);
        anchor.read_names.sort_unstable();
        anchor.read_names.dedup();
        if anchor.reads >= 2 {
            anchor.read_names.clear();
        }
    }

    fn mark(&mut self, key: Key, new: Mark) {
        let known = self.known.entry(key).or_default();
        let Some(index) = known.mark else {
            known.mark = Some(self.result.marks.len());
            self.result.marks.push(new);
            return;
        };
        let mark = &mut self.result.marks[index];
        mark.changes |= new.changes;
        mark.reads |= new.reads;
        mark.entries |= new.entries;
    }

    /// A file that is found by listing its directory.
    fn listed_file(
        &mut self,
        directory: &Inode,
        place: &Place,
        position: &Position,
        name: &[u8],
        visited: u64,
    ) {
        let position = self.policies.enter(position, name);
        let is_over = self.result.files >= self.files.most && self.files.told;
        if is_over || self.policies.enabled(position.covering.all()) & !visited == 0 {
            self.passed_over += 1;
            return;
        }
        let at = place.entry(name);
        match stat_entry(&directory.fd, name) {
            Ok(stat) => self.file(&stat, &at, &position, visited),
            Err(error) => self.fail(&at.canonical, "looked up", &error),
        }
    }

    /// Visits a file that is covered by policies other than those it was visited for.
    fn file(&mut self, stat: &Statx, at: &Place, position: &Position, visited: u64) {
        let policies = self.policies.not_ignored(position.covering.all() & !visited, &at.canonical);
        if policies == 0 || kind(stat) != FileType::RegularFile {
            self.passed_over += 1;
            return;
        }
        if self.result.files >= self.files.most {
            if self.files.is_news() {
                let why = format!(
                    "there are more files than the {} that are remembered; the attributes of others are \
                     known once they change",
                    self.limits.files
                );
                self.cut(&at.canonical, why);
            }
            return;
        }
        self.result.files += 1;
        (self.visit)(Path::new(OsStr::from_bytes(&at.canonical)), stat);
        if stat.stx_nlink < 2 {
            return;
        }
        if self.hard_links_found < self.hard_links.most {
            self.hard_links_found += 1;
            self.anchor_file(stat, at, policies);
        } else if self.hard_links.is_news() {
            let why = format!(
                "there are more than {} files with several names; what is done to others by a name \
                 that no policy covers is not seen",
                self.hard_links.most
            );
            self.cut(&at.canonical, why);
        }
    }

    fn anchor_file(&mut self, stat: &Statx, at: &Place, policies: u64) {
        let levels = Levels {
            reads: u8::from(policies & self.readers != 0),
            writes: u8::from(policies & self.writers != 0),
        };
        if policies != 0 {
            let key = self.name_file(stat, at);
            self.anchor(key, at, levels, Vec::new());
        }
    }

    fn mark_file(&mut self, stat: &Statx, at: &Place, policies: u64) {
        if policies != 0 && kind(stat) == FileType::RegularFile {
            let key = self.name_file(stat, at);
            let (changes, reads) = (policies & self.writers != 0, policies & self.readers != 0);
            self.mark(key, Mark::file(path_of(self.root, &at.real), changes, reads));
        }
    }

    fn name_file(&mut self, stat: &Statx, at: &Place) -> Key {
        let key = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        let known = self.known.entry(key).or_default();
        if !known.is_named(&at.canonical) && known.names.len() <= MAX_ALIASES {
            known.names.push(at.canonical.clone());
        }
        key
    }

    // --- Bounds.

    /// Whether a directory may be walked, which is counted once for each path.
    fn may_walk(&mut self, inode: &Inode, place: &Place) -> bool {
        if self.known.get(&inode.key()).is_some_and(|known| known.is_named(&place.canonical)) {
            return true;
        }
        if self.result.directories >= self.directories.most {
            self.out_of_directories(place);
            return false;
        }
        self.result.directories += 1;
        true
    }

    /// Whether names of directories may be held: those that could not be walked need not be.
    fn may_hold(&mut self, held: usize, place: &Place) -> ControlFlow<()> {
        if held > self.limits.directories {
            self.out_of_directories(place);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn out_of_directories(&mut self, place: &Place) {
        if self.directories.is_news() {
            let why = format!(
                "there are more directories than the {} that are walked; others are not marked for fanotify, and what \
                 is mounted below them is not watched; watch less, or raise the limit",
                self.limits.directories
            );
            self.cut(&place.canonical, why);
        }
    }

    /// Whether a directory may be listed further.
    fn may_list(&mut self, place: &Place) -> ControlFlow<()> {
        if self.passed_over <= self.uncounted.most {
            return ControlFlow::Continue(());
        }
        if self.uncounted.is_news() {
            let why = "there are too many entries that are neither directories nor covered; the rest is not looked at";
            self.cut(&place.canonical, why.to_owned());
        }
        ControlFlow::Break(())
    }

    /// That a bound was met. It is told however much else is: there are few of these.
    fn cut(&mut self, canonical: &[u8], why: String) {
        self.result.truncated = true;
        let path = self.shown(canonical);
        self.result.skipped.push(Skipped { path, why });
    }

    /// What cannot be looked at; what is gone is none of it.
    fn fail(&mut self, canonical: &[u8], what: &str, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            self.skip(canonical, format!("cannot be {what}: {error}"));
        }
    }

    fn skip(&mut self, canonical: &[u8], why: impl Into<String>) {
        if self.result.skipped.len() >= MAX_SKIPPED {
            self.unlisted += 1;
            return;
        }
        let path = self.shown(canonical);
        self.result.skipped.push(Skipped { path, why: why.into() });
    }

    fn shown(&self, canonical: &[u8]) -> String {
        format!("{}{}", self.root.prefix, String::from_utf8_lossy(or_root(canonical)))
    }
}

fn path_of(root: &Root, real: &[u8]) -> PathBuf {
    let fs = root.fs.as_os_str().as_bytes();
    let fs = fs.strip_suffix(b"/").unwrap_or(fs);
    PathBuf::from(OsStr::from_bytes(or_root(&[fs, real].concat())))
}

#[cfg(test)]
mod tests;
