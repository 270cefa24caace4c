//! A program that goes on while a test looks at what it says.

use std::{
    io::Read,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use crate::os::{self, PseudoTerminal};

/// How long a program may take for what is done at once, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what is not told by itself.
const LOOK: Duration = Duration::from_millis(50);

/// A program that runs; what it says is read as it comes. Dropped, it is killed.
#[derive(Debug)]
pub struct Session {
    child: Child,
    output: Said,
    complaints: Said,
}

/// What was said so far.
#[derive(Debug)]
struct Said {
    state: Arc<(Mutex<State>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
    /// Nobody reads until this is taken away.
    held: bool,
}

/// Looks again and again until there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(LOOK);
    }
}

// === impl Session ===

impl Session {
    /// Starts a program whose standard output is a pipe.
    #[must_use]
    pub fn start(command: Command) -> Self {
        Self::piped(command, false)
    }

    /// Starts a program whose standard output is a pipe that nobody reads for now.
    #[must_use]
    pub fn start_unread(command: Command) -> Self {
        Self::piped(command, true)
    }

    fn piped(mut command: Command, held: bool) -> Self {
        let mut child = spawn(command.stdout(Stdio::piped()));
        let output = Said::read(child.stdout.take().expect("piped"), held);
        Self::new(child, output)
    }

    /// Starts a program whose standard output is a terminal.
    #[must_use]
    pub fn on_terminal(mut command: Command, terminal: PseudoTerminal) -> Self {
        let PseudoTerminal { reader, terminal } = terminal;
        let child = spawn(command.stdout(terminal));
        // Else this side of the terminal stays open for writing.
        drop(command);
        Self::new(child, Said::read(reader, false))
    }

    fn new(mut child: Child, output: Said) -> Self {
        let complaints = Said::read(child.stderr.take().expect("piped"), false);
        Self { child, output, complaints }
    }

    /// Process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, where the command has it piped.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("piped, and not taken before")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(os::pid_of(&self.child), signal).expect("our own child");
    }

    /// Its standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Its standard error so far.
    #[must_use]
    pub fn complaints(&self) -> String {
        self.complaints.text()
    }

    /// Waits until its standard output is such.
    pub fn await_output(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let said = self.output.wait(fits);
        said.unwrap_or_else(|text| panic!("{what}: not in {text:?}; it complained: {}", self.complaints()))
    }

    /// Waits until its standard error is such.
    pub fn await_complaint(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        self.complaints.wait(fits).unwrap_or_else(|text| panic!("{what}: not in {text:?}"))
    }

    /// Reads what was not read so far.
    pub fn read_on(&self) {
        self.output.read_on();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        os::await_exit(&self.child, Instant::now())
    }

    /// Waits for its end; nobody reads what was not read so far. Whether it came in time.
    #[must_use]
    pub fn ends(&self) -> bool {
        os::await_exit(&self.child, Instant::now() + PATIENCE)
    }

    /// Waits for its end.
    #[must_use]
    pub fn finish(mut self) -> Output {
        drop(self.child.stdin.take());
        self.read_on();
        let in_time = self.ends();
        assert!(in_time, "it did not end within {PATIENCE:?}; it complained: {}", self.complaints());
        let status = self.child.wait().expect("our own child");
        Output { status, stdout: self.output.all(), stderr: self.complaints.all() }
    }

    /// Ends it by Ctrl-C.
    #[must_use]
    pub fn interrupt(self) -> Output {
        self.signal(Signal::INT);
        self.finish()
    }
}

fn spawn(command: &mut Command) -> Child {
    let child = command.stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

impl Drop for Session {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        self.read_on();
    }
}

// === impl Said ===

impl Said {
    fn read(mut from: impl Read + Send + 'static, held: bool) -> Self {
        let state = Arc::new((Mutex::new(State { held, ..State::default() }), Condvar::new()));
        let to = Arc::clone(&state);
        let reader = thread::spawn(move || {
            let (lock, changed) = &*to;
            drop(changed.wait_while(locked(lock), |state| state.held));
            let mut buffer = vec![0; 1 << 16];
            // A terminal that nobody writes to any more ends in an error.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                locked(lock).bytes.extend_from_slice(&buffer[..length]);
                changed.notify_all();
            }
            locked(lock).ended = true;
            changed.notify_all();
        });
        Self { state, reader: Some(reader) }
    }

    fn read_on(&self) {
        let (lock, changed) = &*self.state;
        locked(lock).held = false;
        changed.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&locked(&self.state.0).bytes).into_owned()
    }

    fn wait(&self, fits: impl Fn(&str) -> bool) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        let (lock, changed) = &*self.state;
        let (mut state, mut looked_at) = (locked(lock), None);
        loop {
            if looked_at.replace(state.bytes.len()) != Some(state.bytes.len()) {
                let text = String::from_utf8_lossy(&state.bytes).into_owned();
                if fits(&text) {
                    return Ok(text);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                return Err(String::from_utf8_lossy(&state.bytes).into_owned());
            }
            state = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn all(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("readers do not fail");
        }
        std::mem::take(&mut locked(&self.state.0).bytes)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Bytes so far: whole at any time.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
