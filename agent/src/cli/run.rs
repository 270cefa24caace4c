//! `nightjar run`

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Watch, session::Session};
use crate::export::{Export, Json};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write events as lines of JSON to this file, appending; - for standard output
    #[arg(long, value_name = "FILE")]
    json: PathBuf,

    #[command(flatten)]
    pub(super) watch: Watch,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let export = open(&arguments.json)?;
    let report = Session::start(&arguments.watch)?.export(export, None)?;
    report.tell();
    Ok(())
}

fn open(path: &Path) -> Result<Box<dyn Export>> {
    if path == Path::new("-") {
        return Ok(Box::new(Json::new(io::stdout())));
    }
    if path.is_dir() {
        bail!("{} is a folder; name a file in it", path.display());
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        // What all users ran is nobody else's business.
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write events to {}", path.display()))?;
    Ok(Box::new(Json::new(file)))
}
