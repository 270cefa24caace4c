//! `bench startup`

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    agent::{self, Agent, Asked, Memory},
    producer::nanos,
    stats::Sample,
    sys,
    table::Table,
    write_json,
};

/// How long the agent takes to come and to go
///
/// Until it tells its first event: from its start until that event is in the file, with programs run every
/// 5 ms so that there is one. It has read the kernel's type information, had its programs verified and
/// attached and taken stock of all processes by then. To go: from SIGTERM to its end, detached. The baseline is
/// the same program told to print its version.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Starts of each kind, in turns
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Start {
    Version,
    ExecForkExit,
    EverySensor,
}

#[derive(Debug, Serialize)]
struct Round {
    start: Start,
    first_event_ns: u64,
    cpu_ns: u64,
    memory: Memory,
    stop_ns: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let program = agent::program()?;
    println!("\nComing and going, {} rounds each in turns; {}", arguments.rounds, program.display());
    let mut all = Vec::new();
    for _ in 0..arguments.rounds {
        for start in [Start::Version, Start::ExecForkExit, Start::EverySensor] {
            sys::go_on()?;
            all.push(start.round(&program)?);
        }
    }
    tell(&all);
    write_json(arguments.json.as_deref(), &all)
}

impl Start {
    fn name(self) -> &'static str {
        match self {
            Self::Version => "--version (baseline)",
            Self::ExecForkExit => "exec, fork and exit",
            Self::EverySensor => "every sensor",
        }
    }

    fn round(self, program: &Path) -> Result<Round> {
        let agent = match self {
            Self::Version => {
                let (begin, cpu) = (Instant::now(), sys::own_cpu_time()?);
                Command::new(program).arg("--version").stdout(Stdio::null()).status()?;
                let cpu_ns = nanos(sys::own_cpu_time()?.saturating_sub(cpu));
                let first_event_ns = nanos(begin.elapsed());
                return Ok(Round {
                    start: self,
                    first_event_ns,
                    cpu_ns,
                    memory: Memory::default(),
                    stop_ns: 0,
                });
            }
            Self::ExecForkExit => Agent::start(program, &Asked::LEAST)?,
            Self::EverySensor => Agent::start(program, &Asked::USUAL)?,
        };
        let first_event_ns = nanos(agent.first_event);
        let (cpu, memory) = (agent.cpu()?.total, agent.memory()?);
        let stop_ns = nanos(agent.stop()?.took);
        Ok(Round { start: self, first_event_ns, cpu_ns: nanos(cpu), memory, stop_ns })
    }
}

fn tell(all: &[Round]) {
    let millis = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e3;
    let mut table =
        Table::new(["median (min–max)", "first event, ms", "CPU until then, ms", "to go, ms", "peak", ""]);
    for start in [Start::Version, Start::ExecForkExit, Start::EverySensor] {
        let sample = |of: &dyn Fn(&Round) -> f64| {
            let sample = Sample::new(all.iter().filter(|round| round.start == start).map(of));
            format!("{:.1} ({:.1}–{:.1})", sample.median(), sample.min(), sample.max())
        };
        let agent = |text: String| if start == Start::Version { String::new() } else { text };
        let peak = all.iter().filter(|round| round.start == start).map(|round| round.memory.peak >> 10).max();
        table.row(&[
            start.name().into(),
            sample(&|round| millis(round.first_event_ns)),
            sample(&|round| millis(round.cpu_ns)),
            agent(sample(&|round| millis(round.stop_ns))),
            agent(format!("{} KiB", peak.unwrap_or(0))),
            String::new(),
        ]);
    }
    println!();
    table.print();
}
