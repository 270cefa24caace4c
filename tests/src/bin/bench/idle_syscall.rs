//! `bench idle-syscall`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    agent::{self, Asked},
    machine,
    price::{About, Comparison, Goal, Subject, Under},
    sys, write_json,
};

/// Most that every sensor together may add to a call that nobody asked about, in ns.
const MOST_ADDED: f64 = 35.0;

/// What the agent costs a system call that nobody asked about
///
/// One thread, kept on one CPU, calls getppid in a tight loop; no sensor looks at it. Short rounds are
/// timed in five states: nothing attached, nothing attached again, the agent with exec, fork and exit
/// alone (--kind process.exec --kind process.exit), with every sensor of processes (--kind 'process.*'),
/// and as it runs unless told otherwise, with those of files and its default policies. A block has many
/// rounds of each state; blocks are repeated, in another order each time.
///
/// Noise only ever makes a round slower, so the fastest round of all blocks says most, and goals are for
/// it. The median of a block less that of nothing in the same block is what a busy machine sees; its
/// interval says how much the machine wavers. "Nothing, again" is measured as the others are and should
/// add 0: what it does add is the least that can be told apart, and where that is much nothing is judged.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How often every state comes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    blocks: u32,

    /// Timed rounds of a state in a block
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Calls in a round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let program = agent::program()?;
    let &Arguments { blocks, rounds, calls, .. } = arguments;
    let cpu = machine::cpus()? - 1;
    println!("\nTax on a system call nobody asked about: getppid on CPU {cpu}");
    println!(
        "{rounds} rounds of {calls} calls in each state, {blocks} blocks in turns; {}",
        program.display()
    );

    let subject = |name, asked, most| Subject {
        name,
        under: Under::Agent(asked, &[]),
        goal: Some(Goal::Fastest(most)),
    };
    let comparison = Comparison {
        program: &program,
        cpu,
        blocks,
        rounds,
        calls,
        caller: &|| {
            Ok(Box::new(|_| {
                sys::getppid_many_times(calls);
                Ok(())
            }))
        },
        about: About::Nothing,
        subjects: &[
            subject("exec, fork and exit", Asked::LEAST, 0.0),
            subject("every sensor of processes", Asked::PROCESSES, MOST_ADDED),
            subject("and of files, default policies", Asked::USUAL, MOST_ADDED),
        ],
        audit: None,
    };
    let measured = comparison.measure()?;
    comparison.tell(&measured);
    write_json(arguments.json.as_deref(), &measured)
}
