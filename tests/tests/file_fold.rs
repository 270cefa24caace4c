//! Repeats that are told as one event with a count, files that nobody watches, and opens that fail.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{
    Agent, Event, Folder, Told, copy_of, file, folder_for_all, rawfile_path, run, skip_without_kernel, truth,
    until, watch,
};
use serde_json::Value;

const CONFIGURATION: &str = "
files:
  defaults: false
  fold: 500ms
  failed: true
  watch:
    - {name: everything, paths: [ROOT/watched], recursive: true, operations: [all]}
";
/// How long it takes at most until what was counted is told.
const WINDOWS: Duration = Duration::from_millis(1100);
/// How long it may take on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(50);
const NOBODY: u32 = 65534;

fn folder() -> Folder {
    root();
    Folder::take()
}

fn root() -> &'static Path {
    watch(CONFIGURATION, |root| fs::create_dir(root.join("unwatched")).unwrap())
}

/// How many acts events stand for.
fn sum<'a>(events: impl IntoIterator<Item = &'a Event>) -> u64 {
    events.into_iter().map(|event| event.get("file.count").map_or(1, |count| count.as_u64().unwrap())).sum()
}

fn of_kind(mut events: Vec<Event>, kind: &str) -> Vec<Event> {
    events.retain(|event| event.kind() == kind);
    events
}

/// Waits until events of a kind stand for so many acts, and then no more come.
fn expect_sum(events: impl Fn() -> Vec<Event>, kind: &str, acts: u64) -> Told {
    let told = await_sum(events, kind, acts);
    assert_eq!(sum(&told.0), acts, "{kind}: {told}");
    told
}

/// As [`expect_sum`], but gives what has come if it is not so.
fn await_sum(events: impl Fn() -> Vec<Event>, kind: &str, acts: u64) -> Told {
    let told = || of_kind(events(), kind);
    let deadline = Instant::now() + PATIENCE;
    while sum(&told()) < acts && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
    thread::sleep(WINDOWS);
    let told = Told(told());
    for event in told.0.iter().filter(|event| event.get("file.count").is_some()) {
        assert!(event.number("file.count") > 0, "{event}");
        assert_eq!(event.field("time"), event.field("file.first_time"), "{event}");
        assert!(event.nanos("file.first_time") <= event.nanos("file.last_time"), "{event}");
    }
    told
}

// Counts

#[test]
fn every_open_is_counted() {
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile("open-loop file --count 1000");
    // One more, of the warm-up.
    let told = expect_sum(|| folder.events(), "file.open", 1001);
    assert!(told.0.len() < 20, "{told}");
    assert_eq!(told.0.iter().filter(|event| event.get("file.count").is_none()).count(), 1, "{told}");
    for event in &told.0 {
        assert_eq!(event.text("file.path"), folder.text("file"));
        assert_eq!(event.number("process.pid"), u64::from(acted.ran.pid));
        assert_eq!(event.list("file.flags"), ["read"]);
        assert_eq!(event.text("file.policy"), "everything");
    }
}

#[test]
fn opens_that_go_on_for_long_are_counted_in_parts() {
    skip_without_kernel!();
    let folder = folder();
    let count = 500_000;
    let acted = folder.rawfile(&format!("open-loop file --count {count}"));
    let told = expect_sum(|| folder.events(), "file.open", count + 1);
    let elapsed = acted.line("open-loop")["elapsed_ns"].as_u64().unwrap() / 500_000_000;
    let counted = told.0.iter().filter(|event| event.get("file.count").is_some()).count() as u64;
    assert!(
        (elapsed / 2..=elapsed + 3).contains(&counted),
        "{counted} in {elapsed} times half a second: {told}"
    );
}

#[test]
fn opens_of_other_files_are_not_folded_into_one() {
    const FILES: u32 = 50;
    skip_without_kernel!();
    let folder = folder();
    let acted = folder.rawfile(&format!("open-loop-distinct folder --count {FILES}"));
    let told = expect_sum(|| folder.events(), "file.open", u64::from(FILES) + 1);
    for number in 0..FILES {
        let path = folder.text(&format!("folder/file-{number}"));
        let of_file: Vec<_> = told.0.iter().filter(|event| event.text("file.path") == path).collect();
        // The first was opened once before.
        assert_eq!(sum(of_file), if number == 0 { 2 } else { 1 }, "{path}");
    }
    let created = of_kind(folder.events(), "file.create");
    assert_eq!(created.len(), FILES as usize);
    assert!(created.iter().all(|event| event.number("process.pid") == u64::from(acted.ran.pid)));
}

#[test]
fn opens_for_reading_and_for_writing_are_counted_apart() {
    skip_without_kernel!();
    let folder = folder();
    for round in 0..30 {
        drop(File::open(folder.path("file")).unwrap());
        if round % 3 == 0 {
            drop(File::options().write(true).open(folder.path("file")).unwrap());
        }
    }
    let told = expect_sum(|| folder.events_of_test(), "file.open", 40);
    let of = |flag: &'static str| told.0.iter().filter(move |event| event.list("file.flags") == [flag]);
    assert_eq!((sum(of("read")), sum(of("write"))), (30, 10), "{told}");
}

#[test]
fn opens_of_other_processes_are_counted_apart() {
    skip_without_kernel!();
    let folder = folder();
    let acted: Vec<_> =
        [70, 30, 50].map(|count| folder.rawfile(&format!("open-loop file --count {count}"))).into();
    let told = expect_sum(|| folder.events(), "file.open", 153);
    for (acted, opens) in acted.iter().zip([71, 31, 51]) {
        let of_process = |event: &&Event| event.number("process.pid") == u64::from(acted.ran.pid);
        assert_eq!(sum(told.0.iter().filter(of_process)), opens, "{told}");
    }
}

#[test]
fn a_file_that_another_replaced_is_counted_apart() {
    skip_without_kernel!();
    let folder = folder();
    let path = folder.path("file");
    let opens = |count| (0..count).for_each(|_| drop(File::open(&path).unwrap()));
    opens(10);
    fs::rename(folder.path("other"), &path).unwrap();
    opens(5);
    let told = expect_sum(|| folder.events_of_test(), "file.open", 15);
    let inodes: std::collections::BTreeSet<u64> =
        told.0.iter().map(|event| event.number("file.inode")).collect();
    assert_eq!(inodes.len(), 2, "{told}");
    for inode in inodes {
        let of_inode = told.0.iter().filter(|event| event.number("file.inode") == inode);
        assert!([5, 10].contains(&sum(of_inode)), "{told}");
    }
}

#[test]
fn changes_are_not_folded() {
    skip_without_kernel!();
    let folder = folder();
    let script = "for i in 1 2 3 4 5 6; do chmod 60$i file; mv file moved; mv moved file; done";
    let _acted = folder.acted("sh", &["-ec", script]);
    let told = expect_sum(|| folder.events(), "file.rename", 12);
    assert_eq!(told.0.len(), 12, "{told}");
    let told = expect_sum(|| folder.events(), "file.attributes", 6);
    assert_eq!(told.0.len(), 6, "{told}");
}

// Failures

#[test]
fn an_open_that_fails_is_told_with_its_error() {
    skip_without_kernel!();
    let folder = folder();
    for (words, path, error, flags) in [
        ("open PATH", "nothing", "ENOENT", &["read"][..]),
        ("open PATH --flags rdwr", "nothing", "ENOENT", &["read", "write"]),
        ("open PATH --flags wronly,creat,excl", "file", "EEXIST", &["write", "create", "excl"]),
        ("open PATH --flags rdwr", "folder", "EISDIR", &["read", "write"]),
        ("open PATH", "file/below", "ENOTDIR", &["read"]),
        ("open PATH --call openat2 --resolve no-symlinks", "symbolic", "ELOOP", &["read"]),
    ] {
        if error == "ELOOP" {
            std::os::unix::fs::symlink("file", folder.path(path)).unwrap();
        }
        let words = words.replace("PATH", &folder.text(path));
        let acted = folder.rawfile(&format!("{words} --expect {error}"));
        let told = folder.told_by("everything", &acted, &["file.open"]);
        told.expect(
            &file("file.open")
                .with("file.path", folder.text(path))
                .with("file.errno", error)
                .with("file.flags", flags)
                .with("file.source", "user_memory")
                .with("file.call", acted.line("open")["call"].clone())
                .without("file.inode")
                .without("file.count"),
        );
    }
}

#[test]
fn an_open_by_a_relative_path_that_fails_is_told() {
    skip_without_kernel!();
    let folder = folder();
    for words in ["open nothing", "open folder/../nothing", "open nothing --paged-out"] {
        let acted = folder.rawfile(&format!("{words} --expect ENOENT"));
        let event = until("the failure", || {
            let events = acted.ran.events();
            events.into_iter().find(|event| event.get("file.errno") == Some(&"ENOENT".into()))
        });
        assert!(event.text("file.path").ends_with("nothing"), "{event}");
        assert_eq!(event.text("file.policy"), "everything", "{event}");
    }
}

#[test]
fn an_open_that_is_not_allowed_is_told_with_who_tried() {
    skip_without_kernel!();
    let folder = folder();
    let programs = folder_for_all();
    let rawfile = copy_of(rawfile_path(), programs.path().join("rawfile"), 0o755);
    fs::set_permissions(folder.path("file"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ran = run(&rawfile)
        .args(["open", &folder.text("file"), "--expect", "EACCES"])
        .as_user(NOBODY, NOBODY)
        .succeed();
    ran.expect_event(
        file("file.open")
            .with("file.errno", "EACCES")
            .with("file.path", folder.text("file"))
            .with("process.uid", NOBODY)
            .exe(&rawfile),
    );
}

#[test]
fn opens_that_fail_elsewhere_are_not_told() {
    skip_without_kernel!();
    let folder = Folder::at(root().join("unwatched"));
    let acted = folder.rawfile(&format!("open {} --expect ENOENT", folder.text("nothing")));
    folder.settle();
    let failures: Vec<_> =
        acted.ran.events().into_iter().filter(|event| event.get("file.errno").is_some()).collect();
    assert!(failures.is_empty(), "{failures:?}");
}

// All files

#[test]
fn opens_of_all_files_are_told_where_that_is_asked_for() {
    skip_without_kernel!();
    let root = folder_for_all();
    let configuration = format!(
        "kernel: {{bulk_ring_size: 64MiB}}\n\
         files: {{defaults: false, all: true, fold: 500ms, watch: [{{name: some, paths: [{}/watched]}}]}}",
        root.path().display()
    );
    fs::create_dir(root.path().join("watched")).unwrap();
    fs::write(root.path().join("there"), "content").unwrap();
    fs::write(root.path().join("watched/file"), "content").unwrap();
    let kinds = ["process.exec", "file.open", "file.create"];
    let args: Vec<&str> =
        kinds.iter().flat_map(|kind| ["--kind", kind]).chain(["--ring-size", "64MiB"]).collect();
    let agent = Agent::configured(&configuration, &args);
    let rawfile = |words: &str| {
        let mut command = Command::new(rawfile_path());
        command.args(words.split_whitespace()).current_dir(root.path()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{words}");
        let line = String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned();
        (pid, serde_json::from_str::<Value>(&line).unwrap())
    };

    let mark = agent.mark();
    let (pid, line) = rawfile("open there");
    let open = truth("file.open", &line).of_process(pid).without("file.policy").with("file.source", "kernel");
    let event = agent.expect_event(&open, mark);
    assert_eq!(Path::new(event.text("process.exe.path")), rawfile_path());
    let (pid, line) = rawfile("creat new");
    agent.expect_event(&truth("file.create", &line).of_process(pid).without("file.policy"), mark);
    let (pid, _) = rawfile("open-loop there --count 300");
    let of_loop = || {
        let mut events = agent.file_events("/there\"", mark);
        events.retain(|event| event.get("process.pid") == Some(&pid.into()));
        events
    };
    let told = await_sum(of_loop, "file.open", 301);
    let lost = agent.events("telemetry.loss");
    assert_eq!(sum(&told.0), 301, "{told}{}{lost:?}", agent.complaints());
    // What the program itself needs, by whatever path.
    let (pid, _) = rawfile("open watched/file");
    let library = |event: &Event| {
        event.get("process.pid") == Some(&pid.into()) && event.text("file.path").contains("libc.so")
    };
    until("a library that is opened", || {
        agent.file_events("libc.so", mark).iter().any(library).then_some(())
    });
    assert!(agent.stop().status.success());
}
