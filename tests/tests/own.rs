//! What the agent itself does: its start makes no events, and nobody can hide by looking like it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use nightjar_tests::{
    Agent, Event, Service, Session, TRUE, copy_of, credentials, discarded, exec, exit, expect_events,
    folder_for_all, fork, instance, nightjar, nightjar_path, quiet, run, skip_without_kernel, socket_of,
    status_of,
};
use rustix::process::Signal;

const ALL: [&str; 5] =
    ["process.exec", "process.exec_failed", "process.fork", "process.exit", "process.credentials"];

/// All events of a process.
fn events_of(agent: &Agent, pid: u32) -> Vec<Event> {
    let events = ALL.iter().flat_map(|kind| agent.events(kind));
    events.filter(|event| event.number("process.pid") == u64::from(pid)).collect()
}

fn path() -> String {
    nightjar_path().to_str().unwrap().to_owned()
}

#[test]
fn the_start_of_the_agent_makes_no_events() {
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.*", "--ring-size", "64MiB"]);
    agent.catch_up();
    // It gives up capabilities after its programs are attached: one at a time, which they see.
    let status = status_of(agent.instance());
    assert!(discarded(&status, "own") > 0, "{status}");
    let own = events_of(&agent, agent.pid());
    assert!(own.is_empty(), "{own:?}");
    // Nor is what it does afterwards, such as answering, left out any more.
    agent.catch_up();
    assert_eq!(discarded(&status_of(agent.instance()), "own"), discarded(&status, "own"));
    agent.stop().expect_nothing_lost();
}

#[test]
fn a_start_with_all_privileges_makes_no_events_either() {
    skip_without_kernel!();
    let agent =
        Agent::configured("privileges: {drop: false}\n", &["--kind", "process.*", "--ring-size", "64MiB"]);
    agent.catch_up();
    let own = events_of(&agent, agent.pid());
    assert!(own.is_empty(), "{own:?}");
    agent.stop().expect_nothing_lost();
}

#[test]
fn another_program_of_the_same_path_and_name_is_shown() {
    skip_without_kernel!();
    let ran = run(path()).arg("--version").succeed();
    ran.expect_event(exec().exe(path()).args(&[&path(), "--version"]).with("process.comm", "nightjar"));
    ran.expect_event(exit().exe(path()).code(0));

    let folder = folder_for_all();
    let copy = copy_of(nightjar_path(), folder.path().join("nightjar"), 0o755);
    let ran = run(&copy).arg0(path()).args(["run", "--help"]).succeed();
    ran.expect_event(exec().exe(&copy).args(&[&path(), "run", "--help"]).with("process.comm", "nightjar"));
    ran.expect_event(exit().exe(&copy).code(0));
}

#[test]
fn whoever_asks_the_agent_is_shown() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let args = ["status", "--instance", &instance, "-o", "json"];
    let ran = run(path()).args(args).succeed();
    ran.expect_event(exec().args(&[&[path().as_str()], args.as_slice()].concat()));
    ran.expect_event(exit().code(0));

    let pid = quiet(&[TRUE]);
    let args = [
        "tail",
        "--instance",
        &instance,
        "--since",
        "1h",
        "--pid",
        &pid.to_string(),
        "-n",
        "1",
        "-o",
        "json",
    ];
    let ran = run(path()).args(args).succeed();
    ran.expect_event(exec().args(&[&[path().as_str()], args.as_slice()].concat()));
    ran.expect_event(exit().code(0));
    expect_events(std::str::from_utf8(&ran.output).unwrap());
}

#[test]
fn a_tail_shows_itself() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let tail = Session::start(nightjar(["tail", "--instance", &instance, "-o", "json", "--since", "1m"]));
    let own = format!("\"pid\":{},", tail.pid());
    let shown =
        |text: &str| text.lines().any(|line| line.contains("\"process.exec\"") && line.contains(&own));
    tail.await_output("its own exec", shown);
    let output = tail.interrupt();
    assert!(output.status.success(), "{output:?}");
    expect_events(std::str::from_utf8(&output.stdout).unwrap());
}

#[test]
fn another_agent_is_a_process_as_any_other() {
    skip_without_kernel!();
    let witness = Agent::start(&["--kind", "process.*", "--ring-size", "64MiB"]);
    let mark = witness.mark();
    let name = instance();
    let other = Service::of(nightjar(["run", "--instance", &name]), &name);
    let pid = other.pid();
    assert!(socket_of(&name).exists());
    witness.expect_event(&fork().of_process(pid), mark);
    witness.expect_event(&exec().of_process(pid).args(&[&path(), "run", "--instance", &name]), mark);
    let drop = witness.expect_event(
        &credentials()
            .of_process(pid)
            .with("credentials.call", "capset")
            .with_some("credentials.capabilities_lost"),
        mark,
    );
    assert!(drop.list("process.capabilities.effective").contains(&"bpf"), "{drop}");
    other.end_well(Signal::TERM);
    witness.expect_event(&exit().of_process(pid).code(0), mark);
    witness.stop().expect_nothing_lost();
}
