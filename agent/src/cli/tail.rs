//! `nightjar tail`

use std::{
    env,
    io::{self, IsTerminal},
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{Watch, session::Session};
use crate::export::{
    Export, Json,
    compact::{Compact, Style},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How events look: compact lines for eyes, or JSON
    #[arg(short, long, value_enum, default_value_t = Output::Compact)]
    output: Output,

    /// Stop after this many events
    #[arg(short = 'n', long, value_name = "NUMBER")]
    number: Option<u64>,

    #[command(flatten)]
    pub(super) watch: Watch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Compact,
    Json,
}

pub(super) fn tail(arguments: &Arguments) -> Result<()> {
    let export: Box<dyn Export> = match arguments.output {
        Output::Compact => Box::new(Compact::new(io::stdout(), style())),
        Output::Json => Box::new(Json::new(io::stdout())),
    };
    let report = Session::start(&arguments.watch)?.export(export, arguments.number)?;
    report.tell();
    Ok(())
}

/// Colours and cut lines on a terminal only. <https://no-color.org>
fn style() -> Style {
    if !io::stdout().is_terminal() {
        return Style::default();
    }
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let width = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    Style { colour: !no_colour, width: width.filter(|columns| *columns > 0) }
}
