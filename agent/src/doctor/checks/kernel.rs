//! The kernel: what it is, and what it is set to.

use std::io::ErrorKind;

use nightjar_abi::fields;

use super::bytes;
use crate::{
    doctor::{
        Finding,
        host::{Host, unread},
    },
    kernel::{
        btf::{Btf, KERNEL_BTF},
        fields::resolve,
    },
    service::Capability,
};

/// The oldest that the agent is made for.
const OLDEST: (u32, u32) = (5, 10);
/// Before it there are no ring buffers, without which there is no agent.
/// <https://git.kernel.org/torvalds/c/457f44363a88>
const FIRST_WITH_RINGS: (u32, u32) = (5, 8);
/// Ten times as much as distributions have.
const LARGEST_BTF: u64 = 64 << 20;
/// What tracepoints of system calls alone tell.
const LOST_WITHOUT_CALLS: &str = "failed execs; of changes of credentials the call and the moment; truncations, copies \
                                  and mounts, and of what else is done with files the call, and all of it where \
                                  fanotify does not look";
const NEWER_KERNEL: &str = "run Linux 5.10 or later";

/// Release and machine.
pub(super) fn release(host: &Host) -> Finding {
    let machine = &host.facts.machine;
    let release = match host.read("/proc/sys/kernel/osrelease") {
        Ok(release) => release,
        Err(error) => return Finding::unknown(format!("release of the kernel: {}", unread(&error))),
    };
    let found = format!("Linux {release} on {machine}");
    if machine != "x86_64" {
        return Finding::failed(
            found,
            "all: the kernel programs read the registers of x86-64",
            "run it on an x86-64 host",
        );
    }
    match host.version() {
        None => Finding::unknown(format!("{found}, which is no release that can be compared")),
        Some(version) if version < FIRST_WITH_RINGS => {
            Finding::failed(found, "all: this kernel has no BPF ring buffers", NEWER_KERNEL)
        }
        Some(version) if version < OLDEST => Finding::limited(
            found,
            "nobody tries releases before 5.10: what works here is luck",
            NEWER_KERNEL,
        ),
        Some(_) => Finding::ok(found),
    }
}

/// The kernel's description of its own types, and the fields that are read.
pub(super) fn btf(host: &Host) -> Finding {
    const LOST: &str = "all: without it the kernel programs do not know where anything is";
    let data = match host.bytes(KERNEL_BTF, LARGEST_BTF) {
        Ok(data) => data,
        Err(error) => {
            return Finding::failed(
                format!("{KERNEL_BTF}: {}", unread(&error)),
                LOST,
                "mount /sys; if it is, run a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of \
                 distributions are",
            );
        }
    };
    let size = bytes(data.len() as u64);
    let wrong = |error: &dyn std::error::Error| {
        Finding::failed(
            format!("{KERNEL_BTF}, {size}: {error}"),
            LOST,
            "use a Nightjar release that knows this kernel",
        )
    };
    let types = match Btf::parse(data) {
        Ok(types) => types,
        Err(error) => return wrong(&error),
    };
    let release = host.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    match resolve(&types, fields::TABLE, &release) {
        Err(error) => wrong(&error),
        Ok(offsets) => {
            let missing: Vec<_> = offsets.missing().collect();
            let without = match missing.len() {
                0 => String::new(),
                some => format!(", of which {some} are not in this kernel ({})", missing.join(", ")),
            };
            Finding::ok(format!("{size}; {} fields are looked up{without}", fields::TABLE.len()))
        }
    }
}

/// Where numbers of system call tracepoints are.
pub(super) fn tracefs(host: &Host) -> Finding {
    const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    if let Some(place) = PLACES.iter().find(|place| host.has(&format!("{place}/events"))) {
        return Finding::ok(format!("at {place}"));
    }
    let mounts = host.mounts();
    let mount = mounts.iter().find(|mount| mount.kind == "tracefs" || mount.kind == "debugfs");
    if let Some(mount) = mount.filter(|_| host.lacks(Capability::DacReadSearch)) {
        return Finding::limited(
            format!("{} at {}, closed to this user", mount.kind, mount.place),
            LOST_WITHOUT_CALLS,
            "run it as root, or with CAP_DAC_READ_SEARCH",
        );
    }
    let kinds = host.read("/proc/filesystems").unwrap_or_default();
    if !kinds.is_empty() && !kinds.lines().any(|line| line.ends_with("\ttracefs")) {
        return Finding::limited(
            "this kernel has none",
            LOST_WITHOUT_CALLS,
            "run a kernel built with CONFIG_FTRACE=y and CONFIG_FTRACE_SYSCALLS=y",
        );
    }
    if host.lacks(Capability::SysAdmin) || host.facts.missing.is_err() {
        return Finding::limited(
            "not mounted, and the agent may not mount it for itself",
            LOST_WITHOUT_CALLS,
            "`mount -t tracefs tracefs /sys/kernel/tracing`, or give the agent CAP_SYS_ADMIN for its start",
        );
    }
    Finding::ok("not mounted; the agent mounts it for itself, where nobody else sees it")
}

/// Whether the kernel hides itself from root.
pub(super) fn lockdown(host: &Host) -> Finding {
    let text = match security(host, "lockdown") {
        Ok(Some(text)) => text,
        Ok(None) => return Finding::ok("this kernel has none"),
        Err(finding) => return finding,
    };
    let level = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(level, _)| level);
    match level {
        Some("none") => Finding::ok("off"),
        Some("integrity") => Finding::ok("integrity, which does not concern the agent"),
        Some("confidentiality") => Finding::failed(
            "confidentiality",
            "all: the kernel lets nobody read its memory, as each of the kernel programs does",
            "boot with `lockdown=integrity`",
        ),
        _ => Finding::unknown("the level is none that this release knows"),
    }
}

/// Security modules.
pub(super) fn modules(host: &Host) -> Finding {
    match security(host, "lsm") {
        Err(finding) => finding,
        Ok(None) => Finding::ok("none; no sensor needs one"),
        Ok(Some(text)) if text.is_empty() => Finding::ok("none; no sensor needs one"),
        Ok(Some(text)) => {
            let has_bpf = text.split(',').any(|name| name == "bpf");
            let bpf =
                if has_bpf { "bpf is among them" } else { "bpf is not among them, and no sensor needs it" };
            Finding::ok(format!("{}; {bpf}", text.split(',').collect::<Vec<_>>().join(", ")))
        }
    }
}

/// A file of securityfs; `None` where that is mounted and does not have it.
fn security(host: &Host, name: &str) -> Result<Option<String>, Finding> {
    const PLACE: &str = "/sys/kernel/security";
    match host.read(format!("{PLACE}/{name}")) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if host.mounts().iter().any(|mount| mount.kind == "securityfs") {
                return Ok(None);
            }
            Err(Finding::unknown(format!("securityfs, which tells, is not mounted at {PLACE}")))
        }
        Err(error) => Err(Finding::unknown(format!("{PLACE}/{name}: {}", unread(&error)))),
    }
}

/// A number below `/proc/sys`.
fn setting(host: &Host, name: &str) -> Result<i64, Finding> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    host.number(&path).map_err(|error| Finding::unknown(format!("{name}: {}", unread(&error))))
}

/// Who may use perf events, by which system call tracepoints are attached.
pub(super) fn perf_event_paranoid(host: &Host) -> Finding {
    // Levels above 2 are patches of Debian and Ubuntu: then CAP_SYS_ADMIN is asked for.
    match setting(host, "kernel.perf_event_paranoid") {
        Err(finding) => finding,
        Ok(level) if level > 2 && host.lacks(Capability::SysAdmin) => Finding::limited(
            format!("{level}: tracepoints of system calls need CAP_SYS_ADMIN"),
            LOST_WITHOUT_CALLS,
            "`sysctl -w kernel.perf_event_paranoid=2`, or give the agent CAP_SYS_ADMIN for its start",
        ),
        Ok(level) => Finding::ok(level.to_string()),
    }
}

/// Who may load programs.
pub(super) fn unprivileged_bpf(host: &Host) -> Finding {
    match setting(host, "kernel.unprivileged_bpf_disabled") {
        Err(finding) => finding,
        Ok(0) => Finding::ok(
            "0: ordinary users may load some kinds of programs too, which is not the agent's concern",
        ),
        Ok(level) => Finding::ok(format!("{level}: only the privileged load programs")),
    }
}

/// Whether programs are compiled.
pub(super) fn jit(host: &Host) -> Finding {
    match setting(host, "net.core.bpf_jit_enable") {
        Err(finding) => finding,
        Ok(1) => Finding::ok("on"),
        Ok(0) => Finding::limited(
            "off: kernel programs are interpreted",
            "time: each event costs several times as much, in the process that makes it",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
        Ok(level) => Finding::limited(
            format!("{level}: the code of each program is written to the kernel's log"),
            "space in the log; this is for those who work on the compiler",
            "`sysctl -w net.core.bpf_jit_enable=1`",
        ),
    }
}

/// Whether each run of a program is timed.
pub(super) fn statistics(host: &Host) -> Finding {
    match setting(host, "kernel.bpf_stats_enabled") {
        Err(finding) => finding,
        Ok(0) => Finding::ok("off"),
        Ok(_) => Finding::limited(
            "on: the kernel takes the time of every run of every program",
            "time: some 20 to 50 ns a run",
            "`sysctl -w kernel.bpf_stats_enabled=0`, unless somebody measures",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Outcome, host::testing::Fixture};

    fn of_release(text: &str) -> Finding {
        release(&Fixture::new().file("/proc/sys/kernel/osrelease", text).host)
    }

    #[test]
    fn the_release_decides() {
        for (text, result) in [
            ("4.18.0-553.el8_10.x86_64\n", Outcome::Failed),
            ("5.7.19", Outcome::Failed),
            ("5.8.0-63-generic", Outcome::Limited),
            ("5.10.0-32-amd64", Outcome::Ok),
            ("5.15.167.4-microsoft-standard-WSL2+", Outcome::Ok),
            ("6.18.44", Outcome::Ok),
            ("rolling", Outcome::Unknown),
            ("", Outcome::Unknown),
        ] {
            assert_eq!(of_release(text).result, result, "{text:?}");
        }
        assert_eq!(release(&Fixture::new().host).result, Outcome::Unknown);
        assert!(of_release("5.7.19").mend.contains("5.10"));
    }

    #[test]
    fn another_machine_is_named() {
        let fixture = Fixture::new().file("/proc/sys/kernel/osrelease", "6.12.1");
        let finding = release(&fixture.facts(|facts| facts.machine = "aarch64".to_owned()).host);
        assert_eq!(finding.result, Outcome::Failed);
        assert!(finding.found.contains("aarch64") && finding.mend.contains("x86-64"));
    }

    #[test]
    fn btf_that_is_not_there_or_damaged_is_fatal() {
        let none = btf(&Fixture::new().host);
        assert_eq!(none.result, Outcome::Failed);
        assert!(none.mend.contains("CONFIG_DEBUG_INFO_BTF"), "{none:?}");
        let damaged =
            btf(&Fixture::new().file(KERNEL_BTF, "no BTF at all, but long enough for a header").host);
        assert_eq!(damaged.result, Outcome::Failed);
        assert!(damaged.found.contains("not BTF"), "{damaged:?}");
    }

    /// A header, and two sections that are empty but for the first name.
    #[test]
    fn btf_of_a_kernel_without_the_fields_is_fatal_and_names_one() {
        let mut data = vec![0x9f, 0xeb, 1, 0];
        for number in [24_u32, 0, 0, 0, 1] {
            data.extend(number.to_le_bytes());
        }
        data.push(0);
        let finding = btf(&Fixture::new().file(KERNEL_BTF, data).host);
        assert_eq!(finding.result, Outcome::Failed);
        assert!(finding.found.contains("task_struct"), "{finding:?}");
    }

    #[test]
    fn btf_of_a_kernel_is_measured() {
        let Ok(data) = std::fs::read(KERNEL_BTF) else { return };
        let finding = btf(&Fixture::new().file(KERNEL_BTF, data).host);
        assert_eq!(finding.result, Outcome::Ok, "{finding:?}");
        assert!(finding.found.contains("MiB"), "{finding:?}");
    }

    const WITH_TRACEFS: &str = "nodev\tsysfs\nnodev\ttracefs\n\text4\n";

    #[test]
    fn tracefs_is_found_where_it_is_mounted() {
        for place in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            let finding = tracefs(&Fixture::new().folder(&format!("{place}/events")).host);
            assert_eq!(finding, Finding::ok(format!("at {place}")));
        }
    }

    #[test]
    fn tracefs_that_is_not_mounted_matters_where_the_agent_may_not_mount_it() {
        let here = || Fixture::new().file("/proc/filesystems", WITH_TRACEFS).folder("/sys/kernel/tracing");
        assert_eq!(tracefs(&here().host).result, Outcome::Ok);
        let finding = tracefs(&here().without(Capability::SysAdmin).host);
        assert_eq!(finding.result, Outcome::Limited);
        assert!(finding.mend.contains("mount -t tracefs"), "{finding:?}");
        let none = tracefs(&Fixture::new().file("/proc/filesystems", "nodev\tsysfs\n").host);
        assert_eq!(none.result, Outcome::Limited);
        assert!(none.mend.contains("CONFIG_FTRACE"), "{none:?}");
    }

    #[test]
    fn tracefs_that_is_closed_to_this_user_is_not_said_to_be_missing() {
        let fixture =
            Fixture::new().file("/proc/self/mounts", "tracefs /sys/kernel/tracing tracefs rw 0 0\n");
        let finding = tracefs(&fixture.without(Capability::DacReadSearch).without(Capability::SysAdmin).host);
        assert_eq!(finding.result, Outcome::Limited);
        assert!(finding.found.contains("closed to this user"), "{finding:?}");
    }

    #[test]
    fn lockdown_matters_where_it_hides_memory() {
        for (text, result) in [
            ("[none] integrity confidentiality\n", Outcome::Ok),
            ("none [integrity] confidentiality", Outcome::Ok),
            ("none integrity [confidentiality]", Outcome::Failed),
            ("none [future]", Outcome::Unknown),
            ("][", Outcome::Unknown),
        ] {
            let fixture = Fixture::new().file("/sys/kernel/security/lockdown", text);
            assert_eq!(lockdown(&fixture.host).result, result, "{text}");
        }
        assert_eq!(lockdown(&Fixture::new().host).result, Outcome::Unknown, "securityfs is not mounted");
        let mounted =
            Fixture::new().file("/proc/self/mounts", "securityfs /sys/kernel/security securityfs rw 0 0");
        assert_eq!(lockdown(&mounted.host), Finding::ok("this kernel has none"));
    }

    #[test]
    fn security_modules_are_listed_and_whether_bpf_is_one() {
        let with = |text: &str| modules(&Fixture::new().file("/sys/kernel/security/lsm", text).host);
        assert_eq!(with("capability,yama,bpf"), Finding::ok("capability, yama, bpf; bpf is among them"));
        assert!(with("capability,bpfilter").found.contains("bpf is not among them"));
        assert!(with("").found.starts_with("none"));
        assert_eq!(modules(&Fixture::new().host).result, Outcome::Unknown);
    }

    #[test]
    fn settings_of_the_kernel_matter_by_their_value() {
        type Look = fn(&Host) -> Finding;
        type Values = &'static [(&'static str, Outcome)];
        let table: &[(&str, Look, Values)] = &[
            (
                "kernel/unprivileged_bpf_disabled",
                unprivileged_bpf,
                &[("0", Outcome::Ok), ("2\n", Outcome::Ok)],
            ),
            (
                "kernel/perf_event_paranoid",
                perf_event_paranoid,
                &[("-1", Outcome::Ok), ("2", Outcome::Ok), ("4", Outcome::Ok)],
            ),
            ("kernel/bpf_stats_enabled", statistics, &[("0", Outcome::Ok), ("1", Outcome::Limited)]),
            (
                "net/core/bpf_jit_enable",
                jit,
                &[("0", Outcome::Limited), ("1", Outcome::Ok), ("2", Outcome::Limited)],
            ),
        ];
        for (path, look, values) in table {
            assert_eq!(look(&Fixture::new().host).result, Outcome::Unknown, "{path} is not there");
            for (value, result) in values.iter().chain(&[("many", Outcome::Unknown)]) {
                let finding = look(&Fixture::new().file(&format!("/proc/sys/{path}"), value).host);
                assert_eq!(finding.result, *result, "{path} is {value}");
            }
        }
    }

    #[test]
    fn a_strict_perf_event_paranoid_matters_to_an_agent_that_is_not_root_enough() {
        let strict = Fixture::new().file("/proc/sys/kernel/perf_event_paranoid", "4");
        let finding = perf_event_paranoid(&strict.without(Capability::SysAdmin).host);
        assert_eq!(finding.result, Outcome::Limited);
        assert!(finding.mend.contains("perf_event_paranoid=2"), "{finding:?}");
    }
}
