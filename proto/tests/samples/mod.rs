//! Events to show and to measure, used by tests/golden.rs and `benches/to_json.rs`.

use nightjar_proto::v1::{
    Capabilities, Cgroup, Container, CredentialSet, Credentials, Event, Exec, ExecFailed, Exit, File,
    FileActivity, FileAttributes, FileMount, FileReplaced, FileTarget, Fork, Loss, Namespaces,
    NetworkActivity, NetworkEndpoint, NetworkOpener, Parent, Process, Script, Source, Telemetry, event::Body,
};
use prost_types::Timestamp;

/// One event of each body with every field set, by name of the golden file, which is that of the body's first kind.
///
/// No `..Default::default()`: a field that is added to the schema is to be added here.
pub fn complete() -> Vec<(&'static str, Event)> {
    let event = |body| Event {
        schema: 1,
        id: "01987c5e-3a80-7b1f-8c44-5d1f0a6f2b3c".into(),
        time: Some(Timestamp { seconds: 1_787_306_400, nanos: 123_456_789 }),
        kind: kind(&body).into(),
        host: "db1.example.org".into(),
        // Nobody did what was lost.
        process: (!matches!(body, Body::Telemetry(_))).then(process),
        parent: (!matches!(body, Body::Telemetry(_))).then(parent),
        body: Some(body),
    };
    [
        Body::Exec(exec()),
        Body::ExecFailed(exec_failed()),
        Body::Fork(fork()),
        Body::Exit(exit()),
        Body::Credentials(credentials()),
        Body::Telemetry(telemetry()),
        Body::File(file_activity()),
        Body::Network(network_activity()),
    ]
    .map(|body| (kind(&body), event(body)))
    .into()
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Exec(_) => "process.exec",
        Body::ExecFailed(_) => "process.exec_failed",
        Body::Fork(_) => "process.fork",
        Body::Exit(_) => "process.exit",
        Body::Credentials(_) => "process.credentials",
        Body::Telemetry(_) => "telemetry.loss",
        Body::File(_) => "file.open",
        Body::Network(_) => "network.connect",
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.into()).collect()
}

fn file(path: &str) -> File {
    File {
        path: path.into(),
        inode: 1_311_874,
        device: "253:1".into(),
        links: Some(0),
        mode: "4755".into(),
        uid: Some(0),
        gid: Some(0),
        deleted: true,
        memfd: true,
        path_truncated: true,
        path_unreachable: true,
    }
}

fn capabilities() -> Capabilities {
    Capabilities {
        effective: strings(&["net_bind_service"]),
        permitted: strings(&["net_bind_service", "sys_ptrace"]),
        inheritable: strings(&["net_raw"]),
        bounding: strings(&["all"]),
        ambient: strings(&["net_bind_service"]),
    }
}

fn process() -> Process {
    Process {
        id: "8f3c5ad2e4b7901c".into(),
        exec_id: "1d09c4e8a27b6f35".into(),
        pid: 48_213,
        tid: 48_214,
        ppid: 48_190,
        start_time: Some(Timestamp { seconds: 1_787_306_399, nanos: 0 }),
        comm: "grep".into(),
        exe: Some(file("/usr/bin/grep")),
        // The last one: two bytes that are not UTF-8, as text::from_bytes writes them.
        args: strings(&["grep", "-rn", "a \"quoted\"\tpattern \\d+", "caf\u{e9}", r"\xff\xfe"]),
        args_truncated: true,
        cwd: "/home/alice/src".into(),
        uid: Some(1000),
        euid: Some(0),
        suid: Some(0),
        fsuid: Some(0),
        gid: Some(1000),
        egid: Some(0),
        sgid: Some(0),
        fsgid: Some(0),
        user: "alice".into(),
        group: "alice".into(),
        euser: "root".into(),
        egroup: "root".into(),
        loginuid: Some(1000),
        login_user: "alice".into(),
        audit_session: Some(7),
        tty: "pts/0".into(),
        capabilities: Some(capabilities()),
        securebits: 1,
        no_new_privs: true,
        namespaces: Some(Namespaces {
            cgroup: 4_026_531_835,
            ipc: 4_026_531_839,
            mnt: 4_026_531_841,
            net: 4_026_531_840,
            pid: 4_026_531_836,
            pid_for_children: 4_026_531_837,
            time: 4_026_531_834,
            user: 4_026_531_838,
            uts: 4_026_531_833,
        }),
        cgroup: Some(Cgroup {
            id: 9_187,
            path: "/user.slice/user-1000.slice/session-7.scope".into(),
            path_truncated: true,
        }),
        container: Some(Container {
            id: "3f4e8a1c9b7d2056e1f8c4a93b6d70258e1f3c9a7b5d40628f1e3c9a7b5d4062".into(),
            runtime: "containerd".into(),
            pod_uid: "6c1a7c4e-0d6b-4a53-9b39-0f3f5a0f8f11".into(),
        }),
        ns_pid: 12,
        kernel_thread: true,
        source: Source::Kernel.into(),
        cwd_truncated: true,
        cwd_unreachable: true,
        args_from_proc: true,
        args_redacted: true,
    }
}

fn parent() -> Parent {
    Parent {
        id: "52b8e01f7c3da946".into(),
        exec_id: "e7a6130b94d2c58f".into(),
        pid: 48_190,
        comm: "bash".into(),
        exe: Some(file("/usr/bin/bash")),
        args: strings(&["-bash"]),
        args_truncated: true,
        uid: Some(1000),
        user: "alice".into(),
        args_from_proc: true,
        args_redacted: true,
    }
}

fn exec() -> Exec {
    Exec {
        filename: "./deploy.sh".into(),
        argc: 5,
        args_size: 48,
        script: Some(Script {
            path: "/home/alice/src/deploy.sh".into(),
            interpreter: "/usr/bin/env -S".into(),
        }),
        privileges_gained: strings(&["setuid", "file_capabilities"]),
        thread_became_leader: 48_214,
        environment: vec!["LD_PRELOAD=/tmp/x.so".to_owned()],
        environment_truncated: true,
    }
}

fn exec_failed() -> ExecFailed {
    ExecFailed {
        filename: "/usr/local/bin/grep".into(),
        errno: "ENOENT".into(),
        call: "execveat".into(),
        dirfd: Some(-1),
        source: "user_memory".into(),
        filename_truncated: true,
        filename_unreadable: true,
    }
}

fn fork() -> Fork {
    Fork { clone_flags: strings(&["vm", "vfork"]), creator: Some(parent()) }
}

fn exit() -> Exit {
    Exit {
        code: Some(0),
        signal: "SIGKILL".into(),
        core_dumped: true,
        run_time_ns: u64::MAX,
        cpu_time_ns: 9_007_199_254_740_993,
        user_time_ns: 3_000_000,
        system_time_ns: 1_000_000,
        peak_resident_bytes: 4_194_304,
    }
}

fn credentials() -> Credentials {
    let before = CredentialSet {
        uid: Some(1000),
        euid: Some(1000),
        suid: Some(1000),
        fsuid: Some(1000),
        gid: Some(1000),
        egid: Some(1000),
        sgid: Some(1000),
        fsgid: Some(1000),
        user: "alice".into(),
        euser: "alice".into(),
        group: "alice".into(),
        egroup: "alice".into(),
        capabilities: Some(Capabilities::default()),
        securebits: 4,
        user_namespace: 4_026_531_838,
    };
    // Root: ids of zero are set, not absent.
    let after = CredentialSet {
        uid: Some(0),
        euid: Some(0),
        suid: Some(0),
        fsuid: Some(0),
        user: "root".into(),
        euser: "root".into(),
        capabilities: Some(capabilities()),
        ..before.clone()
    };
    Credentials {
        call: "setresuid".into(),
        before: Some(before),
        after: Some(after),
        capabilities_gained: strings(&["sys_ptrace"]),
        capabilities_lost: strings(&["net_raw"]),
    }
}

fn telemetry() -> Telemetry {
    Telemetry {
        losses: vec![Loss {
            hook: "sched_process_exec".into(),
            reason: "ring_full".into(),
            count: 17,
            kinds: strings(&["process.exec"]),
        }],
        since: Some(Timestamp { seconds: -1, nanos: 0 }),
        until: Some(Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }),
    }
}

/// More than any one event has.
fn file_activity() -> FileActivity {
    let before = FileAttributes {
        mode: "0644".into(),
        uid: Some(0),
        gid: Some(0),
        size: Some(0),
        modified: Some(Timestamp { seconds: 1_787_300_000, nanos: 1 }),
        accessed: Some(Timestamp { seconds: 0, nanos: 0 }),
    };
    let after = FileAttributes { mode: "4755".into(), size: Some(1303), ..before.clone() };
    FileActivity {
        path: r"/etc/caf\xe9".into(),
        inode: 1_311_874,
        device: "253:1".into(),
        r#type: "regular".into(),
        mode: "4755".into(),
        uid: Some(0),
        gid: Some(0),
        user: "root".into(),
        group: "root".into(),
        size: Some(0),
        links: Some(0),
        policy: "accounts".into(),
        source: "kernel".into(),
        call: "openat".into(),
        flags: strings(&["read", "write", "create"]),
        created: true,
        errno: "EACCES".into(),
        target: Some(FileTarget {
            path: "/etc/passwd".into(),
            inode: 1_311_875,
            device: "253:1".into(),
            size: Some(0),
            mode: "0644".into(),
            source: "user_memory".into(),
        }),
        replaced: Some(FileReplaced {
            inode: 1_311_876,
            size: Some(0),
            mode: "0644".into(),
            uid: Some(0),
            gid: Some(0),
        }),
        symbolic: true,
        exchanged: true,
        before: Some(before),
        after: Some(after),
        changed: strings(&["mode", "xattr"]),
        xattr: "security.capability".into(),
        bytes: 1303,
        ongoing: true,
        count: 12,
        first_time: Some(Timestamp { seconds: 1_787_306_400, nanos: 123_456_789 }),
        last_time: Some(Timestamp { seconds: 1_787_306_401, nanos: 0 }),
        mount: Some(FileMount {
            operation: "mount".into(),
            source: "/dev/sdb1".into(),
            filesystem: "ext4".into(),
            flags: strings(&["nosuid", "nodev"]),
        }),
        path_truncated: true,
        path_unreachable: true,
        path_unreadable: true,
        deleted: true,
    }
}

/// More than any one event has.
fn network_activity() -> NetworkActivity {
    NetworkActivity {
        protocol: "tcp".into(),
        family: "ipv6".into(),
        r#type: "stream".into(),
        direction: "outbound".into(),
        local: Some(NetworkEndpoint {
            address: "fe80::5054:ff:fe12:3456".into(),
            port: Some(0),
            scope_id: 2,
            path: r"@caf\xe9".into(),
        }),
        remote: Some(NetworkEndpoint {
            address: "fe80::1".into(),
            port: Some(65_535),
            scope_id: u32::MAX,
            path: "/run/docker.sock".into(),
        }),
        connection: "00c2f81e5b7d946a".into(),
        namespace: 4_026_532_281,
        interface: "eth0".into(),
        loopback: true,
        ipv4_mapped: true,
        outcome: "failed".into(),
        error: "ECONNREFUSED".into(),
        latency: 1_204_118,
        duration: u64::MAX,
        bytes_sent: Some(0),
        bytes_received: Some(9_007_199_254_740_993),
        packets_sent: Some(0),
        packets_received: Some(0),
        retransmits: 3,
        round_trip: 412_000,
        reason: "reset_by_remote".into(),
        call: "io_uring".into(),
        attribution: "opener".into(),
        opener: Some(NetworkOpener {
            id: "52b8e01f7c3da946".into(),
            exec_id: "e7a6130b94d2c58f".into(),
            pid: 48_190,
            comm: "a\nb".into(),
            exe: r"/usr/bin/caf\xe9".into(),
        }),
        snapshot: true,
        count: 412,
        failed: 3,
        first_time: Some(Timestamp { seconds: 1_787_306_400, nanos: 123_456_789 }),
        last_time: Some(Timestamp { seconds: 1_787_306_405, nanos: 0 }),
        backlog: 4_096,
        source: "user_memory".into(),
    }
}
