//! Which files and which operations on them are of interest.
//!
//! All patterns of all policies are in one trie, whose edges are components of paths: names, globs and `**`. A
//! path is followed through it from the root with all nodes at once that it may be at ([`Position`]). What no
//! pattern begins like is left after a component or two.

use std::{fmt, ops::BitOr, sync::Arc};

use super::{
    defaults,
    glob::{Component, GlobError},
};

/// The most policies: one bit each.
pub const MAX_POLICIES: usize = u64::BITS as usize;
/// The most bytes of a name, `NAME_MAX`
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/limits.h#L12>.
const MAX_NAME: usize = 255;
/// The most components of a pattern: levels are counted in a byte.
const MAX_COMPONENTS: usize = 64;
/// The most characters of somebody's text that a message repeats.
const MAX_SHOWN: usize = 80;
/// How many nodes a path may be at before memory is asked for.
const INLINE: usize = 12;

/// Something that is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// It is opened, for whatever.
    Open,
    /// It is opened such that it can be read. Of a directory that is not said: its entries are listed.
    Read,
    /// It comes to be.
    Create,
    /// Its content is written.
    Modify,
    /// It is closed.
    Close,
    /// Its name is removed.
    Delete,
    /// Its name is changed, from this path or to it.
    Rename,
    /// It gets one more name.
    Link,
    /// Its mode, owner, times, extended attributes or flags are changed.
    Attributes,
    /// Its size is set.
    Truncate,
    /// Its content is copied within the kernel, from this path or to it.
    Copy,
    /// A directory comes to be.
    Mkdir,
    /// A directory is removed.
    Rmdir,
}

/// A set of operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Operations(u16);

/// A policy as somebody writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySpec {
    /// Names it in events. Must be there, and be the only one of that name.
    pub name: String,
    /// Globs over absolute paths: `*`, `?`, `[abc]`, `[!a-z]` in components, `**` for any number of them, `\`
    /// before a character that is meant as it is. Must not be empty.
    pub paths: Vec<String>,
    /// Whether a path that fits a directory covers everything below it, at any depth. Else it covers the
    /// directory and its direct entries.
    pub recursive: bool,
    /// What is left out: globs over the file name, or with a `/` over the whole path.
    pub ignore: Vec<String>,
    /// Names of [`Operation`]s, `change` or `all`; none: `change`.
    pub operations: Vec<String>,
    /// Whether it holds in containers too.
    pub containers: bool,
}

/// A policy whose text is in order.
#[derive(Debug)]
pub struct Policy {
    name: String,
    recursive: bool,
    containers: bool,
    operations: Operations,
    ignored_names: Box<[Component]>,
    ignored_paths: Box<[Box<[Component]>]>,
}

/// All policies, in the order in which they are asked. A clone is cheap.
#[derive(Debug, Clone)]
pub struct Policies {
    compiled: Arc<Compiled>,
    /// Those that hold, as bits.
    enabled: u64,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// Which policy, from 0.
    pub policy: usize,
    /// Its name, as it is written.
    pub name: String,
    /// Which of its lists and which item from 0, if it is in one.
    pub item: Option<(List, usize)>,
    /// The item's text.
    pub text: String,
    /// What is wrong and what to write instead.
    pub problem: Problem,
}

/// A list of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `paths`
    Paths,
    /// `ignore`
    Ignore,
    /// `operations`
    Operations,
}

/// What is wrong with a text, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// More than one bit each.
    #[error("there are more than {MAX_POLICIES} policies; put paths that are watched alike into one")]
    TooMany,
    /// A policy without a name.
    #[error("it has no name; give it one, which events will have")]
    Unnamed,
    /// The name of an earlier policy.
    #[error("policy {0} has this name already; give each a name of its own")]
    Duplicate(usize),
    /// A policy without paths.
    #[error("it has no paths; write at least one, such as /etc/passwd")]
    NoPaths,
    /// Nothing between the quotes.
    #[error("it is empty; write an absolute path, or leave it out")]
    Empty,
    /// `~/.ssh`
    #[error("\"~\" is the home of nobody here; write /root, or /home/* for all users")]
    Home,
    /// `etc/passwd`
    #[error("it is not absolute; write it from the root: /{0}")]
    Relative(String),
    /// `cache/**` as something to ignore.
    #[error(
        "it has a \"/\" but is not absolute; write the whole path, as in /srv/{0} or /**/{0}, or a file name alone"
    )]
    RelativeIgnore(String),
    /// `/etc/../root`
    #[error("it has a component \"{0}\"; write the path without it")]
    Dots(&'static str),
    /// No file can have that name.
    #[error("a component has {0} bytes, and no file name has more than {MAX_NAME}; shorten it")]
    LongName(usize),
    /// Deeper than levels are counted.
    #[error("it has {0} components; watch a directory of at most {MAX_COMPONENTS} with recursive: true")]
    Deep(usize),
    /// No file can have that name.
    #[error("it has a zero byte, which no path has; remove it")]
    Nul,
    /// A glob that is none.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// `/proc/*/m*`
    #[error(
        "what is in /proc comes and goes, and is known by its name alone; end the path in a plain name, as in \
         /proc/*/mem"
    )]
    Proc,
    /// Not an operation.
    #[error("there is no such operation{}; use some of {}", meant(*.0), operation_names())]
    Operation(Option<&'static str>),
}

/// Where a path is in the patterns, and what covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Covering {
    /// Policies that cover it and everything below.
    pub(super) tree: u64,
    /// Policies that cover it, and if it is a directory its direct entries.
    pub(super) flat: u64,
    /// Policies that cover it as a direct entry of the directory it is in.
    pub(super) entry: u64,
}

/// A path on its way through the patterns.
#[derive(Debug, Clone, Default)]
pub(super) struct Position {
    pub(super) covering: Covering,
    nodes: Nodes,
}

/// A node of the trie.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Edges with a name, sorted by its length and then itself: most of the time lengths are all that is compared.
    pub(super) literals: Vec<(Box<[u8]>, u32)>,
    /// Edges with a glob.
    pub(super) globs: Vec<(Component, u32)>,
    /// Where `**` leads.
    any_depth: Option<u32>,
    /// It stays where it is with every component: `**` leads here.
    pub(super) stays: bool,
    /// It is after a `**`, or where it leads.
    pub(super) at_any_depth: bool,
    /// Recursive policies with a pattern that ends here.
    pub(super) tree: u64,
    /// Other policies with a pattern that ends here.
    pub(super) flat: u64,
    /// Policies with a pattern that ends here or further on.
    pub(super) below: u64,
    /// How many components the longest pattern goes on from here.
    pub(super) longest_flat: Option<u8>,
    /// As this, to where everything below may be covered.
    pub(super) longest_tree: Option<u8>,
}

/// Numbers of nodes, in place as long as they are few.
#[derive(Debug, Clone, Default)]
struct Nodes {
    few: [u32; INLINE],
    count: usize,
    more: Vec<u32>,
}

#[derive(Debug)]
struct Compiled {
    policies: Vec<Policy>,
    trie: Vec<Node>,
    /// Policies that have the operation, by its number.
    by_operation: [u64; Operation::ALL.len()],
    /// Names that end patterns below `/proc`.
    proc_names: Vec<Vec<u8>>,
    /// Policies that ignore whole trees.
    ignore_trees: u64,
}

/// The set of policies the agent comes with, in order.
#[must_use]
pub fn defaults() -> Vec<PolicySpec> {
    defaults::policies()
}

fn meant(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(", did you mean \"{name}\"?"))
}

fn operation_names() -> String {
    let names: Vec<&str> = WORDS.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// How many characters must be put in, left out or replaced to make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, d) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(c != d);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.pop().unwrap_or_default()
}

/// Components of a path; empty ones are none.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// The last component of a path.
fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or_default()
}

/// Components of the pattern of a path.
fn parse_path(text: &str) -> Result<Vec<Component>, Problem> {
    let mut parsed = Vec::new();
    for component in text.split('/').filter(|component| !component.is_empty()) {
        let component = Component::parse(component)?;
        match &component {
            Component::Literal(name) if **name == *b"." => return Err(Problem::Dots(".")),
            Component::Literal(name) if **name == *b".." => return Err(Problem::Dots("..")),
            Component::Literal(name) if name.len() > MAX_NAME => return Err(Problem::LongName(name.len())),
            // Twice any depth is any depth.
            Component::AnyDepth if parsed.last() == Some(&component) => {}
            _ => parsed.push(component),
        }
    }
    if parsed.len() > MAX_COMPONENTS {
        return Err(Problem::Deep(parsed.len()));
    }
    Ok(parsed)
}

fn parse_watched(text: &str) -> Result<Vec<Component>, Problem> {
    check_text(text)?;
    if !text.starts_with('/') {
        return Err(Problem::Relative(shortened(text)));
    }
    let components = parse_path(text)?;
    match (components.first(), components.last()) {
        (Some(Component::Literal(first)), Some(Component::Literal(_)))
            if **first == *b"proc" && components.len() > 1 => {}
        (Some(Component::Literal(first)), _) if **first == *b"proc" => return Err(Problem::Proc),
        _ => {}
    }
    Ok(components)
}

fn check_text(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.contains('\0') {
        return Err(Problem::Nul);
    }
    if text == "~" || text.starts_with("~/") {
        return Err(Problem::Home);
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Whether a whole path fits a pattern; where it goes on after a `**` that ends the pattern does not matter.
fn fits(pattern: &[Component], path: &[u8]) -> bool {
    let (mut at, mut rest) = (0, components(path));
    // As with `*` in a name: the last `**`, and what was left of the path there.
    let mut any = None;
    loop {
        match pattern.get(at) {
            Some(Component::AnyDepth) => {
                at += 1;
                any = Some((at, rest.clone()));
                continue;
            }
            Some(component) => {
                let mut after = rest.clone();
                if after.next().is_some_and(|name| component.fits(name)) {
                    (at, rest) = (at + 1, after);
                    continue;
                }
            }
            None if rest.clone().next().is_none() => return true,
            None => {}
        }
        let Some((after, left)) = &mut any else { return false };
        if left.next().is_none() {
            return false;
        }
        (at, rest) = (*after, left.clone());
    }
}

/// Numbers of the bits that are set, from the lowest.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (bit < u64::BITS).then_some(bit as usize)
    })
}

// === impl Operation ===

impl Operation {
    /// Each of them.
    pub const ALL: [Self; 13] = [
        Self::Open,
        Self::Read,
        Self::Create,
        Self::Modify,
        Self::Close,
        Self::Delete,
        Self::Rename,
        Self::Link,
        Self::Attributes,
        Self::Truncate,
        Self::Copy,
        Self::Mkdir,
        Self::Rmdir,
    ];

    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Create => "create",
            Self::Modify => "modify",
            Self::Close => "close",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Attributes => "attributes",
            Self::Truncate => "truncate",
            Self::Copy => "copy",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
        }
    }
}

// === impl Operations ===

/// Words of a configuration.
const WORDS: [(&str, Operations); 15] = {
    let mut words = [("change", Operations::CHANGE); 15];
    words[1] = ("all", Operations::ALL);
    let names = [
        "open",
        "read",
        "create",
        "modify",
        "close",
        "delete",
        "rename",
        "link",
        "attributes",
        "truncate",
        "copy",
        "mkdir",
        "rmdir",
    ];
    let mut index = 0;
    while index < names.len() {
        words[index + 2] = (names[index], Operations::of(&[Operation::ALL[index]]));
        index += 1;
    }
    words
};

impl Operations {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self::of(&Operation::ALL);
    /// Those after which something is not as it was: `change`.
    pub const CHANGE: Self = Self::of(&[
        Operation::Create,
        Operation::Modify,
        Operation::Delete,
        Operation::Rename,
        Operation::Link,
        Operation::Attributes,
        Operation::Truncate,
        Operation::Mkdir,
        Operation::Rmdir,
    ]);
    /// Those that somebody who only reads can do.
    pub const BY_READERS: Self =
        Self::of(&[Operation::Open, Operation::Read, Operation::Close, Operation::Copy]);
    /// Those that somebody who writes can do: changes, and the opening, closing and copying that go with them.
    pub const BY_WRITERS: Self = Self(Self::ALL.0 & !(1 << Operation::Read as u16));

    /// These.
    #[must_use]
    pub const fn of(operations: &[Operation]) -> Self {
        let (mut set, mut index) = (0, 0);
        while index < operations.len() {
            set |= 1 << operations[index] as u16;
            index += 1;
        }
        Self(set)
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u16) != 0
    }

    /// Whether there is one that is in both.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }

    /// What a word of a configuration stands for.
    fn parse(word: &str) -> Result<Self, Problem> {
        if let Some((_, operations)) = WORDS.iter().find(|(name, _)| *name == word) {
            return Ok(*operations);
        }
        let lower: String = word.chars().take(MAX_SHOWN).collect::<String>().to_lowercase();
        // Beginnings of a name are closer to it than any slip of the finger: `attr`, `mod`.
        let begins = |name: &str| lower.len() > 2 && name.starts_with(&lower);
        let near =
            WORDS.iter().map(|(name, _)| (if begins(name) { 0 } else { distance(&lower, name) }, *name));
        let nearest = near.min_by_key(|(distance, _)| *distance);
        Err(Problem::Operation(nearest.filter(|(distance, _)| *distance <= 3).map(|(_, name)| name)))
    }
}

impl BitOr for Operations {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Operation> for Operations {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        operations.into_iter().fold(Self::NONE, |set, operation| set | Self::of(&[operation]))
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

// === impl List ===

impl List {
    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Paths => "paths",
            Self::Ignore => "ignore",
            Self::Operations => "operations",
        }
    }
}

// === impl PolicyError ===

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {} ({:?})", self.policy, shortened(&self.name))?;
        if let Some((list, index)) = self.item {
            write!(f, ", {}[{index}] {:?}", list.name(), shortened(&self.text))?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for PolicyError {}

// === impl Policy ===

impl Policy {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wants to be told of.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.operations
    }

    /// Whether it covers what is below a directory at any depth.
    #[must_use]
    pub fn is_recursive(&self) -> bool {
        self.recursive
    }

    /// Whether it holds in containers.
    #[must_use]
    pub fn holds_in_containers(&self) -> bool {
        self.containers
    }

    fn ignores(&self, path: &[u8]) -> bool {
        let name = file_name(path);
        self.ignored_names.iter().any(|glob| glob.fits(name))
            || self.ignored_paths.iter().any(|pattern| fits(pattern, path))
    }

    fn ignores_tree(&self, path: &[u8]) -> bool {
        let mut patterns = self.ignored_paths.iter();
        patterns.any(|pattern| pattern.last() == Some(&Component::AnyDepth) && fits(pattern, path))
    }
}

// === impl Policies ===

impl Policies {
    /// Policies in the order in which they are asked.
    ///
    /// # Errors
    /// When a text of one is not as [`PolicySpec`] says: the first of them.
    pub fn compile(specs: Vec<PolicySpec>) -> Result<Self, PolicyError> {
        let mut compiled = Compiled {
            policies: Vec::with_capacity(specs.len()),
            trie: vec![Node::default()],
            by_operation: [0; Operation::ALL.len()],
            proc_names: Vec::new(),
            ignore_trees: 0,
        };
        for spec in specs {
            compiled.add(spec)?;
        }
        compiled.finish(0);
        compiled.proc_names.sort();
        compiled.proc_names.dedup();
        let enabled = (0..compiled.policies.len()).fold(0, |set, index| set | 1 << index);
        Ok(Self { compiled: Arc::new(compiled), enabled })
    }

    /// Those that hold in containers, alone.
    #[must_use]
    pub fn in_containers(&self) -> Self {
        let enabled = bits(self.enabled).filter(|index| self.compiled.policies[*index].containers);
        Self { compiled: Arc::clone(&self.compiled), enabled: enabled.fold(0, |set, index| set | 1 << index) }
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        bits(self.enabled).map(|index| &self.compiled.policies[index])
    }

    /// The first policy that is to be told of this: covers the path, has the operation, and does not ignore it.
    ///
    /// `path` is absolute and has no `.`, `..` or symbolic links that the policies do not name.
    #[must_use]
    pub fn matching(&self, path: &[u8], operation: Operation, is_directory: bool) -> Option<&Policy> {
        if is_directory && operation == Operation::Read {
            return None;
        }
        let covering = self.locate(path)?.covering.all();
        let covering = covering & self.enabled & self.compiled.by_operation[operation as usize];
        bits(covering).map(|index| &self.compiled.policies[index]).find(|policy| !policy.ignores(path))
    }

    /// Whether some policy covers the path and does not ignore it, whatever the operation.
    #[must_use]
    pub fn any_covering(&self, path: &[u8]) -> bool {
        self.locate(path).is_some_and(|position| self.not_ignored(position.covering.all(), path) != 0)
    }

    /// Whether something below this directory may be covered, which need not be there yet.
    ///
    /// When such a directory comes to be or is moved, what is to be watched has to be found again below it.
    #[must_use]
    pub fn may_cover_below(&self, directory: &[u8]) -> bool {
        self.locate(directory).is_some_and(|position| {
            let covering = position.covering;
            (covering.tree | covering.flat) & self.enabled != 0 || self.nodes(&position).next().is_some()
        })
    }

    /// Of these policies those that do not ignore a path.
    pub(super) fn not_ignored(&self, policies: u64, path: &[u8]) -> u64 {
        let kept =
            bits(policies & self.enabled).filter(|index| !self.compiled.policies[*index].ignores(path));
        kept.fold(0, |set, index| set | 1 << index)
    }

    /// Of these policies those that ignore a directory and everything below it.
    pub(super) fn ignoring_tree(&self, policies: u64, path: &[u8]) -> u64 {
        let candidates = policies & self.enabled & self.compiled.ignore_trees;
        let ignoring = bits(candidates).filter(|index| self.compiled.policies[*index].ignores_tree(path));
        ignoring.fold(0, |set, index| set | 1 << index)
    }

    /// Policies with one of these operations.
    pub(super) fn with(&self, operations: Operations) -> u64 {
        operations.iter().fold(0, |set, operation| set | self.compiled.by_operation[operation as usize])
            & self.enabled
    }

    /// Last components of patterns below `/proc`.
    pub(super) fn proc_names(&self) -> &[Vec<u8>] {
        &self.compiled.proc_names
    }

    /// At `/`.
    pub(super) fn root(&self) -> Position {
        let mut position = Position::default();
        self.reach(&mut position, 0);
        position
    }

    /// At the entry `name` of a directory.
    pub(super) fn enter(&self, directory: &Position, name: &[u8]) -> Position {
        let mut entry = Position::default();
        self.enter_into(directory, name, &mut entry);
        entry
    }

    /// As [`Self::enter`], in place of what was in `entry`.
    #[inline]
    fn enter_into(&self, directory: &Position, name: &[u8], entry: &mut Position) {
        entry.covering = Covering { tree: directory.covering.tree, flat: 0, entry: directory.covering.flat };
        entry.nodes.clear();
        for number in directory.nodes.iter() {
            let node = &self.compiled.trie[number as usize];
            if node.stays {
                self.reach(entry, number);
            }
            if let Ok(index) = node.search(name) {
                self.reach(entry, node.literals[index].1);
            }
            for (glob, number) in &node.globs {
                if glob.fits(name) {
                    self.reach(entry, *number);
                }
            }
        }
    }

    /// Nodes where a path is, of policies that hold.
    pub(super) fn nodes(&self, position: &Position) -> impl Iterator<Item = &Node> {
        position.nodes.iter().map(|number| self.node(number)).filter(|node| node.below & self.enabled != 0)
    }

    /// A node by its number.
    pub(super) fn node(&self, number: u32) -> &Node {
        &self.compiled.trie[number as usize]
    }

    /// Those of a set that hold.
    pub(super) fn enabled(&self, policies: u64) -> u64 {
        policies & self.enabled
    }

    /// As a symbolic link is seen that is an entry of `directory`: only what names it counts, not that
    /// everything is covered here.
    pub(super) fn enter_named(&self, directory: &Position, name: &[u8]) -> Position {
        let mut named = Position::default();
        for number in directory.nodes.iter().filter(|number| !self.node(*number).at_any_depth) {
            named.nodes.insert(number);
        }
        self.enter(&named, name)
    }

    /// Adds a node to where a path is.
    #[inline]
    fn reach(&self, position: &mut Position, number: u32) {
        let node = &self.compiled.trie[number as usize];
        position.covering.tree |= node.tree;
        position.covering.flat |= node.flat;
        if node.is_leaf() {
            return;
        }
        position.nodes.insert(number);
        // No pattern ends after a `**`, nor does another come at once.
        if let Some(number) = node.any_depth {
            position.nodes.insert(number);
        }
    }

    fn locate(&self, path: &[u8]) -> Option<Position> {
        if path.first() != Some(&b'/') {
            return None;
        }
        let (mut position, mut next) = (self.root(), Position::default());
        for name in components(path) {
            self.enter_into(&position, name, &mut next);
            if next.is_nowhere() {
                return None;
            }
            std::mem::swap(&mut position, &mut next);
            if position.is_settled() && position.covering.flat | position.covering.entry == 0 {
                break;
            }
        }
        Some(position)
    }
}

// === impl Compiled ===

impl Compiled {
    fn add(&mut self, spec: PolicySpec) -> Result<(), PolicyError> {
        let index = self.policies.len();
        let error = |item: Option<(List, usize, &str)>, problem| PolicyError {
            policy: index,
            name: spec.name.clone(),
            item: item.map(|(list, index, _)| (list, index)),
            text: item.map_or_else(String::new, |(_, _, text)| text.to_owned()),
            problem,
        };
        if index == MAX_POLICIES {
            return Err(error(None, Problem::TooMany));
        }
        if spec.name.is_empty() {
            return Err(error(None, Problem::Unnamed));
        }
        if let Some(other) = self.policies.iter().position(|policy| policy.name == spec.name) {
            return Err(error(None, Problem::Duplicate(other)));
        }
        if spec.paths.is_empty() {
            return Err(error(None, Problem::NoPaths));
        }

        for (at, text) in spec.paths.iter().enumerate() {
            let pattern =
                parse_watched(text).map_err(|problem| error(Some((List::Paths, at, text)), problem))?;
            self.insert(pattern, index, spec.recursive);
        }
        let (mut ignored_names, mut ignored_paths) = (Vec::new(), Vec::<Box<[Component]>>::new());
        for (at, text) in spec.ignore.iter().enumerate() {
            let wrong = |problem| error(Some((List::Ignore, at, text)), problem);
            check_text(text).map_err(wrong)?;
            if text.starts_with('/') {
                ignored_paths.push(parse_path(text).map_err(wrong)?.into());
            } else if text.contains('/') {
                return Err(wrong(Problem::RelativeIgnore(shortened(text))));
            } else {
                match parse_path(text).map_err(wrong)?.pop() {
                    Some(Component::AnyDepth) | None => {
                        return Err(wrong(GlobError::PartlyAnyDepth.into()));
                    }
                    Some(component) => ignored_names.push(component),
                }
            }
        }
        let mut operations = Operations::NONE;
        for (at, word) in spec.operations.iter().enumerate() {
            let parsed = Operations::parse(word);
            operations =
                operations | parsed.map_err(|problem| error(Some((List::Operations, at, word)), problem))?;
        }
        if spec.operations.is_empty() {
            operations = Operations::CHANGE;
        }

        for operation in operations.iter() {
            self.by_operation[operation as usize] |= 1 << index;
        }
        if ignored_paths.iter().any(|pattern| pattern.last() == Some(&Component::AnyDepth)) {
            self.ignore_trees |= 1 << index;
        }
        self.policies.push(Policy {
            name: spec.name,
            recursive: spec.recursive,
            containers: spec.containers,
            operations,
            ignored_names: ignored_names.into(),
            ignored_paths: ignored_paths.into(),
        });
        Ok(())
    }

    /// Puts a pattern of a policy into the trie.
    fn insert(&mut self, mut pattern: Vec<Component>, policy: usize, recursive: bool) {
        if let (Some(Component::Literal(first)), Some(Component::Literal(last))) =
            (pattern.first(), pattern.last())
            && **first == *b"proc"
        {
            self.proc_names.push(last.to_vec());
        }
        // `/etc/**` is `/etc` and all below.
        let recursive = pattern.pop_if(|last| *last == Component::AnyDepth).is_some() || recursive;
        let mut number = 0;
        for component in pattern {
            number = self.edge(number, component);
        }
        let node = &mut self.trie[number as usize];
        let ends = if recursive { &mut node.tree } else { &mut node.flat };
        *ends |= 1 << policy;
    }

    /// Where an edge leads, which is made if it is not there.
    fn edge(&mut self, from: u32, component: Component) -> u32 {
        let new = u32::try_from(self.trie.len()).expect("patterns have fewer than 2^32 components");
        let node = &mut self.trie[from as usize];
        let stays = component == Component::AnyDepth;
        let at_any_depth = node.at_any_depth || stays;
        match component {
            Component::Literal(name) => match node.search(&name) {
                Ok(index) => return node.literals[index].1,
                Err(index) => node.literals.insert(index, (name, new)),
            },
            Component::Glob(_) => {
                if let Some((_, number)) = node.globs.iter().find(|(glob, _)| *glob == component) {
                    return *number;
                }
                node.globs.push((component, new));
            }
            Component::AnyDepth => match node.any_depth {
                Some(number) => return number,
                None => node.any_depth = Some(new),
            },
        }
        self.trie.push(Node { stays, at_any_depth, ..Node::default() });
        new
    }

    /// Works out what is known of a node only when all patterns are in: which policies and how many components
    /// are below it.
    fn finish(&mut self, number: u32) {
        let node = &self.trie[number as usize];
        let mut below = node.tree | node.flat;
        let mut flat = (node.flat != 0).then_some(0);
        let mut tree = (node.tree != 0 || node.any_depth.is_some()).then_some(0);
        let any_depth = node.any_depth;
        let edges: Vec<u32> =
            node.literals.iter().map(|edge| edge.1).chain(node.globs.iter().map(|edge| edge.1)).collect();
        for child in edges {
            self.finish(child);
            let child = &self.trie[child as usize];
            below |= child.below;
            flat = flat.max(child.longest_flat.map(|length| length + 1));
            tree = tree.max(child.longest_tree.map(|length| length + 1));
        }
        if let Some(child) = any_depth {
            self.finish(child);
            below |= self.trie[child as usize].below;
        }
        let node = &mut self.trie[number as usize];
        (node.below, node.longest_flat, node.longest_tree) = (below, flat, tree);
    }
}

// === impl Node ===

impl Node {
    /// Whether it has an edge of this name.
    pub(super) fn has_literal(&self, name: &[u8]) -> bool {
        self.search(name).is_ok()
    }

    /// Whether no pattern goes on from here.
    pub(super) fn is_leaf(&self) -> bool {
        self.literals.is_empty() && self.globs.is_empty() && self.any_depth.is_none()
    }

    /// Which edge has this name, or where it would have to be put.
    #[inline]
    fn search(&self, name: &[u8]) -> Result<usize, usize> {
        self.literals.binary_search_by(|(literal, _)| {
            literal.len().cmp(&name.len()).then_with(|| (**literal).cmp(name))
        })
    }
}

// === impl Covering ===

impl Covering {
    /// Policies that cover the path.
    pub(super) fn all(self) -> u64 {
        self.tree | self.flat | self.entry
    }
}

// === impl Position ===

impl Position {
    /// Whether neither this path nor anything below it is covered.
    pub(super) fn is_nowhere(&self) -> bool {
        self.nodes.count == 0 && self.covering == Covering::default()
    }

    /// Whether no pattern goes on from here: below it is as here.
    pub(super) fn is_settled(&self) -> bool {
        self.nodes.count == 0
    }
}

// === impl Nodes ===

impl Nodes {
    fn iter(&self) -> impl Iterator<Item = u32> {
        self.few[..self.count.min(INLINE)].iter().chain(&self.more).copied()
    }

    #[inline]
    fn clear(&mut self) {
        self.count = 0;
        self.more.clear();
    }

    /// Adds one that is not there.
    #[inline]
    fn insert(&mut self, number: u32) {
        if self.iter().any(|other| other == number) {
            return;
        }
        match self.few.get_mut(self.count) {
            Some(place) => *place = number,
            None => self.more.push(number),
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::{hint::black_box, time::Instant};

    use super::*;

    fn spec(name: &str, paths: &[&str]) -> PolicySpec {
        PolicySpec {
            name: name.to_owned(),
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            ..PolicySpec::default()
        }
    }

    fn recursive(name: &str, paths: &[&str]) -> PolicySpec {
        PolicySpec { recursive: true, ..spec(name, paths) }
    }

    fn ignoring(ignore: &[&str], spec: PolicySpec) -> PolicySpec {
        PolicySpec { ignore: ignore.iter().map(|&glob| glob.to_owned()).collect(), ..spec }
    }

    fn with(operations: &[&str], spec: PolicySpec) -> PolicySpec {
        PolicySpec { operations: operations.iter().map(|&word| word.to_owned()).collect(), ..spec }
    }

    fn compile(specs: impl IntoIterator<Item = PolicySpec>) -> Policies {
        Policies::compile(specs.into_iter().collect()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn changed<'p>(policies: &'p Policies, path: &str) -> Option<&'p str> {
        policies.matching(path.as_bytes(), Operation::Modify, false).map(Policy::name)
    }

    fn read<'p>(policies: &'p Policies, path: &str) -> Option<&'p str> {
        policies.matching(path.as_bytes(), Operation::Read, false).map(Policy::name)
    }

    #[test]
    fn a_recursive_policy_covers_a_directory_and_all_below() {
        let policies = compile([recursive("etc", &["/etc/"])]);
        for path in ["/etc", "/etc/a", "/etc/a/b", "/etc/a/b/c/d"] {
            assert_eq!(changed(&policies, path), Some("etc"), "{path}");
        }
        for path in ["/", "/etcetera", "/usr/etc", "/et", "", "etc/a", "etc"] {
            assert_eq!(changed(&policies, path), None, "{path}");
        }
    }

    #[test]
    fn another_covers_a_directory_and_its_entries() {
        let policies = compile([spec("etc", &["/etc"])]);
        assert_eq!(changed(&policies, "/etc"), Some("etc"));
        assert_eq!(changed(&policies, "/etc/a"), Some("etc"));
        assert_eq!(changed(&policies, "/etc/a/b"), None);
    }

    #[test]
    fn globs_are_within_a_component_and_two_stars_across() {
        let policies = compile([
            spec("ssh", &["/home/*/.ssh/id_*"]),
            spec("keys", &["/pki/**/*.key"]),
            spec("tree", &["/srv/**"]),
            spec("star", &[r"/a/\*"]),
        ]);
        for (path, name) in [
            ("/home/alice/.ssh/id_rsa", Some("ssh")),
            ("/home/alice/x/.ssh/id_rsa", None),
            ("/home/.ssh/id_rsa", None),
            ("/pki/a.key", Some("keys")),
            ("/pki/a/b/c.key", Some("keys")),
            ("/pki/a/b/c.pem", None),
            ("/srv", Some("tree")),
            ("/srv/a/b", Some("tree")),
            ("/a/*", Some("star")),
            ("/a/b", None),
        ] {
            assert_eq!(changed(&policies, path), name, "{path}");
        }
    }

    #[test]
    fn the_root_is_a_path() {
        let policies = compile([spec("root", &["/"])]);
        assert_eq!(changed(&policies, "/"), Some("root"));
        assert_eq!(changed(&policies, "/etc"), Some("root"));
        assert_eq!(changed(&policies, "/etc/a"), None);
        assert_eq!(changed(&compile([spec("all", &["/**"])]), "/etc/a"), Some("all"));
    }

    #[test]
    fn the_first_that_has_the_operation_decides() {
        let policies = compile([
            with(&["read"], spec("secrets", &["/etc/shadow"])),
            spec("accounts", &["/etc/shadow", "/etc/passwd"]),
            recursive("etc", &["/etc"]),
        ]);
        assert_eq!(read(&policies, "/etc/shadow"), Some("secrets"));
        assert_eq!(changed(&policies, "/etc/shadow"), Some("accounts"));
        assert_eq!(changed(&policies, "/etc/hosts"), Some("etc"));
        assert_eq!(read(&policies, "/etc/passwd"), None);
    }

    #[test]
    fn names_and_whole_paths_are_ignored() {
        let policies = compile([
            ignoring(&["*.swp", "4913", "/etc/cache/**", "/etc/*/tmp"], recursive("etc", &["/etc"])),
            spec("late", &["/etc/x.swp"]),
        ]);
        for path in ["/etc/a.swp", "/etc/a/4913", "/etc/cache", "/etc/cache/a/b", "/etc/a/tmp"] {
            assert_eq!(changed(&policies, path), None, "{path}");
            assert!(!policies.any_covering(path.as_bytes()), "{path}");
        }
        for path in ["/etc/a.swpx", "/etc/cached", "/etc/a/tmp/b", "/etc/tmp"] {
            assert_eq!(changed(&policies, path), Some("etc"), "{path}");
            assert!(policies.any_covering(path.as_bytes()), "{path}");
        }
        assert_eq!(changed(&policies, "/etc/x.swp"), Some("late"));
    }

    #[test]
    fn nothing_is_read_of_a_directory() {
        let policies = compile([with(&["all"], recursive("etc", &["/etc"]))]);
        assert!(policies.matching(b"/etc/ssl", Operation::Read, true).is_none());
        assert!(policies.matching(b"/etc/ssl", Operation::Open, true).is_some());
    }

    #[test]
    fn names_need_not_be_text() {
        let policies = compile([spec("a", &["/a/?x"])]);
        assert!(policies.matching(b"/a/\xffx", Operation::Modify, false).is_some());
    }

    #[test]
    fn some_policies_hold_in_containers_alone() {
        let policies = compile([
            spec("host", &["/etc/passwd"]),
            PolicySpec { containers: true, ..spec("both", &["/etc/passwd"]) },
        ]);
        assert_eq!(changed(&policies, "/etc/passwd"), Some("host"));
        assert_eq!(changed(&policies.in_containers(), "/etc/passwd"), Some("both"));
        assert_eq!(policies.in_containers().iter().map(Policy::name).collect::<Vec<_>>(), ["both"]);
    }

    #[test]
    fn directories_that_lead_to_something_are_known() {
        let policies = compile([spec("ssh", &["/home/*/.ssh"]), spec("file", &["/etc/passwd"])]);
        for (path, does) in [
            ("/", true),
            ("/home", true),
            ("/home/alice", true),
            ("/home/alice/.ssh", true),
            ("/home/alice/doc", false),
            ("/etc", true),
            ("/var", false),
        ] {
            assert_eq!(policies.may_cover_below(path.as_bytes()), does, "{path}");
        }
    }

    #[test]
    fn operations_have_words() {
        let policies = compile([
            spec("default", &["/a"]),
            with(&["open", "rmdir"], spec("two", &["/b"])),
            with(&["all"], spec("all", &["/c"])),
        ]);
        let operations: Vec<_> = policies.iter().map(Policy::operations).collect();
        assert_eq!(operations[0], Operations::CHANGE);
        assert_eq!(operations[1], Operations::of(&[Operation::Open, Operation::Rmdir]));
        assert_eq!(operations[2], Operation::ALL.into_iter().collect());
        assert!(!operations[0].contains(Operation::Copy));
        for operation in Operation::ALL {
            let word = WORDS.iter().find(|(name, _)| *name == operation.name());
            assert_eq!(word.map(|(_, operations)| *operations), Some(Operations::of(&[operation])));
        }
    }

    #[test]
    fn errors_name_the_place_and_the_remedy() {
        let a = || spec("a", &["/a"]);
        let cases = [
            (vec![a(), spec("a", &["/b"])], "policy 1 (\"a\"): policy 0 has this name already"),
            (vec![spec("", &["/a"])], "it has no name"),
            (vec![spec("a", &[])], "policy 0 (\"a\"): it has no paths"),
            (vec![spec("a", &["/b", ""])], "policy 0 (\"a\"), paths[1] \"\": it is empty"),
            (
                vec![spec("a", &["etc/passwd"])],
                "paths[0] \"etc/passwd\": it is not absolute; write it from the root: /etc/passwd",
            ),
            (vec![spec("a", &["~/.ssh"])], "write /root, or /home/*"),
            (vec![spec("a", &["/etc/../root"])], "it has a component \"..\""),
            (vec![spec("a", &["/etc/./root"])], "it has a component \".\""),
            (vec![spec("a", &["/etc/[ab"])], "the \"[\" is not closed"),
            (vec![spec("a", &["/etc/**.key"])], "write \"*\" for a part of a name"),
            (vec![spec("a", &["/proc/*/m*"])], "end the path in a plain name"),
            (vec![spec("a", &["/proc"])], "end the path in a plain name"),
            (vec![spec("a", &["/a\0b"])], "zero byte"),
            (vec![spec("a", &[&format!("/{}", "x".repeat(256))])], "a component has 256 bytes"),
            (vec![spec("a", &[&"/x".repeat(65)])], "it has 65 components"),
            (
                vec![ignoring(&["cache/**"], a())],
                "ignore[0] \"cache/**\": it has a \"/\" but is not absolute; write the whole path, as in /srv/cache/**",
            ),
            (vec![ignoring(&["**"], a())], "\"**\" stands for whole components"),
            (
                vec![with(&["create", "modfy"], a())],
                "operations[1] \"modfy\": there is no such operation, did you mean \"modify\"?; use some of change, all, open",
            ),
            (vec![with(&["Attr"], a())], "did you mean \"attributes\"?"),
            (vec![with(&["frobnicate"], a())], "there is no such operation; use"),
            (
                (0..65).map(|n| spec(&n.to_string(), &["/a"])).collect(),
                "policy 64 (\"64\"): there are more than 64 policies",
            ),
        ];
        for (specs, message) in cases {
            let error = Policies::compile(specs).unwrap_err().to_string();
            assert!(error.contains(message), "{error}\n{message}");
        }
    }

    #[test]
    fn double_slashes_are_one() {
        assert_eq!(changed(&compile([spec("a", &["//etc//passwd"])]), "/etc/passwd"), Some("a"));
    }

    #[test]
    fn many_patterns_at_one_place_are_all_followed() {
        let paths: Vec<String> = (0..40).map(|n| format!("/{}*/x{n}", "?".repeat(n % 7))).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let any: Vec<String> = (0..40).map(|n| format!("/[a-z]{}*/x{n}", "*?".repeat(n % 20))).collect();
        let any: Vec<&str> = any.iter().map(String::as_str).collect();
        let policies = compile([spec("a", &paths), spec("b", &any)]);
        for n in 0..40 {
            assert!(changed(&policies, &format!("/abcdefghijklmnopqrstuvwxyz/x{n}")).is_some());
        }
    }

    #[test]
    fn the_defaults_name_what_they_cover() {
        let policies = compile(defaults());
        for (path, change, reading) in [
            ("/etc/shadow", Some("accounts"), Some("secrets")),
            ("/etc/passwd", Some("accounts"), None),
            ("/etc/passwd.swp", None, None),
            ("/etc/hosts", Some("etc"), None),
            ("/etc/ld.so.preload", Some("preload"), None),
            ("/etc/ld.so.conf.d/x.conf", Some("preload"), None),
            ("/etc/cron.d/x", Some("cron"), None),
            ("/var/spool/cron/crontabs/root", Some("cron"), None),
            ("/etc/sudoers.d/x", Some("sudoers"), None),
            ("/etc/pam.d/sshd", Some("pam"), None),
            ("/usr/lib/systemd/system/x.service", Some("systemd"), None),
            ("/home/a/.config/systemd/user/x.service", Some("systemd"), None),
            ("/home/a/.ssh/authorized_keys", Some("ssh"), None),
            ("/home/a/.ssh/id_ed25519", Some("ssh"), Some("secrets")),
            ("/home/a/.ssh/id_ed25519.pub", Some("ssh"), None),
            ("/home/a/.bashrc", Some("shell-startup"), None),
            ("/home/a/notes", None, None),
            ("/var/www/html/shell.php", Some("web-roots"), None),
            ("/usr/bin/ls", Some("system-binaries"), None),
            ("/usr/lib/python3/x.pyc", None, None),
            ("/boot/vmlinuz", Some("boot"), None),
            ("/etc/kubernetes/pki/etcd/ca.key", Some("secrets"), Some("secrets")),
            ("/etc/kubernetes/pki/etcd/ca.crt", Some("etc"), None),
            ("/run/secrets/kubernetes.io/serviceaccount/token", Some("secrets"), Some("secrets")),
            (
                "/var/lib/kubelet/pods/1/volumes/kubernetes.io~projected/t/..data/token",
                Some("secrets"),
                Some("secrets"),
            ),
            ("/proc/1/mem", Some("secrets"), Some("secrets")),
            ("/proc/1/maps", None, None),
            ("/dev/null", None, None),
        ] {
            assert_eq!(changed(&policies, path), change, "{path}");
            assert_eq!(read(&policies, path), reading, "{path}");
        }
        assert_eq!(policies.proc_names(), [b"kcore".to_vec(), b"mem".to_vec()]);
    }

    /// A measurement, for `cargo test --release -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures"]
    fn a_path_that_is_not_covered_takes_little_time() {
        let policies = compile(defaults());
        for path in [
            "/var/lib/docker/overlay2/0123456789abcdef/diff/usr/bin/ls",
            "/home/alice/src/project/target/debug/deps/x.o",
            "/home/alice/.config/chromium/Default/Cookies",
            "/tmp/x",
            "/var/lib/kubelet/pods/1/volumes/kubernetes.io~projected/a/b/c/d",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/etc/shadow",
        ] {
            let start = Instant::now();
            let rounds = 1_000_000;
            for _ in 0..rounds {
                black_box(policies.matching(black_box(path.as_bytes()), Operation::Open, false));
            }
            println!("{:>4} ns {path}", start.elapsed().as_nanos() / rounds);
        }
    }
}
