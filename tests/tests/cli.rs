//! The program at a command line.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{
    Agent, PseudoTerminal, TRUE, await_exit, instance, nightjar, quiet, skip_without_kernel, workload,
};
use rustix::process::Signal;
use serde_json::Value;

/// How long the program may take for what is done at once, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(30);
const MARKER_INTERVAL: Duration = Duration::from_millis(50);

/// Starts it, lets programs run until it has ended, and takes what it said.
fn with_programs_running(args: &[&str]) -> Output {
    let mut command = nightjar(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = read_in_background(child.stdout.take().unwrap());
    let stderr = read_in_background(child.stderr.take().unwrap());
    run_programs_until_it_ends(&mut child);
    let status = child.wait().unwrap();
    Output { status, stdout: stdout.recv().unwrap(), stderr: stderr.recv().unwrap() }
}

fn read_in_background(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (all, result) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pseudo-terminal that nobody writes to any more ends in an error.
        let _hung_up = from.read_to_end(&mut bytes);
        all.send(bytes)
    });
    result
}

fn run_programs_until_it_ends(child: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    while !await_exit(child, Instant::now() + MARKER_INTERVAL) {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it did not end within {PATIENCE:?}");
        }
        quiet(&[TRUE, "nightjar-cli"]);
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Ends with an error that names all of `words`.
fn expect_error(args: &[&str], words: &[&str]) {
    let output = nightjar(args).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert_eq!(output.status.signal(), None, "{args:?}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?} does not name {word}: {stderr}");
    }
}

#[test]
fn tail_ends_after_the_events_that_were_asked_for() {
    skip_without_kernel!();
    let output = with_programs_running(&["tail", "--standalone", "-n", "3", "--kind", "process.*"]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("exec") || line.contains("exit")), "{lines:?}");
    assert!(!text(&output.stdout).contains('\x1b'), "colours in a pipe: {lines:?}");
}

#[test]
fn tail_shows_json_when_asked_to() {
    skip_without_kernel!();
    let output =
        with_programs_running(&["tail", "--standalone", "-o", "json", "-n", "2", "--kind", "process.exec"]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|event| event["kind"] == "process.exec"), "{lines:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    skip_without_kernel!();
    let instance = instance();
    let run = ["run", "--json", "-", "--instance", &instance];
    for command in [&["tail", "--standalone", "--kind", "process.*"][..], &["tail", "-o", "json"], &run] {
        // So large that nothing is lost, which would be told, whatever else this machine does.
        let mut child = nightjar(command.iter().chain(&["--ring-size", "64MiB"]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let (first, got_first) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            drop(reader);
            first.send(line)
        });
        run_programs_until_it_ends(&mut child);
        assert!(got_first.recv().unwrap().ends_with('\n'));
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{command:?}");
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}

/// What `tail -n 2` shows on a terminal.
fn on_a_terminal(no_colour: Option<&str>) -> String {
    let PseudoTerminal { reader, terminal } = PseudoTerminal::open();
    let mut command = nightjar(["tail", "--standalone", "-n", "2", "--kind", "process.*"]);
    command.stdout(terminal).stderr(Stdio::null()).env_remove("NO_COLOR");
    if let Some(value) = no_colour {
        command.env("NO_COLOR", value);
    }
    let mut child = command.spawn().unwrap();
    // Else this side of the terminal stays open for writing.
    drop(command);
    let shown = read_in_background(reader);
    run_programs_until_it_ends(&mut child);
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown.recv().unwrap()).unwrap()
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    skip_without_kernel!();
    assert!(on_a_terminal(None).contains('\x1b'));
    assert!(on_a_terminal(Some("")).contains('\x1b'), "an empty NO_COLOR is none");
    assert!(!on_a_terminal(Some("1")).contains('\x1b'));
}

#[test]
fn what_a_process_is_called_cannot_control_the_terminal() {
    skip_without_kernel!();
    let mut child =
        nightjar(["tail", "--standalone", "--kind", "process.exec"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (found, shown) = mpsc::channel();
    thread::spawn(move || {
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("nightjar-evil"));
        // To the end, so that a closed pipe is not what ends it.
        let _sent = found.send(line);
        lines.for_each(drop);
    });
    let deadline = Instant::now() + PATIENCE;
    let line = loop {
        quiet(&[TRUE, "nightjar-evil\x1b]0;owned\x07\r\nsecond line"]);
        match shown.recv_timeout(MARKER_INTERVAL) {
            Ok(line) => break line.unwrap(),
            Err(_) => assert!(Instant::now() < deadline, "nothing was shown"),
        }
    };
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(line.contains("second line"), "one event is one line: {line:?}");
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

#[test]
fn it_ends_after_the_time_that_was_asked_for() {
    skip_without_kernel!();
    let start = Instant::now();
    let output = with_programs_running(&[
        "run",
        "--json",
        "-",
        "--instance",
        &instance(),
        "--duration",
        "1s",
        "--ring-size",
        "64MiB",
        "--kind",
        "process.*",
    ]);
    let took = start.elapsed();
    assert!(output.status.success(), "{output:?}");
    // Loading and detaching take their time beside the second.
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert!(text(&output.stderr).trim_end().ends_with("; nothing lost"), "{output:?}");
    let events = text(&output.stdout).lines().count();
    assert!(text(&output.stderr).starts_with(&format!("{events} events in ")), "{output:?}");
}

#[test]
fn forks_are_shown_when_asked_for_only() {
    skip_without_kernel!();
    let agent = Agent::start(&["--ring-size", "64MiB"]);
    agent.catch_up();
    assert!(!agent.events("process.exec").is_empty());
    assert!(!agent.events("process.exit").is_empty());
    assert!(agent.events("process.fork").is_empty());
    agent.stop().expect_nothing_lost();
}

#[test]
fn only_kinds_that_were_asked_for_are_shown() {
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.exec", "--kind", "process.cred*", "--ring-size", "64MiB"]);
    assert!(workload(&["setuid", "33"]).succeed().ended.status.success());
    agent.catch_up();
    let kinds = agent.kinds();
    assert!(kinds.iter().eq(["process.credentials", "process.exec"]), "{kinds:?}");
    agent.stop().expect_nothing_lost();
}

#[test]
fn it_stops_cleanly_when_told_to() {
    skip_without_kernel!();
    for signal in [Signal::INT, Signal::TERM] {
        let agent = Agent::start(&["--ring-size", "64MiB"]);
        let last = agent.catch_up();
        assert_eq!(last.kind(), "process.exec");
        agent.stop_by(signal).expect_nothing_lost();
    }
}

#[test]
fn events_are_appended_to_a_file_that_only_root_reads() {
    use std::os::unix::fs::PermissionsExt;
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    std::fs::write(&path, "{\"kept\":true}\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = with_programs_running(&[
        "run",
        "--json",
        path.to_str().unwrap(),
        "--instance",
        &instance(),
        "--duration",
        "1s",
    ]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"");
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.starts_with("{\"kept\":true}\n"));
    assert!(written.lines().skip(1).all(|line| serde_json::from_str::<Value>(line).unwrap()["schema"] == 1));
    assert!(written.lines().count() > 1);

    let new = folder.path().join("new.json");
    assert!(
        with_programs_running(&[
            "run",
            "--json",
            new.to_str().unwrap(),
            "--instance",
            &instance(),
            "--duration",
            "0s"
        ])
        .status
        .success()
    );
    assert_eq!(new.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn bad_input_is_an_error_that_names_it() {
    skip_without_kernel!();
    expect_error(&["run", "--instance", &instance(), "--json", "/nonexistent/x"], &["/nonexistent/x"]);
    expect_error(&["run", "--instance", &instance(), "--json", "/tmp"], &["/tmp", "folder"]);
    expect_error(&["run", "--json", "-", "--ring-size", "3MiB"], &["3MiB", "--ring-size", "4MiB"]);
    expect_error(&["run", "--json", "-", "--ring-size", "0"], &["--ring-size"]);
    expect_error(&["run", "--json", "-", "--duration", "soon"], &["soon", "30s"]);
    expect_error(&["tail", "--kind"], &["--kind"]);
    expect_error(&["tail", "-n", "many"], &["many"]);
    expect_error(&["tail", "-o", "xml"], &["xml", "json"]);
    expect_error(&["explode"], &["explode"]);
}

#[test]
fn a_kind_that_does_not_exist_is_an_error() {
    skip_without_kernel!();
    expect_error(&["tail", "--duration", "1s", "--kind", "process.exce"], &["process.exce"]);
    expect_error(&["tail", "--duration", "1s", "--kind", ""], &["--kind"]);
}

#[test]
fn an_ordinary_user_is_told_that_it_needs_root() {
    use std::os::unix::process::CommandExt;
    skip_without_kernel!();
    let folder = nightjar_tests::folder_for_all();
    let program =
        nightjar_tests::copy_of(nightjar_tests::nightjar_path(), folder.path().join("nightjar"), 0o755);
    let mut command = Command::new(program);
    let output = command.args(["tail", "--standalone", "-n", "1"]).uid(65534).gid(65534).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("root"), "{output:?}");
    assert!(!text(&output.stderr).contains("panicked"), "{output:?}");
}

#[test]
fn a_slow_reader_gets_whole_lines_and_hears_of_what_was_lost() {
    const PROGRAMS: usize = 3000;
    skip_without_kernel!();
    let mut child = nightjar(["run", "--json", "-", "--instance", &instance(), "--ring-size", "1MiB"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let stderr = read_in_background(child.stderr.take().unwrap());
    let (all, got) = mpsc::channel();
    thread::spawn(move || {
        // The first byte tells that it watches; then some 600 KB a second, a fraction of what is made.
        let (mut bytes, mut chunk) = (vec![0], vec![0; 30_000]);
        stdout.read_exact(&mut bytes).unwrap();
        all.send(Vec::new()).unwrap();
        loop {
            let read = stdout.read(&mut chunk).unwrap();
            if read == 0 {
                return all.send(bytes);
            }
            bytes.extend_from_slice(&chunk[..read]);
            thread::sleep(Duration::from_millis(50));
        }
    });
    while got.try_recv().is_err() {
        Command::new("/bin/true").arg("x".repeat(4000)).status().unwrap();
    }
    for _ in 0..PROGRAMS {
        Command::new("/bin/true").arg("x".repeat(4000)).status().unwrap();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();

    let output = got.recv_timeout(PATIENCE).unwrap();
    let summary = stderr.recv().unwrap();
    assert!(child.wait().unwrap().success(), "{}", text(&summary));
    assert!(text(&output).ends_with('\n'), "the last line is whole");
    let events: Vec<Value> = text(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["kind"] == "telemetry.loss"), "{}", text(&summary));
    assert!(text(&summary).contains("; lost: "), "{}", text(&summary));
    assert!(!text(&summary).contains("defect"), "{}", text(&summary));
}
