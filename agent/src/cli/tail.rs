//! `nightjar tail`

use std::{
    env,
    io::{self, IsTerminal},
    ops::ControlFlow,
    pin::pin,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use nightjar_proto::{
    agent::v1::{TailRequest, TailResponse},
    v1::Event,
};
use prost::Message as _;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use super::{
    Global, Period,
    client::{ConnectError, Target, is_final, refused},
    logging, note, say,
    sensors::{self, tell_missing_privileges},
    settings::{self, Overrides, flag},
};
use nightjar_show::{
    Export, Json,
    compact::{Compact, Style},
    expression::Expression,
    profile::Profile,
};

use crate::{
    config,
    export::hub::{Batch, Who},
    kernel,
    server::selector,
    watch::{Destinations, Patience, Report},
};

/// How long whoever takes what is shown may take nothing at the end.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(3);
/// Between two attempts to find an agent that went away.
const RECONNECT: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// How events look: compact lines for eyes, or JSON
    #[arg(short, long, value_enum, default_value_t = Output::Compact)]
    output: Output,

    /// Stop after this many events
    #[arg(short = 'n', long, value_name = "NUMBER")]
    number: Option<u64>,

    /// Stop after this long: 10s, 5m, 1h
    #[arg(long, value_name = "TIME")]
    duration: Option<Period>,

    /// Begin with events that are at most this old, as far as the agent remembers
    #[arg(long, value_name = "TIME")]
    since: Option<Period>,

    /// Only kinds that fit, as in process.exec or 'process.*'; may be given more than once, as all that follow
    #[arg(long, value_name = "GLOB", help_heading = "Which events")]
    kind: Vec<String>,

    /// Only programs whose path fits, as in '/tmp/*'
    #[arg(long, value_name = "GLOB", help_heading = "Which events")]
    exe: Vec<String>,

    /// Only this process
    #[arg(long, value_name = "PID", help_heading = "Which events")]
    pid: Vec<u32>,

    /// And all its descendants, those that there are and those to come
    #[arg(long, requires = "pid", help_heading = "Which events")]
    tree: bool,

    /// Only this user, by name or number, real or effective
    #[arg(long, value_name = "USER", help_heading = "Which events")]
    user: Vec<String>,

    /// Only this container, by its ID or the beginning of it; '*' for any container
    #[arg(long, value_name = "ID", help_heading = "Which events")]
    container: Vec<String>,

    /// Only events of which this is true: CEL over the fields of the JSON
    #[arg(long = "where", value_name = "EXPR", help_heading = "Which events")]
    condition: Option<String>,

    /// Load sensors of its own, also where an agent runs
    #[arg(long, help_heading = "Which agent")]
    standalone: bool,

    #[command(flatten, next_help_heading = "Which agent")]
    target: Target,

    #[command(flatten, next_help_heading = "Of its own sensors (these imply --standalone)")]
    overrides: Overrides,
}

const EXAMPLES: &str = "\
Without an agent that runs, tail loads sensors of its own, which needs root.

Examples:
  nightjar tail --kind process.exec --user root
  nightjar tail --pid 4242 --tree
  nightjar tail --since 1m -o json | jq .process.args
  nightjar tail --where 'process.uid == 0 && process.loginuid >= 1000'
  nightjar tail --where 'process.exe.path.startsWith(\"/tmp/\") || \"setuid\" in exec.privileges_gained'";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Compact,
    Json,
}

pub(super) fn tail(global: &Global, arguments: &Arguments) -> Result<()> {
    let condition = arguments.condition.as_deref().map(Expression::compile).transpose().context("--where")?;
    let request = arguments.request();
    selector(&request).map_err(|wrong| anyhow::anyhow!("--kind: {wrong}"))?;
    let target = arguments.target.or_configured(global.config.as_ref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let standalone = arguments.standalone || arguments.overrides.any();
    if !standalone {
        match runtime.block_on(target.connect()) {
            Ok(client) => {
                logging::start(global.verbose, &config::Config::default());
                return runtime.block_on(attached(client, &target, arguments, request, condition));
            }
            Err(ConnectError::Nobody(_)) if !arguments.target.is_named() => {}
            Err(error) => return Err(error.into()),
        }
    }
    drop(runtime);
    alone(global, arguments, &request, condition)
}

impl Arguments {
    fn request(&self) -> TailRequest {
        TailRequest {
            kinds: self.kind.clone(),
            exes: self.exe.clone(),
            pids: self.pid.clone(),
            tree: self.tree,
            users: self.user.clone(),
            containers: self.container.clone(),
            since_ns: self.since.map_or(0, |since| nanoseconds(since.duration())),
        }
    }

    fn printer(&self, condition: Option<Expression>) -> Printer {
        let export: Box<dyn Export> = match self.output {
            Output::Compact => Box::new(Compact::new(io::stdout(), style())),
            Output::Json => Box::new(Json::new(io::stdout(), Profile::Native)),
        };
        Printer { export, condition, left: self.number.unwrap_or(u64::MAX), shown: 0, missed: 0 }
    }

    async fn until(&self) {
        match self.duration {
            Some(duration) => tokio::time::sleep(duration.duration()).await,
            None => std::future::pending().await,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Shows what sensors of its own see.
fn alone(
    global: &Global,
    arguments: &Arguments,
    request: &TailRequest,
    condition: Option<Expression>,
) -> Result<()> {
    let mut flags = arguments.overrides.flags();
    if !arguments.kind.is_empty() {
        flags.push(flag("--kind", "kinds", json!(arguments.kind)));
    }
    let configuration = settings::load(global.config.as_ref(), &flags, None)?;
    let config = &configuration.config;
    logging::start(global.verbose, config);
    note("loading sensors …");
    tell_missing_privileges()?;
    let mut loaded = sensors::load(config)?;
    if request.since_ns > 0 {
        say("--since: no agent runs here, so nobody remembers what was before");
    }
    let selector = selector(request).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (report, told) = runtime.block_on(async {
        if settings::carries_log(config) {
            kernel::spawn_log(loaded.kernel_mut().ebpf_mut())
                .context("cannot read the kernel programs' log")?;
        }
        let who = Who { pid: std::process::id(), uid: rustix::process::getuid().as_raw() };
        let reader = Some((selector, request.tree, who));
        let mut watch = loaded.watch(Destinations { reader, ..Destinations::default() })?;
        let subscription = watch.take_reader().context("there is no reader")??;
        let mut writer = Writer::start(arguments.printer(condition))?;
        let mut end = pin!(end(arguments));
        loop {
            tokio::select! {
                batch = subscription.queue.next() => {
                    let Some(batch) = batch else { break };
                    if writer.write(batch, &mut end).await.is_break() {
                        break;
                    }
                }
                () = watch.over() => break,
                () = writer.over() => break,
                () = &mut end => break,
            }
        }
        note("detaching sensors …");
        let report = watch.stop(Patience::WhileItMoves).await?;
        while let Some(batch) = subscription.queue.next().await
            && writer.write_rest(batch).await.is_continue()
        {}
        anyhow::Ok((report, writer.finish().await?))
    })?;
    tell_alone(&report, &told);
    Ok(())
}

/// Shows what a running agent sees.
async fn attached(
    mut client: nightjar_proto::agent::v1::agent_client::AgentClient<tonic::transport::Channel>,
    target: &Target,
    arguments: &Arguments,
    mut request: TailRequest,
    condition: Option<Expression>,
) -> Result<()> {
    let start = Instant::now();
    let mut writer = Writer::start(arguments.printer(condition))?;
    let mut end = pin!(end(arguments));
    let path = target.path();
    let (mut gone, mut is_whole) = (None, true);
    'agents: loop {
        let answer = tokio::select! {
            answer = client.tail(request.clone()) => answer,
            () = &mut end => break,
        };
        match answer {
            Ok(answer) => {
                if gone.take().is_some() {
                    say("the agent is back");
                }
                let mut events = answer.into_inner();
                // It stopped when there are no more; it was killed, or gave up on this reader, when that fails.
                while let Some(answer) = tokio::select! {
                    answer = events.message() => {
                        is_whole &= answer.is_ok();
                        answer.ok().flatten()
                    }
                    () = writer.over() => break 'agents,
                    () = &mut end => break 'agents,
                } {
                    let TailResponse { events, missed } = answer;
                    if writer.write(Batch { events, missed }, &mut end).await.is_break() {
                        break 'agents;
                    }
                }
                say("the agent is gone; waiting for it to come back (Ctrl-C ends this)");
            }
            // It was about to end when it was found again.
            Err(status) if gone.is_some() && !is_final(&status) => {}
            Err(status) => return Err(refused(&path, &status)),
        }
        let gone_at = *gone.get_or_insert_with(Instant::now);
        client = loop {
            tokio::select! {
                () = tokio::time::sleep(RECONNECT) => {}
                () = writer.over() => break 'agents,
                () = &mut end => break 'agents,
            }
            match target.connect().await {
                Ok(client) => break client,
                Err(ConnectError::Nobody(_) | ConnectError::Silent(_) | ConnectError::Other(..)) => {}
                Err(error) => return Err(error.into()),
            }
        };
        request.since_ns = nanoseconds(gone_at.elapsed());
    }
    let told = writer.finish().await?;
    if !told.quiet {
        let missed = match told.missed {
            0 if is_whole => "none missed".to_owned(),
            0 => "those of an agent that was killed may be missing".to_owned(),
            missed => format!("{missed} missed, as they were read too slowly"),
        };
        say(&format!("{} events shown in {:.1} s; {missed}", told.shown, start.elapsed().as_secs_f64()));
    }
    Ok(())
}

fn tell_alone(report: &Report, told: &Told) {
    if told.quiet {
        return;
    }
    report.tell();
    if told.missed > 0 {
        say(&format!("{} events not shown, as they were read too slowly", told.missed));
    }
}

/// Comes back when it is time to end: a signal, or the time is over.
async fn end(arguments: &Arguments) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        () = arguments.until() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Makes lines of events.
struct Printer {
    export: Box<dyn Export>,
    condition: Option<Expression>,
    /// Events that are still wanted.
    left: u64,
    shown: u64,
    missed: u64,
}

/// What came of it.
struct Told {
    shown: u64,
    missed: u64,
    /// The reader went away: it does not want to hear more.
    quiet: bool,
}

impl Printer {
    fn batch(&mut self, batch: Batch) -> io::Result<ControlFlow<()>> {
        for event in batch.events {
            if self.left == 0 {
                break;
            }
            self.event(event)?;
        }
        self.export.flush()?;
        if batch.missed > 0 && self.left > 0 {
            self.missed += batch.missed;
            say(&format!("{} events are missing here, as those before were read too slowly", batch.missed));
        }
        Ok(if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn event(&mut self, encoded: Bytes) -> io::Result<()> {
        let event = Event::decode(encoded).map_err(io::Error::other)?;
        if self.condition.as_ref().is_none_or(|condition| condition.fits(&event)) {
            self.export.event(&event)?;
            self.left -= 1;
            self.shown += 1;
        }
        Ok(())
    }
}

/// A printer on a thread of its own: where standard output takes nothing, signals are heard all the same.
struct Writer {
    batches: Option<mpsc::Sender<Batch>>,
    end: oneshot::Receiver<io::Result<Printer>>,
    ended: Option<io::Result<Printer>>,
    /// Could not be handed over before the end.
    last: Option<Batch>,
}

impl Writer {
    fn start(mut printer: Printer) -> Result<Self> {
        let (batches, mut to_write) = mpsc::channel::<Batch>(1);
        let (ended, end) = oneshot::channel();
        thread::Builder::new()
            .name("print".to_owned())
            .spawn(move || {
                let mut result = Ok(ControlFlow::Continue(()));
                while matches!(result, Ok(ControlFlow::Continue(())))
                    && let Some(batch) = to_write.blocking_recv()
                {
                    result = printer.batch(batch);
                }
                drop(ended.send(result.map(|_| printer)));
            })
            .context("cannot start a thread")?;
        Ok(Self { batches: Some(batches), end, ended: None, last: None })
    }

    /// Hands over a batch as soon as the one before was written. Where `end` comes first, the batch is the last one,
    /// and handed over at the end.
    async fn write(&mut self, batch: Batch, end: impl Future<Output = ()>) -> ControlFlow<()> {
        let Some(batches) = &self.batches else { return ControlFlow::Break(()) };
        tokio::select! {
            place = batches.reserve() => match place {
                Ok(place) => {
                    place.send(batch);
                    ControlFlow::Continue(())
                }
                // All was shown that was asked for, or nobody reads.
                Err(_) => ControlFlow::Break(()),
            },
            () = end => {
                self.last = Some(batch);
                ControlFlow::Break(())
            }
        }
    }

    /// Hands over what is left, as long as somebody takes it.
    async fn write_rest(&mut self, batch: Batch) -> ControlFlow<()> {
        for batch in self.last.take().into_iter().chain([batch]) {
            let too_long = tokio::time::sleep(LONGEST_STANDSTILL);
            if self.write(batch, too_long).await.is_break() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Comes back when nothing more is wanted.
    async fn over(&mut self) {
        if self.ended.is_none() {
            let ended = (&mut self.end).await;
            self.ended = Some(ended.unwrap_or_else(|_| Err(io::Error::other("the writer is gone"))));
        }
    }

    async fn finish(mut self) -> Result<Told> {
        if self.last.is_some() {
            let _nobody_reads = self.write_rest(Batch::default()).await;
        }
        drop(self.batches.take());
        if tokio::time::timeout(LONGEST_STANDSTILL, self.over()).await.is_err() {
            bail!("whoever reads the events takes none: what was under way is lost");
        }
        match self.ended.expect("it is over") {
            Ok(printer) => {
                if let Some(error) = printer.condition.as_ref().and_then(Expression::first_error) {
                    say(&format!("--where could not be told of some events, which are not shown: {error}"));
                }
                Ok(Told { shown: printer.shown, missed: printer.missed, quiet: false })
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Told { shown: 0, missed: 0, quiet: true })
            }
            Err(error) => Err(error).context("cannot write events"),
        }
    }
}

/// Colours and cut lines on a terminal only. <https://no-color.org>
pub(super) fn style() -> Style {
    if !io::stdout().is_terminal() {
        return Style::default();
    }
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let width = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    Style { colour: !no_colour, width: width.filter(|columns| *columns > 0) }
}
