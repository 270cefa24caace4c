//! What the agent may do, and whether it is on the host itself.

use crate::{
    doctor::{
        Finding,
        host::{Host, unread},
    },
    service::Capability,
};

/// Numbers of the first namespaces
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/proc_ns.h>
const FIRST_USER: u64 = 0xEFFF_FFFD;
const FIRST_PID: u64 = 0xEFFF_FFFC;

/// Rights of this process, which stand for those of the agent.
pub(super) fn capabilities(host: &Host) -> Finding {
    let missing = match &host.facts.missing {
        Ok(missing) => missing,
        Err(why) => return Finding::unknown(why.clone()),
    };
    if missing.is_empty() {
        return Finding::ok("all that the agent needs on this host");
    }
    let names: Vec<_> = missing.iter().map(|one| one.capability.name()).collect();
    let mut found = format!("without {}", names.join(", "));
    if missing.iter().any(|one| one.of_user_namespace) {
        found.push_str("; what there is counts in a user namespace only");
    }
    let lost: Vec<_> = missing.iter().map(|one| format!("{}: {}", one.capability, one.lost)).collect();
    let mend = "run it as root (`sudo nightjar doctor`); for a service, add these to \
                CapabilityBoundingSet= of its unit; for a container, to its capabilities";
    if host.may_watch() {
        Finding::limited(found, lost.join("; "), mend)
    } else {
        // What else is lost does not matter then.
        Finding::failed(found, "all: the kernel takes no programs from this process", mend)
    }
}

/// Whose capabilities they are.
pub(super) fn user_namespace(host: &Host) -> Finding {
    match host.namespace("/proc/self/ns/user") {
        Ok(FIRST_USER) => Finding::ok("the host's"),
        Ok(number) => Finding::failed(
            format!("{number}, which is not the host's"),
            "all: capabilities that count in it are nothing to the kernel",
            "run it outside of rootless containers and `unshare --user`; in Kubernetes without `hostUsers: false`",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && host.has("/proc/self") => {
            Finding::ok("this kernel has none")
        }
        Err(error) => Finding::unknown(format!("/proc/self/ns/user: {}", unread(&error))),
    }
}

/// Which processes `/proc` shows.
pub(super) fn pid_namespace(host: &Host) -> Finding {
    match host.namespace("/proc/self/ns/pid") {
        Ok(FIRST_PID) => Finding::ok("the host's"),
        Ok(number) => Finding::limited(
            format!("{number}, which is not the host's"),
            "of processes that ran before the agent, all that are not in it: their programs, arguments and \
             parents",
            "share the host's: `hostPID: true` in Kubernetes, `--pid=host` with docker and podman",
        ),
        Err(error) => Finding::unknown(format!("/proc/self/ns/pid: {}", unread(&error))),
    }
}

/// Whether files are those of the host.
pub(super) fn mount_namespace(host: &Host) -> Finding {
    let own = match host.namespace("/proc/self/ns/mnt") {
        Ok(number) => number,
        Err(error) => return Finding::unknown(format!("/proc/self/ns/mnt: {}", unread(&error))),
    };
    // In a PID namespace of its own, process 1 is another one than the host's.
    if !matches!(host.namespace("/proc/self/ns/pid"), Ok(FIRST_PID)) {
        return Finding::unknown("what the host's is cannot be seen from this PID namespace");
    }
    match host.namespace("/proc/1/ns/mnt") {
        Ok(number) if number == own => Finding::ok("the host's"),
        Ok(_) if host.lacks(Capability::SysPtrace) => Finding::limited(
            "not the host's, and the agent may not look into the host's",
            "names of the host's users and groups, where they are others than here",
            "give the agent CAP_SYS_PTRACE, by which it reads the host's /etc/passwd and /etc/group",
        ),
        Ok(_) => Finding::ok("not the host's; the agent reads the host's files by /proc/1/root"),
        Err(error) => Finding::unknown(format!("that of the host: /proc/1/ns/mnt: {}", unread(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Outcome, host::testing::Fixture};

    #[test]
    fn a_missing_capability_is_named_with_what_is_lost() {
        assert_eq!(capabilities(&Fixture::new().host).result, Outcome::Ok);
        let some = capabilities(&Fixture::new().without(Capability::SysPtrace).host);
        assert_eq!(some.result, Outcome::Limited);
        assert_eq!(some.found, "without sys_ptrace");
        assert!(some.lost.starts_with("sys_ptrace: programs and working directories"), "{some:?}");
        let unknown = Fixture::new().facts(|facts| facts.missing = Err("capget(2) is refused".to_owned()));
        assert_eq!(capabilities(&unknown.host), Finding::unknown("capget(2) is refused"));
    }

    #[test]
    fn without_the_right_to_load_programs_all_is_lost() {
        for capability in [Capability::Bpf, Capability::Perfmon] {
            let finding =
                capabilities(&Fixture::new().without(capability).without(Capability::SysPtrace).host);
            assert_eq!(finding.result, Outcome::Failed);
            assert!(finding.mend.contains("sudo"), "{finding:?}");
        }
    }

    #[test]
    fn capabilities_of_a_user_namespace_are_told_from_real_ones() {
        let fixture = Fixture::new().without(Capability::Bpf);
        let fixture = fixture.facts(|facts| facts.missing.as_mut().unwrap()[0].of_user_namespace = true);
        assert!(capabilities(&fixture.host).found.contains("user namespace only"));
    }

    #[test]
    fn the_first_user_namespace_is_the_hosts() {
        let inside = |link: &str| user_namespace(&Fixture::new().link("/proc/self/ns/user", link).host);
        assert_eq!(inside("user:[4026531837]"), Finding::ok("the host's"));
        assert_eq!(inside("user:[4026532841]").result, Outcome::Failed);
        assert_eq!(inside("user").result, Outcome::Unknown);
        assert_eq!(
            user_namespace(&Fixture::new().folder("/proc/self/ns").host),
            Finding::ok("this kernel has none")
        );
        assert_eq!(user_namespace(&Fixture::new().host).result, Outcome::Unknown, "/proc is not mounted");
    }

    #[test]
    fn another_pid_namespace_hides_what_ran_before() {
        let inside = |link: &str| pid_namespace(&Fixture::new().link("/proc/self/ns/pid", link).host);
        assert_eq!(inside("pid:[4026531836]"), Finding::ok("the host's"));
        let other = inside("pid:[4026532500]");
        assert_eq!(other.result, Outcome::Limited);
        assert!(other.mend.contains("hostPID"), "{other:?}");
        assert_eq!(pid_namespace(&Fixture::new().host).result, Outcome::Unknown);
    }

    #[test]
    fn another_mount_namespace_matters_where_the_hosts_cannot_be_looked_into() {
        let inside = |own: &str| {
            Fixture::new()
                .link("/proc/self/ns/pid", "pid:[4026531836]")
                .link("/proc/self/ns/mnt", own)
                .link("/proc/1/ns/mnt", "mnt:[4026531841]")
        };
        assert_eq!(mount_namespace(&inside("mnt:[4026531841]").host), Finding::ok("the host's"));
        assert_eq!(mount_namespace(&inside("mnt:[4026532000]").host).result, Outcome::Ok);
        let closed = inside("mnt:[4026532000]").without(Capability::SysPtrace);
        assert_eq!(mount_namespace(&closed.host).result, Outcome::Limited);
    }

    #[test]
    fn what_the_hosts_mount_namespace_is_may_not_be_known() {
        let in_pid_namespace = Fixture::new()
            .link("/proc/self/ns/pid", "pid:[4026532500]")
            .link("/proc/self/ns/mnt", "mnt:[4026532000]")
            .link("/proc/1/ns/mnt", "mnt:[4026532000]");
        assert_eq!(mount_namespace(&in_pid_namespace.host).result, Outcome::Unknown);
        assert_eq!(mount_namespace(&Fixture::new().host).result, Outcome::Unknown);
        let no_init = Fixture::new()
            .link("/proc/self/ns/pid", "pid:[4026531836]")
            .link("/proc/self/ns/mnt", "mnt:[4026532000]");
        assert_eq!(mount_namespace(&no_init.host).result, Outcome::Unknown);
    }
}
