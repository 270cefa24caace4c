//! `nightjar-backend events`

use std::{
    env,
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use nightjar_proto::{backend::v1::EventsRequest, v1::Event};
use nightjar_show::{
    Export, Json,
    compact::{Compact, Style},
    expression::Expression,
};
use prost::Message as _;

use super::{
    client::{connect, told},
    duration,
};
use crate::hour::{nanoseconds, now};

/// Which events, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How events look: compact lines for eyes, or JSON
    #[arg(short, long, value_enum, default_value_t = Output::Compact)]
    output: Output,
    /// And those that come from now on
    #[arg(short, long)]
    follow: bool,
    /// Stop after this many events
    #[arg(short = 'n', long, value_name = "NUMBER")]
    limit: Option<u64>,
    /// Only events that are at most this old: 10m, 24h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Only kinds that fit, as in process.exec or 'process.*'; may be given more than once
    #[arg(long, value_name = "GLOB")]
    kind: Vec<String>,
    /// Only hosts whose name fits
    #[arg(long, value_name = "GLOB")]
    host: Vec<String>,
    /// Only this agent
    #[arg(long, value_name = "ID")]
    agent: Vec<String>,
    /// Only events of which this is true: CEL over the fields of the JSON
    #[arg(long = "where", value_name = "EXPR")]
    condition: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Compact,
    Json,
}

/// Prints events.
///
/// # Errors
/// When the expression is wrong, or the backend cannot be asked.
pub async fn events(dir: &Path, arguments: Arguments) -> Result<()> {
    let condition = arguments.condition.as_deref().map(Expression::compile).transpose().context("--where")?;
    let since = arguments.since.map(|age| now().saturating_sub(nanoseconds(age)));
    let request = EventsRequest {
        kinds: arguments.kind,
        hosts: arguments.host,
        agents: arguments.agent,
        since: since.map_or(0, u64::cast_signed),
        follow: arguments.follow,
        ..EventsRequest::default()
    };
    let mut export: Box<dyn Export> = match arguments.output {
        Output::Compact => Box::new(Compact::new(io::stdout(), style())),
        Output::Json => Box::new(Json::new(io::stdout())),
    };
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut stream = connect(dir).await?.events(request).await.map_err(told)?.into_inner();
    while left > 0
        && let Some(message) = stream.message().await.map_err(told)?
    {
        let shown = tokio::task::block_in_place(|| {
            for event in message.events {
                let event = Event::decode(event).map_err(io::Error::other)?;
                if left > 0 && condition.as_ref().is_none_or(|condition| condition.fits(&event)) {
                    export.event(&event)?;
                    left -= 1;
                }
            }
            export.flush()
        });
        match shown {
            // The reader has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            shown => shown.context("cannot write events")?,
        }
    }
    if let Some(error) = condition.as_ref().and_then(Expression::first_error) {
        eprintln!("nightjar-backend: --where could not be told of some events, which are not shown: {error}");
    }
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
