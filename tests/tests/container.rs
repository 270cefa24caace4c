//! A real container: docker's own word against the event's.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    env, fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nightjar_tests::{
    Agent, Event, await_exit, copy_of, exec, exit, free_address, remove_cgroup, skip, skip_without_kernel,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// A docker daemon of our own, that shares nothing with one that may run already.
struct Docker {
    daemon: Child,
    folder: TempDir,
    /// Cgroups that it makes and leaves.
    cgroups: Vec<PathBuf>,
}

impl Docker {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("nightjar-docker-").tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let log = fs::File::create(path("log")).unwrap();
        let cgroups = docker_cgroups().filter(|path| !path.exists()).collect();
        // Not that of the host.
        fs::write(path("config"), "{}").unwrap();
        let daemon = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--host", &format!("unix://{}", path("socket")), "--config-file", &path("config")])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut docker = Self { daemon, folder, cgroups };
        docker.await_socket();
        docker
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn await_socket(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let step = Duration::from_millis(50);
        while UnixStream::connect(self.path("socket")).is_err() {
            let ended = await_exit(&self.daemon, Instant::now() + step);
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(!ended && Instant::now() < deadline, "dockerd did not start: {}", log());
        }
    }

    fn run(&self, args: &[&str]) -> String {
        let host = format!("unix://{}", self.path("socket").display());
        let output: Output = Command::new("docker").args(["--host", &host]).args(args).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docker {args:?}: {stdout}{stderr}");
        stdout.trim().to_owned()
    }

    /// An image with one program in it, and what that needs.
    fn import(&self, program: &str) {
        let root = self.path("root");
        let needs = String::from_utf8(Command::new("ldd").arg(program).output().unwrap().stdout).unwrap();
        let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain([program]) {
            let to = root.join(file.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let _copy = copy_of(fs::canonicalize(file).unwrap(), to, 0o755);
        }
        self.import_root(&root);
    }

    /// An image with nothing in it but some programs, at its root.
    fn import_alone(&self, programs: &[PathBuf]) {
        let root = self.path("root");
        fs::create_dir_all(&root).unwrap();
        for program in programs {
            let _copy = copy_of(program.clone(), root.join(program.file_name().unwrap()), 0o755);
        }
        self.import_root(&root);
    }

    fn import_root(&self, root: &Path) {
        let archive = self.path("image.tar");
        let packed =
            Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status().unwrap();
        assert!(packed.success());
        self.run(&["import", archive.to_str().unwrap(), "nightjar-test"]);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        if !await_exit(&self.daemon, Instant::now() + PATIENCE) {
            let _gone = self.daemon.kill();
        }
        let _reaped = self.daemon.wait();
        unmount_below(self.folder.path());
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
    }
}

/// What Docker makes for its containers, one in each hierarchy.
fn docker_cgroups() -> impl Iterator<Item = PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let hierarchy = |line: &str| {
        let mut parts = line.split(' ').skip(1);
        let place = parts.next()?;
        parts.next()?.starts_with("cgroup").then(|| Path::new(place).join("docker"))
    };
    mounts.lines().filter_map(hierarchy).collect::<Vec<_>>().into_iter()
}

/// So that the folder can be removed.
fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(place).starts_with(folder) {
            let _busy = Command::new("umount").arg("--lazy").arg(place).status();
        }
    }
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn a_process_in_a_docker_container_is_known_by_the_id_that_docker_gives() {
    skip_without_kernel!();
    if let Some(missing) = ["dockerd", "docker", "ldd", "tar"].into_iter().find(|name| !is_installed(name)) {
        return skip(&format!("{missing} is not installed"));
    }
    let docker = Docker::start();
    docker.import("/usr/bin/sleep");
    let agent = Agent::start(&["--kind", "process.*", "--ring-size", "64MiB"]);
    let mark = agent.mark();

    let id = docker.run(&[
        "run",
        "--detach",
        "--network=none",
        "--name=nightjar-test",
        "--user=1234:4321",
        "nightjar-test",
        "/usr/bin/sleep",
        "1000",
    ]);
    assert_eq!(id.len(), 64, "{id}");
    let pid: u32 = docker.run(&["inspect", "--format={{.State.Pid}}", "nightjar-test"]).parse().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(inside.split_whitespace().last(), Some("1"));
    let namespaces = |name: &str| fs::metadata(format!("/proc/{pid}/ns/{name}")).unwrap().ino();

    let expected = json!({"id": id, "runtime": "docker"});
    let event = agent.expect_event(
        &exec()
            .of_process(pid)
            .exe("/usr/bin/sleep")
            .args(&["/usr/bin/sleep", "1000"])
            .with("process.container", expected.clone())
            .with("process.ns_pid", 1)
            .with("process.uid", 1234)
            .with("process.gid", 4321)
            .with("process.cwd", "/"),
        mark,
    );
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"] {
        assert_eq!(event.number(&format!("process.namespaces.{name}")), namespaces(name), "{name}");
    }
    for name in ["ipc", "mnt", "net", "pid", "uts"] {
        let ours = fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino();
        assert_ne!(namespaces(name), ours, "{name}");
    }
    expect_cgroup_of(pid, &event);

    docker.run(&["exec", "nightjar-test", "/usr/bin/sleep", "0.125"]);
    agent.expect_event(
        &exec().args(&["/usr/bin/sleep", "0.125"]).with("process.container", expected.clone()),
        mark,
    );
    docker.run(&["rm", "--force", "nightjar-test"]);
    agent.expect_event(
        &exit().of_process(pid).with("exit.signal", "SIGKILL").with("process.container", expected),
        mark,
    );
    agent.stop().expect_nothing_lost();
}

/// The cgroup is one of those that the kernel lists.
fn expect_cgroup_of(pid: u32, event: &Event) {
    let path = event.text("process.cgroup.path");
    let listed = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(listed.lines().any(|line| line.splitn(3, ':').nth(2) == Some(path)), "{path}: {listed}");
}

/// The statically linked agent and backend.
fn static_programs() -> Option<[PathBuf; 2]> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/x86_64-unknown-linux-musl/debug");
    let folder = env::var_os("NIGHTJAR_DIST").map_or(built, PathBuf::from);
    let programs = ["nightjar", "nightjar-backend"].map(|name| folder.join(name));
    programs.iter().all(|program| program.is_file()).then_some(programs)
}

#[test]
fn the_static_programs_deliver_from_containers_with_nothing_else_in_them() {
    skip_without_kernel!();
    if let Some(missing) = ["dockerd", "docker", "tar"].into_iter().find(|name| !is_installed(name)) {
        return skip(&format!("{missing} is not installed"));
    }
    let Some(programs) = static_programs() else {
        return skip("there are no statically linked programs: cargo xtask dist builds them");
    };
    let docker = Docker::start();
    docker.import_alone(&programs);
    let (data, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = free_address();
    let configuration = format!(
        "backend: {{address: \"http://{address}\", plaintext: true}}\nstate: /state/agent\nkinds: [\"process.exec\"]\n"
    );
    let file = state.path().join("nightjar.yaml");
    fs::write(&file, configuration).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let volume = |folder: &Path, at: &str| format!("{}:{at}", folder.display());
    docker.run(
        &[
            "run",
            "--detach",
            "--rm",
            "--name",
            "backend",
            "--network=host",
            "--volume",
            &volume(data.path(), "/data"),
        ]
        .iter()
        .chain(&["nightjar-test", "/nightjar-backend", "--data", "/data", "serve", "--plaintext", "--listen"])
        .chain(&[address.to_string().as_str()])
        .copied()
        .collect::<Vec<_>>(),
    );
    docker.run(
        &["run", "--detach", "--rm", "--name", "agent", "--pid=host", "--network=host"]
            .iter()
            // What a privileged container has of it; not all hosts can give all that "privileged" is.
            .chain(&["--cap-add=SYS_PTRACE", "--cap-add=DAC_READ_SEARCH"])
            .chain(&["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined"])
            .chain(&["--volume", "/sys:/sys", "--volume", &volume(state.path(), "/state")])
            .chain(&[
                "nightjar-test",
                "/nightjar",
                "run",
                "--instance",
                "bare",
                "--config",
                "/state/nightjar.yaml",
            ])
            .copied()
            .collect::<Vec<_>>(),
    );
    let ask = ["exec", "backend", "/nightjar-backend", "--data", "/data", "events", "--kind", "process.exec"];
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let marked = Command::new("/usr/bin/true").arg("--from-a-bare-container").status().unwrap();
        assert!(marked.success());
        std::thread::sleep(Duration::from_secs(1));
        if docker.run(&ask).contains("/usr/bin/true --from-a-bare-container") {
            break;
        }
        assert!(Instant::now() < deadline, "nothing came: {}", docker.run(&["ps", "--all"]));
    }
    docker.run(&["kill", "--signal=TERM", "agent"]);
    docker.run(&["kill", "--signal=TERM", "backend"]);
}
