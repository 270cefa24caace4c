//! `nightjar doctor`

use std::{
    fs::{self, DirBuilder},
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use nightjar_proto::v1::Event;
use prost::Message as _;
use tokio::time::timeout_at;

use super::{Global, configuration::print, logging, sensors, settings, tail::style};
use crate::{
    config::{Config, Files, Level, Period, Watch},
    doctor::{self, Check, Diagnosis, Finding, Host, Outcome, Proof, Sensor, Undone, Witness},
    export::hub::{Selector, Who},
    watch::{Destinations, Loaded, Patience},
};

/// How long an event may take. One that takes longer is of no use to who watches.
const LONGEST: Duration = Duration::from_secs(5);
/// Something is worse than it could be.
const LIMITED: u8 = 3;
/// This host cannot be watched, or not all of it.
const FAILED: u8 = 4;
/// What changes this way is not the sensors but what is done with their events.
const ALL_KINDS: &str = "*";
/// Where a folder may be made: root's alone, in memory and, as `/tmp`, there is one everywhere.
const PLACES: [&str; 2] = ["/run", "/tmp"];

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// How it looks: for eyes, or JSON
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Make no events and wait for none
    #[arg(long)]
    no_events: bool,

    /// Do what the events are to be of, and nothing else: the name of this process
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["output", "no_events"])]
    act: Option<String>,

    /// Where it does things with files
    #[arg(long, hide = true, value_name = "FOLDER", requires = "act")]
    within: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
It loads the sensors for a moment, starts a process of its own and looks whether each kind of event
comes of it. That needs root, as watching does. Nothing on the host is changed, but for a folder in
/run or /tmp that is there as long as it looks. Nothing goes out: that process talks to itself, over
the loopback interface.

Exit codes: 0 all is well, 1 the doctor could not do its work, 2 wrong arguments, 3 limited: this host
can be watched, and something is lost or costs more than it needs to, 4 failed: it cannot be watched.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What loading and trying the sensors brought.
#[derive(Default)]
struct Tried {
    checks: Vec<Check>,
    sensors: Vec<Sensor>,
    events: Vec<Proof>,
}

pub(super) fn doctor(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    if let Some(name) = &arguments.act {
        for undone in doctor::act(name, arguments.within.as_deref()) {
            print(&format!("{undone}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let configuration = configuration(global);
    let mut config = configuration.as_ref().cloned().unwrap_or_default();
    // What the log would say of the host is said below.
    config.log = config.log.min(Level::Error);
    logging::start(global.verbose, &config);
    let host = Host::running(configuration.map_err(|error| format!("{error:#}")));
    let mut checks = doctor::examine(&host);

    let tried = match doctor::hindrance(&host) {
        None => try_sensors(&host, config, !arguments.no_events),
        Some(mut finding) => {
            if arguments.no_events {
                finding = Finding::unknown(finding.found);
            }
            Tried { checks: vec![finding.of("sensors")], ..Tried::default() }
        }
    };
    checks.extend(tried.checks);
    let diagnosis = Diagnosis::new(checks, tried.sensors, tried.events);

    print(&match arguments.output {
        Output::Text => doctor::render(&diagnosis, &title(), style()),
        Output::Json => serde_json::to_string(&diagnosis)? + "\n",
    })?;
    Ok(match diagnosis.verdict {
        Outcome::Ok | Outcome::Unknown => ExitCode::SUCCESS,
        Outcome::Limited => ExitCode::from(LIMITED),
        Outcome::Failed => ExitCode::from(FAILED),
    })
}

fn title() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("nightjar {} on {host}", env!("CARGO_PKG_VERSION"))
}

/// As an agent would start with it.
fn configuration(global: &Global) -> Result<Config> {
    let config = settings::load(global.config.as_ref(), &[], None)?.config;
    settings::asked(&config)?;
    Ok(config)
}

/// Loads all sensors, and waits for events of them where these are asked for.
fn try_sensors(host: &Host, mut config: Config, with_events: bool) -> Tried {
    let mut tried = Tried::default();
    let ground = match Ground::new(with_events) {
        Ok(ground) => ground,
        Err(error) => {
            tried.checks.push(untried(&error).of("sensors"));
            return tried;
        }
    };
    config.kinds = vec![ALL_KINDS.to_owned()];
    config.filters.clear();
    config.files = ground.files();
    // What is told when a window ends is to come before nobody waits any more.
    config.network.fold = Period::from_millis(200);
    let start = Instant::now();
    let mut loaded = match sensors::load(&config) {
        Ok(loaded) => loaded,
        Err(error) => {
            let finding = Finding::failed(
                format!("{error:#}"),
                "all: the agent would not start either",
                "mend what is said above; `nightjar -vv doctor` shows more of what the kernel said",
            );
            tried.checks.push(finding.of("sensors"));
            return tried;
        }
    };
    let took = start.elapsed().as_secs_f64();
    tried.checks.push(Finding::ok(format!("loaded and attached in {took:.1} s")).of("sensors"));
    tried.sensors = doctor::sensors(host, loaded.kernel_mut().serving());
    if with_events {
        let finding = match prove(loaded, &tried.sensors, ground) {
            Ok(witness) => {
                tried.events = witness.proofs();
                losses(&witness)
            }
            Err(error) => untried(&error),
        };
        tried.checks.push(finding.of("losses"));
    }
    tried
}

fn untried(error: &anyhow::Error) -> Finding {
    Finding::failed(
        format!("events could not be tried: {error:#}"),
        "the proof that events come",
        "mend what is said here, and try again",
    )
}

fn losses(witness: &Witness) -> Finding {
    if witness.lost().is_empty() {
        return Finding::ok("none while it looked");
    }
    Finding::limited(
        format!("{} while it looked", witness.lost().join(", ")),
        "events of any process of the host, for want of room or of time",
        "a larger ring (kernel.ring_size), or more processor time for the agent",
    )
}

/// Starts a process whose deeds are known, and listens until all of them were told or the time is over.
fn prove(loaded: Loaded, sensors: &[Sensor], ground: Ground) -> Result<Witness> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let who = Who { pid: std::process::id(), uid: rustix::process::getuid().as_raw() };
        let reader = Some((Selector::default(), false, who));
        let mut watch = loaded.watch(Destinations { reader, ..Destinations::default() })?;
        let subscription = watch.take_reader().context("the watch takes no reader")??;

        let mut actor = Actor::start(&ground)?;
        let mut witness = Witness::new(&ground.name, actor.child.id(), actor.not_before, sensors);
        witness.excuse(ground.undone());
        let said = actor.said.take().context("what it says was taken")?;
        let mut undone = Some(tokio::task::spawn_blocking(|| undone(said)));
        let deadline = tokio::time::Instant::now() + LONGEST;
        while !witness.is_satisfied() {
            tokio::select! {
                said = async { undone.as_mut().expect("it was not heard yet").await }, if undone.is_some() => {
                    undone = None;
                    witness.excuse(said??);
                }
                batch = timeout_at(deadline, subscription.queue.next()) => match batch {
                    Ok(Some(batch)) => {
                        decode(batch.events)?.into_iter().for_each(|event| witness.hear(event));
                        witness.miss(batch.missed);
                    }
                    Ok(None) | Err(_) => break,
                },
                () = watch.over() => break,
            }
        }
        drop(actor);
        drop(ground);
        watch.stop(Patience::Seconds).await?;
        // Losses are told at the end at the latest. An event that comes now came too late.
        while let Some(batch) = subscription.queue.next().await {
            for event in decode(batch.events)? {
                witness.hear_loss(&event);
            }
        }
        Ok(witness)
    })
}

fn decode(events: Vec<Bytes>) -> Result<Vec<Event>> {
    events.into_iter().map(|event| Event::decode(event).context("an event cannot be read")).collect()
}

/// What the process could not do, once it has said so and ended.
fn undone(mut said: ChildStdout) -> io::Result<Vec<Undone>> {
    let mut text = String::new();
    said.read_to_string(&mut text)?;
    Ok(text.lines().filter_map(Undone::parse).collect())
}

/// What a process is called that does things, and the folder that it does them in. That goes with this.
struct Ground {
    name: String,
    folder: Result<PathBuf, String>,
}

impl Ground {
    fn new(with_folder: bool) -> Result<Self> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = format!("{:016x}", u64::from_ne_bytes(random));
        let mut folder = Err("it was not asked for".to_owned());
        if with_folder {
            folder = make_folder(&name);
        }
        Ok(Self { name, folder })
    }

    /// What is watched: that folder, and else nothing.
    fn files(&self) -> Files {
        let watch = |folder: &PathBuf| Watch {
            name: "doctor".to_owned(),
            paths: vec![folder.display().to_string()],
            recursive: true,
            ignore: Vec::new(),
            operations: vec!["all".to_owned()],
            containers: false,
        };
        let watch = self.folder.iter().map(watch).collect();
        Files {
            defaults: false,
            watch,
            all: false,
            failed: false,
            fold: Period::from_secs(0),
            ..Files::default()
        }
    }

    fn undone(&self) -> Vec<Undone> {
        self.folder.as_ref().err().map_or_else(Vec::new, |reason| doctor::without_folder(reason))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Ok(folder) = &self.folder {
            // It may be gone.
            let _removed = fs::remove_dir_all(folder);
        }
    }
}

fn make_folder(name: &str) -> Result<PathBuf, String> {
    let mut reasons = Vec::new();
    for place in PLACES {
        let folder = doctor::folder(Path::new(place), name);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => reasons.push(format!("no folder in {place}: {error}")),
        }
    }
    Err(reasons.join("; "))
}

/// This program once more, as a process that does what events are of.
struct Actor {
    child: Child,
    /// Its output.
    said: Option<ChildStdout>,
    not_before: SystemTime,
}

impl Actor {
    fn start(ground: &Ground) -> Result<Self> {
        let not_before = SystemTime::now();
        let mut command = Command::new("/proc/self/exe");
        command.args(["doctor", "--act", &ground.name]);
        if let Ok(folder) = &ground.folder {
            command.arg("--within").arg(folder);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start this program once more")?;
        let said = child.stdout.take();
        Ok(Self { child, said, not_before })
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It has ended, unless something keeps it from that.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_is_closed_to_others_and_goes_with_the_ground() {
        let ground = Ground::new(true).unwrap();
        let folder = ground.folder.clone().unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(ground.files().watch[0].paths, [folder.display().to_string()]);
        assert!(ground.undone().is_empty());
        fs::create_dir(folder.join("left")).unwrap();
        drop(ground);
        assert!(!folder.exists());
    }

    #[test]
    fn without_a_folder_nothing_is_watched() {
        let ground = Ground { name: "ab".to_owned(), folder: Err("no room".to_owned()) };
        assert!(ground.files().policies().is_empty());
        assert_eq!(ground.undone()[0].reason, "no room");
    }
}
