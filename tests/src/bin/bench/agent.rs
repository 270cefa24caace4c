//! The program under test: started, watched from outside, stopped.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Seek as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::sys::{self, Program};

/// The sensors that are attached whatever is asked for: exec, fork and exit.
pub const LEAST: &[&str] = &["process.exec", "process.exit"];
/// Every sensor.
pub const EVERY: &[&str] = &[];

const LONGEST_START: Duration = Duration::from_secs(30);
const LONGEST_STOP: Duration = Duration::from_secs(30);
/// Longer than the agent's naps between two looks at its ring.
const QUIET: Duration = Duration::from_millis(100);
const LONGEST_CATCH_UP: Duration = Duration::from_mins(1);

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
    child: Child,
    instance: String,
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

/// What an agent has told in its life.
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
    /// From SIGTERM to its end.
    #[serde(skip)]
    pub stopped_in: Duration,
}

impl Agent {
    /// Starts an agent that writes JSON to a file in memory, and waits until it has written an event.
    /// Programs are run all the time meanwhile, so that there is one to tell.
    pub fn start(program: &Path, kinds: &[&str]) -> Result<Self> {
        let events = NamedTempFile::with_prefix_in("nightjar-bench-", memory_dir())?;
        let log = tempfile::tempfile_in(memory_dir())?;
        let instance = format!("bench-{}", std::process::id());
        // One file, whatever its size: all of it is read at the end.
        let configuration = NamedTempFile::with_prefix_in("nightjar-bench-", memory_dir())?;
        fs::write(configuration.path(), "json: {rotate_size: 0, rotate_age: 0}\n")?;
        let mut args: Vec<OsString> = vec![
            "run".into(),
            "--config".into(),
            configuration.path().into(),
            "--instance".into(),
            instance.as_str().into(),
            "--json".into(),
            events.path().into(),
        ];
        for &kind in kinds {
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
        let mut agent = Self { child, instance, configuration, events, log, first_event: Duration::ZERO };

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
            // Other programs may run on this host without end: a few events are quiet enough.
            if now.saturating_sub(before) < 64 << 10 {
                return Ok(());
            }
            if begin.elapsed() > LONGEST_CATCH_UP {
                bail!("the agent still writes {LONGEST_CATCH_UP:?} after the last exec");
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
        fs::write(path, format!("json: {{rotate_size: 0, rotate_age: 0, keep: {keep}}}\n"))?;
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
            let info = fs::read_to_string(entry?.path())?;
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

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    /// Stops it and reads what it told about processes whose first argument is `name`.
    pub fn stop(mut self, name: &str) -> Result<Told> {
        let begin = Instant::now();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("cannot stop the agent")?;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begin.elapsed() > LONGEST_STOP {
                bail!("the agent did not end in {LONGEST_STOP:?}");
            }
            sleep(Duration::from_millis(1));
        };
        let stopped_in = begin.elapsed();
        let log = self.log_text()?;
        if !status.success() {
            return Err(anyhow!("{log}")).context(format!("the agent failed ({status})"));
        }
        let summary = log.lines().last().unwrap_or_default().to_owned();
        let told = Told { summary, stopped_in, ..Told::default() };
        read(self.events.reopen()?, name, told)
    }
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
    }
}

/// The value of a line `NAME:<white space>VALUE`.
fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[derive(Deserialize)]
struct Event {
    kind: String,
    #[serde(default)]
    process: Process,
    #[serde(default)]
    telemetry: Telemetry,
}

#[derive(Default, Deserialize)]
struct Process {
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Telemetry {
    #[serde(default)]
    losses: Vec<Loss>,
}

#[derive(Deserialize)]
struct Loss {
    #[serde(default)]
    count: u64,
}

fn read(events: File, name: &str, mut told: Told) -> Result<Told> {
    let mut reader = BufReader::with_capacity(1 << 20, events);
    let (mut line, mut bytes) = (Vec::new(), 0);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let event: Event = serde_json::from_slice(&line)
            .with_context(|| format!("no event: {}", String::from_utf8_lossy(&line)))?;
        told.lost += event.telemetry.losses.iter().map(|loss| loss.count).sum::<u64>();
        if event.process.args.first().is_none_or(|arg| arg != name) {
            continue;
        }
        bytes += line.len();
        match event.kind.as_str() {
            "process.exec" => told.execs += 1,
            "process.exit" => told.exits += 1,
            _ => {}
        }
    }
    if told.execs > 0 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let mean = bytes as f64 / told.execs as f64;
        told.bytes_per_exec = mean;
    }
    Ok(told)
}
