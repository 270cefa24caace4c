//! Memory that the agent takes, and what it is allowed.

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

use super::bytes;
use crate::{
    config::Config,
    doctor::{Finding, host::Host},
    service::Capability,
};

/// What a start takes beside the rings, as measured with Linux 6.18: the kernel's type information, what its verifier
/// takes meanwhile, and maps of 15 MiB and more.
const TO_START: u64 = 90 << 20;
/// Of this, maps.
const MAPS: u64 = 20 << 20;
/// Since then memory of maps counts for the control group. <https://git.kernel.org/torvalds/c/80ee81e0403c>
const COUNTED_BY_CGROUP: (u32, u32) = (5, 11);
/// Version 1 has no word for "no limit", but the largest number of pages that there can be.
const NO_LIMIT: u64 = 1 << 60;
const MOST_LEVELS: usize = 64;
const MOST_FILES: usize = 100;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Where systemd puts the agent.
const SERVICE: &str = "/system.slice/nightjar.service";
const UNIT: &str = "nightjar.service";
/// What is first counts.
const UNIT_FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// A bound of memory, and whose it is.
struct Limit {
    bytes: u64,
    of: String,
}

/// The rings, the tables, and whether there is room for them.
pub(super) fn ring(host: &Host) -> Finding {
    let config = host.config();
    let rings = rings(&config);
    let tables = config.tables.process_memory.bytes().saturating_add(config.history.bytes());
    let least = rings.saturating_add(TO_START);
    let most = least.saturating_add(tables);
    let found = format!("{} of rings, {} in all at most", bytes(rings), bytes(most));

    if let Some(locked) = locked_limit(host).filter(|locked| *locked < rings.saturating_add(MAPS)) {
        return Finding::failed(
            format!("{found}; only {} may be locked", bytes(locked)),
            "all: before Linux 5.11 the memory of maps counts as locked",
            "`LimitMEMLOCK=infinity` in the unit, `ulimit -l unlimited` in a shell, or CAP_SYS_RESOURCE",
        );
    }
    let Some(limit) = limit(host) else {
        return Finding::ok(format!("{found}; no limit"));
    };
    let found = format!("{found}; {} may have {}", limit.of, bytes(limit.bytes));
    let mend = format!(
        "allow {} (`MemoryMax=` in a unit, a container's memory limit), or make kernel.ring_size or \
         kernel.bulk_ring_size smaller",
        bytes(most)
    );
    if limit.bytes < least {
        Finding::failed(found, "all: the kernel ends the agent while it starts", mend)
    } else if limit.bytes < most {
        Finding::limited(found, "all, as soon as the tables are full: the kernel ends the agent then", mend)
    } else {
        Finding::ok(found)
    }
}

/// Whether this process itself is allowed what loading takes: the kernel ends one that takes more.
pub(super) fn has_room(host: &Host) -> bool {
    let least = rings(&host.config()).saturating_add(TO_START);
    limit_of_this(host).is_none_or(|limit| limit.bytes >= least)
}

fn rings(config: &Config) -> u64 {
    config.kernel.ring_size.bytes().saturating_add(config.kernel.bulk_ring_size.bytes())
}

/// Bytes that may be locked, where that counts.
fn locked_limit(host: &Host) -> Option<u64> {
    let counts = host.version().is_some_and(|version| version < COUNTED_BY_CGROUP);
    // It is raised by whoever has this right.
    host.facts.memlock.filter(|_| counts && host.lacks(Capability::SysResource))
}

/// The bound of the agent's service, running or not; without a service that of this process.
fn limit(host: &Host) -> Option<Limit> {
    let service =
        [(CGROUPS.to_owned(), "memory.max"), (format!("{CGROUPS}/memory"), "memory.limit_in_bytes")];
    for (tree, file) in service {
        if host.path(format!("{tree}{SERVICE}/{file}")).exists() {
            return lowest(host, &tree, SERVICE, file).map(|bytes| Limit { bytes, of: UNIT.to_owned() });
        }
    }
    if let Some(set) = of_unit(host) {
        return set.map(|bytes| Limit { bytes, of: format!("{UNIT} (MemoryMax=)") });
    }
    limit_of_this(host)
}

fn limit_of_this(host: &Host) -> Option<Limit> {
    let text = host.read("/proc/self/cgroup").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => lowest(host, CGROUPS, path, "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                lowest(host, &format!("{CGROUPS}/memory"), path, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    found.map(|bytes| Limit { bytes, of: "this process's cgroup".to_owned() })
}

/// The lowest bound from a cgroup up to the root of its tree.
fn lowest(host: &Host, tree: &str, path: &str, file: &str) -> Option<u64> {
    let path = Path::new(path);
    // Of a process outside of this cgroup namespace; what is here is that of the namespace.
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let path = if is_plain { path } else { Path::new("/") };
    let limits = path.ancestors().take(MOST_LEVELS).filter_map(|cgroup| {
        let cgroup = cgroup.strip_prefix("/").unwrap_or(cgroup);
        let limit = host.read(Path::new(tree).join(cgroup).join(file)).ok()?;
        limit.parse().ok().filter(|limit| *limit < NO_LIMIT)
    });
    limits.min()
}

/// `MemoryMax=` of the agent's unit: `None` where there is no unit, or where it sets none.
#[expect(clippy::option_option, reason = "no unit is another thing than a unit without a limit")]
fn of_unit(host: &Host) -> Option<Option<u64>> {
    let unit = UNIT_FOLDERS.iter().find_map(|folder| host.read(format!("{folder}/{UNIT}")).ok())?;
    let mut changes: Vec<(OsString, PathBuf)> = Vec::new();
    for folder in UNIT_FOLDERS {
        let folder = format!("{folder}/{UNIT}.d");
        let files = fs::read_dir(host.path(&folder)).into_iter().flatten().take(MOST_FILES).flatten();
        let names = files.map(|file| file.file_name());
        let names = names.filter(|name| Path::new(name).extension().is_some_and(|end| end == "conf"));
        for name in names {
            if changes.iter().all(|(known, _)| *known != name) {
                let path = Path::new(&folder).join(&name);
                changes.push((name, path));
            }
        }
    }
    changes.sort();
    let texts = changes.iter().filter_map(|(_, path)| host.read(path).ok());
    let texts: Vec<String> = [unit].into_iter().chain(texts).collect();
    let values = texts.iter().flat_map(|text| text.lines()).filter_map(|line| {
        let (name, value) = line.trim().split_once('=')?;
        (name.trim() == "MemoryMax").then(|| value.trim())
    });
    Some(values.reduce(|_, later| later).and_then(of_systemd))
}

/// `256M`, with systemd's suffixes, which are powers of 1024. A share of the host's memory is none that matters.
fn of_systemd(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let number: u64 = digits.parse().ok()?;
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Size,
        doctor::{Outcome, host::testing::Fixture},
    };

    #[test]
    fn without_a_limit_there_is_room() {
        let finding = ring(&Fixture::new().host);
        assert_eq!(finding, Finding::ok("12 MiB of rings, 118 MiB in all at most; no limit"));
    }

    fn in_cgroup(own: &str, path: &str, limit: &str) -> Outcome {
        ring(&Fixture::new().file("/proc/self/cgroup", own).file(path, limit).host).result
    }

    #[test]
    fn the_limit_of_the_own_cgroup_or_of_one_above_decides() {
        let own = "0::/user.slice/session.scope\n";
        for (limit, result) in [
            ("max\n", Outcome::Ok),
            ("268435456\n", Outcome::Ok),
            ("115343360", Outcome::Limited),
            ("1048576", Outcome::Failed),
        ] {
            for cgroup in ["/user.slice/session.scope", "/user.slice", ""] {
                let path = format!("/sys/fs/cgroup{cgroup}/memory.max");
                assert_eq!(in_cgroup(own, &path, limit), result, "{path} {limit}");
            }
        }
    }

    #[test]
    fn version_1_has_its_limit_elsewhere() {
        let own = "4:memory:/docker/abc\n0::/\n";
        let path = "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes";
        assert_eq!(in_cgroup(own, path, "1048576"), Outcome::Failed);
        assert_eq!(in_cgroup(own, path, "9223372036854771712"), Outcome::Ok);
    }

    #[test]
    fn a_path_out_of_the_cgroup_namespace_leads_nowhere_else() {
        let path = "/sys/fs/cgroup/memory.max";
        assert_eq!(in_cgroup("0::/../../other", path, "1048576"), Outcome::Failed);
    }

    #[test]
    fn the_service_that_runs_counts_more_than_the_shell() {
        let fixture = Fixture::new()
            .file("/proc/self/cgroup", "0::/user.slice\n")
            .file("/sys/fs/cgroup/user.slice/memory.max", "1048576")
            .file("/sys/fs/cgroup/system.slice/nightjar.service/memory.max", "268435456");
        let finding = ring(&fixture.host);
        assert_eq!(finding.result, Outcome::Ok);
        assert!(finding.found.ends_with("nightjar.service may have 256 MiB"), "{finding:?}");
    }

    #[test]
    fn of_a_service_that_does_not_run_the_unit_tells_with_its_changes() {
        let unit = |text: &str| Fixture::new().file("/usr/lib/systemd/system/nightjar.service", text);
        assert_eq!(ring(&unit("[Service]\nMemoryMax=256M\n").host).result, Outcome::Ok);
        assert_eq!(ring(&unit("[Service]\nMemoryMax = 110M\n").host).result, Outcome::Limited);
        assert_eq!(ring(&unit("[Service]\n#MemoryMax=1M\n").host).result, Outcome::Ok);
        let changed = unit("MemoryMax=256M")
            .file("/etc/systemd/system/nightjar.service.d/50-less.conf", "[Service]\nMemoryMax=8M\n")
            .file("/run/systemd/system/nightjar.service.d/10-more.conf", "[Service]\nMemoryMax=1G\n")
            .file("/etc/systemd/system/nightjar.service.d/90-old.conf.bak", "[Service]\nMemoryMax=1T\n");
        let finding = ring(&changed.host);
        assert_eq!(finding.result, Outcome::Failed);
        assert!(finding.found.ends_with("nightjar.service (MemoryMax=) may have 8 MiB"), "{finding:?}");
    }

    #[test]
    fn a_process_that_would_be_ended_for_loading_knows_it() {
        assert!(has_room(&Fixture::new().host));
        let in_cgroup = |limit: &str| {
            let fixture = Fixture::new().file("/proc/self/cgroup", "0::/a\n");
            has_room(&fixture.file("/sys/fs/cgroup/a/memory.max", limit).host)
        };
        assert!(in_cgroup("115343360"));
        assert!(!in_cgroup("60000000"));
        let of_the_service =
            Fixture::new().file("/sys/fs/cgroup/system.slice/nightjar.service/memory.max", "1");
        assert!(has_room(&of_the_service.host));
    }

    #[test]
    fn a_larger_ring_needs_more() {
        let limit = "184549376";
        let with = |ring| {
            let fixture =
                Fixture::new().file("/proc/self/cgroup", "0::/\n").file("/sys/fs/cgroup/memory.max", limit);
            super::ring(&fixture.configured(|config| config.kernel.ring_size = Size::from_mib(ring)).host)
                .result
        };
        assert_eq!((with(4), with(64), with(1024)), (Outcome::Ok, Outcome::Limited, Outcome::Failed));
    }

    #[test]
    fn locked_memory_matters_to_old_kernels_only() {
        let with = |release: &str| {
            let fixture = Fixture::new().file("/proc/sys/kernel/osrelease", release);
            fixture.without(Capability::SysResource).facts(|facts| facts.memlock = Some(64 << 10))
        };
        let old = ring(&with("5.10.0").host);
        assert_eq!(old.result, Outcome::Failed);
        assert!(old.mend.contains("LimitMEMLOCK"), "{old:?}");
        assert_eq!(ring(&with("5.11.0").host).result, Outcome::Ok);
        assert_eq!(ring(&with("5.10.0").facts(|facts| facts.memlock = None).host).result, Outcome::Ok);
    }

    #[test]
    fn numbers_of_systemd_are_read() {
        assert_eq!(of_systemd("256M"), Some(256 << 20));
        assert_eq!(of_systemd("17"), Some(17));
        assert_eq!(of_systemd("2G"), Some(2 << 30));
        for wrong in ["", "M", "infinity", "10%", "1MM", "99999999999T", "-1"] {
            assert_eq!(of_systemd(wrong), None, "{wrong}");
        }
    }
}
