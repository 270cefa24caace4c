//! Events as a host has them, for the documentation: alice types `env sudo id`. What is done to files is in files.rs,
//! who talks to whom in network.rs.

mod files;
mod network;

use nightjar_proto::v1::{
    Capabilities, Cgroup, CredentialSet, Credentials, Event, Exec, ExecFailed, Exit, File, Fork, Loss,
    Namespaces, Parent, Process, Source, Telemetry, event::Body,
};
use prost_types::Timestamp;

/// One event of each kind, in the order in which they happen.
pub fn typical() -> Vec<Event> {
    let fork = Fork { clone_flags: words(&["child_cleartid", "child_settid"]), creator: None };
    let exec_failed = ExecFailed {
        filename: "/usr/local/bin/sudo".into(),
        errno: "ENOENT".into(),
        call: "execve".into(),
        source: "user_memory".into(),
        ..ExecFailed::default()
    };
    let exec = Exec {
        filename: "/usr/bin/sudo".into(),
        argc: 2,
        args_size: 8,
        privileges_gained: words(&["setuid"]),
        ..Exec::default()
    };
    let credentials = Credentials {
        call: "exec".into(),
        before: Some(credential_set(1000, "alice", none())),
        after: Some(credential_set(0, "root", all())),
        capabilities_gained: words(&["chown", "dac_override", "setgid", "setuid", "sys_admin"]),
        capabilities_lost: Vec::new(),
    };
    let exit = Exit {
        code: Some(0),
        run_time_ns: 21_830_112,
        cpu_time_ns: 6_204_871,
        user_time_ns: 2_068_290,
        system_time_ns: 4_136_581,
        peak_resident_bytes: 8_237_056,
        ..Exit::default()
    };
    let loss = Telemetry {
        losses: vec![Loss {
            hook: "exec".into(),
            reason: "ring_full".into(),
            count: 17,
            kinds: words(&["process.exec"]),
        }],
        since: Some(at(1_000_000_000)),
        until: Some(at(2_000_000_000)),
    };
    let mut events = vec![
        event(0, "process.fork", Some(shell()), Body::Fork(fork)),
        event(1_204_118, "process.exec_failed", Some(env()), Body::ExecFailed(exec_failed)),
        event(1_388_020, "process.exec", Some(sudo()), Body::Exec(exec)),
        event(1_388_020, "process.credentials", Some(sudo()), Body::Credentials(credentials)),
        files::secret(),
        event(21_830_112, "process.exit", Some(sudo()), Body::Exit(exit)),
    ];
    events.extend(files::edit());
    events.extend(files::upgrade());
    events.push(files::mount());
    events.extend(network::serve());
    events.extend(network::fetch());
    events.push(network::capture());
    events.push(event(2_000_000_000, "telemetry.loss", None, Body::Telemetry(loss)));
    events
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.into()).collect()
}

/// So many nanoseconds after the fork.
fn at(nanos: i32) -> Timestamp {
    let nanos = 123_456_789 + nanos;
    Timestamp { seconds: 1_787_306_400 + i64::from(nanos / 1_000_000_000), nanos: nanos % 1_000_000_000 }
}

fn event(nanos: i32, kind: &str, process: Option<Process>, body: Body) -> Event {
    let parent = process.is_some().then(parent);
    let time = at(nanos);
    // A UUID of version 7 begins with milliseconds; here, twelve bits of what is below them follow.
    let millis = time.seconds * 1000 + i64::from(time.nanos / 1_000_000);
    let fraction = i64::from(time.nanos % 1_000_000) * 4096 / 1_000_000;
    Event {
        schema: 1,
        id: format!("{:08x}-{:04x}-7{fraction:03x}-8f30-61c25d1f0a6f", millis >> 16, millis & 0xFFFF),
        time: Some(time),
        kind: kind.into(),
        host: "db1.example.org".into(),
        process,
        parent,
        body: Some(body),
    }
}

fn program(path: &str, inode: u64, mode: &str) -> File {
    File {
        path: path.into(),
        inode,
        device: "253:1".into(),
        links: Some(1),
        mode: mode.into(),
        uid: Some(0),
        gid: Some(0),
        ..File::default()
    }
}

fn none() -> Capabilities {
    Capabilities { bounding: words(&["all"]), ..Capabilities::default() }
}

fn all() -> Capabilities {
    Capabilities { effective: words(&["all"]), permitted: words(&["all"]), ..none() }
}

/// The new process, while it still runs the program of its parent.
fn shell() -> Process {
    Process {
        id: "8f3c5ad2e4b7901c".into(),
        exec_id: "1d09c4e8a27b6f35".into(),
        pid: 48_213,
        tid: 48_213,
        ppid: 48_190,
        start_time: Some(at(0)),
        comm: "bash".into(),
        exe: Some(program("/usr/bin/bash", 1_311_874, "0755")),
        args: words(&["-bash"]),
        cwd: "/home/alice".into(),
        uid: Some(1000),
        euid: Some(1000),
        suid: Some(1000),
        fsuid: Some(1000),
        gid: Some(1000),
        egid: Some(1000),
        sgid: Some(1000),
        fsgid: Some(1000),
        user: "alice".into(),
        group: "alice".into(),
        loginuid: Some(1000),
        login_user: "alice".into(),
        audit_session: Some(7),
        tty: "pts/0".into(),
        capabilities: Some(none()),
        namespaces: Some(Namespaces {
            cgroup: 4_026_531_835,
            ipc: 4_026_531_839,
            mnt: 4_026_531_841,
            net: 4_026_531_840,
            pid: 4_026_531_836,
            pid_for_children: 4_026_531_836,
            time: 4_026_531_834,
            user: 4_026_531_837,
            uts: 4_026_531_838,
        }),
        cgroup: Some(Cgroup {
            id: 9_187,
            path: "/user.slice/user-1000.slice/session-7.scope".into(),
            path_truncated: false,
        }),
        source: Source::Kernel.into(),
        ..Process::default()
    }
}

/// The same process after its first exec.
fn env() -> Process {
    Process {
        exec_id: "70a3b6e2581fdc94".into(),
        comm: "env".into(),
        exe: Some(program("/usr/bin/env", 1_312_209, "0755")),
        args: words(&["env", "sudo", "id"]),
        ..shell()
    }
}

/// The same process after its exec of a set-user-ID program.
fn sudo() -> Process {
    Process {
        exec_id: "c2e85d40b91f7a36".into(),
        comm: "sudo".into(),
        exe: Some(program("/usr/bin/sudo", 1_318_402, "4755")),
        args: words(&["sudo", "id"]),
        euid: Some(0),
        suid: Some(0),
        fsuid: Some(0),
        euser: "root".into(),
        capabilities: Some(all()),
        ..shell()
    }
}

fn parent() -> Parent {
    Parent {
        id: "52b8e01f7c3da946".into(),
        exec_id: "e7a6130b94d2c58f".into(),
        pid: 48_190,
        comm: "bash".into(),
        exe: Some(program("/usr/bin/bash", 1_311_874, "0755")),
        args: words(&["-bash"]),
        uid: Some(1000),
        user: "alice".into(),
        ..Parent::default()
    }
}

fn credential_set(effective: u32, euser: &str, capabilities: Capabilities) -> CredentialSet {
    CredentialSet {
        uid: Some(1000),
        euid: Some(effective),
        suid: Some(effective),
        fsuid: Some(effective),
        gid: Some(1000),
        egid: Some(1000),
        sgid: Some(1000),
        fsgid: Some(1000),
        user: "alice".into(),
        euser: euser.into(),
        group: "alice".into(),
        egroup: "alice".into(),
        capabilities: Some(capabilities),
        securebits: 0,
        user_namespace: 4_026_531_837,
    }
}
