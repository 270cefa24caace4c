//! A random but repeatable history of a folder.
//!
//! The program keeps a model of what is in the folder, so that every act it picks must succeed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::{
    opened::Opened,
    said::Line,
    truth::{File, Name},
};

/// Do what comes to mind with files in a folder; the same seed gives the same acts
#[derive(Debug, Args)]
pub struct Random {
    /// Must be empty
    folder: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 100)]
    steps: u32,
}

/// What a name leads to, of what acts need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Symlink,
}

#[derive(Debug)]
struct History {
    root: PathBuf,
    dice: Dice,
    /// By path below the root.
    entries: BTreeMap<PathBuf, Kind>,
    /// How many names were made up.
    named: u32,
}

/// `SplitMix64` <https://doi.org/10.1145/2714064.2660195>
#[derive(Debug)]
struct Dice(u64);

type Act = fn(&mut History) -> Result<Option<()>>;

/// What can be done, and how often it is: of the sum of these numbers.
const ACTS: &[(u64, Act)] = &[
    (20, History::create),
    (14, History::write),
    (10, History::mkdir),
    (16, History::rename),
    (10, History::replace),
    (6, History::link),
    (5, History::symlink),
    (12, History::unlink),
    (4, History::rmdir),
    (6, History::truncate),
    (6, History::chmod),
];

// === impl Random ===

impl Random {
    pub fn run(&self) -> Result<()> {
        let root = self.folder.canonicalize().with_context(|| format!("no {}", self.folder.display()))?;
        ensure!(root.read_dir()?.next().is_none(), "{} is not empty; use a new folder", root.display());
        let mut history = History { root, dice: Dice(self.seed), entries: BTreeMap::new(), named: 0 };
        for _ in 0..self.steps {
            history.step()?;
        }
        Ok(())
    }
}

// === impl History ===

impl History {
    /// Does one thing. What cannot be done yet, for want of a file of that kind, is left for another.
    fn step(&mut self) -> Result<()> {
        loop {
            let mut left = self.dice.below(ACTS.iter().map(|(weight, _)| weight).sum());
            let picked = ACTS.iter().find(|(weight, _)| {
                let is_it = left < *weight;
                left = left.saturating_sub(*weight);
                is_it
            });
            let (_, act) = picked.expect("less than the sum");
            if act(self)?.is_some() {
                return Ok(());
            }
        }
    }

    fn create(&mut self) -> Result<Option<()>> {
        let path = self.new_path();
        Opened::new(&self.full(&path), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?.close()?;
        self.entries.insert(path, Kind::File);
        Ok(Some(()))
    }

    fn write(&mut self) -> Result<Option<()>> {
        let Some(path) = self.pick(|kind| kind == Kind::File) else { return Ok(None) };
        let len = self.dice.below(64) + 1;
        let file = Opened::new(&self.full(&path), OFlags::WRONLY | OFlags::APPEND)?;
        file.write(&vec![b'x'; usize::try_from(len)?])?;
        file.close()?;
        Ok(Some(()))
    }

    fn mkdir(&mut self) -> Result<Option<()>> {
        let path = self.new_path();
        let full = self.full(&path);
        let done = rustix::fs::mkdirat(CWD, &full, Mode::from(0o755));
        Line::new("mkdir").path("path", &full).file(File::at(&full).as_ref()).end(done)?;
        self.entries.insert(path, Kind::Folder);
        Ok(Some(()))
    }

    fn rename(&mut self) -> Result<Option<()>> {
        let Some(old) = self.pick(|_| true) else { return Ok(None) };
        let new = self.new_path();
        if new.starts_with(&old) {
            return Ok(None);
        }
        self.move_to(&old, &new).map(Some)
    }

    /// Renames to a name that is taken: by a file, or by an empty folder if it is a folder that is renamed.
    fn replace(&mut self) -> Result<Option<()>> {
        let Some(old) = self.pick(|_| true) else { return Ok(None) };
        let is_folder = self.entries[&old] == Kind::Folder;
        let can_go = |history: &Self, path: &PathBuf| {
            let kind = history.entries[path];
            !path.starts_with(&old) && if is_folder { history.is_empty(path) } else { kind != Kind::Folder }
        };
        let others: Vec<PathBuf> = self.entries.keys().filter(|path| can_go(self, path)).cloned().collect();
        if others.is_empty() {
            return Ok(None);
        }
        let new = others[self.dice.index(others.len())].clone();
        self.move_to(&old, &new).map(Some)
    }

    fn move_to(&mut self, old: &Path, new: &Path) -> Result<()> {
        let (from, to) = (Name::of(None, &self.full(old)), Name::of(None, &self.full(new)));
        let done = rustix::fs::renameat(CWD, &from.path, CWD, &to.path);
        let line = Line::new("rename").path("path", &from.path).path("new_path", &to.path);
        line.file(from.file.as_ref()).other_file("replaced", to.file.as_ref()).end(done)?;
        // Two names of one file stay both: rename(2) does nothing then.
        if to.file.is_some() && from.file == to.file {
            return Ok(());
        }
        let moved: Vec<_> = self.entries.extract_if(.., |path, _| path.starts_with(old)).collect();
        for (path, kind) in moved {
            let rest = path.strip_prefix(old).context("it starts with it")?;
            // A join with nothing would end in a slash.
            let path = if rest.as_os_str().is_empty() { new.to_owned() } else { new.join(rest) };
            self.entries.insert(path, kind);
        }
        Ok(())
    }

    fn link(&mut self) -> Result<Option<()>> {
        let Some(old) = self.pick(|kind| kind == Kind::File) else { return Ok(None) };
        let new = self.new_path();
        let (from, to) = (self.full(&old), self.full(&new));
        let done = rustix::fs::linkat(CWD, &from, CWD, &to, AtFlags::empty());
        let line = Line::new("link").path("path", &from).path("new_path", &to);
        line.file(File::at(&from).as_ref()).end(done)?;
        self.entries.insert(new, Kind::File);
        Ok(Some(()))
    }

    fn symlink(&mut self) -> Result<Option<()>> {
        let Some(target) = self.pick(|_| true) else { return Ok(None) };
        let new = self.new_path();
        let (target, path) = (self.full(&target), self.full(&new));
        let done = rustix::fs::symlinkat(&target, CWD, &path);
        let line = Line::new("symlink").path("path", &path).path("target", &target);
        line.file(File::at(&path).as_ref()).end(done)?;
        self.entries.insert(new, Kind::Symlink);
        Ok(Some(()))
    }

    fn unlink(&mut self) -> Result<Option<()>> {
        let Some(path) = self.pick(|kind| kind != Kind::Folder) else { return Ok(None) };
        self.remove("unlink", &path, AtFlags::empty()).map(Some)
    }

    fn rmdir(&mut self) -> Result<Option<()>> {
        let empty: Vec<PathBuf> = self.entries.keys().filter(|path| self.is_empty(path)).cloned().collect();
        if empty.is_empty() {
            return Ok(None);
        }
        let path = empty[self.dice.index(empty.len())].clone();
        self.remove("rmdir", &path, AtFlags::REMOVEDIR).map(Some)
    }

    fn remove(&mut self, act: &str, path: &Path, flags: AtFlags) -> Result<()> {
        let name = Name::of(None, &self.full(path));
        let done = rustix::fs::unlinkat(CWD, &name.path, flags);
        Line::new(act).path("path", &name.path).file(name.file.as_ref()).end(done)?;
        self.entries.remove(path);
        Ok(())
    }

    fn truncate(&mut self) -> Result<Option<()>> {
        let Some(path) = self.pick(|kind| kind == Kind::File) else { return Ok(None) };
        let full = self.full(&path);
        let text = std::ffi::CString::new(full.as_os_str().as_encoded_bytes())?;
        let len = i64::try_from(self.dice.below(128))?;
        // SAFETY: a string that ends in zero.
        let result = unsafe { libc::truncate(text.as_ptr(), len) };
        let done = if result == 0 { Ok(()) } else { Err(rustix::io::Errno::from_raw_os_error(errno())) };
        Line::new("truncate").path("path", &full).file(File::at(&full).as_ref()).end(done)?;
        Ok(Some(()))
    }

    fn chmod(&mut self) -> Result<Option<()>> {
        let Some(path) = self.pick(|kind| kind != Kind::Symlink) else { return Ok(None) };
        let full = self.full(&path);
        // The owner keeps all rights, lest later acts fail for one who is not root.
        let mode = 0o700 | u32::try_from(self.dice.below(0o100))?;
        let done = rustix::fs::chmodat(CWD, &full, Mode::from(mode), AtFlags::empty());
        Line::new("chmod").path("path", &full).file(File::at(&full).as_ref()).end(done)?;
        Ok(Some(()))
    }

    fn full(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// One of those of some kinds, if there are any.
    fn pick(&mut self, of: impl Fn(Kind) -> bool) -> Option<PathBuf> {
        let paths: Vec<&PathBuf> =
            self.entries.iter().filter(|(_, kind)| of(**kind)).map(|(path, _)| path).collect();
        if paths.is_empty() {
            return None;
        }
        let path = paths[self.dice.index(paths.len())].clone();
        Some(path)
    }

    /// A name that is not there, in any folder.
    fn new_path(&mut self) -> PathBuf {
        let folder = match self.dice.below(3) {
            0 => None,
            _ => self.pick(|kind| kind == Kind::Folder),
        };
        self.named += 1;
        let name = format!("n{}", self.named);
        folder.map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name))
    }

    fn is_empty(&self, path: &Path) -> bool {
        self.entries.get(path) == Some(&Kind::Folder)
            && !self.entries.keys().any(|other| other != path && other.starts_with(path))
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().expect("the error of a system call")
}

// === impl Dice ===

impl Dice {
    /// A number from 0 to one less than this.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // That small numbers come a little more often does not matter here.
        (mixed ^ (mixed >> 31)) % end
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("less than a usize")
    }
}
