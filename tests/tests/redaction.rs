//! Secrets in command lines do not get out of the agent.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::process::{Child, Command, Stdio};

use nightjar_tests::{
    Agent, Event, Ran, Session, TRUE, exec, exec_failed, exit, expect_events, nightjar, run,
    skip_without_kernel, workload, workload_path,
};
use rustix::process::Signal;

/// Arguments with a secret, and what is told of them.
const SECRETS: &[(&[&str], &[&str])] = &[
    (&["--password=ZQXJ-KVWYZ"], &["--password=<redacted:8-15>"]),
    (&["--password", "ZQXJ-KVWYZ"], &["--password", "<redacted:8-15>"]),
    (&["--api-key", "ZQXJKVWYZQXJKVWYZ"], &["--api-key", "<redacted:16-31>"]),
    (
        &["-H", "Authorization: Bearer ZQXJ.KVWYZ.QQXJKVWYZZQXJKVWYZQXJ"],
        &["-H", "Authorization: Bearer <redacted:32-63>"],
    ),
    (&["https://user:ZQXJ@host.example/path?a=1"], &["https://user:<redacted:1-7>@host.example/path?a=1"]),
    (&["DB_PASSWORD=ZQXJKVWYZ"], &["DB_PASSWORD=<redacted:8-15>"]),
];
/// A part of every secret.
const OF_SECRETS: &str = "ZQXJ";
const HARMLESS: &[&str] =
    &["--verbose", "--passive", "a=b", "https://host.example/~user", "password", "x:y", "é\u{7f}\\"];

fn words(first: &str, rest: &[&str]) -> Vec<String> {
    std::iter::once(first).chain(rest.iter().copied()).map(str::to_owned).collect()
}

/// All that is told of a process, and that no secret is in it.
fn expect_no_secrets(events: &[Event]) {
    assert!(!events.is_empty());
    for event in events {
        assert!(!event.to_string().contains(OF_SECRETS), "{event}");
    }
}

/// What `tail` remembers of a process, in one form; it ends after so many events.
fn remembered(instance: &str, pid: u32, events: &str, form: &str) -> String {
    let pid = pid.to_string();
    let args = ["tail", "--instance", instance, "--since", "1h", "--pid", &pid, "-n", events, "-o", form];
    let output = Session::start(nightjar(args.iter().chain(&["--kind", "process.ex*"]))).finish();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn secrets_are_masked_with_the_class_of_their_length() {
    skip_without_kernel!();
    for (args, told) in SECRETS {
        let ran = run(TRUE).args(*args).succeed();
        let is = |expect: nightjar_tests::Expect| {
            expect.with("process.args", words(TRUE, told)).with("process.args_redacted", true)
        };
        ran.expect_event(is(exec()));
        ran.expect_event(is(exit()));
        expect_no_secrets(&ran.events());
    }
}

#[test]
fn a_secret_in_a_script_is_masked() {
    skip_without_kernel!();
    let script = |secret: &str| format!("test -z x && curl -u admin:{secret} http://host.example; exit 0");
    let ran = run("/bin/sh").args(["-c", &script("ZQXJKVWYZ")]).succeed();
    ran.expect_event(exec().args(&["/bin/sh", "-c", &script("<redacted:8-15>")]));
    expect_no_secrets(&ran.events());
}

#[test]
fn arguments_without_secrets_are_told_as_they_are() {
    skip_without_kernel!();
    let ran = run(TRUE).args(HARMLESS).succeed();
    for expect in [exec(), exit()] {
        ran.expect_event(expect.with("process.args", words(TRUE, HARMLESS)).without("process.args_redacted"));
    }
}

#[test]
fn a_secret_far_behind_in_long_arguments_is_masked() {
    skip_without_kernel!();
    let long = "x".repeat(20_000);
    let ran = run(TRUE).args([&long, "--password=ZQXJKVWYZ", &long]).succeed();
    let event = ran.expect_event(exec().with("process.args_redacted", true));
    assert_eq!(event.list("process.args")[2], "--password=<redacted:8-15>");
    expect_no_secrets(&ran.events());
}

#[test]
fn a_secret_is_not_told_by_the_children_of_who_was_given_it() {
    skip_without_kernel!();
    let me = workload_path();
    let me = me.to_str().unwrap();
    // A program that gives no secret to its child.
    let script = format!("{TRUE} child; {me} fail-exec /nonexistent; exit 0");
    let ran = run("/bin/sh").args(["-c", &script, "sh", "--password=ZQXJKVWYZ"]).succeed();
    let told = ["/bin/sh", "-c", &script, "sh", "--password=<redacted:8-15>"];
    let is_child = |expect: nightjar_tests::Expect| {
        expect
            .with("parent.pid", ran.pid)
            .with("parent.args", told.as_slice())
            .with("parent.args_redacted", true)
    };
    let child = ran.expect_event_of_another(&is_child(exec()).args(&[TRUE, "child"]));
    let failed =
        ran.expect_event_of_another(&is_child(exec_failed()).with("exec_failed.filename", "/nonexistent"));
    for pid in [child.number("process.pid"), failed.number("process.pid")] {
        let pid = u32::try_from(pid).unwrap();
        expect_no_secrets(&ran.events_of(pid));
        assert!(!remembered(&Agent::shared_instance(), pid, "2", "json").contains(OF_SECRETS));
    }
}

#[test]
fn a_program_that_cannot_be_run_does_not_tell_the_secrets_of_who_tried() {
    skip_without_kernel!();
    let ran = workload(&["fail-exec", "/nonexistent", "--token=ZQXJKVWYZ"]).finish();
    ran.expect_event(exec().with("process.args_redacted", true));
    expect_no_secrets(&ran.events());
}

#[test]
fn what_is_remembered_for_tail_has_no_secrets() {
    skip_without_kernel!();
    let ran = run(TRUE).args(["--password=ZQXJKVWYZ", "--visible"]).succeed();
    ran.expect_event(exit());
    let json = remembered(&Agent::shared_instance(), ran.pid, "2", "json");
    expect_events(&json);
    assert_eq!(json.matches("\"--password=<redacted:8-15>\",\"--visible\"").count(), 2, "{json}");
    let compact = remembered(&Agent::shared_instance(), ran.pid, "2", "compact");
    assert!(compact.contains("'--password=<redacted:8-15>' --visible"), "{compact}");
    for text in [json, compact] {
        assert!(!text.contains(OF_SECRETS), "{text}");
    }
}

#[test]
fn status_counts_what_was_masked_nowhere_with_its_text() {
    skip_without_kernel!();
    let _ran = run(TRUE).arg("--password=ZQXJKVWYZ").succeed();
    let status = nightjar_tests::status_of(&Agent::shared_instance());
    assert!(!status.to_string().contains(OF_SECRETS));
}

/// A process that runs before the agent; it waits on its standard input.
fn start_before(agent_starts: &[&str]) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read go; /usr/bin/true of-old-one; exit 0", "sh"]).args(agent_starts);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn what_ran_before_the_agent_is_masked_too() {
    skip_without_kernel!();
    let mut old = start_before(&["--password=ZQXJKVWYZ", "--visible"]);
    let agent = Agent::start(&["--ring-size", "64MiB"]);
    let mark = agent.mark();
    drop(old.stdin.take());
    let pid = old.id();
    assert!(old.wait().unwrap().success());
    let args = [
        "/bin/sh",
        "-c",
        "read go; /usr/bin/true of-old-one; exit 0",
        "sh",
        "--password=<redacted:8-15>",
        "--visible",
    ];
    let child = agent.expect_event(
        &exec()
            .args(&[TRUE, "of-old-one"])
            .with("parent.pid", pid)
            .with("parent.args", args.as_slice())
            .with("parent.args_from_proc", true)
            .with("parent.args_redacted", true),
        mark,
    );
    let end = agent.expect_event(
        &exit()
            .of_process(pid)
            .with("process.args", args.as_slice())
            .with("process.args_from_proc", true)
            .with("process.args_redacted", true)
            .with("process.source", "snapshot"),
        mark,
    );
    expect_no_secrets(&[child, end]);
    agent.stop().expect_nothing_lost();
}

#[test]
fn whoever_asks_for_secrets_gets_them() {
    skip_without_kernel!();
    let agent = Agent::start(&["--no-redact", "--ring-size", "64MiB"]);
    let mark = agent.mark();
    let pid = nightjar_tests::quiet(&[TRUE, "--password=ZQXJKVWYZ"]);
    agent.expect_event(
        &exec().of_process(pid).args(&[TRUE, "--password=ZQXJKVWYZ"]).without("process.args_redacted"),
        mark,
    );
    agent.stop().expect_nothing_lost();
}

const CONFIGURED: &str = "
redact:
  flags: [--pin]
  names: ['*_HANDLE']
  patterns:
    - {name: badge, regex: 'badge-[0-9]+'}
    - {name: part, regex: 'seat=([A-Z]+);'}
";

#[test]
fn what_is_configured_is_masked_as_well() {
    skip_without_kernel!();
    let agent = Agent::configured(CONFIGURED, &["--ring-size", "64MiB"]);
    let mark = agent.mark();
    let expect = |args: &[&str], told: &[&str]| {
        let pid = nightjar_tests::quiet(&[&[TRUE], args].concat());
        let is = exec()
            .of_process(pid)
            .with("process.args", words(TRUE, told))
            .with("process.args_redacted", true);
        agent.expect_event(&is, mark);
    };
    expect(
        &["--pin=1234", "--PIN", "1234", "-pin", "1234"],
        &["--pin=<redacted:1-7>", "--PIN", "<redacted:1-7>", "-pin", "<redacted:1-7>"],
    );
    expect(
        &["DOOR_HANDLE=ZQXJ", "door_handle=ZQXJ"],
        &["DOOR_HANDLE=<redacted:1-7>", "door_handle=<redacted:1-7>"],
    );
    expect(&["is badge-0123456789 his"], &["is <redacted:16-31> his"]);
    expect(&["seat=ZQXJ;row=2"], &["seat=<redacted:1-7>;row=2"]);
    // What is known without a configuration stays known.
    expect(&["--password=ZQXJKVWYZ"], &["--password=<redacted:8-15>"]);

    agent.reload_and_wait("redact: {enabled: false}\n");
    let pid = nightjar_tests::quiet(&[TRUE, "--pin=1234"]);
    let plain = exec().of_process(pid).args(&[TRUE, "--pin=1234"]).without("process.args_redacted");
    agent.expect_event(&plain, mark);
    agent.reload_and_wait("");
    expect(&["--password=ZQXJKVWYZ", "--pin=1234"], &["--password=<redacted:8-15>", "--pin=1234"]);
    let summary = agent.stop_by(Signal::TERM);
    summary.expect_nothing_lost();
}

#[test]
fn the_kernels_own_word_is_not_changed() {
    skip_without_kernel!();
    let arg = "--password=ZQXJKVWYZ";
    let ran: Ran = run(TRUE).arg(arg).succeed();
    let size = u64::try_from(TRUE.len() + 1 + arg.len() + 1).unwrap();
    ran.expect_event(exec().with("exec.args_size", size).with("exec.argc", 2));
}
