//! The thread that drains the ring: from records to outputs.
//!
//! When an output that it waits for is slow the ring fills, and the kernel counts what it could not put there:
//! there is no second place where something could be lost in silence. What others ask of it it does between
//! two drains.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant, SystemTime},
};

use nightjar_abi::hook::Hook;
use nightjar_proto::v1::{self, Event};
use nightjar_show::{Export, profile::Profile};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{
    NetworkOptions, Refused,
    meter::{Meter, View},
};
use crate::{
    decode,
    deliver::Delivery,
    export::{
        JsonFile,
        file::Rotation,
        hub::{Encoded, Hub, Selector, Subscription, Who},
    },
    files::{self, fanotify::Group},
    kernel::{Controls, Counters, Ring, RingError, Sample},
    pipeline::{self, Asked, Discard, Pipeline, Sink, drops_text, since_boot},
};

/// How soon what waits for other news of a file is looked at again.
const SOON: Duration = Duration::from_millis(50);
/// How often losses are looked for.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long events of files and sockets wait for more of the same, at most, in nanoseconds. What is folded longer, by a
/// window that is set so, is missing where the agent is killed meanwhile.
const GATHERING: u64 = 10_000_000_000;
/// Most time that is spent on records before looking whether something else is to be done.
const LONGEST_DRAIN: Duration = Duration::from_millis(50);

/// What can be asked of the thread.
#[expect(clippy::large_enum_variant, reason = "there are few")]
pub(super) enum Command {
    /// To register a reader, who wants what is at most `back` old as well.
    Subscribe {
        selector: Selector,
        who: Who,
        back: Duration,
        tree: bool,
        reply: oneshot::Sender<Result<Subscription, Refused>>,
    },
    /// To tell how it is.
    Status(oneshot::Sender<v1::Status>),
    /// To do something else from now on.
    Change(Box<Change>),
    /// To come to an end: the programs are detached, nothing more will come.
    Stop,
}

/// What can be changed while events come. `None` leaves it as it is.
pub struct Change {
    /// What is asked of the pipeline.
    pub asked: Asked,
    /// Settings of the kernel programs that go with it.
    pub settings: nightjar_abi::settings::Settings,
    /// What is asked of file events, if any are watched.
    pub files: Option<files::Options>,
    /// What is asked of events of sockets.
    pub network: NetworkOptions,
    /// The file of events, another one or none.
    pub file: Option<FileChange>,
    /// Bytes of history.
    pub history: usize,
    /// Which sensors are served now.
    pub sensors: Vec<v1::Sensor>,
    /// Programs that are loaded now.
    pub programs: Vec<(Hook, OwnedFd)>,
}

/// What becomes of the file of events.
pub enum FileChange {
    /// It is closed.
    None,
    /// It is this one.
    Other(Box<JsonFile>),
    /// It is the same with other options.
    Same(Profile, Rotation),
}

/// How it went.
#[derive(Debug)]
pub struct Report {
    pub(super) stats: pipeline::Stats,
    pub(super) sample: Sample,
    pub(super) elapsed: Duration,
    pub(super) lost_by_file: u64,
    /// The reader of the output went away: it does not want to hear more.
    pub(super) quiet: bool,
}

/// Why the thread came to an end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The ring could not be read.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Nobody takes the events.
    #[error("cannot write events")]
    Write(#[source] io::Error),
}

/// Where events go.
pub(super) struct Outputs {
    /// Standard output: whoever reads it decides how fast events are taken, and when it is over.
    pub(super) stream: Option<Stream>,
    pub(super) file: Option<JsonFile>,
    /// To the backend.
    pub(super) delivery: Option<Delivery>,
    pub(super) hub: Hub,
    /// Raised whenever something was written.
    pub(super) progress: Arc<AtomicU64>,
}

/// An export that can fail.
pub(super) struct Stream {
    pub(super) export: Box<dyn Export>,
    pub(super) failed: Option<io::Error>,
    pub(super) events: u64,
}

/// What the thread owns.
pub(super) struct Drain {
    pub(super) ring: Ring,
    pub(super) counters: Counters,
    pub(super) controls: Controls,
    pub(super) pipeline: Pipeline,
    pub(super) outputs: Outputs,
    pub(super) meter: Meter,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Nanoseconds since boot, just before the first program was attached.
    pub(super) since: u64,
    /// When the last record was made that was taken, likewise.
    pub(super) last: u64,
    /// What the file had lost when that was last told.
    pub(super) told_unwritten: Vec<(&'static str, u64)>,
    /// Losses that the file has not taken yet.
    pub(super) owed_to_file: Option<Event>,
    /// Nanoseconds since 1970 up to which an earlier run of the agent told all.
    pub(super) complete_until: Option<u64>,
    /// Told once when no output wants any more.
    pub(super) over: Option<oneshot::Sender<()>>,
}

impl Sink for Outputs {
    fn event(&mut self, event: &Event) -> Result<(), Discard> {
        if let Some(stream) = &mut self.stream {
            if stream.failed.is_some() {
                return Err(Discard::AfterLast);
            }
            stream.failed = stream.export.event(event).err();
            self.progress.fetch_add(1, Ordering::Relaxed);
            if stream.failed.is_some() {
                return Err(Discard::AfterLast);
            }
            stream.events += 1;
        }
        if let Some(file) = &mut self.file {
            file.event(event);
        }
        self.share(event);
        Ok(())
    }

    fn fork(&mut self, parent: u64, child: u64) {
        self.hub.fork(parent, child);
    }

    fn exit(&mut self, process: u64) {
        self.hub.exit(process);
    }
}

/// How many more there are of each reason than there were.
fn more(before: &[(&'static str, u64)], after: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    let had = |reason| before.iter().find(|(of, _)| *of == reason).map_or(0, |(_, count)| *count);
    after.iter().map(|(reason, count)| (*reason, count.saturating_sub(had(*reason)))).collect()
}

/// One event of the losses of two, the second of which is the later.
fn both(earlier: Event, mut later: Event) -> Event {
    use v1::event::Body::Telemetry;
    if let (Some(Telemetry(earlier)), Some(Telemetry(later))) = (earlier.body, &mut later.body) {
        later.since = earlier.since;
        for loss in earlier.losses {
            match later.losses.iter_mut().find(|of| of.hook == loss.hook && of.reason == loss.reason) {
                Some(same) => same.count += loss.count,
                None => later.losses.push(loss),
            }
        }
    }
    later
}

impl Outputs {
    /// Takes what was lost, for all but the file, which may have been what lost it.
    fn loss(&mut self, event: &Event) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.failed.is_none()) {
            stream.failed = stream.export.event(event).err();
            stream.events += 1;
        }
        self.share(event);
    }

    /// Hands an event to those who take it encoded.
    fn share(&mut self, event: &Event) {
        let mut encoded = Encoded::new(event);
        if let Some(delivery) = &self.delivery {
            delivery.event(event, encoded.bytes());
        }
        self.hub.event(&mut encoded);
    }

    fn flush(&mut self) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.failed.is_none()) {
            stream.failed = stream.export.flush().err();
        }
        if let Some(file) = &mut self.file {
            file.flush();
        }
        self.hub.flush();
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// How those that write are doing.
    pub(super) fn status(&self) -> Vec<v1::OutputStatus> {
        let stream = self.stream.as_ref().map(|stream| v1::OutputStatus {
            name: "json".to_owned(),
            target: "-".to_owned(),
            events: stream.events,
            failing: stream.failed.as_ref().map_or_else(String::new, ToString::to_string),
            ..v1::OutputStatus::default()
        });
        stream.into_iter().chain(self.file.as_ref().map(JsonFile::status)).collect()
    }

    fn is_over(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.failed.is_some())
    }
}

impl Drain {
    pub(super) fn run(mut self) -> Result<Report, Stopped> {
        let start = Instant::now();
        self.apply_verdicts();
        let (mut told, mut told_at) = (Sample::zero(), self.since);
        let (mut next_sample, mut drained) = (start + SAMPLE_INTERVAL, start);
        let mut drained_until = self.since;
        self.tell_absence();
        loop {
            let (began, began_at) = (Instant::now(), since_boot());
            let more = self.drain();
            if more {
                // Records come in the order of their times.
                drained_until = self.last.max(drained_until);
            } else {
                (drained, drained_until) = (began, began_at);
            }
            self.pipeline.notice_files(Some(drained), &mut self.outputs);
            self.pipeline.notice_sockets(drained_until, &mut self.outputs);
            let now = Instant::now();
            if now >= next_sample {
                next_sample = now + SAMPLE_INTERVAL;
                self.tell_losses(&mut told, &mut told_at);
                // After what was lost was told, and without what may still be gathered.
                self.complete(drained_until.saturating_sub(GATHERING));
                self.each_second();
            }
            self.outputs.flush();
            self.meter.flushed(since_boot());
            self.apply_verdicts();
            if self.obey(&told) {
                break;
            }
            if self.outputs.is_over()
                && let Some(over) = self.over.take()
            {
                let _nobody_waits = over.send(());
            }
            if !more {
                let longest = next_sample.saturating_duration_since(now).min(SAMPLE_INTERVAL);
                let files = self.pipeline.files();
                let waits = files.as_ref().is_some_and(|files| files.is_waiting());
                let groups: &[Group] = files.map_or(&[], |files| files.groups());
                self.ring.wait(if waits { longest.min(SOON) } else { longest }, groups)?;
            }
        }

        // From here on what is in the rings is all there will be, and the counters stand still.
        self.ring.leave()?;
        while self.drain() {
            self.outputs.flush();
        }
        self.pipeline.notice_files(None, &mut self.outputs);
        self.pipeline.finish_sockets(&mut self.outputs);
        self.tell_losses(&mut told, &mut told_at);
        self.outputs.flush();
        self.finish(&told, start.elapsed())
    }

    fn finish(self, told: &Sample, elapsed: Duration) -> Result<Report, Stopped> {
        let Self { pipeline, outputs, .. } = self;
        if let Some(delivery) = outputs.delivery {
            delivery.complete_until(SystemTime::now());
            delivery.close();
        }
        let lost_by_file = outputs.file.map_or(0, JsonFile::close);
        let failed = outputs.stream.and_then(|stream| stream.failed);
        let quiet = failed.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if let Some(error) = failed.filter(|_| !quiet) {
            return Err(Stopped::Write(error));
        }
        let stats = pipeline.stats().clone();
        for hook in Hook::ALL.iter().filter(|hook| !told.hook(**hook).balances()) {
            error!("the counters of {} do not add up: {:?}; this is a defect", hook.name(), told.hook(*hook));
        }
        if stats.records() != told.submitted() {
            error!(
                "{} records were sent but {} received: this is a defect",
                told.submitted(),
                stats.records()
            );
        }
        if !stats.balances() {
            error!("what became of {} records does not add up: {stats:?}; this is a defect", stats.received);
        }
        Ok(Report { stats, sample: told.clone(), elapsed, lost_by_file, quiet })
    }

    /// Tells from when to when no agent looked, if an earlier run left word of how far it came.
    fn tell_absence(&mut self) {
        let Some(since) = self.complete_until.take() else { return };
        let event = self.pipeline.absence(since, self.since);
        self.outputs.loss(&event);
        if self.outputs.file.is_some() {
            self.owed_to_file = Some(event);
        }
    }

    /// What was made before this time, in nanoseconds since boot, was handed to all outputs, or its loss was told.
    fn complete(&self, until: u64) {
        if let Some(delivery) = &self.outputs.delivery
            && let Ok(until) = SystemTime::try_from(self.pipeline.wall(until))
        {
            delivery.complete_until(until);
        }
    }

    /// Takes records for a while; whether there may be more.
    fn drain(&mut self) -> bool {
        let Self { ring, pipeline, outputs, meter, last, .. } = self;
        let end = Instant::now() + LONGEST_DRAIN;
        ring.drain(|record| {
            let made = decode::time_of(record);
            *last = made.unwrap_or(*last);
            meter.taken(made);
            pipeline.record(record, outputs);
            Instant::now() < end
        })
    }

    /// Does what was asked; whether that was to stop.
    fn obey(&mut self, told: &Sample) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => return true,
                Command::Subscribe { selector, who, back, tree, reply } => {
                    let _nobody_waits = reply.send(self.subscribe(selector, who, back, tree));
                }
                Command::Status(reply) => {
                    let _nobody_waits = reply.send(self.status(told));
                }
                Command::Change(change) => self.change(*change),
            }
        }
        false
    }

    pub(super) fn subscribe(
        &mut self,
        mut selector: Selector,
        who: Who,
        back: Duration,
        tree: bool,
    ) -> Result<Subscription, Refused> {
        let recorded = self.pipeline.kinds();
        if !recorded.iter().any(|kind| selector.conditions.is_kind(kind)) {
            return Err(Refused::NotRecorded(recorded.join(", ")));
        }
        if tree {
            let processes = self.pipeline.tree(&selector.pids);
            if processes.is_empty() {
                return Err(Refused::NoProcess(selector.pids));
            }
            selector.tree = Some(processes);
        }
        Ok(self.outputs.hub.subscribe(selector, who, back))
    }

    fn change(&mut self, change: Change) {
        // What was made by the old settings is mostly told by them.
        self.drain();
        let Change { asked, settings, files, network, file, history, sensors, programs } = change;
        self.pipeline.ask(asked);
        if let Err(error) = self.pipeline.change_sockets(network.sockets, &network.unix) {
            error!("the kernel programs keep their old list of unix sockets: {error}");
        }
        match (self.pipeline.files(), files) {
            (Some(monitor), Some(options)) => monitor.configure(options),
            (None, Some(_)) => warn!("files are watched from the agent's next start on"),
            (_, None) => {}
        }
        if let Err(error) = self.controls.forget() {
            error!("the kernel programs may leave out what is wanted again: {error}; restart the agent");
        }
        if let Err(error) = self.controls.set(&settings) {
            error!("the kernel programs keep their old settings: {error}");
        }
        self.apply_verdicts();
        match file {
            None => {}
            Some(FileChange::Same(profile, rotation)) => {
                if let Some(file) = &mut self.outputs.file {
                    file.set_profile(profile);
                    file.set_rotation(rotation);
                }
            }
            Some(FileChange::Other(other)) => self.replace_file(Some(*other)),
            Some(FileChange::None) => self.replace_file(None),
        }
        self.outputs.hub.remember(history);
        self.meter.sensors = sensors;
        self.counters.of(programs);
    }

    fn replace_file(&mut self, file: Option<JsonFile>) {
        (self.told_unwritten, self.owed_to_file) = (Vec::new(), None);
        if let Some(old) = std::mem::replace(&mut self.outputs.file, file) {
            // It may wait for the disk; events do not.
            let closes = std::thread::Builder::new().name("close".to_owned()).spawn(move || old.close());
            if let Err(error) = closes {
                warn!("the old file of events is closed without waiting for the disk: {error}");
            }
        }
    }

    fn apply_verdicts(&mut self) {
        for (cgroup, what) in self.pipeline.take_verdicts() {
            if let Err(error) = self.controls.leave_out(&cgroup, what) {
                // Then the pipeline does it.
                warn!("cgroup {} is not filtered in the kernel: {error}", cgroup.id);
            }
        }
    }

    fn each_second(&mut self) {
        if let Some(file) = &mut self.outputs.file {
            file.tick();
        }
        let stats = self.pipeline.stats();
        self.meter.tick(stats.received, stats.exported.values().sum());
    }

    fn status(&mut self, told: &Sample) -> v1::Status {
        // Between two samples: what was sent before the first was received, and what was received was sent before
        // the second. Under load the ring is not empty at the end.
        let before = self.counters.sample();
        let emptied = !self.drain();
        self.outputs.flush();
        let (before, after) = match (before, self.counters.sample()) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(error), _) | (_, Err(error)) => {
                error!("cannot read the counters: {error}");
                (told.clone(), told.clone())
            }
        };
        let Self { pipeline, outputs, meter, ring, .. } = self;
        meter.status(&View { before, after, emptied, pipeline, outputs, ring_bytes: ring.bytes() })
    }

    /// What the file lost since this was last asked.
    fn unwritten(&mut self) -> Vec<(&'static str, u64)> {
        let lost = self.outputs.file.as_ref().map_or_else(Vec::new, JsonFile::lost);
        let told = std::mem::replace(&mut self.told_unwritten, lost.clone());
        more(&told, &lost)
    }

    /// Tells the file of losses, again and again until it takes that. That it did not is no loss of its own.
    fn tell_file(&mut self) {
        let (Some(event), Some(file)) = (&self.owed_to_file, &mut self.outputs.file) else { return };
        file.flush();
        let before = file.lost();
        file.event(event);
        file.flush();
        let after = file.lost();
        if after == before {
            self.owed_to_file = None;
            return;
        }
        for (reason, count) in more(&before, &after) {
            match self.told_unwritten.iter_mut().find(|(of, _)| *of == reason) {
                Some((_, told)) => *told += count,
                None => self.told_unwritten.push((reason, count)),
            }
        }
    }

    fn tell_losses(&mut self, told: &mut Sample, told_at: &mut u64) {
        let now = since_boot();
        let sample = match self.counters.sample() {
            Ok(sample) => sample,
            Err(error) => {
                error!("cannot read the counters: {error}");
                return;
            }
        };
        let drops = sample.dropped_since(told);
        if !drops.is_empty() {
            warn!("not seen: {}", drops_text(&drops));
        }
        let unwritten = self.unwritten();
        if let Some(event) = self.pipeline.loss(told, &sample, &unwritten, *told_at, now) {
            if let Some(v1::event::Body::Telemetry(telemetry)) = &event.body {
                self.meter.lost(telemetry);
            }
            self.outputs.loss(&event);
            if self.outputs.file.is_some() {
                self.owed_to_file = Some(match self.owed_to_file.take() {
                    Some(earlier) => both(earlier, event),
                    None => event,
                });
            }
        }
        self.tell_file();
        (*told, *told_at) = (sample, now);
    }
}
