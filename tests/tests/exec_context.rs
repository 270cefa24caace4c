//! `process.exec`: where and as what it ran.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nightjar_tests::{
    Event, Expect, exec, exit, remove_cgroup, skip, skip_without_kernel, workload, workload_path,
};
use serde_json::{Value, json};

const NAMESPACES: [&str; 9] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"];

fn me() -> String {
    workload_path().to_str().unwrap().to_owned()
}

/// The exec of `workload facts`, by whatever way it came to be.
fn exec_of_facts() -> Expect {
    exec().args(&[&me(), "facts"])
}

fn words(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().parse().unwrap()).collect()
}

/// A set of capabilities as `/proc` prints it. `all` stands for all, a name behind `-` for one less.
fn capability_bits(event: &Event, set: &str) -> u64 {
    const NAMES: [&str; 41] = [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ];
    let bit = |name: &str| 1_u64 << NAMES.iter().position(|known| *known == name).unwrap();
    event.list(&format!("process.capabilities.{set}")).into_iter().fold(0, |bits, name| {
        if name == "all" {
            let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
            return u64::MAX >> (63 - last.trim().parse::<u32>().unwrap());
        }
        match name.strip_prefix('-') {
            Some(missing) => bits & !bit(missing),
            None => bits | bit(name),
        }
    })
}

#[test]
fn identity_is_what_the_process_reads_in_proc() {
    skip_without_kernel!();
    let ran = workload(&["facts"]).succeed();
    let said = ran.said();
    let (users, groups) = (words(&said["status"]["Uid"]), words(&said["status"]["Gid"]));
    let event = ran.expect_event(
        exec_of_facts()
            .with("process.pid", said["pid"].clone())
            .with("process.tid", said["tid"].clone())
            .with("process.ppid", said["ppid"].clone())
            .with("process.comm", said["comm"].clone())
            .with("process.cwd", said["cwd"].clone())
            .with("process.exe", said["exe"].clone())
            .with("process.uid", users[0])
            .with("process.euid", users[1])
            .with("process.suid", users[2])
            .with("process.fsuid", users[3])
            .with("process.gid", groups[0])
            .with("process.egid", groups[1])
            .with("process.sgid", groups[2])
            .with("process.fsgid", groups[3])
            .with_or_default("process.securebits", said["securebits"].clone())
            .with_or_default("process.no_new_privs", said["status"]["NoNewPrivs"][0] == "1")
            .without("process.ns_pid")
            .without("process.tty"),
    );
    let sets = [
        ("inheritable", "CapInh"),
        ("permitted", "CapPrm"),
        ("effective", "CapEff"),
        ("bounding", "CapBnd"),
        ("ambient", "CapAmb"),
    ];
    for (ours, procs) in sets {
        let expected = u64::from_str_radix(said["status"][procs][0].as_str().unwrap(), 16).unwrap();
        assert_eq!(capability_bits(&event, ours), expected, "{ours}");
    }
}

#[test]
fn namespaces_are_those_in_proc() {
    skip_without_kernel!();
    let ran = workload(&["facts"]).succeed();
    expect_namespaces(&ran.expect_event(exec_of_facts()), &ran.said());
}

#[test]
fn new_namespaces_are_told() {
    skip_without_kernel!();
    let ran = workload(&["in-namespaces", &me(), "facts"]).succeed();
    let said = ran.said();
    let event = ran.expect_event(exec_of_facts());
    expect_namespaces(&event, &said);
    for name in ["mnt", "cgroup", "uts", "ipc", "net"] {
        let ours = fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino();
        assert_ne!(event.number(&format!("process.namespaces.{name}")), ours, "{name}");
    }
}

fn expect_namespaces(event: &Event, said: &Value) {
    for name in NAMESPACES {
        let told = event.get(&format!("process.namespaces.{name}")).unwrap_or(&Value::Null);
        assert_eq!(told, said["namespaces"].get(name).unwrap_or(&Value::Null), "{name}");
    }
}

#[test]
fn a_process_in_a_new_pid_namespace_has_two_numbers() {
    skip_without_kernel!();
    let ran = workload(&["in-pid-namespace", &me(), "facts"]).succeed();
    let text = String::from_utf8(ran.output.clone()).unwrap();
    let inside: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(inside["pid"], 1);
    let child = ran.number("child");
    let namespaces = &inside["namespaces"];
    let is = |expect: Expect| {
        expect
            .of_process(child)
            .with("process.pid", child)
            .with("process.ppid", ran.pid)
            .with("process.ns_pid", 1)
            .with("parent.pid", ran.pid)
    };
    // The number of a namespace in its own /proc is found by name: /proc here is that of the host.
    let event = ran.expect_event(is(exec_of_facts()));
    assert_ne!(event.number("process.namespaces.pid"), fs::metadata("/proc/self/ns/pid").unwrap().ino());
    assert_eq!(event.field("process.namespaces.mnt"), &namespaces["mnt"]);
    ran.expect_event(is(exit()));
}

#[test]
fn the_controlling_terminal_is_told() {
    skip_without_kernel!();
    let ran = workload(&["on-terminal", &me(), "facts"]).succeed();
    let terminal = ran.said()["terminal"].as_str().unwrap().strip_prefix("/dev/").unwrap().to_owned();
    assert!(terminal.starts_with("pts/"), "{terminal}");
    let child = ran.number("child");
    ran.expect_event(exec_of_facts().of_process(child).with("process.tty", terminal));
}

#[test]
fn an_unset_login_user_is_left_out() {
    skip_without_kernel!();
    let ran = workload(&["facts"]).succeed();
    let said = ran.said();
    if said["loginuid"] == "4294967295" {
        ran.expect_event(
            exec_of_facts()
                .without("process.loginuid")
                .without("process.login_user")
                .without("process.audit_session"),
        );
    } else {
        let number = |name: &str| said[name].as_str().unwrap().parse::<u32>().unwrap();
        ran.expect_event(
            exec_of_facts()
                .with("process.loginuid", number("loginuid"))
                .with("process.audit_session", number("sessionid")),
        );
    }
}

#[test]
fn the_login_user_stays_when_the_user_changes() {
    skip_without_kernel!();
    if !Path::new("/proc/self/loginuid").exists() {
        return skip("the kernel was built without audit");
    }
    let ran = workload(&["loginuid", "33", &me(), "facts"]).succeed();
    let said = ran.said();
    assert_eq!(said["loginuid"], "33");
    let session: u32 = said["sessionid"].as_str().unwrap().parse().unwrap();
    let is = |expect: Expect| {
        expect
            .with("process.loginuid", 33)
            .with("process.login_user", "www-data")
            .with("process.audit_session", session)
            .with("process.uid", 0)
    };
    ran.expect_event(is(exec_of_facts()));
    ran.expect_event(is(exit()));
}

/// A folder of a cgroup hierarchy, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.0);
    }
}

/// Mount points of hierarchies: that of version 2, and that of a controller of version 1.
fn hierarchies() -> (Option<PathBuf>, Option<PathBuf>) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let find = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let parts: Vec<_> = line.split(' ').collect();
            (parts[2] == kind && parts[3].split(',').any(|word| word == option))
                .then(|| PathBuf::from(parts[1]))
        })
    };
    (find("cgroup2", "rw"), find("cgroup", "memory"))
}

/// Runs in a cgroup below `hierarchy`; checks what the event says of it, and gives the event.
fn run_in(hierarchy: &Path, path: &str) -> Event {
    let cgroup = Cgroup::new(hierarchy.join(path));
    let id = fs::metadata(&cgroup.0).unwrap().ino();
    let ran = workload(&["in-cgroup", cgroup.0.to_str().unwrap(), &me(), "facts"]).succeed();
    let said = ran.said();
    let lines: Vec<&str> =
        said["cgroup"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let path = format!("/{path}");
    assert!(lines.iter().any(|line| line.ends_with(&format!(":{path}"))), "{lines:?}");
    let expected = json!({"id": id, "path": path});
    ran.expect_event(exit().with("process.cgroup", expected.clone()));
    ran.expect_event(exec_of_facts().with("process.cgroup", expected))
}

#[test]
fn a_cgroup_of_version_1_is_told_by_number_and_path() {
    skip_without_kernel!();
    let (_, Some(memory)) = hierarchies() else { return skip("no hierarchy of version 1 is mounted") };
    let event = run_in(&memory, "nightjar-test-v1");
    assert_eq!(event.get("process.container"), None);
}

#[test]
fn a_cgroup_of_version_2_is_told_by_number_and_path() {
    skip_without_kernel!();
    let (Some(unified), memory) = hierarchies() else { return skip("no hierarchy of version 2 is mounted") };
    let Some(memory) = memory else {
        run_in(&unified, "nightjar-test-v2");
        return;
    };
    // Where a process has a cgroup of version 1, that is told; at the root of version 1 it has none.
    let cgroup = Cgroup::new(unified.join("nightjar-test-v2"));
    let id = fs::metadata(&cgroup.0).unwrap().ino();
    let (program, root, place) = (me(), memory.to_str().unwrap(), cgroup.0.to_str().unwrap());
    workload(&["in-cgroup", root, &program, "in-cgroup", place, &program, "facts"])
        .expect_event(exec_of_facts().with("process.cgroup", json!({"id": id, "path": "/nightjar-test-v2"})));
}

#[test]
fn a_cgroup_named_as_docker_does_is_a_container() {
    skip_without_kernel!();
    let (unified, memory) = hierarchies();
    let Some(hierarchy) = memory.or(unified) else { return skip("no cgroup hierarchy is mounted") };
    let id = "4f79c1e0".repeat(8);
    let above = hierarchy.join("docker");
    let is_new = !above.exists();
    let event = run_in(&hierarchy, &format!("docker/{id}"));
    if is_new {
        drop(Cgroup(above));
    }
    assert_eq!(event.field("process.container"), &json!({"id": id, "runtime": "docker"}));
}
