//! `cargo xtask run --with-backend`

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};

use crate::{
    build::{self, Programs},
    run::as_root,
    workspace::{Workspace, command_line, is_root, say},
};

/// Where the backend listens.
const ADDRESS: &str = "127.0.0.1:4317";
/// How long the backend may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Builds both programs, starts a backend with a data directory below `target/`, enrols an agent at it, and runs both
/// until one ends, as by Ctrl-C.
///
/// # Errors
///
/// When the build fails, or one of them does not start.
pub fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let Programs { agent, backend } = build::both(workspace)?;
    let directory = workspace.target_dir.join("with-backend");
    let (data, state) = (directory.join("backend"), directory.join("agent"));
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let of_backend = |words: &[&str]| {
        let mut command = Command::new(&backend);
        command.arg("--data").arg(&data).args(words);
        command
    };
    let mut serving = start(of_backend(&["serve", "--listen", ADDRESS]), "the backend")?;
    wait_for(&mut serving, || of_backend(&["status"]))?;

    let url = format!("https://{ADDRESS}");
    let of_agent = |words: &[&str]| {
        let mut command = as_root(&agent);
        command.args(words).arg("--backend").arg(&url).arg("--state").arg(&state);
        command
    };
    if !is_enrolled(&state) {
        let token = output(&mut of_backend(&["token"]))?;
        let mut enrol = of_agent(&["enrol"]);
        enrol.arg(token.trim());
        if !enrol.status().context("the agent does not start")?.success() {
            bail!("the agent could not be enrolled; remove {} and try again", directory.display());
        }
    }
    let mut watching = start(of_agent(&["run", "--instance", "with-backend"]), "the agent")?;
    let shown = |command: &Command| command_line(command);
    let status = as_root(&agent);
    say(format_args!("agent and backend run; Ctrl-C ends both. From another terminal:"));
    say(format_args!("  {}  # events of all agents", shown(&of_backend(&["events", "--follow"]))));
    say(format_args!("  {}  # who reports, and how late", shown(&of_backend(&["agents"]))));
    say(format_args!("  {} status --instance with-backend  # how the agent does", shown(&status)));

    // Ctrl-C tells both by the terminal; else whichever ends first takes the other with it.
    loop {
        for (program, what) in [(&mut serving, "backend"), (&mut watching, "agent")] {
            if let Some(status) = program.0.try_wait()? {
                say(format_args!("the {what} has ended ({status})"));
                return Ok(());
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A program that is told to end when this is dropped.
struct Running(Child);

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        let told = rustix::process::kill_process(Pid::from_child(&self.0), Signal::TERM);
        if told.is_ok() {
            let _ended = self.0.wait();
        }
    }
}

fn start(mut command: Command, what: &str) -> anyhow::Result<Running> {
    let line = command_line(&command);
    say(format_args!("{line}"));
    let child = command.stdin(Stdio::null()).spawn();
    child.map(Running).with_context(|| format!("{what} does not start: `{line}`"))
}

fn wait_for(serving: &mut Running, ask: impl Fn() -> Command) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = serving.0.try_wait()? {
            bail!("the backend does not start ({status}); is another one running on {ADDRESS}?");
        }
        let answer = ask().stdout(Stdio::null()).stderr(Stdio::null()).status();
        if answer.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the backend does not answer after {} s", PATIENCE.as_secs())
}

/// What a command prints first.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = command_line(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{line}` does not start"))?;
    let mut text = String::new();
    let out = child.stdout.take().context("its output is a pipe")?;
    BufReader::new(out).read_line(&mut text)?;
    if !child.wait()?.success() {
        bail!("`{line}` failed");
    }
    Ok(text)
}

/// Whether there is an identity; only root may look.
fn is_enrolled(state: &Path) -> bool {
    let certificate = state.join("identity/agent.pem");
    if is_root() {
        return certificate.exists();
    }
    as_root(Path::new("test")).arg("-e").arg(certificate).status().is_ok_and(|status| status.success())
}
