//! The checks, a row each.

mod files;
mod kernel;
mod memory;
mod rights;
mod service;
mod surroundings;

pub(super) use files::fanotify;

use super::{Check, Finding, host::Host};

/// One thing that is looked at.
struct Row {
    /// As in [`Check::name`].
    name: &'static str,
    look: fn(&Host) -> Finding,
}

/// What matters most comes first, what only costs comes later.
const CHECKS: &[Row] = &[
    Row { name: "kernel", look: kernel::release },
    Row { name: "btf", look: kernel::btf },
    Row { name: "capabilities", look: rights::capabilities },
    Row { name: "user_namespace", look: rights::user_namespace },
    Row { name: "lockdown", look: kernel::lockdown },
    Row { name: "lsm", look: kernel::modules },
    Row { name: "tracefs", look: kernel::tracefs },
    Row { name: "perf_event_paranoid", look: kernel::perf_event_paranoid },
    Row { name: "fanotify", look: fanotify },
    Row { name: "unprivileged_bpf", look: kernel::unprivileged_bpf },
    Row { name: "ring_memory", look: memory::ring },
    Row { name: "pid_namespace", look: rights::pid_namespace },
    Row { name: "mount_namespace", look: rights::mount_namespace },
    Row { name: "cgroups", look: surroundings::cgroups },
    Row { name: "login_users", look: surroundings::login_users },
    Row { name: "clock", look: surroundings::clock },
    Row { name: "clock_source", look: surroundings::clock_source },
    Row { name: "bpf_jit", look: kernel::jit },
    Row { name: "bpf_stats", look: kernel::statistics },
    Row { name: "audit", look: surroundings::audit },
    Row { name: "configuration", look: service::configuration },
    Row { name: "watched_files", look: files::watched },
    Row { name: "output", look: service::output },
    Row { name: "agent", look: service::agent },
];

/// Looks at everything.
#[must_use]
pub fn examine(host: &Host) -> Vec<Check> {
    CHECKS.iter().map(|row| (row.look)(host).of(row.name)).collect()
}

/// Why kernel programs cannot be loaded by this process, so that it need not be tried.
#[must_use]
pub fn hindrance(host: &Host) -> Option<Finding> {
    if !host.may_watch() {
        return Some(Finding::failed(
            "not tried: that needs root",
            "all: this user cannot watch the kernel",
            "`sudo nightjar doctor`",
        ));
    }
    if !memory::has_room(host) {
        return Some(Finding::failed(
            "not tried: the kernel would end this process for want of memory",
            "all: an agent would be ended as well",
            "see ring_memory; or run the doctor in another cgroup",
        ));
    }
    None
}

/// `4.5 MiB`
fn bytes(number: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| number >> shift > 0) else {
        return format!("{number} bytes");
    };
    let tenths = (u128::from(number) * 10) >> shift;
    if tenths.is_multiple_of(10) {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        doctor::{Outcome, host::testing::Fixture},
        service::Capability,
    };

    #[test]
    fn no_two_checks_have_one_name() {
        let names: BTreeSet<_> = CHECKS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn sizes_are_written_as_people_do() {
        assert_eq!(bytes(17), "17 bytes");
        assert_eq!(bytes(4 << 20), "4 MiB");
        assert_eq!(bytes((5 << 20) + (1 << 19)), "5.5 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn what_would_fail_is_not_tried() {
        assert_eq!(hindrance(&Fixture::new().host), None);
        let finding = hindrance(&Fixture::new().without(Capability::Bpf).host).unwrap();
        assert!(finding.mend.contains("sudo"), "{finding:?}");
        let small = Fixture::new().file("/proc/self/cgroup", "0::/\n").file("/sys/fs/cgroup/memory.max", "1");
        assert_eq!(hindrance(&small.host).unwrap().result, Outcome::Failed);
    }

    /// All files that any check reads.
    const FILES: &[&str] = &[
        "/proc/sys/kernel/osrelease",
        "/sys/kernel/btf/vmlinux",
        "/proc/self/mounts",
        "/proc/filesystems",
        "/sys/kernel/security/lockdown",
        "/sys/kernel/security/lsm",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
        "/proc/sys/kernel/perf_event_paranoid",
        "/proc/sys/kernel/bpf_stats_enabled",
        "/proc/sys/net/core/bpf_jit_enable",
        "/proc/self/cgroup",
        "/proc/self/loginuid",
        "/proc/cmdline",
        "/proc/locks",
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        "/run/chrony/chronyd.pid",
        "/run/auditd.pid",
        "/run/nightjar/default.lock",
        "/etc/audit/audit.rules",
        "/etc/systemd/system/nightjar.service",
        "/etc/systemd/system/nightjar.service.d/a.conf",
        "/run/systemd/timesync/synchronized",
    ];

    #[test]
    fn a_host_that_shows_nothing_is_examined_all_the_same() {
        let checks = examine(&Fixture::new().host);
        assert_eq!(checks.len(), CHECKS.len());
        assert!(checks.iter().all(|check| !check.finding.found.is_empty()));
    }

    #[test]
    fn whatever_files_hold_every_check_says_something() {
        let long = "9".repeat(5000);
        let contents: &[&[u8]] = &[
            b"",
            b"\0",
            b"\xff\xfe\xfd",
            b"-1",
            b"[",
            b"]:[\n::::\n0::/../../..\n1:memory:\n",
            b"18446744073709551616",
            b"MemoryMax=\nMemoryMax=1X\nMemoryMax=99999999999999999999G\nMemoryMax=150%\nMemoryMax=%",
            b"\x1b[2J\x1b]0;owned\x07",
            long.as_bytes(),
        ];
        for content in contents {
            let fixture = FILES.iter().fold(Fixture::new(), |fixture, path| fixture.file(path, content));
            let fixture = ["pid", "user", "mnt"].iter().fold(fixture, |fixture, name| {
                fixture.link(&format!("/proc/self/ns/{name}"), &format!("{name}:[{}]", content.len()))
            });
            for check in examine(&fixture.host) {
                assert!(!check.finding.found.is_empty(), "{} of {content:?}", check.name);
                let has_mend = !check.finding.mend.is_empty();
                let is_bad = check.finding.result > Outcome::Unknown;
                assert_eq!(is_bad, has_mend, "what is bad has a mend, what is not has none: {check:?}");
                assert_eq!(is_bad, !check.finding.lost.is_empty(), "{check:?}");
            }
        }
    }
}
