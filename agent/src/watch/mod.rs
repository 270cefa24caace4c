//! Watching the host: from loading the kernel programs to the last event.
//!
//! [`Loaded`] has the programs attached and knows what ran before. [`Loaded::watch`] gives the ring to a thread
//! of its own and leaves a [`Watch`], by which it is changed and stopped, and [`Handle`]s, by which others see
//! events and how it is going.

mod drain;
mod meter;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
pub use drain::{Change, FileChange, Report, Stopped};
use drain::{Command, Drain, Outputs, Stream};
use nightjar_abi::hook::Hook;
use nightjar_proto::{KINDS, v1};
use nightjar_show::Export;
use tokio::sync::oneshot;
use tracing::info;

use self::meter::Meter;
use crate::{
    deliver::Delivery,
    export::{
        JsonFile,
        hub::{Hub, Selector, Subscription, Who},
    },
    files::{self, Monitor},
    kernel::{self, Controls, Counters, Doorbell, Kernel, Ring, Sensor, Serving, Snapshot},
    network,
    pipeline::{Asked, Kinds, Pipeline, since_boot},
    process::Bounds,
};

/// How long an output that takes nothing may hold up the end.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(3);
/// How long the end may take in all where a service manager waits for it.
const LONGEST_STOP: Duration = Duration::from_millis(4500);
/// How long the draining thread may take to answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(2);

/// Attached programs, not read from yet.
pub struct Loaded {
    kernel: Kernel,
    ring: Ring,
    counters: Counters,
    controls: Controls,
    pipeline: Pipeline,
    bounds: Bounds,
    /// Nanoseconds since boot, just before the first program was attached.
    since: u64,
}

/// What is asked of events of sockets.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// How much is remembered, and how long.
    pub sockets: network::Options,
    /// Names of unix sockets that connections to are told of.
    pub unix: Vec<String>,
}

/// Where events go beside those who watch.
#[derive(Default)]
pub struct Destinations {
    /// Standard output, or another place that decides how fast it takes them.
    pub stream: Option<Box<dyn Export>>,
    /// A file.
    pub file: Option<JsonFile>,
    /// The backend, and up to when an earlier run of the agent told it all.
    pub delivery: Option<(Delivery, Option<u64>)>,
    /// Bytes of history for those who watch.
    pub history: usize,
    /// A reader from the first event on: what it selects, whether with all descendants, and who it is.
    pub reader: Option<(Selector, bool, Who)>,
}

/// A running watch.
pub struct Watch {
    handle: Handle,
    kernel: Arc<Mutex<Kernel>>,
    /// Of the first reader.
    reader: Option<Result<Subscription, Refused>>,
    over: oneshot::Receiver<()>,
    end: oneshot::Receiver<Result<Report, Stopped>>,
}

/// Asks things of a running watch.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    doorbell: Doorbell,
    progress: Arc<AtomicU64>,
}

/// How patient the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as somebody takes events.
    WhileItMoves,
    /// As long as service managers like it.
    Seconds,
}

/// Why there is nothing to watch for a reader.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// None of the processes that the tree begins with.
    #[error("no process {} runs", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
    NoProcess(Vec<u32>),
    /// None of the kinds is exported.
    #[error(
        "this agent does not record such events; its setting kinds leaves {0}, and tail --standalone looks for itself"
    )]
    NotRecorded(String),
}

/// The draining thread is gone, or busy for very long.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// It has come to an end.
    #[error("the agent is stopping")]
    Stopping,
    /// An output or the machine holds it up.
    #[error(
        "the agent does not get to answer: whatever it writes to takes nothing, or the machine is overloaded"
    )]
    Busy,
}

/// Which sensors are wanted: those of the kinds that are asked for, as far as files are concerned only where any are
/// watched.
pub fn wanted(
    kinds: Kinds,
    files: Option<&files::Options>,
) -> impl Fn(&kernel::SensorPlan) -> bool + Send + Sync + 'static {
    let (files, all_files) = (files.is_some(), files.is_some_and(|files| files.all));
    // Any kind of event of sockets wants all that look at sockets.
    let sockets = KINDS.iter().any(|kind| kind.name.starts_with("network.") && kinds.include(kind.name));
    move |plan| {
        if plan.sensor.is_of_sockets() {
            return sockets;
        }
        let sensor = plan.sensor;
        let may_be = match sensor {
            Sensor::FileOpen | Sensor::FileCall => files,
            Sensor::FileClose => all_files,
            _ => true,
        };
        may_be && sensor.kinds().iter().any(|kind| kinds.include(kind))
    }
}

/// Sensors as status tells of them.
#[must_use]
pub fn sensors(serving: &[Serving]) -> Vec<v1::Sensor> {
    let sensor = |serving: &Serving| v1::Sensor {
        name: serving.plan.sensor.name().to_owned(),
        hook: serving.candidate.map_or_else(String::new, |candidate| candidate.kind.to_string()),
        worth: serving.candidate.map_or_else(String::new, |candidate| candidate.worth.to_owned()),
        refused: serving
            .refused
            .iter()
            .map(|refusal| v1::RefusedHook { hook: refusal.kind.to_string(), reason: refusal.reason.clone() })
            .collect(),
    };
    serving.iter().map(sensor).collect()
}

fn locked(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    // One that panicked in the middle of a change still has to be detached.
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Loaded ===

impl Loaded {
    /// Loads what the asked kinds need, calls `attached` while there is no other thread yet, then takes stock of what
    /// runs.
    ///
    /// # Errors
    /// When the kernel side cannot be set up.
    pub fn load(
        options: &kernel::Options,
        asked: Asked,
        files: Option<files::Options>,
        network: &NetworkOptions,
        bounds: Bounds,
        attached: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let wanted = wanted(asked.kinds.clone(), files.as_ref());
        let mut pipeline = Pipeline::new(asked, bounds).context("cannot identify this boot")?;
        let since = since_boot();
        let mut kernel = Kernel::load(options, wanted)?;
        for serving in kernel.serving() {
            if let Some(candidate) = serving.candidate {
                info!("{} is served by {}: {}", serving.plan.sensor, candidate.kind, candidate.worth);
            }
        }
        // Before rights are given up that this takes.
        let mut monitor = match files {
            Some(files) => Some(Monitor::new(files, kernel.take_files()?)),
            None => None,
        };
        attached()?;
        let Snapshot { tasks, sockets, .. } = kernel.take_snapshot()?;
        match tasks {
            Some(records) => pipeline.snapshot(&records),
            None => pipeline.procfs(),
        }
        info!("{} processes ran before", pipeline.table_stats().processes);
        // Also where nobody asks for them yet: that can change.
        let mut watched = kernel.take_network()?;
        watched.watch_unix(network.unix.iter().map(String::as_str)).context("cannot watch unix sockets")?;
        pipeline.watch_sockets(network.sockets, watched, &sockets);
        if let Some(mut monitor) = monitor.take() {
            monitor.watch();
            pipeline.watch_files(monitor);
        }
        let (ring, counters, controls) =
            (kernel.take_ring()?, kernel.take_counters()?, kernel.take_controls()?);
        Ok(Self { kernel, ring, counters, controls, pipeline, bounds, since })
    }

    /// The loaded programs, for their log.
    pub fn kernel_mut(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Reads events from now on. The agent has done by now what it does at its start.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn watch(self, to: Destinations) -> Result<Watch> {
        let Self { kernel, ring, counters, controls, mut pipeline, bounds, since } = self;
        pipeline.settle();
        let (commands, orders) = mpsc::channel();
        let (ended, end) = oneshot::channel();
        let (is_over, over) = oneshot::channel();
        let progress = Arc::new(AtomicU64::new(0));
        let handle = Handle { commands, doorbell: ring.doorbell(), progress: Arc::clone(&progress) };
        let (delivery, complete_until) = to.delivery.unzip();
        let mut drain = Drain {
            ring,
            counters,
            controls,
            pipeline,
            outputs: Outputs {
                stream: to.stream.map(|export| Stream { export, failed: None, events: 0 }),
                file: to.file,
                delivery,
                hub: Hub::new(to.history),
                progress,
            },
            meter: Meter::new(sensors(kernel.serving()), bounds),
            commands: orders,
            since,
            last: since,
            told_unwritten: Vec::new(),
            owed_to_file: None,
            complete_until: complete_until.flatten(),
            over: Some(is_over),
        };
        // Before the first record is read, of which many may wait by now.
        let reader =
            to.reader.map(|(selector, tree, who)| drain.subscribe(selector, who, Duration::ZERO, tree));
        let thread = thread::Builder::new().name("drain".to_owned());
        // Detached: where an output blocks for good, the program ends around it.
        thread.spawn(move || drop(ended.send(drain.run()))).context("cannot start a thread")?;
        Ok(Watch { handle, kernel: Arc::new(Mutex::new(kernel)), reader, over, end })
    }
}

// === impl Watch ===

impl Watch {
    /// The reader that was to be there from the first event on. There is one.
    ///
    /// # Errors
    /// Why there is nothing for it to watch.
    pub fn take_reader(&mut self) -> Option<Result<Subscription, Refused>> {
        self.reader.take()
    }

    /// Something to ask by.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Comes back when there is no point in going on: nobody takes the events, or the ring cannot be read.
    pub async fn over(&mut self) {
        // An end without a word is one as well.
        let _said_or_gone = (&mut self.over).await;
    }

    /// Attaches what `wanted` sensors need and are not served yet; tells which are served then, and by which programs.
    ///
    /// # Errors
    /// When one cannot be served. Then all is as it was.
    pub async fn adjust(
        &mut self,
        wanted: impl Fn(&kernel::SensorPlan) -> bool + Send + Sync + 'static,
    ) -> Result<(Vec<v1::Sensor>, Vec<(Hook, OwnedFd)>), kernel::KernelError> {
        let kernel = Arc::clone(&self.kernel);
        // The kernel takes its time for some; events are handed over meanwhile.
        let adjusted = tokio::task::spawn_blocking(move || {
            let mut kernel = locked(&kernel);
            kernel.adjust(wanted)?;
            Ok((sensors(kernel.serving()), kernel.programs()))
        });
        adjusted.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Changes what is done, from the next record on.
    pub fn change(&self, change: Change) {
        self.handle.tell(Command::Change(Box::new(change)));
    }

    /// Exports what is under way, detaches the programs, ends.
    ///
    /// # Errors
    /// When events could not be exported, or the outputs take nothing for too long.
    pub async fn stop(self, patience: Patience) -> Result<Report> {
        let Self { handle, kernel, mut end, .. } = self;
        let stop = async {
            handle.tell(Command::Stop);
            loop {
                let written = handle.progress.load(Ordering::Relaxed);
                if let Ok(report) = tokio::time::timeout(LONGEST_STANDSTILL, &mut end).await {
                    return Ok(report.context("the draining thread is gone")??);
                }
                if handle.progress.load(Ordering::Relaxed) == written {
                    bail!("whoever reads the events takes none: what was under way is lost");
                }
            }
        };
        let stopped = match patience {
            Patience::WhileItMoves => stop.await,
            Patience::Seconds => match tokio::time::timeout(LONGEST_STOP, stop).await {
                Ok(report) => report,
                Err(_) => Err(anyhow!(
                    "not all events could be handed over within {:.1} s: what was under way is lost",
                    LONGEST_STOP.as_secs_f64()
                )),
            },
        };
        // Last, as the kernel takes some 70 ms for each system call that is hooked.
        tokio::task::spawn_blocking(move || drop(kernel))
            .await
            .context("the programs could not be detached")?;
        stopped
    }
}

// === impl Handle ===

impl Handle {
    /// Registers a reader who wants what comes from now on, and what is at most `back` old as far as it is
    /// remembered. With `tree`, the processes of the selector and all their descendants.
    ///
    /// # Errors
    /// When the watch does not answer.
    pub async fn subscribe(
        &self,
        selector: Selector,
        tree: bool,
        who: Who,
        back: Duration,
    ) -> Result<Result<Subscription, Refused>, NoAnswer> {
        self.ask(|reply| Command::Subscribe { selector, who, back, tree, reply }).await
    }

    /// How it is going, as far as the draining thread knows.
    ///
    /// # Errors
    /// When the watch does not answer.
    pub async fn status(&self) -> Result<v1::Status, NoAnswer> {
        self.ask(Command::Status).await
    }

    /// A number that changes at least once a second as long as events are handed over.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    fn tell(&self, command: Command) {
        // Where the thread is gone, its end has been told.
        let _gone = self.commands.send(command);
        self.doorbell.ring();
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply));
        match tokio::time::timeout(LONGEST_ANSWER, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(NoAnswer::Stopping),
            Err(_) => Err(NoAnswer::Busy),
        }
    }
}

// === impl Report ===

impl Report {
    /// Tells on standard error what was seen and what was lost.
    #[expect(clippy::print_stderr, reason = "the answer to Ctrl-C")]
    pub fn tell(&self) {
        if self.quiet {
            return;
        }
        let drops = self.sample.dropped_since(&kernel::Sample::zero());
        let mut lost = Vec::new();
        if !drops.is_empty() {
            lost.push(format!("lost: {}", crate::pipeline::drops_text(&drops)));
        }
        if self.stats.refused > 0 {
            lost.push(format!("{} could not be decoded", self.stats.refused));
        }
        if self.lost_by_file > 0 {
            lost.push(format!("{} could not be written to the file", self.lost_by_file));
        }
        let lost = if lost.is_empty() { "nothing lost".to_owned() } else { lost.join("; ") };
        let kinds = self.stats.exported.iter().map(|(kind, count)| format!("{kind} {count}"));
        eprintln!(
            "{} events in {:.1} s ({}); {} records received, {} of them not asked for; {lost}",
            self.stats.exported.values().sum::<u64>(),
            self.elapsed.as_secs_f64(),
            kinds.collect::<Vec<_>>().join(", "),
            self.stats.received,
            self.stats.discarded.values().sum::<u64>()
        );
    }
}
