//! `bench deliver`

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nightjar_proto::v1::Event;
use nightjar_tests::{Backend, Counts, backend_command, feeder_path};
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent,
    files_producer::{Done, Work},
    machine,
    open::Files,
    producer::{Producers, tiny_program},
    sys,
    table::Table,
    write_json,
};

/// What there is to reach.
const MOST_WIRE_BYTES: f64 = 60.0;
const MOST_REST_BYTES: f64 = 30.0;
const MOST_RESIDENT_MIB: f64 = 64.0;
const MOST_TO_READABLE: Duration = Duration::from_secs(1);
const LEAST_RATE: f64 = 200_000.0;

/// How long starting and catching up may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long programs are run to see when their events can be read.
const EXECS: Duration = Duration::from_secs(5);
/// Bytes of a spool that soon is full.
const FULL_SPOOL: &str = "8388608";
/// Files of the backend's log that are turned to columns soon, so that these can be measured.
const LOG_KIB: &str = "2048";

/// What delivery costs, from a system call to an event that can be read at the backend
///
/// First the whole way: an agent that watches files and processes delivers to a backend on the same CPUs, while two
/// producers do what a build does, files and execs, as fast as they can. Then delivery alone: the events of the first
/// part are made again, with new IDs and times, at a given rate, by a program that does with them what the agent does
/// after its pipeline. What making and encoding them costs without delivery is the baseline.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Seconds of each part
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Events a second in the second part; more than the goal, or that could not be reached
    #[arg(long, default_value_t = 260_000)]
    rate: u64,

    /// Write the numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Whole {
    seconds: f64,
    events: u64,
    lost: u64,
    agent_cpu_ns: u64,
    backend_cpu_ns: u64,
    wire_bytes: u64,
    rest_bytes: u64,
    rest_events: u64,
    to_readable_ms: Vec<f64>,
    agent_resident_mib: f64,
}

#[derive(Debug, Serialize)]
struct Alone {
    seconds: f64,
    events: u64,
    stored: u64,
    lost: u64,
    baseline_cpu_ns: u64,
    feeder_cpu_ns: u64,
    backend_cpu_ns: u64,
    caught_up_after_ms: u64,
    agent_full_spool_resident_mib: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    println!("\nDelivery on {} CPUs, shared by producers, agent and backend", machine::cpus()?);
    let backend = Backend::start(&folder.path().join("backend"), &["--log-file", LOG_KIB]);
    let whole = whole(arguments, &folder, &backend)?;
    let recorded = record(&backend, folder.path())?;
    drop(backend);
    let alone = alone(arguments, &folder, &recorded)?;
    tell(&whole, &alone);
    write_json(arguments.json.as_deref(), &(&whole, &alone))
}

// === the whole way ===

fn whole(arguments: &Arguments, folder: &TempDir, backend: &Backend) -> Result<Whole> {
    let files = Files::make(2000)?;
    let watched = files.dir().display();
    let configuration = folder.path().join("agent.yaml");
    let state = folder.path().join("agent");
    let text = format!(
        "backend: {{address: \"{}\", plaintext: true}}\nstate: {}\nfiles:\n  watch:\n    - {{name: bench, paths: \
         [\"{watched}\"], recursive: true, operations: [open, change]}}\n",
        backend.url(),
        state.display()
    );
    fs::write(&configuration, text)?;
    let length = Duration::from_secs(arguments.seconds);
    let cpus: Vec<usize> = (0..machine::cpus()?).collect();
    let commands = Work::Build.commands(&cpus, (&files.sources(), &files.dir().join("out")), length, 0)?;
    let instance = format!("bench-{}", std::process::id());
    let mut running = Running::agent(&instance, &configuration)?;
    running.await_connected(&instance)?;
    let to_readable_ms = ages_of_execs(backend)?;
    running.await_delivered(&instance)?;
    let before = (backend.counts(), running.cpu()?, sys::cpu_time_of(backend.pid())?);
    let sent_before = number(&status_of(&instance)?, "sent_bytes");
    let start = Instant::now();
    let producers = Producers::each(commands)?;
    let execs = thread::spawn(move || execs_until(start + length));
    let _done = producers.answers::<Done>()?;
    let seconds = start.elapsed().as_secs_f64();
    if execs.join().is_err() {
        bail!("the execs failed");
    }
    let status = running.await_delivered(&instance)?;
    let counts = backend.counts();
    let cpu =
        (running.cpu()?.saturating_sub(before.1), sys::cpu_time_of(backend.pid())?.saturating_sub(before.2));
    let resident = running.resident_mib("VmHWM:")?;
    running.end()?;
    let lost = status["losses"]["total"].as_u64().unwrap_or_default() + counts.told_lost;
    let (rest_bytes, rest_events) = at_rest(backend)?;
    Ok(Whole {
        seconds,
        events: counts.stored - before.0.stored,
        lost,
        agent_cpu_ns: nanoseconds(cpu.0),
        backend_cpu_ns: nanoseconds(cpu.1),
        wire_bytes: number(&status, "sent_bytes") - sent_before,
        rest_bytes,
        rest_events,
        to_readable_ms,
        agent_resident_mib: resident,
    })
}

/// How old events are when they can be read, in milliseconds, while a program is run again and again: a flood that is more
/// than the agent takes would only show how long its ring is.
fn ages_of_execs(backend: &Backend) -> Result<Vec<f64>> {
    let follower = Follower::start(backend)?;
    execs_until(Instant::now() + EXECS)?;
    thread::sleep(Duration::from_secs(2));
    Ok(follower.stop())
}

fn execs_until(end: Instant) -> Result<()> {
    let program = tiny_program()?;
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        let mut command = Command::new(&program);
        command.args(["-c", "-O2", &format!("src/part-{number}.c"), "-o", &format!("obj/part-{number}.o")]);
        command.stdin(Stdio::null()).status().context("the program of the execs")?;
    }
    Ok(())
}

/// A field of the delivery in a status.
fn number(status: &Value, name: &str) -> u64 {
    status["delivery"][name].as_u64().unwrap_or_default()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes and events of what was turned to columns.
fn at_rest(backend: &Backend) -> Result<(u64, u64)> {
    let start = Instant::now();
    loop {
        let status: Value = serde_json::from_str(&backend.says(&["status", "--json"]))?;
        let number = |name: &str| status["now"][name].as_u64().unwrap_or_default();
        // The newest file is still written to.
        if number("log_files") <= 1 || start.elapsed() > PATIENCE {
            return Ok((number("partition_bytes"), number("partition_events")));
        }
        thread::sleep(Duration::from_millis(300));
    }
}

fn status_of(instance: &str) -> Result<Value> {
    let mut command = Command::new(agent::program()?);
    let output = command.args(["status", "--instance", instance, "-o", "json"]).output()?;
    serde_json::from_slice(&output.stdout).context("no status")
}

/// An agent that is told to end at the end.
struct Running(Child);

impl Running {
    fn agent(instance: &str, configuration: &Path) -> Result<Self> {
        let mut command = Command::new(agent::program()?);
        command.args(["run", "--instance", instance, "--config"]).arg(configuration).stdout(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("cannot start {command:?}"))?))
    }

    fn cpu(&self) -> Result<Duration> {
        Ok(sys::cpu_time_of(self.0.id())?)
    }

    /// What is resident (`VmRSS:`), or the most that was so far (`VmHWM:`).
    fn resident_mib(&self, line_of: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix(line_of)).context("nothing about memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    fn await_connected(&mut self, instance: &str) -> Result<()> {
        self.wait_until(instance, |status| status["delivery"]["state"] == "connected").map(drop)
    }

    fn await_delivered(&mut self, instance: &str) -> Result<Value> {
        self.wait_until(instance, |status| number(status, "waiting") < 500)
    }

    fn wait_until(&mut self, instance: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                bail!("the agent ended ({status})");
            }
            if let Some(status) = status_of(instance).ok().filter(&fits) {
                return Ok(status);
            }
            sys::go_on()?;
            thread::sleep(Duration::from_millis(100));
        }
        bail!("the agent did not get there in {PATIENCE:?}")
    }

    fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Reads what comes to the backend, and how old it is then.
struct Follower {
    child: Child,
    ages: mpsc::Receiver<f64>,
}

impl Follower {
    fn start(backend: &Backend) -> Result<Self> {
        let args = ["events", "--follow", "--since", "1s", "-o", "json", "--kind", "process.exec"];
        let mut child = backend_command(&backend.data, &args).stdout(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().context("a pipe")?;
        let (sender, ages) = mpsc::channel();
        thread::spawn(move || read(lines, &sender));
        Ok(Self { child, ages })
    }

    /// Ages in milliseconds.
    fn stop(mut self) -> Vec<f64> {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        let mut ages: Vec<f64> = self.ages.iter().collect();
        ages.sort_by(f64::total_cmp);
        ages
    }
}

fn read(lines: ChildStdout, ages: &mpsc::Sender<f64>) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        let time = event["time"].as_str().and_then(|time| time.parse::<prost_types::Timestamp>().ok());
        let Some(time) = time else { continue };
        #[expect(clippy::cast_precision_loss, reason = "to a fraction of a millisecond")]
        let made = time.seconds as f64 + f64::from(time.nanos) / 1e9;
        if ages.send((now - made) * 1000.0).is_err() {
            return;
        }
    }
}

// === delivery alone ===

/// Writes the events that the backend has to a file.
fn record(backend: &Backend, folder: &Path) -> Result<PathBuf> {
    let path = folder.join("recorded");
    let mut file = std::io::BufWriter::new(fs::File::create(&path)?);
    for event in events(backend)?.iter().take(50_000) {
        file.write_all(&event.encode_length_delimited_to_vec())?;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(path)
}

fn events(backend: &Backend) -> Result<Vec<Event>> {
    use nightjar_proto::backend::v1::{EventsRequest, backend_client::BackendClient};
    let socket = backend.data.join("backend.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_static("http://backend")
            .connect_with_connector(tower::service_fn(move |_| {
                let socket = socket.clone();
                async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
                }
            }))
            .await?;
        let mut stream = BackendClient::new(channel).events(EventsRequest::default()).await?.into_inner();
        let mut events = Vec::new();
        while let Some(message) = stream.message().await? {
            for event in message.events {
                events.push(Event::decode(event)?);
            }
        }
        ensure!(!events.is_empty(), "the first part has left no events");
        Ok(events)
    })
}

struct Fed {
    cpu: Duration,
    seconds: f64,
}

fn feed(url: &str, folder: &Path, recorded: &Path, arguments: &Arguments, more: &[&str]) -> Result<Fed> {
    let events = (arguments.rate * arguments.seconds).to_string();
    let mut command = Command::new(feeder_path());
    command.args(["--backend", url, "--rate", &arguments.rate.to_string(), "--events", &events]).args(more);
    command.arg("--state").arg(folder).arg("--replay").arg(recorded);
    let start = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let pid = child.id();
    let mut last = Fed { cpu: Duration::ZERO, seconds: 0.0 };
    loop {
        let running = child.try_wait()?.is_none();
        if !running {
            last.seconds = start.elapsed().as_secs_f64();
            return Ok(last);
        }
        if let Ok(cpu) = sys::cpu_time_of(pid) {
            last.cpu = cpu.max(last.cpu);
        }
        sys::go_on()?;
        thread::sleep(Duration::from_millis(10));
    }
}

fn alone(arguments: &Arguments, folder: &TempDir, recorded: &Path) -> Result<Alone> {
    let dir = |name: &str| folder.path().join(name);
    let nowhere = format!("http://{}", nightjar_tests::free_address());
    let baseline = feed(&nowhere, &dir("dry"), recorded, arguments, &["--dry"])?;
    let backend = Backend::start(&dir("alone"), &[]);
    let before = sys::cpu_time_of(backend.pid())?;
    let fed = feed(&backend.url(), &dir("fed"), recorded, arguments, &["--spool", "1073741824"])?;
    let events = arguments.rate * arguments.seconds;
    let ended = Instant::now();
    let counts = catch_up(&backend, events, &dir("fed"), recorded)?;
    let caught_up = ended.elapsed();
    let backend_cpu = sys::cpu_time_of(backend.pid())?.saturating_sub(before);
    drop(backend);
    // A spool that is full, and nobody to take what is in it.
    feed(&nowhere, &dir("full"), recorded, arguments, &["--spool", FULL_SPOOL])?;
    let agent_full = resident_with_full_spool(folder, &nowhere, &dir("full"))?;
    Ok(Alone {
        seconds: fed.seconds,
        events,
        stored: counts.stored,
        lost: counts.told_lost,
        baseline_cpu_ns: nanoseconds(baseline.cpu),
        feeder_cpu_ns: nanoseconds(fed.cpu),
        backend_cpu_ns: nanoseconds(backend_cpu),
        caught_up_after_ms: u64::try_from(caught_up.as_millis()).unwrap_or(u64::MAX),
        agent_full_spool_resident_mib: agent_full,
    })
}

/// An agent as it comes, with the spool that is full: what is resident while programs are run, in MiB.
fn resident_with_full_spool(folder: &TempDir, nowhere: &str, state: &Path) -> Result<f64> {
    let configuration = folder.path().join("full.yaml");
    let text = format!(
        "backend: {{address: \"{nowhere}\", plaintext: true, spool_size: {FULL_SPOOL}}}\nstate: {}\n",
        state.display()
    );
    fs::write(&configuration, text)?;
    let instance = format!("bench-full-{}", std::process::id());
    let mut running = Running::agent(&instance, &configuration)?;
    let full = |status: &Value| number(status, "spool_bytes") * 10 > number(status, "spool_bytes_bound") * 8;
    running.wait_until(&instance, full)?;
    execs_until(Instant::now() + EXECS)?;
    let resident = running.resident_mib("VmRSS:")?;
    running.end()?;
    Ok(resident)
}

/// What was still in the spool at the end goes there too.
fn catch_up(backend: &Backend, events: u64, state: &Path, recorded: &Path) -> Result<Counts> {
    let start = Instant::now();
    loop {
        let counts = backend.counts();
        if counts.stored + counts.told_lost >= events || start.elapsed() > PATIENCE {
            return Ok(counts);
        }
        let mut command = Command::new(feeder_path());
        command.args(["--backend", &backend.url(), "--rate", "1", "--events", "0"]);
        command.arg("--state").arg(state).arg("--replay").arg(recorded);
        command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    }
}

// === what is printed ===

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn per(total: u64, count: u64) -> f64 {
    total as f64 / count.max(1) as f64
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn verdict(reached: bool) -> String {
    if reached { "passes" } else { "falls short" }.to_owned()
}

fn tell(whole: &Whole, alone: &Alone) {
    let mut table = Table::new(["the whole way", "measured", "goal", ""]);
    let mut row = |name: &str, measured: String, goal: &str, verdict: String| {
        table.row(&[name.to_owned(), measured, goal.to_owned(), verdict]);
    };
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = whole.events as f64 / whole.seconds;
    row("events/s stored, as fast as two producers went", format!("{rate:.0}"), "", String::new());
    row("lost", whole.lost.to_string(), "0", verdict(whole.lost == 0));
    row(
        "CPU an event, agent",
        format!("{:.2} us", per(whole.agent_cpu_ns, whole.events) / 1e3),
        "",
        String::new(),
    );
    row(
        "CPU an event, backend",
        format!("{:.2} us", per(whole.backend_cpu_ns, whole.events) / 1e3),
        "",
        String::new(),
    );
    let wire = per(whole.wire_bytes, whole.events);
    row("bytes an event on the wire", format!("{wire:.1}"), "60", verdict(wire < MOST_WIRE_BYTES));
    let rest = per(whole.rest_bytes, whole.rest_events);
    let name = format!("bytes an event at rest ({} events)", whole.rest_events);
    row(&name, format!("{rest:.1}"), "30", verdict(rest < MOST_REST_BYTES && whole.rest_events > 0));
    let ages = &whole.to_readable_ms;
    let (half, most) = (percentile(ages, 50), percentile(ages, 99));
    let reached = most < MOST_TO_READABLE.as_secs_f64() * 1000.0 && !ages.is_empty();
    let name = format!("exec to readable, p50 and p99 of {}", ages.len());
    row(&name, format!("{half:.0} ms, {most:.0} ms"), "1 s", verdict(reached));
    row("agent resident, at most", format!("{:.1} MiB", whole.agent_resident_mib), "", String::new());
    table.print();

    let mut table = Table::new(["delivery alone", "measured", "goal", ""]);
    let mut row = |name: &str, measured: String, goal: &str, verdict: String| {
        table.row(&[name.to_owned(), measured, goal.to_owned(), verdict]);
    };
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = alone.stored as f64 / (alone.seconds + alone.caught_up_after_ms as f64 / 1000.0);
    let all = alone.stored >= alone.events && alone.lost == 0;
    row("events/s, until all is stored", format!("{rate:.0}"), "200,000", verdict(rate >= LEAST_RATE && all));
    row("lost and told", alone.lost.to_string(), "0", verdict(alone.lost == 0));
    row("stored of those made", format!("{} of {}", alone.stored, alone.events), "all", verdict(all));
    row("all stored after the last was made", format!("{} ms", alone.caught_up_after_ms), "", String::new());
    let event = |total: u64| format!("{:.2} us", per(total, alone.events) / 1e3);
    row("CPU an event, making and encoding it", event(alone.baseline_cpu_ns), "", String::new());
    let added = alone.feeder_cpu_ns.saturating_sub(alone.baseline_cpu_ns);
    row("CPU an event, delivery on the agent's side", event(added), "", String::new());
    row("CPU an event, backend", event(alone.backend_cpu_ns), "", String::new());
    let full = alone.agent_full_spool_resident_mib;
    row("agent resident, spool full", format!("{full:.1} MiB"), "64 MiB", verdict(full < MOST_RESIDENT_MIB));
    table.print();
}
