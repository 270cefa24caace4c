//! `nightjar doctor`: what it says of this host, and that it proves it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{
    Agent, Cgroup, PseudoTerminal, await_exit, cgroup_hierarchy, copy_of, folder_for_all, nightjar,
    nightjar_path, programs_of, skip, skip_without_kernel, until,
};
use serde_json::Value;

const LIMITED: i32 = 3;
const FAILED: i32 = 4;
/// How long it may take, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_mins(1);
const MOUNT_TRACEFS: &str = "mount -t tracefs tracefs /sys/kernel/tracing";
const UNMOUNT_TRACEFS: &str = "for place in /sys/kernel/tracing /sys/kernel/debug; do
    while umount \"$place\" 2>/dev/null; do :; done
done";

/// What the doctor said, and that its exit code says the same.
fn diagnosis(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "", "it complains beside its report");
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let code = match report["verdict"].as_str().unwrap() {
        "ok" => 0,
        "limited" => LIMITED,
        "failed" => FAILED,
        other => panic!("no verdict: {other}"),
    };
    assert_eq!(output.status.code(), Some(code), "{report:#}");
    report
}

fn doctor(args: &[&str]) -> Value {
    diagnosis(&nightjar(["doctor", "-o", "json"].iter().chain(args)).output().unwrap())
}

/// By a shell, after `script`, in a mount namespace of its own.
fn doctor_after(script: &str, through: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    let run = format!("{script}\nexec \"$@\"");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &run, "sh"]).args(through);
    command.arg(nightjar_path()).args(["doctor", "-o", "json"]).env_remove("RUST_LOG");
    command.output().unwrap()
}

fn named<'a>(report: &'a Value, list: &str, key: &str, name: &str) -> &'a Value {
    let rows = report[list].as_array().unwrap();
    rows.iter().find(|row| row[key] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    named(report, "checks", "name", name)
}

fn keys(row: &Value) -> BTreeSet<&str> {
    row.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Kinds of events that were seen.
fn seen(report: &Value) -> BTreeSet<&str> {
    let events = report["events"].as_array().unwrap().iter();
    events.filter(|event| event["seen"] == true).map(|event| event["kind"].as_str().unwrap()).collect()
}

fn kinds() -> BTreeSet<&'static str> {
    let kinds = nightjar_proto::KINDS.iter().map(|kind| kind.name);
    kinds.filter(|name| !name.starts_with("telemetry.")).collect()
}

/// What not every host lets a process do: these take rights, or namespaces.
const PRIVILEGED: [&str; 2] = ["file.mount", "network.socket"];

/// Kinds of events of what can be done here.
fn provable(report: &Value) -> BTreeSet<&'static str> {
    let mut kinds = kinds();
    for kind in PRIVILEGED {
        if let Some(reason) = named(report, "events", "kind", kind).get("undone") {
            skip(&format!("the proof of {kind}: {reason}"));
            kinds.remove(kind);
        }
    }
    kinds
}

#[test]
fn every_kind_of_event_is_proven() {
    skip_without_kernel!();
    let report = doctor(&[]);
    assert_eq!(seen(&report), provable(&report), "{report:#}");
    assert_ne!(report["verdict"], "failed", "{report:#}");
    for event in report["events"].as_array().unwrap().iter().filter(|event| event["seen"] == true) {
        let milliseconds = event["milliseconds"].as_f64().unwrap();
        assert!((0.0..5000.0).contains(&milliseconds), "{event}");
    }
    assert_eq!(check(&report, "sensors")["result"], "ok", "{report:#}");
    assert_eq!(check(&report, "kernel")["result"], "ok", "{report:#}");
    assert_eq!(check(&report, "btf")["result"], "ok", "{report:#}");
}

#[test]
fn the_report_has_keys_that_scripts_rely_on() {
    skip_without_kernel!();
    let report = doctor(&[]);
    assert_eq!(keys(&report), BTreeSet::from(["checks", "events", "sensors", "verdict"]));
    for row in report["checks"].as_array().unwrap() {
        assert_eq!(keys(row), BTreeSet::from(["found", "lost", "mend", "name", "result"]));
        let result = row["result"].as_str().unwrap();
        assert!(["ok", "unknown", "limited", "failed"].contains(&result), "{row}");
        let is_bad = ["limited", "failed"].contains(&result);
        assert!(
            row["found"] != "" && is_bad == (row["mend"] != "") && is_bad == (row["lost"] != ""),
            "{row}"
        );
    }
    for row in report["sensors"].as_array().unwrap() {
        assert_eq!(keys(row), BTreeSet::from(["hook", "mend", "name", "refused", "result", "worth"]));
    }
    for row in report["events"].as_array().unwrap() {
        let mut expected = BTreeSet::from(["kind", "milliseconds", "seen"]);
        expected.extend(row.get("undone").map(|_| "undone"));
        assert_eq!(keys(row), expected);
    }
    let sensors = report["sensors"].as_array().unwrap().iter();
    let sensors: BTreeSet<&str> = sensors.map(|sensor| sensor["name"].as_str().unwrap()).collect();
    let has_sensor = |kind: &&str| {
        let (area, _) = kind.split_once('.').unwrap();
        sensors.contains(kind) || sensors.contains(&*format!("{area}.*"))
    };
    let without: Vec<_> = kinds().into_iter().filter(|kind| !has_sensor(kind)).collect();
    assert!(without.is_empty(), "no sensor for {without:?}: {sensors:?}");
}

#[test]
fn it_makes_no_events_when_told_not_to() {
    skip_without_kernel!();
    let report = doctor(&["--no-events"]);
    assert_eq!(report["events"], Value::Array(Vec::new()));
    assert!(!report["sensors"].as_array().unwrap().is_empty());
}

#[test]
fn an_ordinary_user_is_told_all_that_can_be_told_and_that_the_rest_needs_root() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(nightjar_path(), folder.path().join("nightjar"), 0o755);
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("doctor").args(args).env_remove("RUST_LOG").uid(65534).gid(65534);
        command.output().unwrap()
    };
    let report = diagnosis(&run(&["-o", "json"]));
    assert_eq!(report["verdict"], "failed");
    assert_eq!(check(&report, "capabilities")["result"], "failed");
    assert_eq!(check(&report, "sensors")["result"], "failed");
    assert!(check(&report, "sensors")["mend"].as_str().unwrap().contains("sudo"), "{report:#}");
    for name in ["kernel", "btf", "user_namespace", "cgroups", "configuration"] {
        assert_eq!(check(&report, name)["result"], "ok", "{report:#}");
    }
    let none = Value::Array(Vec::new());
    assert!(report["sensors"] == none && report["events"] == none, "{report:#}");

    let without_events = diagnosis(&run(&["-o", "json", "--no-events"]));
    assert_eq!(check(&without_events, "sensors")["result"], "unknown");

    let page = run(&[]);
    assert_eq!(page.status.code(), Some(FAILED));
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("`sudo nightjar doctor`") && page.contains("\nfailed: "), "{page}");
    assert!(!page.contains('\x1b'), "colours in a pipe: {page}");
}

/// What it shows on a terminal of 100 columns.
fn on_a_terminal(no_colour: Option<&str>) -> String {
    let PseudoTerminal { mut reader, terminal } = PseudoTerminal::open();
    let mut command = nightjar(["doctor", "--no-events"]);
    command.stdout(terminal).stderr(Stdio::null()).env_remove("NO_COLOR");
    if let Some(value) = no_colour {
        command.env("NO_COLOR", value);
    }
    let mut child = command.spawn().unwrap();
    // Else this side of the terminal stays open for writing.
    drop(command);
    let shown = thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pseudo-terminal that nobody writes to any more ends in an error.
        let _hung_up = reader.read_to_end(&mut bytes);
        bytes
    });
    if !await_exit(&child, Instant::now() + PATIENCE) {
        child.kill().unwrap();
        panic!("it did not end within {PATIENCE:?}");
    }
    child.wait().unwrap();
    String::from_utf8(shown.join().unwrap()).unwrap()
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    skip_without_kernel!();
    let coloured = on_a_terminal(None);
    assert!(coloured.contains("\x1b[32mok\x1b[0m"), "{coloured}");
    let plain = on_a_terminal(Some("1"));
    assert!(plain.contains("ok ") && !plain.contains('\x1b'), "{plain}");
    for line in plain.lines() {
        assert!(line.chars().count() <= 100, "wider than the terminal: {line}");
    }
}

#[test]
fn a_page_for_a_file_has_80_columns() {
    skip_without_kernel!();
    let output = nightjar(["doctor", "--no-events"]).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    // A command in backticks is not broken.
    for line in page.lines().filter(|line| !line.contains('`')) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

fn loaded() -> BTreeSet<u32> {
    aya::programs::loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect()
}

#[test]
fn it_leaves_no_program_and_no_process_behind() {
    skip_without_kernel!();
    let mut child =
        nightjar(["doctor", "-o", "json"]).process_group(0).stdout(Stdio::null()).spawn().unwrap();
    let group = child.id();
    assert_eq!(processes_of_group(group).len(), 1);
    let programs = until("programs of the doctor", || {
        let programs = programs_of(child.id());
        (!programs.is_empty()).then_some(programs)
    });
    if !await_exit(&child, Instant::now() + PATIENCE) {
        child.kill().unwrap();
        panic!("it did not end within {PATIENCE:?}");
    }
    child.wait().unwrap();
    // The kernel unloads what nobody holds any more in its own time.
    until("programs are unloaded", || programs.is_disjoint(&loaded()).then_some(()));
    // It had a process group for itself and whatever it starts.
    until("its processes are gone", || processes_of_group(group).is_empty().then_some(()));
}

/// Processes, ended ones that nobody waited for among them.
fn processes_of_group(group: u32) -> Vec<String> {
    let stats =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("stat")).ok());
    let stats = stats.map(|stat| String::from_utf8_lossy(&stat).into_owned());
    // Behind the name, which may hold anything: state, parent, group.
    let is_in = |stat: &String| {
        let (_, behind) = stat.rsplit_once(')').unwrap_or_default();
        behind.split_whitespace().nth(2) == Some(&group.to_string())
    };
    stats.filter(is_in).collect()
}

#[test]
fn without_tracefs_all_is_proven_as_the_agent_mounts_it_for_itself() {
    skip_without_kernel!();
    let report = diagnosis(&doctor_after(UNMOUNT_TRACEFS, &[]));
    let tracefs = check(&report, "tracefs");
    assert_eq!(tracefs["result"], "ok", "{tracefs}");
    assert!(tracefs["found"].as_str().unwrap().starts_with("not mounted"), "{tracefs}");
    assert_eq!(seen(&report), provable(&report), "{report:#}");
}

#[test]
fn what_is_lost_without_tracefs_and_the_right_to_mount_it_is_told_with_the_mend() {
    skip_without_kernel!();
    if Command::new("setpriv").arg("--version").output().is_err() {
        return skip("setpriv is not installed");
    }
    let output = doctor_after(UNMOUNT_TRACEFS, &["setpriv", "--bounding-set=-sys_admin"]);
    let report = diagnosis(&output);
    assert_eq!(report["verdict"], "limited", "{report:#}");
    let tracefs = check(&report, "tracefs");
    assert_eq!(tracefs["result"], "limited");
    assert!(tracefs["mend"].as_str().unwrap().contains("mount -t tracefs"), "{tracefs}");
    assert_eq!(check(&report, "capabilities")["found"], "without sys_admin");

    let not_served = named(&report, "sensors", "name", "process.exec_failed");
    assert_eq!((&not_served["hook"], &not_served["result"]), (&"".into(), &"limited".into()));
    assert!(not_served["refused"][0]["reason"].as_str().unwrap().contains("no tracefs"), "{not_served}");
    assert!(not_served["mend"].as_str().unwrap().contains("mount -t tracefs"), "{not_served}");
    let served_worse = named(&report, "sensors", "name", "process.credentials");
    assert_eq!(served_worse["hook"], "look in passing", "{served_worse}");

    let mut expected = kinds();
    // Of files fanotify would tell, which is refused as well.
    let by_calls = ["process.exec_failed", "network.socket"];
    expected.retain(|kind| !by_calls.contains(kind) && !kind.starts_with("file."));
    assert_eq!(seen(&report), expected, "{report:#}");
}

#[test]
fn what_is_lost_without_fanotify_is_told_with_the_mend() {
    skip_without_kernel!();
    if Command::new("setpriv").arg("--version").output().is_err() {
        return skip("setpriv is not installed");
    }
    let output = doctor_after(MOUNT_TRACEFS, &["setpriv", "--bounding-set=-sys_admin"]);
    let report = diagnosis(&output);
    if named(&report, "sensors", "name", "file.open")["hook"] == "" {
        return skip("system calls cannot be traced here without CAP_SYS_ADMIN");
    }
    assert_eq!(report["verdict"], "limited", "{report:#}");
    let fanotify = check(&report, "fanotify");
    assert_eq!(fanotify["result"], "limited");
    assert!(fanotify["mend"].as_str().unwrap().contains("CAP_SYS_ADMIN"), "{fanotify}");
    let not_served = named(&report, "sensors", "name", "file.modify");
    assert_eq!((&not_served["hook"], &not_served["result"]), (&"".into(), &"limited".into()));

    let mut expected = provable(&report);
    expected.retain(|kind| !["file.modify", "file.close"].contains(kind));
    assert_eq!(seen(&report), expected, "{report:#}");
}

#[test]
fn the_folder_that_it_works_in_is_gone_afterwards() {
    skip_without_kernel!();
    let script = "mount -t tmpfs tmpfs /run && \"$@\" > /dev/null; code=$?; ls -A /run; exit $code";
    let output = doctor_after(script, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{output:?}");
    assert_ne!(output.status.code(), Some(FAILED), "{output:?}");
}

#[test]
fn where_there_is_no_room_for_a_folder_files_are_not_looked_at() {
    skip_without_kernel!();
    let read_only = "for place in /run /tmp; do
        mount --bind $place $place && mount -o remount,ro,bind $place || exit
    done";
    let report = diagnosis(&doctor_after(read_only, &[]));
    assert_ne!(report["verdict"], "failed", "{report:#}");
    let opens = named(&report, "events", "kind", "file.open");
    assert!(opens["undone"].as_str().unwrap().contains("Read-only file system"), "{opens}");
    let mut expected = kinds();
    expected.retain(|kind| !kind.starts_with("file."));
    assert_eq!(seen(&report), expected, "{report:#}");
}

#[test]
fn more_directories_than_may_be_watched_is_told() {
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    for n in 0..40 {
        fs::create_dir(folder.path().join(n.to_string())).unwrap();
    }
    let file = folder.path().join("nightjar.yaml");
    let with = |directories: u32| {
        let watch = format!("[{{name: test, paths: [{}], recursive: true}}]", folder.path().display());
        let text = format!("files: {{defaults: false, watch: {watch}, directories: {directories}}}\n");
        fs::write(&file, text).unwrap();
        doctor(&["--no-events", "--config", file.to_str().unwrap()])
    };
    let report = with(1000);
    let watched = check(&report, "watched_files");
    assert_eq!(watched["result"], "ok", "{watched}");
    assert!(watched["found"].as_str().unwrap().starts_with("1 files in 4"), "{watched}");
    let report = with(16);
    let watched = check(&report, "watched_files");
    assert_eq!(watched["result"], "limited", "{watched}");
    assert!(watched["mend"].as_str().unwrap().contains("files.directories"), "{watched}");
}

#[test]
fn in_a_pid_namespace_of_its_own_it_knows_its_process_by_both_numbers() {
    skip_without_kernel!();
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount", "--mount-proc"])
        .arg(nightjar_path())
        .args(["doctor", "-o", "json"]);
    let report = diagnosis(&command.env_remove("RUST_LOG").output().unwrap());
    assert_eq!(seen(&report), provable(&report), "{report:#}");
    let namespace = check(&report, "pid_namespace");
    assert_eq!(namespace["result"], "limited");
    assert!(namespace["mend"].as_str().unwrap().contains("hostPID"), "{namespace}");
}

#[test]
fn too_little_memory_is_told() {
    skip_without_kernel!();
    let Some(hierarchy) = cgroup_hierarchy() else { return skip("no cgroups are mounted") };
    let cgroup = Cgroup::new(&hierarchy, "nightjar-doctor");
    let limit = ["memory.limit_in_bytes", "memory.max"].map(|file| format!("{}/{file}", cgroup.folder()));
    let Some(limit) = limit.iter().find(|file| fs::metadata(file).is_ok()) else {
        return skip("cgroups here do not bound memory");
    };
    let script = "echo $$ > \"$1\"/cgroup.procs && shift && exec \"$@\"";
    let within = |mib: u32| {
        fs::write(limit, (mib << 20).to_string()).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh", cgroup.folder()])
            .arg(nightjar_path())
            .args(["doctor", "-o", "json"]);
        diagnosis(&command.env_remove("RUST_LOG").output().unwrap())
    };

    let enough_to_start = within(110);
    let memory = check(&enough_to_start, "ring_memory");
    assert_eq!(memory["result"], "limited", "{memory}");
    assert!(
        memory["found"].as_str().unwrap().ends_with("this process's cgroup may have 110 MiB"),
        "{memory}"
    );
    assert_eq!(check(&enough_to_start, "sensors")["result"], "ok");

    // The kernel would end it as it ends the agent: it says so and does not try.
    let too_little = within(40);
    assert_eq!(check(&too_little, "ring_memory")["result"], "failed");
    assert_eq!(check(&too_little, "sensors")["result"], "failed");
    assert_eq!(too_little["verdict"], "failed");
}

#[test]
fn an_agent_that_runs_is_named() {
    skip_without_kernel!();
    let agent = Agent::start(&["--ring-size", "64MiB"]);
    let report = doctor(&["--no-events"]);
    let found = check(&report, "agent")["found"].as_str().unwrap();
    assert!(found.contains(&format!("{} (process {})", agent.instance(), agent.pid())), "{found}");
    agent.stop().expect_nothing_lost();
}

#[test]
fn a_configuration_that_no_agent_would_start_with_is_a_failure() {
    skip_without_kernel!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nightjar.yaml");
    fs::write(&file, "log: loud\n").unwrap();
    let report = doctor(&["--no-events", "--config", file.to_str().unwrap()]);
    let configuration = check(&report, "configuration");
    assert_eq!(configuration["result"], "failed");
    assert!(configuration["found"].as_str().unwrap().contains("loud"), "{configuration}");
    assert!(!report["sensors"].as_array().unwrap().is_empty(), "the rest is looked at all the same");

    fs::write(&file, format!("json: {{file: {}/none/events.json}}\n", folder.path().display())).unwrap();
    let report = doctor(&["--no-events", "--config", file.to_str().unwrap()]);
    assert_eq!(check(&report, "configuration")["result"], "ok", "{report:#}");
    assert_eq!(check(&report, "output")["result"], "failed", "{report:#}");
}

#[test]
fn wrong_arguments_are_no_diagnosis() {
    for args in [&["doctor", "-o", "xml"][..], &["doctor", "--act"], &["doctor", "me"]] {
        let output = nightjar(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
    let help = nightjar(["doctor", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("Exit codes:") && !help.contains("--act"), "{help}");
}
