//! What is done to files: alice edits one with vi and copies it, and an upgrade of sudo replaces its program.

use nightjar_proto::v1::{
    Event, FileActivity, FileAttributes, FileMount, FileReplaced, FileTarget, Parent, Process, event::Body,
};
use prost_types::Timestamp;

use super::{all, at, event, program, shell, sudo, words};

/// sudo reads the password of alice, and whether it has expired.
pub fn secret() -> Event {
    let shadow = FileActivity {
        policy: "secrets".into(),
        call: "openat".into(),
        flags: words(&["read"]),
        count: 2,
        first_time: Some(at(9_870_004)),
        last_time: Some(at(10_332_518)),
        ..root_file("/etc/shadow", 393_421, "0640", 1_042)
    };
    let shadow = FileActivity { gid: Some(42), group: "shadow".into(), ..shadow };
    done(9_870_004, "file.open", sudo(), shadow)
}

/// alice edits a file with vi, which keeps what is not saved in another, and copies it.
pub fn edit() -> Vec<Event> {
    const EDITED: &str = "/home/alice/src/deploy.yaml";
    let of_alice = |path: &str, inode, mode: &str, size| FileActivity {
        uid: Some(1000),
        gid: Some(1000),
        user: "alice".into(),
        group: "alice".into(),
        policy: "deployments".into(),
        ..root_file(path, inode, mode, size)
    };
    let length =
        |size, modified| Some(FileAttributes { size: Some(size), modified, ..FileAttributes::default() });
    let long_ago = Some(Timestamp { seconds: 1_786_958_211, nanos: 402_118_930 });

    let swap = of_alice("/home/alice/src/.deploy.yaml.swp", 918_304, "0600", 0);
    let created = FileActivity {
        call: "openat".into(),
        flags: words(&["read", "write", "create", "excl"]),
        ..swap.clone()
    };
    let emptied = FileActivity {
        call: "openat".into(),
        before: length(812, long_ago),
        after: length(0, Some(at(801_330_150))),
        ..of_alice(EDITED, 918_277, "0644", 0)
    };
    let written = FileActivity {
        before: length(0, Some(at(801_330_150))),
        after: length(846, Some(at(801_402_996))),
        bytes: 846,
        ..of_alice(EDITED, 918_277, "0644", 846)
    };
    let closed = FileActivity {
        flags: words(&["write", "create", "trunc"]),
        ..of_alice(EDITED, 918_277, "0644", 846)
    };
    let deleted = FileActivity { size: Some(12_288), links: Some(0), call: "unlink".into(), ..swap };
    let copied = FileActivity {
        call: "copy_file_range".into(),
        bytes: 846,
        target: Some(FileTarget {
            path: "/srv/releases/deploy.yaml".into(),
            inode: 2_621_447,
            device: "253:2".into(),
            size: Some(846),
            mode: "0644".into(),
            ..FileTarget::default()
        }),
        ..of_alice(EDITED, 918_277, "0644", 846)
    };
    let vi = || Process {
        id: "03bd71f6c95e284a".into(),
        exec_id: "b4460e9d2af8513c".into(),
        pid: 48_231,
        tid: 48_231,
        start_time: Some(at(310_204_877)),
        comm: "vi".into(),
        exe: Some(program("/usr/bin/vim.tiny", 1_313_590, "0755")),
        args: words(&["vi", "src/deploy.yaml"]),
        ..shell()
    };
    let cp = Process {
        id: "6ad0f94b17c2e835".into(),
        exec_id: "f1937ce0584bda62".into(),
        pid: 48_240,
        tid: 48_240,
        start_time: Some(at(900_118_205)),
        comm: "cp".into(),
        exe: Some(program("/usr/bin/cp", 1_312_194, "0755")),
        args: words(&["cp", "src/deploy.yaml", "/srv/releases"]),
        ..shell()
    };
    vec![
        done(318_400_217, "file.create", vi(), created),
        done(801_330_150, "file.truncate", vi(), emptied),
        done(801_448_116, "file.modify", vi(), written),
        done(801_450_373, "file.close", vi(), closed),
        done(830_061_904, "file.delete", vi(), deleted),
        done(902_550_431, "file.copy", cp, copied),
    ]
}

/// dpkg unpacks a program beside the old one, which it keeps under a second name until the new one has its place.
pub fn upgrade() -> Vec<Event> {
    let of_programs = |path: &str, inode, mode: &str, size| FileActivity {
        policy: "programs".into(),
        ..root_file(path, inode, mode, size)
    };
    let mode = |mode: &str| Some(FileAttributes { mode: mode.into(), ..FileAttributes::default() });
    let target = |path: &str| Some(FileTarget { path: path.into(), ..FileTarget::default() });

    let folder = FileActivity {
        r#type: "directory".into(),
        links: Some(2),
        call: "mkdir".into(),
        ..of_programs("/usr/libexec/sudo.dpkg-new", 1_327_018, "0755", 4_096)
    };
    let old_folder = FileActivity {
        r#type: "directory".into(),
        links: Some(0),
        call: "rmdir".into(),
        ..of_programs("/usr/libexec/sudo-1.9.15", 1_319_662, "0755", 4_096)
    };
    let attributes = FileActivity {
        changed: words(&["mode"]),
        before: mode("0600"),
        after: mode("4755"),
        call: "fchmod".into(),
        ..of_programs("/usr/bin/sudo.dpkg-new", 1_327_020, "4755", 306_456)
    };
    let link = FileActivity {
        links: Some(2),
        target: target("/usr/bin/sudo"),
        call: "link".into(),
        ..of_programs("/usr/bin/sudo.dpkg-tmp", 1_318_402, "4755", 281_624)
    };
    let rename = FileActivity {
        target: target("/usr/bin/sudo"),
        replaced: Some(FileReplaced {
            inode: 1_318_402,
            size: Some(281_624),
            mode: "4755".into(),
            uid: Some(0),
            gid: Some(0),
        }),
        call: "rename".into(),
        ..of_programs("/usr/bin/sudo.dpkg-new", 1_327_020, "4755", 306_456)
    };
    let dpkg = || Process {
        id: "d75c0e83b1a9642f".into(),
        exec_id: "2b6f48e0a7d1935c".into(),
        pid: 48_266,
        tid: 48_266,
        ppid: 48_262,
        start_time: Some(at(1_200_410_668)),
        comm: "dpkg".into(),
        exe: Some(program("/usr/bin/dpkg", 1_312_006, "0755")),
        args: words(&["dpkg", "--install", "sudo_1.9.16p2-3_amd64.deb"]),
        ..as_root()
    };
    vec![
        done(1_250_733_910, "file.mkdir", dpkg(), folder),
        done(1_301_228_045, "file.attributes", dpkg(), attributes),
        done(1_410_902_177, "file.link", dpkg(), link),
        done(1_410_958_662, "file.rename", dpkg(), rename),
        done(1_502_340_116, "file.rmdir", dpkg(), old_folder),
    ]
}

/// root mounts a disk.
pub fn mount() -> Event {
    let point = FileActivity {
        path: "/mnt/backup".into(),
        source: "kernel".into(),
        call: "mount".into(),
        mount: Some(FileMount {
            operation: "mount".into(),
            source: "/dev/sdb1".into(),
            filesystem: "ext4".into(),
            flags: words(&["nosuid", "nodev"]),
        }),
        ..FileActivity::default()
    };
    let mount = Process {
        id: "4e19d2b86fa07c53".into(),
        exec_id: "98c3a15d7e40b26f".into(),
        pid: 48_291,
        tid: 48_291,
        ppid: 48_262,
        start_time: Some(at(1_700_226_031)),
        comm: "mount".into(),
        exe: Some(program("/usr/bin/mount", 1_312_350, "4755")),
        args: words(&["mount", "-o", "nosuid,nodev", "/dev/sdb1", "/mnt/backup"]),
        ..as_root()
    };
    done(1_704_815_290, "file.mount", mount, point)
}

fn done(nanos: i32, kind: &str, process: Process, file: FileActivity) -> Event {
    let mut event = event(nanos, kind, Some(process), Body::File(file));
    if let (Some(process), Some(parent)) = (&event.process, &mut event.parent)
        && process.ppid != parent.pid
    {
        *parent = root_shell();
    }
    event
}

/// A file of root that has one name, seen by the kernel programs.
fn root_file(path: &str, inode: u64, mode: &str, size: u64) -> FileActivity {
    FileActivity {
        path: path.into(),
        inode,
        device: "253:1".into(),
        r#type: "regular".into(),
        mode: mode.into(),
        uid: Some(0),
        gid: Some(0),
        user: "root".into(),
        group: "root".into(),
        size: Some(size),
        links: Some(1),
        source: "kernel".into(),
        ..FileActivity::default()
    }
}

/// A process that alice started as root, from a shell that sudo gave her.
pub fn as_root() -> Process {
    let (uid, gid) = (Some(0), Some(0));
    Process {
        cwd: "/root".into(),
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        user: "root".into(),
        group: "root".into(),
        capabilities: Some(all()),
        ..shell()
    }
}

pub fn root_shell() -> Parent {
    Parent {
        id: "a90b5d3e6c18f274".into(),
        exec_id: "35d8f21c04b7e96a".into(),
        pid: 48_262,
        comm: "bash".into(),
        exe: Some(program("/usr/bin/bash", 1_311_874, "0755")),
        args: words(&["-bash"]),
        uid: Some(0),
        user: "root".into(),
        ..Parent::default()
    }
}
