//! From records to events: decode, keep the process table, add names, count.
//!
//! What comes in is accounted for:
//!
//! ```text
//! received = exported + discarded(not asked for, told before) + refused(undecodable)
//! ```

mod clock;
mod event;
mod names;

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

pub use clock::{Clock, EventIds, since_boot};
pub use names::CapabilityNames;
use nightjar_abi::{
    hook::{DropReason, Hook},
    record::TaskInfo,
};
use nightjar_proto::v1::{self, event::Body};
use wildmatch::WildMatch;

use self::event::Context;
use crate::{
    decode::{DecodeError, Record, decode, split},
    enrich::{cgroups::Cgroups, users::Users},
    kernel::Sample,
    process::{Bounds, Identity, Image, Lineage, Process, Stats as TableStats, Table},
};

/// Version of the event schema.
const SCHEMA: u32 = 1;
/// The wall clock may be set: how often that is looked at.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Which kinds of events are asked for: globs over `process.exec` and so on.
#[derive(Debug, Clone)]
pub struct Kinds(Option<Vec<WildMatch>>);

/// What became of the records that were received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records read from the rings.
    pub received: u64,
    /// Events made of them and handed on, by kind.
    pub exported: BTreeMap<&'static str, u64>,
    /// Records that are no event: of a kind that was not asked for, or told before.
    pub discarded: u64,
    /// Records that could not be decoded.
    pub refused: u64,
}

/// The state that turns records into events.
pub struct Pipeline {
    table: Table,
    identity: Identity,
    users: Users,
    cgroups: Cgroups,
    capabilities: CapabilityNames,
    page_size: u64,
    clock: Clock,
    clock_read: Instant,
    ids: EventIds,
    host: String,
    kinds: Kinds,
    stats: Stats,
    /// Refused records that a loss event has told of.
    refused_told: u64,
}

impl Pipeline {
    /// For the running host and boot.
    ///
    /// # Errors
    /// When the host does not tell its boot ID or give random numbers.
    pub fn new(kinds: Kinds, bounds: Bounds) -> io::Result<Self> {
        let identity = Identity::of_this_boot()?;
        let mut instance = [0; 4];
        rustix::rand::getrandom(&mut instance, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self {
            table: Table::new(identity, bounds),
            identity,
            users: Users::host(),
            cgroups: Cgroups::default(),
            capabilities: CapabilityNames::of_this_kernel(),
            page_size: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            clock: Clock::read(),
            clock_read: Instant::now(),
            ids: EventIds::new(u32::from_ne_bytes(instance)),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            kinds,
            stats: Stats::default(),
            refused_told: 0,
        })
    }

    /// Takes one record; hands the event that it makes, if any, to `emit`.
    pub fn record(&mut self, bytes: &[u8], emit: impl FnOnce(v1::Event)) {
        self.stats.received += 1;
        match decode(bytes) {
            Ok(record) => match self.event(&record) {
                Some((kind, event)) => {
                    *self.stats.exported.entry(kind).or_default() += 1;
                    emit(event);
                }
                None => self.stats.discarded += 1,
            },
            Err(error) => self.refuse(&error),
        }
    }

    /// Takes what the task iterator gave of the processes that ran before.
    pub fn snapshot(&mut self, records: &[u8]) {
        for record in split(records) {
            match record.and_then(decode) {
                Ok(Record::Snapshot(record)) => {
                    let info = &record.body.info;
                    self.cgroups.learn(info, &record.cgroup_path);
                    let image = Image {
                        exe: (!record.exe.bytes.is_empty())
                            .then(|| event::file(&record.body.file, &record.exe)),
                        cwd: nightjar_proto::text::from_bytes(record.cwd.bytes),
                        cwd_truncated: record.cwd.truncated,
                        ..crate::process::arguments_from_proc(&info.task)
                    };
                    self.table.snapshot(info, image);
                }
                Ok(_) => {}
                Err(error) => self.refuse(&error),
            }
        }
        self.table.complete_snapshot();
    }

    /// Takes what `/proc` tells of the processes that ran before.
    pub fn procfs(&mut self) {
        crate::process::read_proc(&mut self.table);
    }

    /// A `telemetry.loss` event of what the kernel programs and this pipeline lost between two samples, if
    /// anything.
    pub fn loss(&mut self, before: &Sample, after: &Sample, since: u64, until: u64) -> Option<v1::Event> {
        let mut losses: Vec<_> = after
            .dropped_since(before)
            .into_iter()
            .map(|(hook, reason, count)| v1::Loss {
                hook: hook.name().to_owned(),
                reason: reason.name().to_owned(),
                count,
                kinds: vec![kind_of(hook).to_owned()],
            })
            .collect();
        let refused = self.stats.refused - self.refused_told;
        if refused > 0 {
            self.refused_told = self.stats.refused;
            losses.push(v1::Loss {
                hook: "agent".to_owned(),
                reason: "undecodable".to_owned(),
                count: refused,
                kinds: vec!["process.*".to_owned()],
            });
        }
        if losses.is_empty() {
            return None;
        }
        let telemetry = v1::Telemetry {
            losses,
            since: Some(self.clock.wall(since)),
            until: Some(self.clock.wall(until)),
        };
        Some(self.finish("telemetry.loss", until, None, None, Body::Telemetry(telemetry)))
    }

    /// What became of what was received.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the process table holds.
    #[must_use]
    pub fn table_stats(&self) -> TableStats {
        self.table.stats()
    }

    fn refuse(&mut self, error: &DecodeError) {
        self.stats.refused += 1;
        // The first tells the story; a flood of them in the log would be another problem.
        if self.stats.refused == 1 {
            tracing::error!("a record could not be decoded and is lost: {error}");
        }
    }

    /// Brings the table up to date; makes the event if its kind is asked for.
    fn event(&mut self, record: &Record<'_>) -> Option<(&'static str, v1::Event)> {
        if self.clock_read.elapsed() > CLOCK_INTERVAL {
            self.clock = Clock::read();
            self.clock_read = Instant::now();
        }
        match record {
            Record::Exec(record) => {
                let (info, now) = (&record.body.info, record.body.header.time);
                self.cgroups.learn(info, &record.cgroup_path);
                let known = self.table.exec(info, event::image(record), now).clone();
                self.make("process.exec", now, info, &known, |_| Body::Exec(Context::exec(record)))
            }
            Record::ExecFailed(record, filename) => {
                let (info, now) = (&record.info, record.header.time);
                let known = self.table.act(info, now).clone();
                self.make("process.exec_failed", now, info, &known, |_| {
                    Body::ExecFailed(Context::exec_failed(record, filename))
                })
            }
            Record::Fork(record) => {
                let (info, now) = (&record.info, record.header.time);
                let known = self.table.fork(info, now).clone();
                let by_another = record.creator.pid != info.parent.pid;
                let creator = by_another.then(|| self.table.lineage(&record.creator));
                self.make("process.fork", now, info, &known, |context| {
                    Body::Fork(context.fork(record, creator.as_ref()))
                })
            }
            Record::Exit(record) => {
                let (info, now) = (&record.info, record.header.time);
                let known = self.table.exit(info, now)?.clone();
                self.make("process.exit", now, info, &known, |context| Body::Exit(context.exit(record)))
            }
            Record::Credentials(record) => {
                let (info, now) = (&record.info, record.header.time);
                let known = self.table.act(info, now).clone();
                self.make("process.credentials", now, info, &known, |context| {
                    Body::Credentials(context.credentials(record))
                })
            }
            // Only the iterator makes these, and it is read elsewhere.
            Record::Snapshot(_) => None,
        }
    }

    fn make(
        &mut self,
        kind: &'static str,
        time: u64,
        info: &TaskInfo,
        known: &Process,
        body: impl FnOnce(&mut Context<'_>) -> Body,
    ) -> Option<(&'static str, v1::Event)> {
        if !self.kinds.include(kind) {
            return None;
        }
        let clock = self.clock;
        let mut context = Context {
            identity: self.identity,
            users: &mut self.users,
            cgroups: &mut self.cgroups,
            capabilities: self.capabilities,
            page_size: self.page_size,
            wall: &|since_boot| clock.wall(since_boot),
        };
        let process = context.process(info, known);
        let parent = known.parent.as_ref().filter(|parent| parent.task.pid != 0);
        let parent = parent.map(|parent: &Lineage| context.parent(parent));
        let body = body(&mut context);
        Some((kind, self.finish(kind, time, Some(process), parent, body)))
    }

    fn finish(
        &mut self,
        kind: &str,
        time: u64,
        process: Option<v1::Process>,
        parent: Option<v1::Parent>,
        body: Body,
    ) -> v1::Event {
        let mut event = v1::Event {
            schema: SCHEMA,
            id: String::new(),
            time: Some(self.clock.wall(time)),
            kind: kind.to_owned(),
            host: self.host.clone(),
            process,
            parent,
            body: Some(body),
        };
        self.ids.name(&mut event);
        event
    }
}

/// Kind of event that a hook makes.
fn kind_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Exec => "process.exec",
        Hook::Fork => "process.fork",
        Hook::Exit => "process.exit",
        Hook::ExecFailed => "process.exec_failed",
        Hook::Credentials => "process.credentials",
    }
}

/// A line for people about drops: `exec 12 (ring_full)`.
#[must_use]
pub fn drops_text(drops: &[(Hook, DropReason, u64)]) -> String {
    let parts: Vec<_> = drops
        .iter()
        .map(|(hook, reason, count)| format!("{} {count} ({})", hook.name(), reason.name()))
        .collect();
    parts.join(", ")
}

// === impl Kinds ===

impl Kinds {
    /// Every kind but those that are only exported when asked for (`process.fork`).
    #[must_use]
    pub fn usual() -> Self {
        Self(None)
    }

    /// Kinds that fit one of the globs; the usual ones where there are none.
    #[must_use]
    pub fn of(globs: &[String]) -> Self {
        Self((!globs.is_empty()).then(|| globs.iter().map(|glob| WildMatch::new(glob)).collect()))
    }

    /// Whether events of this kind are asked for. What was lost is always told.
    #[must_use]
    pub fn include(&self, kind: &str) -> bool {
        match &self.0 {
            None => kind != "process.fork",
            Some(globs) => globs.iter().any(|glob| glob.matches(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_exported_when_asked_for() {
        assert!(!Kinds::usual().include("process.fork"));
        assert!(Kinds::usual().include("process.exec"));
        assert!(Kinds::of(&["process.*".to_owned()]).include("process.fork"));
        assert!(!Kinds::of(&["process.exec".to_owned()]).include("process.exec_failed"));
    }
}
