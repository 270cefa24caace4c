//! From the configuration to what the parts of the agent take.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use nightjar_show::profile::Profile;
use serde_json::{Value, json};
use wildmatch::WildMatch;

use crate::{
    config::{self, Backend, Compress, Config, Flag, Level, Loaded, Location, OneOrMany, Rule, Size},
    deliver::{self, connect::Target},
    export::file::{Compression, Rotation},
    files::{self, policy::Policies},
    kernel, network,
    pipeline::{
        Asked, Kinds,
        filter::{Action, Filter, Match, container_glob},
        redact::{self, Redactor},
    },
    process::Bounds,
    watch::NetworkOptions,
};

/// Standard output, where a file is asked for.
pub(super) const STDOUT: &str = "-";

/// What overrides the configuration, for every command that loads sensors.
#[derive(Debug, Clone, Args)]
pub(super) struct Overrides {
    /// Size of the ring buffer between kernel and agent: a power of two, such as 8MiB [default: 4MiB]
    #[arg(long, value_name = "SIZE")]
    ring_size: Option<Size>,

    /// Carry log lines of the kernel programs into the log, down to this level
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    kernel_log: Option<String>,

    /// Leave secrets in arguments as they are
    #[arg(long)]
    no_redact: bool,
}

/// Sensors are served by their kinds.
pub(super) fn known_kinds() -> Vec<&'static str> {
    nightjar_proto::KINDS.iter().map(|kind| kind.name).collect()
}

fn level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    if LEVELS.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("use one of {}", LEVELS.join(", ")))
    }
}

/// A setting from a flag.
pub(super) fn flag(name: &str, setting: &str, value: Value) -> Flag {
    Flag { setting: setting.to_owned(), value, name: name.to_owned() }
}

/// Reads the configuration.
pub(super) fn load(
    file: Option<&PathBuf>,
    flags: &[Flag],
    remote: Option<&Path>,
) -> Result<Loaded, config::Errors> {
    let at = file.map_or(Location::Default, |file| Location::Named(file.clone()));
    config::load(&at, &known_kinds(), flags, remote)
}

/// What is asked of a pipeline.
pub(super) fn asked(config: &Config) -> Result<Asked> {
    let redact = &config.redact;
    let redactor = redact.enabled.then(|| {
        let patterns = redact.patterns.iter().map(|pattern| (pattern.name.clone(), pattern.regex.clone()));
        Redactor::new(&redact::Options {
            flags: redact.flags.clone(),
            names: redact.names.clone(),
            patterns: patterns.collect(),
        })
    });
    Ok(Asked {
        kinds: Kinds::of(&config.kinds).context("kinds")?,
        filter: Filter::new(config.filters.iter().map(rule).collect::<Result<_>>().context("filters")?),
        environment: config.environment.clone(),
        redactor: redactor.transpose().context("redact")?,
    })
}

/// What is asked of file events; none where no kind of them is recorded.
pub(super) fn files(config: &Config) -> Result<Option<files::Options>> {
    let is_file = |kind: &nightjar_proto::Kind| kind.name.starts_with("file.") && config.records(kind.name);
    if !nightjar_proto::KINDS.iter().any(is_file) {
        return Ok(None);
    }
    Ok(Some(files::Options {
        policies: Policies::compile(config.files.policies()).context("files.watch")?,
        all: config.files.all,
        failed: config.files.failed,
        fold: config.files.fold.duration(),
        directories: config.files.directories as usize,
    }))
}

/// What is asked of network events.
pub(super) fn network(config: &Config) -> NetworkOptions {
    let most = config.network.connections as usize;
    NetworkOptions {
        sockets: network::Options {
            window: config.network.fold.duration(),
            idle: config.network.idle.duration(),
            connections: most,
            flows: most,
        },
        unix: config.network.unix_sockets(),
    }
}

fn rule(rule: &Rule) -> Result<(Action, Match)> {
    let texts = |some: &Option<OneOrMany>| some.iter().flat_map(OneOrMany::texts).collect::<Vec<_>>();
    let globs = |some| texts(some).iter().map(|text| WildMatch::new(text)).collect();
    let action = match rule {
        Rule::Drop(_) => Action::Drop,
        Rule::Keep(_) => Action::Keep,
    };
    let conditions = rule.conditions();
    let conditions = Match {
        kinds: conditions
            .kind
            .as_ref()
            .map(|kinds| Kinds::of(&kinds.texts().collect::<Vec<_>>()))
            .transpose()?,
        exes: globs(&conditions.exe),
        users: globs(&conditions.user),
        either_user: action == Action::Keep,
        containers: texts(&conditions.container).iter().map(|text| container_glob(text)).collect(),
        cgroups: globs(&conditions.cgroup),
    };
    Ok((action, conditions))
}

/// Settings of the kernel programs that can change while they run.
pub(super) fn of_programs(config: &Config) -> nightjar_abi::settings::Settings {
    nightjar_abi::settings::Settings {
        filters_cgroups: u64::from(!config.filters.is_empty()),
        ..nightjar_abi::settings::Settings::default()
    }
    .environment(config.environment.iter().map(String::as_str))
}

pub(super) fn kernel_options(config: &Config) -> kernel::Options {
    // At most 1 GiB, as checked.
    let ring = |size: Size| u32::try_from(size.bytes()).unwrap_or(1 << 30);
    kernel::Options {
        ring_bytes: ring(config.kernel.ring_size),
        bulk_bytes: ring(config.kernel.bulk_ring_size),
        flows: config.network.connections.saturating_mul(2),
        log_level: config.kernel.log as u8,
        settings: of_programs(config),
    }
}

pub(super) fn bounds(config: &Config) -> Bounds {
    let bytes = |size: Size| usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    Bounds {
        processes: config.tables.processes as usize,
        bytes: bytes(config.tables.process_memory),
        exited: config.tables.ended_processes as usize,
        keep_exited: config.tables.keep_ended.duration(),
    }
}

pub(super) fn rotation(config: &Config) -> Rotation {
    Rotation {
        size: config.json.rotate_size.bytes(),
        age: config.json.rotate_age.duration(),
        keep: config.json.keep,
        compression: match config.json.compress {
            Compress::None => Compression::None,
            Compress::Gzip => Compression::Gzip,
            Compress::Zstd => Compression::Zstd,
        },
    }
}

pub(super) fn history(config: &Config) -> usize {
    usize::try_from(config.history.bytes()).unwrap_or(usize::MAX)
}

/// Number of the group that may read events.
pub(super) fn socket_group(config: &Config) -> Result<Option<u32>> {
    let Some(name) = &config.socket.group else { return Ok(None) };
    let groups = fs::read_to_string("/etc/group").context("cannot read /etc/group")?;
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    number.map(Some).with_context(|| format!("socket.group: there is no group {name} in /etc/group"))
}

// === impl Overrides ===

impl Overrides {
    pub(super) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        if let Some(size) = self.ring_size {
            flags.push(flag("--ring-size", "kernel.ring_size", json!(size.to_string())));
        }
        if let Some(level) = &self.kernel_log {
            flags.push(flag("--kernel-log", "kernel.log", json!(level)));
        }
        if self.no_redact {
            flags.push(flag("--no-redact", "redact.enabled", json!(false)));
        }
        flags
    }

    /// Whether any was given: an agent that runs already does not heed them.
    pub(super) fn any(&self) -> bool {
        self.ring_size.is_some() || self.kernel_log.is_some() || self.no_redact
    }
}

/// Whether the kernel programs may say something.
pub(super) fn carries_log(config: &Config) -> bool {
    config.kernel.log != Level::Off
}

/// Name of the host, as in events.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The backend, and the way there; none where nothing is delivered.
pub(super) fn target(config: &Config) -> Result<Option<Target>> {
    let Backend { address, server_name, proxy, plaintext, .. } = &config.backend;
    let Some(address) = address else { return Ok(None) };
    let target = Target::parse(address, server_name.as_deref(), proxy.as_deref(), *plaintext);
    target.map(Some).context("backend.address")
}

/// How events are delivered; none where they are not.
pub(super) fn delivery(config: &Config) -> Result<Option<deliver::Options>> {
    let Some(target) = target(config)? else { return Ok(None) };
    let host = host();
    Ok(Some(deliver::Options {
        target,
        state: config.state_directory(),
        limits: deliver::spool::Limits {
            bytes: config.backend.spool_size.bytes(),
            sync_every: config.backend.sync.duration(),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        plaintext_name: format!("{host}-{}", config.instance),
        host,
    }))
}

/// Form of the lines of JSON.
pub(super) fn profile(config: &Config) -> Profile {
    match config.json.profile {
        config::Profile::Native => Profile::Native,
        config::Profile::Threatstack => Profile::Threatstack,
        config::Profile::Ocsf => Profile::Ocsf,
        config::Profile::Ecs => Profile::Ecs,
    }
}
