//! The program under test, running.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Signal, kill_process};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    event::{Event, Expect, Head, exec, shortened},
    os,
    run::{TRUE, quiet},
    schema::{expect_status, wrong_with},
    session::until,
};

/// How long an event may take on a machine that does many other things. What is promised is in `latency.rs`.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long loading the kernel programs may take.
const START: Duration = Duration::from_mins(1);
/// How long detaching them may take.
const STOP: Duration = Duration::from_secs(30);
/// Between two programs that are run to see whether the agent watches yet.
const MARKER_INTERVAL: Duration = Duration::from_millis(100);
const CONFIGURATION: &str = "nightjar.yaml";

/// `nightjar run --json -`, from its first event on.
#[derive(Debug)]
pub struct Agent {
    instance: String,
    /// Its configuration, in a folder that goes when it goes.
    folder: TempDir,
    child: Option<Child>,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    stderr: Arc<Mutex<String>>,
}

/// What the agent said at its end.
#[derive(Debug)]
pub struct Summary {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard error.
    pub stderr: String,
}

/// Lines so far.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    grew: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    seen: Vec<Line>,
    ended: bool,
    /// Why the rest was not read.
    broken: Option<String>,
}

#[derive(Debug)]
struct Line {
    head: Head,
    text: String,
    arrived: SystemTime,
    number: usize,
}

/// The program under test.
#[must_use]
pub fn nightjar_path() -> PathBuf {
    if let Some(path) = env::var_os("NIGHTJAR_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "NIGHTJAR_BIN is {}, and there is no such file", path.display());
        return path;
    }
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("in the workspace").to_owned();
    let path = workspace.join("target/release/nightjar");
    assert!(
        path.is_file(),
        "{} is not there: build it with `cargo xtask build`, or name another program in NIGHTJAR_BIN",
        path.display()
    );
    path
}

/// A command of the program under test; its process ends with the thread that starts it.
pub fn nightjar(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(nightjar_path());
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    os::die_with_this_thread(&mut command);
    command
}

/// A name for an agent that no other has: all can run on one host.
pub fn instance() -> String {
    let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        os::at_exit(remove_run_files);
    }
    instance_name(number)
}

static INSTANCES: AtomicU32 = AtomicU32::new(0);

fn instance_name(number: u32) -> String {
    format!("test-{}-{number}", std::process::id())
}

/// Agents leave their lock files, and their sockets where they were killed.
extern "C" fn remove_run_files() {
    for number in 0..INSTANCES.load(Ordering::Relaxed) {
        for extension in ["lock", "sock"] {
            let _not_there = fs::remove_file(format!("/run/nightjar/{}.{extension}", instance_name(number)));
        }
    }
}

/// The socket of an agent of this name.
#[must_use]
pub fn socket_of(instance: &str) -> PathBuf {
    format!("/run/nightjar/{instance}.sock").into()
}

/// What `nightjar status` says of an agent, which is as its schema says.
#[must_use]
pub fn status_of(instance: &str) -> Value {
    /// Something was lost, or a configuration refused: told as well.
    const DEGRADED: i32 = 3;
    let output = nightjar(["status", "--instance", instance, "-o", "json"]).output().expect("a program");
    let told = matches!(output.status.code(), Some(0 | DEGRADED));
    assert!(told, "no status: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
    expect_status(&String::from_utf8_lossy(&output.stdout))
}

/// Numbers of the BPF programs that a process holds, by themselves or attached.
#[must_use]
pub fn programs_of(pid: u32) -> BTreeSet<u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a process that runs");
    let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let number = |line: &str| line.strip_prefix("prog_id:")?.trim().parse().ok();
    texts.flat_map(|text| text.lines().filter_map(number).collect::<Vec<u32>>()).collect()
}

static SHARED: OnceLock<Mutex<Option<Agent>>> = OnceLock::new();
static SHARED_LOG: OnceLock<Arc<Log>> = OnceLock::new();

/// The end of the test program: whatever the tests did, nothing stays behind.
extern "C" fn stop_shared() {
    let Some(agent) = SHARED.get().and_then(|shared| locked(shared).take()) else { return };
    let complaint = match agent.end(Signal::INT) {
        Ok(summary) if summary.status.success() => return,
        Ok(summary) => format!("the shared agent failed: {summary:?}"),
        Err(complaint) => complaint,
    };
    let _no_reader = writeln!(std::io::stderr(), "{complaint}");
    // The tests have had their say; this is the only one left.
    std::process::abort();
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a failed test leaves is a list of lines: whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A configuration that asks for processes alone where it says nothing of kinds or files: to find what is watched and to
/// load what watches it takes seconds, which most tests have no use for.
fn with_kinds(configuration: &str) -> String {
    if configuration.contains("kinds") || configuration.contains("files") {
        return configuration.to_owned();
    }
    format!("{configuration}\nkinds: [\"process.*\", \"!process.fork\"]\n")
}

// === impl Agent ===

impl Agent {
    /// Starts `nightjar run --json -` with more arguments and no configuration; comes back when it watches.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        Self::configured("", args)
    }

    /// Starts `nightjar run --json -` with a configuration (YAML) and more arguments; comes back when it watches.
    #[must_use]
    pub fn configured(configuration: &str, args: &[&str]) -> Self {
        Self::named(instance(), configuration, args)
    }

    /// As [`Agent::configured`], with the name of one that is gone.
    #[must_use]
    pub fn named(instance: String, configuration: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join(CONFIGURATION);
        fs::write(&file, with_kinds(configuration)).expect("a new file");
        let mut command = nightjar(["run", "--json", "-", "--instance", &instance].iter().chain(args));
        command.arg("--config").arg(&file);
        let (log, stderr) = (Arc::new(Log::default()), Arc::new(Mutex::new(String::new())));
        let (started, start) = mpsc::channel();
        let for_reader = Arc::clone(&log);
        // The thread that starts it lives as long as the agent writes: see `die_with_this_thread`.
        let reader = thread::spawn(move || {
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("cannot run {}: {error}", nightjar_path().display()));
            let stdout = child.stdout.take().expect("piped");
            started.send(child).expect("somebody waits for it");
            for_reader.read(BufReader::new(stdout));
        });
        let mut child = start.recv().expect("the agent was started");
        let mut from = child.stderr.take().expect("piped");
        let to = Arc::clone(&stderr);
        let stderr_reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                locked(&to).push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let agent =
            Self { instance, folder, child: Some(child), log, readers: vec![reader, stderr_reader], stderr };
        agent.await_first_event();
        agent
    }

    /// Makes sure that the agent that all tests of a file share runs. It shows events of all kinds.
    pub fn shared() {
        Self::share("");
    }

    /// As [`Agent::shared`], with a configuration (YAML): that of whoever asks first.
    pub fn share(configuration: &str) {
        Self::share_kinds(configuration, &["process.*"]);
    }

    /// As [`Agent::share`], with other kinds of events.
    pub fn share_kinds(configuration: &str, kinds: &[&str]) {
        SHARED.get_or_init(|| {
            os::at_exit(stop_shared);
            let kinds = kinds.iter().flat_map(|kind| ["--kind", kind]);
            let args: Vec<&str> = kinds.chain(["--ring-size", "64MiB"]).collect();
            let agent = Self::configured(configuration, &args);
            SHARED_LOG.set(Arc::clone(&agent.log)).expect("set here only");
            Mutex::new(Some(agent))
        });
    }

    /// Name of the agent that all tests of a file share.
    #[must_use]
    pub fn shared_instance() -> String {
        Self::shared();
        let shared = locked(SHARED.get().expect("just started"));
        shared.as_ref().expect("stopped at the end only").instance.clone()
    }

    /// Its configuration file.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join(CONFIGURATION)
    }

    /// Writes another configuration (YAML) and has it read.
    pub fn reload(&self, configuration: &str) {
        fs::write(self.configuration(), with_kinds(configuration)).expect("a file of ours");
        self.signal(Signal::HUP);
    }

    /// As [`Agent::reload`]; comes back when all that happens from then on is treated accordingly.
    pub fn reload_and_wait(&self, configuration: &str) {
        let reloads = || status_of(&self.instance)["configuration"]["reloads"].as_u64().unwrap_or(0);
        let before = reloads();
        self.reload(configuration);
        until("the configuration is read again", || (reloads() > before).then_some(()));
        // That answer may be from before the change; orders are obeyed one after another.
        let _obeyed = status_of(&self.instance);
    }

    /// What it said on standard error so far.
    #[must_use]
    pub fn complaints(&self) -> String {
        locked(&self.stderr).clone()
    }

    /// Name of the agent, as `tail` and `status` want it.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Process ID of the agent.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running().id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(os::pid_of(self.running()), signal).expect("our own child");
    }

    /// A place in the stream: events that come from now on.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.log.len()
    }

    /// Waits for an event that comes after `mark`.
    pub fn expect_event(&self, expect: &Expect, mark: usize) -> Event {
        self.log.expect(expect, mark)
    }

    /// Waits until all that happened so far was written; gives the last of it.
    pub fn catch_up(&self) -> Event {
        self.log.catch_up(&exec())
    }

    /// Events of a kind (as `process.exec`) so far.
    #[must_use]
    pub fn events(&self, kind: &str) -> Vec<Event> {
        self.log.events(0, |line| line.head.kind == kind)
    }

    /// File events after a place in the stream whose line has this text in it.
    #[must_use]
    pub fn file_events(&self, text: &str, mark: usize) -> Vec<Event> {
        self.log.events_of("file.", text, mark)
    }

    /// Network events after a place in the stream whose line has this text in it.
    #[must_use]
    pub fn network_events(&self, text: &str, mark: usize) -> Vec<Event> {
        self.log.events_of("network.", text, mark)
    }

    /// Network events whose line has this text in it, as far as this type has what is in them.
    #[must_use]
    pub fn network_events_as<T: DeserializeOwned>(&self, text: &str) -> Vec<T> {
        let lines = locked(&self.log.lines);
        let fits = |line: &&Line| line.head.kind.starts_with("network.") && line.text.contains(text);
        let read = |line: &Line| {
            serde_json::from_str(&line.text).unwrap_or_else(|error| panic!("{error}: {}", line.text))
        };
        lines.seen.iter().filter(fits).map(read).collect()
    }

    /// How many network events whose line has this text in it have come from a place in the stream on, which becomes
    /// the place to go on from: who asks often does not look at all of them again.
    pub fn count_more_network_events(&self, text: &str, from: &mut usize) -> usize {
        let (count, end) =
            self.log.count(*from, |line| line.head.kind.starts_with("network.") && line.text.contains(text));
        *from = end;
        count
    }

    /// Stops it as Ctrl-C does.
    #[must_use]
    pub fn stop(self) -> Summary {
        self.stop_by(Signal::INT)
    }

    /// Stops it by a signal.
    #[must_use]
    pub fn stop_by(self, signal: Signal) -> Summary {
        self.end(signal).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    fn end(mut self, signal: Signal) -> Result<Summary, String> {
        self.signal(signal);
        let mut child = self.child.take().expect("runs until here");
        let in_time = os::await_exit(&child, Instant::now() + STOP);
        if !in_time {
            child.kill().expect("our own child");
        }
        let status = child.wait().expect("our own child");
        let readers_failed = self.readers.drain(..).filter_map(|reader| reader.join().err()).count();
        let stderr = locked(&self.stderr).clone();
        let broken = locked(&self.log.lines).broken.take();
        let wrong = locked(&self.log.lines).seen.iter().find_map(|line| wrong_with(&line.text));
        match broken {
            _ if !in_time => Err(format!("the agent did not stop within {STOP:?} of {signal:?}: {stderr}")),
            Some(line) => Err(line),
            None if readers_failed > 0 => Err("what the agent wrote could not be read".to_owned()),
            None if wrong.is_some() => Err(wrong.unwrap_or_default()),
            None => Ok(Summary { status, stderr }),
        }
    }

    /// Kinds of events so far.
    #[must_use]
    pub fn kinds(&self) -> BTreeSet<String> {
        locked(&self.log.lines).seen.iter().map(|line| line.head.kind.clone()).collect()
    }

    fn running(&self) -> &Child {
        self.child.as_ref().expect("runs until it is stopped")
    }

    fn await_first_event(&self) {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("nightjar-starts-{}-{number}", std::process::id());
        let deadline = Instant::now() + START;
        while !self.log.await_line(|line| line.text.contains(&name), MARKER_INTERVAL) {
            assert!(
                Instant::now() < deadline && !self.log.has_ended(),
                "no event came from the agent within {START:?}; it said: {}",
                locked(&self.stderr)
            );
            quiet(&[TRUE, &name]);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Events of the shared agent.
pub(crate) mod shared {
    use super::{Agent, Arc, Event, Expect, Log, SHARED_LOG, exec};

    fn log() -> &'static Arc<Log> {
        Agent::shared();
        SHARED_LOG.get().expect("set when it was started")
    }

    pub(crate) fn mark() -> usize {
        log().len()
    }

    pub(crate) fn expect(expect: &Expect, mark: usize) -> Event {
        log().expect(expect, mark)
    }

    /// All events of a process, after those that may still be under way have come.
    pub(crate) fn all_of(pid: u32, mark: usize) -> Vec<Event> {
        catch_up();
        log().events(mark, |line| line.head.pid == pid)
    }

    /// Waits until records of all that happened so far were read.
    pub(crate) fn catch_up() {
        log().catch_up(&exec());
    }

    /// All events of a kind so far.
    pub(crate) fn events_of(kind: &str) -> Vec<Event> {
        log().events(0, |line| line.head.kind == kind)
    }

    /// File events whose line has this text in it.
    pub(crate) fn file_events(text: &str, mark: usize) -> Vec<Event> {
        log().events_of("file.", text, mark)
    }

    /// Network events whose line has this text in it.
    pub(crate) fn network_events(text: &str, mark: usize) -> Vec<Event> {
        log().events_of("network.", text, mark)
    }

    /// How many network events whose line has one of these texts in it.
    pub(crate) fn count_network_events(texts: &[String], mark: usize) -> usize {
        let is_it = |line: &super::Line| {
            line.head.kind.starts_with("network.") && texts.iter().any(|text| line.text.contains(text))
        };
        log().count(mark, is_it).0
    }
}

// === impl Log ===

impl Log {
    fn read(&self, mut from: impl BufRead) {
        let mut text = String::new();
        while let Ok(1..) = from.read_line(&mut text) {
            let arrived = SystemTime::now();
            let Some(head) = Head::of(&text) else {
                locked(&self.lines).broken = Some(format!("not a whole event: {text:?}"));
                break;
            };
            let seen = &mut locked(&self.lines).seen;
            let number = seen.len();
            seen.push(Line { head, text: std::mem::take(&mut text), arrived, number });
            self.grew.notify_all();
        }
        locked(&self.lines).ended = true;
        self.grew.notify_all();
    }

    fn len(&self) -> usize {
        locked(&self.lines).seen.len()
    }

    fn has_ended(&self) -> bool {
        locked(&self.lines).ended
    }

    fn await_line(&self, fits: impl Fn(&Line) -> bool, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (mut lines, mut looked_at) = (locked(&self.lines), 0);
        loop {
            if lines.seen[looked_at..].iter().any(&fits) {
                return true;
            }
            looked_at = lines.seen.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.ended {
                return false;
            }
            lines = self.grew.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn expect(&self, expect: &Expect, mark: usize) -> Event {
        let deadline = Instant::now() + PATIENCE;
        let mut rejected = Vec::new();
        let (mut lines, mut looked_at) = (locked(&self.lines), mark);
        loop {
            for line in &lines.seen[looked_at..] {
                if line.head.kind != expect.kind || expect.pid.is_some_and(|pid| pid != line.head.pid) {
                    continue;
                }
                let event = line.event();
                let mismatches = expect.mismatches(&event);
                if mismatches.is_empty() {
                    return event;
                }
                rejected.push((event, mismatches));
            }
            looked_at = lines.seen.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.ended {
                let others = lines.seen[mark..].iter().filter(|line| expect.pid == Some(line.head.pid));
                let others: Vec<_> = others.map(|line| line.head.kind.clone()).collect();
                drop(lines);
                panic!("{}", failure(expect, &rejected, &others));
            }
            lines = self.grew.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn catch_up(&self, expect: &Expect) -> Event {
        let mark = self.len();
        // Records keep their order in the ring, so that what happened before this is written before it.
        let pid = quiet(&[TRUE, "nightjar-catches-up"]);
        self.expect(&expect.clone().of_process(pid), mark)
    }

    fn events(&self, mark: usize, wanted: impl Fn(&Line) -> bool) -> Vec<Event> {
        let lines = locked(&self.lines);
        lines.seen[mark..].iter().filter(|line| wanted(line)).map(Line::event).collect()
    }

    /// How many there are, without reading what is in them, which takes its time; and how many lines there are now.
    fn count(&self, mark: usize, wanted: impl Fn(&Line) -> bool) -> (usize, usize) {
        let seen = &locked(&self.lines).seen;
        (seen[mark..].iter().filter(|line| wanted(line)).count(), seen.len())
    }

    /// Of kinds that begin so, those whose line has this text in it.
    fn events_of(&self, kinds: &str, text: &str, mark: usize) -> Vec<Event> {
        self.events(mark, |line| line.head.kind.starts_with(kinds) && line.text.contains(text))
    }
}

fn failure(expect: &Expect, rejected: &[(Event, Vec<String>)], others: &[String]) -> String {
    use std::fmt::Write;
    const SHOWN: usize = 3;
    let mut text = format!("no such event within {PATIENCE:?}: {expect}");
    if let Some(pid) = expect.pid {
        let _infallible = write!(text, "\nprocess {pid} had: {}", others.join(", "));
    }
    for (event, mismatches) in rejected.iter().rev().take(SHOWN) {
        let _infallible =
            write!(text, "\nnot this one: {}\n{}", mismatches.join("; "), shortened(&event.to_string()));
    }
    if rejected.len() > SHOWN {
        let _infallible = write!(text, "\nnor {} others", rejected.len() - SHOWN);
    }
    text
}

impl Line {
    fn event(&self) -> Event {
        Event::parse(&self.text, self.arrived, self.number)
    }
}

// === impl Summary ===

impl Summary {
    /// The line that tells how it went.
    #[must_use]
    pub fn line(&self) -> &str {
        let mut lines = self.stderr.lines().rev();
        lines.find(|line| line.contains("records received")).unwrap_or_else(|| panic!("no summary: {self:?}"))
    }

    /// The agent ended well, saw all, and had nothing to complain of.
    pub fn expect_nothing_lost(&self) {
        assert!(self.status.success(), "{self:?}");
        assert!(self.line().ends_with("; nothing lost"), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "more than a summary: {self:?}");
    }
}
