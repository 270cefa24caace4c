//! `process.fork`: who made whom.

use nightjar_tests::{Event, TRUE, exec, exit, fork, skip_without_kernel, workload};
use serde_json::json;

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/sched.h#L40>
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

#[test]
fn a_child_has_its_parent_and_runs_the_same_program() {
    skip_without_kernel!();
    let ran = workload(&["fork"]).succeed();
    let child = ran.number("child");
    let parent = ran.expect_event(exec());
    let born = ran.expect_event(
        fork()
            .of_process(child)
            .with("process.tid", child)
            .with("process.ppid", ran.pid)
            .with("process.exe", parent.field("process.exe").clone())
            .with("process.args", parent.field("process.args").clone())
            .with("process.source", "kernel")
            .with("parent.pid", ran.pid)
            .with("parent.id", parent.text("process.id"))
            .with("parent.exec_id", parent.text("process.exec_id"))
            .without("fork.clone_flags")
            .without("fork.creator"),
    );
    ran.expect_event(exit().of_process(child).code(0).with("process.id", born.text("process.id")));
    assert_eq!(born.nanos("process.start_time").max(born.nanos("time")), born.nanos("time"));
}

#[test]
fn a_spawn_shares_memory_until_the_exec() {
    skip_without_kernel!();
    let ran = workload(&["spawn", TRUE, "spawned"]).succeed();
    let child = ran.number("child");
    let flags = ran.expect_event(fork().of_process(child));
    let flags = flags.list("fork.clone_flags");
    assert!(flags.contains(&"vm") && flags.contains(&"vfork"), "{flags:?}");
    ran.expect_event(exec().of_process(child).args(&[TRUE, "spawned"]).with("parent.pid", ran.pid));
}

#[test]
fn flags_of_a_clone_have_names() {
    skip_without_kernel!();
    for (flags, names) in [
        (libc::CLONE_FS, json!(["fs"])),
        (libc::CLONE_FILES | libc::CLONE_SYSVSEM, json!(["files", "sysvsem"])),
        (libc::CLONE_NEWUTS | libc::CLONE_NEWIPC, json!(["newuts", "newipc"])),
        (libc::CLONE_NEWPID, json!(["newpid"])),
    ] {
        let ran = workload(&["clone", &flags.to_string()]).succeed();
        ran.expect_event(fork().of_process(ran.number("child")).with("fork.clone_flags", names));
    }
}

#[test]
fn a_flag_that_only_clone3_has_is_named() {
    skip_without_kernel!();
    let ran = workload(&["clone", &CLONE_CLEAR_SIGHAND.to_string()]).succeed();
    ran.expect_event(
        fork().of_process(ran.number("child")).with("fork.clone_flags", json!(["clear_sighand"])),
    );
}

#[test]
fn the_parent_of_an_orphan_stays_who_made_it() {
    skip_without_kernel!();
    let ran = workload(&["double-fork", TRUE, "orphan"]).succeed();
    let (middle, grandchild) = (ran.number("intermediate"), ran.number("grandchild"));
    let adopted_by = ran.number("adopted_by");
    assert_ne!(adopted_by, middle);
    let born = ran
        .expect_event(fork().of_process(grandchild).with("process.ppid", middle).with("parent.pid", middle));
    ran.expect_event(exit().of_process(middle));
    ran.expect_event(
        exec()
            .of_process(grandchild)
            .args(&[TRUE, "orphan"])
            .with("process.ppid", adopted_by)
            .with("parent.pid", middle)
            .with("parent.id", born.text("parent.id"))
            .with("parent.comm", "workload"),
    );
}

#[test]
fn a_child_that_is_made_for_another_names_its_creator() {
    skip_without_kernel!();
    let ran = workload(&["clone-parent"]).succeed();
    let (creator, sibling) = (ran.number("creator"), ran.number("sibling"));
    let of_creator = ran.expect_event(fork().of_process(creator));
    ran.expect_event(
        fork()
            .of_process(sibling)
            .with("process.ppid", ran.pid)
            .with("parent.pid", ran.pid)
            .with("fork.clone_flags", json!(["parent"]))
            .with("fork.creator.pid", creator)
            .with("fork.creator.id", of_creator.text("process.id")),
    );
}

#[test]
fn threads_are_no_processes() {
    skip_without_kernel!();
    let ran = workload(&["threads", "5"]).succeed();
    assert_eq!(ran.said()["tids"].as_array().unwrap().len(), 5);
    let events = ran.events();
    let kinds: Vec<_> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["process.fork", "process.exec", "process.exit"]);
}
