//! Subcommands of the `nightjar` program.

mod run;
mod session;
mod tail;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{ArgAction, Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{kernel, pipeline::Kinds};

/// eBPF kernel telemetry agent for Linux.
#[derive(Debug, Parser)]
#[command(name = "nightjar", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say more on standard error; twice for all
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the host and export events
    Run(run::Arguments),
    /// Show events as they happen
    Tail(tail::Arguments),
}

/// What both ways of watching take.
#[derive(Debug, Args)]
struct Watch {
    /// Stop after this long: 10s, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Only kinds that fit, as in process.exec or 'process.*'; may be given more than once. Without it all
    /// but process.fork
    #[arg(long, value_name = "GLOB")]
    kind: Vec<String>,

    /// Size of the ring buffer in MiB: a power of two
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = ring_size)]
    ring_size: u32,

    /// Carry log lines of the kernel programs into the log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_enum)]
    kernel_log: Option<KernelLog>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum KernelLog {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.verbose, cli.command.kernel_log());
    let result = match &cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Tail(arguments) => tail::tail(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place that tells why the program ends")]
fn complain(error: &anyhow::Error) {
    eprintln!("nightjar: {error:#}");
    let not_root = !rustix::process::geteuid().is_root();
    if not_root && error.downcast_ref::<kernel::KernelError>().is_some() {
        eprintln!("nightjar: watching the kernel needs root: run it with sudo");
    }
}

fn log_to_stderr(verbose: u8, kernel_log: Option<KernelLog>) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    // What the kernel programs say is asked for by its own option; the rest by -v, or the usual variable.
    let kernel_level = kernel_log.map_or("off", KernelLog::name);
    let usual = std::env::var("RUST_LOG").ok().filter(|_| verbose == 0);
    let rest = usual.as_deref().unwrap_or(level);
    let filter = EnvFilter::new(format!("{rest},nightjar_ebpf={kernel_level}"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

impl Command {
    fn kernel_log(&self) -> Option<KernelLog> {
        match self {
            Self::Run(run::Arguments { watch, .. }) | Self::Tail(tail::Arguments { watch, .. }) => {
                watch.kernel_log
            }
        }
    }
}

impl KernelLog {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Watch {
    fn kinds(&self) -> Result<Kinds> {
        Kinds::of(&self.kind).context("--kind")
    }

    fn kernel_options(&self) -> kernel::Options {
        kernel::Options {
            ring_bytes: self.ring_size << 20,
            log_level: self.kernel_log.map_or(0, |level| level as u8),
            settings: nightjar_abi::settings::Settings::default().environment(["LD_PRELOAD","LD_LIBRARY_PATH","LD_AUDIT","GLIBC_TUNABLES"]),
        }
    }
}

fn ring_size(text: &str) -> Result<u32, String> {
    const LARGEST: u32 = 1024;
    let size: u32 = text.parse().map_err(|_| format!("{text:?} is no number of MiB"))?;
    if size.is_power_of_two() && size <= LARGEST {
        return Ok(size);
    }
    let next = size.clamp(1, LARGEST).next_power_of_two();
    Err(format!("{size} is not a power of two from 1 to {LARGEST}; use {next}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let hint = || format!("{text:?} is no time; write a number and a unit, as in 500ms, 10s, 5m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| hint())?;
    let millis = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(hint()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(hint)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_ring_size_that_cannot_be_is_refused_with_one_that_can() {
        assert_eq!(ring_size("8"), Ok(8));
        for (wrong, use_instead) in
            [("3", "use 4"), ("0", "use 1"), ("2048", "use 1024"), ("4000000000", "use 1024")]
        {
            assert!(ring_size(wrong).unwrap_err().ends_with(use_instead), "{wrong}");
        }
        assert!(ring_size("4M").unwrap_err().contains("no number"));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        for wrong in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "99999999999999999h"] {
            assert!(duration(wrong).unwrap_err().contains("as in 500ms"), "{wrong}");
        }
    }
}
