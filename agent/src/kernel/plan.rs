//! The hook plan: which sensor is served by which hook, in order of preference.
//!
//! A sensor is a question (`process.exec`), a hook is a place in the kernel that answers it. For each
//! kind of hook a tiny program of that very kind is loaded and attached; the first candidate of a sensor
//! whose kind the host lets us have serves it. A refusal is a normal host, not an error, as long as
//! another candidate is left or the sensor can be done without.

use std::{collections::BTreeMap, fmt};

use nightjar_abi::{
    files::{CALL_EXITS, CALLS, OPEN_EXITS, OPENS},
    hook::Hook,
    record::{call, socket_call},
};

/// A question that kernel programs answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sensor {
    /// `process.exec`
    Exec,
    /// `process.fork`
    Fork,
    /// `process.exit`
    Exit,
    /// `process.exec_failed`
    ExecFailed,
    /// `process.credentials`
    Credentials,
    /// Cgroups that are made, for the containers of other events.
    NewCgroup,
    /// What ran before the agent.
    Snapshot,
    /// `file.open` and `file.create`
    FileOpen,
    /// `file.close` of whatever is wanted, written to or not
    FileClose,
    /// Whatever else is done with files.
    FileCall,
    /// Sockets with connections, by their states.
    SocketState,
    /// What calls on sockets come to.
    SocketCall,
    /// What requests of `io_uring` on sockets come to.
    SocketUring,
    /// Connections that fail before a socket changes its state.
    SocketAttempt,
    /// Sockets that are bound.
    SocketBind,
    /// What sockets without connections send and receive.
    Datagram,
    /// The end of such sockets.
    SocketRelease,
    /// Sockets that were there before the agent.
    SocketSnapshot,
}

/// A kind of hook: what the host lets us have or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookKind {
    /// A tracepoint with typed arguments (`tp_btf`).
    BtfTracepoint,
    /// A tracepoint of one system call (`syscalls:sys_exit_*`), by tracefs and perf events.
    SyscallTracepoint,
    /// A program that is run for each task, or each of its files (`iter/task`, `iter/task_file`).
    TaskIterator,
    /// A program on sockets and their packets, at the root of the cgroups.
    Cgroup,
    /// No program of its own: programs of other sensors look in passing.
    Passing,
    /// No program: files in `/proc`.
    Procfs,
}

/// One way to serve a sensor.
#[derive(Debug)]
pub struct Candidate {
    /// What must be allowed.
    pub kind: HookKind,
    /// Kernel programs, and what each is attached to.
    pub programs: &'static [(&'static str, &'static [&'static str])],
    /// What its answer is worth, for people.
    pub worth: &'static str,
}

/// A row of the plan.
#[derive(Debug)]
pub struct SensorPlan {
    /// The question.
    pub sensor: Sensor,
    /// Where its programs count.
    pub hook: Hook,
    /// Whether the process table cannot do without it: then it is attached whatever is asked for.
    pub required: bool,
    /// The best first.
    pub candidates: &'static [Candidate],
}

macro_rules! credential_calls {
    ($($number:ident $name:literal)*) => {
        /// Calls that can change credentials, by the number that the machine that the agent is built for gives
        /// them.
        const CREDENTIAL_CALLS: &[(i64, &str)] = &[(libc::SYS_prctl, "prctl"), $((libc::$number, $name),)*];
        /// Where they return, `prctl` aside, which has a program of its own.
        const CREDENTIAL_TRACEPOINTS: &[&str] = &[$(concat!("sys_exit_", $name),)*];
    };
}
credential_calls! {
    SYS_setuid "setuid" SYS_setgid "setgid" SYS_setreuid "setreuid" SYS_setregid "setregid"
    SYS_setresuid "setresuid" SYS_setresgid "setresgid" SYS_setfsuid "setfsuid" SYS_setfsgid "setfsgid"
    SYS_capset "capset" SYS_unshare "unshare" SYS_setns "setns"
}

/// The whole plan, in the order in which it is served: who is born is seen before who is there is looked up,
/// and both are known before changes of what they are.
pub const PLAN: &[SensorPlan] = &[
    SensorPlan {
        sensor: Sensor::Exec,
        hook: Hook::Exec,
        required: true,
        candidates: &[Candidate {
            kind: HookKind::BtfTracepoint,
            programs: &[("process_exec", &["sched_process_exec"])],
            worth: "all from the kernel, in the new image",
        }],
    },
    SensorPlan {
        sensor: Sensor::Fork,
        hook: Hook::Fork,
        required: true,
        candidates: &[Candidate {
            kind: HookKind::BtfTracepoint,
            programs: &[("process_fork", &["task_newtask"])],
            worth: "all from the kernel, before the child can run",
        }],
    },
    SensorPlan {
        sensor: Sensor::Exit,
        hook: Hook::Exit,
        required: true,
        candidates: &[Candidate {
            kind: HookKind::BtfTracepoint,
            programs: &[("process_exit", &["sched_process_exit"])],
            worth: "all from the kernel, at the end of the last thread",
        }],
    },
    SensorPlan {
        sensor: Sensor::NewCgroup,
        hook: Hook::NewCgroup,
        required: true,
        candidates: &[
            Candidate {
                kind: HookKind::BtfTracepoint,
                programs: &[("new_cgroup", &["cgroup_mkdir"])],
                worth: "all from the kernel, when the directory is made",
            },
            Candidate {
                kind: HookKind::Passing,
                programs: &[],
                worth: "containers are known from the first exec in them on",
            },
        ],
    },
    SensorPlan {
        sensor: Sensor::Snapshot,
        hook: Hook::Snapshot,
        required: true,
        candidates: &[
            Candidate {
                kind: HookKind::TaskIterator,
                programs: &[("snapshot_tasks", &["task"])],
                worth: "all from the kernel; arguments from /proc",
            },
            Candidate {
                kind: HookKind::Procfs,
                programs: &[],
                worth: "start times to 10 ms, no credentials but user and group",
            },
        ],
    },
    SensorPlan {
        sensor: Sensor::ExecFailed,
        hook: Hook::ExecFailed,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::SyscallTracepoint,
            programs: &[("execve_exit", &["sys_exit_execve"]), ("execveat_exit", &["sys_exit_execveat"])],
            worth: "path from user memory; not the 32-bit calls",
        }],
    },
    SensorPlan {
        sensor: Sensor::Credentials,
        hook: Hook::Credentials,
        required: false,
        candidates: &[
            Candidate {
                kind: HookKind::SyscallTracepoint,
                programs: &[("creds_syscall", CREDENTIAL_TRACEPOINTS), ("creds_prctl", &["sys_exit_prctl"])],
                worth: "when the call returns; any other way (32-bit calls, an exploit) at the task's next exec \
                        or exit",
            },
            Candidate {
                kind: HookKind::Passing,
                programs: &[],
                worth: "at the task's next exec or exit, without the call",
            },
        ],
    },
    SensorPlan {
        sensor: Sensor::FileOpen,
        hook: Hook::FileOpen,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::SyscallTracepoint,
            programs: &[("file_open", OPEN_EXITS)],
            worth: "all from the kernel, when the call returns; 32-bit calls and io_uring by fanotify",
        }],
    },
    SensorPlan {
        sensor: Sensor::FileClose,
        hook: Hook::FileClose,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::SyscallTracepoint,
            programs: &[("file_close", &["sys_enter_close"])],
            worth: "all from the kernel, of calls of close; ends of processes and of mappings by fanotify",
        }],
    },
    SensorPlan {
        sensor: Sensor::FileCall,
        hook: Hook::FileCall,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::SyscallTracepoint,
            programs: &[("file_call", CALL_EXITS)],
            worth: "who, when and how from the kernel; names from user memory, or what fanotify says they were",
        }],
    },
    SensorPlan {
        sensor: Sensor::SocketState,
        hook: Hook::SocketState,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::BtfTracepoint,
            programs: &[("socket_state", &["inet_sock_set_state"])],
            worth: "all from the kernel, whatever call, packet or timer changes the state",
        }],
    },
    SensorPlan {
        sensor: Sensor::SocketCall,
        hook: Hook::SocketCall,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::SyscallTracepoint,
            programs: &[("socket_call", SOCKET_CALLS)],
            worth: "from the socket, when the call returns; what was refused from user memory; not the 32-bit calls",
        }],
    },
    SensorPlan {
        sensor: Sensor::SocketUring,
        hook: Hook::SocketUring,
        required: false,
        candidates: &[
            Candidate {
                kind: HookKind::BtfTracepoint,
                programs: &[("socket_uring", &["io_uring_complete"])],
                worth: "from the socket, when the request is completed",
            },
            Candidate {
                kind: HookKind::Passing,
                programs: &[],
                worth: "what io_uring accepts is told of who listens",
            },
        ],
    },
    SensorPlan {
        sensor: Sensor::SocketAttempt,
        hook: Hook::SocketAttempt,
        required: false,
        candidates: &[
            Candidate {
                kind: HookKind::Cgroup,
                programs: &[("socket_attempt4", &["connect4"]), ("socket_attempt6", &["connect6"])],
                worth: "all from the kernel, before the call",
            },
            Candidate {
                kind: HookKind::Passing,
                programs: &[],
                worth: "32-bit calls and io_uring that fail at once are not seen",
            },
        ],
    },
    SensorPlan {
        sensor: Sensor::SocketBind,
        hook: Hook::SocketBind,
        required: false,
        candidates: &[
            Candidate {
                kind: HookKind::Cgroup,
                programs: &[("socket_bind4", &["post_bind4"]), ("socket_bind6", &["post_bind6"])],
                worth: "all from the kernel, whatever call it was",
            },
            Candidate {
                kind: HookKind::Passing,
                programs: &[],
                worth: "when the call returns; not 32-bit calls and io_uring",
            },
        ],
    },
    SensorPlan {
        sensor: Sensor::Datagram,
        hook: Hook::Datagram,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::Cgroup,
            programs: &[("datagram_sent", &["egress"]), ("datagram_received", &["ingress"])],
            worth: "addresses from the packets, whatever call sends them",
        }],
    },
    SensorPlan {
        sensor: Sensor::SocketRelease,
        hook: Hook::SocketRelease,
        required: false,
        candidates: &[
            Candidate {
                kind: HookKind::Cgroup,
                programs: &[("socket_release", &["sock_release"])],
                worth: "all from the kernel, when nobody has the socket open any more",
            },
            Candidate {
                kind: HookKind::Passing,
                programs: &[],
                worth: "flows of datagrams end when nothing went by for a while",
            },
        ],
    },
    SensorPlan {
        sensor: Sensor::SocketSnapshot,
        hook: Hook::Snapshot,
        required: false,
        candidates: &[
            Candidate {
                kind: HookKind::TaskIterator,
                programs: &[("snapshot_sockets", &["task_file"])],
                worth: "all from the kernel, of all network namespaces",
            },
            Candidate {
                kind: HookKind::Passing,
                programs: &[],
                worth: "connections that began before the agent are known by their end",
            },
        ],
    },
];

/// Where calls on sockets return.
const SOCKET_CALLS: &[&str] = &[
    "sys_exit_connect",
    "sys_exit_accept",
    "sys_exit_accept4",
    "sys_exit_socket",
    "sys_exit_bind",
    "sys_exit_listen",
];

/// Numbers of these on x86-64, and their names.
const SOCKET_CALL_NAMES: &[(u32, &str)] =
    &[(41, "socket"), (42, "connect"), (43, "accept"), (49, "bind"), (50, "listen"), (288, "accept4")];

/// Why a hook is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind that was refused.
    pub kind: HookKind,
    /// What the host said.
    pub reason: String,
}

/// What came of one row of the plan.
#[derive(Debug)]
pub struct Serving {
    /// The row.
    pub plan: &'static SensorPlan,
    /// The candidate that serves, if any does.
    pub candidate: Option<&'static Candidate>,
    /// Better candidates, and why they do not.
    pub refused: Vec<Refusal>,
}

/// What was learned of each kind of hook: nothing to say against it, or why not.
pub type Probes = BTreeMap<HookKind, Result<(), String>>;

/// Takes the first candidate of a sensor whose kind the host allows and that `take` gets to work.
pub fn choose(
    plan: &'static SensorPlan,
    probes: &Probes,
    mut take: impl FnMut(&Candidate) -> Result<(), String>,
) -> Serving {
    let mut refused = Vec::new();
    let candidate = plan.candidates.iter().find(|candidate| {
        let allowed = probes.get(&candidate.kind).cloned().unwrap_or(Ok(()));
        match allowed.and_then(|()| take(candidate)) {
            Ok(()) => true,
            Err(reason) => {
                refused.push(Refusal { kind: candidate.kind, reason });
                false
            }
        }
    });
    Serving { plan, candidate, refused }
}

/// Name of what tried an exec or changed credentials: [`call`] of a record.
#[must_use]
pub fn call_name(number: u32) -> Option<&'static str> {
    match number {
        call::UNKNOWN => None,
        call::EXECVE => Some("execve"),
        call::EXECVEAT => Some("execveat"),
        call::EXEC => Some("exec"),
        call::CLONE => Some("clone"),
        _ => {
            let number = i64::from(number.checked_sub(call::SYSCALL)?);
            CREDENTIAL_CALLS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
        }
    }
}

/// Name of a call that opens or changes files, by its number on x86-64.
#[must_use]
pub fn file_call_name(number: u32) -> Option<&'static str> {
    let opens = OPENS.iter().copied();
    let mut all = opens.chain(CALLS.iter().map(|call| (call.number, call.name)));
    all.find(|(known, _)| *known == number).map(|(_, name)| name)
}

/// Name of what a record of a socket came by: a system call, by its number on x86-64, or `io_uring`.
#[must_use]
pub fn socket_call_name(number: u32) -> Option<&'static str> {
    if number == socket_call::IO_URING {
        return Some("io_uring");
    }
    SOCKET_CALL_NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

// === impl Sensor ===

impl Sensor {
    /// Those that give events.
    pub const ALL: [Self; 15] = [
        Self::Exec,
        Self::Fork,
        Self::Exit,
        Self::ExecFailed,
        Self::Credentials,
        Self::FileOpen,
        Self::FileClose,
        Self::FileCall,
        Self::SocketState,
        Self::SocketCall,
        Self::SocketUring,
        Self::SocketAttempt,
        Self::SocketBind,
        Self::Datagram,
        Self::SocketRelease,
    ];

    /// Kinds of the events that it gives.
    #[must_use]
    pub const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Exec => &["process.exec"],
            Self::Fork => &["process.fork"],
            Self::Exit => &["process.exit"],
            Self::ExecFailed => &["process.exec_failed"],
            Self::Credentials => &["process.credentials"],
            Self::NewCgroup | Self::Snapshot => &[],
            Self::FileOpen => &["file.open", "file.create"],
            Self::FileClose => &["file.close"],
            Self::FileCall => &[
                "file.create",
                "file.delete",
                "file.rename",
                "file.link",
                "file.attributes",
                "file.truncate",
                "file.copy",
                "file.mkdir",
                "file.rmdir",
                "file.mount",
            ],
            Self::SocketState | Self::SocketSnapshot => {
                &["network.connect", "network.accept", "network.listen", "network.close", "network.flow"]
            }
            Self::SocketCall => &["network.accept", "network.connect", "network.bind", "network.socket"],
            Self::SocketUring => &["network.accept", "network.connect"],
            Self::SocketAttempt => &["network.connect"],
            Self::SocketBind => &["network.bind"],
            Self::Datagram => &["network.connect", "network.accept", "network.close", "network.flow"],
            Self::SocketRelease => &["network.close", "network.flow"],
        }
    }

    /// Whether it is one of those that together tell which process a connection is of.
    #[must_use]
    pub const fn is_of_sockets(self) -> bool {
        matches!(
            self,
            Self::SocketState
                | Self::SocketCall
                | Self::SocketUring
                | Self::SocketAttempt
                | Self::SocketBind
                | Self::Datagram
                | Self::SocketRelease
                | Self::SocketSnapshot
        )
    }

    /// Kind of the events that it gives; a name for people for those that give none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "process.exec",
            Self::Fork => "process.fork",
            Self::Exit => "process.exit",
            Self::ExecFailed => "process.exec_failed",
            Self::Credentials => "process.credentials",
            Self::NewCgroup => "new_cgroup",
            Self::Snapshot => "snapshot",
            Self::FileOpen => "file.open",
            Self::FileClose => "file.close",
            Self::FileCall => "file.*",
            Self::SocketState => "network.*",
            Self::SocketCall => "network.accept",
            Self::SocketUring => "network by io_uring",
            Self::SocketAttempt => "network.connect that fails",
            Self::SocketBind => "network.bind",
            Self::Datagram => "network.flow",
            Self::SocketRelease => "end of network.flow",
            Self::SocketSnapshot => "sockets before",
        }
    }
}

impl fmt::Display for Sensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl HookKind ===

impl HookKind {
    /// Kinds that a program must be loaded for.
    pub const PROBED: [Self; 4] =
        [Self::BtfTracepoint, Self::SyscallTracepoint, Self::TaskIterator, Self::Cgroup];
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BtfTracepoint => "BTF tracepoint",
            Self::SyscallTracepoint => "system call tracepoint",
            Self::TaskIterator => "task iterator",
            Self::Cgroup => "cgroup program",
            Self::Passing => "look in passing",
            Self::Procfs => "/proc",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(sensor: Sensor) -> &'static SensorPlan {
        PLAN.iter().find(|plan| plan.sensor == sensor).expect("in the plan")
    }

    fn served_by(serving: &Serving) -> Option<HookKind> {
        serving.candidate.map(|candidate| candidate.kind)
    }

    #[test]
    fn the_first_candidate_serves_where_nothing_is_refused() {
        for plan in PLAN {
            let serving = choose(plan, &Probes::new(), |_| Ok(()));
            assert_eq!(served_by(&serving), Some(plan.candidates[0].kind));
            assert!(serving.refused.is_empty());
        }
    }

    #[test]
    fn a_kind_that_is_refused_gives_way_to_the_next_and_says_why() {
        let probes = Probes::from([
            (HookKind::SyscallTracepoint, Err("tracefs is not there".to_owned())),
            (HookKind::TaskIterator, Err("EPERM".to_owned())),
        ]);

        let credentials = choose(plan_of(Sensor::Credentials), &probes, |_| Ok(()));
        assert_eq!(served_by(&credentials), Some(HookKind::Passing));
        assert_eq!(credentials.refused[0].reason, "tracefs is not there");
        let snapshot = choose(plan_of(Sensor::Snapshot), &probes, |_| Ok(()));
        assert_eq!(served_by(&snapshot), Some(HookKind::Procfs));
        assert_eq!(served_by(&choose(plan_of(Sensor::ExecFailed), &probes, |_| Ok(()))), None);
    }

    #[test]
    fn a_program_that_does_not_load_gives_way_as_well() {
        let serving = choose(plan_of(Sensor::Credentials), &Probes::new(), |candidate| {
            if candidate.programs.is_empty() { Ok(()) } else { Err("too large".to_owned()) }
        });
        assert_eq!(served_by(&serving), Some(HookKind::Passing));
        assert_eq!(serving.refused[0].reason, "too large");
    }

    #[test]
    fn calls_have_names() {
        assert_eq!(call_name(call::UNKNOWN), None);
        assert_eq!(call_name(call::SYSCALL + u32::try_from(libc::SYS_setuid).unwrap()), Some("setuid"));
        assert_eq!(call_name(call::SYSCALL + 0xFFFF), None);
    }
}
