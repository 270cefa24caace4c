//! Rules that leave events out: what is dropped, what is kept, and where.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{fs, path::PathBuf};

use nightjar_tests::{
    Agent, Cgroup, Ran, Service, TRUE, cgroup_hierarchy, copy_of, credentials, discarded, exec, exit,
    folder_for_all, hook_count, nightjar, quiet, run, skip, skip_without_kernel, status_of, until, workload,
    workload_path,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Of one configuration, so that the tests can share an agent: each has programs and cgroups of its own. What
/// `PID` stands for is this program's, as another may run the same tests.
const RULES: &str = "
filters:
  - drop: {user: nobody}
  - drop: {user: 12345}
  - drop: {container: [5e11a5, c0ffeePID]}
  - drop: {cgroup: '/nightjar-dropped-test-PID-*'}
  - drop: {cgroup: '/nightjar-no-exec-test-PID-*', kind: process.exec}
  - keep: {exe: '*/nightjar-kept-*'}
  - drop: {exe: ['*/nightjar-dropped', '*/nightjar-kept-and-dropped', '*/nightjar-dropped-and-kept']}
  - keep: {exe: '*/nightjar-dropped-and-kept'}
  - drop: {exe: '*/nightjar-no-exit', kind: process.exit}
  - drop: {exe: '*/nightjar-both', user: daemon}
";
const NOBODY: u32 = 65534;
const DAEMON: u32 = 1;

fn share() {
    Agent::share(&RULES.replace("PID", &std::process::id().to_string()));
}

/// A copy of a program that does nothing, of this name; removed with the folder.
fn program(name: &str) -> (TempDir, PathBuf) {
    program_with_mode(name, 0o755)
}

fn program_with_mode(name: &str, mode: u32) -> (TempDir, PathBuf) {
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join(name), mode);
    (folder, program)
}

fn status() -> Value {
    status_of(&Agent::shared_instance())
}

fn me() -> String {
    workload_path().to_str().unwrap().to_owned()
}

fn expect_shown(ran: &Ran) {
    ran.expect_event(exec());
    ran.expect_event(exit());
}

fn expect_not_shown(ran: &Ran) {
    ran.expect_no(&exec());
    ran.expect_no(&exit());
}

#[test]
fn programs_are_dropped_by_their_path() {
    skip_without_kernel!();
    share();
    let (_folder, dropped) = program("nightjar-dropped");
    let before = discarded(&status(), "rule");
    expect_not_shown(&run(&dropped).succeed());
    // The exec and the exit.
    assert!(discarded(&status(), "rule") >= before + 2);
    let (_folder, other) = program("nightjar-dropped-not");
    expect_shown(&run(other).succeed());
}

#[test]
fn the_first_rule_that_fits_decides() {
    skip_without_kernel!();
    share();
    let (_folder, kept) = program("nightjar-kept-and-dropped");
    expect_shown(&run(kept).succeed());
    let (_folder, dropped) = program("nightjar-dropped-and-kept");
    expect_not_shown(&run(dropped).succeed());
}

#[test]
fn users_are_dropped_by_name_and_by_number() {
    skip_without_kernel!();
    share();
    expect_not_shown(&run(TRUE).as_user(NOBODY, NOBODY).succeed());
    expect_not_shown(&run(TRUE).as_user(12345, 12345).succeed());
    expect_shown(&run(TRUE).as_user(12346, 12345).succeed());
    expect_shown(&run(TRUE).as_user(0, NOBODY).succeed());
}

#[test]
fn what_a_user_who_is_dropped_does_as_another_is_shown() {
    skip_without_kernel!();
    share();
    let (_folder, program) = program_with_mode("setuid", 0o4755);
    let ran = run(program).as_user(NOBODY, NOBODY).succeed();
    ran.expect_event(exec().with("process.uid", NOBODY).with("process.euid", 0));
    ran.expect_event(exit());
    ran.expect_event(credentials().with("credentials.call", "exec"));
}

#[test]
fn all_conditions_of_a_rule_must_fit() {
    skip_without_kernel!();
    share();
    let (_folder, both) = program("nightjar-both");
    expect_shown(&run(&both).succeed());
    expect_shown(&run(TRUE).as_user(DAEMON, DAEMON).succeed());
    expect_not_shown(&run(&both).as_user(DAEMON, DAEMON).succeed());
}

#[test]
fn kinds_are_dropped_alone() {
    skip_without_kernel!();
    share();
    let (_folder, program) = program("nightjar-no-exit");
    let ran = run(program).succeed();
    ran.expect_event(exec());
    ran.expect_no(&exit());
}

#[test]
fn the_child_of_a_program_that_is_dropped_has_it_for_a_parent() {
    skip_without_kernel!();
    share();
    let folder = folder_for_all();
    let dropped = copy_of("/bin/sh", folder.path().join("nightjar-dropped"), 0o755);
    let script = format!("{TRUE} of-one-that-is-dropped; exit 0");
    let ran = run(&dropped).args(["-c", &script]).succeed();
    expect_not_shown(&ran);
    ran.expect_event_of_another(
        &exec()
            .args(&[TRUE, "of-one-that-is-dropped"])
            .with("parent.pid", ran.pid)
            .with("parent.exe.path", dropped.to_str().unwrap())
            .with("parent.args", [dropped.to_str().unwrap(), "-c", &script].as_slice())
            .with("process.source", "kernel"),
    );
}

/// Runs programs in a cgroup until the kernel programs leave out what comes from there.
fn await_filtering(cgroup: &Cgroup) {
    let filtered = || hook_count(&status(), "exec", "filtered");
    let before = filtered();
    until("execs in the cgroup are left out", || {
        quiet(&[&me(), "in-cgroup", cgroup.folder(), TRUE]);
        (filtered() > before).then_some(())
    });
}

/// What happens in a cgroup that is dropped ends in the kernel.
fn expect_left_out_by_the_kernel(cgroup: &Cgroup) {
    const PROGRAMS: u64 = 200;
    await_filtering(cgroup);
    let before = status();
    let words = ["in-cgroup", cgroup.folder(), &me(), "spawn-many", &PROGRAMS.to_string(), TRUE];
    let ran = workload(&words).succeed();
    // That it was put there is shown, what it became there is not.
    let events = ran.events();
    let execs: Vec<_> = events.iter().filter(|event| event.kind() == "process.exec").collect();
    assert_eq!(execs.len(), 1, "{execs:?}");
    assert_eq!(execs[0].list("process.args")[1], "in-cgroup");
    ran.expect_no(&exit());
    for pid in ran.said()["pids"].as_array().unwrap() {
        let pid = u32::try_from(pid.as_u64().unwrap()).unwrap();
        let kinds: Vec<_> = ran.events_of(pid).iter().map(|event| event.kind().to_owned()).collect();
        assert!(kinds.is_empty(), "{pid}: {kinds:?}");
    }
    let after = status();
    let more = |hook: &str, what: &str| hook_count(&after, hook, what) - hook_count(&before, hook, what);
    // Nothing but these ran there, and nothing else is left out at an exec.
    assert_eq!(more("exec", "filtered"), PROGRAMS + 1, "{after}");
    assert_eq!(more("exec", "seen"), more("exec", "filtered") + more("exec", "submitted"), "{after}");
    // Ends are always sent, as the process table lives on them.
    assert!(discarded(&after, "rule") >= discarded(&before, "rule") + PROGRAMS, "{after}");
}

/// One at a time: how many execs are left out is counted.
static FILTERED_EXECS: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_cgroup_that_is_dropped_is_left_out_in_the_kernel() {
    skip_without_kernel!();
    let Some(hierarchy) = cgroup_hierarchy() else { return skip("no cgroup hierarchy is mounted") };
    let _alone = FILTERED_EXECS.lock();
    share();
    expect_left_out_by_the_kernel(&Cgroup::new(&hierarchy, "nightjar-dropped"));
}

#[test]
fn a_container_that_is_dropped_is_left_out_in_the_kernel() {
    skip_without_kernel!();
    let Some(hierarchy) = cgroup_hierarchy() else { return skip("no cgroup hierarchy is mounted") };
    let _alone = FILTERED_EXECS.lock();
    share();
    let id = |first: &str| format!("{:0<64}", format!("{first}{}", std::process::id()));
    let dropped = Cgroup::at(&hierarchy, &format!("docker/{}", id("c0ffee")));
    expect_left_out_by_the_kernel(&dropped);

    let other = id("c0ffe0");
    let cgroup = Cgroup::at(&hierarchy, &format!("docker/{other}"));
    let ran = workload(&["in-cgroup", cgroup.folder(), TRUE]).succeed();
    ran.expect_event(exec().exe(TRUE).with("process.container.id", other.as_str()));
    ran.expect_event(exit().with("process.container.id", other));
}

#[test]
fn execs_alone_are_left_out_of_a_cgroup() {
    skip_without_kernel!();
    let Some(hierarchy) = cgroup_hierarchy() else { return skip("no cgroup hierarchy is mounted") };
    let _alone = FILTERED_EXECS.lock();
    share();
    let cgroup = Cgroup::new(&hierarchy, "nightjar-no-exec");
    await_filtering(&cgroup);
    let ran = workload(&["in-cgroup", cgroup.folder(), TRUE]).succeed();
    ran.expect_no(&exec().exe(TRUE));
    ran.expect_event(exit().with("process.cgroup.path", cgroup.path()).with("process.source", "partial"));
}

#[test]
fn who_leaves_a_cgroup_that_is_dropped_is_shown_as_far_as_it_is_known() {
    skip_without_kernel!();
    let Some(hierarchy) = cgroup_hierarchy() else { return skip("no cgroup hierarchy is mounted") };
    let _alone = FILTERED_EXECS.lock();
    share();
    let (dropped, other) =
        (Cgroup::new(&hierarchy, "nightjar-dropped"), Cgroup::new(&hierarchy, "nightjar-shown"));
    await_filtering(&dropped);
    let script = format!("echo 0 > {}/cgroup.procs; exit 3", other.folder());
    let ran = workload(&["in-cgroup", dropped.folder(), "/bin/sh", "-c", &script]).finish();
    assert_eq!(ran.ended.status.code(), Some(3), "{}", ran.stderr);
    ran.expect_no(&exec().exe("/bin/sh"));
    // It is not said to run what it ran before the exec that nobody saw.
    ran.expect_event(
        exit()
            .code(3)
            .with("process.cgroup.path", other.path())
            .with("process.source", "partial")
            .with("process.comm", "sh")
            .without("process.exe")
            .without("process.args"),
    );
    // Once it has an exec that is seen, all is known.
    let words = ["in-cgroup", dropped.folder(), &me(), "in-cgroup", other.folder(), TRUE, "outside"];
    let ran = workload(&words).succeed();
    ran.expect_event(exec().args(&[TRUE, "outside"]).exe(TRUE).with("process.source", "kernel"));
    ran.expect_event(exit().exe(TRUE).with("process.cgroup.path", other.path()));
}

#[test]
fn a_cgroup_that_was_there_before_the_agent_is_left_out_from_its_first_exec_on() {
    skip_without_kernel!();
    let Some(hierarchy) = cgroup_hierarchy() else { return skip("no cgroup hierarchy is mounted") };
    let cgroup = Cgroup::new(&hierarchy, "nightjar-old");
    let agent =
        Agent::configured("filters: [{drop: {cgroup: '/nightjar-old-*'}}]\n", &["--ring-size", "64MiB"]);
    let filtered = || hook_count(&status_of(agent.instance()), "exec", "filtered");
    let mut ran = Vec::new();
    until("execs in the cgroup are left out", || {
        ran.push(quiet(&[&me(), "in-cgroup", cgroup.folder(), TRUE, "in-an-old-cgroup"]));
        (filtered() > 0).then_some(())
    });
    agent.catch_up();
    let shown = agent.events("process.exec");
    let inside = shown.iter().find(|event| event.list("process.args").contains(&"in-an-old-cgroup"));
    assert!(inside.is_some_and(|event| event.list("process.args")[1] == "in-cgroup"), "{inside:?}");
    assert!(
        shown.iter().all(|event| event.get("process.cgroup.path").is_none_or(|path| path != cgroup.path()))
    );

    // Rules that are taken away count no more, in the kernel neither.
    agent.reload_and_wait("");
    let (before, mark) = (filtered(), agent.mark());
    let pid = quiet(&[&me(), "in-cgroup", cgroup.folder(), TRUE, "shown-again"]);
    agent.expect_event(&exec().of_process(pid).exe(TRUE).with("process.cgroup.path", cgroup.path()), mark);
    assert_eq!(filtered(), before);
    agent.stop().expect_nothing_lost();
}

#[test]
fn a_rule_without_conditions_drops_all() {
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let (configuration, events) = (folder.path().join("nightjar.yaml"), folder.path().join("events.json"));
    fs::write(&configuration, "filters: [{drop: {}}]\n").unwrap();
    let instance = nightjar_tests::instance();
    let mut command = nightjar(["run", "--instance", &instance, "--ring-size", "64MiB"]);
    command.arg("--config").arg(&configuration).arg("--json").arg(&events);
    let agent = Service::of(command, &instance);
    until("what is dropped is counted", || {
        quiet(&[TRUE, "dropped"]);
        (discarded(&agent.status(), "rule") > 20).then_some(())
    });
    let flow = agent.status()["flow"].clone();
    assert_eq!(flow.get("exported"), None, "{flow}");
    agent.end_well(Signal::TERM);
    assert_eq!(fs::read_to_string(events).unwrap(), "");
}
