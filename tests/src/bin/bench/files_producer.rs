//! Processes that do with files what a build does, or open them at a given rate.

use std::{
    ffi::{CStr, CString, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use rustix::{
    fs::{Mode, OFlags, rename, stat, unlink},
    io::{read, write},
};
use serde::{Deserialize, Serialize};

use crate::{
    open::open_and_close,
    price::number,
    producer::{answer, await_start, nanos, pin},
    sys,
};

/// Files that are opened over and over, as a header that all sources include.
const REPEATED: usize = 8;
/// Opens at a rate come in so many slices a second.
const SLICES: u32 = 1000;
/// What is written to a file at a time, as by a compiler that writes through a buffer of stdio.
const WRITTEN: [u8; 4096] = [b'x'; 4096];
/// As many objects are kept before the oldest is deleted.
const KEPT: u64 = 16;

/// What a producer does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Units of a build, one after another.
    Build,
    /// Opens, every other one of a file that was opened just before, at a rate.
    Opens,
}

/// The hidden command that such a producer is.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    work: Work,
    /// Directory of the files that are there, a hundred in a directory.
    #[arg(long)]
    files: PathBuf,
    /// Its own directory.
    #[arg(long)]
    own: PathBuf,
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    millis: u64,
    /// Opens a second.
    #[arg(long, default_value_t = 0)]
    rate: u32,
}

/// What a producer did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Done {
    pub wall_ns: u64,
    pub cpu_ns: u64,
    /// Units of a build.
    pub units: u64,
    pub opens: u64,
    pub creates: u64,
    /// Times that a file was written to between an open and a close.
    pub writings: u64,
    pub renames: u64,
    pub deletes: u64,
    /// Calls that are no act on a file.
    pub other_calls: u64,
}

impl Work {
    /// The arguments of producers, one on each of these CPUs: `files` are there, each gets a directory of its own
    /// below `own`.
    pub fn commands(
        self,
        cpus: &[usize],
        (files, own): (&Path, &Path),
        length: Duration,
        rate: u32,
    ) -> Result<Vec<Vec<OsString>>> {
        let name = if self == Self::Build { "build" } else { "opens" };
        let mut commands = Vec::new();
        for (number, cpu) in cpus.iter().enumerate() {
            let own = own.join(number.to_string());
            fs::create_dir_all(&own)?;
            let mut args: Vec<OsString> = ["produce-files", "--work", name].map(OsString::from).to_vec();
            args.extend(["--files".into(), files.into(), "--own".into(), own.into()]);
            let numbers = [
                ("--cpu", cpu.to_string()),
                ("--millis", length.as_millis().to_string()),
                ("--rate", rate.to_string()),
            ];
            args.extend(numbers.into_iter().flat_map(|(name, number)| [name.into(), number.into()]));
            commands.push(args);
        }
        Ok(commands)
    }
}

/// Makes ready, waits for a line on standard input, does its work for as long as told, tells what it did.
pub fn run(arguments: &Arguments) -> Result<()> {
    pin(arguments.cpu)?;
    let mut producer = Producer::new(arguments)?;
    await_start()?;
    let (begin, cpu) = (Instant::now(), sys::own_cpu_time()?);
    let end = begin + Duration::from_millis(arguments.millis);
    match arguments.work {
        Work::Build => {
            while Instant::now() < end {
                producer.unit()?;
            }
            producer.clean()?;
        }
        Work::Opens => producer.opens_until(end, arguments.rate)?,
    }
    producer.done.wall_ns = nanos(begin.elapsed());
    producer.done.cpu_ns = nanos(sys::own_cpu_time()?.saturating_sub(cpu));
    answer(&producer.done)
}

struct Producer {
    files: Vec<CString>,
    /// The file of `files` that comes next.
    next: usize,
    own: PathBuf,
    done: Done,
}

impl Producer {
    fn new(arguments: &Arguments) -> Result<Self> {
        let mut files = Vec::new();
        for directory in fs::read_dir(&arguments.files)? {
            for file in fs::read_dir(directory?.path())? {
                files.push(CString::new(file?.path().as_os_str().as_bytes())?);
            }
        }
        ensure!(files.len() > REPEATED, "too few files in {}", arguments.files.display());
        files.sort();
        // No two producers open the same at the same time.
        let next = files.len() / 2 * (arguments.cpu % 2);
        Ok(Self { files, next, own: arguments.own.clone(), done: Done::default() })
    }

    /// A source is compiled: its headers are looked for and read, an object is written under another name and put
    /// in its place, read by a linker, and one day deleted.
    fn unit(&mut self) -> Result<()> {
        let number = self.done.units;
        let object = self.object(number)?;
        let temporary = self.path(&format!("{number}.o.tmp"))?;
        for other in 0..4 {
            let header = self.distinct();
            stat(&self.files[header])?;
            read_all(&self.files[header])?;
            open_and_close(&self.files[other % 2])?;
            sys::getppid_many_times(1);
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o644))?;
        for _ in 0..2 {
            write(&file, &WRITTEN)?;
        }
        drop(file);
        rename(&temporary, &object)?;
        read_all(&object)?;
        if let Some(old) = number.checked_sub(KEPT) {
            unlink(&self.object(old)?)?;
            self.done.deletes += 1;
        }
        self.done.units += 1;
        self.done.opens += 9;
        self.done.creates += 1;
        self.done.writings += 1;
        self.done.renames += 1;
        self.done.other_calls += 8;
        Ok(())
    }

    /// Deletes what is left.
    fn clean(&mut self) -> Result<()> {
        for number in self.done.units.saturating_sub(KEPT)..self.done.units {
            unlink(&self.object(number)?)?;
            self.done.deletes += 1;
        }
        Ok(())
    }

    fn opens_until(&mut self, end: Instant, rate: u32) -> Result<()> {
        let slice = (rate / SLICES) as usize;
        let mut due = Instant::now();
        while Instant::now() < end {
            for number in 0..slice {
                let file = if number % 2 == 0 { self.distinct() } else { number / 2 % REPEATED };
                open_and_close(&self.files[file])?;
            }
            self.done.opens += slice as u64;
            due += Duration::from_secs(1) / SLICES;
            // One that is late does not rest, and catches up.
            sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// The place of a file that was not opened for long.
    fn distinct(&mut self) -> usize {
        self.next = if self.next + 1 < self.files.len() { self.next + 1 } else { REPEATED };
        self.next
    }

    fn object(&self, number: u64) -> Result<CString> {
        self.path(&format!("{number}.o"))
    }

    fn path(&self, name: &str) -> Result<CString> {
        Ok(CString::new(self.own.join(name).as_os_str().as_bytes())?)
    }
}

fn read_all(name: &CStr) -> Result<()> {
    let file = rustix::fs::open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0; WRITTEN.len()];
    while read(&file, &mut buffer)? > 0 {}
    Ok(())
}

impl Done {
    /// Acts on files, of which each is to be told.
    pub fn acts(&self) -> u64 {
        self.opens + self.creates + self.writings + self.renames + self.deletes
    }

    /// So many, as a rate.
    pub fn a_second(&self, count: u64) -> f64 {
        number(count) / (number(self.wall_ns) / 1e9)
    }

    /// All of them together; the time of the slowest.
    pub fn add(&mut self, other: &Self) {
        self.wall_ns = self.wall_ns.max(other.wall_ns);
        self.cpu_ns += other.cpu_ns;
        self.units += other.units;
        self.opens += other.opens;
        self.creates += other.creates;
        self.writings += other.writings;
        self.renames += other.renames;
        self.deletes += other.deletes;
        self.other_calls += other.other_calls;
    }
}
