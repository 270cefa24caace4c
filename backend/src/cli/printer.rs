//! Shows events, stored ones and those that an agent sees just now.

use std::{
    env,
    io::{self, IsTerminal as _},
    ops::ControlFlow,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::ValueEnum;
use nightjar_proto::v1::Event;
use nightjar_show::{
    Export, Json,
    compact::{Compact, Style},
    expression::Expression,
    profile::Profile,
};
use prost::Message as _;
use tokio::signal::unix::{SignalKind, signal};

/// How events look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Compact,
    Json,
}

/// Writes events to standard output.
pub struct Printer {
    export: Box<dyn Export>,
    condition: Option<Expression>,
    left: u64,
}

/// Comes back when the user or the system wants this program to end.
pub async fn interrupted() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Checks what was given to `--where`.
pub fn condition(text: Option<&str>) -> Result<Option<Expression>> {
    text.map(Expression::compile).transpose().context("--where")
}

// === impl Printer ===

impl Printer {
    /// Shows so many events of which the condition is true.
    pub fn new(output: Output, profile: Profile, condition: Option<Expression>, most: Option<u64>) -> Self {
        let export: Box<dyn Export> = match output {
            Output::Compact => Box::new(Compact::new(io::stdout(), style())),
            Output::Json => Box::new(Json::new(io::stdout(), profile)),
        };
        Self { export, condition, left: most.unwrap_or(u64::MAX) }
    }

    /// Shows encoded events. Says whether more are wanted.
    pub fn write(&mut self, events: Vec<Bytes>) -> Result<ControlFlow<()>> {
        let shown = tokio::task::block_in_place(|| {
            for event in events {
                let event = Event::decode(event).map_err(io::Error::other)?;
                if self.left > 0 && self.condition.as_ref().is_none_or(|condition| condition.fits(&event)) {
                    self.export.event(&event)?;
                    self.left -= 1;
                }
            }
            self.export.flush()
        });
        match shown {
            // The reader has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ControlFlow::Break(())),
            shown => shown.context("cannot write events")?,
        }
        Ok(if self.left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// Tells of a condition that some events gave no answer to.
    pub fn finish(self) {
        if let Some(error) = self.condition.as_ref().and_then(Expression::first_error) {
            eprintln!(
                "nightjar-backend: --where could not be told of some events, which are not shown: {error}"
            );
        }
    }
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
