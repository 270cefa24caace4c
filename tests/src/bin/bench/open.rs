//! `bench open`, `bench open-distinct` and `bench unwatched`

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::{
    agent::{self, Asked},
    audit::Audit,
    machine,
    price::{About, Comparison, Goal, Subject, Under},
    write_json,
};

/// Most that watching a file may add to an open and a close of it, in ns, where the opens are repeats.
const MOST_ADDED_REPEATED: f64 = 600.0;
/// The same, where each open is of another file.
const MOST_ADDED_DISTINCT: f64 = 1000.0;
/// The same, where no policy covers the file.
const MOST_ADDED_UNWATCHED: f64 = 150.0;
/// Files in a directory, as in a source tree.
const IN_DIRECTORY: u32 = 100;
/// Files that no policy covers: as many as a program opens in a while.
const UNWATCHED: u32 = 1000;

/// What watching a file costs who opens it again and again
///
/// One thread, kept on one CPU, opens a file for reading and closes it, in a loop. The agent watches that file
/// (operations: [open]) and writes JSON to a file in memory: the first open of every two seconds is told with
/// its path, the others are counted, and the events must tell of every single one. With --all it is told to
/// record all files on the machine, each open and each close.
///
/// Short rounds are timed with nothing attached, nothing attached again, and the agent. A block has many rounds
/// of each; blocks are repeated, in another order each time. What the agent adds is the median of a block less
/// that of nothing in the same block.
#[derive(Debug, Args)]
pub struct OpenArguments {
    /// Record all files instead (files: {all: true}), closes too
    #[arg(long)]
    all: bool,

    /// Timed rounds of a state in a block
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Opens, and closes, in a round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    #[command(flatten)]
    common: Common,
}

/// What watching files costs who opens one after another
///
/// As `open`, but each open is of another file, so that every one is a record and an event of its own, with its
/// path: files of a tree that is watched (recursive: true, operations: [open]), a hundred in a directory.
/// Nothing may be lost of them.
#[derive(Debug, Args)]
pub struct DistinctArguments {
    /// Timed rounds of a state in a block
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Opens, and closes, in a round; as many files are there as it makes in all
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    #[command(flatten)]
    common: Common,
}

/// What the agent costs who opens files that nobody asked about
///
/// As `open`, but of a thousand files in ten directories that no policy covers, one after another. The agent
/// watches what it watches unless told otherwise, its default policies. Not one of the opens may be told.
#[derive(Debug, Args)]
pub struct UnwatchedArguments {
    /// Timed rounds of a state in a block
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Opens, and closes, in a round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    #[command(flatten)]
    common: Common,
}

/// What all three have.
#[derive(Debug, Args)]
struct Common {
    /// How often every state comes
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    blocks: u32,

    /// Last, compare with the kernel's audit and a rule for the same; needs auditctl and a host that does
    /// not use audit. Leaves the rule "task,never", without which audit that was on once costs for ever
    #[arg(long)]
    audit: bool,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Files that are there to be opened. Dropped, they are removed.
pub struct Files {
    dir: TempDir,
    names: Vec<CString>,
}

pub fn open(arguments: &OpenArguments) -> Result<()> {
    let files = Files::make(1)?;
    let path = files.path(0);
    let (name, asked, told): (_, _, &[(&str, u64)]) = if arguments.all {
        ("the agent, all files", Asked::all_files(), &[("file.open", 1), ("file.close", 1)])
    } else {
        ("the agent, file watched", Asked::watching(&path, false, &["open"]), &[("file.open", 1)])
    };
    // A goal there is for a watched file; all files are a flood, and whoever wants it pays for it.
    let goal = (!arguments.all).then_some(Goal::Median(MOST_ADDED_REPEATED));
    println!("\nOpening one file again and again");
    let subject = Subject { name, under: Under::Agent(asked, told), goal };
    arguments.common.run((arguments.rounds, arguments.calls), &files, &subject, &[&format!("path={path}")])
}

pub fn open_distinct(arguments: &DistinctArguments) -> Result<()> {
    let &DistinctArguments { rounds, calls, .. } = arguments;
    let files = Files::make(rounds.checked_mul(calls).context("too many files")?)?;
    println!("\nOpening {} files of a tree, each once", files.names.len());
    let dir = files.dir().display().to_string();
    let subject = Subject {
        name: "the agent, tree watched",
        under: Under::Agent(Asked::watching(&dir, true, &["open"]), &[("file.open", 1)]),
        goal: Some(Goal::Median(MOST_ADDED_DISTINCT)),
    };
    arguments.common.run((rounds, calls), &files, &subject, &[&format!("dir={dir}")])
}

pub fn unwatched(arguments: &UnwatchedArguments) -> Result<()> {
    let files = Files::make(UNWATCHED)?;
    println!("\nOpening {UNWATCHED} files that no policy covers");
    let subject = Subject {
        name: "the agent, default policies",
        under: Under::Agent(Asked::USUAL, &[]),
        goal: Some(Goal::Median(MOST_ADDED_UNWATCHED)),
    };
    arguments.common.run((arguments.rounds, arguments.calls), &files, &subject, &["path=/etc/shadow"])
}

impl Common {
    /// Opens the files from the first to the last and over again; `audited` is what an audit rule would be about.
    fn run(
        &self,
        (rounds, calls): (u32, u32),
        files: &Files,
        subject: &Subject,
        audited: &[&str],
    ) -> Result<()> {
        let program = agent::program()?;
        let blocks = self.blocks;
        // Refused now or not at all, not after minutes of rounds.
        let audit = if self.audit { Some(Audit::take()?) } else { None };
        println!(
            "{rounds} rounds of {calls} opens and closes in each state, {blocks} blocks in turns; {}",
            program.display()
        );
        let comparison = Comparison {
            program: &program,
            cpu: machine::cpus()? - 1,
            blocks,
            rounds,
            calls,
            caller: &|| {
                Ok(Box::new(move |round| files.open(round as usize * calls as usize, calls as usize)))
            },
            about: About::Files(files.dir()),
            subjects: std::slice::from_ref(subject),
            audit: None,
        };
        let measured = comparison.measure()?;
        comparison.tell(&measured);
        let Some(audit) = audit else {
            return write_json(self.json.as_deref(), &measured);
        };
        let mut rule = vec!["-a", "always,exit"];
        rule.extend(audited.iter().flat_map(|&field| ["-F", field]));
        rule.extend(["-F", "perm=rwa", "-k", "nightjar-bench"]);
        let subject = Subject { name: "audit, a rule for it", under: Under::Audit(rule), goal: None };
        let with_audit =
            Comparison { subjects: std::slice::from_ref(&subject), audit: Some(&audit), ..comparison };
        let audited = with_audit.measure()?;
        with_audit.tell(&audited);
        write_json(self.json.as_deref(), &[measured, audited])
    }
}

impl Files {
    /// So many, in directories of a hundred each, in memory where there is a file system for that.
    pub fn make(count: u32) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("nightjar-bench-")
            .tempdir_in(agent::memory_dir().canonicalize()?)?;
        let mut names = Vec::new();
        for number in 0..count {
            let below = dir.path().join("src").join(format!("d{:04}", number / IN_DIRECTORY));
            if number % IN_DIRECTORY == 0 {
                fs::create_dir_all(&below)?;
            }
            let path = below.join(format!("file-{number:06}.h"));
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
            names.push(CString::new(path.as_os_str().as_bytes())?);
        }
        Ok(Self { dir, names })
    }

    /// The directory that nothing else is in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory in it that has these directories.
    pub fn sources(&self) -> PathBuf {
        self.dir.path().join("src")
    }

    /// The path of one.
    fn path(&self, number: usize) -> String {
        self.names[number].to_string_lossy().into_owned()
    }

    /// Opens and closes so many, one after another from this one on; after the last comes the first.
    fn open(&self, from: usize, count: usize) -> Result<()> {
        (from..from + count).try_for_each(|number| open_and_close(&self.names[number % self.names.len()]))
    }
}

/// Opens a file for reading and closes it.
pub fn open_and_close(name: &CStr) -> Result<()> {
    drop(rustix::fs::open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    Ok(())
}
