//! What else of the host bears on events: cgroups, clocks, auditing.

use std::{io::ErrorKind, time::Duration};

use crate::doctor::{
    Finding,
    host::{Host, unread},
};

/// 2024-01-01, since 1970. This program is younger.
const EARLIEST: Duration = Duration::from_hours(473_352);
/// `(uid_t)-1`
const NOBODY: &str = "4294967295";
/// Controllers whose version 1 cgroups tell containers, the first that there is. The kernel programs look at
/// the same ones.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Programs that set the clock, and where they write down that they run.
const KEEPERS: &[(&str, &[&str])] = &[
    ("chronyd", &["/run/chrony/chronyd.pid", "/run/chronyd.pid"]),
    ("ntpd", &["/run/ntpd.pid", "/run/openntpd.pid"]),
    ("ptp4l", &["/run/ptp4l.pid"]),
];
/// Clocks that are read without leaving the processor.
const QUICK: [&str; 5] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen", "arch_sys_counter"];

/// Which hierarchies there are, and which one containers are known by.
pub(super) fn cgroups(host: &Host) -> Finding {
    let text = match host.read("/proc/self/cgroup") {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && host.has("/proc/self") => String::new(),
        Err(error) => return Finding::unknown(format!("/proc/self/cgroup: {}", unread(&error))),
    };
    let hierarchies: Vec<&str> = text.lines().filter_map(|line| line.split(':').nth(1)).collect();
    let has_version2 = hierarchies.contains(&"");
    let of_version1 = CONTROLLERS.iter().find(|name| {
        hierarchies.iter().any(|controllers| controllers.split(',').any(|controller| controller == **name))
    });
    Finding::ok(match (has_version2, of_version1) {
        (true, None) => "version 2; containers are known by it".to_owned(),
        (true, Some(controller)) => {
            format!(
                "both versions; containers are known by version 1 ({controller}), where there is none by version 2"
            )
        }
        (false, Some(controller)) => format!("version 1; containers are known by {controller}"),
        (false, None) => {
            return Finding::limited(
                "none that tell containers",
                "container.* of all events",
                "run a kernel with CONFIG_CGROUPS=y, and mount cgroup2 at /sys/fs/cgroup",
            );
        }
    })
}

/// Whether the kernel remembers who logged in.
pub(super) fn login_users(host: &Host) -> Finding {
    match host.read("/proc/self/loginuid") {
        Ok(user) if user == NOBODY => Finding::ok("kept by the kernel; this session has none"),
        Ok(user) if user.parse::<u32>().is_ok() => {
            Finding::ok(format!("kept by the kernel; that of this session is {user}"))
        }
        Ok(_) => Finding::unknown("/proc/self/loginuid: it holds something else than expected"),
        Err(error) if error.kind() == ErrorKind::NotFound && host.has("/proc/self") => Finding::limited(
            "not kept by this kernel",
            "process.loginuid and process.audit_session: who logged in before sudo",
            "run a kernel built with CONFIG_AUDIT=y",
        ),
        Err(error) => Finding::unknown(format!("/proc/self/loginuid: {}", unread(&error))),
    }
}

/// Whether the wall clock can be right. The kernel's own word for it (`adjtimex`) is not to be had by safe code,
/// so those who set the clock are asked.
pub(super) fn clock(host: &Host) -> Finding {
    const TIMESYNC: &str = "/run/systemd/timesync";
    let since_1970 = host.facts.now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    if since_1970 < EARLIEST {
        return Finding::limited(
            "the wall clock shows a time before this program was made",
            "the time of events: it is that of the wall clock",
            "set it: `timedatectl set-ntp true`, or start chronyd",
        );
    }
    if host.has(&format!("{TIMESYNC}/synchronized")) {
        return Finding::ok("systemd-timesyncd has set it");
    }
    if let Some(keeper) =
        KEEPERS.iter().find(|(_, files)| files.iter().any(|file| running(host, file).is_some()))
    {
        return Finding::ok(format!("{} keeps it", keeper.0));
    }
    if host.has(TIMESYNC) {
        return Finding::limited(
            "systemd-timesyncd runs and has not set it yet",
            "the time of events may be wrong until it has",
            "let it reach a time server: `timedatectl timesync-status` says what it tries",
        );
    }
    Finding::unknown("nobody who sets it is known to run; a hypervisor may")
}

/// Where the kernel has the time from, which is taken for each event.
pub(super) fn clock_source(host: &Host) -> Finding {
    match host.read("/sys/devices/system/clocksource/clocksource0/current_clocksource") {
        Err(error) => Finding::unknown(unread(&error)),
        Ok(name) if QUICK.contains(&name.as_str()) => Finding::ok(name),
        Ok(name) if name.is_empty() => Finding::unknown("it has no name"),
        Ok(name) => Finding::limited(
            format!("{name}, which is slow to read"),
            "time: about a microsecond each time, in the process that makes an event",
            "see `dmesg` for why the kernel does not trust the TSC; in a virtual machine let the hypervisor offer one",
        ),
    }
}

/// Other auditing. Only files are read: to ask the kernel about its rules is to speak to it as auditd does.
pub(super) fn audit(host: &Host) -> Finding {
    let options = host.read("/proc/cmdline").unwrap_or_default();
    let is_off = options.split(' ').any(|option| option == "audit=0");
    let Some(pid) = running(host, "/run/auditd.pid") else {
        return Finding::ok(if is_off {
            "no auditd runs, and the kernel does not audit (audit=0)"
        } else {
            "no auditd runs"
        });
    };
    let rules = host.read("/etc/audit/audit.rules").map(|text| {
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words.filter(|words| words.first() == Some(&"-a") && words.contains(&"-S")).count()
    });
    Finding::ok(match rules {
        Ok(0) => format!("auditd runs (process {pid}), with no rules for system calls"),
        Ok(rules) => format!(
            "auditd runs (process {pid}) with {rules} rules for system calls: each call pays for them, whatever \
             the agent does"
        ),
        Err(error) => {
            format!("auditd runs (process {pid}); its rules in /etc/audit/audit.rules: {}", unread(&error))
        }
    })
}

/// The process that wrote its number here, if it is still there.
fn running(host: &Host, file: &str) -> Option<u32> {
    let pid: u32 = host.read(file).ok()?.parse().ok()?;
    host.has(&format!("/proc/{pid}")).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::doctor::{Outcome, host::testing::Fixture};

    fn with_cgroups(text: &str) -> Finding {
        cgroups(&Fixture::new().file("/proc/self/cgroup", text).host)
    }

    #[test]
    fn the_layout_of_cgroups_decides_what_containers_are_known_by() {
        assert_eq!(with_cgroups("0::/user.slice\n"), Finding::ok("version 2; containers are known by it"));
        assert_eq!(
            with_cgroups("1:name=systemd:/init\n0::/init\n"),
            Finding::ok("version 2; containers are known by it")
        );
        let hybrid = with_cgroups("8:pids:/\n4:memory:/docker/abc\n1:name=systemd:/\n0::/\n");
        assert!(hybrid.found.contains("version 1 (memory)"), "{hybrid:?}");
        let old = with_cgroups("3:cpu,cpuacct:/\n2:cpuset:/\n");
        assert_eq!(old, Finding::ok("version 1; containers are known by cpu"));
    }

    #[test]
    fn a_host_without_cgroups_knows_no_containers() {
        assert_eq!(with_cgroups("").result, Outcome::Limited);
        assert_eq!(cgroups(&Fixture::new().folder("/proc/self").host).result, Outcome::Limited);
        assert_eq!(cgroups(&Fixture::new().host).result, Outcome::Unknown, "/proc is not mounted");
    }

    #[test]
    fn login_users_are_kept_or_not() {
        let with = |text: &str| login_users(&Fixture::new().file("/proc/self/loginuid", text).host);
        assert!(with("4294967295").found.ends_with("has none"));
        assert!(with("1000\n").found.ends_with("is 1000"));
        assert_eq!(with("alice").result, Outcome::Unknown);
        let without = login_users(&Fixture::new().folder("/proc/self").host);
        assert_eq!(without.result, Outcome::Limited);
        assert!(without.mend.contains("CONFIG_AUDIT"), "{without:?}");
        assert_eq!(login_users(&Fixture::new().host).result, Outcome::Unknown);
    }

    #[test]
    fn a_clock_before_its_time_is_wrong() {
        let early = Fixture::new().facts(|facts| facts.now = SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        assert_eq!(clock(&early.host).result, Outcome::Limited);
    }

    #[test]
    fn the_clock_is_as_good_as_who_sets_it() {
        assert_eq!(clock(&Fixture::new().host).result, Outcome::Unknown);
        let waiting = Fixture::new().folder("/run/systemd/timesync");
        assert_eq!(clock(&waiting.host).result, Outcome::Limited);
        let set = waiting.file("/run/systemd/timesync/synchronized", "");
        assert_eq!(clock(&set.host), Finding::ok("systemd-timesyncd has set it"));
        let chrony = Fixture::new().file("/run/chrony/chronyd.pid", "712\n");
        assert_eq!(clock(&chrony.host).result, Outcome::Unknown, "it wrote that and ended");
        assert_eq!(clock(&chrony.folder("/proc/712").host), Finding::ok("chronyd keeps it"));
    }

    #[test]
    fn a_slow_clock_source_costs() {
        let with = |name: &str| {
            let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
            clock_source(&Fixture::new().file(path, name).host)
        };
        assert_eq!(with("kvm-clock\n"), Finding::ok("kvm-clock"));
        assert_eq!(with("hpet").result, Outcome::Limited);
        assert_eq!(with("").result, Outcome::Unknown);
        assert_eq!(clock_source(&Fixture::new().host).result, Outcome::Unknown);
    }

    #[test]
    fn auditd_is_told_with_what_it_costs() {
        assert_eq!(audit(&Fixture::new().host), Finding::ok("no auditd runs"));
        let off = Fixture::new().file("/proc/cmdline", "quiet audit=0 ro\n");
        assert!(audit(&off.host).found.contains("audit=0"));
        let stale = Fixture::new().file("/run/auditd.pid", "812\n");
        assert_eq!(audit(&stale.host), Finding::ok("no auditd runs"));
        let runs = stale.folder("/proc/812");
        assert!(audit(&runs.host).found.contains("its rules"), "they cannot be read");
        let rules =
            "-D\n-w /etc/passwd -p wa\n# -a always,exit -S open\n-a always,exit -F arch=b64 -S execve -k x\n";
        let with_rules = runs.file("/etc/audit/audit.rules", rules);
        assert!(
            audit(&with_rules.host).found.contains("(process 812) with 1 rules"),
            "{:?}",
            audit(&with_rules.host)
        );
        let without = with_rules.file("/etc/audit/audit.rules", "-D\n");
        assert!(audit(&without.host).found.contains("no rules for system calls"));
    }
}
