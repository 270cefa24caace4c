//! `nightjar config`

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Subcommand;

use super::{Global, settings};
use crate::config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what is wrong with the configuration, if anything is (exit code 1)
    Check {
        /// The file to check, with its drop-ins, instead of the usual one
        file: Option<PathBuf>,
    },
    /// Show every setting that counts and where it comes from
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print a file with every setting, explained and commented out
    Example,
}

pub(super) fn configuration(global: &Global, command: &Command) -> Result<ExitCode> {
    match command {
        Command::Check { file } => {
            let loaded = settings::load(file.as_ref().or(global.config.as_ref()), &[], None)?;
            settings::asked(&loaded.config)?;
            let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
            print(&if files.is_empty() {
                format!("there is no {}: all settings have their defaults\n", config::DEFAULT_FILE)
            } else {
                format!("all is well in {}\n", files.join(", "))
            })?;
        }
        Command::Show { json } => {
            print(&config::show(&settings::load(global.config.as_ref(), &[], None)?, *json))?;
        }
        Command::Schema => print(&format!("{:#}\n", config::schema()))?,
        Command::Example => print(&config::example())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// On standard output; whoever reads it may stop reading.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}
