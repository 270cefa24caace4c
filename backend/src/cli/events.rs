//! `nightjar-backend events` and `tail`

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nightjar_proto::backend::v1::{EventsRequest, TailRequest};
use nightjar_show::{compact::shown, profile::Profile};

use super::{
    client::{connect, told},
    duration,
    printer::{Output, Printer, condition, interrupted},
};
use crate::hour::{nanoseconds, now};

/// Which stored events, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How events look: compact lines for eyes, or JSON
    #[arg(short, long, value_enum, default_value_t = Output::Compact)]
    output: Output,
    /// Form of the JSON: native, threatstack, ocsf or ecs
    #[arg(long, value_name = "NAME", default_value_t = Profile::Native)]
    profile: Profile,
    /// And those that come from now on
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
    /// Stop after this many events
    #[arg(short = 'n', long, value_name = "NUMBER")]
    number: Option<u64>,
    /// Only events since then: an age as in 10m or 24h, or a time as in 2026-11-22T19:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only events before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// Only kinds that fit, as in process.exec or 'process.*'; may be given more than once, as all that follow
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

/// Which events of one agent, and how.
#[derive(Debug, Args)]
pub struct Tail {
    /// ID of the agent, the beginning of it, or the name of its host
    agent: String,
    /// How events look: compact lines for eyes, or JSON
    #[arg(short, long, value_enum, default_value_t = Output::Compact)]
    output: Output,
    /// Stop after this many events
    #[arg(short = 'n', long, value_name = "NUMBER")]
    number: Option<u64>,
    /// Begin with events that are at most this old, as far as the agent remembers
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Only kinds that fit, as in process.exec or 'process.*'; may be given more than once
    #[arg(long, value_name = "GLOB")]
    kind: Vec<String>,
    /// Only events of which this is true: CEL over the fields of the JSON
    #[arg(long = "where", value_name = "EXPR")]
    condition: Option<String>,
}

/// Prints stored events.
///
/// # Errors
/// When the expression is wrong, the backend cannot be asked, or it could not read all that there is: then what it could is
/// printed all the same.
pub async fn events(dir: &Path, arguments: Arguments) -> Result<()> {
    let mut printer = Printer::new(
        arguments.output,
        arguments.profile,
        condition(arguments.condition.as_deref())?,
        arguments.number,
    );
    if let (Some(since), Some(until)) = (arguments.since, arguments.until) {
        ensure!(since < until, "--since is not before --until; there are no events between them");
    }
    let mut client = connect(dir).await?;
    let mut agents = Vec::new();
    for agent in arguments.agent {
        agents.push(super::lists::id(&mut client, &agent).await?);
    }
    let request = EventsRequest {
        kinds: arguments.kind,
        hosts: arguments.host,
        agents,
        since: arguments.since.unwrap_or(0).cast_signed(),
        until: arguments.until.unwrap_or(0).cast_signed(),
        follow: arguments.follow,
        ..EventsRequest::default()
    };
    let mut stream = client.events(request).await.map_err(told)?.into_inner();
    let end = interrupted();
    tokio::pin!(end);
    let mut unreadable = 0;
    loop {
        let message = tokio::select! {
            message = stream.message() => message.map_err(told)?,
            ended = &mut end => { ended?; break }
        };
        let Some(message) = message else { break };
        if !message.unreadable.is_empty() {
            unreadable += 1;
            eprintln!("nightjar-backend: {}", shown(&message.unreadable));
        }
        if printer.write(message.events)?.is_break() {
            break;
        }
    }
    printer.finish();
    match unreadable {
        0 => Ok(()),
        files => bail!("{files} files are damaged, and what was in them is not shown; gaps lists them"),
    }
}

/// Prints what an agent sees.
///
/// # Errors
/// When the expression is wrong, the agent is not connected or went away, or the backend cannot be asked.
pub async fn tail(dir: &Path, arguments: Tail) -> Result<()> {
    condition(arguments.condition.as_deref())?;
    let mut printer = Printer::new(arguments.output, Profile::Native, None, arguments.number);
    let request = TailRequest {
        agent: arguments.agent,
        kinds: arguments.kind,
        r#where: arguments.condition.unwrap_or_default(),
        since: arguments.since.map_or(0, nanoseconds),
        most_events: arguments.number.unwrap_or(0),
    };
    if arguments.number == Some(0) {
        return Ok(());
    }
    let mut stream = connect(dir).await?.tail(request).await.map_err(told)?.into_inner();
    let end = interrupted();
    tokio::pin!(end);
    let mut missed = 0;
    let result = loop {
        let message = tokio::select! {
            message = stream.message() => message,
            ended = &mut end => break ended,
        };
        match message {
            Ok(None) => break Ok(()),
            Err(status) => break Err(told(status)),
            Ok(Some(message)) => {
                missed += message.missed;
                if printer.write(message.events)?.is_break() {
                    break Ok(());
                }
            }
        }
    };
    printer.finish();
    if missed > 0 {
        eprintln!(
            "nightjar-backend: {missed} events were missed, as this or the connection was too slow for them"
        );
    }
    result
}

/// A time in nanoseconds since 1970: an age, or the time itself.
fn moment(text: &str) -> Result<u64, String> {
    if let Ok(age) = duration(text) {
        return Ok(now().saturating_sub(nanoseconds(age)));
    }
    let parsed =
        text.parse::<prost_types::Timestamp>().ok().filter(|_| text.contains('-')).and_then(|time| {
            let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
            u64::try_from(nanos).ok()
        });
    parsed.context("").map_err(|_| {
        "a time is an age, as in 90s, 30m, 72h or 7d, or a point in time, as in 2026-11-22T19:00:00Z"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        let hour_ago = moment("1h").unwrap();
        assert!((3_600_000_000_000..3_601_000_000_000).contains(&(now() - hour_ago)));
        assert_eq!(moment("2026-11-22T19:00:00Z"), Ok(1_795_374_000_000_000_000));
        assert_eq!(moment("2026-11-22T20:00:00.5+01:00"), Ok(1_795_374_000_500_000_000));
        for wrong in ["", "yesterday", "10", "2026-13-01T00:00:00Z", "1969-01-01T00:00:00Z"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
