//! The hook plan: which sensor is served by which hook, in order of preference.
//!
//! A sensor is a question (`process.exec`), a hook is a place in the kernel that answers it. For each
//! kind of hook a tiny program of that very kind is loaded and attached; the first candidate of a sensor
//! whose kind the host lets us have serves it. A refusal is a normal host, not an error, as long as
//! another candidate is left or the sensor can be done without.

use std::{collections::BTreeMap, fmt};

use nightjar_abi::record::call;

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
    /// What ran before the agent.
    Snapshot,
}

/// A kind of hook: what the host lets us have or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookKind {
    /// A tracepoint with typed arguments (`tp_btf`).
    BtfTracepoint,
    /// A tracepoint of one system call (`syscalls:sys_exit_*`), by tracefs and perf events.
    SyscallTracepoint,
    /// A program that is run for each task (`iter/task`).
    TaskIterator,
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
    /// Whether the process table cannot do without it: then it is attached whatever is asked for.
    pub required: bool,
    /// The best first.
    pub candidates: &'static [Candidate],
}

/// The whole plan.
pub const PLAN: &[SensorPlan] = &[
    SensorPlan {
        sensor: Sensor::Exec,
        required: true,
        candidates: &[Candidate {
            kind: HookKind::BtfTracepoint,
            programs: &[("process_exec", &["sched_process_exec"])],
            worth: "all from the kernel, in the new image",
        }],
    },
    SensorPlan {
        sensor: Sensor::Fork,
        required: true,
        candidates: &[Candidate {
            kind: HookKind::BtfTracepoint,
            programs: &[("process_fork", &["task_newtask"])],
            worth: "all from the kernel, before the child can run",
        }],
    },
    SensorPlan {
        sensor: Sensor::Exit,
        required: true,
        candidates: &[Candidate {
            kind: HookKind::BtfTracepoint,
            programs: &[("process_exit", &["sched_process_exit"])],
            worth: "all from the kernel, at the end of the last thread",
        }],
    },
    SensorPlan {
        sensor: Sensor::ExecFailed,
        required: false,
        candidates: &[Candidate {
            kind: HookKind::SyscallTracepoint,
            programs: &[("execve_exit", &["sys_exit_execve"]), ("execveat_exit", &["sys_exit_execveat"])],
            worth: "path from user memory; not the 32-bit calls",
        }],
    },
    SensorPlan {
        sensor: Sensor::Credentials,
        required: false,
        candidates: &[
            Candidate {
                kind: HookKind::SyscallTracepoint,
                programs: &[(
                    "creds_syscall",
                    &[
                        "sys_exit_setuid",
                        "sys_exit_setgid",
                        "sys_exit_setreuid",
                        "sys_exit_setregid",
                        "sys_exit_setresuid",
                        "sys_exit_setresgid",
                        "sys_exit_setfsuid",
                        "sys_exit_setfsgid",
                        "sys_exit_capset",
                        "sys_exit_prctl",
                        "sys_exit_unshare",
                        "sys_exit_setns",
                    ],
                )],
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
        sensor: Sensor::Snapshot,
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
];

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

/// Chooses a candidate for each sensor that is wanted.
#[must_use]
pub fn choose(wanted: impl Fn(&SensorPlan) -> bool, probes: &Probes) -> Vec<Serving> {
    PLAN.iter()
        .filter(|plan| plan.required || wanted(plan))
        .map(|plan| {
            let mut refused = Vec::new();
            let candidate = plan.candidates.iter().find(|candidate| match probes.get(&candidate.kind) {
                Some(Err(reason)) => {
                    refused.push(Refusal { kind: candidate.kind, reason: reason.clone() });
                    false
                }
                Some(Ok(())) | None => true,
            });
            Serving { plan, candidate, refused }
        })
        .collect()
}

/// Name of what tried an exec or changed credentials: [`call`] of a record.
#[must_use]
pub fn call_name(number: u32) -> Option<&'static str> {
    /// Numbers of the machine that the agent is built for, which is the one that it runs on.
    const NAMES: &[(i64, &str)] = &[
        (libc::SYS_setuid, "setuid"),
        (libc::SYS_setgid, "setgid"),
        (libc::SYS_setreuid, "setreuid"),
        (libc::SYS_setregid, "setregid"),
        (libc::SYS_setresuid, "setresuid"),
        (libc::SYS_setresgid, "setresgid"),
        (libc::SYS_setfsuid, "setfsuid"),
        (libc::SYS_setfsgid, "setfsgid"),
        (libc::SYS_capset, "capset"),
        (libc::SYS_prctl, "prctl"),
        (libc::SYS_unshare, "unshare"),
        (libc::SYS_setns, "setns"),
    ];
    match number {
        call::UNKNOWN => None,
        call::EXECVE => Some("execve"),
        call::EXECVEAT => Some("execveat"),
        call::EXEC => Some("exec"),
        call::CLONE => Some("clone"),
        _ => {
            let number = i64::from(number.checked_sub(call::SYSCALL)?);
            NAMES.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
        }
    }
}

// === impl Sensor ===

impl Sensor {
    /// Kind of the events that it gives, `snapshot` for the one that gives none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "process.exec",
            Self::Fork => "process.fork",
            Self::Exit => "process.exit",
            Self::ExecFailed => "process.exec_failed",
            Self::Credentials => "process.credentials",
            Self::Snapshot => "snapshot",
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
    pub const PROBED: [Self; 3] = [Self::BtfTracepoint, Self::SyscallTracepoint, Self::TaskIterator];
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BtfTracepoint => "BTF tracepoint",
            Self::SyscallTracepoint => "system call tracepoint",
            Self::TaskIterator => "task iterator",
            Self::Passing => "look in passing",
            Self::Procfs => "/proc",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(serving: &[Serving], sensor: Sensor) -> &Serving {
        serving.iter().find(|serving| serving.plan.sensor == sensor).expect("in the plan")
    }

    #[test]
    fn the_first_candidate_serves_where_nothing_is_refused() {
        let serving = choose(|_| true, &Probes::new());
        for row in serving {
            assert_eq!(row.candidate.map(|c| c.kind), Some(row.plan.candidates[0].kind));
            assert!(row.refused.is_empty());
        }
    }

    #[test]
    fn a_refused_hook_gives_way_to_the_next_and_says_why() {
        let probes = Probes::from([
            (HookKind::SyscallTracepoint, Err("tracefs is not there".to_owned())),
            (HookKind::TaskIterator, Err("EPERM".to_owned())),
        ]);
        let serving = choose(|_| true, &probes);

        let credentials = chosen(&serving, Sensor::Credentials);
        assert_eq!(credentials.candidate.map(|c| c.kind), Some(HookKind::Passing));
        assert_eq!(credentials.refused[0].reason, "tracefs is not there");
        assert_eq!(chosen(&serving, Sensor::Snapshot).candidate.map(|c| c.kind), Some(HookKind::Procfs));
        assert!(chosen(&serving, Sensor::ExecFailed).candidate.is_none());
        assert_eq!(chosen(&serving, Sensor::Exec).candidate.map(|c| c.kind), Some(HookKind::BtfTracepoint));
    }

    #[test]
    fn sensors_that_the_process_table_needs_are_planned_unasked() {
        let sensors: Vec<_> = choose(|_| false, &Probes::new()).iter().map(|row| row.plan.sensor).collect();
        assert_eq!(sensors, [Sensor::Exec, Sensor::Fork, Sensor::Exit, Sensor::Snapshot]);
    }

    #[test]
    fn calls_have_names() {
        assert_eq!(call_name(call::UNKNOWN), None);
        assert_eq!(call_name(call::SYSCALL + u32::try_from(libc::SYS_setuid).unwrap()), Some("setuid"));
        assert_eq!(call_name(call::SYSCALL + 0xFFFF), None);
    }
}
