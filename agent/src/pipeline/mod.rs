//! From records to events: decode, keep the process table, add names, count.
//!
//! What comes in is accounted for:
//!
//! ```text
//! received = exported + discarded(not_asked, rule, own, no_event, after_last, not_watched, folded, gathered)
//!          + refused(undecodable)
//! ```

mod clock;
mod event;
pub mod filter;
mod names;
pub mod redact;
mod sockets;

use std::{
    collections::{BTreeMap, HashSet},
    io, mem,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

pub use clock::since_boot;
pub use names::{CapabilityNames, errno as errno_name};
use nightjar_abi::{
    hook::{DropReason, Hook},
    record::{TaskInfo, TaskRef, task_flags},
    settings::CgroupKey,
};
use nightjar_proto::{
    KINDS, text,
    v1::{self, event::Body},
};
use prost_types::Timestamp;
use wildmatch::WildMatch;

use self::{
    clock::{Clock, EventIds},
    event::Context,
    filter::{Facts, Filter},
    redact::Redactor,
    sockets::Sockets,
};
use crate::{
    decode::{DecodeError, ExecRecord, Record, Text, decode, split},
    enrich::{
        cgroups::{CgroupFacts, Cgroups},
        users::Users,
    },
    files::{Act, Actor, Monitor},
    kernel::Sample,
    process::{
        Bounds, Identity, Image, Pids, Process, Stats as TableStats, Table, arguments_from_proc, read_proc,
    },
};

/// Version of the event schema.
const SCHEMA: u32 = 1;
/// The wall clock may be set: how often that is looked at.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Which kinds of events are asked for: globs over `process.exec` and so on, of which the last that fits
/// decides; `!` before one takes kinds away.
#[derive(Debug, Clone)]
pub struct Kinds(Vec<(bool, WildMatch)>);

/// A glob that fits no kind of event.
#[derive(Debug, thiserror::Error)]
#[error("no kind of event is called {0:?}; there are {list}", list = KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "))]
pub struct UnknownKind(String);

/// What is asked of a pipeline. It can be replaced while events come.
pub struct Asked {
    /// Kinds of events.
    pub kinds: Kinds,
    /// What is left out of these.
    pub filter: Filter,
    /// Names of environment variables.
    pub environment: Vec<String>,
    /// Masks secrets in arguments; none: they stay.
    pub redactor: Option<Redactor>,
}

/// Why a record makes no event that is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discard {
    /// Its kind was not asked for.
    NotAsked,
    /// A filter drops it.
    Rule,
    /// The agent itself made it while it started.
    Own,
    /// It is no event by design: a cgroup that was made, an exit that was told before.
    NoEvent,
    /// It came after the last that was wanted.
    AfterLast,
    /// No watch policy asks for it.
    NotWatched,
    /// Another event tells of it, with others like it.
    Folded,
    /// It is a part of what becomes an event, or several.
    Gathered,
}

/// What became of the records that were received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records read from the rings, and what was found out by other means: see `noticed`.
    pub received: u64,
    /// Of these, what did not come as one record: notifications without one, repeats that were counted, copies.
    pub noticed: u64,
    /// Events made of them and handed on, by kind.
    pub exported: BTreeMap<&'static str, u64>,
    /// Records that no event was exported of, by [`Discard`].
    pub discarded: BTreeMap<Discard, u64>,
    /// Records that could not be decoded.
    pub refused: u64,
}

/// Takes what a pipeline makes.
pub trait Sink {
    /// An event.
    ///
    /// # Errors
    /// Why it was not taken.
    fn event(&mut self, event: &v1::Event) -> Result<(), Discard>;

    /// A process (its [`Identity::process`]) was made by another, whether or not that is an event that is wanted.
    fn fork(&mut self, parent: u64, child: u64);

    /// A process ended; what it did was told before.
    fn exit(&mut self, process: u64);
}

/// The agent's own process.
struct Own {
    task: TaskRef,
    /// When it had started, nanoseconds since boot. What it does until then is its own business; from then on it
    /// does nothing that is an event, so that one is news.
    settled: Option<u64>,
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
    asked: Asked,
    own: Option<Own>,
    files: Option<Monitor>,
    sockets: Option<Sockets>,
    /// Losses of notifications that a loss event has told of.
    told_of_files: BTreeMap<(&'static str, &'static str), u64>,
    /// Likewise, of sockets.
    told_of_sockets: BTreeMap<(&'static str, &'static str), u64>,
    /// What the kernel programs are to leave out of cgroups, not told yet.
    verdicts: Vec<(CgroupKey, u64)>,
    stats: Stats,
    /// Refused records and evicted processes that a loss event has told of.
    told: (u64, u64),
}

impl Pipeline {
    /// For the running host and boot.
    ///
    /// # Errors
    /// When the host does not tell its boot ID or give random numbers.
    pub fn new(asked: Asked, bounds: Bounds) -> io::Result<Self> {
        let identity = Identity::of_this_boot()?;
        let mut instance = [0; 4];
        rustix::rand::getrandom(&mut instance, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self {
            table: Table::new(identity, bounds).with_pids(Pids::of_this_process()),
            identity,
            users: Users::host(),
            cgroups: Cgroups::default(),
            capabilities: CapabilityNames::of_this_kernel(),
            page_size: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            clock: Clock::read(),
            clock_read: Instant::now(),
            ids: EventIds::new(u32::from_ne_bytes(instance)),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            asked,
            own: None,
            files: None,
            sockets: None,
            told_of_files: BTreeMap::new(),
            told_of_sockets: BTreeMap::new(),
            verdicts: Vec::new(),
            stats: Stats::default(),
            told: (0, 0),
        })
    }

    /// Takes one record; hands the event that it makes, if any, to `sink`.
    pub fn record(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        self.stats.received += 1;
        let record = match decode(bytes) {
            Ok(record) => record,
            Err(error) => return self.refuse(&error),
        };
        match self.event(&record, sink) {
            Ok((kind, event)) => match sink.event(&event) {
                Ok(()) => *self.stats.exported.entry(kind).or_default() += 1,
                Err(reason) => self.discard(reason),
            },
            Err(reason) => self.discard(reason),
        }
        self.tell_of_sockets(sink);
        // Whoever follows the process has seen its end by now.
        if let Record::Exit(record) = &record {
            sink.exit(self.identity.process(&record.info.task));
        }
    }

    fn discard(&mut self, reason: Discard) {
        *self.stats.discarded.entry(reason).or_default() += 1;
    }

    /// Kinds of events that are exported.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        KINDS.iter().map(|kind| kind.name).filter(|kind| self.asked.kinds.include(kind)).collect()
    }

    /// Asks for something else from now on. What the kernel programs left out before has to be forgotten.
    pub fn ask(&mut self, asked: Asked) {
        self.asked = asked;
        for (key, facts) in self.cgroups.all() {
            self.verdicts.push((key, left_out(&self.asked.filter, facts)));
        }
    }

    /// What the kernel programs can leave out from now on, by cgroup; each is told once.
    pub fn take_verdicts(&mut self) -> Vec<(CgroupKey, u64)> {
        mem::take(&mut self.verdicts)
    }

    /// The agent has started: from now on what it does is told as of any other process.
    pub fn settle(&mut self) {
        if let Some(own) = &mut self.own {
            own.settled = Some(since_boot());
        }
    }

    /// These processes and all that descend from them, as far as the table knows; none where none of them is
    /// there.
    #[must_use]
    pub fn tree(&self, pids: &[u32]) -> HashSet<u64> {
        self.table.tree(pids)
    }

    /// Takes note of a cgroup.
    fn learn_cgroup(&mut self, id: u64, flags: u32, path: &Text<'_>) {
        let Some((key, facts)) = self.cgroups.learn(id, flags, path) else { return };
        // Nothing as well: it may have had another path before.
        if !self.asked.filter.is_empty() {
            self.verdicts.push((key, left_out(&self.asked.filter, &facts)));
        }
    }

    /// An image whose arguments have no secrets any more.
    fn masked(&self, mut image: Image) -> Image {
        let masked = self.asked.redactor.as_ref().and_then(|redactor| redactor.args(&image.args));
        if let Some(args) = masked {
            (image.args, image.args_redacted) = (args, true);
        }
        image
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
            self.learn_cgroup(info.cgroup_id, info.flags, &record.cgroup_path);
            if info.flags & task_flags::READER != 0 {
                self.own = Some(Own { task: info.task, settled: None });
            }
            let (args, args_truncated) = arguments.remove(&info.task.pid).unwrap_or_default();
            let image = Image {
                exe: (!record.exe.bytes.is_empty()).then(|| event::file(&record.body.file, &record.exe)),
                args_from_proc: !args.is_empty(),
                args_redacted: false,
                args,
                args_truncated,
                cwd: text::from_bytes(record.cwd.bytes),
                cwd_truncated: record.cwd.truncated,
                cwd_unreachable: record.cwd.unreachable,
            };
            let image = self.masked(image);
            self.table.snapshot(info, image.kept());
        }
        self.table.complete_snapshot();
    }

    /// Takes what `/proc` tells of the processes that ran before.
    pub fn procfs(&mut self) {
        let asked = &self.asked;
        read_proc(&mut self.table, |args| asked.redactor.as_ref().and_then(|redactor| redactor.args(args)));
    }

    /// A `telemetry.loss` event of what the kernel programs and this pipeline lost between two samples, and of what
    /// was `unwritten` (reason and number of events), if anything.
    pub fn loss(
        &mut self,
        before: &Sample,
        after: &Sample,
        unwritten: &[(&'static str, u64)],
        since: u64,
        until: u64,
    ) -> Option<v1::Event> {
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
        losses.extend(own.iter().chain(unwritten).filter(|(_, count)| *count > 0).map(|(reason, count)| {
            v1::Loss {
                hook: "agent".to_owned(),
                reason: (*reason).to_owned(),
                count: *count,
                kinds: vec!["process.*".to_owned()],
            }
        }));
        if let Some(monitor) = &self.files {
            losses.extend(more_lost(monitor.lost(), &mut self.told_of_files, "file.*"));
        }
        if let Some(sockets) = &self.sockets {
            losses.extend(more_lost(sockets.lost(), &mut self.told_of_sockets, "network.*"));
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

    /// Tells that no agent looked: since a time in nanoseconds since 1970, up to one in nanoseconds since boot.
    pub fn absence(&mut self, since: u64, until: u64) -> v1::Event {
        let end = self.clock.wall(until);
        let since = Timestamp::from(UNIX_EPOCH + Duration::from_nanos(since));
        // The clock may have been set back meanwhile.
        let is_before = (since.seconds, since.nanos) <= (end.seconds, end.nanos);
        let loss = v1::Loss {
            hook: "agent".to_owned(),
            reason: "not_running".to_owned(),
            count: 0,
            kinds: self.kinds().into_iter().map(str::to_owned).collect(),
        };
        let telemetry = v1::Telemetry {
            losses: vec![loss],
            since: Some(if is_before { since } else { end }),
            until: Some(end),
        };
        self.finish("telemetry.loss", until, None, None, Body::Telemetry(telemetry))
    }

    /// Wall clock of a time in nanoseconds since boot.
    #[must_use]
    pub fn wall(&self, since_boot: u64) -> Timestamp {
        self.clock.wall(since_boot)
    }

    /// What became of what was received.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Cgroups that are known, and how many can be.
    #[must_use]
    pub fn cgroups_known(&self) -> (usize, usize) {
        self.cgroups.known()
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

    /// Brings the table up to date; makes the event if it is wanted.
    fn event(
        &mut self,
        record: &Record<'_>,
        sink: &mut impl Sink,
    ) -> Result<(&'static str, v1::Event), Discard> {
        if self.clock_read.elapsed() > CLOCK_INTERVAL {
            self.clock.follow();
            self.clock_read = Instant::now();
        }
        match record {
            Record::Exec(record) => {
                let (info, now) = (&record.body.info, record.body.header.time);
                self.learn_cgroup(info.cgroup_id, info.flags, &record.cgroup_path);
                if let Some(monitor) = &mut self.files {
                    monitor.runs(info);
                }
                let image = self.masked(event::image(record));
                let mut known = self.table.exec(info, image.clone().kept(), now).clone();
                known.image = Arc::new(image);
                let environment = self.environment(record);
                self.make("process.exec", now, info, &known, |_| {
                    Body::Exec(Context::exec(record, environment))
                })
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
                sink.fork(self.identity.process(&info.parent), self.identity.process(&info.task));
                let by_another = record.creator.pid != info.parent.pid;
                let creator = by_another.then(|| self.table.lineage(&record.creator));
                self.make("process.fork", now, info, &known, |context| {
                    Body::Fork(context.fork(record, creator.as_ref()))
                })
            }
            Record::Exit(record) => {
                let (info, now) = (&record.info, record.header.time);
                let known = self.table.exit(info, now).ok_or(Discard::NoEvent)?.clone();
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
                self.learn_cgroup(record.id, record.flags, path);
                Err(Discard::NoEvent)
            }
            // Only the iterator makes these, and it is read elsewhere.
            Record::Snapshot(_) => Err(Discard::NoEvent),
            Record::SocketCall(record) => Err(self.socket_called(record)),
            Record::SocketState(record) => Err(self.socket_changed(record)),
            Record::FileOpen(record) => {
                let (info, now) = (&record.body.info, record.body.header.time);
                self.table.act(info, now);
                let monitor = self.files.as_mut().ok_or(Discard::NotAsked)?;
                let (kind, activity) = monitor.opened(record)?;
                // Nearly all that is opened ends above: what is known of the process is not copied for that.
                let known = self.table.act(info, now).clone();
                self.make(kind, now, info, &known, |context| context.file(activity))
            }
            Record::FileCall(record) => {
                let (info, now) = (&record.body.info, record.body.header.time);
                self.table.act(info, now);
                let monitor = self.files.as_mut().ok_or(Discard::NotAsked)?;
                let (kind, activity) = monitor.called(record)?;
                let known = self.table.act(info, now).clone();
                self.make(kind, now, info, &known, |context| context.file(activity))
            }
        }
    }

    /// Watches files by this from now on.
    pub fn watch_files(&mut self, monitor: Monitor) {
        self.files = Some(monitor);
    }

    /// What watches files, if anything does.
    pub fn files(&mut self) -> Option<&mut Monitor> {
        self.files.as_mut()
    }

    /// Takes what was found out about files by other means than records. All records of what was done until `drained`
    /// have been here; none: no more will come.
    pub fn notice_files(&mut self, drained: Option<Instant>, sink: &mut impl Sink) {
        let Some(monitor) = &mut self.files else { return };
        match drained {
            Some(drained) => monitor.tick(drained),
            None => monitor.finish(),
        }
        for act in monitor.take_acts() {
            self.stats.received += 1;
            self.stats.noticed += 1;
            match self.act(act).and_then(|(kind, event)| sink.event(&event).map(|()| kind)) {
                Ok(kind) => *self.stats.exported.entry(kind).or_default() += 1,
                Err(reason) => self.discard(reason),
            }
        }
    }

    /// The event of something that is not of one record.
    fn act(&mut self, act: Act) -> Result<(&'static str, v1::Event), Discard> {
        let Act { kind, time, last, actor, mut body } = act;
        if let Some(last) = last {
            body.first_time = Some(self.clock.wall(time));
            body.last_time = Some(self.clock.wall(last));
        }
        let known = match &actor {
            Actor::Task(info) => Some((**info, self.table.act(info, time).clone())),
            Actor::Pid(pid) => self.table.latest(*pid).map(|process| (process.info, process.clone())),
            Actor::Unknown => None,
        };
        if let Some((info, known)) = known {
            return self.make(kind, time, &info, &known, |context| context.file(body));
        }
        if !self.asked.kinds.include(kind) {
            return Err(Discard::NotAsked);
        }
        let body = self.context().file(body);
        Ok((kind, self.finish(kind, time, None, None, body)))
    }

    /// The environment variables that were asked for, secrets masked.
    fn environment(&self, record: &ExecRecord<'_>) -> Vec<String> {
        // The kernel only looks at the beginning of a name.
        let is_asked = |variable: &&[u8]| {
            let name = variable.split(|byte| *byte == b'=').next().unwrap_or_default();
            self.asked.environment.iter().any(|asked| asked.as_bytes() == name)
        };
        let mask = |variable: &[u8]| {
            let masked = self.asked.redactor.as_ref().and_then(|redactor| redactor.text(variable));
            text::from_bytes(masked.as_deref().unwrap_or(variable))
        };
        record.environment.bytes.split(|byte| *byte == 0).filter(is_asked).map(mask).collect()
    }

    /// Why an event of this is not wanted, if it is not.
    fn unwanted(&mut self, kind: &str, time: u64, info: &TaskInfo, known: &Process) -> Option<Discard> {
        if let Some(own) = &self.own
            && own.task.pid == info.task.pid
            && own.task.start == info.task.start
            && own.task.exec_id == info.task.exec_id
            && own.settled.is_none_or(|settled| time <= settled)
        {
            return Some(Discard::Own);
        }
        if !self.asked.kinds.include(kind) {
            return Some(Discard::NotAsked);
        }
        if self.asked.filter.is_empty() {
            return None;
        }
        let creds = &info.creds;
        let names = [creds.uid, creds.euid].map(|uid| self.users.user(uid));
        let name = |n: usize| names[n].as_deref().unwrap_or_default();
        let cgroup = self.cgroups.of(info);
        let container = cgroup.as_ref().and_then(|cgroup| cgroup.container.as_ref());
        let facts = Facts {
            kind,
            exe: known.image.exe.as_ref().map_or("", |exe| &exe.path),
            users: [(creds.uid, name(0)), (creds.euid, name(1))],
            container: container.map_or("", |container| &container.id),
            cgroup: cgroup.as_ref().map_or("", |cgroup| &cgroup.path),
            in_own_user_namespace: creds.user_ns != event::INITIAL_USER_NS,
        };
        (!self.asked.filter.keeps(&facts)).then_some(Discard::Rule)
    }

    fn make(
        &mut self,
        kind: &'static str,
        time: u64,
        info: &TaskInfo,
        known: &Process,
        body: impl FnOnce(&mut Context<'_>) -> Body,
    ) -> Result<(&'static str, v1::Event), Discard> {
        if let Some(reason) = self.unwanted(kind, time, info, known) {
            return Err(reason);
        }
        let mut context = self.context();
        let process = context.process(info, known);
        let parent = known.parent.as_ref().filter(|parent| parent.task.pid != 0);
        let parent = parent.map(|parent| context.parent(parent));
        let body = body(&mut context);
        Ok((kind, self.finish(kind, time, Some(process), parent, body)))
    }

    fn context(&mut self) -> Context<'_> {
        Context {
            identity: self.identity,
            users: &mut self.users,
            cgroups: &mut self.cgroups,
            capabilities: self.capabilities,
            page_size: self.page_size,
            clock: self.clock,
        }
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

/// What was lost since that was last `told`.
fn more_lost(
    lost: &BTreeMap<(&'static str, &'static str), u64>,
    told: &mut BTreeMap<(&'static str, &'static str), u64>,
    kinds: &str,
) -> Vec<v1::Loss> {
    let before = mem::replace(told, lost.clone());
    let more = lost.iter().map(|(what, count)| (what, count - before.get(what).copied().unwrap_or_default()));
    more.filter(|(_, count)| *count > 0)
        .map(|((hook, reason), count)| v1::Loss {
            hook: (*hook).to_owned(),
            reason: (*reason).to_owned(),
            count,
            kinds: vec![kinds.to_owned()],
        })
        .collect()
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
        Hook::FileOpen => "file.open",
        Hook::FileClose => "file.close",
        Hook::FileCall => "file.*",
        Hook::SocketState
        | Hook::SocketCall
        | Hook::SocketUring
        | Hook::SocketAttempt
        | Hook::SocketBind
        | Hook::Datagram
        | Hook::SocketRelease => "network.*",
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

fn left_out(filter: &Filter, facts: &CgroupFacts) -> u64 {
    let container = facts.container.as_ref().map_or("", |container| &container.id);
    filter.left_out_of(container, &facts.path)
}

// === impl Stats ===

impl Stats {
    /// What came as records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.received - self.noticed
    }

    /// Records whose fate is known.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.exported.values().chain(self.discarded.values()).sum::<u64>() + self.refused
    }

    /// Whether that is all of them.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.received == self.accounted()
    }
}

// === impl Discard ===

impl Discard {
    /// Name as printed in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Rule => "rule",
            Self::Own => "own",
            Self::NoEvent => "no_event",
            Self::AfterLast => "after_last",
            Self::NotWatched => "not_watched",
            Self::Folded => "folded",
            Self::Gathered => "gathered",
        }
    }
}

// === impl Kinds ===

impl Kinds {
    /// Kinds that globs leave.
    ///
    /// # Errors
    /// When a glob fits no kind that there is.
    pub fn of(globs: &[String]) -> Result<Self, UnknownKind> {
        let mut kinds = Vec::new();
        for glob in globs {
            let (wanted, pattern) =
                glob.strip_prefix('!').map_or((true, glob.as_str()), |rest| (false, rest));
            let matcher = WildMatch::new(pattern);
            if !KINDS.iter().any(|kind| matcher.matches(kind.name)) {
                return Err(UnknownKind(glob.clone()));
            }
            kinds.push((wanted, matcher));
        }
        Ok(Self(kinds))
    }

    /// Whether events of this kind are asked for. What was lost is always told.
    #[must_use]
    pub fn include(&self, kind: &str) -> bool {
        let last = self.0.iter().rev().find(|(_, glob)| glob.matches(kind));
        last.is_some_and(|(wanted, _)| *wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(globs: &[&str]) -> Result<Kinds, UnknownKind> {
        Kinds::of(&globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_glob_that_fits_decides() {
        let usual = kinds(&["*", "!process.fork"]).unwrap();
        assert!(!usual.include("process.fork") && usual.include("process.exec"));
        assert!(kinds(&["process.*"]).unwrap().include("process.fork"));
        assert!(!kinds(&["process.exec"]).unwrap().include("process.exec_failed"));
        assert!(kinds(&["!process.*", "process.exec"]).unwrap().include("process.exec"));
        assert!(!kinds(&[]).unwrap().include("process.exec"));
    }

    #[test]
    fn a_glob_that_fits_nothing_is_refused_with_what_there_is() {
        for wrong in ["process.exce", "", "exec", "!exec"] {
            let error = kinds(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("there are process.exec, process.exec_failed"), "{error}");
        }
    }
}
