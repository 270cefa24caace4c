//! What is told to the kernel programs about files, and asked of them.

use std::os::fd::AsFd;

use aya::maps::{Array, HashMap, MapData, MapError};
use nightjar_abi::files::{CALLS, CallShape, FileSettings, FoldKey, Folded, KernelInode, WatchKey, Watched};
use rustix::{fs::fstat, thread::gettid};

type Map<K, V> = HashMap<MapData, K, V>;

/// The agent's end of the maps that are about files.
pub struct FileControls {
    pub(super) settings: Array<MapData, [u64; FileSettings::WORDS]>,
    pub(super) watched: Map<[u64; 3], [u64; 2]>,
    pub(super) folded: Map<[u64; 5], [u64; 2]>,
    pub(super) identity: Array<MapData, [u64; 3]>,
    pub(super) now: FileSettings,
    pub(super) is_served: bool,
}

/// An inode as the kernel numbers it. `stat` may say other numbers: of overlayfs, of subvolumes of btrfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InodeNumber {
    /// Its number.
    pub inode: u64,
    /// Its device: `major << 20 | minor`.
    pub device: u32,
}

impl FileControls {
    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> FileSettings {
        self.now
    }

    /// Whether programs look at files: without, nobody answers and nothing need be told.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.is_served
    }

    /// Puts other settings in force.
    ///
    /// # Errors
    /// When the kernel refuses what a running agent may always do.
    pub fn set(&mut self, settings: FileSettings) -> Result<(), MapError> {
        self.now = settings;
        self.settings.set(0, settings.to_words(), 0)
    }

    /// Watches an inode, or a name in a directory.
    ///
    /// # Errors
    /// When there is no room.
    pub fn watch(&mut self, key: &WatchKey, watched: &Watched) -> Result<(), MapError> {
        let value = [pair(watched.reads, watched.writes), pair(watched.names, watched.reserved)];
        self.watched.insert(watch_key(key), value, 0)
    }

    /// Watches it no more.
    pub fn unwatch(&mut self, key: &WatchKey) {
        // It may never have found room.
        let _not_there = self.watched.remove(&watch_key(key));
    }

    /// How the kernel numbers what `open` opens. The numbers of `stat` where no program answers.
    ///
    /// # Errors
    /// As `open`.
    pub fn identify<F: AsFd>(
        &mut self,
        open: impl FnOnce() -> rustix::io::Result<F>,
    ) -> rustix::io::Result<(F, InodeNumber)> {
        let answers = |map: &Array<MapData, [u64; 3]>| map.get(&0, 0).unwrap_or_default();
        let before = answers(&self.identity)[0];
        let asking_tid = u64::try_from(gettid().as_raw_nonzero().get()).unwrap_or_default();
        let settings = self.now;
        let asked = self.is_served && self.set(FileSettings { asking_tid, ..settings }).is_ok();
        let opened = open();
        if asked {
            // A setting of our own thread: what is asked too much does no harm.
            let _asked_too_much = self.set(settings);
        }
        let file = opened?;
        let KernelInode { answers, inode, device } = {
            let [answers, inode, device] = answers(&self.identity);
            KernelInode { answers, inode, device }
        };
        if asked && answers != before {
            return Ok((file, InodeNumber { inode, device: u32::try_from(device).unwrap_or_default() }));
        }
        let stat = fstat(&file)?;
        let device = rustix::fs::major(stat.st_dev) << 20 | rustix::fs::minor(stat.st_dev);
        Ok((file, InodeNumber { inode: stat.st_ino, device }))
    }

    /// Takes what was counted in windows of this parity: the programs count in the other one by now.
    pub fn take_folded(&mut self, parity: u32) -> Vec<(FoldKey, Folded)> {
        let keys = self.folded.keys().filter_map(Result::ok).map(|key| (key, fold_key(key)));
        let keys: Vec<_> = keys.filter(|(_, key)| key.hook_and_window & 1 == parity).collect();
        let mut taken = Vec::with_capacity(keys.len());
        for (words, key) in keys {
            let [count, last] = self.folded.get(&words, 0).unwrap_or_default();
            let _was_there = self.folded.remove(&words);
            taken.push((key, Folded { count, last }));
        }
        taken
    }
}

/// What the map `CALLS` is to have, by place.
pub(super) fn shapes() -> impl Iterator<Item = (u32, [u64; CallShape::WORDS])> {
    CALLS.iter().map(|call| (call.number, CallShape::of(call).to_words()))
}

fn watch_key(key: &WatchKey) -> [u64; 3] {
    [key.inode, key.name, pair(key.device, key.reserved)]
}

fn fold_key([inode, start, exec_id, who, how]: [u64; 5]) -> FoldKey {
    let [(device, pid), (flags, hook_and_window)] = [who, how].map(halves);
    FoldKey { inode, start, exec_id, device, pid, flags, hook_and_window }
}

/// Two numbers as they lie in memory one after the other.
fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn halves(both: u64) -> (u32, u32) {
    let bytes = both.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four of eight bytes"));
    (half(0), half(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_the_programs_write() {
        let key = [1, 2, 3, pair(4, 5), pair(6, 7)];
        let expected =
            FoldKey { inode: 1, start: 2, exec_id: 3, device: 4, pid: 5, flags: 6, hook_and_window: 7 };
        assert_eq!(fold_key(key), expected);
    }
}
