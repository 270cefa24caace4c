//! `nightjar run`

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_proto::v1::{self, ConfigurationAnswer, ConfigurationUpdate, configuration_answer::Outcome};
use nightjar_show::Json;
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    Global, Period,
    logging::{self, Log},
    note,
    remote::{self, Remote},
    sensors::{self, tell_missing_privileges},
    settings::{self, Overrides, STDOUT, flag},
};
use crate::{
    config::{self, Config, Flag, Loaded as Configuration},
    deliver::{
        Delivery, Link,
        control::{Control, Order},
        delivery::{Linked, identity_directory},
        renew,
    },
    export::JsonFile,
    kernel,
    pipeline::Kinds,
    server::{self, About, Answers, Serving, Socket},
    service::{Lock, Notifier},
    watch::{Change, Destinations, FileChange, Loaded, Patience, Watch, wanted},
};

/// Where locks and sockets are.
const RUN_FOLDER: &str = "/run/nightjar";
/// The agent has no end of its own.
const FOREVER: Duration = Duration::from_hours(100 * 365 * 24);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write events as lines of JSON to this file, which is rotated; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Only kinds that fit, as in process.exec, 'process.*' or '!process.exit'; may be given more than once
    #[arg(long, value_name = "GLOB")]
    kind: Vec<String>,

    /// Stop after this long: 10s, 5m, 1h
    #[arg(long, value_name = "TIME")]
    duration: Option<Period>,

    /// Name of this agent, for more than one on a host
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// Deliver events to this backend: https://HOST:PORT
    #[arg(long, value_name = "URL")]
    backend: Option<String>,

    /// Directory of what is kept from one start to the next: spool, identity
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,

    /// Socket to answer tail and status on
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    #[command(flatten)]
    overrides: Overrides,
}

impl Arguments {
    fn flags(&self) -> Vec<Flag> {
        let mut flags = self.overrides.flags();
        if let Some(file) = &self.json {
            flags.push(flag("--json", "json.file", json!(file)));
        }
        if !self.kind.is_empty() {
            flags.push(flag("--kind", "kinds", json!(self.kind)));
        }
        if let Some(instance) = &self.instance {
            flags.push(flag("--instance", "instance", json!(instance)));
        }
        if let Some(backend) = &self.backend {
            flags.push(flag("--backend", "backend.address", json!(backend)));
        }
        if let Some(state) = &self.state {
            flags.push(flag("--state", "state", json!(state)));
        }
        if let Some(socket) = &self.socket {
            flags.push(flag("--socket", "socket.path", json!(socket)));
        }
        flags
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<()> {
    let flags = arguments.flags();
    let mut configuration = settings::load(global.config.as_ref(), &flags, None)?;
    let log = logging::start(global.verbose, &configuration.config);
    let mut remote = Remote::open(&configuration.config);
    if let Some(file) = remote.file() {
        match settings::load(global.config.as_ref(), &flags, Some(file)) {
            Ok(steered) => configuration = steered,
            Err(refused) => {
                warn!("what came from the backend is left out, as this agent cannot use it:\n{refused:#}");
                remote.leave_out();
            }
        }
    }
    let config = &configuration.config;
    if !gets_out(config) {
        bail!(
            "nobody would get the events: give --json FILE or set json.file, set backend.address, or enable the \
             socket"
        );
    }
    let notifier = Notifier::from_environment();
    let _lock = Lock::take(Path::new(RUN_FOLDER), &config.instance)?;

    // To give it to a group takes a right that is given up below.
    let socket = if config.socket.enabled {
        Some(Socket::bind(&config.socket_path(), settings::socket_group(config)?)?)
    } else {
        None
    };
    tell_missing_privileges()?;
    let loaded = sensors::load(config)?;
    // With the rights that will rotate it.
    let (destinations, link) = open(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let duration = arguments.duration.map(Period::duration);
    let setup = Setup { config_file: global.config.clone(), flags, configuration, remote, log, notifier };
    let report = runtime.block_on(async move {
        let agent = Box::pin(Agent::start(setup, loaded, destinations, socket, link)).await?;
        agent.run(duration.unwrap_or(FOREVER)).await
    })?;
    report.tell();
    Ok(())
}

/// Whether there is any way for an event to somebody.
fn gets_out(config: &Config) -> bool {
    config.json.file.is_some() || config.socket.enabled || config.backend.address.is_some()
}

/// Outputs as the configuration has them, and the way to the backend.
fn open(config: &Config) -> Result<(Destinations, Option<Link>)> {
    let mut to = Destinations { history: settings::history(config), ..Destinations::default() };
    match &config.json.file {
        None => {}
        Some(path) if path == Path::new(STDOUT) => {
            to.stream = Some(Box::new(Json::new(io::stdout(), settings::profile(config))));
        }
        Some(path) => to.file = Some(open_file(path, config)?),
    }
    let link = match settings::delivery(config)? {
        None => None,
        Some(options) => {
            let (delivery, link) = Delivery::open(options)?;
            to.delivery = Some((delivery, link.complete_until));
            Some(link)
        }
    };
    Ok((to, link))
}

fn open_file(path: &Path, config: &Config) -> Result<JsonFile> {
    let (file, opened) =
        JsonFile::open(path.to_owned(), settings::profile(config), settings::rotation(config))
            .with_context(|| format!("cannot write events to {}", path.display()))?;
    if opened.cut > 0 {
        warn!(
            "{} ended in the middle of a line: {} bytes of an unfinished event were cut off",
            opened.path.display(),
            opened.cut
        );
    }
    for warning in opened.warnings {
        warn!("{warning}");
    }
    Ok(file)
}

/// Where the configuration comes from, and whom to tell what becomes of it.
struct Setup {
    config_file: Option<PathBuf>,
    flags: Vec<Flag>,
    configuration: Configuration,
    /// What the backend set of it.
    remote: Remote,
    log: Log,
    notifier: Notifier,
}

/// A running agent.
struct Agent {
    setup: Setup,
    /// What it was started with: some settings count until its end.
    started: Config,
    watch: Watch,
    answers: Answers,
    _socket: Option<Serving>,
    metrics: Option<Serving>,
    /// To the backend.
    link: Option<Linked>,
    /// From the backend.
    orders: mpsc::Receiver<Order>,
    /// Version of the configuration that came from the backend.
    version: watch::Sender<String>,
    /// The last attempt to read the configuration again failed.
    refused: bool,
}

/// Signals that the agent obeys.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        // Handled by a counter of what was not written, instead of the end of the program.
        let _handled = signal(SignalKind::from_raw(libc::SIGXFSZ))?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Agent {
    async fn start(
        setup: Setup,
        mut loaded: Loaded,
        destinations: Destinations,
        socket: Option<Socket>,
        link: Option<Link>,
    ) -> Result<Self> {
        let config = &setup.configuration.config;
        if settings::carries_log(config) {
            kernel::spawn_log(loaded.kernel_mut().ebpf_mut())
                .context("cannot read the kernel programs' log")?;
        }
        let watch = loaded.watch(destinations)?;
        let about = About::default();
        about.update(|status| {
            env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
            status.instance.clone_from(&config.instance);
            status.pid = std::process::id();
            status.host = settings::host();
            status.started = Some(SystemTime::now().into());
            status.configuration = Some(v1::Configuration {
                files: files(&setup.configuration),
                loaded: Some(SystemTime::now().into()),
                ..v1::Configuration::default()
            });
        });
        let answers = Answers::new(watch.handle(), about);
        let socket = socket.map(|socket| socket.serve(&answers)).transpose()?;
        let metrics = match config.metrics.listen {
            Some(address) => Some(server::listen_for_metrics(address, &answers).await?),
            None => None,
        };
        let started = config.clone();
        let (version, of_control) = watch::channel(setup.remote.version().to_owned());
        let (to_agent, orders) = mpsc::channel(1);
        let link = match link {
            None => None,
            Some(link) => {
                let control = Control {
                    hello: hello(&link.agent_id),
                    answers: answers.clone(),
                    orders: config.backend.configure.then_some(to_agent),
                    may_tail: config.backend.tail,
                    version: of_control,
                };
                let connection = link.channel();
                let renewal = renew::run(identity_directory(&config.state_directory()), connection.clone());
                let is_known = config.backend.address.as_deref().is_some_and(|url| url.starts_with("https"));
                let beside = async move {
                    if is_known {
                        tokio::join!(control.run(connection), renewal);
                    } else {
                        control.run(connection).await;
                    }
                };
                Some(link.start(beside)?)
            }
        };
        Ok(Self {
            setup,
            started,
            watch,
            answers,
            _socket: socket,
            metrics,
            orders,
            version,
            link,
            refused: false,
        })
    }

    async fn run(mut self, duration: Duration) -> Result<crate::watch::Report> {
        let mut signals = Signals::listen()?;
        let mut watchdog = Watchdog::new(&self.setup.notifier);
        let end = Instant::now() + duration;
        self.setup.notifier.ready(&self.line());
        note(&self.line());
        let patience = loop {
            tokio::select! {
                () = self.watch.over() => break Patience::WhileItMoves,
                () = sleep_until(end) => break Patience::WhileItMoves,
                _ = signals.interrupt.recv() => break Patience::WhileItMoves,
                _ = signals.terminate.recv() => break Patience::Seconds,
                _ = signals.hangup.recv() => self.reload().await,
                Some(order) = self.orders.recv() => self.obey(order).await,
                () = watchdog.due() => watchdog.ping(&self.setup.notifier, self.answers.handle.progress()),
            }
        };
        let Self { setup, watch, answers, _socket, link, .. } = self;
        setup.notifier.stopping("handing over what is under way");
        note("stopping: detaching sensors, handing over what is under way");
        tokio::select! {
            report = async {
                let report = watch.stop(patience).await;
                answers.farewell().await;
                // What it waits for happens on another thread.
                drop(link);
                report
            } => report,
            _ = signals.interrupt.recv() => bail!("interrupted twice: what was under way is lost"),
        }
    }

    /// Reads the configuration again. What is wrong with it is told, and the agent goes on as before.
    async fn reload(&mut self) {
        self.setup.notifier.reloading();
        let read = self.read(self.setup.remote.file()).map_err(Into::into);
        let applied = match read {
            Ok(new) => self.apply(new).await,
            Err(refused) => Err(refused),
        };
        match applied {
            Ok(pending) => self.applied(pending),
            Err(refused) => {
                self.refused = true;
                error!(
                    "the configuration is refused, the agent goes on with the one that it has:\n{refused:#}"
                );
                self.answers.about.update(|status| {
                    status.configuration.get_or_insert_default().refused = format!("{refused:#}");
                });
            }
        }
        self.setup.notifier.ready(&self.line());
    }

    /// The configuration as the files have it now, with that from the backend.
    fn read(&self, remote: Option<&Path>) -> Result<Configuration, config::Errors> {
        settings::load(self.setup.config_file.as_ref(), &self.setup.flags, remote)
    }

    /// Tells that a new configuration is in force.
    fn applied(&mut self, pending: Vec<String>) {
        info!("the configuration was read again");
        self.refused = false;
        for setting in &pending {
            warn!("{setting} counts from the next start on");
        }
        let files = files(&self.setup.configuration);
        let version = self.setup.remote.version().to_owned();
        self.answers.about.update(|status| {
            let configuration = status.configuration.get_or_insert_default();
            configuration.files = files;
            configuration.loaded = Some(SystemTime::now().into());
            configuration.reloads += 1;
            configuration.refused.clear();
            configuration.pending = pending;
            configuration.backend_version = version;
        });
    }

    /// Does as the backend says, or tells why not.
    async fn obey(&mut self, order: Order) {
        self.setup.notifier.reloading();
        let Order { update: ConfigurationUpdate { version, configuration_yaml, policies }, reply } = order;
        let answer = |outcome: Outcome, reason: String, pending| ConfigurationAnswer {
            version: version.clone(),
            outcome: outcome.into(),
            reason,
            pending,
        };
        let staged = remote::with_policies(&configuration_yaml, &policies)
            .and_then(|yaml| self.setup.remote.stage(&version, &yaml));
        let staged = staged.and_then(|staged| {
            let new = self.read(staged.path())?;
            Ok((staged, new))
        });
        let answer = match staged {
            Err(refused) => answer(Outcome::Refused, format!("{refused:#}"), Vec::new()),
            Ok((staged, new)) => match self.apply(new).await {
                Err(failed) => answer(Outcome::RolledBack, format!("{failed:#}"), Vec::new()),
                Ok(pending) => {
                    let kept = self.setup.remote.keep(&staged);
                    self.moved(staged.path());
                    self.applied(pending.clone());
                    let reason =
                        kept.err().map(|error| format!("it is not kept for the next start: {error}"));
                    answer(Outcome::Applied, reason.unwrap_or_default(), pending)
                }
            },
        };
        if !answer.reason.is_empty() {
            warn!("configuration {version} from the backend: {}", answer.reason);
        }
        self.version.send_replace(self.setup.remote.version().to_owned());
        self.setup.notifier.ready(&self.line());
        // The backend asks again when it finds out that it has no answer.
        let _gone = reply.send(answer);
    }

    /// What the backend sent has its lasting name now.
    fn moved(&mut self, staged: Option<&Path>) {
        let files = &mut self.setup.configuration.files;
        if let Some(file) = files.iter_mut().find(|file| Some(file.as_path()) == staged)
            && let Some(kept) = self.setup.remote.file()
        {
            kept.clone_into(file);
        }
    }

    /// Does as a configuration says; gives what has to wait for the next start. Whatever can fail comes first.
    async fn apply(&mut self, mut new: Configuration) -> Result<Vec<String>> {
        let old = self.setup.configuration.config.clone();
        let old = &old;
        let mut pending = config::needs_restart(&self.started, &new.config);
        let is_stdout = |config: &Config| config.json.file.as_deref() == Some(Path::new(STDOUT));
        if is_stdout(old) && old.json.profile != new.config.json.profile {
            pending.push("json.profile".to_owned());
        }
        if is_stdout(old) != is_stdout(&new.config) {
            pending.push("json.file".to_owned());
            new.config.json.file.clone_from(&old.json.file);
        }
        let config = &new.config;
        if config.json.file.is_none()
            && !gets_out(&Config { json: config.json.clone(), ..self.started.clone() })
        {
            bail!(
                "nobody would get the events: json.file is taken away, and there is neither socket nor backend"
            );
        }
        let asked = settings::asked(config)?;
        let file = match &config.json.file {
            same if *same == old.json.file => (config.json != old.json)
                .then(|| FileChange::Same(settings::profile(config), settings::rotation(config))),
            None => Some(FileChange::None),
            Some(path) => Some(FileChange::Other(Box::new(open_file(path, config)?))),
        };
        let kinds = Kinds::of(&config.kinds)?;
        let files = settings::files(config)?;
        let wanted = wanted(kinds, files.as_ref());
        let adjusted = self.watch.adjust(wanted).await;
        let (sensors, programs) = adjusted.context("what more is asked for takes a restart of the agent")?;
        self.listen_for_metrics(config.metrics.listen, old.metrics.listen).await?;

        self.setup.log.follow(config);
        self.watch.change(Change {
            asked,
            settings: settings::of_programs(config),
            files,
            network: settings::network(config),
            file,
            history: settings::history(config),
            sensors,
            programs,
        });
        self.setup.configuration = new;
        Ok(pending)
    }

    /// Listens on another address, or as before where that cannot be had.
    async fn listen_for_metrics(&mut self, new: Option<SocketAddr>, old: Option<SocketAddr>) -> Result<()> {
        if new == old {
            return Ok(());
        }
        // The new address may be a narrower one of the same port.
        if let Some(metrics) = self.metrics.take() {
            metrics.stop().await;
        }
        let Some(address) = new else { return Ok(()) };
        match server::listen_for_metrics(address, &self.answers).await {
            Ok(metrics) => self.metrics = Some(metrics),
            Err(refused) => {
                if let Some(address) = old {
                    self.metrics = Some(server::listen_for_metrics(address, &self.answers).await?);
                }
                return Err(refused.into());
            }
        }
        Ok(())
    }

    /// For `systemctl status`.
    fn line(&self) -> String {
        let config = &self.setup.configuration.config;
        let file = match &config.json.file {
            Some(file) => format!("watching; events go to {}", file.display()),
            None => "watching; events go to whoever asks".to_owned(),
        };
        if self.refused {
            format!("the new configuration is refused, the old one counts; {file}")
        } else {
            file
        }
    }
}

/// Who the agent is, for the backend.
fn hello(agent_id: &str) -> v1::ControlHello {
    v1::ControlHello {
        agent_id: agent_id.to_owned(),
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: settings::host(),
        schema: 1,
        oldest_schema: 1,
        configuration_version: String::new(),
    }
}

fn files(configuration: &Configuration) -> Vec<String> {
    configuration.files.iter().map(|file| file.display().to_string()).collect()
}

/// Tells the service manager that events still flow.
struct Watchdog {
    ticks: Option<Interval>,
    progress: Option<u64>,
}

impl Watchdog {
    fn new(notifier: &Notifier) -> Self {
        let ticks = notifier.ping_every().map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, progress: None }
    }

    async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Silent where nothing was done since the last time: then something hangs.
    fn ping(&mut self, notifier: &Notifier, progress: u64) {
        if self.progress.replace(progress) == Some(progress) {
            warn!("events are not being handed over; the watchdog is not told otherwise");
        } else {
            notifier.ping();
        }
    }
}
