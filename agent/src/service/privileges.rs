//! Which of root's rights the agent needs, and how it gives up the rest.
//!
//! Where the kernel asks for them (v6.12 of it): loading programs in `bpf_prog_load` and maps in
//! `map_create` <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c>, tracepoints in
//! `perf_trace_event_perm` <https://github.com/torvalds/linux/blob/v6.12/kernel/trace/trace_event_perf.c>,
//! what is in `/proc/PID` in `__ptrace_may_access`
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/ptrace.c>, files in `generic_permission`
//! <https://github.com/torvalds/linux/blob/v6.12/fs/namei.c>.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
        capability_is_in_bounding_set, clear_ambient_capability_set, no_new_privs,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

/// Those of root's rights that the agent has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// `CAP_BPF`
    Bpf,
    /// `CAP_PERFMON`
    Perfmon,
    /// `CAP_SYS_PTRACE`
    SysPtrace,
    /// `CAP_DAC_READ_SEARCH`
    DacReadSearch,
    /// `CAP_SYS_ADMIN`
    SysAdmin,
    /// `CAP_SYS_RESOURCE`
    SysResource,
}

const TASKS: &str = "/proc/self/task";
/// How long a thread that was joined may still be listed: the kernel wakes who waits for it before that.
const ENDING: Duration = Duration::from_millis(200);

/// What the agent keeps while it runs. The others of [`NEEDS`] are for its start alone.
pub const KEPT: &[Capability] =
    &[Capability::Bpf, Capability::Perfmon, Capability::SysPtrace, Capability::DacReadSearch];

/// What a capability is needed for.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// The capability.
    pub capability: Capability,
    /// What the agent does with it.
    pub purpose: &'static str,
    /// What is lost without it.
    pub lost: &'static str,
    /// Another that the kernel takes for it.
    stand_in: Option<Capability>,
    /// Where it is needed at all.
    where_needed: fn(&Host) -> bool,
}

/// What each capability is needed for.
pub const NEEDS: &[Need] = &[
    Need {
        capability: Capability::Bpf,
        purpose: "to load programs and to read their maps",
        lost: "nothing can be watched: the kernel takes no programs",
        stand_in: Some(Capability::SysAdmin),
        where_needed: |_| true,
    },
    Need {
        capability: Capability::Perfmon,
        purpose: "to attach to tracepoints and to read memory of the kernel",
        lost: "nothing can be watched: the kernel takes no programs that trace",
        stand_in: Some(Capability::SysAdmin),
        where_needed: |_| true,
    },
    Need {
        capability: Capability::SysPtrace,
        purpose: "to follow the links in /proc/PID of processes with other rights than the agent's",
        // Arguments are not among them: `/proc/PID/cmdline` is open to all but where `hidepid` is on.
        lost: "programs and working directories of processes that ran before the agent, where the task iterator \
               is refused; files in containers, and user names of the host if the agent has a mount namespace of \
               its own; all of other users' processes that ran before, where /proc is mounted with hidepid",
        stand_in: None,
        where_needed: |_| true,
    },
    Need {
        capability: Capability::DacReadSearch,
        purpose: "to read what is closed to the agent's user",
        lost: "files and folders of other users that are not open to all; unless the agent's user is root tracefs \
               too, and with it failed execs and the calls that change credentials",
        // `generic_permission` takes CAP_DAC_OVERRIDE for it, which does more than the agent should.
        stand_in: None,
        where_needed: |_| true,
    },
    Need {
        capability: Capability::SysAdmin,
        purpose: "to mount tracefs where it is not, and to attach to tracepoints of system calls where \
                  kernel.perf_event_paranoid is 3 or more",
        lost: "where the kernel refuses tracepoints of system calls, failed execs are not seen, and changes of \
               credentials not when they are made; mount tracefs at /sys/kernel/tracing, and set \
               kernel.perf_event_paranoid to 2",
        stand_in: None,
        // Levels above 2 are patches of Debian and Ubuntu. Of their kernels some ask for CAP_SYS_ADMIN at these
        // levels, newer ones take CAP_PERFMON; the version does not say which.
        where_needed: |host| !host.tracefs_is_mounted || host.perf_event_paranoid > 2,
    },
    Need {
        capability: Capability::SysResource,
        purpose: "to lock enough memory for maps, before Linux 5.11",
        lost: "maps may not be made: raise the limit of locked memory (LimitMEMLOCK=infinity, ulimit -l)",
        stand_in: None,
        // Since 5.11 memory of maps counts for the control group, not for the limit.
        // https://git.kernel.org/torvalds/c/80ee81e0403c
        where_needed: |host| host.kernel < (5, 11) && host.memlock_is_limited,
    },
];

/// Something that the agent cannot do on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What it lacks.
    pub capability: Capability,
    /// What is lost by that.
    pub lost: &'static str,
    /// Whether it has the capability, but of a user namespace: the kernel's own is asked for.
    pub of_user_namespace: bool,
}

/// Capabilities of the calling thread, as bits by their numbers in the kernel, and what bears on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// In force.
    pub effective: u64,
    /// Can be put in force.
    pub permitted: u64,
    /// Kept by an exec, if the file has them as well.
    pub inheritable: u64,
    /// What an exec can give at most.
    pub bounding: u64,
    /// What an exec gives.
    pub ambient: u64,
    /// An exec gives no rights that the process lacks, not of files with set-user-ID either.
    pub no_new_privs: bool,
    /// They are of a user namespace, and nothing to the rest of the host.
    pub in_user_namespace: bool,
}

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// What is left in force.
    pub kept: Vec<Capability>,
    /// What was permitted before and no longer is, as bits.
    pub given_up: u64,
    /// Whether programs that this process might run can have none at all. Where not, for want of
    /// `CAP_SETPCAP`, they can have what is kept.
    pub bounding_emptied: bool,
}

/// Why capabilities are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// They cannot be read.
    #[error("cannot read what this process may do from {0}")]
    Read(&'static str, #[source] io::Error),
    /// Other threads would keep theirs.
    #[error(
        "{0} threads run, of which one alone would give up its rights: this is a defect; they must be given up \
         before a thread is started"
    )]
    Threads(usize),
    /// The kernel, or a filter of system calls, says no.
    #[error("cannot {0}; a seccomp filter that refuses capset or prctl must let the agent call them")]
    Refused(&'static str, #[source] Errno),
    /// The kernel said yes, and nothing came of it.
    #[error("gave up rights but still has some ({0}); this is a defect")]
    NotDropped(String),
}

/// Gives up all rights but those of `keep` that this process has, for itself and for whatever it runs.
///
/// Call it when the kernel programs are attached and what is written to is open: root without
/// `CAP_DAC_OVERRIDE` reads and writes its own files as any user does, but no longer those of others. Where the
/// kernel takes `CAP_SYS_ADMIN` for one of `keep` that is not held, that is kept.
///
/// # Errors
/// When the process has other threads, which would keep their rights; when the kernel refuses, or what is held
/// after it is not what should be.
pub fn drop_unneeded(keep: &[Capability]) -> Result<Dropped, PrivilegeError> {
    let deadline = Instant::now() + ENDING;
    loop {
        match fs::read_dir(TASKS).map_err(|error| PrivilegeError::Read(TASKS, error))?.count() {
            1 => return drop_of_thread(keep),
            threads if Instant::now() >= deadline => return Err(PrivilegeError::Threads(threads)),
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What the agent cannot do on this host with the rights it has.
///
/// # Errors
/// When its rights cannot be read.
pub fn missing() -> Result<Vec<Missing>, PrivilegeError> {
    Ok(Held::read()?.missing(&Host::read()))
}

/// As [`drop_unneeded`], of the calling thread alone.
fn drop_of_thread(keep: &[Capability]) -> Result<Dropped, PrivilegeError> {
    let before = Held::read()?;
    let kept = before.kept_of(keep);
    let left = kept.iter().fold(CapabilitySet::empty(), |set, capability| set | capability.set());

    set_no_new_privs(true).map_err(|error| PrivilegeError::Refused("set no_new_privs", error))?;
    clear_ambient_capability_set()
        .map_err(|error| PrivilegeError::Refused("clear ambient capabilities", error))?;
    let bounding_emptied = empty_bounding_set()?;
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(|error| PrivilegeError::Refused("drop capabilities", error))?;

    let after = Held::read()?;
    let should_be = Held {
        effective: left.bits(),
        permitted: left.bits(),
        inheritable: 0,
        bounding: if bounding_emptied { 0 } else { after.bounding },
        ambient: 0,
        no_new_privs: true,
        in_user_namespace: before.in_user_namespace,
    };
    if after != should_be {
        return Err(PrivilegeError::NotDropped(format!("{after:x?} where {should_be:x?} was asked for")));
    }
    Ok(Dropped { kept, given_up: before.permitted & !after.permitted, bounding_emptied })
}

/// Leaves nothing that an exec could give; whether that could be done.
fn empty_bounding_set() -> Result<bool, PrivilegeError> {
    for capability in all() {
        match capability_is_in_bounding_set(capability) {
            Ok(false) => continue,
            // There are no more of them.
            Err(Errno::INVAL) => return Ok(true),
            Ok(true) | Err(_) => {}
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::PERM) => return Ok(false),
            Err(error) => return Err(PrivilegeError::Refused("empty the bounding set", error)),
        }
    }
    Ok(true)
}

/// Every capability that there can be, one at a time.
fn all() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

// === impl Capability ===

impl Capability {
    /// The kernel's name of it, without `CAP_` and in lower case, as in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Perfmon => "perfmon",
            Self::SysPtrace => "sys_ptrace",
            Self::DacReadSearch => "dac_read_search",
            Self::SysAdmin => "sys_admin",
            Self::SysResource => "sys_resource",
        }
    }

    fn set(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF,
            Self::Perfmon => CapabilitySet::PERFMON,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
            Self::SysResource => CapabilitySet::SYS_RESOURCE,
        }
    }

    fn stand_in(self) -> Option<Self> {
        NEEDS.iter().find(|need| need.capability == self)?.stand_in
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Held ===

impl Held {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it does not say.
    pub fn read() -> Result<Self, PrivilegeError> {
        let asked = |call| move |error: Errno| PrivilegeError::Read(call, error.into());
        let sets = capabilities(None).map_err(asked("capget(2)"))?;
        Ok(Self {
            effective: sets.effective.bits(),
            permitted: sets.permitted.bits(),
            inheritable: sets.inheritable.bits(),
            bounding: collect(capability_is_in_bounding_set).map_err(asked("prctl(2)"))?,
            ambient: collect(capability_is_in_ambient_set).map_err(asked("prctl(2)"))?,
            no_new_privs: no_new_privs().map_err(asked("prctl(2)"))?,
            in_user_namespace: in_user_namespace()
                .map_err(|error| PrivilegeError::Read(USER_NAMESPACE, error))?,
        })
    }

    /// Whether a capability is in force. One of a user namespace counts, though not for much.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.effective & capability.set().bits() != 0
    }

    /// Those of `keep`, or of what stands in for them, that can be in force.
    fn kept_of(&self, keep: &[Capability]) -> Vec<Capability> {
        let permitted = |capability: Capability| self.permitted & capability.set().bits() != 0;
        let mut kept = Vec::new();
        for &capability in keep {
            let one = Some(capability).filter(|one| permitted(*one));
            let one = one.or_else(|| capability.stand_in().filter(|one| permitted(*one)));
            if let Some(one) = one.filter(|one| !kept.contains(one)) {
                kept.push(one);
            }
        }
        kept
    }

    fn missing(&self, host: &Host) -> Vec<Missing> {
        let counts = |capability| self.has(capability) && !self.in_user_namespace;
        let needed = NEEDS.iter().filter(|need| (need.where_needed)(host));
        let missing = needed.filter(|need| !counts(need.capability) && !need.stand_in.is_some_and(counts));
        missing
            .map(|need| Missing {
                capability: need.capability,
                lost: need.lost,
                of_user_namespace: self.has(need.capability),
            })
            .collect()
    }
}

/// A set that the kernel tells one capability at a time.
fn collect(is_in: impl Fn(CapabilitySet) -> rustix::io::Result<bool>) -> rustix::io::Result<u64> {
    let mut set = CapabilitySet::empty();
    for one in all() {
        match is_in(one) {
            Ok(true) => set |= one,
            Ok(false) => {}
            // There are no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(set.bits())
}

const USER_NAMESPACE: &str = "/proc/self/ns/user";

fn in_user_namespace() -> io::Result<bool> {
    /// `PROC_USER_INIT_INO`
    /// <https://github.com/torvalds/linux/blob/v6.12/include/linux/proc_ns.h>
    const FIRST: u64 = 0xEFFF_FFFD;
    match fs::metadata(USER_NAMESPACE) {
        Ok(metadata) => Ok(metadata.ino() != FIRST),
        // A kernel without user namespaces.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

// === impl Missing ===

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing: {}", self.capability, self.lost)?;
        if self.of_user_namespace {
            write!(
                f,
                "; what the agent has is of a user namespace, and nothing to the kernel: run it outside"
            )?;
        }
        Ok(())
    }
}

// === impl Dropped ===

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.iter().map(|capability| capability.name()).collect::<Vec<_>>();
        let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
        write!(f, "gave up {} capabilities; kept: {kept}", self.given_up.count_ones())
    }
}

/// What of the host decides on what is needed.
#[derive(Debug, Clone, Copy)]
struct Host {
    kernel: (u32, u32),
    perf_event_paranoid: i32,
    tracefs_is_mounted: bool,
    memlock_is_limited: bool,
}

impl Host {
    fn read() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok();
        let mounts = fs::read("/proc/self/mounts").unwrap_or_default();
        Self {
            kernel: version(&release),
            // The kernel's own level where it does not say.
            perf_event_paranoid: level.and_then(|level| level.trim().parse().ok()).unwrap_or(2),
            tracefs_is_mounted: has_tracefs(&mounts),
            memlock_is_limited: getrlimit(Resource::Memlock).maximum.is_some(),
        }
    }
}

/// The first two numbers of a release, as in `6.12.4-amd64`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether tracefs is among the mounts, or debugfs, in which the kernel mounts it when it is looked for.
fn has_tracefs(mounts: &[u8]) -> bool {
    let kinds =
        mounts.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(2));
    kinds.into_iter().any(|kind| kind == b"tracefs" || kind == b"debugfs")
}

#[cfg(test)]
mod tests {
    use std::{env, fs::File, io::Write, os::unix::fs::PermissionsExt, process::Command};

    use rustix::{process::Uid, thread::set_thread_uid};
    use tempfile::tempdir;

    use super::*;
    use crate::service::testing::{is_root, other, said, say, skip};

    const TRIED: &str = "NIGHTJAR_TEST_TRIED";

    fn bits(capabilities: &[Capability]) -> u64 {
        capabilities.iter().fold(0, |set, capability| set | capability.set().bits())
    }

    /// A line of a process's or thread's status, as a number of this base.
    fn line(status: &str, name: &str, base: u32) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        u64::from_str_radix(line.unwrap(), base).unwrap()
    }

    /// Sets of capabilities as `/proc` shows them: inheritable, permitted, effective, bounding and ambient.
    fn sets(status: &str) -> [u64; 5] {
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| line(status, name, 16))
    }

    fn own_status() -> String {
        fs::read_to_string("/proc/thread-self/status").unwrap()
    }

    /// What a program that this thread runs may do.
    fn status_of_a_program() -> String {
        let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// In a thread of its own, as rights are.
    fn in_a_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(run);
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What another process does: gives up what it can, and says what it has then, and what a program has that
    /// it runs.
    #[test]
    #[ignore = "is the other process of tests below"]
    fn an_agent() {
        if env::var_os(TRIED).is_none() {
            return;
        }
        let missing =
            missing().unwrap().iter().map(|one| one.capability.name()).collect::<Vec<_>>().join(" ");
        let dropped = drop_of_thread(KEPT).unwrap();
        let of_program = status_of_a_program();
        for text in [
            missing,
            dropped.kept.iter().map(|one| one.name()).collect::<Vec<_>>().join(" "),
            dropped.bounding_emptied.to_string(),
            format!("{:x?}", sets(&own_status())),
            format!("{:x?}", sets(&of_program)),
            line(&of_program, "NoNewPrivs", 10).to_string(),
        ] {
            say(&text);
        }
    }

    fn agent_through(through: &[&str]) -> Vec<String> {
        said(other(through, module_path!(), "an_agent").env(TRIED, "1"))
    }

    #[test]
    fn of_root_the_agent_keeps_what_it_needs_and_programs_it_runs_get_nothing() {
        if !is_root() {
            return;
        }
        let kept = bits(KEPT);
        assert_eq!(
            agent_through(&["setpriv", "--inh-caps", "+kill", "--ambient-caps", "+kill"])[1..],
            [
                "bpf perfmon sys_ptrace dac_read_search".to_owned(),
                "true".to_owned(),
                format!("{:x?}", [0, kept, kept, 0, 0]),
                format!("{:x?}", [0; 5]),
                "1".to_owned(),
            ]
        );
    }

    #[test]
    fn where_the_bounding_set_stays_programs_get_what_is_kept_at_most() {
        if !is_root() {
            return;
        }
        let bounding = "-all,+bpf,+perfmon,+chown";
        let kept = bits(&[Capability::Bpf, Capability::Perfmon]);
        let bound = kept | CapabilitySet::CHOWN.bits();
        let said = agent_through(&["setpriv", "--bounding-set", bounding, "--inh-caps", "-all"]);
        assert!(said[0].starts_with("sys_ptrace dac_read_search"), "{}", said[0]);
        assert_eq!(
            said[1..],
            [
                "bpf perfmon".to_owned(),
                "false".to_owned(),
                format!("{:x?}", [0, kept, kept, bound, 0]),
                format!("{:x?}", [0, kept, kept, bound, 0]),
                "1".to_owned(),
            ]
        );
    }

    #[test]
    fn what_the_kernel_takes_for_bpf_is_kept_in_its_place() {
        if !is_root() {
            return;
        }
        let said = agent_through(&["setpriv", "--bounding-set", "-all,+sys_admin,+sys_ptrace,+chown"]);
        assert_eq!(said[0], "dac_read_search");
        assert_eq!(said[1], "sys_admin sys_ptrace");
    }

    #[test]
    fn root_of_a_user_namespace_is_told_that_this_does_not_count() {
        let through = ["unshare", "--user", "--map-root-user"];
        if !Command::new(through[0]).args(&through[1..]).arg("true").status().is_ok_and(|end| end.success()) {
            skip("user namespaces are not to be had");
            return;
        }
        let said = agent_through(&through);
        assert!(said[0].starts_with("bpf perfmon sys_ptrace dac_read_search"), "{}", said[0]);
        assert_eq!(said[1], "bpf perfmon sys_ptrace dac_read_search");
    }

    #[test]
    fn a_user_without_rights_has_none_to_give_up() {
        if !is_root() {
            return;
        }
        in_a_thread(|| {
            set_thread_uid(Uid::from_raw(65534)).unwrap();
            let dropped = drop_of_thread(KEPT).unwrap();
            assert_eq!(dropped, Dropped { kept: Vec::new(), given_up: 0, bounding_emptied: false });
            assert_eq!(dropped.to_string(), "gave up 0 capabilities; kept: none");
            assert_eq!(line(&own_status(), "NoNewPrivs", 10), 1);
        });
    }

    #[test]
    fn root_without_its_rights_still_owns_its_files_and_no_others() {
        if !is_root() {
            return;
        }
        let folder = tempdir().unwrap();
        let (own, others) = (folder.path().join("own"), folder.path().join("others"));
        for path in [&own, &others] {
            File::create(path).unwrap().set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::chown(&others, Some(65534), None).unwrap();
        in_a_thread(|| {
            drop_of_thread(&[Capability::DacReadSearch]).unwrap();
            File::options().append(true).open(&own).unwrap().write_all(b"line\n").unwrap();
            assert_eq!(fs::read(&own).unwrap(), b"line\n");
            assert_eq!(fs::read(&others).unwrap(), b"");
            let refused = File::options().append(true).open(&others).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
            drop_of_thread(&[]).unwrap();
            assert_eq!(fs::read(&others).unwrap_err().kind(), ErrorKind::PermissionDenied);
            assert_eq!(fs::read(&own).unwrap(), b"line\n");
        });
    }

    #[test]
    fn links_of_processes_with_more_rights_need_sys_ptrace() {
        if !is_root() {
            return;
        }
        // The process that runs the tests keeps all its rights.
        let exe = format!("/proc/{}/exe", std::os::unix::process::parent_id());
        in_a_thread(|| {
            drop_of_thread(&[Capability::SysPtrace]).unwrap();
            fs::read_link(&exe).unwrap();
            // What the table says of arguments.
            fs::read(exe.replace("/exe", "/cmdline")).unwrap();
            drop_of_thread(&[]).unwrap();
            assert_eq!(fs::read_link(&exe).unwrap_err().kind(), ErrorKind::PermissionDenied);
            fs::read(exe.replace("/exe", "/cmdline")).unwrap();
        });
    }

    #[test]
    fn rights_are_not_given_up_beside_threads_that_would_keep_them() {
        let before = own_status();
        let error = drop_unneeded(KEPT).unwrap_err();
        assert!(matches!(error, PrivilegeError::Threads(2..)), "{error}");
        assert_eq!(sets(&own_status()), sets(&before));
    }

    #[test]
    fn what_is_held_is_what_proc_shows() {
        let held = Held::read().unwrap();
        let status = own_status();
        let shown = [held.inheritable, held.permitted, held.effective, held.bounding, held.ambient];
        assert_eq!(shown, sets(&status));
        assert_eq!(u64::from(held.no_new_privs), line(&status, "NoNewPrivs", 10));
    }

    #[test]
    fn what_is_missing_depends_on_the_host() {
        use Capability::{Bpf, DacReadSearch, Perfmon, SysAdmin, SysPtrace, SysResource};

        let usual = Host {
            kernel: (6, 12),
            perf_event_paranoid: 2,
            tracefs_is_mounted: true,
            memlock_is_limited: true,
        };
        let cases: &[(&[Capability], Host, &[Capability])] = &[
            (KEPT, usual, &[]),
            (&[], usual, &[Bpf, Perfmon, SysPtrace, DacReadSearch]),
            (&[SysAdmin], usual, &[SysPtrace, DacReadSearch]),
            (KEPT, Host { perf_event_paranoid: 3, ..usual }, &[SysAdmin]),
            (KEPT, Host { tracefs_is_mounted: false, ..usual }, &[SysAdmin]),
            (KEPT, Host { kernel: (5, 10), ..usual }, &[SysResource]),
            (KEPT, Host { kernel: (5, 10), memlock_is_limited: false, ..usual }, &[]),
            (KEPT, Host { kernel: (5, 11), ..usual }, &[]),
        ];
        for (has, host, expected) in cases {
            let held = Held {
                effective: bits(has),
                permitted: bits(has),
                inheritable: 0,
                bounding: u64::MAX,
                ambient: 0,
                no_new_privs: false,
                in_user_namespace: false,
            };
            let missing = held.missing(host);
            assert_eq!(
                missing.iter().map(|one| one.capability).collect::<Vec<_>>(),
                *expected,
                "{has:?} {host:?}"
            );
            assert!(missing.iter().all(|one| !one.of_user_namespace));

            let held = Held { in_user_namespace: true, ..held };
            for missing in held.missing(host) {
                assert_eq!(missing.of_user_namespace, has.contains(&missing.capability));
                assert_eq!(missing.to_string().ends_with("run it outside"), missing.of_user_namespace);
            }
            assert!(held.missing(host).len() >= KEPT.len());
        }
    }

    #[test]
    fn every_capability_has_one_row_and_the_names_of_the_kernel() {
        let named = NEEDS.iter().map(|need| (need.capability.name(), need.capability.set()));
        for (name, set) in named {
            let constant = CapabilitySet::from_name(&name.to_uppercase());
            assert_eq!(constant, Some(set), "{name}");
            assert_eq!(NEEDS.iter().filter(|need| need.capability.name() == name).count(), 1, "{name}");
        }
        assert!(KEPT.iter().all(|kept| NEEDS.iter().any(|need| need.capability == *kept)));
    }

    #[test]
    fn a_release_is_a_version_whatever_follows() {
        for (release, expected) in [
            ("6.12.4-amd64", (6, 12)),
            ("5.10.0-32-cloud-amd64", (5, 10)),
            ("4.18.0-553.el8_10.x86_64", (4, 18)),
            ("6.18", (6, 18)),
            ("7-rc1", (7, 0)),
            ("", (0, 0)),
            ("99999999999.1", (0, 1)),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn tracefs_is_found_among_the_mounts() {
        for (mounts, expected) in [
            ("proc /proc proc rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n", true),
            ("debugfs /sys/kernel/debug debugfs rw 0 0\n", true),
            ("tracefs /mnt ext4 rw 0 0\n/dev/sda /tracefs ext4 rw 0 0\n", false),
            ("\n\n \n", false),
            ("", false),
        ] {
            assert_eq!(has_tracefs(mounts.as_bytes()), expected, "{mounts}");
        }
    }
}
