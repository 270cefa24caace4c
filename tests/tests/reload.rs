//! The configuration, read again while the agent runs.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nightjar_tests::{
    Agent, Event, Service, TRUE, copy_of, credentials, exec, expect_events, folder_for_all, instance,
    nightjar, quiet, skip_without_kernel, status_of, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
/// Large enough for whatever else goes on; not a setting, so that it stays whatever is read again.
const RING: [&str; 2] = ["--ring-size", "64MiB"];

fn reloads(instance: &str) -> u64 {
    status_of(instance)["configuration"]["reloads"].as_u64().unwrap_or(0)
}

/// Has another configuration read; it counts when this comes back.
fn reload(agent: &Agent, configuration: &str) {
    let before = reloads(agent.instance());
    agent.reload(configuration);
    until("it has read it", || {
        assert_eq!(refused(agent), None);
        (reloads(agent.instance()) > before).then_some(())
    });
}

/// Why the last configuration was refused.
fn refused(agent: &Agent) -> Option<String> {
    status_of(agent.instance())["configuration"]["refused"].as_str().map(str::to_owned)
}

fn pending(agent: &Agent) -> Value {
    status_of(agent.instance())["configuration"]["pending"].clone()
}

/// The event of a program that is run with these words.
fn exec_of(agent: &Agent, words: &[&str]) -> Event {
    let mark = agent.mark();
    let pid = quiet(&[&[TRUE], words].concat());
    agent.expect_event(&exec().of_process(pid), mark)
}

fn is_masked(argument: &str, secret: &str) -> bool {
    argument.contains("<redacted:") && !argument.contains(secret)
}

/// Runs a program to its end; gives its process ID.
fn run(command: &mut Command) -> u32 {
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    child.id()
}

/// A process that becomes another user before it runs a program.
fn change_user() -> u32 {
    run(Command::new(TRUE).uid(33).gid(33))
}

#[test]
fn kinds_come_and_go() {
    skip_without_kernel!();
    let agent = Agent::configured("kinds: [process.exec]\n", &RING);
    let before = change_user();
    reload(&agent, "kinds: [process.exec, process.credentials]\n");
    let mark = agent.mark();
    let during = change_user();
    let change = agent.expect_event(&credentials().of_process(during), mark);
    assert_eq!(change.number("process.uid"), 33);

    reload(&agent, "kinds: [process.exec]\n");
    let after = change_user();
    agent.catch_up();
    let changed: Vec<u64> =
        agent.events("process.credentials").iter().map(|event| event.number("process.pid")).collect();
    assert!(!changed.contains(&before.into()), "before it was asked for");
    assert!(!changed.contains(&after.into()), "when it was no more asked for");
    let kinds: Vec<String> = agent.kinds().into_iter().collect();
    assert_eq!(kinds, ["process.credentials", "process.exec"]);
    agent.stop().expect_nothing_lost();
}

#[test]
fn secrets_are_masked_or_not_as_was_said_last() {
    skip_without_kernel!();
    let secret = ["--password=hunter2"];
    let shown = |agent: &Agent| exec_of(agent, &secret).list("process.args")[1].to_owned();
    let agent = Agent::configured("kinds: [process.exec]\n", &RING);
    assert!(is_masked(&shown(&agent), "hunter2"));
    reload(&agent, "kinds: [process.exec]\nredact: {enabled: false}\n");
    assert_eq!(shown(&agent), secret[0]);
    reload(&agent, "kinds: [process.exec]\nredact: {flags: [--colour]}\n");
    assert!(is_masked(&shown(&agent), "hunter2"));
    assert!(is_masked(exec_of(&agent, &["--colour", "purple"]).list("process.args")[2], "purple"));
    agent.stop().expect_nothing_lost();
}

#[test]
fn filters_and_variables_are_those_that_were_said_last() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join("filtered"), 0o755);
    let pid_of_filtered = || run(Command::new(&program).env("NIGHTJAR_A", "1").env("NIGHTJAR_B", "2"));
    let event = |agent: &Agent, mark: usize, pid: u32| agent.expect_event(&exec().of_process(pid), mark);

    let agent = Agent::configured("kinds: [process.exec]\nenvironment: [NIGHTJAR_A]\n", &RING);
    let mark = agent.mark();
    assert_eq!(event(&agent, mark, pid_of_filtered()).list("exec.environment"), ["NIGHTJAR_A=1"]);

    let rule = format!("kinds: [process.exec]\nfilters:\n  - drop: {{exe: {}}}\n", program.display());
    reload(&agent, &rule);
    let dropped = pid_of_filtered();
    agent.catch_up();
    assert!(
        agent.events("process.exec").iter().all(|event| event.number("process.pid") != u64::from(dropped))
    );
    let discarded = &status_of(agent.instance())["flow"]["discarded"];
    let by_filter = discarded.as_array().unwrap().iter().find(|it| it["reason"] == "rule");
    assert!(by_filter.is_some_and(|it| it["count"].as_u64() > Some(0)), "{discarded}");

    reload(&agent, "kinds: [process.exec]\nenvironment: [NIGHTJAR_B]\n");
    let mark = agent.mark();
    assert_eq!(event(&agent, mark, pid_of_filtered()).list("exec.environment"), ["NIGHTJAR_B=2"]);
    agent.stop().expect_nothing_lost();
}

#[test]
fn no_event_is_lost_or_told_twice_while_it_reads() {
    skip_without_kernel!();
    let configurations = [
        "kinds: [process.exec, process.fork]\nredact: {enabled: false}\n",
        "kinds: [process.exec, process.exit]\nfilters: [{drop: {exe: /nonexistent}}]\n",
        "kinds: [process.exec, process.credentials]\nenvironment: [PATH]\nhistory: 0\n",
        "kinds: [process.exec]\nlog: error\n",
        "kinds: ['process.e*', '!process.exec_failed', process.credentials]\nkernel: {log: warn}\nlog: error\n",
    ];
    let agent = Agent::configured("kinds: [process.exec]\n", &RING);
    let (ran, enough) = (AtomicU32::new(0), AtomicU32::new(u32::MAX));
    thread::scope(|scope| {
        let runs = scope.spawn(|| {
            while ran.load(Ordering::Relaxed) < enough.load(Ordering::Relaxed) {
                let number = ran.fetch_add(1, Ordering::Relaxed);
                quiet(&[TRUE, &format!("gap-{number}")]);
            }
        });
        let all_read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for configuration in configurations {
                reload(&agent, configuration);
            }
        }));
        // Some more, when all is read; in any case an end.
        enough.store(ran.load(Ordering::Relaxed) + 20, Ordering::Relaxed);
        runs.join().unwrap();
        if let Err(failed) = all_read {
            std::panic::resume_unwind(failed);
        }
    });
    agent.catch_up();

    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    for event in agent.events("process.exec") {
        let number =
            event.list("process.args").get(1).and_then(|word| word.strip_prefix("gap-")?.parse().ok());
        if let Some(number) = number {
            *seen.entry(number).or_default() += 1;
        }
    }
    let ran = ran.into_inner();
    assert!(ran > 50, "there was not much to be seen: {ran}");
    assert!(seen.keys().copied().eq(0..ran), "not all of {ran}: {:?}", seen.keys());
    assert!(seen.values().all(|times| *times == 1), "some more than once: {seen:?}");
    agent.stop().expect_nothing_lost();
}

#[test]
fn what_is_wrong_is_refused_and_the_agent_goes_on_as_before() {
    skip_without_kernel!();
    let agent = Agent::configured("kinds: [process.exec]\n", &RING);
    let file = agent.configuration();
    agent.reload("kinds: [process.exec]\nredact: {enabled: maybe}\nhistroy: 1MiB\n");
    let why = until("it is refused", || refused(&agent));
    for words in [
        format!("{}:2:19: redact.enabled: found \"maybe\"; write true or false", file.display()),
        format!("{}:3:1: unknown setting \"histroy\"; did you mean \"history\"?", file.display()),
    ] {
        assert!(why.contains(&words), "{words} is not in {why}");
        let told = || agent.complaints().contains(&words).then_some(());
        until("it is told on standard error", told);
    }
    let output = nightjar(["status", "--instance", agent.instance()]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("the changed configuration was refused"));

    assert!(is_masked(exec_of(&agent, &["--password=hunter2"]).list("process.args")[1], "hunter2"));
    assert_eq!(reloads(agent.instance()), 0);

    fs::remove_file(&file).unwrap();
    agent.signal(Signal::HUP);
    until("that there is none is told", || {
        refused(&agent).filter(|why| why.contains("there is no such file"))
    });

    agent.reload("kinds: [process.exec]\nredact: {enabled: false}\n");
    until("a good one clears it", || {
        (refused(&agent).is_none() && reloads(agent.instance()) == 1).then_some(())
    });
    assert_eq!(exec_of(&agent, &["--password=hunter2"]).list("process.args")[1], "--password=hunter2");
    let output = nightjar(["status", "--instance", agent.instance()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let summary = agent.stop();
    assert!(summary.status.success() && summary.line().ends_with("; nothing lost"), "{summary:?}");
}

#[test]
fn a_setting_that_needs_a_restart_is_named_until_there_is_one() {
    skip_without_kernel!();
    let agent = Agent::configured("kinds: [process.exec]\nkernel: {ring_size: 16MiB}\n", &[]);
    let other = "kinds: [process.exec]\nkernel: {ring_size: 8MiB}\ninstance: other\n";
    reload(&agent, other);
    // The instance was given on the command line, which goes before the file.
    assert_eq!(pending(&agent), json!(["kernel.ring_size"]));
    let words = "kernel.ring_size counts from the next start on";
    until("it is told", || agent.complaints().contains(words).then_some(()));
    assert_eq!(status_of(agent.instance())["resources"]["ring_bytes"], (16 + 8) << 20);

    // Something else changes; the ring is still not what the file says.
    reload(&agent, &format!("{other}history: 1MiB\n"));
    assert_eq!(pending(&agent), json!(["kernel.ring_size"]));
    reload(&agent, "kinds: [process.exec]\nkernel: {ring_size: 16MiB}\n");
    assert_eq!(pending(&agent), Value::Null);
    let summary = agent.stop();
    assert!(summary.status.success() && summary.line().ends_with("; nothing lost"), "{summary:?}");
}

fn free_address() -> SocketAddr {
    // Another takes it in the next moment with little likelihood.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What `GET /metrics` says; nothing where nobody listens.
fn metrics(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: nightjar\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    Some(answer)
}

#[test]
fn the_port_for_metrics_is_opened_moved_and_closed() {
    skip_without_kernel!();
    let with = |address| format!("kinds: [process.exec]\nmetrics: {{listen: \"{address}\"}}\n");
    let is_served = |address| metrics(address).is_some_and(|answer| answer.ends_with("# EOF\n"));
    let (first, second) = (free_address(), free_address());
    let agent = Agent::configured("kinds: [process.exec]\n", &RING);
    assert!(metrics(first).is_none());
    reload(&agent, &with(first));
    assert!(is_served(first));

    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    agent.reload(&with(occupied.local_addr().unwrap()));
    let why = until("it is refused", || refused(&agent));
    assert!(
        why.contains(&occupied.local_addr().unwrap().to_string()) && why.contains("metrics.listen"),
        "{why}"
    );
    assert!(is_served(first), "as before");

    agent.reload(&with(second));
    until("it is served elsewhere", || is_served(second).then_some(()));
    assert!(metrics(first).is_none());
    assert_eq!(refused(&agent), None);
    reload(&agent, "kinds: [process.exec]\n");
    assert!(metrics(second).is_none());
    let summary = agent.stop();
    assert!(summary.status.success() && summary.line().ends_with("; nothing lost"), "{summary:?}");
}

/// Files of a folder, with the lines of each.
fn lines_in(folder: &Path) -> BTreeMap<PathBuf, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_file_of_events_is_rotated_and_replaced_as_was_said_last() {
    /// More than 1 MiB of events.
    const EACH: u32 = 200;
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (configuration, events) = (path("nightjar.yaml"), path("events"));
    fs::create_dir(&events).unwrap();
    let write = |json: &str| {
        let text = format!("kinds: [process.exec]\nkernel: {{ring_size: 64MiB}}\njson: {{{json}}}\n");
        fs::write(&configuration, text).unwrap();
    };
    let (old, new) = (events.join("old.json"), events.join("new.json"));
    write(&format!("file: {}, rotate_size: 0", old.display()));
    let name = instance();
    let command = nightjar(["run", "--instance", &name, "--config", configuration.to_str().unwrap()]);
    let agent = Service::of(command, &name);
    let reload = |json: &str| {
        let before = reloads(&name);
        write(json);
        agent.signal(Signal::HUP);
        until("it has read it", || (reloads(&name) > before).then_some(()));
    };
    let long = "x".repeat(8000);
    let make = |begin: u32| {
        for number in begin..begin + EACH {
            quiet(&[TRUE, &format!("file-{number}"), &long]);
        }
    };
    let last_is_in = |file: &Path, number: u32| {
        let word = format!("\"file-{number}\"");
        until("it is written", || fs::read_to_string(file).unwrap().contains(&word).then_some(()));
    };

    make(0);
    last_is_in(&old, EACH - 1);
    assert_eq!(lines_in(&events).len(), 1, "it is large, and no size is too large");
    reload(&format!("file: {}, rotate_size: 1MiB, keep: 5", old.display()));
    make(EACH);
    let files = || lines_in(&events).len();
    until("it is rotated", || (files() > 1).then_some(()));
    reload(&format!("file: {}, rotate_size: 0", new.display()));
    make(2 * EACH);
    last_is_in(&new, 3 * EACH - 1);
    let output = agent.end_well(Signal::TERM).output;
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("; nothing lost"));

    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    let all = lines_in(&events);
    for (path, lines) in &all {
        expect_events(lines);
        for line in lines.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let word = event["process"]["args"][1].as_str().and_then(|word| word.strip_prefix("file-"));
            let Some(number) = word.and_then(|word| word.parse().ok()) else { continue };
            *seen.entry(number).or_default() += 1;
            assert_eq!(number >= 2 * EACH, *path == new, "{number} is in {}", path.display());
        }
    }
    assert!(seen.keys().copied().eq(0..3 * EACH) && seen.values().all(|times| *times == 1), "{seen:?}");
}

/// A folder with a configuration and, beside it, drop-ins.
fn configured(main: &str, drop_ins: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nightjar.yaml");
    fs::write(&path, main).unwrap();
    let beside = folder.path().join("nightjar.d");
    fs::create_dir(&beside).unwrap();
    for (name, text) in drop_ins {
        fs::write(beside.join(name), text).unwrap();
    }
    (folder, path)
}

/// Exit code, standard output and standard error of `nightjar config`.
fn config(args: &[&str], file: &Path) -> (Option<i32>, String, String) {
    let output = nightjar([&["config"], args].concat()).arg("--config").arg(file).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_good_configuration_is_checked_with_its_drop_ins() {
    let (folder, file) =
        configured("log: info\n", &[("20-b.yaml", "log: warn\n"), ("10-a.yaml", ""), ("README", "?")]);
    let beside = folder.path().join("nightjar.d");
    let (code, stdout, stderr) = config(&["check"], &file);
    let all =
        [&file, &beside.join("10-a.yaml"), &beside.join("20-b.yaml")].map(|path| path.display().to_string());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, format!("all is well in {}\n", all.join(", ")));
    // Named as an operand, it is the same.
    assert_eq!(config(&["check", file.to_str().unwrap()], Path::new("/nonexistent")).1, stdout);
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place() {
    let (folder, file) = configured(
        "kinds: [process.exce]\nkernel:\n  ring_size: 3MiB\n",
        &[("10-a.yaml", "log: warn\n"), ("20-b.yaml", "# x\nlog: loud\n")],
    );
    let (code, stdout, stderr) = config(&["check"], &file);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let place = |name: &str, at: &str| format!("{}:{at}: ", folder.path().join(name).display());
    for (place, words) in [
        (place("nightjar.yaml", "1:9"), "process.exec"),
        (place("nightjar.yaml", "3:14"), "kernel.ring_size: 3MiB is not a power of two; write 2MiB or 4MiB"),
        (place("nightjar.d/20-b.yaml", "2:6"), "log: found \"loud\"; write one of off, error, warn, info"),
    ] {
        let line = stderr.lines().find(|line| line.contains(&place));
        assert!(line.is_some_and(|line| line.contains(words)), "{place}{words} is not in {stderr}");
    }
    assert!(!stderr.contains("10-a.yaml"), "{stderr}");
    let (code, _, stderr) = config(&["check"], &folder.path().join("other.yaml"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("other.yaml: there is no such file"), "{stderr}");
}

#[test]
fn what_counts_is_shown_with_where_it_was_said() {
    let (folder, file) = configured(
        "log: info\nhistory: 1MiB\n",
        &[
            ("10-a.yaml", "history: 3MiB\nfilters:\n  - drop: {user: nobody}\n"),
            ("20-b.yaml", "log: error\n"),
        ],
    );
    let beside = folder.path().join("nightjar.d");
    let (code, stdout, stderr) = config(&["show"], &file);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for (setting, origin) in [
        ("log: error", format!("{}:1", beside.join("20-b.yaml").display())),
        ("history: 3MiB", format!("{}:1", beside.join("10-a.yaml").display())),
        ("  - drop: {user: nobody}", format!("{}:3", beside.join("10-a.yaml").display())),
        ("  ring_size: 4MiB", "default".to_owned()),
    ] {
        let line = stdout.lines().find(|line| line.starts_with(setting));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!(" # {origin}"))),
            "{setting} {origin}: {stdout}"
        );
    }
    // What is shown is a configuration that says the same.
    let again = folder.path().join("again.yaml");
    fs::write(&again, &stdout).unwrap();
    let settings = |text: &str| {
        text.lines().map(|line| line.split(" # ").next().unwrap().trim_end().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(settings(&config(&["show"], &again).1), settings(&stdout));

    let (code, stdout, _) = config(&["show", "--json"], &file);
    assert_eq!(code, Some(0));
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(shown["log"]["value"], "error");
    assert_eq!(shown["log"]["origin"]["path"], beside.join("20-b.yaml").to_str().unwrap());
    assert_eq!(shown["kernel.ring_size"]["origin"]["source"], "default");
}
