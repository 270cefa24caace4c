//! Runs `nightjar-backend`.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub struct Backend {
    child: Child,
    pub address: SocketAddr,
    dir: PathBuf,
}

/// A port that nobody has.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Runs a subcommand to its end.
pub fn run(dir: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_nightjar-backend");
    Command::new(program).arg("--data").arg(dir).args(arguments).output().unwrap()
}

/// Starts a subcommand, whose output is read later.
pub fn spawn(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightjar-backend"));
    command.arg("--data").arg(dir).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Runs a subcommand that must fail, and gives why it did.
pub fn complaint(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// Runs a subcommand that must succeed, and gives what it printed.
pub fn printed(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Backend {
    /// Starts it and waits until it listens.
    pub fn start(dir: &Path, address: SocketAddr, arguments: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_nightjar-backend");
        let mut command = Command::new(program);
        command.arg("--data").arg(dir).args(["serve", "--listen", &address.to_string()]).args(arguments);
        let child = command.env("NIGHTJAR_LOG", "error").spawn().unwrap();
        let backend = Self { child, address, dir: dir.to_owned() };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < Duration::from_mins(1), "the backend does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        backend
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must end well.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// Most memory that was resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }

    /// A number of `status`.
    pub fn number(&self, part: &str, name: &str) -> u64 {
        let status: serde_json::Value =
            serde_json::from_str(&printed(&self.dir, &["status", "--json"])).unwrap();
        status[part][name].as_u64().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}
