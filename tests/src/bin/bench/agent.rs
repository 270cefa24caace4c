//! The program under test: started, watched from outside, stopped.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Seek as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::{
    programs::{self, KernelProgram},
    sys::{self, Program},
};

/// What an agent is asked to watch.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As with `--kind`; none: the kinds that the agent records unless told otherwise.
    pub kinds: &'static [&'static str],
    /// The setting `files`, in YAML; none: what the agent watches unless told otherwise.
    pub files: Option<String>,
}

/// Long enough to find a hundred thousand files on a busy machine.
const LONGEST_START: Duration = Duration::from_mins(1);
const LONGEST_STOP: Duration = Duration::from_secs(30);
/// Longer than the agent's naps between two looks at its ring.
const QUIET: Duration = Duration::from_millis(100);
const LONGEST_CATCH_UP: Duration = Duration::from_mins(1);
const LONGEST_ANSWER: Duration = Duration::from_secs(20);
/// Longer than notifications wait for what the kernel programs tell of the same.
const SILENCE: Duration = Duration::from_millis(500);
/// Where nobody listens, as a rule.
const DISCARD: u16 = 9;
/// So few events, of a KiB each, are quiet enough.
const FEW: u64 = 64;

/// Where the program under test is: `NIGHTJAR_BIN`, as `cargo xtask bench` sets it, else where
/// `cargo build --release` leaves it.
pub fn program() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/nightjar");
    let path = env::var_os("NIGHTJAR_BIN").map_or(built, PathBuf::from);
    path.canonicalize().with_context(|| {
        format!("no agent at {}: build it with `cargo xtask build` or set NIGHTJAR_BIN", path.display())
    })
}

/// A memory file system where there is one, so that no disk is measured.
pub fn memory_dir() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { env::temp_dir() }
}

/// An agent that watches. Dropped, it is killed.
pub struct Agent {
    program: PathBuf,
    child: Child,
    instance: String,
    settings: String,
    configuration: NamedTempFile,
    events: NamedTempFile,
    log: File,
    /// From its start until the first event was written.
    pub first_event: Duration,
}

/// CPU time since the start of the agent.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub total: Duration,
    /// Part of `total`: sampled by the kernel's tick and told in steps of 10 ms.
    pub user: Duration,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    pub peak: u64,
    pub anonymous: u64,
    pub file: u64,
    pub shared: u64,
    /// What the kernel holds for the agent's maps, which no process's resident set shows.
    pub maps: u64,
}

/// An agent that came to its end, and the events that it wrote.
pub struct Stopped {
    events: File,
    /// How, where not well.
    failed: Option<ExitStatus>,
    /// Its standard error.
    log: String,
    /// From SIGTERM to its end.
    pub took: Duration,
}

/// What an agent has told of execs in its life.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Told {
    /// Events about processes whose first argument is the asked one.
    pub execs: u64,
    pub exits: u64,
    /// Sum of the counts in `telemetry.loss` events.
    pub lost: u64,
    /// Bytes of JSON for an exec, its exit included.
    pub bytes_per_exec: f64,
    /// Last line of its standard error.
    pub summary: String,
}

/// What an agent has told of files, or of sockets, in its life.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ToldOfActs {
    /// Events about files below the asked directory, or about sockets with the asked port.
    pub events: u64,
    /// Bytes of JSON of these.
    pub bytes: u64,
    /// Acts that these tell of, by process and kind: an event of repeats tells of many. Connections that a
    /// `network.flow` counts are counted as `network.connect` or `network.accept` and as `network.close`, those that
    /// failed as [`FAILED`]; there are [`SENT`] and [`RECEIVED`] too.
    pub acts: BTreeMap<u32, BTreeMap<String, u64>>,
    /// Sum of the counts in `telemetry.loss` events.
    pub lost: u64,
}

/// Connections that did not come to be, or of which that is not known.
pub const FAILED: &str = "connections that failed";
/// Packets that were sent, by the events of an end.
pub const SENT: &str = "packets sent";
/// Packets that were received, likewise.
pub const RECEIVED: &str = "packets received";

/// The part of `nightjar status` that says what became of what happened.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Status {
    pub hooks: Vec<HookCounts>,
    pub identities: Vec<Identity>,
    pub flow: Flow,
    pub losses: Losses,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HookCounts {
    pub hook: String,
    pub seen: u64,
    pub filtered: u64,
    pub aggregated: u64,
    pub submitted: u64,
    pub dropped: Vec<Count>,
}

/// A sum that must hold.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Identity {
    pub of: String,
    pub left: u64,
    pub right: u64,
    pub holds: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Flow {
    pub received: u64,
    pub exported: Vec<Count>,
    pub discarded: Vec<Count>,
    pub refused: Vec<Count>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Losses {
    pub total: u64,
    pub losses: Vec<Loss>,
}

/// So many, by kind or by reason.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Count {
    #[serde(alias = "reason", alias = "kind")]
    pub of: String,
    pub count: u64,
}

/// What was lost at one place.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Loss {
    pub hook: String,
    pub reason: String,
    pub count: u64,
}

impl Asked {
    /// What the agent watches unless told otherwise.
    pub const USUAL: Self = Self { kinds: &[], files: None };
    /// The sensors that are attached whatever is asked for: exec, fork and exit.
    pub const LEAST: Self = Self { kinds: &["process.exec", "process.exit"], files: None };
    /// Every sensor of processes.
    pub const PROCESSES: Self = Self { kinds: &["process.*"], files: None };

    /// Every sensor of sockets, and no event of anything else.
    pub const NETWORK: Self = Self { kinds: &["network.*"], files: None };

    /// Besides processes, what is done of this with a file, or with a directory and what it covers; no other file.
    pub fn watching(path: &str, recursive: bool, operations: &[&str]) -> Self {
        let policy =
            json!({"name": "bench", "paths": [path], "recursive": recursive, "operations": operations});
        // JSON is YAML.
        Self { files: Some(json!({"defaults": false, "watch": [policy]}).to_string()), ..Self::USUAL }
    }

    /// Besides processes, all files that are opened, and all that are closed.
    pub fn all_files() -> Self {
        Self { files: Some(json!({"defaults": false, "all": true}).to_string()), ..Self::USUAL }
    }

    fn is_of_network(&self) -> bool {
        self.kinds.iter().any(|kind| kind.starts_with("network."))
    }

    fn settings(&self) -> String {
        // One file of events, whatever its size: all of it is read at the end.
        let json = "json: {rotate_size: 0, rotate_age: 0";
        match &self.files {
            Some(files) => format!("files: {files}\n{json}"),
            None => json.to_owned(),
        }
    }
}

impl Agent {
    /// Starts an agent that writes JSON to a file in memory, and waits until it has written an event.
    /// Programs are run all the time meanwhile, so that there is one to tell; where sockets alone are asked for,
    /// connections are tried too.
    pub fn start(program: &Path, asked: &Asked) -> Result<Self> {
        let events = NamedTempFile::with_prefix_in("nightjar-bench-", memory_dir())?;
        let log = tempfile::tempfile_in(memory_dir())?;
        let instance = format!("bench-{}", std::process::id());
        let settings = asked.settings();
        let configuration = NamedTempFile::with_prefix_in("nightjar-bench-", memory_dir())?;
        fs::write(configuration.path(), format!("{settings}}}\n"))?;
        let mut args: Vec<OsString> = vec![
            "run".into(),
            "--config".into(),
            configuration.path().into(),
            "--instance".into(),
            instance.as_str().into(),
            "--json".into(),
            events.path().into(),
        ];
        for &kind in asked.kinds {
            args.extend(["--kind".into(), kind.into()]);
        }
        let begin = Instant::now();
        let child = Command::new(program)
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let program = program.to_owned();
        let first_event = Duration::ZERO;
        let mut agent = Self { program, child, instance, settings, configuration, events, log, first_event };

        let canary = Program::new(Path::new("/bin/true"), "nightjar-bench-canary")?;
        while agent.written()? == 0 {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended at once ({status}):\n{}", agent.log_text()?);
            }
            if begin.elapsed() > LONGEST_START {
                bail!("the agent told nothing in {LONGEST_START:?}:\n{}", agent.log_text()?);
            }
            sys::go_on()?;
            canary.run()?;
            if asked.is_of_network() {
                // Refused or not, it is told.
                let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, DISCARD));
            }
            sleep(Duration::from_millis(5));
        }
        agent.first_event = begin.elapsed();
        agent.catch_up()?;
        Ok(agent)
    }

    /// Waits until the agent has written all it has read.
    pub fn catch_up(&self) -> Result<()> {
        let begin = Instant::now();
        let mut before = self.written()?;
        loop {
            sleep(QUIET);
            let now = self.written()?;
            // Other programs may run on this host without end.
            if now.saturating_sub(before) < FEW * 1024 {
                return Ok(());
            }
            if begin.elapsed() > LONGEST_CATCH_UP {
                bail!("the agent still writes after {LONGEST_CATCH_UP:?}");
            }
            before = now;
        }
    }

    fn written(&self) -> Result<u64> {
        Ok(self.events.as_file().metadata()?.len())
    }

    fn log_text(&mut self) -> Result<String> {
        let mut text = String::new();
        self.log.rewind()?;
        self.log.read_to_string(&mut text)?;
        Ok(text.trim().to_owned())
    }

    /// Has it read its configuration again, which is another than before.
    pub fn reload(&self) -> Result<()> {
        let path = self.configuration.path();
        let before = fs::read_to_string(path)?;
        let keep = if before.contains("keep: 3") { 4 } else { 3 };
        fs::write(path, format!("{}, keep: {keep}}}\n", self.settings))?;
        kill_process(Pid::from_child(&self.child), Signal::HUP).context("cannot signal the agent")
    }

    pub fn cpu(&self) -> Result<Cpu> {
        let total = sys::cpu_time_of(self.child.id())?;
        let stat = fs::read_to_string(self.proc("stat"))?;
        // The name, in parentheses, may hold anything; proc_pid_stat(5) has utime 12 fields behind it.
        let ticks: u64 = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_whitespace().nth(11))
            .and_then(|ticks| ticks.parse().ok())
            .context("no utime in /proc/PID/stat")?;
        let user = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        Ok(Cpu { total, user })
    }

    pub fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(self.proc("status"))?;
        let bytes = |name: &str| -> Result<u64> {
            let value = field(&status, name).and_then(|value| value.strip_suffix(" kB"));
            let kib: u64 = value.with_context(|| format!("no {name} in /proc/PID/status"))?.parse()?;
            Ok(kib << 10)
        };
        let mut maps = 0;
        for entry in fs::read_dir(self.proc("fdinfo"))? {
            // A descriptor may be closed meanwhile; those of maps are not.
            let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
            if field(&info, "map_id").is_some() {
                maps += field(&info, "memlock").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
            }
        }
        Ok(Memory {
            peak: bytes("VmHWM")?,
            anonymous: bytes("RssAnon")?,
            file: bytes("RssFile")?,
            shared: bytes("RssShmem")?,
            maps,
        })
    }

    /// What it says of itself. One that is busy is asked again.
    pub fn status(&self) -> Result<Status> {
        let begin = Instant::now();
        loop {
            let output = Command::new(&self.program)
                .args(["status", "-o", "json", "--instance", &self.instance])
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("cannot start {}", self.program.display()))?;
            // It ends otherwise than well where something was lost, and says all the same what.
            if !output.stdout.is_empty() {
                return serde_json::from_slice(&output.stdout).context("the agent's status is none");
            }
            if begin.elapsed() > LONGEST_ANSWER {
                bail!("the agent has no status: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            sleep(QUIET);
        }
    }

    /// The kernel programs that it holds, as the kernel tells of them.
    pub fn programs(&self) -> Result<Vec<KernelProgram>> {
        programs::held_by(self.child.id())
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    /// Waits until the agent receives no more, of its kernel programs or of notifications: it may write nothing for
    /// a while and have much to do.
    pub fn await_silence(&self) -> Result<()> {
        let begin = Instant::now();
        let mut before = self.status()?.flow.received;
        loop {
            sleep(SILENCE);
            let now = self.status()?.flow.received;
            if now.saturating_sub(before) < FEW {
                return Ok(());
            }
            if begin.elapsed() > LONGEST_CATCH_UP {
                bail!("the agent is still behind after {LONGEST_CATCH_UP:?}");
            }
            before = now;
        }
    }

    /// Stops it.
    pub fn stop(self) -> Result<Stopped> {
        let stopped = self.end()?;
        if let Some(status) = stopped.failed {
            return Err(anyhow!("{}", stopped.log)).context(format!("the agent failed ({status})"));
        }
        Ok(stopped)
    }

    /// Stops it, however well that goes.
    pub fn end(mut self) -> Result<Stopped> {
        let begin = Instant::now();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("cannot stop the agent")?;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begin.elapsed() > LONGEST_STOP {
                self.child.kill()?;
            }
            sleep(Duration::from_millis(1));
        };
        let took = begin.elapsed();
        let failed = (!status.success()).then_some(status);
        Ok(Stopped { events: self.events.reopen()?, failed, log: self.log_text()?, took })
    }
}

impl Stopped {
    /// What it said at its end, where that was not well.
    pub fn complaint(&self) -> Option<String> {
        self.failed.map(|status| format!("{} ({status})", self.summary()))
    }

    /// Last line of its standard error.
    pub fn summary(&self) -> String {
        self.log.lines().last().unwrap_or_default().to_owned()
    }

    /// What it told about processes whose first argument is `name`.
    pub fn told_of_execs(self, name: &str) -> Result<Told> {
        let mut bytes = 0;
        let mut told = Told { summary: self.summary(), ..Told::default() };
        self.each(|event, length| {
            told.lost += event.lost();
            if event.process.args.first().is_none_or(|arg| arg != name) {
                return;
            }
            bytes += length;
            match event.kind.as_str() {
                "process.exec" => told.execs += 1,
                "process.exit" => told.exits += 1,
                _ => {}
            }
        })?;
        if told.execs > 0 {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let mean = bytes as f64 / told.execs as f64;
            told.bytes_per_exec = mean;
        }
        Ok(told)
    }

    /// What it told about files below this directory.
    pub fn told_of_files(self, below: &Path) -> Result<ToldOfActs> {
        let mut told = ToldOfActs::default();
        self.each(|event, length| {
            told.lost += event.lost();
            let Some(file) = &event.file else { return };
            if !Path::new(&file.path).starts_with(below) {
                return;
            }
            told.events += 1;
            told.bytes += length;
            let of_process = told.acts.entry(event.process.pid).or_default();
            // An event that tells of one act has no count.
            *of_process.entry(event.kind.clone()).or_default() += file.count.max(1);
        })?;
        Ok(told)
    }

    /// What it told about sockets of which one end has this port, those that listen there aside.
    pub fn told_of_port(self, port: u16) -> Result<ToldOfActs> {
        let mut told = ToldOfActs::default();
        self.each(|event, length| {
            told.lost += event.lost();
            let Some(network) = event.network.as_ref().filter(|network| network.is_of(port)) else { return };
            told.events += 1;
            told.bytes += length;
            let of_process = told.acts.entry(event.process.pid).or_default();
            for (what, count) in network.acts(&event.kind) {
                *of_process.entry(what.to_owned()).or_default() += count;
            }
        })?;
        Ok(told)
    }

    fn each(self, mut see: impl FnMut(&Event, u64)) -> Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, self.events);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let event = serde_json::from_slice(&line)
                .with_context(|| format!("no event: {}", String::from_utf8_lossy(&line)))?;
            see(&event, line.len() as u64);
        }
    }
}

impl ToldOfActs {
    /// Acts of this kind, of whichever process.
    pub fn of(&self, kind: &str) -> u64 {
        self.acts.values().filter_map(|kinds| kinds.get(kind)).sum()
    }

    /// Acts of this kind of these processes.
    pub fn by(&self, pids: &[u32], kind: &str) -> u64 {
        pids.iter().filter_map(|pid| self.acts.get(pid)?.get(kind)).sum()
    }
}

impl Status {
    /// The sum of something that hooks counted whose names begin with one of these.
    pub fn of_hooks(&self, begins: &[&str], of: impl Fn(&HookCounts) -> u64) -> u64 {
        let asked = |counts: &&HookCounts| begins.iter().any(|begin| counts.hook.starts_with(begin));
        self.hooks.iter().filter(asked).map(of).sum()
    }
}

impl HookCounts {
    /// How the names of hooks of files begin.
    pub const FILES: &'static [&'static str] = &["file_"];
    /// How those of sockets do.
    pub const SOCKETS: &'static [&'static str] = &["socket_", "datagram"];

    /// Lost for whatever reason.
    pub fn lost(&self) -> u64 {
        sum(&self.dropped)
    }
}

/// The sum of all counts.
pub fn sum(counts: &[Count]) -> u64 {
    counts.iter().map(|count| count.count).sum()
}

/// `nightjar tail`, attached to an agent.
pub struct Reader {
    child: Child,
    shown: File,
}

impl Reader {
    /// Attaches one that writes all it is shown to a file in memory, and waits until it shows something.
    pub fn attach(program: &Path, agent: &Agent) -> Result<Self> {
        let shown = tempfile::tempfile_in(memory_dir())?;
        let child = Command::new(program)
            .args(["tail", "-o", "json", "--instance", &agent.instance])
            .stdin(Stdio::null())
            .stdout(shown.try_clone()?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let reader = Self { child, shown };
        let canary = Program::new(Path::new("/bin/true"), "nightjar-bench-canary")?;
        let begin = Instant::now();
        while reader.shown.metadata()?.len() == 0 {
            if begin.elapsed() > LONGEST_START {
                bail!("the attached tail showed nothing in {LONGEST_START:?}");
            }
            canary.run()?;
            sleep(Duration::from_millis(5));
        }
        Ok(reader)
    }

    /// Stops it; tells how many events it showed.
    pub fn stop(mut self) -> Result<u64> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot stop the tail")?;
        self.child.wait()?;
        self.shown.rewind()?;
        let mut lines = 0;
        for line in BufReader::new(&self.shown).split(b'\n') {
            line?;
            lines += 1;
        }
        Ok(lines)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // One that was stopped is gone, and both calls know.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Of an agent that was stopped there is nothing left to kill, and both calls know.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // It leaves its lock, and where it was killed its socket.
        for extension in ["lock", "sock"] {
            let _ = fs::remove_file(format!("/run/nightjar/{}.{extension}", self.instance));
        }
    }
}

/// The value of a line `NAME:<white space>VALUE`.
pub fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[derive(Deserialize)]
struct Event {
    kind: String,
    #[serde(default)]
    process: Process,
    #[serde(default)]
    telemetry: Telemetry,
    file: Option<FileActivity>,
    network: Option<NetworkActivity>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Process {
    pid: u32,
    args: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FileActivity {
    path: String,
    count: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NetworkActivity {
    direction: String,
    outcome: String,
    local: Endpoint,
    remote: Option<Endpoint>,
    count: u64,
    failed: u64,
    packets_sent: u64,
    packets_received: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Telemetry {
    losses: Vec<Loss>,
}

impl Event {
    fn lost(&self) -> u64 {
        self.telemetry.losses.iter().map(|loss| loss.count).sum()
    }
}

impl NetworkActivity {
    /// Whether one of two ends has this port. What listens has one end.
    fn is_of(&self, port: u16) -> bool {
        let remote = self.remote.as_ref();
        remote.is_some_and(|remote| [self.local.port, remote.port].contains(&Some(port)))
    }

    /// What an event of this kind with this tells of, and how many.
    fn acts<'a>(&self, kind: &'a str) -> [(&'a str, u64); 5] {
        let made = self.count - self.failed;
        let begun = if self.direction == "inbound" { "network.accept" } else { "network.connect" };
        let (kind, count, ended) = match (kind, self.outcome.as_str()) {
            ("network.flow", _) => (begun, made, made),
            ("network.connect", "failed" | "unknown") => (FAILED, 1, 0),
            _ => (kind, 1, 0),
        };
        [
            (kind, count),
            ("network.close", ended),
            (FAILED, self.failed),
            (SENT, self.packets_sent),
            (RECEIVED, self.packets_received),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an event tells of, where it tells of anything.
    fn acts(kind: &str, network: serde_json::Value) -> BTreeMap<String, u64> {
        let network: NetworkActivity = serde_json::from_value(network).expect("fields of the right types");
        assert!(network.is_of(4710), "one end has the port");
        let mut acts = BTreeMap::new();
        for (what, count) in network.acts(kind) {
            *acts.entry(what.to_owned()).or_default() += count;
        }
        acts.retain(|_, count| *count > 0);
        acts
    }

    fn expected<const N: usize>(acts: [(&str, u64); N]) -> BTreeMap<String, u64> {
        acts.map(|(what, count)| (what.to_owned(), count)).into()
    }

    #[test]
    fn an_event_of_its_own_tells_of_one_connection() {
        let remote = json!({"port": 4710});
        let made = json!({"direction": "outbound", "outcome": "established", "remote": remote});
        assert_eq!(acts("network.connect", made), expected([("network.connect", 1)]));
        let failed = json!({"direction": "outbound", "outcome": "failed", "remote": remote});
        assert_eq!(acts("network.connect", failed), expected([(FAILED, 1)]));
    }

    #[test]
    fn a_flow_tells_of_the_beginning_and_the_end_of_all_that_it_counts() {
        let (local, remote) = (json!({"port": 4710}), json!({"address": "127.0.0.1"}));
        let flow = json!({"direction": "inbound", "local": local, "remote": remote, "count": 9, "failed": 0,
            "packets_sent": 2, "packets_received": 3});
        let all = [("network.accept", 9), ("network.close", 9), (SENT, 2), (RECEIVED, 3)];
        assert_eq!(acts("network.flow", flow), expected(all));
        let flow = json!({"direction": "outbound", "remote": local, "count": 9, "failed": 4});
        let all = [("network.connect", 5), ("network.close", 5), (FAILED, 4)];
        assert_eq!(acts("network.flow", flow), expected(all));
    }

    #[test]
    fn what_listens_is_no_connection() {
        let listener: NetworkActivity =
            serde_json::from_value(json!({"local": {"port": 4710}})).expect("fields of the right types");
        assert!(!listener.is_of(4710));
    }
}
