//! `process.exec`: names and arguments, whatever bytes they are of.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::PathBuf,
};

use nightjar_tests::{
    Event, TRUE, copy_of, exec, exec_failed, exit, folder_for_all, make_executable, run, skip_without_kernel,
    workload, workload_path,
};
use serde_json::json;

/// Bytes that arguments take in a process.
fn size_of_arguments(args: &[&[u8]]) -> u64 {
    args.iter().map(|arg| arg.len() as u64 + 1).sum()
}

fn assert_arguments(event: &Event, args: &[&[u8]]) {
    assert_eq!(event.arguments(), args);
    assert_eq!(event.number("exec.argc"), args.len() as u64);
    assert_eq!(event.number("exec.args_size"), size_of_arguments(args));
    assert_eq!(event.get("process.args_truncated"), None);
}

#[test]
fn a_program_that_runs_is_an_event() {
    skip_without_kernel!();
    let ran = run("/bin/true").arg("one two").in_folder("/usr/lib").succeed();
    let event = ran.expect_event(
        exec()
            .exe(TRUE)
            .args(&["/bin/true", "one two"])
            .with("schema", 1)
            .with("process.pid", ran.pid)
            .with("process.tid", ran.pid)
            .with("process.ppid", std::process::id())
            .with("process.comm", "true")
            .with("process.cwd", "/usr/lib")
            .with("process.source", "kernel")
            .with("parent.pid", std::process::id())
            .with("parent.exe.path", std::env::current_exe().unwrap().to_str())
            .with("exec", json!({"filename": "/bin/true", "argc": 2, "args_size": 18})),
    );
    assert_eq!(event.text("host"), rustix::system::uname().nodename().to_str().unwrap());
    assert!(event.nanos("process.start_time") <= event.nanos("time"));
    ran.expect_event(
        exit()
            .code(0)
            .with("process.id", event.text("process.id"))
            .with("process.exec_id", event.text("process.exec_id"))
            .args(&["/bin/true", "one two"])
            .with("process.cwd", "/usr/lib"),
    );
}

#[test]
fn one_run_is_one_exec_and_one_exit() {
    skip_without_kernel!();
    let events = run(TRUE).succeed().events();
    let kinds: Vec<_> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["process.fork", "process.exec", "process.exit"]);
    let times: Vec<_> = events.iter().map(|event| event.nanos("time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let ids: Vec<_> = events.iter().map(|event| event.text("id")).collect();
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn two_hundred_arguments_are_all_there() {
    skip_without_kernel!();
    let numbers: Vec<String> = (0..200).map(|number| format!("argument {number}")).collect();
    let mut args: Vec<&[u8]> = vec![TRUE.as_bytes()];
    args.extend(numbers.iter().map(String::as_bytes));
    assert_arguments(&run(TRUE).args(&numbers).expect_event(exec()), &args);
}

#[test]
fn the_beginning_of_an_argument_of_100_kib_is_kept_and_its_size_is_told() {
    skip_without_kernel!();
    let long: String = (0..100 << 10).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
    let event = run(TRUE)
        .args([long.as_str(), "last"])
        .expect_event(exec().with("process.args_truncated", true).with("exec.argc", 3));
    assert_eq!(
        event.number("exec.args_size"),
        size_of_arguments(&[TRUE.as_bytes(), long.as_bytes(), b"last"])
    );
    let args = event.arguments();
    assert_eq!(args.len(), 2);
    assert!(args[1].len() >= 16 << 10, "only {} bytes were kept", args[1].len());
    assert!(long.as_bytes().starts_with(&args[1]));
}

#[test]
fn an_empty_argument_list_is_what_the_kernel_makes_of_it() {
    skip_without_kernel!();
    // The program prints its own /proc/self/cmdline: one empty argument since 5.18, nothing before.
    // https://github.com/torvalds/linux/blob/v6.12/fs/exec.c#L1879-L1899
    let ran = workload(&["exec-without-arguments", "/bin/cat"]).succeed();
    let shown: Vec<&[u8]> =
        ran.output.split_inclusive(|byte| *byte == 0).map(|arg| &arg[..arg.len() - 1]).collect();
    let event = ran.expect_event(exec().with("exec.filename", "/bin/cat"));
    assert_eq!(event.arguments(), shown);
    assert_eq!(event.get("exec.argc").map_or(0, |_| event.number("exec.argc")), shown.len() as u64);
}

#[test]
fn empty_arguments_are_kept_wherever_they_stand() {
    skip_without_kernel!();
    for args in [&["", "a", "", "b"][..], &["a", ""], &["", ""], &[""]] {
        let mut expected: Vec<&[u8]> = vec![TRUE.as_bytes()];
        expected.extend(args.iter().map(|arg| arg.as_bytes()));
        assert_arguments(&run(TRUE).args(args).expect_event(exec()), &expected);
    }
}

#[test]
fn any_bytes_in_arguments_come_back() {
    skip_without_kernel!();
    let args: [&[u8]; 8] = [
        b"line\nline\r\n",
        b"\"double\" 'single' `back`",
        b"\x1b[31mred\x1b[0m",
        b"\xff\xfe not UTF-8 \xc3",
        br"\x41 \n \\x",
        "caf\u{e9} \u{1f980}".as_bytes(),
        b"\x01\x02\x7f\t",
        b"{\"kind\":\"process.exit\"}",
    ];
    let event = run(TRUE).args(args.map(OsStr::from_bytes)).expect_event(exec());
    let mut expected: Vec<&[u8]> = vec![TRUE.as_bytes()];
    expected.extend(args);
    assert_arguments(&event, &expected);
}

#[test]
fn any_bytes_in_a_file_name_come_back() {
    skip_without_kernel!();
    let folder = folder_for_all();
    for name in
        [&b"new\nline"[..], b"\"quo'ted\"", b"\x1b[31m", b"\xff\xferaw", br"back\x5cslash", b" (deleted)"]
    {
        let path = copy_of(TRUE, folder.path().join(OsStr::from_bytes(name)), 0o755);
        let event = run(&path).expect_event(exec().without("process.exe.deleted"));
        let bytes = path.as_os_str().as_bytes();
        assert_eq!(event.bytes("process.exe.path"), bytes);
        assert_eq!(event.bytes("exec.filename"), bytes);
        assert_eq!(event.bytes("process.comm"), &name[..name.len().min(15)]);
    }
}

#[test]
fn a_name_of_255_bytes_forty_folders_deep_is_whole() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let deep: PathBuf = (0..40).map(|n| format!("folder number {n}")).collect();
    let deep = folder.path().join(deep);
    std::fs::create_dir_all(&deep).unwrap();
    let path = copy_of(TRUE, deep.join("n".repeat(255)), 0o755);
    run(&path).in_folder(&deep).expect_event(
        exec().exe(&path).with("process.cwd", deep.to_str()).without("process.exe.path_truncated"),
    );
}

#[test]
fn a_relative_path_is_told_with_the_folder_that_it_starts_from() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let path = copy_of(TRUE, folder.path().join("program"), 0o755);
    std::fs::create_dir(folder.path().join("below")).unwrap();
    let below = folder.path().join("below");
    workload(&["in-folder", below.to_str().unwrap(), "../program", "x"]).expect_event(
        exec()
            .exe(&path)
            .args(&["../program", "x"])
            .with("process.cwd", below.to_str())
            .with("exec.filename", "../program"),
    );
}

#[test]
fn a_symbolic_link_is_told_with_the_file_behind_it() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let link = folder.path().join("link");
    symlink(TRUE, &link).unwrap();
    run(&link)
        .expect_event(exec().exe(TRUE).with("exec.filename", link.to_str()).with("process.comm", "link"));
}

#[test]
fn a_name_that_is_not_that_of_the_file_is_kept_apart() {
    skip_without_kernel!();
    run(TRUE)
        .arg0("[kworker/0:1]")
        .expect_event(exec().exe(TRUE).args(&["[kworker/0:1]"]).with("exec.filename", TRUE));
}

#[test]
fn a_program_below_an_open_folder_is_named() {
    skip_without_kernel!();
    let ran = workload(&["exec-at", "/usr/bin", "true", "name"]).succeed();
    let filename = format!("/dev/fd/{}/true", ran.number("dirfd"));
    ran.expect_event(exec().exe(TRUE).args(&["name"]).with("exec.filename", filename));
}

#[test]
fn a_script_is_told_with_its_interpreter() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let script = folder.path().join("script");
    make_executable(&script, "#!/bin/sh -e\nexit 0\n");
    let path = script.to_str().unwrap();
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    run(&script).arg("argument").expect_event(
        exec()
            .exe(shell)
            .args(&["/bin/sh", "-e", path, "argument"])
            .with("process.comm", "script")
            .with("exec.filename", path)
            .with("exec.script", json!({"path": path, "interpreter": "/bin/sh"})),
    );
}

#[test]
fn a_script_that_env_finds_the_interpreter_of_is_two_execs() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let script = folder.path().join("script");
    make_executable(&script, "#!/usr/bin/env sh\nexit 0\n");
    let path = script.to_str().unwrap();
    let ran = run(&script).succeed();
    let first = ran.expect_event(
        exec()
            .exe(std::fs::canonicalize("/usr/bin/env").unwrap())
            .args(&["/usr/bin/env", "sh", path])
            .with("exec.script", json!({"path": path, "interpreter": "/usr/bin/env"})),
    );
    let second = ran.expect_event(
        exec().exe(std::fs::canonicalize("/bin/sh").unwrap()).args(&["sh", path]).without("exec.script"),
    );
    assert_eq!(first.text("process.id"), second.text("process.id"));
    assert_ne!(first.text("process.exec_id"), second.text("process.exec_id"));
}

#[test]
fn a_program_with_a_loader_is_no_script() {
    skip_without_kernel!();
    run(TRUE).expect_event(exec().without("exec.script"));
}

#[test]
fn a_thread_that_runs_a_program_becomes_the_leader() {
    skip_without_kernel!();
    let ran = workload(&["exec-from-thread", TRUE, "marker"]).succeed();
    let tid = ran.number("tid");
    assert_ne!(tid, ran.pid);
    let before = ran.expect_event(exec().exe(workload_path()));
    let after = ran.expect_event(
        exec()
            .exe(TRUE)
            .with("process.pid", ran.pid)
            .with("process.tid", ran.pid)
            .with("exec.thread_became_leader", tid),
    );
    assert_eq!(before.text("process.id"), after.text("process.id"));
    assert_eq!(before.text("process.start_time"), after.text("process.start_time"));
    assert_ne!(before.text("process.exec_id"), after.text("process.exec_id"));
    assert_eq!(before.get("exec.thread_became_leader"), None);
    let exits = ran.events().into_iter().filter(|event| event.kind() == "process.exit").count();
    assert_eq!(exits, 1);
}

#[test]
fn an_exec_that_fails_names_the_file_the_error_and_the_caller() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let forbidden = copy_of(TRUE, folder.path().join("not-executable"), 0o644);
    let garbage = folder.path().join("garbage");
    make_executable(&garbage, "\0neither a program nor a script\0");
    let missing = folder.path().join("missing");
    let not_a_folder = garbage.join("below");
    for (path, errno, number) in [
        (&missing, "ENOENT", libc::ENOENT),
        (&forbidden, "EACCES", libc::EACCES),
        (&garbage, "ENOEXEC", libc::ENOEXEC),
        (&not_a_folder, "ENOTDIR", libc::ENOTDIR),
    ] {
        let path = path.to_str().unwrap();
        let ran = workload(&["fail-exec", path]).succeed();
        assert_eq!(ran.said(), json!({"errno": number}));
        ran.expect_event(
            exec_failed()
                .exe(workload_path())
                .args(&[workload_path().to_str().unwrap(), "fail-exec", path])
                .with("process.pid", ran.pid)
                .with("process.uid", 0)
                .with("parent.pid", std::process::id())
                .with(
                    "exec_failed",
                    json!({"filename": path, "errno": errno, "call": "execve", "source": "user_memory"}),
                ),
        );
    }
}

#[test]
fn an_exec_below_an_open_folder_that_fails_tells_the_descriptor() {
    skip_without_kernel!();
    let ran = workload(&["fail-exec-at", "/usr", "no-such-program"]).succeed();
    ran.expect_event(exec_failed().with(
        "exec_failed",
        json!({
            "filename": "no-such-program",
            "errno": "ENOENT",
            "call": "execveat",
            "dirfd": ran.number("dirfd"),
            "source": "user_memory",
        }),
    ));
}

#[test]
fn a_failed_exec_of_a_path_that_cannot_be_read_says_so() {
    skip_without_kernel!();
    let ran = workload(&["fail-exec-bad-address"]).succeed();
    assert_eq!(ran.said(), json!({"errno": libc::EFAULT}));
    ran.expect_event(
        exec_failed()
            .with("exec_failed.errno", "EFAULT")
            .with("exec_failed.filename_unreadable", true)
            .without("exec_failed.filename"),
    );
}

#[test]
fn a_failed_exec_by_another_user_tells_who() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(workload_path(), folder.path().join("workload"), 0o755);
    let private = copy_of(TRUE, folder.path().join("private"), 0o700);
    run(program).args(["fail-exec", private.to_str().unwrap()]).as_user(65534, 65534).expect_event(
        exec_failed()
            .with("exec_failed.errno", "EACCES")
            .with("process.uid", 65534)
            .with("process.euid", 65534)
            .with("process.gid", 65534)
            .with("process.user", "nobody"),
    );
}
