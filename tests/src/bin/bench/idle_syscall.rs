//! `bench idle-syscall`

use std::{
    path::{Path, PathBuf},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::Args;
use serde::Serialize;

use crate::{
    agent::{self, Agent},
    machine,
    producer::pin,
    stats::{Sample, Verdict},
    sys,
    table::Table,
    write_json,
};

/// Most that every sensor together may add to a call that nobody asked about, in ns.
const MOST_ADDED: f64 = 35.0;
/// A clock cannot tell less, in ns a call, and a loop's own place in memory makes that much.
const FINEST: f64 = 1.0;
/// Where nothing differs from nothing by more than this, in ns, differences say nothing.
const COARSEST: f64 = 5.0;
/// The kernel takes hooks away for good only after all CPUs have passed a quiet state.
const SETTLE: Duration = Duration::from_millis(200);

/// What the agent costs a system call that nobody asked about
///
/// One thread, kept on one CPU, calls getppid in a tight loop; no sensor looks at it. Short rounds are
/// timed in four states: nothing attached, nothing attached again, the agent with exec, fork and exit
/// alone (--kind process.exec --kind process.exit), and the agent with every sensor. A block has many
/// rounds of each state; blocks are repeated, in another order each time.
///
/// Noise only ever makes a round slower, so the fastest round of all blocks says most, and goals are for
/// it. The median of a block less that of nothing in the same block is what a busy machine sees; its
/// interval says how much the machine wavers. "Nothing, again" is measured as the others are and should
/// add 0: what it does add is the least that can be told apart, and where that is much nothing is judged.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How often every state comes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    blocks: u32,

    /// Timed rounds of a state in a block
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Calls in a round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Nothing,
    NothingAgain,
    ExecForkExit,
    EverySensor,
}

const STATES: [State; 4] = [State::Nothing, State::ExecForkExit, State::NothingAgain, State::EverySensor];

/// Nanoseconds a call in every round of a state.
#[derive(Debug, Serialize)]
struct Rounds {
    block: u32,
    state: State,
    ns_per_call: Vec<f64>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let program = agent::program()?;
    let cpu = machine::cpus()? - 1;
    println!("\nTax on a system call nobody asked about: getppid on CPU {cpu}");
    println!(
        "{} rounds of {} calls in each state, {} blocks in turns; {}",
        arguments.rounds,
        arguments.calls,
        arguments.blocks,
        program.display()
    );

    let mut all = Vec::new();
    for block in 0..arguments.blocks {
        for turn in 0..STATES.len() {
            sys::go_on()?;
            let state = STATES[(turn + block as usize) % STATES.len()];
            all.push(Rounds { block, state, ns_per_call: state.measure(arguments, &program, cpu)? });
        }
    }
    tell(&all);
    write_json(arguments.json.as_deref(), &all)
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing attached",
            Self::NothingAgain => "nothing attached, again",
            Self::ExecForkExit => "exec, fork and exit",
            Self::EverySensor => "every sensor",
        }
    }

    fn measure(self, arguments: &Arguments, program: &Path, cpu: usize) -> Result<Vec<f64>> {
        let kinds = match self {
            Self::Nothing | Self::NothingAgain => None,
            Self::ExecForkExit => Some(agent::LEAST),
            Self::EverySensor => Some(agent::EVERY),
        };
        let agent = kinds.map(|kinds| Agent::start(program, kinds)).transpose()?;
        let times = time_on(cpu, arguments);
        if let Some(agent) = agent {
            agent.stop("")?;
        }
        times
    }
}

/// Times calls in a thread of its own, so that agents do not inherit its CPU.
fn time_on(cpu: usize, arguments: &Arguments) -> Result<Vec<f64>> {
    let work = || {
        pin(cpu)?;
        sleep(SETTLE);
        let round = |_| {
            let begin = Instant::now();
            sys::getppid_many_times(arguments.calls);
            begin.elapsed().as_secs_f64() * 1e9 / f64::from(arguments.calls)
        };
        Ok((0..arguments.rounds).map(round).collect())
    };
    thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("the timing thread panicked"))?)
}

fn tell(all: &[Rounds]) {
    let of = |state: State| all.iter().filter(move |rounds| rounds.state == state);
    let rounds = |state: State| Sample::new(of(state).flat_map(|rounds| rounds.ns_per_call.iter().copied()));
    let median = |rounds: &Rounds| Sample::new(rounds.ns_per_call.iter().copied()).median();
    let fastest = |state: State| rounds(state).min() - rounds(State::Nothing).min();
    let resolution = fastest(State::NothingAgain).abs().max(FINEST);
    let verdict = |state: State, goal: f64| match fastest(state) {
        _ if resolution > COARSEST => Verdict::Unclear,
        added => Verdict::from(added <= goal + resolution),
    };

    let mut table =
        Table::new(["ns a call", "fastest", "median", "fastest, added", "median, added (95 %)", "goal", ""]);
    for state in [State::Nothing, State::NothingAgain, State::ExecForkExit, State::EverySensor] {
        let blocks = of(state).zip(of(State::Nothing));
        let medians = Sample::new(blocks.map(|(with, without)| median(with) - median(without)));
        let (low, high) = medians.interval();
        let added = |text: String| if state == State::Nothing { String::new() } else { text };
        let (goal, word) = match state {
            State::Nothing | State::NothingAgain => (String::new(), ""),
            State::ExecForkExit => ("0".to_owned(), verdict(state, 0.0).word()),
            State::EverySensor => (format!("≤ {MOST_ADDED:+}"), verdict(state, MOST_ADDED).word()),
        };
        table.row(&[
            state.name().into(),
            format!("{:.1}", rounds(state).min()),
            format!("{:.1}", rounds(state).median()),
            added(format!("{:+.1}", fastest(state))),
            added(format!("{:+.1} ({low:+.1} to {high:+.1})", medians.median())),
            goal,
            word.into(),
        ]);
    }
    println!();
    table.print();
    println!(
        "  The goals are for the fastest. Differences below {resolution:.1} ns cannot be told from 0 here."
    );
}
