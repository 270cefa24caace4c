//! Programs that tests run, and the events that they cause.

use std::{
    env,
    ffi::OsStr,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    agent::shared,
    event::{Event, Expect},
    os::{self, Ended},
};

/// A program that does nothing.
pub const TRUE: &str = "/usr/bin/true";

/// A program to be run.
#[derive(Debug)]
#[must_use]
pub struct Run {
    command: Command,
    input: Vec<u8>,
}

/// A program that runs and waits on its standard input.
#[derive(Debug)]
pub struct Running {
    child: Child,
    mark: usize,
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Ran {
    /// Process ID that it had.
    pub pid: u32,
    /// How it ended.
    pub ended: Ended,
    /// What it printed.
    pub output: Vec<u8>,
    /// What it complained of.
    pub stderr: String,
    mark: usize,
}

/// A program to be run.
pub fn run(program: impl AsRef<OsStr>) -> Run {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Cargo sets it for tests, and it is one of the variables that are recorded.
    command.env_remove("LD_LIBRARY_PATH");
    Run { command, input: Vec::new() }
}

/// The helper program, with one of its subcommands and its arguments.
pub fn workload(words: &[&str]) -> Run {
    run(workload_path()).args(words)
}

/// Where the helper program is: Cargo puts it beside the folder of the test that runs.
#[must_use]
pub fn workload_path() -> PathBuf {
    helper("workload")
}

/// Where the program is that makes system calls on files in odd ways.
#[must_use]
pub fn rawfile_path() -> PathBuf {
    helper("rawfile")
}

/// Where the program is that makes calls on sockets in odd ways.
#[must_use]
pub fn rawnet_path() -> PathBuf {
    helper("rawnet")
}

/// Where the program is that delivers events that it makes up.
#[must_use]
pub fn feeder_path() -> PathBuf {
    helper("feeder")
}

fn helper(name: &str) -> PathBuf {
    let this = env::current_exe().expect("the path of this program");
    // A test is in target/debug/deps, a benchmark beside the helpers.
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not beside {}; Cargo builds it with the tests", this.display()))
}

/// Runs a program whose events nobody asks for; gives its process ID.
pub fn quiet(words: &[&str]) -> u32 {
    let [program, args @ ..] = words else { panic!("no program") };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let pid = child.id();
    assert!(child.wait().expect("our own child").success(), "{words:?} failed");
    pid
}

// === impl Run ===

impl Run {
    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// A name for the program that is not its path.
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.arg0(name);
        self
    }

    /// In this folder.
    pub fn in_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With these environment variables and no others, sorted by their names.
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> Self {
        self.command.env_clear().envs(variables);
        self
    }

    /// As another user and group.
    pub fn as_user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }

    /// With this on its standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Starts it. It goes on when its standard input is closed, if it reads that.
    #[must_use]
    pub fn start(mut self) -> Running {
        let mark = shared::mark();
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot run {self:?}: {error}"));
        if !self.input.is_empty() {
            child.stdin.as_mut().expect("piped").write_all(&self.input).expect("it reads its input");
        }
        Running { child, mark }
    }

    /// Runs it to its end.
    #[must_use]
    pub fn finish(self) -> Ran {
        self.start().finish()
    }

    /// Runs it to its end, which is a good one.
    #[must_use]
    pub fn succeed(self) -> Ran {
        self.start().succeed()
    }

    /// Runs it to its end; waits for an event of its process.
    pub fn expect_event(self, expect: Expect) -> Event {
        self.succeed().expect_event(expect)
    }
}

// === impl Running ===

impl Running {
    /// Process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event of its process.
    pub fn expect_event(&self, expect: Expect) -> Event {
        shared::expect(&of(expect, self.pid()), self.mark)
    }

    /// Lets it go on; waits for its end, which is a good one.
    #[must_use]
    pub fn succeed(self) -> Ran {
        let ran = self.finish();
        assert!(ran.ended.status.success(), "it failed: {}: {}", ran.ended.status, ran.stderr);
        ran
    }

    /// Lets it go on; waits for its end.
    #[must_use]
    pub fn finish(mut self) -> Ran {
        drop(self.child.stdin.take());
        let (mut output, mut stderr) = (Vec::new(), String::new());
        let mut complaints = self.child.stderr.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let _broken = complaints.read_to_string(&mut stderr);
            stderr
        });
        self.child.stdout.take().expect("piped").read_to_end(&mut output).expect("a pipe");
        let stderr = reader.join().expect("readers do not fail");
        let pid = self.child.id();
        Ran { pid, ended: os::wait4(pid), output, stderr, mark: self.mark }
    }
}

/// Of this process, if the test does not name another.
fn of(expect: Expect, pid: u32) -> Expect {
    let pid = expect.pid.unwrap_or(pid);
    expect.of_process(pid)
}

// === impl Ran ===

impl Ran {
    /// Waits for an event of its process.
    pub fn expect_event(&self, expect: Expect) -> Event {
        shared::expect(&of(expect, self.pid), self.mark)
    }

    /// Waits for an event of another process, since it was started.
    pub fn expect_event_of_another(&self, expect: &Expect) -> Event {
        shared::expect(expect, self.mark)
    }

    /// All events of its process.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events_of(self.pid)
    }

    /// All events of another process that it made.
    #[must_use]
    pub fn events_of(&self, pid: u32) -> Vec<Event> {
        shared::all_of(pid, self.mark)
    }

    /// There is no event of this kind of its process.
    pub fn expect_no(&self, expect: &Expect) {
        let found = self
            .events()
            .into_iter()
            .find(|event| event.kind() == expect.kind && expect.mismatches(event).is_empty());
        assert!(found.is_none(), "an event that should not be: {}", found.expect("there"));
    }

    /// What the helper program says of itself: an object of JSON in its last line.
    #[must_use]
    pub fn said(&self) -> Value {
        let text = String::from_utf8_lossy(&self.output);
        let line = text.lines().last().unwrap_or_else(|| panic!("it said nothing; stderr: {}", self.stderr));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// A number that the helper program said.
    #[must_use]
    pub fn number(&self, name: &str) -> u32 {
        let said = self.said();
        let number = said[name].as_u64().unwrap_or_else(|| panic!("no {name} in {said}"));
        u32::try_from(number).expect("a small number")
    }
}
