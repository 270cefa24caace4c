//! What a host allows, and the proof of it.
//!
//! [`examine`] goes through a table of checks, each of which looks at one thing of a [`Host`] and says what it
//! found, what is lost by it and the mend. [`act`] does one thing of each kind; [`Witness`] is told the events of the
//! process that did, and says which kinds came. A [`Diagnosis`] is all of it, [`render`] makes a page of that.

mod checks;
mod deeds;
mod host;
mod sensors;
mod view;
mod witness;

pub use checks::{examine, hindrance};
pub use deeds::{Undone, act, folder, without_folder};
pub use host::{Facts, Host};
pub use sensors::{Refused, Sensor, sensors};
use serde::Serialize;
pub use view::render;
pub use witness::{Proof, Witness};

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Not to be had from here. It counts for nothing.
    Unknown,
    /// Worse than it could be: the agent runs, and something is lost or costs more.
    Limited,
    /// The agent does not run, or does not do what it is there for.
    Failed,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub result: Outcome,
    /// What there is.
    pub found: String,
    /// What is lost by it; empty where nothing is.
    pub lost: String,
    /// What to do about it, commands in backticks; empty where there is nothing to do.
    pub mend: String,
}

/// A finding and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the check. It does not change between versions of the agent.
    pub name: &'static str,
    /// What it found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// All that was found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The worst of all.
    pub verdict: Outcome,
    /// What the host is like.
    pub checks: Vec<Check>,
    /// Which hook serves which sensor; empty where none could be loaded.
    pub sensors: Vec<Sensor>,
    /// Which kinds of events came; empty where that was not tried.
    pub events: Vec<Proof>,
}

// === impl Finding ===

impl Finding {
    /// All is well.
    pub fn ok(found: impl Into<String>) -> Self {
        Self { result: Outcome::Ok, found: found.into(), lost: String::new(), mend: String::new() }
    }

    /// It could not be found out.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self { result: Outcome::Unknown, ..Self::ok(why) }
    }

    /// It could be better.
    pub fn limited(found: impl Into<String>, lost: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { result: Outcome::Limited, found: found.into(), lost: lost.into(), mend: mend.into() }
    }

    /// The agent cannot do its work like this.
    pub fn failed(found: impl Into<String>, lost: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { result: Outcome::Failed, ..Self::limited(found, lost, mend) }
    }

    /// Of the check with this name.
    #[must_use]
    pub fn of(self, name: &'static str) -> Check {
        Check { name, finding: self }
    }
}

// === impl Diagnosis ===

impl Diagnosis {
    /// Puts together what was found out.
    #[must_use]
    pub fn new(checks: Vec<Check>, sensors: Vec<Sensor>, events: Vec<Proof>) -> Self {
        let results = checks.iter().map(|check| check.finding.result);
        let results = results.chain(sensors.iter().map(|sensor| sensor.result));
        let results = results.chain(events.iter().map(Proof::result));
        let verdict = results.filter(|result| *result != Outcome::Unknown).max().unwrap_or(Outcome::Ok);
        Self { verdict, checks, sensors, events }
    }

    /// How many of all are like this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        let results = self.checks.iter().map(|check| check.finding.result);
        let results = results.chain(self.sensors.iter().map(|sensor| sensor.result));
        results.chain(self.events.iter().map(Proof::result)).filter(|result| *result == outcome).count()
    }
}

// === impl Outcome ===

impl Outcome {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(result: Outcome) -> Check {
        Finding { result, ..Finding::ok("") }.of("kernel")
    }

    fn proof(kind: &'static str, seen: bool) -> Proof {
        Proof { kind, seen, milliseconds: None, served: true, undone: None }
    }

    #[test]
    fn the_verdict_is_the_worst_of_all_and_what_is_not_known_counts_for_nothing() {
        let verdict = |results: &[Outcome]| {
            Diagnosis::new(results.iter().map(|result| check(*result)).collect(), Vec::new(), Vec::new())
                .verdict
        };
        assert_eq!(verdict(&[Outcome::Ok, Outcome::Unknown]), Outcome::Ok);
        assert_eq!(verdict(&[Outcome::Unknown]), Outcome::Ok);
        assert_eq!(verdict(&[Outcome::Limited, Outcome::Ok]), Outcome::Limited);
        assert_eq!(verdict(&[Outcome::Failed, Outcome::Limited]), Outcome::Failed);
    }

    #[test]
    fn an_event_that_did_not_come_is_a_failure() {
        let proofs = vec![proof("process.exec", false)];
        let diagnosis = Diagnosis::new(vec![check(Outcome::Ok)], Vec::new(), proofs);
        assert_eq!(diagnosis.verdict, Outcome::Failed);
        assert_eq!((diagnosis.count(Outcome::Failed), diagnosis.count(Outcome::Ok)), (1, 1));
    }

    #[test]
    fn the_json_has_keys_that_scripts_rely_on() {
        let refused = vec![Refused { hook: "task iterator".to_owned(), reason: "EPERM".to_owned() }];
        let sensor = Sensor {
            name: "snapshot",
            kinds: &[],
            result: Outcome::Limited,
            hook: "/proc".to_owned(),
            worth: "less".to_owned(),
            refused,
            mend: "do".to_owned(),
        };
        let proofs = vec![
            Proof { milliseconds: Some(1.25), ..proof("process.exec", true) },
            proof("process.exit", false),
            Proof { undone: Some("EPERM".to_owned()), ..proof("file.mount", false) },
        ];
        let checks =
            vec![Finding::limited("found", "lost", "mend").of("tracefs"), Finding::ok("well").of("btf")];
        assert_eq!(
            serde_json::to_value(Diagnosis::new(checks, vec![sensor], proofs)).unwrap(),
            json!({
                "verdict": "failed",
                "checks": [
                    {"name": "tracefs", "result": "limited", "found": "found", "lost": "lost", "mend": "mend"},
                    {"name": "btf", "result": "ok", "found": "well", "lost": "", "mend": ""},
                ],
                "sensors": [{
                    "name": "snapshot", "result": "limited", "hook": "/proc", "worth": "less", "mend": "do",
                    "refused": [{"hook": "task iterator", "reason": "EPERM"}],
                }],
                "events": [
                    {"kind": "process.exec", "seen": true, "milliseconds": 1.25},
                    {"kind": "process.exit", "seen": false, "milliseconds": null},
                    {"kind": "file.mount", "seen": false, "milliseconds": null, "undone": "EPERM"},
                ],
            })
        );
    }
}
