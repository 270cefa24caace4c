//! `process.credentials`: who became whom, by which call.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use nightjar_tests::{
    Event, Expect, Ran, copy_of, credentials, exit, folder_for_all, run, skip_without_kernel, workload,
    workload_path,
};
use serde_json::{Value, json};

const SETS: [&str; 2] = ["before", "after"];

fn numbers(line: &Value) -> Vec<u32> {
    line.as_array().unwrap().iter().map(|word| word.as_str().unwrap().parse().unwrap()).collect()
}

/// A change by `call` of what the helper says that it was before and is after.
fn change_of(said: &Value, call: &str) -> Expect {
    SETS.iter().fold(credentials().with("credentials.call", call), |expect, set| {
        let status = &said[set]["status"];
        let ids = [(["uid", "euid", "suid", "fsuid"], "Uid"), (["gid", "egid", "sgid", "fsgid"], "Gid")];
        let expect = ids.iter().fold(expect, |expect, (names, line)| {
            let values = numbers(&status[line]);
            names
                .iter()
                .zip(values)
                .fold(expect, |expect, (name, value)| expect.with(format!("credentials.{set}.{name}"), value))
        });
        // A process that has just become another user may not look into its own namespaces.
        let namespace = said[set]["namespaces"].get("user").unwrap_or(&said["before"]["namespaces"]["user"]);
        expect
            .with_or_default(format!("credentials.{set}.securebits"), said[set]["securebits"].clone())
            .with(format!("credentials.{set}.user_namespace"), namespace.clone())
    })
}

fn changes_of(ran: &Ran) -> Vec<Event> {
    ran.events().into_iter().filter(|event| event.kind() == "process.credentials").collect()
}

/// The helper makes one change; there is one event, and it is of that change.
fn one_change(words: &[&str], call: &str) -> Event {
    let ran = workload(words).succeed();
    let event = ran.expect_event(change_of(&ran.said(), call).with("process.tid", ran.pid));
    let changes = changes_of(&ran);
    assert_eq!(changes.len(), 1, "{changes:?}");
    event
}

#[test]
fn setuid_is_told_with_what_was_before_and_after() {
    skip_without_kernel!();
    let event = one_change(&["setuid", "33"], "setuid");
    assert_eq!(event.text("credentials.before.user"), "root");
    assert_eq!(event.text("credentials.after.user"), "www-data");
    assert_eq!(event.number("process.uid"), 33);
    // Root that becomes another user loses its capabilities.
    assert!(event.list("credentials.capabilities_lost").contains(&"sys_admin"));
    assert_eq!(event.get("credentials.capabilities_gained"), None);
    assert_eq!(event.get("credentials.after.capabilities.effective"), None);
}

#[test]
fn setuid_by_the_c_library_changes_every_thread() {
    skip_without_kernel!();
    let ran = workload(&["setuid-with-threads", "33"]).succeed();
    ran.expect_event(credentials().with("process.tid", ran.pid).with("credentials.after.uid", 33));
    let changes = changes_of(&ran);
    let mut tids: Vec<_> = changes.iter().map(|event| event.number("process.tid")).collect();
    tids.sort_unstable();
    tids.dedup();
    assert_eq!((changes.len(), tids.len()), (3, 3), "{changes:?}");
    assert!(changes.iter().all(|event| event.text("credentials.call") == "setuid"));
}

#[test]
fn setuid_of_one_thread_alone_is_told_of_that_thread() {
    skip_without_kernel!();
    let ran = workload(&["setuid-one-thread", "33"]).succeed();
    let said = ran.said();
    assert_eq!(said["leader"]["status"]["Uid"], json!(["0", "0", "0", "0"]));
    let changes = changes_of(&ran);
    let [event] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(event.field("process.tid"), &said["tid"]);
    assert_eq!(event.number("process.pid"), u64::from(ran.pid));
    assert_eq!(event.number("credentials.after.uid"), 33);
    ran.expect_event(exit().with("process.uid", 0));
}

#[test]
fn setresuid_is_told() {
    skip_without_kernel!();
    let event = one_change(&["setresuid", "-1", "33", "7"], "setresuid");
    assert_eq!(event.number("credentials.after.euid"), 33);
    assert_eq!(event.number("credentials.after.suid"), 7);
    assert_eq!(event.text("credentials.after.euser"), "www-data");
}

#[test]
fn setgid_is_told() {
    skip_without_kernel!();
    let event = one_change(&["setgid", "33"], "setgid");
    assert_eq!(event.text("credentials.before.group"), "root");
    assert_eq!(event.text("credentials.after.group"), "www-data");
}

#[test]
fn setfsuid_is_told() {
    skip_without_kernel!();
    one_change(&["setfsuid", "33"], "setfsuid");
}

#[test]
fn a_capability_that_is_dropped_is_named() {
    skip_without_kernel!();
    let event = one_change(&["capset-without", "13"], "capset");
    assert_eq!(event.list("credentials.capabilities_lost"), ["net_raw"]);
    assert_eq!(event.get("credentials.capabilities_gained"), None);
}

#[test]
fn a_smaller_bounding_set_is_told() {
    skip_without_kernel!();
    let event = one_change(&["capbset-drop", "13"], "prctl");
    let bounding = |set: &str| event.field(&format!("credentials.{set}.capabilities.bounding")).clone();
    assert_ne!(bounding("before"), bounding("after"));
    assert_eq!(event.get("credentials.capabilities_lost"), None, "it has it still");
}

#[test]
fn secure_bits_are_told() {
    skip_without_kernel!();
    let ran = workload(&["securebits", "4"]).succeed();
    assert_eq!(ran.said()["securebits"], 4);
    ran.expect_event(
        credentials()
            .with("credentials.call", "prctl")
            .without("credentials.before.securebits")
            .with("credentials.after.securebits", 4),
    );
}

#[test]
fn a_new_user_namespace_is_told() {
    skip_without_kernel!();
    let ran = workload(&["unshare-user"]).succeed();
    let said = ran.said();
    // The namespace maps no user yet: the process sees itself as nobody, the host sees who it is.
    let namespace = |set: &str| said[set]["namespaces"]["user"].clone();
    assert_ne!(namespace("before"), namespace("after"));
    ran.expect_event(
        credentials()
            .with("credentials.call", "unshare")
            .with("credentials.before.user_namespace", namespace("before"))
            .with("credentials.after.user_namespace", namespace("after"))
            .with("credentials.after.uid", 0),
    );
}

#[test]
fn an_ordinary_user_gains_capabilities_in_a_new_user_namespace() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let helper = copy_of(workload_path(), folder.path().join("workload"), 0o755);
    let ran = run(helper).arg("unshare-user").as_user(65534, 65534).succeed();
    let event = ran.expect_event(credentials().with("credentials.call", "unshare"));
    assert!(event.list("credentials.capabilities_gained").contains(&"sys_admin"), "{event}");
}

#[test]
fn a_child_that_is_born_in_a_new_user_namespace_is_told() {
    skip_without_kernel!();
    let running = workload(&["clone-user"]).start();
    let ran = running.finish();
    let child = ran.number("child");
    let text = String::from_utf8(ran.output.clone()).unwrap();
    let inside: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    ran.expect_event(
        credentials()
            .of_process(child)
            .with("credentials.call", "clone")
            .with("credentials.after.user_namespace", inside["namespaces"]["user"].clone())
            .with("process.namespaces.user", inside["namespaces"]["user"].clone())
            .with("process.ppid", ran.pid),
    );
}

#[test]
fn calls_that_change_nothing_are_no_events() {
    skip_without_kernel!();
    workload(&["change-nothing"]).succeed().expect_no(&credentials());
}

#[test]
fn an_ordinary_run_changes_no_credentials() {
    skip_without_kernel!();
    run("/usr/bin/true").succeed().expect_no(&credentials());
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_change_by_a_32_bit_call_is_found_at_the_latest_at_the_end() {
    skip_without_kernel!();
    let ran = workload(&["setuid-32-bit", "33"]).succeed();
    assert_eq!(ran.number("uid"), 33);
    ran.expect_event(
        credentials()
            .without("credentials.call")
            .with("credentials.before.uid", 0)
            .with("credentials.after.uid", 33),
    );
    let kinds: Vec<_> = ran.events().iter().map(|event| event.kind().to_owned()).collect();
    assert_eq!(kinds, ["process.fork", "process.exec", "process.credentials", "process.exit"]);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_change_is_not_put_down_to_a_later_call_that_made_none() {
    skip_without_kernel!();
    // A `prctl` that only asks, after a change that no tracepoint saw.
    let ran = workload(&["setuid-32-bit-and-ask", "33"]).succeed();
    ran.expect_event(credentials().with("credentials.after.uid", 33).without("credentials.call"));
}
