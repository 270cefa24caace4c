//! `nightjar tail` of a running agent.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{
    Agent, Cgroup, PseudoTerminal, Session, TRUE, cgroup_hierarchy, copy_of, exec, exit, expect_events,
    folder_for_all, instance, nightjar, nightjar_path, programs_of, quiet, run, skip, skip_without_kernel,
    socket_of, status_of, until, workload, workload_path,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const NOBODY: u32 = 65534;
/// More than what all buffers between the agent and a reader hold, in events of 8 KB.
const MANY: u32 = 1500;

/// The agent that most tests share. It remembers so much that what others do on this machine does not matter.
fn shared() -> String {
    Agent::share("history: 256MiB\n");
    Agent::shared_instance()
}

/// A `tail` that the agent knows of: what happens from now on is shown.
fn tail(instance: &str, args: &[&str]) -> Session {
    let session = Session::start(command(instance, args));
    await_reader(&session, instance);
    session
}

fn command(instance: &str, args: &[&str]) -> Command {
    nightjar(["tail", "--instance", instance].iter().chain(args))
}

fn readers(instance: &str) -> Vec<Value> {
    status_of(instance)["tail_readers"].as_array().cloned().unwrap_or_default()
}

fn reader_of(session: &Session, instance: &str) -> Option<Value> {
    readers(instance).into_iter().find(|reader| reader["pid"] == session.pid())
}

fn await_reader(session: &Session, instance: &str) -> Value {
    until("the agent has the reader", || {
        assert!(!session.has_ended(), "it ended: {}", session.complaints());
        reader_of(session, instance)
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Ends it by Ctrl-C; what it showed, which is whole.
fn shown(session: Session) -> Vec<Value> {
    let output = session.interrupt();
    assert!(output.status.success(), "{output:?}");
    events(&text(output.stdout))
}

fn events(lines: &str) -> Vec<Value> {
    expect_events(lines);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every line is an event; the last may have been cut.
fn expect_cut_events(bytes: &[u8]) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    expect_events(std::str::from_utf8(&bytes[..end]).unwrap());
}

fn await_text(session: &Session, wanted: &str) {
    session.await_output(wanted, |text| text.contains(wanted));
}

/// A word that no other test uses.
fn marker(name: &str) -> String {
    format!("nightjar-tail-{}-{name}", std::process::id())
}

/// Ends with an error that names all of `words`.
fn expect_refusal(mut command: Command, words: &[&str]) {
    let output = Session::start({
        command.stdin(Stdio::null());
        command
    })
    .finish();
    let stderr = text(output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
    }
}

/// A program under a path of its own: nobody else on this machine runs it.
struct OwnTrue {
    folder: TempDir,
    path: String,
}

impl OwnTrue {
    fn new() -> Self {
        let folder = folder_for_all();
        let path =
            copy_of(TRUE, folder.path().join("own-true"), 0o755).into_os_string().into_string().unwrap();
        Self { folder, path }
    }

    fn path(&self) -> &str {
        &self.path
    }
}

fn spawn_many(program: &str, count: u32) {
    let (long, count) = ("x".repeat(8000), count.to_string());
    let ran = workload(&["spawn-many", &count, program, &long]).succeed();
    assert_eq!(ran.said()["pids"].as_array().unwrap().len().to_string(), count);
}

#[test]
fn it_shows_what_the_agent_sees_without_programs_of_its_own() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("shows"));
    let own = OwnTrue::new();
    let tail = tail(&instance, &["--exe", own.path()]);
    assert!(programs_of(tail.pid()).is_empty());
    quiet(&[own.path(), &marker]);
    await_text(&tail, &marker);
    let output = tail.interrupt();
    assert!(output.status.success(), "{output:?}");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let line = stdout.lines().find(|line| line.contains(&marker)).unwrap();
    assert!(line.contains("  exec") && line.contains("root") && line.contains(own.path()), "{line}");
    assert!(!stdout.contains('\x1b'), "colours in a pipe: {line}");
    assert!(stdout.ends_with('\n'));
    let count = stdout.lines().count();
    assert!(stderr.starts_with(&format!("nightjar: {count} events shown in ")), "{stderr}");
    assert!(stderr.ends_with(" s; none missed\n"), "{stderr}");
}

#[test]
fn it_ends_after_the_events_that_were_asked_for() {
    skip_without_kernel!();
    let instance = shared();
    let tail = Session::start(command(&instance, &["-n", "3", "-o", "json", "--kind", "process.exec"]));
    until("three events", || {
        quiet(&[TRUE, "nightjar-tail"]);
        tail.has_ended().then_some(())
    });
    let output = tail.finish();
    assert!(output.status.success(), "{output:?}");
    assert!(text(output.stderr).starts_with("nightjar: 3 events shown in "));
    let events = events(&text(output.stdout));
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event["kind"] == "process.exec"), "{events:?}");
}

#[test]
fn it_ends_after_the_time_that_was_asked_for() {
    skip_without_kernel!();
    let (instance, start) = (shared(), Instant::now());
    let output = Session::start(command(&instance, &["--duration", "1s", "-o", "json"])).finish();
    assert!(output.status.success(), "{output:?}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(text(output.stderr).contains(" events shown in "));
    expect_events(&text(output.stdout));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    skip_without_kernel!();
    let instance = shared();
    let (reader, writer) = std::io::pipe().unwrap();
    let own = OwnTrue::new();
    let mut command = command(&instance, &["-o", "json", "--exe", own.path()]);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    until("the agent has the reader", || {
        readers(&instance).iter().any(|reader| reader["pid"] == child.id()).then_some(())
    });
    drop(reader);
    until("it ends", || {
        quiet(&[own.path()]);
        child.try_wait().unwrap()
    });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(output.stderr), "");
}

#[test]
fn only_kinds_that_were_asked_for_are_shown() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("kinds"));
    let own = OwnTrue::new();
    let tail = tail(
        &instance,
        &[
            "-o",
            "json",
            "--kind",
            "process.exec",
            "--kind",
            "process.cred*",
            "--exe",
            "*/workload",
            "--exe",
            own.path(),
        ],
    );
    let changer = workload(&["setuid", "33"]).succeed();
    quiet(&[own.path(), &marker]);
    await_text(&tail, &marker);
    let events = shown(tail);
    let kinds = ["process.exec", "process.credentials"];
    assert!(events.iter().all(|event| kinds.contains(&event["kind"].as_str().unwrap())), "{events:?}");
    for kind in kinds {
        let is_of_changer = |event: &Value| event["kind"] == kind && event["process"]["pid"] == changer.pid;
        assert!(events.iter().any(is_of_changer), "no {kind} in {events:?}");
    }
}

#[test]
fn only_programs_that_were_asked_for_are_shown() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("exe"));
    let own = OwnTrue::new();
    let glob = format!("{}/*", own.folder.path().display());
    let tail = tail(&instance, &["-o", "json", "--exe", &glob]);
    quiet(&[TRUE, &marker]);
    quiet(&[own.path(), &marker]);
    tail.await_output("its exec and its exit", |text| text.lines().count() == 2);
    let events = shown(tail);
    assert_eq!(
        events.iter().map(|event| &event["kind"]).collect::<Vec<_>>(),
        ["process.exec", "process.exit"]
    );
    assert!(events.iter().all(|event| event["process"]["exe"]["path"] == own.path()));
}

#[test]
fn only_a_process_that_was_asked_for_is_shown() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("pid"));
    let shell = run("/bin/sh").args(["-c", &format!("read _; {TRUE} {marker}; exit 3")]).start();
    let pid = shell.pid();
    let tail = tail(&instance, &["-o", "json", "--pid", &pid.to_string()]);
    let ran = shell.finish();
    ran.expect_event(exit().code(3));
    tail.await_output("its end", |text| text.contains("process.exit"));
    let events = shown(tail);
    assert!(events.iter().all(|event| event["process"]["pid"] == pid), "{events:?}");
    assert_eq!(events.last().unwrap()["exit"]["code"], 3);
}

#[test]
fn all_that_descends_from_a_process_is_shown_and_nothing_else() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("tree"));
    let workload = workload_path();
    // In a shell that is there already: a child, a subshell that is only forked and has a child, and a program
    // whose parent is gone before it runs.
    let inner = format!(
        "echo started; read _; {TRUE} {marker}-child; ( {TRUE} {marker}-grandchild; exit 4 ); \
         {} double-fork {TRUE} {marker}-orphan; exit 5",
        workload.display()
    );
    let mut outer = Command::new("/bin/sh");
    outer.args(["-c", &format!("/bin/sh -c '{inner}'; exit 6"), &marker]).stdin(Stdio::piped());
    let mut outer = Session::start(outer);
    let mut input = outer.input();
    await_text(&outer, "started");
    // Behind all that others do here, the agent may not have come to it yet.
    let _event = run(TRUE).expect_event(exec());

    let tail = tail(&instance, &["-o", "json", "--tree", "--pid", &outer.pid().to_string()]);
    quiet(&[TRUE, &format!("{marker}-other")]);
    input.write_all(b"\n").unwrap();
    drop(input);
    let ended = outer.finish();
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    tail.await_output("its end", |text| text.contains(r#""code":6"#));

    let events = shown(tail);
    let ran: Vec<&str> = events.iter().filter_map(|event| event["process"]["args"][1].as_str()).collect();
    for name in ["child", "grandchild", "orphan"] {
        assert!(ran.contains(&format!("{marker}-{name}").as_str()), "no {name} in {ran:?}");
    }
    assert!(!ran.contains(&format!("{marker}-other").as_str()), "{ran:?}");
    let codes: Vec<u64> = events.iter().filter_map(|event| event["exit"]["code"].as_u64()).collect();
    assert!(codes.iter().filter(|code| **code != 0).eq(&[4, 5, 6]), "{codes:?}");
}

#[test]
fn a_tree_needs_a_process_that_runs() {
    skip_without_kernel!();
    let instance = shared();
    let gone = quiet(&[TRUE]);
    expect_refusal(
        command(&instance, &["--tree", "--pid", &gone.to_string()]),
        &[&format!("no process {gone} runs")],
    );
}

#[test]
fn two_readers_see_what_each_asked_for() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("user"));
    let by_name = tail(&instance, &["-o", "json", "--user", "nobody"]);
    let by_number = tail(&instance, &["-o", "json", "--user", "33"]);
    let of_both = [reader_of(&by_name, &instance), reader_of(&by_number, &instance)];
    assert!(of_both.iter().all(Option::is_some), "both are known at a time: {of_both:?}");

    for uid in [0, 33, NOBODY] {
        let _ran = run(TRUE).arg(format!("{marker}-{uid}")).as_user(uid, uid).succeed();
    }
    for (tail, uid) in [(by_name, NOBODY), (by_number, 33)] {
        await_text(&tail, &format!("{marker}-{uid}"));
        let events = shown(tail);
        let is_of = |event: &Value| event["process"]["uid"] == uid || event["process"]["euid"] == uid;
        assert!(events.iter().all(is_of), "not all are of {uid}: {events:?}");
    }
}

#[test]
fn containers_are_told_from_the_host() {
    skip_without_kernel!();
    let Some(hierarchy) = cgroup_hierarchy() else { return skip("no cgroup hierarchy is mounted") };
    let (instance, marker) = (shared(), marker("container"));
    let id = format!("{:064x}", std::process::id());
    let scope = Cgroup::at(&hierarchy, &format!("{marker}.slice/docker-{id}.scope"));

    let any = tail(&instance, &["-o", "json", "--container", "*"]);
    let this = tail(&instance, &["-o", "json", "--container", &id[..60]]);
    let other = tail(&instance, &["-o", "json", "--container", "feed"]);
    quiet(&[TRUE, &format!("{marker}-host")]);
    let _ran = workload(&["in-cgroup", scope.folder(), TRUE, &format!("{marker}-inside")]).succeed();
    await_text(&this, &format!("{marker}-inside"));
    await_text(&any, &format!("{marker}-inside"));
    let events = shown(this);
    assert!(events.iter().all(|event| event["process"]["container"]["id"] == id), "{events:?}");
    // Others may have containers on this machine.
    let events = shown(any);
    assert!(events.iter().all(|event| event["process"]["container"]["id"].is_string()), "{events:?}");
    assert!(!text(other.interrupt().stdout).contains(&marker));
}

#[test]
fn only_events_of_which_an_expression_is_true_are_shown() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("where"));
    let condition = format!(
        r#"kind == "process.exec" && process.args.exists(a, a.endsWith("{marker}-b")) && process.uid == 0"#
    );
    let own = OwnTrue::new();
    let tail = tail(&instance, &["-o", "json", "-n", "1", "--exe", own.path(), "--where", &condition]);
    for name in ["a", "b"] {
        quiet(&[own.path(), &format!("{marker}-{name}")]);
    }
    let output = tail.finish();
    assert!(output.status.success(), "{output:?}");
    let events = events(&text(output.stdout));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["process"]["args"][1], format!("{marker}-b"));
}

#[test]
fn an_expression_that_cannot_be_meant_is_refused() {
    skip_without_kernel!();
    let instance = shared();
    for (expression, words) in [
        ("process.pid = 1", &["--where: column 13: ", "write =="][..]),
        ("process.uid ==", &["--where: column 15: "]),
        ("process.exee == 'x'", &["--where: no field \"process.exee\"", "did you mean \"process.exe\"?"]),
        ("process.comm.startswith('x')", &["did you mean \"startsWith\"?"]),
        ("process.pid", &["--where: process.pid is "]),
    ] {
        expect_refusal(command(&instance, &["--where", expression]), words);
    }
}

#[test]
fn a_kind_that_does_not_exist_is_refused() {
    skip_without_kernel!();
    let instance = shared();
    expect_refusal(command(&instance, &["--kind", "process.exce"]), &["--kind", "process.exce"]);
}

#[test]
fn a_kind_that_the_agent_does_not_record_is_refused() {
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.exec", "--ring-size", "64MiB"]);
    expect_refusal(
        command(agent.instance(), &["--kind", "process.fork"]),
        &["does not record such events", "--standalone"],
    );
    agent.stop().expect_nothing_lost();
}

#[test]
fn what_was_before_is_shown_when_asked_for() {
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("since"));
    let _event = run(TRUE).arg(&marker).expect_event(exec());
    let of_marker = format!("exec != null && process.args.exists(a, a == {marker:?})");
    let output = Session::start(command(
        &instance,
        &["-o", "json", "--since", "1h", "-n", "1", "--where", &of_marker],
    ))
    .finish();
    assert!(output.status.success(), "{output:?}");
    let events = events(&text(output.stdout));
    assert_eq!(events.len(), 1, "{events:?}");
}

#[test]
fn what_is_older_than_asked_for_is_not_shown() {
    const AGE: Duration = Duration::from_millis(1100);
    skip_without_kernel!();
    let (instance, marker) = (shared(), marker("older"));
    let own = OwnTrue::new();
    let _event = run(own.path()).arg(format!("{marker}-old")).expect_event(exec());
    // Nothing is waited for: it is to become old.
    thread::sleep(AGE);
    for since in [&["--since", "1s"][..], &[]] {
        let tail = tail(&instance, &[&["-o", "json", "--exe", own.path()], since].concat());
        quiet(&[own.path(), &format!("{marker}-new")]);
        await_text(&tail, &format!("{marker}-new"));
        let events = shown(tail);
        let args: Vec<&str> =
            events.iter().filter_map(|event| event["process"]["args"][1].as_str()).collect();
        assert!(!args.contains(&format!("{marker}-old").as_str()), "{since:?}: {args:?}");
    }
}

#[test]
fn a_slow_reader_is_told_what_it_missed_and_the_agent_loses_nothing() {
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.exec", "--ring-size", "64MiB"]);
    let own = OwnTrue::new();
    let path = own.path();
    let tail = Session::start_unread(command(agent.instance(), &["-o", "json", "--exe", path]));
    await_reader(&tail, agent.instance());

    spawn_many(path, MANY);
    agent.catch_up();
    let reader = until("the reader misses something", || {
        reader_of(&tail, agent.instance()).filter(|reader| reader["missed"].as_u64() > Some(0))
    });
    tail.read_on();
    // The gap comes before anything new.
    tail.await_complaint("it is told", |text| text.contains("are missing here"));
    quiet(&[path, "after-the-gap"]);
    await_text(&tail, "after-the-gap");
    let output = tail.interrupt();
    assert!(output.status.success(), "{output:?}");

    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let events = events(&stdout);
    assert!(stdout.ends_with('\n'));
    let missed: u64 = stderr
        .lines()
        .filter(|line| line.contains("are missing here, as those before were read too slowly"))
        .map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(events.len() as u64 + missed, u64::from(MANY) + 1, "{stderr}");
    assert_eq!(reader["missed"].as_u64(), Some(missed), "{reader}");
    assert!(
        stderr.lines().last().unwrap().ends_with(&format!("; {missed} missed, as they were read too slowly"))
    );

    let by_agent = agent.events("process.exec");
    assert!(agent.events("telemetry.loss").is_empty());
    agent.stop().expect_nothing_lost();
    let ours = by_agent.iter().filter(|event| event.text("process.exe.path") == path).count();
    assert!(ours >= MANY as usize, "the agent's own output lacks some: {ours}");
}

#[test]
fn ctrl_c_ends_it_also_while_nobody_takes_what_it_shows() {
    skip_without_kernel!();
    let instance = shared();
    let own = OwnTrue::new();
    let tail = Session::start_unread(command(&instance, &["-o", "json", "--exe", own.path()]));
    await_reader(&tail, &instance);
    spawn_many(own.path(), MANY);
    until("it takes nothing any more", || {
        reader_of(&tail, &instance).filter(|reader| reader["missed"].as_u64() > Some(0))
    });
    tail.signal(Signal::INT);
    assert!(tail.ends(), "it goes on; it said: {}", tail.complaints());
    let output = tail.finish();
    assert!(output.status.code().is_some(), "killed by the signal: {output:?}");
    let stderr = text(output.stderr);
    assert!(stderr.contains("takes none"), "{stderr}");
    // What the pipe had room for, up to the middle of a line.
    expect_cut_events(&output.stdout);
}

#[test]
fn it_goes_on_when_the_agent_comes_back() {
    skip_without_kernel!();
    let (instance, marker) = (instance(), marker("again"));
    let own = OwnTrue::new();
    let first = Session::start(nightjar(["run", "--json", "-", "--instance", &instance]));
    until("it answers", || {
        assert!(!first.has_ended(), "{}", first.complaints());
        let status = nightjar(["status", "--instance", &instance]).output().unwrap().status;
        status.code().filter(|code| [0, 3].contains(code))
    });
    let tail = tail(&instance, &["-o", "json", "--exe", own.path()]);
    quiet(&[own.path(), &format!("{marker}-first")]);
    await_text(&tail, &format!("{marker}-first"));

    first.signal(Signal::KILL);
    expect_cut_events(&first.finish().stdout);
    tail.await_complaint("it is told", |text| {
        text.contains("the agent is gone; waiting for it to come back")
    });

    let second = Agent::named(instance.clone(), "", &["--ring-size", "64MiB"]);
    tail.await_complaint("it is told", |text| text.contains("the agent is back"));
    await_reader(&tail, &instance);
    quiet(&[own.path(), &format!("{marker}-second")]);
    await_text(&tail, &format!("{marker}-second"));
    let output = tail.interrupt();
    assert!(output.status.success(), "{output:?}");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    expect_events(&stdout);
    assert!(stderr.lines().last().unwrap().contains(" events shown in "), "{stderr}");
    second.stop().expect_nothing_lost();
}

#[test]
fn ctrl_c_ends_it_also_while_it_waits_for_the_agent() {
    skip_without_kernel!();
    let agent = Agent::start(&["--ring-size", "64MiB"]);
    let tail = tail(agent.instance(), &["-o", "json"]);
    agent.stop().expect_nothing_lost();
    tail.await_complaint("it is told", |text| text.contains("the agent is gone"));
    let output = tail.interrupt();
    assert!(output.status.success(), "{output:?}");
    assert!(text(output.stderr).lines().last().unwrap().contains(" events shown in "));
    expect_events(&text(output.stdout));
}

#[test]
fn an_agent_that_does_not_run_is_named() {
    skip_without_kernel!();
    let instance = instance();
    let socket = socket_of(&instance);
    expect_refusal(command(&instance, &[]), &["no agent answers on ", socket.to_str().unwrap()]);
    let elsewhere = nightjar(["tail", "--socket", "/nonexistent/nightjar.sock"]);
    expect_refusal(elsewhere, &["no agent answers on /nonexistent/nightjar.sock"]);
}

/// The program as an ordinary user runs it.
struct Ordinary(TempDir);

impl Ordinary {
    fn new() -> Self {
        let folder = folder_for_all();
        let _program = copy_of(nightjar_path(), folder.path().join("nightjar"), 0o755);
        let _program = copy_of(workload_path(), folder.path().join("workload"), 0o755);
        Self(folder)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.0.path().join("nightjar"));
        command.args(args).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        command
    }

    /// As a member of one more group.
    fn in_group(&self, group: u32, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--groups", &group.to_string()]);
        command.arg(self.0.path().join("nightjar")).args(args).stdin(Stdio::null());
        command
    }

    /// What the socket answers to this.
    fn ask(&self, socket: &Path, question: &str) -> String {
        let program = self.0.path().join("workload");
        let ran = run(program).arg("ask").arg(socket).as_user(NOBODY, NOBODY).input(question).succeed();
        text(ran.output)
    }
}

/// Name and number of a group that neither root nor nobody is in.
fn some_group() -> (String, u32) {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let numbered = groups.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        Some((fields.first()?.to_string(), fields.get(2)?.parse().ok()?))
    });
    numbered.into_iter().find(|(_, number)| ![0, NOBODY].contains(number)).expect("there are more groups")
}

#[test]
fn an_ordinary_user_is_told_who_may_read() {
    skip_without_kernel!();
    let (instance, ordinary) = (shared(), Ordinary::new());
    for command in ["tail", "status"] {
        expect_refusal(
            ordinary.command(&[command, "--instance", &instance]),
            &[socket_of(&instance).to_str().unwrap(), "root and members of the agent's socket.group", "sudo"],
        );
    }
}

#[test]
fn members_of_the_group_may_read_and_nobody_else() {
    skip_without_kernel!();
    let (name, number) = some_group();
    let agent = Agent::configured(&format!("socket: {{group: {name}}}\n"), &["--ring-size", "64MiB"]);
    let (ordinary, socket) = (Ordinary::new(), socket_of(agent.instance()));
    let own = OwnTrue::new();
    let tail = ["tail", "--instance", agent.instance(), "-o", "json", "-n", "1", "--exe", own.path()];

    let member = Session::start(ordinary.in_group(number, &tail));
    let reader = await_reader(&member, agent.instance());
    assert_eq!(reader["uid"], NOBODY);
    quiet(&[own.path()]);
    let output = member.finish();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(events(&text(output.stdout)).len(), 1);

    expect_refusal(ordinary.command(&tail), &["root and members of the agent's socket.group"]);
    expect_refusal(ordinary.in_group(NOBODY, &tail), &["root and members of the agent's socket.group"]);

    // Whoever gets past the mode of the socket is still not let in.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let why =
        format!("user {NOBODY} may not see what happens on this host: be root, or a member of socket.group");
    expect_refusal(ordinary.command(&tail), &[&why]);
    expect_refusal(ordinary.command(&["status", "--instance", agent.instance()]), &[&why]);
    let question = "GET /metrics HTTP/1.1\r\nHost: nightjar\r\nConnection: close\r\n\r\n";
    let answer = ordinary.ask(&socket, question);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.ends_with(&format!("{why}\n")), "{answer}");
    assert!(!answer.contains("nightjar_"), "{answer}");
    agent.stop().expect_nothing_lost();
}

#[test]
fn one_reader_too_many_is_told_to_wait() {
    const READERS: usize = 16;
    skip_without_kernel!();
    let agent = Agent::start(&["--ring-size", "64MiB"]);
    let start = || Session::start(command(agent.instance(), &["-o", "json", "--exe", "/nonexistent"]));
    let mut sessions: Vec<_> = (0..READERS).map(|_| start()).collect();
    until("all watch", || (readers(agent.instance()).len() == READERS).then_some(()));
    expect_refusal(
        command(agent.instance(), &["-o", "json"]),
        &["16 watch already; wait until one of them ends"],
    );

    let first = sessions.remove(0);
    let gone = first.pid();
    assert!(shown(first).is_empty());
    until("it is forgotten", || readers(agent.instance()).iter().all(|it| it["pid"] != gone).then_some(()));
    let next = until("there is room", || {
        let session = start();
        until("it watches or is refused", || {
            (session.has_ended() || reader_of(&session, agent.instance()).is_some()).then_some(())
        });
        (!session.has_ended()).then_some(session)
    });
    assert!(shown(next).is_empty());
    drop(sessions);
    agent.stop().expect_nothing_lost();
}

/// What it shows on a terminal of 100 columns of an exec with long arguments.
fn on_a_terminal(no_colour: Option<&str>) -> String {
    let (instance, marker) = (shared(), marker("terminal"));
    let own = OwnTrue::new();
    let mut command = command(&instance, &["-n", "1", "--kind", "process.exec", "--exe", own.path()]);
    command.env_remove("NO_COLOR");
    if let Some(value) = no_colour {
        command.env("NO_COLOR", value);
    }
    let tail = Session::on_terminal(command, PseudoTerminal::open());
    await_reader(&tail, &instance);
    quiet(&[own.path(), &format!("{marker}{}", "x".repeat(500))]);
    let output = tail.finish();
    assert!(output.status.success(), "{output:?}");
    text(output.stdout)
}

/// Without colours and the end of the line.
fn plain(line: &str) -> String {
    let parts = line.trim_end().split('\x1b');
    parts
        .enumerate()
        .map(|(index, part)| if index == 0 { part } else { part.split_once('m').unwrap().1 })
        .collect()
}

#[test]
fn a_terminal_gets_colours_and_lines_that_fit() {
    skip_without_kernel!();
    let line = on_a_terminal(None);
    assert!(line.contains('\x1b'), "{line:?}");
    assert_eq!(line.lines().count(), 1, "{line:?}");
    assert_eq!(plain(&line).chars().count(), 100, "{line:?}");
    let line = on_a_terminal(Some("1"));
    assert!(!line.contains('\x1b'), "{line:?}");
    assert_eq!(line.trim_end().chars().count(), 100, "{line:?}");
}
