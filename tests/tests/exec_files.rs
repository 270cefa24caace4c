//! `process.exec`: which file it was, wherever it is.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::Path,
};

use nightjar_tests::{
    TRUE, copy_of, exec, exit, folder_for_all, run, skip_without_kernel, workload, workload_path,
};
use serde_json::{Value, json};

/// What an event should say of a file.
fn file(path: &Path) -> Value {
    let data = fs::metadata(path).unwrap();
    json!({
        "path": path,
        "inode": data.ino(),
        "device": format!("{}:{}", libc::major(data.dev()), libc::minor(data.dev())),
        "links": data.nlink(),
        "mode": format!("{:04o}", data.mode() & 0o7777),
        "uid": data.uid(),
        "gid": data.gid(),
    })
}

#[test]
fn the_file_is_described_as_stat_does() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join("program"), 0o1751);
    chown(&program, Some(1234), Some(4321)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o1751)).unwrap();
    fs::hard_link(&program, folder.path().join("second-name")).unwrap();
    let expected = file(&program);
    assert_eq!((&expected["links"], &expected["mode"]), (&json!(2), &json!("1751")));
    let ran = run(&program).succeed();
    ran.expect_event(exec().with("process.exe", expected.clone()));
    ran.expect_event(exit().with("process.exe", expected));
}

#[test]
fn the_parent_has_its_file_and_arguments_too() {
    skip_without_kernel!();
    let program = workload_path();
    let ran = workload(&["spawn", TRUE]).succeed();
    ran.expect_event(
        exec()
            .of_process(ran.number("child"))
            .exe(TRUE)
            .with("process.ppid", ran.pid)
            .with("parent.pid", ran.pid)
            .with("parent.comm", "workload")
            .with("parent.uid", 0)
            .with("parent.user", "root")
            .with("parent.exe", file(&program))
            .with("parent.args", json!([program, "spawn", TRUE])),
    );
}

/// What the program says of its own file, seen from where it runs, against the event.
fn runs_as_it_says(words: &[&str], name: &Path) {
    let ran = workload(words).succeed();
    let said = ran.said();
    assert_eq!(said["exe"]["path"], json!(name));
    ran.expect_event(
        exec()
            .with("process.exe", said["exe"].clone())
            .with("process.namespaces.mnt", said["namespaces"]["mnt"].clone()),
    );
}

#[test]
fn a_program_on_tmpfs_has_its_path() {
    skip_without_kernel!();
    let (folder, program) = (folder_for_all(), workload_path());
    let place = folder.path().to_str().unwrap();
    runs_as_it_says(&["on-tmpfs", place, program.to_str().unwrap(), "facts"], &folder.path().join("program"));
}

#[test]
fn a_program_behind_a_bind_mount_has_the_path_that_it_was_reached_by() {
    skip_without_kernel!();
    let (real, shown) = (folder_for_all(), folder_for_all());
    let _program = copy_of(workload_path(), real.path().join("workload"), 0o755);
    let words =
        ["bind-mounted", real.path().to_str().unwrap(), shown.path().to_str().unwrap(), "workload", "facts"];
    runs_as_it_says(&words, &shown.path().join("workload"));
}

#[test]
fn a_program_on_overlayfs_has_the_path_in_the_merged_tree() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let _program = copy_of(workload_path(), Path::new(&lower).join("workload"), 0o755);
    runs_as_it_says(
        &["on-overlay", &lower, &upper, &work, &merged, "workload", "facts"],
        &Path::new(&merged).join("workload"),
    );
}

#[test]
fn a_file_that_was_removed_is_deleted_and_keeps_its_path() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(workload_path(), folder.path().join("gone"), 0o755);
    let ran = run(&program).args(["exec-deleted", "facts"]).succeed();
    let said = ran.said();
    assert_eq!(said["exe"]["links"], 0);
    assert_eq!(said["exe"]["path"], format!("{} (deleted)", program.display()));
    let event = ran.expect_event(
        exec()
            .with("exec.filename", "/proc/self/exe")
            .with("process.exe.deleted", true)
            .without("process.exe.memfd")
            .with("process.exe.links", 0)
            .with("process.exe.inode", said["exe"]["inode"].clone()),
    );
    assert_eq!(event.text("process.exe.path"), program.to_str().unwrap());
}

#[test]
fn a_memfd_is_told_from_a_file() {
    skip_without_kernel!();
    let program = workload_path();
    let ran = workload(&["exec-memfd", program.to_str().unwrap(), "payload", "name", "facts"]).succeed();
    let said = ran.said();
    ran.expect_event(
        exec()
            .args(&["name", "facts"])
            .with("process.exe.path", "/memfd:payload")
            .with("process.exe.memfd", true)
            .without("process.exe.deleted")
            .with("process.exe.inode", said["exe"]["inode"].clone()),
    );
}

#[test]
fn a_file_that_is_called_like_a_memfd_is_none() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join("memfd:payload"), 0o755);
    run(&program).expect_event(exec().exe(&program).without("process.exe.memfd"));
}

#[test]
fn a_program_with_a_long_path_is_no_script() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let deep = folder.path().join("x".repeat(150)).join("y".repeat(150));
    fs::create_dir_all(&deep).unwrap();
    let program = copy_of(TRUE, deep.join("program"), 0o755);
    run(&program)
        .succeed()
        .expect_event(exec().with("process.exe.path", json!(program)).without("exec.script"));
}

#[test]
fn a_name_that_is_gone_is_deleted_even_if_the_file_has_another() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(TRUE, folder.path().join("program"), 0o755);
    fs::hard_link(&program, folder.path().join("second-name")).unwrap();
    let open = fs::File::open(&program).unwrap();
    fs::remove_file(&program).unwrap();
    let through_descriptor = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
    run(&through_descriptor).succeed().expect_event(
        exec()
            .with("process.exe.path", json!(program))
            .with("process.exe.links", 1)
            .with("process.exe.deleted", true),
    );
}
