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
    sync::Arc,
    time::{Duration, Instant},
};

pub use clock::since_boot;
use nightjar_abi::{
    hook::{DropReason, Hook},
    record::TaskInfo,
};
use nightjar_proto::v1::{self, event::Body};
use wildmatch::WildMatch;

use self::{
    clock::{Clock, EventIds},
    event::Context,
    names::CapabilityNames,
};
use crate::{
    decode::{DecodeError, Record, decode, split},
    enrich::{cgroups::Cgroups, users::Users},
    kernel::{Sample, Sensor},
    process::{Bounds, Identity, Image, Process, Stats as TableStats, Table, arguments_from_proc, read_proc},
};

/// Version of the event schema.
const SCHEMA: u32 = 1;
/// The wall clock may be set: how often that is looked at.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Which kinds of events are asked for: globs over `process.exec` and so on.
#[derive(Debug, Clone)]
pub struct Kinds(Option<Vec<WildMatch>>);

/// A glob that fits no kind of event.
#[derive(Debug, thiserror::Error)]
#[error("no kind of event is called {0:?}; there are {list}", list = Sensor::ALL.map(Sensor::name).join(", "))]
pub struct UnknownKind(String);

/// What became of the records that were received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records read from the rings.
    pub received: u64,
    /// Events made of them and handed on, by kind.
    pub exported: BTreeMap<&'static str, u64>,
    /// Records that are no event, or none that was wanted: of a kind that was not asked for, told before, or
    /// after the last one that was.
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
    /// Refused records and evicted processes that a loss event has told of.
    told: (u64, u64),
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
            told: (0, 0),
        })
    }

    /// Takes one record; hands the event that it makes, if any, to `emit`, which says whether it took it.
    pub fn record(&mut self, bytes: &[u8], emit: impl FnOnce(&v1::Event) -> bool) {
        self.stats.received += 1;
        match decode(bytes) {
            Ok(record) => match self.event(&record) {
                Some((kind, event)) if emit(&event) => *self.stats.exported.entry(kind).or_default() += 1,
                Some(_) | None => self.stats.discarded += 1,
            },
            Err(error) => self.refuse(&error),
        }
    }

    /// Takes what the task iterator gave of the processes that ran before.
    pub fn snapshot(&mut self, records: &[u8]) {
        let mut found = Vec::new();
        for record in split(records) {
            match record.and_then(decode) {
                Ok(Record::Snapshot(record)) => found.push(record),
                Ok(_) => {}
                Err(error) => tracing::error!("a process that ran before could not be decoded: {error}"),
            }
        }
        let tasks = found.iter().filter(|record| !record.exe.bytes.is_empty());
        let mut arguments = arguments_from_proc(tasks.map(|record| record.body.info.task).collect());
        for record in found {
            let info = &record.body.info;
            self.cgroups.learn(info.cgroup_id, info.flags, &record.cgroup_path);
            let (args, args_truncated) = arguments.remove(&info.task.pid).unwrap_or_default();
            let image = Image {
                exe: (!record.exe.bytes.is_empty()).then(|| event::file(&record.body.file, &record.exe)),
                args_from_proc: !args.is_empty(),
                args_redacted: false,
                args,
                args_truncated,
                cwd: nightjar_proto::text::from_bytes(record.cwd.bytes),
                cwd_truncated: record.cwd.truncated,
                cwd_unreachable: record.cwd.unreachable,
            };
            self.table.snapshot(info, image.kept());
        }
        self.table.complete_snapshot();
    }

    /// Takes what `/proc` tells of the processes that ran before.
    pub fn procfs(&mut self) {
        read_proc(&mut self.table);
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
        let (refused, evicted) = (self.stats.refused, self.table.stats().evicted);
        let own = [("undecodable", refused - self.told.0), ("table_full", evicted - self.told.1)];
        self.told = (refused, evicted);
        losses.extend(own.into_iter().filter(|(_, count)| *count > 0).map(|(reason, count)| v1::Loss {
            hook: "agent".to_owned(),
            reason: reason.to_owned(),
            count,
            kinds: vec!["process.*".to_owned()],
        }));
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
            self.clock.follow();
            self.clock_read = Instant::now();
        }
        match record {
            Record::Exec(record) => {
                let (info, now) = (&record.body.info, record.body.header.time);
                self.cgroups.learn(info.cgroup_id, info.flags, &record.cgroup_path);
                let image = event::image(record);
                let mut known = self.table.exec(info, image.clone().kept(), now).clone();
                known.image = Arc::new(image);
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
                let known = self.table.fork(info, &record.creator, now).clone();
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
            Record::NewCgroup(record, path) => {
                self.cgroups.learn(record.id, record.flags, path);
                None
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
        let parent = parent.map(|parent| context.parent(parent));
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
        // No event of their own: others lack a container or a parent.
        Hook::NewCgroup | Hook::Snapshot => "process.*",
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
    ///
    /// # Errors
    /// When a glob fits no kind that there is.
    pub fn of(globs: &[String]) -> Result<Self, UnknownKind> {
        for glob in globs {
            let matcher = WildMatch::new(glob);
            if !Sensor::ALL.iter().any(|sensor| matcher.matches(sensor.name())) {
                return Err(UnknownKind(glob.clone()));
            }
        }
        Ok(Self((!globs.is_empty()).then(|| globs.iter().map(|glob| WildMatch::new(glob)).collect())))
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
        assert!(Kinds::of(&["process.*".to_owned()]).unwrap().include("process.fork"));
        assert!(!Kinds::of(&["process.exec".to_owned()]).unwrap().include("process.exec_failed"));
    }

    #[test]
    fn a_glob_that_fits_nothing_is_refused_with_what_there_is() {
        for wrong in ["process.exce", "", "exec"] {
            let error = Kinds::of(&[wrong.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("there are process.exec, process.fork"), "{error}");
        }
    }
}
