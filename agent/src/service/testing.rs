//! Tests that need another process: the test binary, run once more with one test that is ignored else.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::geteuid;

/// Another process, which ends when this is dropped.
pub(super) struct Other {
    pub(super) child: Child,
    output: BufReader<ChildStdout>,
}

/// A command that runs the ignored test `name` of the module `module`, by way of the programs of `through`.
pub(super) fn other(through: &[&str], module: &str, name: &str) -> Command {
    let (_crate, module) = module.split_once("::").expect("tests are in a module");
    let program = env::current_exe().expect("a process has a program");
    let mut words = through.iter().map(Into::into).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().expect("at least the program"));
    command.args(words).arg(format!("{module}::{name}"));
    command.args(["--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// What a command prints after `says: `, all of it.
pub(super) fn said(command: &mut Command) -> Vec<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().filter_map(saying).collect()
}

/// Says a line to the test that runs this process.
pub(super) fn say(text: &str) {
    writeln!(io::stdout(), "says: {text}").expect("the test reads");
}

fn saying(line: &str) -> Option<String> {
    line.split_once("says: ").map(|(_, text)| text.to_owned())
}

/// Whether this test can be root. Where it cannot it is skipped with a word, and fails where `CI=true`.
pub(super) fn is_root() -> bool {
    geteuid().is_root() || skip("it needs root")
}

/// Says that a test is skipped.
pub(super) fn skip(reason: &str) -> bool {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(env::var("CI").as_deref() != Ok("true"), "{name} cannot be skipped where CI=true: {reason}");
    let _no_reader = writeln!(io::stderr(), "skipped {name}: {reason}");
    false
}

impl Other {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, output }
    }

    /// The next that it says.
    pub(super) fn next(&mut self) -> String {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some(text) = saying(line.trim_end()) {
                return text;
            }
            line.clear();
        }
        panic!("the other process ended and said nothing");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Its standard input ends: what is below a program such as `unshare` ends with it.
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}
