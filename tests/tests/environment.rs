//! Environment variables: those that were asked for, and nothing of all others.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use nightjar_tests::{Agent, Event, TRUE, exec, run, skip_without_kernel, status_of, until};
use rustix::process::Signal;

/// Longest variable that is told, with its name.
const LONGEST: usize = 1023;
/// No dynamic linker minds these: it has nothing to do with a program that is not there, and says so.
const PRELOAD: &str = "LD_PRELOAD=/nonexistent/preload.so";
/// What must never be told.
const CLOSED: &str = "ZQXJ";

/// The exec of a program with this environment, sorted by names, and no other.
fn exec_with<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Event {
    run(TRUE).environment(variables).expect_event(exec())
}

fn told(event: &Event) -> Vec<&str> {
    event.list("exec.environment")
}

fn is_truncated(event: &Event) -> bool {
    event.get("exec.environment_truncated").is_some_and(|flag| flag == true)
}

/// All is told, and it is this.
fn expect_told(event: &Event, expected: &[&str]) {
    assert_eq!(told(event), expected, "{event}");
    assert!(!is_truncated(event), "{event}");
    assert!(!event.to_string().contains(CLOSED), "{event}");
}

#[test]
fn what_changes_how_programs_are_linked_is_told() {
    skip_without_kernel!();
    let event = exec_with([
        ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
        ("LD_AUDIT", "/nonexistent/audit.so"),
        ("LD_LIBRARY_PATH", "/nonexistent/a:/nonexistent/b"),
        ("LD_PRELOAD", "/nonexistent/preload.so"),
    ]);
    expect_told(
        &event,
        &[
            "GLIBC_TUNABLES=glibc.malloc.check=3",
            "LD_AUDIT=/nonexistent/audit.so",
            "LD_LIBRARY_PATH=/nonexistent/a:/nonexistent/b",
            PRELOAD,
        ],
    );
}

#[test]
fn nothing_else_is_told() {
    skip_without_kernel!();
    let event = exec_with([
        ("API_KEY", "ZQXJ"),
        ("HOME", "/ZQXJ"),
        ("LD_DEBUG_OUTPUT", "/nonexistent/ZQXJ"),
        ("LD_PRELOADX", "ZQXJ"),
        ("LD_PRELOA", "ZQXJ"),
        ("XLD_PRELOAD", "ZQXJ"),
        ("ld_preload", "ZQXJ"),
        ("PATH", "/ZQXJ"),
        ("SECRET", "ZQXJ"),
    ]);
    expect_told(&event, &[]);
}

#[test]
fn a_program_without_an_environment_has_none() {
    skip_without_kernel!();
    expect_told(&exec_with([]), &[]);
}

#[test]
fn a_variable_that_is_empty_is_told() {
    skip_without_kernel!();
    expect_told(&exec_with([("LD_PRELOAD", "")]), &["LD_PRELOAD="]);
}

#[test]
fn a_name_within_a_value_is_no_variable() {
    skip_without_kernel!();
    let event = exec_with([
        ("A", "LD_PRELOAD=ZQXJ"),
        ("B", "ZQXJ LD_AUDIT=ZQXJ"),
        ("LD_LIBRARY_PATH", "LD_PRELOAD=inner"),
        ("X", "\nLD_PRELOAD=ZQXJ"),
    ]);
    expect_told(&event, &["LD_LIBRARY_PATH=LD_PRELOAD=inner"]);
}

#[test]
fn a_name_far_within_a_long_value_is_no_variable() {
    skip_without_kernel!();
    // Long values are read in parts of 1,023 bytes: what stands where a part begins is the case that matters.
    for parts in 1..=3 {
        for off_by in 0..=4 {
            let before = parts * LONGEST + off_by - 2;
            let value = format!("{}LD_PRELOAD=ZQXJ", "v".repeat(before - "X=".len()));
            assert_eq!("X=".len() + value.find("LD_PRELOAD").unwrap(), before);
            expect_told(
                &exec_with([("X", value.as_str()), ("LD_PRELOAD", "/nonexistent/preload.so")]),
                &[PRELOAD],
            );
            expect_told(&exec_with([("X", value.as_str()), ("Y", "ZQXJ")]), &[]);
        }
    }
}

#[test]
fn a_variable_behind_long_ones_is_found() {
    skip_without_kernel!();
    for length in [LONGEST - 1, LONGEST, LONGEST + 1, 2 * LONGEST, 2 * LONGEST + 1, 60_000] {
        let value = "v".repeat(length - "A=".len());
        let event = exec_with([("A", value.as_str()), ("LD_PRELOAD", "/nonexistent/preload.so")]);
        expect_told(&event, &[PRELOAD]);
    }
}

#[test]
fn a_variable_behind_hundreds_may_be_missed_which_is_told() {
    skip_without_kernel!();
    let names: Vec<String> = (0..600).map(|n| format!("A{n:03}")).collect();
    let with = |count: usize| {
        let others = names[..count].iter().map(|name| (name.as_str(), CLOSED));
        exec_with(others.chain([("LD_PRELOAD", "/nonexistent/preload.so")]))
    };
    expect_told(&with(300), &[PRELOAD]);
    let event = with(600);
    assert!(is_truncated(&event) && !event.to_string().contains(CLOSED), "{event}");
}

#[test]
fn a_long_value_is_cut_which_is_told() {
    skip_without_kernel!();
    for length in [LONGEST + 1, 3 * LONGEST, 100_000] {
        let value = "p".repeat(length - "LD_LIBRARY_PATH=".len());
        let event =
            exec_with([("LD_LIBRARY_PATH", value.as_str()), ("LD_PRELOAD", "/nonexistent/preload.so")]);
        let begin = format!("LD_LIBRARY_PATH={}", &value[..LONGEST - "LD_LIBRARY_PATH=".len()]);
        assert_eq!(told(&event), [begin.as_str(), PRELOAD], "{length}");
        assert!(is_truncated(&event), "{length}: {event}");
    }
    let value = "p".repeat(LONGEST - 1 - "LD_LIBRARY_PATH=".len());
    let event = exec_with([("LD_LIBRARY_PATH", value.as_str())]);
    expect_told(&event, &[&format!("LD_LIBRARY_PATH={value}")]);
}

#[test]
fn secrets_in_a_variable_that_is_told_are_masked() {
    skip_without_kernel!();
    let event = exec_with([("LD_LIBRARY_PATH", "/lib:https://user:ZQXJKVWYZ@host.example/")]);
    expect_told(&event, &["LD_LIBRARY_PATH=/lib:https://user:<redacted:8-15>@host.example/"]);
}

#[test]
fn bytes_that_are_not_utf_8_can_be_had_back() {
    use std::os::unix::ffi::OsStrExt;
    skip_without_kernel!();
    let value = std::ffi::OsStr::from_bytes(b"/\xff\\x41\n");
    let event = run(TRUE).environment([("LD_LIBRARY_PATH", value)]).expect_event(exec());
    expect_told(&event, &["LD_LIBRARY_PATH=/\\xff\\x5cx41\n"]);
    assert_eq!(nightjar_proto::text::to_bytes(told(&event)[0]), b"LD_LIBRARY_PATH=/\xff\\x41\n");
}

#[test]
fn the_configuration_says_which_variables_are_told() {
    skip_without_kernel!();
    // The kernel compares eight bytes; the last two are the same to it.
    let configuration = "environment: [A, DB_PASSWORD, KUBERNETES_PORT, KUBERNETES_NODE]\n";
    let agent = Agent::configured(configuration, &["--ring-size", "64MiB"]);
    let expect = |expected: &[&str]| {
        let mark = agent.mark();
        let environment = [
            ("A", "1"),
            ("AB", "ZQXJ"),
            ("DB_PASSWORD", "ZQXJKVWYZ"),
            ("KUBERNETES_HOST", "ZQXJ"),
            ("KUBERNETES_NODE", "n"),
            ("KUBERNETES_PORT", "p"),
            ("LD_PRELOAD", ""),
        ];
        let mut command = std::process::Command::new(TRUE);
        let mut child = command.env_clear().envs(environment).spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        expect_told(&agent.expect_event(&exec().of_process(pid), mark), expected);
    };
    expect(&["A=1", "DB_PASSWORD=<redacted:8-15>", "KUBERNETES_NODE=n", "KUBERNETES_PORT=p"]);
    agent.reload_and_wait("environment: []\n");
    expect(&[]);
    agent.reload_and_wait("environment: [LD_PRELOAD]\n");
    expect(&["LD_PRELOAD="]);
    // Names, not globs: it is refused, and the agent goes on as before.
    agent.reload("environment: ['*']\n");
    let refused = || status_of(agent.instance())["configuration"]["refused"].as_str().map(str::to_owned);
    let why = until("the configuration is refused", refused);
    assert!(why.contains("environment") && why.contains('*'), "{why}");
    expect(&["LD_PRELOAD="]);
    let summary = agent.stop_by(Signal::INT);
    assert!(summary.status.success(), "{summary:?}");
}
