//! Opens and closes as fast as they go, for benchmarks.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use crate::said::Line;

/// Loops for benchmarks.
#[derive(Debug, Subcommand)]
pub enum Loop {
    /// Open and close one file many times
    #[command(name = "open-loop")]
    One {
        path: PathBuf,
        #[command(flatten)]
        pace: Pace,
    },
    /// Open and close many files in a folder once each; those that are missing are made before
    #[command(name = "open-loop-distinct")]
    Distinct {
        folder: PathBuf,
        #[command(flatten)]
        pace: Pace,
    },
}

/// How often, and for what.
#[derive(Debug, Clone, Copy, Args)]
pub struct Pace {
    /// How many opens
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Open for writing, and write one byte
    #[arg(long)]
    write: bool,
}

// === impl Loop ===

impl Loop {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::One { path, pace } => {
                let path = c_string(path)?;
                pace.measure("open-loop", &|_| &path)
            }
            Self::Distinct { folder, pace } => {
                let paths = (0..pace.count).map(|number| {
                    let path = folder.join(format!("file-{number}"));
                    File::options().append(true).create(true).open(&path)?;
                    c_string(&path)
                });
                let paths = paths.collect::<Result<Vec<_>>>()?;
                pace.measure("open-loop-distinct", &|number| &paths[number as usize])
            }
        }
    }
}

// === impl Pace ===

impl Pace {
    /// Times are of all opens, in nanoseconds; those of one are a whole number less than 0.5 off.
    fn measure<'a>(self, act: &str, path: &impl Fn(u32) -> &'a CString) -> Result<()> {
        // Once before, for what is loaded at the first time.
        self.open(path(0))?;
        let (begin, cpu) = (Instant::now(), cpu_ns()?);
        for number in 0..self.count {
            self.open(path(number))?;
        }
        let (elapsed, cpu) = (begin.elapsed(), cpu_ns()? - cpu);
        let elapsed = u64::try_from(elapsed.as_nanos())?;
        let count = u64::from(self.count);
        Line::new(act)
            .with("count", count)
            .with("warm_up", 1)
            .with("write", self.write)
            .with("elapsed_ns", elapsed)
            .with("cpu_ns", cpu)
            .with("elapsed_ns_per_open", (elapsed + count / 2) / count)
            .with("cpu_ns_per_open", (cpu + count / 2) / count)
            .say()?;
        Ok(())
    }

    fn open(self, path: &CString) -> Result<()> {
        let flags = if self.write { libc::O_WRONLY } else { libc::O_RDONLY };
        // SAFETY: a string that ends in zero.
        let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
        ensure!(fd >= 0, "open {path:?}: {}", io::Error::last_os_error());
        if self.write {
            // SAFETY: one byte that lives.
            let len = unsafe { libc::write(fd, b"x".as_ptr().cast(), 1) };
            ensure!(len == 1, "write {path:?}: {}", io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else has it.
        let closed = unsafe { libc::close(fd) };
        ensure!(closed == 0, "close {path:?}: {}", io::Error::last_os_error());
        Ok(())
    }
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path has no zero inside")
}

/// CPU time of this process, user and system.
fn cpu_ns() -> Result<u64> {
    // SAFETY: zeros are a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a live value.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    ensure!(result == 0, "getrusage: {}", io::Error::last_os_error());
    let ns =
        |time: libc::timeval| time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1000;
    Ok(ns(usage.ru_utime) + ns(usage.ru_stime))
}
