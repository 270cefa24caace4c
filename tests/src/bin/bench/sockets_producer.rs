//! Processes that make connections, or send datagrams, as fast as they can.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{
    producer::{answer, await_start, nanos, pin},
    sockets::{self, Connector, Datagrams},
    sys,
};

/// Datagrams that are on their way at once.
const TRAIN: u32 = 32;
/// Connections, or trains of datagrams, between two looks at the clock.
const UNWATCHED: u32 = 16;

/// What a producer does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Connections are made, accepted and closed, one after another.
    Connect,
    /// Datagrams of one flow are sent and received.
    Udp,
}

/// The hidden command that such a producer is.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    work: Work,
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    millis: u64,
}

/// What a producer did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Done {
    pub wall_ns: u64,
    pub cpu_ns: u64,
    /// Connections, or datagrams.
    pub made: u64,
}

impl Work {
    /// The arguments of a producer on this CPU.
    pub fn command(self, cpu: usize, length: Duration) -> Vec<OsString> {
        let name = if self == Self::Connect { "connect" } else { "udp" };
        let (cpu, millis) = (cpu.to_string(), length.as_millis().to_string());
        let args = ["produce-sockets", "--work", name, "--cpu", &cpu, "--millis", &millis];
        args.map(OsString::from).to_vec()
    }
}

/// Makes ready, waits for a line on standard input, does its work for as long as told, tells what it did.
pub fn run(arguments: &Arguments) -> Result<()> {
    pin(arguments.cpu)?;
    sockets::isolate()?;
    let done = match arguments.work {
        Work::Connect => {
            let mut connector = Connector::new()?;
            arguments.work_for(|| connector.connect().map(|()| 1))?
        }
        Work::Udp => {
            let datagrams = Datagrams::new()?;
            arguments.work_for(|| datagrams.exchange(TRAIN).map(|()| TRAIN))?
        }
    };
    // The sockets are closed by now.
    answer(&done)
}

impl Arguments {
    /// Calls `unit` again and again, which tells how many it made.
    fn work_for(&self, mut unit: impl FnMut() -> Result<u32>) -> Result<Done> {
        await_start()?;
        let (begin, cpu) = (Instant::now(), sys::own_cpu_time()?);
        let end = begin + Duration::from_millis(self.millis);
        let mut made = 0;
        while Instant::now() < end {
            for _ in 0..UNWATCHED {
                made += u64::from(unit()?);
            }
        }
        let (wall, cpu) = (begin.elapsed(), sys::own_cpu_time()?.saturating_sub(cpu));
        Ok(Done { wall_ns: nanos(wall), cpu_ns: nanos(cpu), made })
    }
}

impl Done {
    /// Both together; the time of the slower one.
    pub fn add(&mut self, other: &Self) {
        self.wall_ns = self.wall_ns.max(other.wall_ns);
        self.cpu_ns += other.cpu_ns;
        self.made += other.made;
    }
}
