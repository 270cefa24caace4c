//! Which hook serves which sensor, and what to do where a better one was refused.

use serde::Serialize;

use super::{Finding, Host, Outcome};
use crate::{
    files,
    kernel::{HookKind, Serving},
};

const FANOTIFY: &str = "fanotify";

/// How a sensor is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sensor {
    /// Kind of the events that it gives, or what it is for.
    pub name: &'static str,
    /// Kinds of the events that it gives, other sensors perhaps too.
    #[serde(skip)]
    pub kinds: &'static [&'static str],
    /// How good that is.
    pub result: Outcome,
    /// The hook that serves it; empty where none does.
    pub hook: String,
    /// What its answer is worth.
    pub worth: String,
    /// Better hooks, and why they do not serve.
    pub refused: Vec<Refused>,
    /// What to do to have the better one.
    pub mend: String,
}

/// A hook that this host does not let us have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Kind of hook.
    pub hook: String,
    /// What the host said.
    pub reason: String,
}

/// Words of a refusal, and what to do then. The first row that fits counts.
const MENDS: &[(Option<HookKind>, &[&str], &str)] = &[
    (
        Some(HookKind::SyscallTracepoint),
        &["no tracefs"],
        "`mount -t tracefs tracefs /sys/kernel/tracing`, or give the agent CAP_SYS_ADMIN for its start",
    ),
    (
        Some(HookKind::SyscallTracepoint),
        &["ermission denied", "not permitted"],
        "`sysctl -w kernel.perf_event_paranoid=2`, or give the agent CAP_SYS_ADMIN for its start; in a container \
         let its seccomp profile allow perf_event_open",
    ),
    (
        Some(HookKind::SyscallTracepoint),
        &["No such file"],
        "run a kernel built with CONFIG_FTRACE_SYSCALLS=y",
    ),
    (
        None,
        &["verifier"],
        "use a Nightjar release that knows this kernel; `nightjar -vv doctor` shows all that it said",
    ),
    (
        None,
        &["ermission denied", "not permitted"],
        "give the agent CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN",
    ),
    (None, &[""], "run a newer kernel; `nightjar -vv doctor` shows more of what this one said"),
];

/// Of all rows of the plan that were asked for, and fanotify, which has none.
#[must_use]
pub fn sensors(host: &Host, serving: &[Serving]) -> Vec<Sensor> {
    serving.iter().map(sensor).chain([notifications(host)]).collect()
}

fn notifications(host: &Host) -> Sensor {
    let Finding { result, found, mend, .. } = super::checks::fanotify(host);
    let sensor = Sensor {
        name: "file.modify",
        kinds: files::NOTICED,
        result,
        hook: FANOTIFY.to_owned(),
        worth:
            "all from the kernel, when a file that was written to is closed; of other files what no hook of \
                theirs sees"
                .to_owned(),
        refused: Vec::new(),
        mend,
    };
    if host.facts.fanotify.is_ok() {
        return sensor;
    }
    let refused = vec![Refused { hook: FANOTIFY.to_owned(), reason: found }];
    Sensor { hook: String::new(), worth: String::new(), refused, ..sensor }
}

fn sensor(serving: &Serving) -> Sensor {
    let result = match (serving.candidate, serving.refused.is_empty()) {
        (Some(_), true) => Outcome::Ok,
        (None, _) if serving.plan.required => Outcome::Failed,
        // The agent starts without one that is not required.
        (Some(_), false) | (None, _) => Outcome::Limited,
    };
    let refused = serving.refused.iter();
    let refused = refused.map(|one| Refused { hook: one.kind.to_string(), reason: one.reason.clone() });
    Sensor {
        name: serving.plan.sensor.name(),
        kinds: serving.plan.sensor.kinds(),
        result,
        hook: serving.candidate.map_or_else(String::new, |candidate| candidate.kind.to_string()),
        worth: serving.candidate.map_or_else(String::new, |candidate| candidate.worth.to_owned()),
        refused: refused.collect(),
        mend: serving
            .refused
            .first()
            .map_or_else(String::new, |best| mend(best.kind, &best.reason).to_owned()),
    }
}

fn mend(kind: HookKind, reason: &str) -> &'static str {
    let fits = |(of, words, _): &&(Option<HookKind>, &[&str], _)| {
        of.is_none_or(|of| of == kind) && words.iter().any(|word| reason.contains(word))
    };
    MENDS.iter().find(fits).map_or("", |(_, _, mend)| mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        doctor::host::testing::Fixture,
        files::fanotify::FanotifyError,
        kernel::{Candidate, Refusal, Sensor as Question, SensorPlan},
    };
    use nightjar_abi::hook::Hook;

    static CANDIDATES: [Candidate; 2] = [
        Candidate { kind: HookKind::SyscallTracepoint, programs: &[], worth: "much" },
        Candidate { kind: HookKind::Passing, programs: &[], worth: "less" },
    ];
    static PLAN: SensorPlan = SensorPlan {
        sensor: Question::Credentials,
        hook: Hook::Credentials,
        required: false,
        candidates: &CANDIDATES,
    };

    fn served(candidate: Option<usize>, reasons: &[&str]) -> Sensor {
        let candidate = candidate.map(|index| &CANDIDATES[index]);
        let refused =
            reasons.iter().map(|reason| Refusal { kind: CANDIDATES[0].kind, reason: (*reason).to_owned() });
        sensor(&Serving { plan: &PLAN, candidate, refused: refused.collect() })
    }

    #[test]
    fn the_best_hook_is_well() {
        let sensor = served(Some(0), &[]);
        assert_eq!((sensor.name, sensor.result), ("process.credentials", Outcome::Ok));
        assert_eq!((sensor.hook.as_str(), sensor.worth.as_str()), ("system call tracepoint", "much"));
        assert_eq!(sensor.mend, "");
    }

    #[test]
    fn another_hook_is_less_and_the_mend_is_for_the_best() {
        let sensor = served(Some(1), &["no tracefs: Operation not permitted (os error 1)"]);
        assert_eq!(sensor.result, Outcome::Limited);
        assert_eq!(sensor.refused[0].hook, "system call tracepoint");
        assert!(sensor.mend.starts_with("`mount -t tracefs"), "{sensor:?}");
    }

    #[test]
    fn without_any_hook_there_are_no_such_events() {
        let sensor = served(None, &["at sys_exit_execve: Permission denied (os error 13)"]);
        assert_eq!((sensor.result, sensor.hook.as_str()), (Outcome::Limited, ""));
        assert!(sensor.mend.contains("perf_event_paranoid"), "{sensor:?}");
    }

    #[test]
    fn fanotify_serves_what_has_no_hook_of_its_own() {
        let served = sensors(&Fixture::new().host, &[]);
        assert_eq!((served[0].name, served[0].hook.as_str()), ("file.modify", "fanotify"));
        assert_eq!(served[0].result, Outcome::Ok);

        let refused = Fixture::new().facts(|facts| facts.fanotify = Err(FanotifyError::NotPermitted));
        let refused = sensors(&refused.host, &[]);
        assert_eq!((refused[0].result, refused[0].hook.as_str()), (Outcome::Limited, ""));
        assert!(refused[0].refused[0].reason.contains("CAP_SYS_ADMIN is missing"), "{refused:?}");
        assert!(refused[0].mend.contains("give it CAP_SYS_ADMIN"), "{refused:?}");
    }

    #[test]
    fn every_kind_is_of_a_sensor() {
        let of_hooks = Question::ALL.iter().flat_map(|sensor| sensor.kinds());
        let kinds: Vec<_> = of_hooks.chain(files::NOTICED).collect();
        for kind in nightjar_proto::KINDS.iter().filter(|kind| !kind.name.starts_with("telemetry.")) {
            assert!(kinds.contains(&&kind.name), "{}", kind.name);
        }
    }

    #[test]
    fn every_refusal_has_a_mend() {
        for kind in HookKind::PROBED {
            for reason in ["", "Invalid argument", "its verifier says: invalid mem access", "\u{1b}[2J"] {
                assert!(!mend(kind, reason).is_empty());
            }
        }
        assert!(mend(HookKind::TaskIterator, "its verifier says: no").contains("-vv"));
    }
}
