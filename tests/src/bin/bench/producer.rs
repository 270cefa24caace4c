//! Processes that do nothing but produce events: here, run programs.

use std::{
    env,
    ffi::OsString,
    fs::{self, Permissions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tempfile::TempPath;

use crate::sys::{self, Program};

/// First argument of every program that is run: events about it are told from all others by it.
pub const NAME: &str = "nightjar-bench-exec";

/// How long it took, and the CPU time of a producer and all it ran.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Effort {
    pub wall_ns: u64,
    pub cpu_ns: u64,
}

/// The hidden command that a producer is.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    program: PathBuf,
    #[arg(long)]
    execs: u32,
    #[arg(long)]
    cpu: usize,
}

/// Waits for a line on standard input, runs the program many times, tells the effort.
pub fn run(arguments: &Arguments) -> Result<()> {
    pin(arguments.cpu)?;
    let program = Program::new(&arguments.program, NAME)?;
    // The page cache and the loader's paths are warm in every round then.
    program.run()?;
    await_start()?;

    let (begin, cpu) = (Instant::now(), sys::own_cpu_time()?);
    for _ in 0..arguments.execs {
        program.run()?;
    }
    let (wall, cpu) = (begin.elapsed(), sys::own_cpu_time()?.saturating_sub(cpu));
    answer(&Effort { wall_ns: nanos(wall), cpu_ns: nanos(cpu) })
}

/// In a producer: says that it is ready and waits for a line on standard input.
pub fn await_start() -> Result<()> {
    println!();
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// In a producer: tells what it did.
pub fn answer(answer: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Keeps this thread, and what it starts, on one CPU: the scheduler else moves each new program to
/// whichever CPU is idle, and how often it does is noise.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// Producers that have started and wait.
pub struct Producers(Vec<(Child, BufReader<ChildStdout>)>);

/// Execs that each producer makes before those that are measured.
pub const WARM_UP: u32 = 1;

impl Producers {
    /// One on each of these CPUs, which runs a program.
    pub fn start(cpus: &[usize], program: &Path, execs: u32) -> Result<Self> {
        Self::each(cpus.iter().map(|cpu| {
            let mut args = vec!["produce".into(), "--program".into(), program.into()];
            args.extend(["--execs", &execs.to_string(), "--cpu", &cpu.to_string()].map(OsString::from));
            args
        }))
    }

    /// One with each of these lists of arguments, of which the first is its hidden command.
    pub fn each(commands: impl IntoIterator<Item = Vec<OsString>>) -> Result<Self> {
        let own = env::current_exe()?;
        let mut producers = Self(Vec::new());
        for args in commands {
            let mut child =
                Command::new(&own).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let answers = BufReader::new(child.stdout.take().context("a producer has an output")?);
            producers.0.push((child, answers));
        }
        for (_, answers) in &mut producers.0 {
            answers.read_line(&mut String::new())?;
        }
        Ok(producers)
    }

    /// Their process IDs.
    pub fn pids(&self) -> Vec<u32> {
        self.0.iter().map(|(child, _)| child.id()).collect()
    }

    /// Lets them go; gives the wall time of the slowest and the CPU time of all.
    pub fn run(self) -> Result<Effort> {
        let mut sum = Effort::default();
        for effort in self.answers::<Effort>()? {
            sum.wall_ns = sum.wall_ns.max(effort.wall_ns);
            sum.cpu_ns += effort.cpu_ns;
        }
        Ok(sum)
    }

    /// Lets them go; gives what each answers at its end.
    pub fn answers<A: DeserializeOwned>(mut self) -> Result<Vec<A>> {
        for (child, _) in &mut self.0 {
            child.stdin.take().context("a producer has an input")?.write_all(b"\n")?;
        }
        let mut all = Vec::new();
        for (child, answers) in &mut self.0 {
            let mut answer = String::new();
            answers.read_line(&mut answer)?;
            let status = child.wait()?;
            let told = serde_json::from_str(&answer);
            all.push(told.with_context(|| format!("a producer failed ({status})"))?);
        }
        Ok(all)
    }
}

impl Drop for Producers {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The smallest program there is: an ELF header, one segment, `exit(0)`. Nothing runs faster, so nothing
/// makes more execs a second; it needs no compiler and no loader.
pub fn tiny_program() -> Result<TempPath> {
    const CODE: &[u8] = if cfg!(target_arch = "x86_64") {
        // xor edi, edi; mov eax, 60; syscall
        &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]
    } else {
        // mov x0, #0; mov x8, #93; svc #0
        &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]
    };
    const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    const HEADERS: u16 = 64 + 56;
    const BASE: u64 = 0x40_0000;

    let size = u64::from(HEADERS) + CODE.len() as u64;
    let mut elf = Vec::new();
    // 64 bits, little-endian, version 1; padded.
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, machine, version, entry, program headers at 64, no sections, no flags.
    elf.extend([2_u16, MACHINE].map(u16::to_le_bytes).concat());
    elf.extend(1_u32.to_le_bytes());
    elf.extend([BASE + u64::from(HEADERS), 64, 0].map(u64::to_le_bytes).concat());
    elf.extend(0_u32.to_le_bytes());
    // Sizes: this header, a program header; one of them; no section headers.
    elf.extend([64_u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    // PT_LOAD, readable and executable: the whole file at BASE.
    elf.extend([1_u32, 5].map(u32::to_le_bytes).concat());
    elf.extend([0, BASE, BASE, size, size, 0x1_0000].map(u64::to_le_bytes).concat());
    elf.extend(CODE);

    let file = tempfile::Builder::new().prefix("nightjar-bench-tiny-").tempfile()?;
    // Closed before it is run: a program that somebody may write to cannot be.
    let path = file.into_temp_path();
    fs::write(&path, elf)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Program::new(&path, NAME)?
        .run()
        .with_context(|| format!("is {} mounted noexec? Set TMPDIR", env::temp_dir().display()))?;
    Ok(path)
}
