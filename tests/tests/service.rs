//! The agent as a service of its host: one of a name, with few rights, on speaking terms with systemd.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nightjar_tests::{
    Service, ServiceEnd, Session, TRUE, copy_of, expect_events, folder_for_all, instance, nightjar,
    nightjar_path, programs_of, quiet, skip, skip_without_kernel, socket_of, status_of, until, workload_path,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What is promised of an end by SIGTERM, and what a machine that does many other things may add.
const LONGEST_STOP: Duration = Duration::from_secs(5 + 5);
/// Capabilities by their numbers in the kernel.
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const NOBODY: &str = "65534";
/// Kinds that take a second to load, for tests of which the kinds make no difference.
const PROCESSES: &[&str] = &["--kind", "process.*"];

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn expect_unloaded(programs: &BTreeSet<u32>) {
    let loaded = || -> BTreeSet<u32> {
        aya::programs::loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect()
    };
    until("the kernel lets go of the programs", || programs.is_disjoint(&loaded()).then_some(()));
}

/// What a start says that does not come about.
fn refused(args: &[&str]) -> String {
    let output = Session::start(nightjar(args)).finish();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

// ---- one of a name

#[test]
fn a_second_agent_of_a_name_says_which_is_the_first() {
    skip_without_kernel!();
    let first = Service::start(PROCESSES);
    let programs = programs_of(first.pid());
    let text = refused(&["run", "--instance", first.instance()]);
    for word in [
        &format!("instance {} runs already", first.instance()),
        &format!("process {} ({})", first.pid(), nightjar_path().display()),
        ", since 2",
        "systemctl stop nightjar",
        &format!("kill {}", first.pid()),
        "--instance NAME",
    ] {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    // It does no harm to the first.
    assert_eq!(programs_of(first.pid()), programs);
    assert_eq!(first.status()["pid"], first.pid());
    first.end_well(Signal::TERM);
}

#[test]
fn an_agent_that_is_killed_leaves_its_name_to_the_next() {
    skip_without_kernel!();
    let first = Service::start(PROCESSES);
    let (name, programs) = (first.instance().to_owned(), programs_of(first.pid()));
    assert!(!programs.is_empty());
    let end = first.end(Signal::KILL);
    assert!(!end.output.status.success());
    expect_unloaded(&programs);
    // Its socket is still there, and nobody answers.
    assert!(socket_of(&name).exists());
    let output = Session::start(nightjar(["status", "--instance", &name])).finish();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no agent answers"), "{output:?}");

    let second = Service::of(nightjar([&["run", "--instance", &name], PROCESSES].concat()), &name);
    assert_eq!(second.status()["pid"], second.pid());
    second.end_well(Signal::TERM);
    assert!(!socket_of(&name).exists(), "it takes its socket with it");
}

#[test]
fn two_agents_run_side_by_side_on_purpose() {
    skip_without_kernel!();
    let (one, two) = (Service::start(PROCESSES), Service::start(PROCESSES));
    assert!(programs_of(one.pid()).is_disjoint(&programs_of(two.pid())));
    let seen = |agent: &Service| status_of(agent.instance())["flow"]["received"].as_u64().unwrap_or(0);
    for agent in [&one, &two] {
        let before = seen(agent);
        until("both see what happens", || {
            quiet(&[TRUE]);
            (seen(agent) > before).then_some(())
        });
    }
    let programs = programs_of(one.pid());
    one.end_well(Signal::TERM);
    expect_unloaded(&programs);
    let before = seen(&two);
    until("the other goes on", || {
        quiet(&[TRUE]);
        (seen(&two) > before).then_some(())
    });
    two.end_well(Signal::TERM);
}

// ---- the end

/// Programs that are run one after another for as long as what this gives is there, and for half a minute at most.
fn load() -> Session {
    let mut command = Command::new(workload_path());
    command.args(["spawn-many", "20000", TRUE, "nightjar-load"]).stdin(Stdio::null());
    Session::start(command)
}

#[test]
fn it_ends_well_and_in_time_under_load() {
    skip_without_kernel!();
    let name = instance();
    // So small that all in it is written in time by an agent that is built for tests.
    let command = nightjar(["run", "--json", "-", "--instance", &name, "--ring-size", "1MiB"]);
    let agent = Service::of(command, &name);
    let load = load();
    agent.await_output("events come", |text| text.matches("nightjar-load").count() > 500);
    let end = agent.end_well(Signal::TERM);
    drop(load);
    assert!(end.took < LONGEST_STOP, "{:?}", end.took);
    let text = String::from_utf8(end.output.stdout).unwrap();
    assert!(text.ends_with("}\n"), "the last line is not whole");
    // All have the same form; these are of the beginning and of the end.
    let lines: Vec<&str> = text.lines().collect();
    for part in [&lines[..100], &lines[lines.len() - 100..]] {
        expect_events(&part.join("\n"));
    }
    assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

/// An agent of whose output nobody reads anything any more, with more to write than there is room for.
fn with_an_output_that_takes_nothing() -> Service {
    let name = instance();
    let mut command = nightjar(["run", "--json", "-", "--instance", &name]);
    // Long enough that none is missed on a machine that is busy.
    command.env("WATCHDOG_USEC", "4000000");
    let agent = Service::unread(command, &name);
    let long = "x".repeat(4000);
    until("the agent waits for who reads its events", || {
        quiet(&[TRUE, &long]);
        let output = Session::start(nightjar(["status", "--instance", &name])).finish();
        String::from_utf8_lossy(&output.stderr).contains("takes nothing").then_some(())
    });
    agent
}

#[test]
fn an_output_that_takes_nothing_does_not_keep_it_from_ending() {
    skip_without_kernel!();
    let agent = with_an_output_that_takes_nothing();
    let programs = programs_of(agent.pid());
    let ServiceEnd { output, took } = agent.end(Signal::TERM);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(took < LONGEST_STOP, "{took:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("what was under way is lost"), "{text}");
    expect_unloaded(&programs);
}

#[test]
fn whoever_interrupts_twice_does_not_want_to_wait() {
    skip_without_kernel!();
    let agent = with_an_output_that_takes_nothing();
    agent.signal(Signal::INT);
    agent.await_message("STOPPING=1\n");
    let ServiceEnd { output, .. } = agent.end(Signal::INT);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("interrupted twice: what was under way is lost"), "{text}");
}

// ---- systemd

#[test]
fn the_service_manager_is_told_of_start_reload_and_end() {
    skip_without_kernel!();
    let agent = Service::start(&["--json", "/dev/null"]);
    // It watches by the time that it says so.
    assert!(!programs_of(agent.pid()).is_empty());
    assert_eq!(agent.status()["pid"], agent.pid());
    assert_eq!(agent.messages(), [""; 0], "one word is enough");

    let now = || {
        let text = fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
        seconds
    };
    for _ in 0..2 {
        let before = now();
        agent.signal(Signal::HUP);
        let reloading = agent.message();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        let said = micros.trim_end().parse::<f64>().unwrap() / 1e6;
        // Uptime is told in hundredths.
        assert!((before - 0.02..=now() + 0.02).contains(&said), "{reloading}");
        let ready = agent.message();
        assert_eq!(ready, "READY=1\nSTATUS=watching; events go to /dev/null\n");
    }
    assert_eq!(agent.status()["configuration"]["reloads"], 2);
    agent.signal(Signal::TERM);
    let stopping = agent.message();
    assert!(stopping.starts_with("STOPPING=1\nSTATUS="), "{stopping}");
    assert!(agent.ends());
}

#[test]
fn a_configuration_that_is_refused_ends_its_reload_all_the_same() {
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nightjar.yaml");
    fs::write(&file, "").unwrap();
    let name = instance();
    let mut command = nightjar(["run", "--instance", &name]);
    command.arg("--config").arg(&file);
    let agent = Service::of(command, &name);
    fs::write(&file, "kinds: [nonsense]\n").unwrap();
    agent.signal(Signal::HUP);
    assert!(agent.message().starts_with("RELOADING=1\n"));
    assert!(agent.message().starts_with("READY=1\n"));
    agent.await_complaint("what is wrong", |text| text.contains("is refused") && text.contains("nonsense"));
    assert!(agent.status()["configuration"]["refused"].as_str().unwrap().contains("nonsense"));
    agent.end_well(Signal::TERM);
}

#[test]
fn the_watchdog_is_fed_as_long_as_events_are_handed_over() {
    skip_without_kernel!();
    let name = instance();
    let mut command = nightjar(["run", "--instance", &name]);
    command.env("WATCHDOG_USEC", "2000000");
    let agent = Service::of(command, &name);
    for _ in 0..3 {
        assert_eq!(agent.message(), "WATCHDOG=1\n");
    }
    agent.signal(Signal::TERM);
    agent.await_message("STOPPING=1\n");
    assert!(agent.ends());
}

#[test]
fn the_watchdog_is_not_fed_by_an_agent_that_hands_nothing_over() {
    const COMPLAINT: &str = "the watchdog is not told otherwise";
    skip_without_kernel!();
    let agent = with_an_output_that_takes_nothing();
    let complaints = |text: &str| text.matches(COMPLAINT).count();
    // What was said until it noticed does not count.
    agent.await_complaint("it notices", |text| complaints(text) > 0);
    let _before = agent.messages();
    let so_far = complaints(&agent.complaints());
    agent.await_complaint("it notices again", |text| complaints(text) >= so_far + 2);
    assert_eq!(agent.messages(), [""; 0]);

    agent.read_on();
    agent.await_message("WATCHDOG=1\n");
    agent.end_well(Signal::TERM);
}

#[test]
fn the_unit_is_one_that_systemd_understands() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/nightjar.service");
    let text = fs::read_to_string(unit).unwrap();
    let start = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words, ["ExecStart=/usr/bin/nightjar", "run"]);
    if !is_installed("systemd-analyze") {
        return skip("systemd-analyze is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("nightjar.service");
    let path = nightjar_path();
    fs::write(&copy, text.replace("/usr/bin/nightjar", path.to_str().unwrap())).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&copy).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Other units of the host are read along.
    let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("nightjar")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(output.status.success(), "{output:?}");
}

// ---- rights

/// Values of `/proc/PID/task/*/status`, one of each thread.
fn of_threads(pid: u32, field: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |thread: PathBuf| fs::read_to_string(thread.join("status")).ok();
    let texts = threads.filter_map(|thread| status(thread.unwrap().path()));
    let value = |text: String| {
        let line = text.lines().find(|line| line.starts_with(&format!("{field}:"))).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    texts.map(value).collect()
}

fn expect_of_threads(pid: u32, field: &str, value: &str) {
    assert_eq!(of_threads(pid, field), BTreeSet::from([value.to_owned()]), "{field}");
}

/// All of its threads have these capabilities and can get no others.
fn expect_capabilities(pid: u32, set: u64) {
    let (set, none) = (format!("{set:016x}"), format!("{:016x}", 0));
    for (field, value) in
        [("CapEff", &set), ("CapPrm", &set), ("CapInh", &none), ("CapAmb", &none), ("CapBnd", &none)]
    {
        expect_of_threads(pid, field, value);
    }
    expect_of_threads(pid, "NoNewPrivs", "1");
}

#[test]
fn it_gives_up_all_rights_but_four() {
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.json");
    let agent = Service::start(&["--json", file.to_str().unwrap()]);
    // Asked, so that the threads that answer are there as well.
    let status = agent.status();
    assert_eq!(status["resources"]["capabilities"].as_array().unwrap().len(), 4, "{status}");
    assert!(fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap().count() > 2);
    expect_capabilities(agent.pid(), BPF | PERFMON | SYS_PTRACE | DAC_READ_SEARCH);
    // With what is left sensors are still attached and detached.
    let end = agent.end_well(Signal::TERM);
    assert!(!end.complaints().contains("WARN"), "{}", end.complaints());
}

#[test]
fn sensors_are_attached_without_the_rights_that_were_given_up() {
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nightjar.yaml");
    fs::write(&file, "kinds: [process.exec]\n").unwrap();
    let name = instance();
    let mut command = nightjar(["run", "--instance", &name]);
    command.arg("--config").arg(&file);
    let agent = Service::of(command, &name);
    let reload = |kinds: &str| {
        fs::write(&file, format!("kinds: [{kinds}]\n")).unwrap();
        agent.signal(Signal::HUP);
        agent.await_message("READY=1\n");
        agent.status()
    };
    let served = |status: &Value, name: &str| {
        let sensors = status["sensors"].as_array().unwrap();
        sensors.iter().any(|sensor| sensor["name"] == name && sensor.get("hook").is_some())
    };
    assert!(!served(&agent.status(), "process.credentials"));
    let status = reload("process.exec, process.credentials");
    assert!(served(&status, "process.credentials"), "{status}");
    // What is not wanted any more goes on unheard.
    let status = reload("process.exec");
    assert_eq!(status["configuration"].get("refused"), None, "{status}");
    assert_eq!(status["configuration"]["reloads"], 2, "{status}");
    let programs = programs_of(agent.pid());

    // What cannot be had any more is refused with the reason, and all goes on.
    let status = reload("process.exec, process.exec_failed");
    if !served(&status, "process.exec_failed") {
        let refused = status["configuration"]["refused"].as_str().unwrap();
        assert!(refused.contains("process.exec_failed") && refused.contains("tracefs"), "{refused}");
        assert_eq!(programs_of(agent.pid()), programs);
    }
    agent.end_well(Signal::TERM);
}

#[test]
fn it_keeps_its_rights_where_it_is_told_to() {
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nightjar.yaml");
    fs::write(&file, "privileges: {drop: false}\n").unwrap();
    let name = instance();
    let mut command = nightjar(["run", "--instance", &name]);
    command.arg("--config").arg(&file);
    let agent = Service::of(command, &name);
    for field in ["CapEff", "CapPrm", "CapBnd", "NoNewPrivs"] {
        assert_eq!(of_threads(agent.pid(), field), of_threads(std::process::id(), field), "{field}");
    }
    agent.end_well(Signal::TERM);
}

/// A start by somebody else than root, with these capabilities, in a mount namespace where `/run/nightjar` is that
/// user's, as with `RuntimeDirectory=`; there is no tracefs.
struct Ordinary {
    name: String,
    folder: TempDir,
}

impl Ordinary {
    /// None where that cannot be arranged here.
    fn new() -> Option<Self> {
        let missing = ["unshare", "setpriv"].into_iter().find(|program| !is_installed(program));
        if let Some(missing) = missing {
            skip(&format!("{missing} is not installed"));
            return None;
        }
        Some(Self { name: instance(), folder: folder_for_all() })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn command(&self, capabilities: &[&str]) -> Command {
        const SCRIPT: &str = "
            mkdir -p /run/nightjar && mount -t tmpfs -o uid=65534,gid=65534,mode=755 tmpfs /run/nightjar || exit 99
            umount -a -t tracefs,debugfs 2>/dev/null
            exec \"$@\"";
        let program = self.folder.path().join("nightjar");
        if !program.exists() {
            let _copy = copy_of(nightjar_path(), &program, 0o755);
            std::os::unix::fs::chown(self.folder.path(), Some(65534), Some(65534)).unwrap();
        }
        let set = ["-all"].iter().chain(capabilities).copied().collect::<Vec<_>>().join(",+");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh", "setpriv", "--pdeathsig", "KILL"]);
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        for option in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.arg(format!("{option}={set}"));
        }
        command
            .arg(program)
            .args(["run", "--json", "-", "--instance", &self.name, "--socket"])
            .arg(self.socket());
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn start(&self, capabilities: &[&str]) -> Service {
        Service::of(self.command(capabilities), &self.name)
    }

    fn status(&self) -> Value {
        let mut command = nightjar(["status", "-o", "json", "--socket"]);
        command.arg(self.socket());
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

/// The sensor of this name, in a status.
fn sensor<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["sensors"].as_array().unwrap().iter().find(|sensor| sensor["name"] == name).unwrap()
}

#[test]
fn an_ordinary_user_with_four_capabilities_is_enough() {
    skip_without_kernel!();
    let Some(user) = Ordinary::new() else { return };
    let agent = user.start(&["bpf", "perfmon", "sys_ptrace", "dac_read_search"]);
    expect_of_threads(agent.pid(), "Uid", "65534\t65534\t65534\t65534");
    expect_of_threads(
        agent.pid(),
        "CapEff",
        &format!("{:016x}", BPF | PERFMON | SYS_PTRACE | DAC_READ_SEARCH),
    );
    until("events of other users come", || {
        quiet(&[TRUE, "nightjar-of-root"]);
        agent.output().contains("nightjar-of-root").then_some(())
    });
    // Without sys_admin it cannot mount tracefs, and says what follows from that.
    let complaints = agent.complaints();
    for word in
        ["process.exec_failed is not watched", "no tracefs", "sys_admin is missing", "mount tracefs at"]
    {
        assert!(complaints.contains(word), "{word:?} is not in {complaints}");
    }
    for other in
        ["bpf is missing", "perfmon is missing", "sys_ptrace is missing", "dac_read_search is missing"]
    {
        assert!(!complaints.contains(other), "{complaints}");
    }
    let status = user.status();
    assert_eq!(sensor(&status, "process.exec_failed").get("hook"), None, "{status}");
    let refused = &sensor(&status, "process.exec_failed")["refused"][0]["reason"];
    assert!(refused.as_str().unwrap().contains("tracefs"), "{status}");
    assert!(sensor(&status, "process.credentials")["hook"].is_string(), "{status}");
    let end = agent.end_well(Signal::TERM);
    expect_events(std::str::from_utf8(&end.output.stdout).unwrap());
}

#[test]
fn capabilities_that_are_missing_are_told_with_what_is_lost() {
    skip_without_kernel!();
    let Some(user) = Ordinary::new() else { return };
    let agent = user.start(&["bpf", "perfmon"]);
    let complaints = agent.complaints();
    for word in [
        "sys_ptrace is missing: programs and working directories of processes that ran before",
        "dac_read_search is missing: files and folders of other users",
    ] {
        assert!(complaints.contains(word), "{word:?} is not in {complaints}");
    }
    assert_eq!(user.status()["resources"]["capabilities"], json!(["perfmon", "bpf"]));
    agent.end_well(Signal::TERM);
}

#[test]
fn without_the_right_to_load_programs_it_says_which_rights_it_needs() {
    skip_without_kernel!();
    let Some(user) = Ordinary::new() else { return };
    let cases: [(&[&str], &[&str]); 3] = [
        (&["bpf", "sys_ptrace"], &["perfmon is missing"]),
        (&["perfmon", "sys_ptrace"], &["bpf is missing"]),
        (&[], &["bpf is missing", "perfmon is missing"]),
    ];
    for (capabilities, words) in cases {
        let output = Session::start(user.command(capabilities)).finish();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{capabilities:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{capabilities:?}: {word:?} is not in {text}");
        }
        assert!(text.contains("root") && !text.contains("panicked"), "{capabilities:?}: {text}");
    }
}

#[test]
fn root_without_sys_admin_says_which_events_it_has_not() {
    skip_without_kernel!();
    if let Some(missing) = ["unshare", "setpriv"].into_iter().find(|program| !is_installed(program)) {
        return skip(&format!("{missing} is not installed"));
    }
    let name = instance();
    let mut command = Command::new("unshare");
    let script = "umount -a -t tracefs,debugfs 2>/dev/null; exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh", "setpriv", "--pdeathsig", "KILL"]);
    command.arg("--bounding-set=-sys_admin").arg(nightjar_path());
    command.args(["run", "--instance", &name]).stdin(Stdio::null());
    let agent = Service::of(command, &name);
    let status = agent.status();
    assert_eq!(sensor(&status, "process.exec_failed").get("hook"), None, "{status}");
    assert!(sensor(&status, "process.exec")["hook"].is_string(), "{status}");
    let complaints = agent.complaints();
    assert!(complaints.contains("process.exec_failed is not watched"), "{complaints}");
    assert!(complaints.contains("sys_admin is missing"), "{complaints}");
    // Not all is well, which status says in words and by its exit code.
    let output = Session::start(nightjar(["status", "--instance", &name])).finish();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("process.exec_failed"), "{output:?}");
    agent.end_well(Signal::TERM);
}
