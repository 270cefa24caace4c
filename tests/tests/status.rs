//! `nightjar status`.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nightjar_tests::{
    Agent, PseudoTerminal, Session, TRUE, expect_status, hook_count, instance, loss, nightjar,
    skip_without_kernel, socket_of, status_of, workload,
};
use rustix::{
    process::Signal,
    termios::{Winsize, tcsetwinsize},
};
use serde_json::Value;

/// Beginning of a frame on a terminal.
const HOME: &str = "\x1b[H";

fn command(instance: &str, args: &[&str]) -> Command {
    nightjar(["status", "--instance", instance].iter().chain(args))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// An agent that only sees what is run, so that nothing that others do on this machine overwhelms it.
fn agent(ring: &str) -> Agent {
    Agent::start(&["--kind", "process.exec", "--ring-size", ring])
}

fn expect_sums_to_hold(status: &Value) {
    let identities = status["identities"].as_array().unwrap();
    assert!(identities.iter().any(|identity| identity["of"] == "exec"), "{identities:?}");
    assert!(identities.iter().any(|identity| identity["sum"] == "submitted = received"), "{identities:?}");
    for identity in identities {
        assert_eq!(identity["holds"], true, "{identity}");
        let sides = (identity["left"].as_u64().unwrap_or(0), identity["right"].as_u64().unwrap_or(0));
        assert!(sides.0.abs_diff(sides.1) <= identity["under_way"].as_u64().unwrap_or(0), "{identity}");
    }
}

/// A number in `.flow.exported`.
fn exported(status: &Value, kind: &str) -> u64 {
    let kinds = status["flow"]["exported"].as_array().into_iter().flatten();
    kinds.filter(|entry| entry["kind"] == kind).map(|entry| entry["count"].as_u64().unwrap()).sum()
}

#[test]
fn it_says_first_that_all_is_well() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let output = command(&instance, &[]).output().unwrap();
    let page = text(output.stdout.clone());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let first = page.lines().next().unwrap();
    assert!(first.starts_with("nightjar ") && first.ends_with(": all is well"), "{first}");
    assert!(first.contains(&format!("\"{instance}\"")), "{first}");
    for section in ["flow", "outputs", "sensors", "hooks", "sums that must hold", "tables", "configuration"] {
        assert!(page.lines().any(|line| line == section), "no {section}: {page}");
    }
    assert!(!page.contains('\x1b'), "colours in a pipe: {page}");
    assert!(!page.lines().any(|line| line == "lost"), "{page}");
}

#[test]
fn its_json_is_as_its_schema_says() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let output = command(&instance, &["-o", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let status = expect_status(&text(output.stdout));
    assert_eq!(status["instance"], instance);
    assert_eq!(status["configuration"]["reloads"], Value::Null);
    assert!(status["resources"]["resident_bytes"].as_u64() > Some(1 << 20), "{status}");
    assert_eq!(status["resources"]["ring_bytes"], (64 + 8) << 20);
    let capabilities = status["resources"]["capabilities"].as_array().unwrap();
    assert!(capabilities.iter().any(|name| name == "bpf"), "{capabilities:?}");
    assert!(!capabilities.iter().any(|name| name == "all" || name == "sys_admin"), "{capabilities:?}");
}

#[test]
fn counts_are_those_of_what_was_shown() {
    const PROGRAMS: u64 = 100;
    skip_without_kernel!();
    let agent = agent("64MiB");
    // Others run programs as well: what was shown before and after are bounds.
    let shown = || {
        agent.catch_up();
        agent.events("process.exec").len() as u64
    };
    let (least, before) = (shown(), status_of(agent.instance()));
    let _ran = workload(&["spawn-many", &PROGRAMS.to_string(), TRUE]).succeed();
    let (middle, after) = (shown(), status_of(agent.instance()));
    let most = shown();

    assert!((least..=middle).contains(&exported(&before, "process.exec")), "{least} {middle} {before}");
    assert!((middle..=most).contains(&exported(&after, "process.exec")), "{middle} {most} {after}");
    assert!(exported(&after, "process.exec") - exported(&before, "process.exec") > PROGRAMS);
    assert!(hook_count(&after, "exec", "seen") - hook_count(&before, "exec", "seen") > PROGRAMS);
    let output = &after["outputs"][0];
    assert_eq!((&output["name"], &output["target"]), (&"json".into(), &"-".into()));
    assert_eq!(output["events"].as_u64(), Some(exported(&after, "process.exec")));
    expect_sums_to_hold(&before);
    expect_sums_to_hold(&after);
    agent.stop().expect_nothing_lost();
}

#[test]
fn every_sum_holds_under_load() {
    const TIMES: usize = 20;
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let _ran = workload(&["spawn-many", "50", TRUE]).succeed();
            }
        });
        let all: Vec<_> = (0..TIMES).map(|_| status_of(&instance)).collect();
        enough.store(true, Ordering::Relaxed);
        load.join().unwrap();
        all.iter().for_each(expect_sums_to_hold);
        let seen = |status: &Value| hook_count(status, "exec", "seen");
        assert!(seen(all.last().unwrap()) > seen(&all[0]), "there was no load");
    });
}

#[test]
fn what_was_lost_is_told_with_its_time() {
    skip_without_kernel!();
    let agent = agent("1MiB");
    agent.catch_up();
    assert_eq!(status_of(agent.instance())["losses"]["total"], Value::Null);

    agent.signal(Signal::STOP);
    let long = "x".repeat(8000);
    let _ran = workload(&["spawn-many", "2000", TRUE, &long]).succeed();
    let mark = agent.mark();
    agent.signal(Signal::CONT);
    let told = agent.expect_event(&loss(), mark);
    // What the event told is in the status from then on.
    let output = command(agent.instance(), &["-o", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let status = expect_status(&text(output.stdout));
    let losses = &status["losses"];
    let total = losses["total"].as_u64().unwrap();
    let of_exec = |losses: &Value| {
        let losses = losses.as_array().unwrap();
        losses
            .iter()
            .find(|loss| loss["hook"] == "exec")
            .cloned()
            .unwrap_or_else(|| panic!("none in {losses:?}"))
    };
    let told = of_exec(told.field("telemetry.losses"))["count"].as_u64().unwrap();
    assert!(told > 1000 && total >= told, "{told}: {losses}");
    let of_exec = of_exec(&losses["losses"]);
    assert_eq!(of_exec["reason"], "ring_full");
    assert_eq!(of_exec["kinds"], serde_json::json!(["process.exec"]));
    // Times of one form: as texts they are in order.
    let time = |value: &Value| value.as_str().unwrap().to_owned();
    let order = [&status["started"], &losses["first"], &losses["last"], &status["taken"]].map(time);
    assert!(order.is_sorted(), "{order:?}");
    expect_sums_to_hold(&status);

    let Output { status: ended, stdout, .. } = command(agent.instance(), &[]).output().unwrap();
    assert_eq!(ended.code(), Some(3));
    let page = text(stdout);
    let first: Vec<&str> = page.lines().take(2).collect();
    assert!(first[0].ends_with(": NOT ALL IS WELL"), "{first:?}");
    assert!(first[1].contains(" lost, the last ") && first[1].ends_with(" ago"), "{first:?}");
    let mut section =
        page.lines().skip_while(|line| *line != "lost").skip(1).take_while(|line| !line.is_empty());
    let sum = section.next().unwrap();
    assert!(sum.contains(", first ") && sum.contains(" ago ("), "{sum}");
    assert!(
        section.any(|line| line.contains("  exec  ") && line.ends_with("ring_full  process.exec")),
        "{page}"
    );

    let summary = agent.stop();
    assert!(summary.status.success(), "{summary:?}");
    assert!(summary.line().contains("(ring_full)"), "{summary:?}");
}

#[test]
fn an_agent_that_does_not_run_is_named() {
    let instance = instance();
    let output = command(&instance, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        text(output.stderr),
        format!("nightjar: no agent answers on {}\n", socket_of(&instance).display())
    );
    assert!(output.stdout.is_empty());
}

/// Without colours and the like.
fn plain(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap().to_owned();
    let line = parts
        .fold(first, |line, part| line + part.split_once(['m', 'K', 'J']).map_or(part, |(_, rest)| rest));
    // The terminal puts one before each end of a line.
    line.trim_end_matches('\r').to_owned()
}

fn widest(frame: &str) -> usize {
    frame.lines().map(|line| plain(line).chars().count()).max().unwrap_or(0)
}

#[test]
fn lines_fit_the_terminal_and_have_colours() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    for columns in [100, 60] {
        let terminal = PseudoTerminal::open();
        resize(&terminal.reader, columns);
        let mut command = command(&instance, &[]);
        command.env_remove("NO_COLOR");
        let output = Session::on_terminal(command, terminal).finish();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let page = text(output.stdout);
        assert!(page.contains("\x1b[32mall is well\x1b["), "{page:?}");
        assert_eq!(widest(&page), usize::from(columns), "some lines are longer, and cut: {page}");
    }
}

fn resize(terminal: impl std::os::fd::AsFd, columns: u16) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

fn frames(text: &str) -> usize {
    text.matches(HOME).count()
}

#[test]
fn a_terminal_is_drawn_over_and_given_back() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let terminal = PseudoTerminal::open();
    let other_side = terminal.reader.try_clone().unwrap();
    let session = Session::on_terminal(command(&instance, &["--watch=200ms"]), terminal);
    let drawn = session.await_output("three frames", |text| frames(text) >= 3);
    // The first that is drawn after this has the new width.
    resize(other_side, 50);
    let before = frames(&drawn);
    session.await_output("more frames", |text| frames(text) >= before + 3);
    let output = session.interrupt();
    assert!(output.status.success(), "{output:?}");
    let shown = text(output.stdout);
    let begin = "\x1b[?1049h\x1b[?25l\x1b[H";
    assert!(shown.starts_with(begin), "the alternate screen, without a cursor: {shown:?}");
    assert!(shown.ends_with("\x1b[?25h\x1b[?1049l"), "as it was before: {shown:?}");
    let all: Vec<&str> = shown.split(HOME).skip(1).collect();
    for frame in &all {
        assert!(plain(frame).contains("nightjar "), "{frame:?}");
        assert!(frame.lines().count() <= 24, "it would scroll: {frame:?}");
        assert!(frame.contains("\x1b[J"), "what was below is wiped: {frame:?}");
    }
    assert!(all[..3].iter().all(|frame| widest(frame) <= 100));
    assert!(widest(all[0]) > 50, "else the new width says nothing: {:?}", all[0]);
    let last = all.last().unwrap().trim_end_matches("\x1b[?25h\x1b[?1049l");
    assert!(widest(last) <= 50, "{last:?}");
}

#[test]
fn a_pipe_gets_one_page_after_another() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let headline = |line: &str| line.starts_with("nightjar ") && line.contains(&instance);
    let session = Session::start(command(&instance, &["--watch=200ms"]));
    session.await_output("pages", |text| text.lines().filter(|line| headline(line)).count() >= 3);
    let output = session.interrupt();
    assert!(output.status.success(), "{output:?}");
    assert!(!text(output.stdout).contains('\x1b'));

    let session = Session::start(command(&instance, &["--watch=200ms", "-o", "json"]));
    session.await_output("objects", |text| text.matches("\"instance\"").count() >= 3);
    let objects = session.interrupt().stdout;
    let objects = serde_json::Deserializer::from_slice(&objects).into_iter::<Value>();
    for object in objects {
        assert_eq!(expect_status(&object.unwrap().to_string())["instance"], instance);
    }
}

#[test]
fn an_agent_that_goes_away_is_told_of_and_found_again() {
    skip_without_kernel!();
    let first = agent("1MiB");
    let name = first.instance().to_owned();
    let session = Session::on_terminal(command(&name, &["--watch=200ms"]), PseudoTerminal::open());
    session.await_output("a frame", |text| text.contains(&format!("pid {}", first.pid())));
    assert!(first.stop().status.success());
    session.await_output("it is told", |text| text.contains("no agent answers on "));
    let second = Agent::named(name, "", &["--kind", "process.exec"]);
    session.await_output("the new agent", |text| text.contains(&format!("pid {}", second.pid())));
    assert!(session.interrupt().status.success());
    assert!(second.stop().status.success());
}

#[test]
fn an_agent_that_hangs_is_told_of() {
    skip_without_kernel!();
    let agent = agent("64MiB");
    let watching =
        Session::on_terminal(command(agent.instance(), &["--watch=200ms"]), PseudoTerminal::open());
    watching.await_output("a frame", |text| frames(text) > 0);
    agent.signal(Signal::STOP);
    let asking = Session::start(command(agent.instance(), &[]));
    watching.await_output("it is told", |text| text.contains("does not answer"));
    watching.signal(Signal::INT);
    assert!(watching.ends(), "it waits for an agent that hangs");
    let asked = asking.finish();
    agent.signal(Signal::CONT);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    assert!(text(asked.stderr).contains("does not answer"));
    assert!(text(watching.finish().stdout).ends_with("\x1b[?25h\x1b[?1049l"));
    agent.stop().expect_nothing_lost();
}
