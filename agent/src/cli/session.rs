//! Watching the host: from loading the kernel programs to the last event.
//!
//! One thread drains the ring, makes events and writes them: when the writer is slow the ring fills, and
//! the kernel counts what it could not put there. The main thread waits for a reason to stop.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nightjar_abi::hook::Hook;
use nightjar_proto::v1::Event;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{error, info, warn};

use super::Watch;
use crate::{
    export::Export,
    kernel::{self, Counters, Kernel, Ring, RingError, Sample, Snapshot},
    pipeline::{self, Pipeline, drops_text, since_boot},
    process::Bounds,
};

/// How often losses are looked for.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a writer that takes nothing may hold up the end.
const LONGEST_STOP: Duration = Duration::from_secs(3);
/// Most time that is spent on records before looking whether something else is to be done.
const LONGEST_DRAIN: Duration = Duration::from_millis(50);

/// Loaded sensors, not read from yet.
pub(super) struct Session {
    kernel: Kernel,
    ring: Ring,
    counters: Counters,
    pipeline: Pipeline,
    /// Nanoseconds since boot, just before the first program was attached.
    since: u64,
    duration: Option<Duration>,
    carries_log: bool,
}

/// How it went.
pub(super) struct Report {
    stats: pipeline::Stats,
    sample: Sample,
    elapsed: Duration,
    /// The reader of the output went away: it does not want to hear more.
    quiet: bool,
}

/// Why the draining thread came to an end.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("cannot write events")]
    Write(#[source] io::Error),
}

impl Session {
    /// Loads what the asked kinds need, then takes stock of what runs.
    pub(super) fn start(watch: &Watch) -> Result<Self> {
        let kinds = watch.kinds()?;
        let pipeline =
            Pipeline::new(kinds.clone(), Bounds::default()).context("cannot identify this boot")?;
        let since = since_boot();
        let mut kernel = Kernel::load(&watch.kernel_options(), |sensor| kinds.include(sensor.sensor.name()))?;
        for serving in kernel.serving() {
            if let Some(candidate) = serving.candidate {
                info!("{} is served by {}: {}", serving.plan.sensor, candidate.kind, candidate.worth);
            }
        }
        let (ring, counters) = (kernel.take_ring()?, kernel.take_counters()?);
        let carries_log = watch.kernel_log.is_some();
        let mut session =
            Self { kernel, ring, counters, pipeline, since, duration: watch.duration, carries_log };
        session.take_stock()?;
        Ok(session)
    }

    fn take_stock(&mut self) -> Result<()> {
        match self.kernel.take_snapshot()? {
            Snapshot::Records(records) => self.pipeline.snapshot(&records),
            Snapshot::Procfs => self.pipeline.procfs(),
        }
        info!("{} processes ran before", self.pipeline.table_stats().processes);
        Ok(())
    }

    /// Exports events until the time is over, a signal comes, `number` events were written or nobody
    /// reads any more.
    pub(super) fn export(self, export: Box<dyn Export>, number: Option<u64>) -> Result<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.watch(export, number))
    }

    async fn watch(mut self, export: Box<dyn Export>, number: Option<u64>) -> Result<Report> {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        if self.carries_log {
            kernel::spawn_log(self.kernel.ebpf_mut()).context("cannot read the kernel programs' log")?;
        }
        let duration = self.duration.unwrap_or(Duration::MAX);
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, mut end) = oneshot::channel();
        let drain = Drain {
            kernel: Some(self.kernel),
            ring: self.ring,
            counters: self.counters,
            pipeline: self.pipeline,
            output: Output {
                export,
                left: number.unwrap_or(u64::MAX),
                failed: None,
                progress: Arc::clone(&progress),
            },
            since: self.since,
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new().name("drain".to_owned());
        // Detached: where the writer blocks for good, the program ends around it.
        thread.spawn(move || drop(ended.send(drain.run())))?;

        tokio::select! {
            report = &mut end => return finish(report),
            () = tokio::time::sleep(duration) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.store(true, Ordering::Relaxed);
        loop {
            let written = progress.load(Ordering::Relaxed);
            if let Ok(report) = tokio::time::timeout(LONGEST_STOP, &mut end).await {
                return finish(report);
            }
            if progress.load(Ordering::Relaxed) == written {
                anyhow::bail!("whoever reads the events takes none: what was under way is lost");
            }
        }
    }
}

fn finish(report: Result<Result<Report, Stopped>, oneshot::error::RecvError>) -> Result<Report> {
    Ok(report.context("the draining thread is gone")??)
}

/// What the draining thread owns.
struct Drain {
    /// Taken when the programs are to be detached.
    kernel: Option<Kernel>,
    ring: Ring,
    counters: Counters,
    pipeline: Pipeline,
    output: Output,
    since: u64,
    stop: Arc<AtomicBool>,
}

/// An export that ends.
struct Output {
    export: Box<dyn Export>,
    /// Events that are still wanted.
    left: u64,
    failed: Option<io::Error>,
    /// Raised whenever something was written.
    progress: Arc<AtomicU64>,
}

impl Output {
    /// Takes an event, if any is still wanted; whether it did.
    fn take(&mut self, event: &Event) -> bool {
        if self.is_over() {
            return false;
        }
        self.left -= 1;
        self.failed = self.export.event(event).err();
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.failed.is_none()
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.export.flush().err();
            self.progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.left == 0 || self.failed.is_some()
    }

    fn is_closed(&self) -> bool {
        self.failed.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Drain {
    fn run(mut self) -> Result<Report, Stopped> {
        let start = Instant::now();
        let (mut told, mut told_at) = (Sample::zero(), self.since);
        let mut next_sample = start + SAMPLE_INTERVAL;
        while !self.stop.load(Ordering::Relaxed) && !self.output.is_over() {
            let more = self.drain();
            let now = Instant::now();
            if now >= next_sample {
                next_sample = now + SAMPLE_INTERVAL;
                self.tell_losses(&mut told, &mut told_at);
            }
            self.output.flush();
            if !more && !self.output.is_over() {
                self.ring.wait(next_sample.saturating_duration_since(now).min(SAMPLE_INTERVAL))?;
            }
        }

        // Detach first: then what is in the ring is all there will be, and the counters stand still.
        drop(self.kernel.take());
        while self.drain() {
            self.output.flush();
        }
        self.tell_losses(&mut told, &mut told_at);
        self.output.flush();

        let quiet = self.output.is_closed();
        if let Some(error) = self.output.failed.filter(|_| !quiet) {
            return Err(Stopped::Write(error));
        }
        let stats = self.pipeline.stats().clone();
        for hook in Hook::ALL.iter().filter(|hook| !told.hook(**hook).balances()) {
            error!("the counters of {} do not add up: {:?}; this is a defect", hook.name(), told.hook(*hook));
        }
        if stats.received != told.submitted() {
            error!(
                "{} records were sent but {} received: this is a defect",
                told.submitted(),
                stats.received
            );
        }
        Ok(Report { stats, sample: told, elapsed: start.elapsed(), quiet })
    }

    /// Takes records for a while; whether there may be more.
    fn drain(&mut self) -> bool {
        let Self { ring, pipeline, output, .. } = self;
        let end = Instant::now() + LONGEST_DRAIN;
        ring.drain(|record| {
            pipeline.record(record, |event| output.take(event));
            Instant::now() < end
        })
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
        if let Some(event) = self.pipeline.loss(told, &sample, *told_at, now) {
            self.output.take(&event);
        }
        (*told, *told_at) = (sample, now);
    }
}

impl Report {
    /// Tells on standard error what was seen and what was lost.
    #[expect(clippy::print_stderr, reason = "the answer to Ctrl-C")]
    pub(super) fn tell(&self) {
        if self.quiet {
            return;
        }
        let drops = self.sample.dropped_since(&Sample::zero());
        let lost = match (drops.is_empty(), self.stats.refused) {
            (true, 0) => "nothing lost".to_owned(),
            (true, refused) => format!("{refused} could not be decoded"),
            (false, 0) => format!("lost: {}", drops_text(&drops)),
            (false, refused) => format!("lost: {}; {refused} could not be decoded", drops_text(&drops)),
        };
        let kinds = self.stats.exported.iter().map(|(kind, count)| format!("{kind} {count}"));
        eprintln!(
            "{} events in {:.1} s ({}); {} records received, {} of them not asked for; {lost}",
            self.stats.exported.values().sum::<u64>(),
            self.elapsed.as_secs_f64(),
            kinds.collect::<Vec<_>>().join(", "),
            self.stats.received,
            self.stats.discarded
        );
    }
}
