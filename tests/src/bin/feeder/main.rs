//! Delivers events that it makes up: what an agent does after its pipeline, with no kernel programs before it, so that
//! each event that was made is known. Ends when its standard input does.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use nightjar::deliver::{Delivery, Options, connect::Target, spool::Limits};
use nightjar_proto::v1::{
    Delivery as Status, Event, Exec, File as ProtoFile, FileActivity, Loss, Process, Telemetry, event::Body,
};
use prost::Message as _;
use prost_types::Timestamp;
use serde_json::json;

/// How often events are made.
const TICK: Duration = Duration::from_millis(2);
/// How often is told how far all is handed over.
const MARK: Duration = Duration::from_millis(50);

/// Longest time that is waited for that.
const DRAIN: Duration = Duration::from_mins(1);

#[derive(Debug, Parser)]
struct Arguments {
    /// URL of the backend; with https:// the identity is taken from the state directory
    #[arg(long)]
    backend: String,
    /// State directory
    #[arg(long)]
    state: PathBuf,
    /// Number and time of each event are appended to this, 16 bytes an event, before it is handed over
    #[arg(long)]
    log: Option<PathBuf>,
    /// Events that an agent has told, each after its length as a varint, to be made again and again
    #[arg(long)]
    replay: Option<PathBuf>,
    /// At the end, as long as there is a connection, wait until all is delivered
    #[arg(long)]
    drain: bool,
    /// Only make them: to know what that costs
    #[arg(long)]
    dry: bool,
    /// Number of the first event
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Events a second
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// Most events; none: until the end of the input
    #[arg(long)]
    events: Option<u64>,
    /// Most bytes of the spool
    #[arg(long, default_value_t = 64 << 20)]
    spool: u64,
    /// Seconds that the clock is wrong by
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    clock: i64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        target: Target::parse(&arguments.backend, None, None, true)?,
        state: arguments.state.clone(),
        limits: Limits { bytes: arguments.spool, sync_every: Duration::from_secs(1) },
        host: "feeder".to_owned(),
        version: "0.0.0".to_owned(),
        plaintext_name: "feeder".to_owned(),
    };
    let log = arguments.log.as_deref().map(|log| OpenOptions::new().create(true).append(true).open(log));
    let log = log.transpose().context("the log")?;
    let (delivery, link) = Delivery::open(options)?;
    let complete_until = link.complete_until;
    let linked = link.start(std::future::pending())?;
    if let Some(since) = complete_until {
        hand_over(&delivery, &absence(since, now(0)));
    }
    make(&arguments, (!arguments.dry).then_some(&delivery), log)?;
    delivery.complete_until(SystemTime::now());
    let end = Instant::now() + DRAIN;
    let is_delivered = |status: &Status| status.waiting == 0 || status.state != "connected";
    while arguments.drain && !is_delivered(&delivery.status()) && Instant::now() < end {
        thread::sleep(TICK);
    }
    let status = delivery.status();
    delivery.close();
    drop(linked);
    let lost: u64 = status.lost.iter().map(|drops| drops.count).sum();
    let Status { events, acknowledged, waiting, state, error, .. } = status;
    let said = json!({
        "events": events, "acknowledged": acknowledged, "waiting": waiting, "lost": lost, "state": state, "error": error,
    });
    println!("{said}");
    Ok(())
}

fn make(arguments: &Arguments, delivery: Option<&Delivery>, mut log: Option<File>) -> Result<()> {
    let mut replayed = arguments.replay.as_deref().map(replay).transpose()?.unwrap_or_default();
    let mut encoded = Vec::new();
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    thread::spawn(move || {
        let _ended = io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    let (start, mut marked) = (Instant::now(), Instant::now());
    let mut made = 0;
    let most = arguments.events.unwrap_or(u64::MAX);
    while !ended.load(Ordering::Relaxed) && made < most {
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let due = (micros.saturating_mul(arguments.rate) / 1_000_000).min(most);
        while made < due {
            let (number, time) = (arguments.from + made, now(arguments.clock));
            if let Some(log) = &mut log {
                let mut line = [0; 16];
                line[..8].copy_from_slice(&number.to_le_bytes());
                line[8..].copy_from_slice(&time.to_le_bytes());
                log.write_all(&line).context("the log")?;
            }
            let made_up;
            let event = if replayed.is_empty() {
                made_up = event(number, time);
                &made_up
            } else {
                let index = usize::try_from(number).unwrap_or_default() % replayed.len();
                again(&mut replayed[index], number, time)
            };
            encoded.clear();
            event.encode(&mut encoded).context("no room for an event")?;
            if let Some(delivery) = delivery {
                delivery.event(event, &encoded);
            }
            made += 1;
        }
        if let Some(delivery) = delivery.filter(|_| marked.elapsed() >= MARK) {
            marked = Instant::now();
            delivery.complete_until(UNIX_EPOCH + Duration::from_nanos(now(arguments.clock)));
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Events of a file.
fn replay(path: &Path) -> Result<Vec<Event>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut rest, mut events) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        events.push(Event::decode_length_delimited(&mut rest).context("not an event")?);
    }
    Ok(events)
}

/// An event once more, with an ID and a time as the agent would give it now.
fn again(event: &mut Event, number: u64, time: u64) -> &Event {
    let (millis, rest) = (time / 1_000_000, time % 1_000_000);
    let first = millis << 16 | 0x7000 | (rest * 4096 / 1_000_000);
    event.id.clear();
    let _infallible = write!(
        event.id,
        "{:08x}-{:04x}-{:04x}-8116-{:012x}",
        first >> 32,
        first >> 16 & 0xffff,
        first & 0xffff,
        number & 0xffff_ffff_ffff
    );
    event.time = Some(timestamp(time));
    event
}

fn hand_over(delivery: &Delivery, event: &Event) {
    delivery.event(event, &event.encode_to_vec());
}

/// Nanoseconds since 1970, by a clock that is wrong by so many seconds.
fn now(wrong: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or_default();
    now.saturating_add_signed(wrong.saturating_mul(1_000_000_000))
}

fn timestamp(time: u64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_nanos(time)).into()
}

/// Every second event is one of a file, so that both lanes have some. Its number is the process ID, as far as that goes,
/// and the end of its ID.
fn event(number: u64, time: u64) -> Event {
    let is_file = number % 2 == 1;
    let (kind, body) = if is_file {
        let path = format!("/srv/data/{}/{}.txt", number % 97, number * 7919 % 100_003);
        ("file.open", Body::File(FileActivity { path, ..FileActivity::default() }))
    } else {
        ("process.exec", Body::Exec(Exec::default()))
    };
    Event {
        schema: 1,
        id: format!("00000000-0000-7000-8000-{number:012x}"),
        time: Some(timestamp(time)),
        kind: kind.to_owned(),
        host: "feeder".to_owned(),
        process: Some(Process {
            pid: u32::try_from(number).unwrap_or(u32::MAX),
            exec_id: format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            exe: Some(ProtoFile { path: "/usr/bin/feeder".to_owned(), ..ProtoFile::default() }),
            args: vec!["feeder".to_owned(), format!("--number={number}")],
            uid: Some(0),
            user: "root".to_owned(),
            ..Process::default()
        }),
        parent: None,
        body: Some(body),
    }
}

/// As the agent tells that it was not there.
fn absence(since: u64, until: u64) -> Event {
    let loss = Loss { hook: "agent".to_owned(), reason: "not_running".to_owned(), ..Loss::default() };
    Event {
        schema: 1,
        id: format!("absence-{until}"),
        time: Some(timestamp(until)),
        kind: "telemetry.loss".to_owned(),
        host: "feeder".to_owned(),
        body: Some(Body::Telemetry(Telemetry {
            losses: vec![loss],
            since: Some(timestamp(since)),
            until: Some(timestamp(until)),
        })),
        ..Event::default()
    }
}
