//! The watched part of the file system as it is known: directories with marks, anchors, attributes of files.

use std::{
    collections::HashMap,
    ffi::OsString,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::LazyLock,
};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use super::{
    fanotify::{Handle, HandleRef, Mask},
    paths::{device_at, path_from},
};
use crate::kernel::InodeNumber;

/// A watched directory or file.
#[derive(Debug)]
pub(super) struct Marked {
    /// Where the agent finds it.
    pub(super) path: PathBuf,
    /// Paths by which policies see it, the first of which is told.
    pub(super) names: Vec<Vec<u8>>,
    pub(super) mask: Mask,
    /// Raised when what is watched was found anew; what is of an earlier number is gone.
    pub(super) generation: u64,
}

/// Attributes of a file as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Known {
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
    /// Type and permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) marked: HashMap<Handle, Marked>,
    /// Since when what is told of marked directories, by the hashes of their names.
    places: ByHash<(u64, Mask)>,
    /// Devices of marked directories, major and minor, by the hashes of their names.
    devices: ByHash<(u32, u32)>,
    /// Open on each file system that something is marked on.
    pub(super) volumes: HashMap<[u8; 8], OwnedFd>,
    /// Paths by which policies see what is below an inode.
    /// Of which generation they are goes with them.
    pub(super) anchors: HashMap<InodeNumber, (u64, Vec<Vec<u8>>)>,
    /// By the hash of the path as policies see it.
    known: ByHash<Known>,
    /// Whether files are watched for themselves: as `FileSettings::hard_links`.
    pub(super) single: u64,
    /// Most files of which attributes are kept.
    most: usize,
}

/// A map by what is a [`hash`] already.
pub(super) type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Hashed>>;

/// Leaves a [`hash`] as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hashed(u64);

/// A hash that nobody can find collisions of.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    hash_of_all(&[bytes])
}

/// The [`hash`] of parts, one behind the other.
pub(super) fn hash_of_all(parts: &[&[u8]]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = KEY.build_hasher();
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

// === impl Hashed ===

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        unreachable!("a hash is a number, not {bytes:?}");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl Known ===

impl Known {
    pub(super) fn of(stat: &Statx) -> Self {
        let time = stat.stx_mtime;
        Self {
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec)),
            mode: u32::from(stat.stx_mode),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            links: stat.stx_nlink,
        }
    }
}

// === impl Tree ===

impl Tree {
    /// An empty one that keeps attributes of so many files.
    pub(super) fn of(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Something is marked, since `now` (nanoseconds since boot).
    pub(super) fn mark(&mut self, handle: Handle, mut marked: Marked, now: u64) {
        // It may be reached by another path, which was found before.
        let before = self.marked.remove(&handle).filter(|before| before.generation == marked.generation);
        if let Some(before) = before {
            marked.names.extend(
                before.names.into_iter().filter(|name| !marked.names.contains(name)).collect::<Vec<_>>(),
            );
            marked.mask |= before.mask;
        }
        for name in &marked.names {
            let place = self.places.entry(hash(name)).or_insert((now, marked.mask));
            place.1 |= marked.mask;
        }
        self.marked.insert(handle, marked);
    }

    /// Something is gone, and its mark with it.
    pub(super) fn unmark(&mut self, handle: HandleRef<'_>) {
        if let Some(gone) = self.marked.remove(handle.as_bytes()) {
            for name in gone.names {
                let key = hash(&name);
                self.places.remove(&key);
                self.devices.remove(&key);
            }
        }
    }

    /// An inode is anchored by more paths.
    pub(super) fn add_anchor(&mut self, number: InodeNumber, names: Vec<Vec<u8>>, generation: u64) {
        let anchor = self.anchors.entry(number).or_default();
        if anchor.0 != generation {
            *anchor = (generation, Vec::new());
        }
        for name in names {
            if !anchor.1.contains(&name) {
                anchor.1.push(name);
            }
        }
    }

    /// Whether the name of something is that of an anchor.
    pub(super) fn is_anchor(&self, path: &[u8]) -> bool {
        self.anchors.values().any(|(_, names)| names.iter().any(|name| name == path))
    }

    /// Marks are other than they were.
    pub(super) fn count_places(&mut self) {
        let before = std::mem::take(&mut self.places);
        for marked in self.marked.values() {
            for name in &marked.names {
                let key = hash(name);
                let since = before.get(&key).map_or(u64::MAX, |(since, _)| *since);
                self.places.insert(key, (since, marked.mask));
            }
        }
        self.forget_devices();
    }

    /// Whether the kernel has told of this in a directory since before that time.
    pub(super) fn is_told_of(&self, directory: &[u8], what: Mask, time: u64) -> bool {
        self.places.get(&hash(directory)).is_some_and(|(since, mask)| *since < time && mask.contains(what))
    }

    /// Something may have been mounted over what is known.
    pub(super) fn forget_devices(&mut self) {
        self.devices.clear();
    }

    /// Device of the file system of a directory, as `stat` has it. That of a marked one is looked for once.
    pub(super) fn device_of(&mut self, directory: &[u8]) -> String {
        let key = hash(directory);
        if let Some((major, minor)) = self.devices.get(&key) {
            return format!("{major}:{minor}");
        }
        let device = device_at(path_from(directory));
        if let Some((major, minor)) = device
            && self.places.contains_key(&key)
        {
            self.devices.insert(key, (major, minor));
        }
        device.map_or_else(String::new, |(major, minor)| format!("{major}:{minor}"))
    }

    /// The file of a notification as it is now, whatever its name is by now.
    pub(super) fn look_at(&self, file: HandleRef<'_>) -> Option<Known> {
        let file = file.open(self.volumes.get(&file.volume())?.as_fd()).ok()?;
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        statx(&file, "", flags, StatxFlags::BASIC_STATS).ok().map(|stat| Known::of(&stat))
    }

    /// A marked directory by the handle of a notification.
    pub(super) fn directory(&self, handle: HandleRef<'_>) -> Option<&Marked> {
        self.marked.get(handle.as_bytes())
    }

    /// What was known of a file, by its path as policies see it.
    pub(super) fn known(&self, path: &[u8]) -> Option<Known> {
        // None of these: something in a root directory of its own.
        if path.is_empty() {
            return None;
        }
        self.known.get(&hash(path)).copied()
    }

    /// Takes note of a file; what was known before.
    pub(super) fn learn(&mut self, path: &[u8], now: Known) -> Option<Known> {
        if path.is_empty() {
            return None;
        }
        self.learn_hashed(hash(path), now)
    }

    /// As [`Self::learn`], by the [`hash`] of the path.
    pub(super) fn learn_hashed(&mut self, key: u64, now: Known) -> Option<Known> {
        if self.known.len() >= self.most && !self.known.contains_key(&key) {
            return None;
        }
        self.known.insert(key, now)
    }

    /// As [`Self::learn_hashed`], where nothing is known yet.
    pub(super) fn learn_absent(&mut self, key: u64, now: Known) {
        if !self.known.contains_key(&key) {
            self.learn_hashed(key, now);
        }
    }

    /// A file is gone.
    pub(super) fn forget(&mut self, path: &[u8]) -> Option<Known> {
        self.known.remove(&hash(path))
    }

    /// Files of which attributes are kept.
    pub(super) fn files(&self) -> usize {
        self.known.len()
    }

    /// Directories below `old` are below `new` now.
    pub(super) fn moved(&mut self, old: &[u8], new: &[u8]) {
        let names = self.marked.values_mut().flat_map(|marked| &mut marked.names);
        for name in names.chain(self.anchors.values_mut().flat_map(|(_, names)| names)) {
            if let Some(rest) = name.strip_prefix(old)
                && (rest.is_empty() || rest[0] == b'/')
            {
                *name = [new, rest].concat();
            }
        }
        for marked in self.marked.values_mut() {
            if let Some(rest) = marked.path.as_os_str().as_bytes().strip_prefix(old)
                && (rest.is_empty() || rest[0] == b'/')
            {
                marked.path = PathBuf::from(OsString::from_vec([new, rest].concat()));
            }
        }
        self.count_places();
    }

    /// Paths by which policies see a file that is `distance` levels below an anchor, by a path that ends alike.
    pub(super) fn names_below(&self, anchor: InodeNumber, distance: u32, path: &[u8]) -> Vec<Vec<u8>> {
        let Some((_, names)) = self.anchors.get(&anchor) else { return Vec::new() };
        let Some(rest) = last(path, distance) else { return Vec::new() };
        names.iter().map(|name| [name, rest].concat()).collect()
    }
}

/// The last components of a path, with the slash before them.
fn last(path: &[u8], components: u32) -> Option<&[u8]> {
    if components == 0 {
        return Some(&[]);
    }
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(index, _)| &path[index..]).nth(components as usize - 1)
}

/// A file as it is now; none where it is gone.
pub(super) fn look(path: &Path) -> Option<Known> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok().map(|stat| Known::of(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_components_are_those_below_the_anchor() {
        assert_eq!(last(b"/etc/ssh/sshd_config", 2).unwrap(), b"/ssh/sshd_config");
        assert_eq!(last(b"/etc/ssh/sshd_config", 1).unwrap(), b"/sshd_config");
        assert_eq!(last(b"/etc", 0).unwrap(), b"");
        assert_eq!(last(b"/etc", 2), None);
    }

    #[test]
    fn what_is_below_a_directory_moves_with_it() {
        let mut tree = Tree::default();
        let inode = |inode| InodeNumber { inode, device: 1 };
        tree.add_anchor(inode(1), vec![b"/etc/a".to_vec(), b"/etc/ab".to_vec()], 1);
        tree.add_anchor(inode(2), vec![b"/etc/a/b".to_vec()], 1);
        tree.moved(b"/etc/a", b"/etc/c");
        assert_eq!(tree.anchors[&inode(1)].1, [b"/etc/c".to_vec(), b"/etc/ab".to_vec()]);
        assert_eq!(tree.names_below(inode(2), 1, b"/mnt/x"), [b"/etc/c/b/x"]);
    }

    #[test]
    fn the_device_of_a_marked_directory_is_looked_for_once_until_something_is_mounted() {
        let mut tree = Tree::default();
        let real = tree.device_of(b"/tmp");
        assert!(!real.is_empty() && tree.devices.is_empty(), "it is not marked");
        tree.places.insert(hash(b"/tmp"), (0, Mask::CREATE));
        assert_eq!(tree.device_of(b"/tmp"), real);
        *tree.devices.get_mut(&hash(b"/tmp")).unwrap() = (7, 300);
        assert_eq!(tree.device_of(b"/tmp"), "7:300");
        tree.forget_devices();
        assert_eq!(tree.device_of(b"/tmp"), real);
    }

    #[test]
    fn attributes_are_kept_of_so_many_files_and_no_more() {
        let mut tree = Tree { most: 1, ..Tree::default() };
        assert_eq!(tree.learn(b"/a", Known { size: 1, ..Known::default() }), None);
        tree.learn(b"/b", Known::default());
        assert_eq!(tree.known(b"/b"), None);
        assert_eq!(tree.learn(b"/a", Known { size: 2, ..Known::default() }).unwrap().size, 1);
        assert_eq!(tree.forget(b"/a").unwrap().size, 2);
    }
}
