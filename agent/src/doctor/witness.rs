//! The proof by real events: a process does one thing of each kind, and each has to come.

use std::time::{Duration, SystemTime};

use nightjar_proto::{
    KINDS,
    v1::{Event, Process, event::Body},
};
use serde::Serialize;

use super::{
    Outcome, Sensor,
    deeds::{DEEDS, Undone},
};

/// Two readings of two clocks. No process ID is used again so soon.
const TOLERANCE: Duration = Duration::from_millis(50);
/// These are no deeds of a process.
const OF_THE_AGENT: &str = "telemetry.";

/// Whether events of a kind come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// As `process.exec`.
    pub kind: &'static str,
    /// Whether the one came that had to.
    pub seen: bool,
    /// From the kernel's time stamp to here.
    pub milliseconds: Option<f64>,
    /// Whether a hook serves it: else it was not waited for.
    #[serde(skip)]
    pub served: bool,
    /// Why the process could not do what it is of: then it was not waited for either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone: Option<String>,
}

/// Hears events, and says which of those of one process were among them.
#[derive(Debug)]
pub struct Witness {
    name: String,
    pid: u32,
    not_before: SystemTime,
    /// Kinds that nothing serves.
    unserved: Vec<&'static str>,
    undone: Vec<Undone>,
    heard: Vec<(Event, SystemTime)>,
    lost: Vec<String>,
}

// === impl Witness ===

impl Witness {
    /// Of the process with this name, which was started as `pid` and not before that time, where kinds are served
    /// like this.
    #[must_use]
    pub fn new(name: &str, pid: u32, not_before: SystemTime, sensors: &[Sensor]) -> Self {
        let kinds = |is_served: bool| {
            let sensors = sensors.iter().filter(move |sensor| sensor.hook.is_empty() != is_served);
            sensors.flat_map(|sensor| sensor.kinds)
        };
        // Some kinds are of several sensors.
        let unserved =
            kinds(false).filter(|kind| !kinds(true).any(|served| served == *kind)).copied().collect();
        Self {
            name: name.to_owned(),
            pid,
            not_before,
            unserved,
            undone: Vec::new(),
            heard: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// The process could not do these.
    pub fn excuse(&mut self, undone: impl IntoIterator<Item = Undone>) {
        self.undone.extend(undone);
    }

    /// An event came just now.
    pub fn hear(&mut self, event: Event) {
        self.hear_at(event, SystemTime::now());
    }

    /// An event came too late to prove anything; it may still tell of losses.
    pub fn hear_loss(&mut self, event: &Event) {
        if let Some(Body::Telemetry(telemetry)) = &event.body {
            let losses = telemetry.losses.iter();
            self.lost.extend(losses.map(|loss| format!("{} {} ({})", loss.count, loss.hook, loss.reason)));
        }
    }

    /// So many events came faster than they were read.
    pub fn miss(&mut self, events: u64) {
        if events > 0 {
            self.lost.push(format!("{events} events that came faster than the doctor reads"));
        }
    }

    fn hear_at(&mut self, event: Event, at: SystemTime) {
        self.hear_loss(&event);
        if event.process.as_ref().is_some_and(|process| self.may_be(process)) {
            self.heard.push((event, at));
        }
    }

    /// What came of each kind.
    #[must_use]
    pub fn proofs(&self) -> Vec<Proof> {
        let exec = self.told("process.exec", None).and_then(|(event, _)| event.process.as_ref());
        let id = exec.map(|process| process.id.as_str());
        let kinds = KINDS.iter().filter(|kind| !kind.name.starts_with(OF_THE_AGENT));
        kinds
            .map(|kind| {
                let told = self.told(kind.name, id);
                let milliseconds = told.and_then(|(event, at)| {
                    let happened = SystemTime::try_from(event.time?).ok()?;
                    // The clock may be set in between.
                    let took = at.duration_since(happened).unwrap_or_default();
                    Some((took.as_secs_f64() * 1e6).round() / 1e3)
                });
                let served = !self.unserved.contains(&kind.name);
                let undone = self.undone.iter().find(|undone| undone.kind == kind.name && told.is_none());
                let undone = undone.map(|undone| undone.reason.clone());
                Proof { kind: kind.name, seen: told.is_some(), milliseconds, served, undone }
            })
            .collect()
    }

    /// Whether all kinds came that can.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        self.proofs().iter().all(|proof| proof.result() != Outcome::Failed)
    }

    /// What was lost meanwhile, of any process.
    #[must_use]
    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    fn told(&self, kind: &str, id: Option<&str>) -> Option<&(Event, SystemTime)> {
        let deed = DEEDS.iter().find(|deed| deed.kind == kind)?;
        self.heard.iter().find(|(event, _)| {
            let is_of = |id: &str| event.process.as_ref().is_some_and(|process| process.id == id);
            event.kind == kind && deed.is_told(event, &self.name) && id.is_none_or(is_of)
        })
    }

    /// Where the doctor is in a PID namespace, it knows its child by the number that it has in there.
    fn may_be(&self, process: &Process) -> bool {
        let has_pid = process.pid == self.pid || process.ns_pid == self.pid;
        let start = process.start_time.and_then(|time| SystemTime::try_from(time).ok());
        has_pid && start.is_some_and(|start| start + TOLERANCE >= self.not_before)
    }
}

// === impl Proof ===

impl Proof {
    /// How good it is.
    #[must_use]
    pub fn result(&self) -> Outcome {
        match (self.seen, self.served, &self.undone) {
            (true, ..) => Outcome::Ok,
            // As the agent does, which starts without it.
            (false, false, _) => Outcome::Limited,
            (false, true, Some(_)) => Outcome::Unknown,
            (false, true, None) => Outcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::{Loss, Telemetry};

    use super::*;
    use crate::doctor::deeds::testing::bodies;

    const NAME: &str = "0123456789abcdef";

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(496_450)
    }

    fn event(kind: &str, body: Body) -> Event {
        let process = Process {
            id: "00000000000000aa".to_owned(),
            pid: 42,
            start_time: Some(start().into()),
            args: vec!["nightjar".to_owned(), NAME.to_owned()],
            ..Process::default()
        };
        Event {
            kind: kind.to_owned(),
            time: Some((start() + Duration::from_millis(10)).into()),
            process: Some(process),
            body: Some(body),
            ..Event::default()
        }
    }

    fn all() -> Vec<Event> {
        bodies(NAME).into_iter().map(|(kind, body)| event(kind, body)).collect()
    }

    fn witness_of(events: Vec<Event>) -> Witness {
        let mut witness = Witness::new(NAME, 42, start(), &[]);
        for event in events {
            witness.hear_at(event, start() + Duration::from_micros(12_500));
        }
        witness
    }

    fn unseen(witness: &Witness) -> Vec<&'static str> {
        witness.proofs().iter().filter(|proof| !proof.seen).map(|proof| proof.kind).collect()
    }

    #[test]
    fn all_that_came_is_proven_with_the_time_that_it_took() {
        let witness = witness_of(all());
        assert!(witness.is_satisfied(), "{:?}", unseen(&witness));
        assert!(witness.proofs().iter().all(|proof| proof.milliseconds == Some(2.5)));
        assert!(witness.lost().is_empty());
    }

    fn sensor(name: &'static str, kinds: &'static [&'static str], hook: &str) -> Sensor {
        Sensor {
            name,
            kinds,
            result: Outcome::Ok,
            hook: hook.to_owned(),
            worth: String::new(),
            refused: Vec::new(),
            mend: String::new(),
        }
    }

    /// All that is not of these kinds.
    fn others(kinds: &[&str]) -> Vec<Event> {
        all().into_iter().filter(|event| !kinds.contains(&event.kind.as_str())).collect()
    }

    #[test]
    fn what_nothing_serves_is_not_waited_for() {
        let failed = sensor("process.exec_failed", &["process.exec_failed"], "");
        let mut witness = Witness::new(NAME, 42, start(), &[failed]);
        for event in others(&["process.exec_failed"]) {
            assert!(!witness.is_satisfied());
            witness.hear_at(event, start());
        }
        assert!(witness.is_satisfied());
        let worst = witness.proofs().iter().map(Proof::result).max();
        assert_eq!(worst, Some(Outcome::Limited));
    }

    #[test]
    fn a_kind_is_served_by_any_of_the_sensors_that_give_it() {
        let sensors = [
            sensor("file.*", &["file.create", "file.copy", "file.mount"], ""),
            sensor("file.modify", &["file.create", "file.modify"], "fanotify"),
        ];
        let witness = Witness::new(NAME, 42, start(), &sensors);
        let unserved: Vec<_> =
            witness.proofs().iter().filter(|proof| !proof.served).map(|proof| proof.kind).collect();
        assert_eq!(unserved, ["file.copy", "file.mount"]);
    }

    #[test]
    fn what_could_not_be_done_is_not_waited_for_and_says_why() {
        let mut witness = witness_of(others(&["file.mount"]));
        assert!(!witness.is_satisfied());
        let undone = |kind| Undone { kind, reason: "not permitted".to_owned() };
        witness.excuse([undone("file.mount"), undone("file.open")]);
        assert!(witness.is_satisfied());
        let proofs = witness.proofs();
        let proof = |kind| proofs.iter().find(|proof| proof.kind == kind).unwrap();
        assert_eq!(proof("file.mount").result(), Outcome::Unknown);
        assert_eq!(proof("file.mount").undone.as_deref(), Some("not permitted"));
        assert_eq!(
            (proof("file.open").result(), &proof("file.open").undone),
            (Outcome::Ok, &None),
            "it came"
        );
    }

    #[test]
    fn what_did_not_come_is_named() {
        for missing in 0..all().len() {
            let mut events = all();
            let kind = events.remove(missing).kind;
            assert_eq!(unseen(&witness_of(events)), [kind]);
        }
    }

    /// All events, changed.
    fn witness_with(change: impl Fn(&mut Process)) -> Witness {
        let mut events = all();
        for event in &mut events {
            change(event.process.as_mut().unwrap());
        }
        witness_of(events)
    }

    #[test]
    fn another_process_proves_nothing() {
        assert_eq!(unseen(&witness_with(|process| process.pid = 43)).len(), all().len());
        let earlier = |process: &mut Process| {
            process.start_time = Some((start() - Duration::from_secs(1)).into());
        };
        assert_eq!(unseen(&witness_with(earlier)).len(), all().len(), "one that had the number before");
        assert!(witness_with(|process| (process.pid, process.ns_pid) = (4242, 42)).is_satisfied());
    }

    #[test]
    fn events_of_another_process_than_the_one_with_the_name_do_not_count() {
        let mut events = all();
        events.last_mut().unwrap().process.as_mut().unwrap().id = "00000000000000bb".to_owned();
        assert_eq!(unseen(&witness_of(events)), ["process.exit"]);
        let nameless = witness_with(|process| process.args = vec!["nightjar".to_owned()]);
        assert_eq!(unseen(&nameless), ["process.exec"]);
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_negative_time() {
        let mut witness = Witness::new(NAME, 42, start(), &[]);
        for event in all() {
            witness.hear_at(event, start());
        }
        assert!(witness.proofs().iter().all(|proof| proof.milliseconds == Some(0.0)));
    }

    #[test]
    fn losses_are_noticed_whoever_they_are_of() {
        let loss =
            Loss { hook: "exec".to_owned(), reason: "ring_full".to_owned(), count: 17, ..Loss::default() };
        let telemetry = Telemetry { losses: vec![loss], ..Telemetry::default() };
        let body = Some(Body::Telemetry(telemetry));
        let witness = witness_of(vec![Event { kind: "telemetry.loss".to_owned(), body, ..Event::default() }]);
        assert_eq!(witness.lost(), ["17 exec (ring_full)"]);
    }
}
