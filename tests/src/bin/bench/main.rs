//! Benchmarks of the agent: `cargo xtask bench NAME`.
//!
//! A benchmark is a program with a baseline in the same run, never a timed test: it prints what it
//! measured beside the goal and succeeds whatever that was.

mod agent;
mod audit;
mod deliver;
mod exec;
mod files_producer;
mod http;
mod http_producer;
mod idle_syscall;
mod machine;
mod mixed;
mod network;
mod open;
mod operator;
mod price;
mod producer;
mod programs;
mod sockets;
mod sockets_producer;
mod startup;
mod stats;
mod sys;
mod table;
mod top_rate;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;

/// What the agent costs, beside what it may cost
///
/// Every benchmark measures with and without the agent in the same run, in turns. It prints medians; in
/// parentheses the least and the most, or the interval that holds the true median in 95 of 100 cases.
/// Against a goal that interval "passes", "falls short", or leaves it "unclear": run it longer, or on a
/// quieter machine. The program measured is NIGHTJAR_BIN, else target/release/nightjar.
#[derive(Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "shown on a terminal, as --help")]
#[command(name = "bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    Connect(network::ConnectArguments),
    Deliver(deliver::Arguments),
    Exec(exec::Arguments),
    Http(http::Arguments),
    IdleSyscall(idle_syscall::Arguments),
    Mixed(mixed::Arguments),
    Open(open::OpenArguments),
    OpenDistinct(open::DistinctArguments),
    Operator(operator::Arguments),
    Startup(startup::Arguments),
    Udp(network::UdpArguments),
    Unwatched(open::UnwatchedArguments),
    #[command(hide = true)]
    Produce(producer::Arguments),
    #[command(hide = true)]
    ProduceFiles(files_producer::Arguments),
    #[command(hide = true)]
    ProduceHttp(http_producer::Arguments),
    #[command(hide = true)]
    ProduceSockets(sockets_producer::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.benchmark) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(benchmark: &Benchmark) -> Result<()> {
    match benchmark {
        Benchmark::Produce(arguments) => return producer::run(arguments),
        Benchmark::ProduceFiles(arguments) => return files_producer::run(arguments),
        Benchmark::ProduceHttp(arguments) => return http_producer::run(arguments),
        Benchmark::ProduceSockets(arguments) => return sockets_producer::run(arguments),
        _ => {}
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the agent loads kernel programs, which needs root: run it with sudo");
    }
    sys::end_gracefully();
    match benchmark {
        Benchmark::Connect(arguments) => network::connect(arguments),
        Benchmark::Deliver(arguments) => deliver::run(arguments),
        Benchmark::Exec(arguments) => exec::run(arguments),
        Benchmark::Http(arguments) => http::run(arguments),
        Benchmark::IdleSyscall(arguments) => idle_syscall::run(arguments),
        Benchmark::Mixed(arguments) => mixed::run(arguments),
        Benchmark::Open(arguments) => open::open(arguments),
        Benchmark::OpenDistinct(arguments) => open::open_distinct(arguments),
        Benchmark::Operator(arguments) => operator::run(arguments),
        Benchmark::Startup(arguments) => startup::run(arguments),
        Benchmark::Udp(arguments) => network::udp(arguments),
        Benchmark::Unwatched(arguments) => open::unwatched(arguments),
        Benchmark::Produce(_)
        | Benchmark::ProduceFiles(_)
        | Benchmark::ProduceHttp(_)
        | Benchmark::ProduceSockets(_) => Ok(()),
    }
}

/// Writes raw numbers, where they are wanted.
fn write_json(path: Option<&Path>, numbers: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(numbers)?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nThe numbers of every round are in {}", path.display());
    Ok(())
}
