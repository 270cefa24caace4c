//! What is made from the program's own text: schemas, completions, manual pages, documentation.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, configuration::print, settings::known_kinds};
use crate::{config, server::metrics};

#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Of the status instead
    #[arg(long)]
    status: bool,
}

impl Schema {
    pub(super) fn print(&self) -> Result<()> {
        let schema = if self.status { nightjar_proto::STATUS_SCHEMA } else { nightjar_proto::EVENT_SCHEMA };
        print(&format!("{}\n", schema.trim_end()))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "For bash: nightjar completions bash > /etc/bash_completion.d/nightjar")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn print(&self) -> Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "nightjar", &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "To read it: nightjar man | man -l -")]
pub(super) struct Man {
    /// Write a page for each command into this folder instead
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Man {
    pub(super) fn print(&self) -> Result<()> {
        if let Some(folder) = &self.folder {
            return pages(folder);
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        print(&String::from_utf8_lossy(&page))
    }
}

fn pages(folder: &Path) -> Result<()> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)
    };
    write().with_context(|| format!("cannot write manual pages to {}", folder.display()))
}

#[derive(Debug, Args)]
pub(super) struct Docs {
    /// The root of the repository
    root: PathBuf,
}

impl Docs {
    /// Writes every file that is checked in and made from the program.
    pub(super) fn write(&self) -> Result<()> {
        let files = [
            ("docs/configuration.md", config::markdown(&known_kinds())),
            ("docs/events.md", nightjar_proto::EVENTS_MARKDOWN.to_owned()),
            ("docs/metrics.md", metrics::markdown()),
            ("docs/watch-policies.md", config::policies_markdown()),
            ("deploy/nightjar.yaml", config::example()),
        ];
        for (name, text) in files {
            let path = self.root.join(name);
            let folder = path.parent().expect("all are in a folder");
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, text))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        pages(&self.root.join("docs/man"))?;
        let completions = self.root.join("deploy/completions");
        fs::create_dir_all(&completions)
            .with_context(|| format!("cannot create {}", completions.display()))?;
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut Cli::command(), "nightjar", &completions)
                .with_context(|| format!("cannot write to {}", completions.display()))?;
        }
        Ok(())
    }
}
