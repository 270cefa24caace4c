//! Many threads at once, each with files of its own.

use std::{
    ops::Add,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, unlinkat},
    thread::gettid,
};
use serde_json::json;

use crate::said::Line;

/// Open, rename and remove files in many threads
#[derive(Debug, Args)]
pub struct Storm {
    folder: PathBuf,
    #[arg(long, default_value_t = 32)]
    threads: u32,
    /// How often each thread makes, renames, opens and removes a file
    #[arg(long, default_value_t = 100)]
    rounds: u32,
}

/// How often what was done.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    created: u64,
    opened: u64,
    written: u64,
    renamed: u64,
    unlinked: u64,
}

// === impl Storm ===

impl Storm {
    pub fn run(&self) -> Result<()> {
        let folder = self.folder.canonicalize().with_context(|| format!("no {}", self.folder.display()))?;
        let results: Vec<Result<(i32, Counts)>> = thread::scope(|scope| {
            let rounds = self.rounds;
            let start = |number| {
                scope.spawn({
                    let folder = &folder;
                    move || Ok((gettid().as_raw_nonzero().get(), work(folder, number, rounds)?))
                })
            };
            let threads: Vec<_> = (0..self.threads).map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("threads do not panic")).collect()
        });
        let done = results.into_iter().collect::<Result<Vec<_>>>()?;
        let tids: Vec<i32> = done.iter().map(|(tid, _)| *tid).collect();
        let sum = done.iter().fold(Counts::default(), |sum, (_, counts)| sum + *counts);
        Line::new("storm")
            .path("path", &folder)
            .with("threads", self.threads)
            .with("rounds", self.rounds)
            .with("tids", tids)
            .with(
                "counts",
                json!({
                    "created": sum.created,
                    "opened": sum.opened,
                    "written": sum.written,
                    "renamed": sum.renamed,
                    "unlinked": sum.unlinked,
                }),
            )
            .say()?;
        Ok(())
    }
}

/// Every call counts when it has succeeded; none may fail.
fn work(folder: &Path, thread: u32, rounds: u32) -> Result<Counts> {
    let mut counts = Counts::default();
    for round in 0..rounds {
        let name = folder.join(format!("storm-{thread}-{round}"));
        let renamed = folder.join(format!("storm-{thread}-{round}.renamed"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(CWD, &name, flags, Mode::from(0o644))
            .with_context(|| format!("open {}", name.display()))?;
        counts.created += 1;
        rustix::io::write(&file, b"x").with_context(|| format!("write {}", name.display()))?;
        counts.written += 1;
        drop(file);
        renameat(CWD, &name, CWD, &renamed).with_context(|| format!("rename {}", name.display()))?;
        counts.renamed += 1;
        openat(CWD, &renamed, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open {}", renamed.display()))?;
        counts.opened += 1;
        unlinkat(CWD, &renamed, AtFlags::empty()).with_context(|| format!("unlink {}", renamed.display()))?;
        counts.unlinked += 1;
    }
    Ok(counts)
}

// === impl Counts ===

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            created: self.created + other.created,
            opened: self.opened + other.opened,
            written: self.written + other.written,
            renamed: self.renamed + other.renamed,
            unlinked: self.unlinked + other.unlinked,
        }
    }
}
