//! A real backend, and what feeds it with events of which each is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{agent::nightjar_path, os, run::feeder_path};

/// How long a backend may take to be there, and what was made to be in it.
const PATIENCE: Duration = Duration::from_secs(90);

/// `nightjar-backend serve`, which can be killed and started again.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its data directory.
    pub data: PathBuf,
    args: Vec<String>,
    plaintext: bool,
    child: Option<Child>,
}

/// What delivers made-up events, in lives of which each can be killed.
#[derive(Debug)]
pub struct Feeder {
    /// Its state directory.
    pub state: PathBuf,
    /// Where it finds the backend.
    pub url: String,
    log: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

/// What a backend has of a feeder.
#[derive(Debug, Default)]
pub struct Stored {
    /// How often each number is there.
    pub events: BTreeMap<u64, u64>,
    /// Spans in which it was told that no agent ran, in nanoseconds since 1970.
    pub absences: Vec<(u64, u64)>,
}

/// What a backend counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events that it has.
    pub stored: u64,
    /// Events of which it was told that it will never have them.
    pub told_lost: u64,
    /// Batches that it knows of and does not have, and that nothing explains.
    pub missing: u64,
}

/// The program under test.
///
/// # Panics
/// When it was not built.
pub fn backend_path() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("in the workspace").to_owned();
    let built = workspace.join("target/release/nightjar-backend");
    let path = env::var_os("NIGHTJAR_BACKEND_BIN").map_or(built, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: build it with `cargo xtask build`, or name another program in NIGHTJAR_BACKEND_BIN",
        path.display()
    );
    path
}

/// A command of the backend for a data directory.
pub fn backend_command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(backend_path());
    command.arg("--data").arg(data).args(args).stdin(Stdio::null()).env("NIGHTJAR_LOG", "error");
    os::die_with_this_thread(&mut command);
    command
}

/// A port that nobody has.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

// === impl Backend ===

impl Backend {
    /// Starts one on a port of its own, without TLS.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        Self::start_at(free_address(), true, data, args)
    }

    /// The same with TLS: agents must be enrolled.
    pub fn start_secure(data: &Path, args: &[&str]) -> Self {
        Self::start_at(free_address(), false, data, args)
    }

    /// The same where another one was.
    pub fn start_at(address: SocketAddr, plaintext: bool, data: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut backend = Self { address, data: data.to_owned(), args, plaintext, child: None };
        backend.again();
        backend
    }

    /// Where agents find it.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.plaintext { "http" } else { "https" }, self.address)
    }

    /// Certificate, key and root of an agent that is enrolled here, as `nightjar enrol` leaves them.
    pub fn enrol(&self, state: &Path) {
        let token = self.says(&["token"]);
        let mut command = Command::new(nightjar_path());
        command.args(["enrol", "--backend", &self.url(), "--state"]).arg(state).arg(token.trim());
        let output = command.stdin(Stdio::null()).output().expect("a program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts it again after it was killed.
    pub fn again(&mut self) {
        let address = self.address.to_string();
        let mut command = backend_command(&self.data, &["serve", "--listen", &address]);
        command.args(self.plaintext.then_some("--plaintext"));
        self.child = Some(command.args(&self.args).spawn().expect("a backend"));
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(start.elapsed() < PATIENCE, "the backend does not listen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("a child");
        child.wait().expect("a child");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("a child");
    }

    /// Process ID.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What a subcommand prints.
    pub fn says(&self, args: &[&str]) -> String {
        let output = backend_command(&self.data, args).output().expect("a program");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it counts.
    pub fn counts(&self) -> Counts {
        let status: Value = serde_json::from_str(&self.says(&["status", "--json"])).expect("JSON");
        let number =
            |name: &str| status["now"][name].as_u64().unwrap_or_else(|| panic!("{name} in {status}"));
        Counts {
            stored: number("stored_events"),
            told_lost: number("told_lost_events"),
            missing: number("missing_batches"),
        }
    }

    /// All that it has of feeders.
    pub fn stored(&self) -> Stored {
        let mut stored = Stored::default();
        for line in self.says(&["events", "-o", "json"]).lines() {
            // Many lines: what is looked for is where the feeder puts it.
            if let Some((_, number)) = line.split_once(r#""id":"00000000-0000-7000-8000-"#) {
                let number = u64::from_str_radix(&number[..12], 16).expect("a number");
                *stored.events.entry(number).or_default() += 1;
            } else if line.contains("not_running") {
                let event: Value = serde_json::from_str(line).expect("JSON");
                let time = |name: &str| nanoseconds(event["telemetry"][name].as_str().unwrap_or_default());
                stored.absences.push((time("since"), time("until")));
            }
        }
        stored
    }

    /// Waits until so many are stored or told as lost.
    #[track_caller]
    pub fn await_all(&self, made: u64) -> Counts {
        let start = Instant::now();
        loop {
            let counts = self.counts();
            if counts.stored + counts.told_lost >= made {
                return counts;
            }
            assert!(start.elapsed() < PATIENCE, "{made} were made; after {PATIENCE:?}: {counts:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// All that was made is stored or was told as lost, nothing is there twice, no gap is without an explanation. Gives how
/// many were told as lost.
#[track_caller]
pub fn expect_all(name: &str, backend: &Backend, feeder: &Feeder) -> u64 {
    let made = feeder.made();
    let counts = backend.await_all(made.len() as u64);
    let stored = backend.stored();
    let twice = stored.events.values().filter(|times| **times > 1).count();
    println!(
        "{name:40} made {:8}  stored {:8}  lost and told {:6}  twice {twice}",
        made.len(),
        stored.events.len(),
        counts.told_lost
    );
    let made: BTreeSet<u64> = made.into_iter().map(|(number, _)| number).collect();
    let foreign = stored.events.keys().filter(|number| !made.contains(number)).count();
    assert_eq!((twice, foreign), (0, 0), "{name}: stored twice, and never made");
    assert_eq!(stored.events.len() as u64 + counts.told_lost, made.len() as u64, "{name}");
    assert_eq!(counts.missing, 0, "{name}: gaps without an explanation: {}", backend.says(&["gaps"]));
    counts.told_lost
}

/// Of `2026-11-22T22:13:37.239948283Z`.
fn nanoseconds(time: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| time[range].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 1970 in the Gregorian calendar, with the year from March on.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    let fraction = time[19..].trim_start_matches('.').trim_end_matches('Z');
    let fraction: u64 = format!("{fraction:0<9}").parse().expect("digits");
    seconds.unsigned_abs() * 1_000_000_000 + fraction
}

// === impl Feeder ===

impl Feeder {
    /// One that delivers to a backend from below a folder, where it is enrolled if need be; it does not run yet.
    pub fn new(folder: &TempDir, backend: &Backend, args: &[&str]) -> Self {
        let (state, log) = (folder.path().join("agent"), folder.path().join("made"));
        if !backend.plaintext {
            backend.enrol(&state);
        }
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { state, url: backend.url(), log, args, child: None }
    }

    /// Starts the next life. Numbers go on where those of the last one ended.
    pub fn live(&mut self) {
        self.live_with(&[]);
    }

    /// The same with more arguments.
    pub fn live_with(&mut self, more: &[&str]) {
        let from = self.made().last().map_or(0, |(number, _)| number + 1);
        let mut command = Command::new(feeder_path());
        command.args(["--backend", &self.url, "--from", &from.to_string()]);
        command.arg("--drain").arg("--state").arg(&self.state).arg("--log").arg(&self.log);
        command.args(&self.args).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        os::die_with_this_thread(&mut command);
        self.child = Some(command.spawn().expect("a feeder"));
    }

    /// Lives for a while.
    pub fn live_for(&mut self, time: Duration) {
        self.live();
        thread::sleep(time);
    }

    /// Ends its life without a warning.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it lives");
        child.kill().expect("a child");
        child.wait().expect("a child");
    }

    /// Lets it end as an agent does; what it says then.
    pub fn end(&mut self) -> Value {
        let mut child = self.child.take().expect("it lives");
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("a child");
        assert!(output.status.success(), "the feeder failed: {}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Most memory that it had resident so far, in bytes.
    pub fn peak_resident(&self) -> u64 {
        let pid = self.child.as_ref().expect("it lives").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Number and time of all events that were made, in this order.
    pub fn made(&self) -> Vec<(u64, u64)> {
        let log = fs::read(&self.log).unwrap_or_default();
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        log.chunks_exact(16).map(|line| (number(&line[..8]), number(&line[8..]))).collect()
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}
