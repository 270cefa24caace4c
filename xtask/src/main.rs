//! Developer commands of Nightjar: `cargo xtask COMMAND`. Everything they need is installed on first use.

mod bench;
mod build;
mod dist;
mod docs;
mod kernel_crate;
mod lint;
mod run;
mod test;
mod tools;
mod with_backend;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{tools::Need, workspace::Workspace};

/// Developer commands of Nightjar.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, PartialEq, Subcommand)]
enum Command {
    /// Build the agent for release and run it as root
    Run {
        /// Run a backend too, and an agent that reports to it
        #[arg(long, conflicts_with = "args")]
        with_backend: bool,
        /// Arguments of the program
        #[arg(last = true, default_value = "tail")]
        args: Vec<String>,
    },
    /// Build agent and backend for release: target/release/nightjar and nightjar-backend
    Build,
    /// Build both statically linked, for hosts and images that have nothing else
    Dist,
    /// Run the tests that run anywhere, then, as root, those that need a kernel
    Test {
        /// Arguments of `cargo test`: a filter, or `-- --nocapture`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Check format, lints, documentation, licences and dependencies
    Lint,
    /// Write the documentation that is made from the program: events, configuration, manual pages, completions
    Docs {
        /// Only compare it with what is there
        #[arg(long)]
        check: bool,
    },
    /// Build the release programs and run a benchmark
    Bench {
        /// Name of the benchmark
        name: String,
        /// Arguments of the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

impl Command {
    /// What must be installed before the command starts.
    fn needs(&self) -> &'static [Need] {
        match self {
            Self::Dist => tools::DIST,
            Self::Run { .. } | Self::Build | Self::Bench { .. } | Self::Docs { .. } => tools::BUILD,
            Self::Test { .. } => tools::TEST,
            Self::Lint => tools::LINT,
        }
    }

    fn run(self, workspace: &Workspace) -> anyhow::Result<()> {
        tools::ensure(workspace, self.needs())?;
        match self {
            Self::Run { with_backend: true, .. } => with_backend::run(workspace),
            Self::Run { args, .. } => run::run(workspace, &args),
            Self::Build => build::both(workspace).map(drop),
            Self::Dist => dist::dist(workspace, dist::Purpose::Release).map(drop),
            Self::Test { args } => test::run(workspace, &args),
            Self::Lint => lint::run(workspace),
            Self::Docs { check } => docs::run(workspace, check),
            Self::Bench { name, args } => bench::run(workspace, &name, &args),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match Workspace::current().and_then(|workspace| cli.command.run(&workspace)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &str) -> Command {
        Cli::try_parse_from(["xtask"].into_iter().chain(words.split(' ')))
            .expect("a valid command line")
            .command
    }

    #[test]
    fn run_without_arguments_tails() {
        assert_eq!(command("run"), Command::Run { with_backend: false, args: vec!["tail".into()] });
        assert_eq!(
            command("run -- doctor --json"),
            Command::Run { with_backend: false, args: vec!["doctor".into(), "--json".into()] }
        );
    }

    #[test]
    fn test_hands_a_second_double_dash_to_cargo() {
        let args = vec!["exec".into(), "--".into(), "--nocapture".into()];
        assert_eq!(command("test -- exec -- --nocapture"), Command::Test { args });
    }

    #[test]
    fn a_benchmark_takes_options_of_its_own() {
        let args = vec!["--seconds".into(), "5".into()];
        assert_eq!(command("bench exec --seconds 5"), Command::Bench { name: "exec".into(), args });
    }
}
