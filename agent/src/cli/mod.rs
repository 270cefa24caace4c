//! Subcommands of the `nightjar` program.

mod client;
mod configuration;
mod doctor;
mod enrol;
mod generate;
mod logging;
mod remote;
mod run;
mod sensors;
mod settings;
mod status;
mod status_view;
mod tail;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::{config::Period, kernel, service::PrivilegeError};

/// eBPF kernel telemetry agent for Linux.
///
/// It watches the host from inside the kernel and tells which process did what, as which user, where, and
/// started by whom.
#[derive(Debug, Parser)]
#[command(name = "nightjar", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Begin with `nightjar doctor`, which says what this host allows, and `nightjar tail`, which shows what happens.";

/// What all commands take.
#[derive(Debug, Args)]
struct Global {
    /// Read this configuration instead of /etc/nightjar/nightjar.yaml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Say more on standard error; twice for all
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the host and export events, until told to stop
    Run(run::Arguments),
    /// Show events as they happen, of a running agent or by itself
    Tail(tail::Arguments),
    /// Show how a running agent is doing
    Status(status::Arguments),
    /// Say what this host allows, and prove it by real events
    Doctor(doctor::Arguments),
    /// Make this host known to a backend
    Enrol(enrol::Arguments),
    /// Check, show or document the configuration
    #[command(subcommand)]
    Config(configuration::Command),
    /// Print the JSON Schema of events
    Schema(generate::Schema),
    /// Print completions for a shell
    Completions(generate::Completions),
    /// Print the manual page, or write one for each command
    Man(generate::Man),
    /// Write all that is made from the program's own text
    #[command(hide = true)]
    Docs(generate::Docs),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(code) => code,
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
    let needs_root = error.downcast_ref::<kernel::KernelError>().is_some()
        || error.downcast_ref::<PrivilegeError>().is_some();
    if not_root && needs_root {
        eprintln!("nightjar: watching the kernel needs root: run it with sudo");
    }
}

#[expect(clippy::print_stderr, reason = "what is not an event goes beside the events")]
fn say(text: &str) {
    eprintln!("nightjar: {text}");
}

/// For somebody who waits.
fn note(text: &str) {
    if io::stderr().is_terminal() {
        say(text);
    }
}

impl Cli {
    fn run(&self) -> Result<ExitCode> {
        let global = &self.global;
        match &self.command {
            Command::Run(arguments) => run::run(global, arguments)?,
            Command::Tail(arguments) => tail::tail(global, arguments)?,
            Command::Status(arguments) => return status::status(global, arguments),
            Command::Enrol(arguments) => enrol::run(global, arguments)?,
            Command::Doctor(arguments) => return doctor::doctor(global, arguments),
            Command::Config(command) => return configuration::configuration(global, command),
            Command::Schema(what) => what.print()?,
            Command::Completions(what) => what.print()?,
            Command::Man(what) => what.print()?,
            Command::Docs(what) => what.write()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
