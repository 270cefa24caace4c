//! Words for the kernel's numbers.

use std::fs;

/// Names of capabilities, by number.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/capability.h#L106-L418>
const CAPABILITIES: [&str; 41] = [
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

/// Sets of capabilities, as the running kernel knows them.
#[derive(Debug, Clone, Copy)]
pub struct CapabilityNames {
    /// All that the kernel knows.
    all: u64,
}

impl CapabilityNames {
    /// Asks the kernel for its last capability.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        let last = last.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(40);
        Self::up_to(last)
    }

    /// With this as the last one.
    #[must_use]
    pub fn up_to(last: u32) -> Self {
        Self { all: u64::MAX >> (63 - last.min(63)) }
    }

    /// Names of a set: `all` for all, followed by `-name` for each of a few that are missing.
    #[must_use]
    pub fn of(self, set: u64) -> Vec<String> {
        /// Root in a container or sandbox often lacks one or two.
        const FEW: u32 = 8;
        let missing = self.all & !set;
        if missing.count_ones() > FEW {
            return Self::list(set & self.all);
        }
        let missing = Self::list(missing).into_iter().map(|name| format!("-{name}"));
        std::iter::once("all".to_owned()).chain(missing).collect()
    }

    /// Names of those in `set` that are not in `without`.
    #[must_use]
    pub fn difference(self, set: u64, without: u64) -> Vec<String> {
        Self::list(set & !without & self.all)
    }

    fn list(set: u64) -> Vec<String> {
        (0..64)
            .filter(|number| set >> number & 1 != 0)
            .map(|number: usize| {
                CAPABILITIES.get(number).map_or_else(|| format!("{number}"), |name| (*name).to_owned())
            })
            .collect()
    }
}

macro_rules! named_numbers {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name)),)*] };
}

/// Errors that calls on programs, files and sockets may give, and then some.
const ERRORS: &[(i32, &str)] = named_numbers! {
    EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EALREADY ECONNABORTED ECONNREFUSED ECONNRESET EDESTADDRREQ EHOSTDOWN
    EHOSTUNREACH EINPROGRESS EISCONN EMSGSIZE ENETDOWN ENETRESET ENETUNREACH ENOBUFS ENOPROTOOPT ENOTCONN ENOTSOCK
    EOPNOTSUPP EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE ESOCKTNOSUPPORT
    E2BIG EACCES EAGAIN EBADF EBUSY ECANCELED EDEADLK EEXIST EFAULT EFBIG EINTR EINVAL EIO EISDIR ELIBBAD
    ELOOP EMFILE ENAMETOOLONG ENFILE ENODEV ENOENT ENOEXEC ENOKEY ENOMEM ENOSPC ENOSYS ENOTDIR ENXIO
    EOVERFLOW EPERM EROFS ESRCH ESTALE ETIMEDOUT ETXTBSY EXDEV EKEYREJECTED EKEYEXPIRED EUCLEAN EREMOTEIO
};

const SIGNALS: &[(i32, &str)] = named_numbers! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE
    SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ
    SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
};

/// First real-time signal of the kernel; the C library takes the first few for itself.
const FIRST_REAL_TIME: u32 = 32;

/// `ENOENT`, or the number where it has no name here.
#[must_use]
pub fn errno(number: u32) -> String {
    lookup(ERRORS, number).map_or_else(|| number.to_string(), str::to_owned)
}

/// `SIGKILL`, `SIGRTMIN+2` (counted as the kernel does), or the number.
#[must_use]
pub fn signal(number: u32) -> String {
    match lookup(SIGNALS, number) {
        Some(name) => name.to_owned(),
        None if number == FIRST_REAL_TIME => "SIGRTMIN".to_owned(),
        None if number > FIRST_REAL_TIME => format!("SIGRTMIN+{}", number - FIRST_REAL_TIME),
        None => number.to_string(),
    }
}

fn lookup(table: &'static [(i32, &str)], number: u32) -> Option<&'static str> {
    let number = i32::try_from(number).ok()?;
    table.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// `CLONE_*` by bit; the lowest eight bits are the signal at the child's end.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/sched.h#L10-L43>
const CLONE_FLAGS: [(u64, &str); 27] = [
    (0x0000_0080, "newtime"),
    (0x0000_0100, "vm"),
    (0x0000_0200, "fs"),
    (0x0000_0400, "files"),
    (0x0000_0800, "sighand"),
    (0x0000_1000, "pidfd"),
    (0x0000_2000, "ptrace"),
    (0x0000_4000, "vfork"),
    (0x0000_8000, "parent"),
    (0x0001_0000, "thread"),
    (0x0002_0000, "newns"),
    (0x0004_0000, "sysvsem"),
    (0x0008_0000, "settls"),
    (0x0010_0000, "parent_settid"),
    (0x0020_0000, "child_cleartid"),
    (0x0040_0000, "detached"),
    (0x0080_0000, "untraced"),
    (0x0100_0000, "child_settid"),
    (0x0200_0000, "newcgroup"),
    (0x0400_0000, "newuts"),
    (0x0800_0000, "newipc"),
    (0x1000_0000, "newuser"),
    (0x2000_0000, "newpid"),
    (0x4000_0000, "newnet"),
    (0x8000_0000, "io"),
    (0x1_0000_0000, "clear_sighand"),
    (0x2_0000_0000, "into_cgroup"),
];

/// Words of `CLONE_*` flags.
#[must_use]
pub fn clone_flags(flags: u64) -> Vec<String> {
    CLONE_FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_kernel_knows_is_one_word() {
        let names = CapabilityNames::up_to(40);
        assert_eq!(names.of((1 << 41) - 1), ["all"]);
        // A process that was given everything has bits that mean nothing.
        assert_eq!(names.of(u64::MAX), ["all"]);
        assert_eq!(names.of(0), Vec::<String>::new());
        assert_eq!(names.of(1 << 21 | 1), ["chown", "sys_admin"]);
        assert_eq!(names.of((1 << 41) - 2), ["all", "-chown"]);
    }

    #[test]
    fn a_capability_younger_than_the_agent_is_a_number() {
        assert_eq!(CapabilityNames::up_to(41).of(1 << 41), ["41"]);
    }

    #[test]
    fn what_was_gained_leaves_out_what_was_there() {
        assert_eq!(CapabilityNames::up_to(40).difference(0b111, 0b101), ["dac_override"]);
    }

    #[test]
    fn numbers_without_a_name_stay_numbers() {
        assert_eq!(errno(2), "ENOENT");
        assert_eq!(errno(4095), "4095");
        assert_eq!(signal(9), "SIGKILL");
        assert_eq!(signal(34), "SIGRTMIN+2");
    }

    #[test]
    fn clone_flags_are_words() {
        assert_eq!(clone_flags(0x4111), ["vm", "vfork"]);
    }
}
