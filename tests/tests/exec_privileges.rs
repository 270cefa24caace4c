//! `process.exec`: what a file gave to whom ran it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
};

use nightjar_tests::{
    TRUE, copy_of, credentials, exec, folder_for_all, run, set_file_capabilities, skip_without_kernel,
    workload, workload_path,
};
use serde_json::json;

const NOBODY: u32 = 65534;
const CAP_NET_RAW: u32 = 1 << 13;

#[test]
fn a_setuid_program_gives_another_user() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(workload_path(), folder.path().join("setuid"), 0o4755);
    let ran = run(&program).arg("facts").as_user(NOBODY, NOBODY).succeed();
    assert_eq!(ran.said()["status"]["Uid"], json!(["65534", "0", "0", "0"]));
    ran.expect_event(
        exec()
            .exe(&program)
            .with("process.exe.mode", "4755")
            .with("exec.privileges_gained", json!(["setuid"]))
            .with("process.uid", NOBODY)
            .with("process.user", "nobody")
            .with("process.euid", 0)
            .with("process.euser", "root")
            .with("process.suid", 0)
            .with("process.fsuid", 0)
            .with("process.egid", NOBODY),
    );
    let change = ran.expect_event(
        credentials()
            .with("credentials.call", "exec")
            .with("credentials.before.euid", NOBODY)
            .with("credentials.after.euid", 0)
            .with("credentials.after.uid", NOBODY)
            .with("credentials.after.suid", 0),
    );
    assert!(change.list("credentials.capabilities_gained").contains(&"sys_admin"));
    assert_eq!(change.get("credentials.capabilities_lost"), None);
}

#[test]
fn a_setgid_program_gives_another_group() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join("setgid"), 0o755);
    chown(&program, Some(0), Some(42)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
    let ran = run(&program).as_user(NOBODY, NOBODY).succeed();
    ran.expect_event(
        exec()
            .with("exec.privileges_gained", json!(["setgid"]))
            .with("process.gid", NOBODY)
            .with("process.egid", 42)
            .with("process.sgid", 42)
            .with("process.fsgid", 42)
            .with("process.euid", NOBODY),
    );
    ran.expect_event(credentials().with("credentials.call", "exec").with("credentials.after.egid", 42));
}

#[test]
fn file_capabilities_are_given() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(workload_path(), folder.path().join("capable"), 0o755);
    set_file_capabilities(&program, CAP_NET_RAW);
    let ran = run(&program).arg("facts").as_user(NOBODY, NOBODY).succeed();
    assert_eq!(ran.said()["status"]["CapEff"], json!(["0000000000002000"]));
    ran.expect_event(
        exec()
            .with("exec.privileges_gained", json!(["file_capabilities"]))
            .with("process.capabilities.effective", json!(["net_raw"]))
            .with("process.capabilities.permitted", json!(["net_raw"]))
            .with("process.euid", NOBODY),
    );
    ran.expect_event(
        credentials()
            .with("credentials.call", "exec")
            .with("credentials.capabilities_gained", json!(["net_raw"]))
            .without("credentials.capabilities_lost"),
    );
}

#[test]
fn root_gains_nothing_from_a_setuid_file_of_root() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join("setuid"), 0o4755);
    let ran = run(&program).succeed();
    ran.expect_event(exec().without("exec.privileges_gained"));
    ran.expect_no(&credentials());
}

#[test]
fn no_new_privs_keeps_a_setuid_file_from_giving_anything() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join("setuid"), 0o4755);
    let helper = copy_of(workload_path(), folder.path().join("workload"), 0o755);
    run(helper).args(["no-new-privs", program.to_str().unwrap()]).as_user(NOBODY, NOBODY).expect_event(
        exec()
            .exe(&program)
            .with("process.no_new_privs", true)
            .with("process.euid", NOBODY)
            .without("exec.privileges_gained"),
    );
}

#[test]
fn an_ordinary_user_has_no_capabilities() {
    skip_without_kernel!();
    let ran = run(TRUE).as_user(NOBODY, NOBODY).succeed();
    ran.expect_event(
        exec()
            .without("process.capabilities.effective")
            .without("process.capabilities.permitted")
            .without("process.no_new_privs")
            .without("process.securebits")
            .without("process.euser")
            .with("process.group", group_name(NOBODY)),
    );
}

fn group_name(gid: u32) -> String {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let is = |line: &&str| line.split(':').nth(2) == Some(&gid.to_string());
    groups.lines().find(is).unwrap().split(':').next().unwrap().to_owned()
}

#[test]
fn ambient_capabilities_and_secure_bits_are_told() {
    skip_without_kernel!();
    let program = workload_path();
    let program = program.to_str().unwrap();
    // SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_SETUID_FIXUP
    let ran = workload(&["ambient", "13", program, "securebits", "36", program, "facts"]).succeed();
    let said = ran.said();
    assert_eq!((&said["securebits"], &said["status"]["CapAmb"]), (&json!(36), &json!(["0000000000002000"])));
    ran.expect_event(
        exec()
            .args(&[program, "facts"])
            .with("process.securebits", 36)
            .with("process.capabilities.ambient", json!(["net_raw"]))
            .with("process.capabilities.inheritable", json!(["net_raw"]))
            .without("exec.privileges_gained"),
    );
}
