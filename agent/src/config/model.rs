//! The settings.
//!
//! What is said of a setting here is its documentation, in the schema, in the example and in the docs: unit,
//! what happens without it, what follows from it. Its range and its default are added to that by themselves.

use std::{net::SocketAddr, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{
    shape,
    units::{Period, Size},
};
use crate::files::policy::{self, PolicySpec};

/// All settings of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Configuration of Nightjar")]
pub struct Config {
    /// Which kinds of events are recorded: globs, in order. One that begins with `!` takes away again what
    /// it fits. What no glob names is not asked of the kernel, so it costs nothing. That events were lost is
    /// told in any case.
    #[schemars(schema_with = "shape::kinds")]
    pub kinds: Vec<String>,

    /// Rules that drop events or keep them, in order. The first that fits an event decides; an event that no
    /// rule fits is kept. Dropped events are counted.
    ///
    /// A rule has conditions, each one text or a list of which any may fit. All that are given must fit; a
    /// rule without any (`drop: {}`) fits every event.
    ///
    /// ```yaml
    /// filters:
    ///   - keep: {user: root}
    ///   - drop: {exe: [/usr/bin/node_exporter, "*/kubelet"], kind: process.exit}
    ///   - drop: {container: "*"}
    /// ```
    #[schemars(schema_with = "shape::filters")]
    pub filters: Vec<Rule>,

    /// Environment variables that are recorded at an exec, by name. Of all others nothing is taken.
    #[schemars(schema_with = "shape::environment")]
    pub environment: Vec<String>,

    /// Masking of secrets in arguments and in recorded environment variables.
    pub redact: Redact,

    /// Which files are watched, and how much is recorded of them. Whether events of files are recorded at all,
    /// and which kinds of these, is up to `kinds`.
    pub files: Files,

    /// How much is recorded of sockets. Whether events of them are recorded at all, and which kinds of these, is up
    /// to `kinds`.
    pub network: Network,

    /// Events as lines of JSON, in a file that is rotated or on standard output.
    pub json: Json,

    /// The backend that events are delivered to.
    #[schemars(extend("x-restart" = true))]
    pub backend: Backend,

    /// Directory of what the agent keeps from one start to the next: the spool, the identity by which the backend knows
    /// it, and the configuration that came from there. Without it `/var/lib/nightjar/INSTANCE`, where INSTANCE is the
    /// setting `instance`.
    #[schemars(schema_with = "shape::directory", extend("x-restart" = true))]
    pub state: Option<PathBuf>,

    /// The socket that `nightjar tail` and `nightjar status` speak to.
    #[schemars(extend("x-restart" = true))]
    pub socket: Socket,

    /// Memory for the latest events, from which `nightjar tail --since` is served. `0` keeps none.
    #[schemars(extend("x-range" = {"most": "1GiB", "zero": true}))]
    pub history: Size,

    /// Counters for Prometheus, over HTTP.
    pub metrics: Metrics,

    /// The programs in the kernel and what they write to.
    pub kernel: Kernel,

    /// How much is remembered of processes, for the names and parents in events.
    #[schemars(extend("x-restart" = true))]
    pub tables: Tables,

    /// What the agent may still do once it has started.
    pub privileges: Privileges,

    /// Name of this agent, for more than one on a host. The default socket is called after it.
    #[schemars(schema_with = "shape::instance", extend("x-restart" = true))]
    pub instance: String,

    /// What the agent says of itself on standard error: this and what is graver.
    pub log: Level,
}

/// What becomes of the events that the conditions fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// They are counted and not exported.
    Drop(Match),
    /// They are exported, whatever the rules below say.
    Keep(Match),
}

/// Conditions, each one text or a list of which any may fit. All that are given must; none at all fit every
/// event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// Kind of the event; a glob.
    #[schemars(schema_with = "shape::match_kind")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<OneOrMany>,
    /// Path of the program that runs, in its own mount namespace; a glob, whose `*` also fits `/`. In a user
    /// namespace of its own a process can have any file at any path: there a `drop` by path never fits.
    #[schemars(schema_with = "shape::match_exe")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<OneOrMany>,
    /// Name of the user, a glob, or its number. A `drop` fits only where both the real and the effective user do, so
    /// that nobody's set-user-ID program is dropped with its caller; for a `keep` either is enough.
    #[schemars(schema_with = "shape::match_user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<OneOrMany>,
    /// ID of the container, or how it begins; `*` alone fits whatever runs in any container. A `drop` does not
    /// believe what cgroups below `/user.slice` are called, as users make these.
    #[schemars(schema_with = "shape::match_container")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<OneOrMany>,
    /// Path of the cgroup, without the mount point; a glob, whose `*` also fits `/`.
    #[schemars(schema_with = "shape::match_cgroup")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<OneOrMany>,
}

/// One text or several, as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(TextOrNumber),
    /// Any of these.
    Many(Vec<TextOrNumber>),
}

/// Text, or a number such as that of a user, as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TextOrNumber {
    /// A number.
    Number(u32),
    /// A text.
    Text(String),
}

/// Masking of secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redact {
    /// Whether secrets are masked. Without it passwords, tokens and keys in arguments get into the events as
    /// they are, and to everybody who may read those.
    pub enabled: bool,
    /// Flags whose value is a secret, besides those that are known anyway, of at least two letters: those of
    /// one mean something else with each program. Case does not matter, nor how many dashes there are.
    #[schemars(schema_with = "shape::flags")]
    pub flags: Vec<String>,
    /// Names whose value is a secret where an argument or a variable is `NAME=value`, besides those that are
    /// known anyway. Globs with at least two letters in a row; case does not matter.
    #[schemars(schema_with = "shape::names")]
    pub names: Vec<String>,
    /// Regular expressions, in the syntax of the Rust crate `regex`, for secrets that neither a flag nor a
    /// name tells. They are looked for within each argument, in bytes: `.` is one byte, `\w` an ASCII letter,
    /// digit or `_`. The first group is masked, or all that fits where there is none.
    ///
    /// ```yaml
    /// patterns:
    ///   - {name: employee token, regex: 'emp_[0-9a-f]{32}'}
    /// ```
    #[schemars(schema_with = "shape::patterns")]
    pub patterns: Vec<Pattern>,
}

/// What a secret looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a pattern")]
pub struct Pattern {
    /// What to call it, in messages.
    #[schemars(schema_with = "shape::pattern_name")]
    pub name: String,
    /// The regular expression.
    #[schemars(schema_with = "shape::regex")]
    pub regex: String,
}

/// Which files are watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// Whether the policies that the agent comes with hold besides those of `watch`. They cover accounts, ssh,
    /// what runs at a start or a login, programs and libraries, secrets, and `/etc`; `docs/watch-policies.md`
    /// has each of them.
    pub defaults: bool,
    /// Policies of your own: paths, and which operations on them are recorded. Nothing is recorded of a file
    /// that no policy covers, but for `all`.
    ///
    /// The first policy that covers the path, has the operation and does not ignore the file names the event.
    /// Those that stand here come first, in their order, then those that the agent comes with. A policy with
    /// the name of one of these replaces it, and comes first as well.
    ///
    /// ```yaml
    /// watch:
    ///   - {name: web server, paths: [/etc/nginx], recursive: true, ignore: ["*.swp"]}
    ///   - name: customers
    ///     paths: ["/srv/*/invoices", "/srv/**/*.key"]
    ///     operations: [read, change]
    ///     containers: true
    /// ```
    #[schemars(schema_with = "shape::watch")]
    pub watch: Vec<Watch>,
    /// Whether the files that no policy covers are recorded too, wherever they are. That is a flood of
    /// events on a busy host; `kinds` and `filters` make it less.
    pub all: bool,
    /// Whether opens that failed are recorded too, with the error.
    pub failed: bool,
    /// Repeats of an operation by the same process on the same file within this time become one event with
    /// their count. `0`: each is an event.
    #[schemars(extend("x-range" = {"most": "1m", "zero": true}))]
    pub fold: Period,
    /// Directories that are watched at a time, each with a mark (fanotify). It bounds the memory for that, in
    /// the kernel too; what policies cover beyond it is not watched.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub directories: u32,
}

/// Paths, and which operations on them are recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "a policy")]
pub struct Watch {
    /// What to call it, in events. Each policy has a name of its own.
    #[schemars(schema_with = "shape::policy_name")]
    pub name: String,
    /// Absolute paths, or globs over such. `*`, `?`, `[abc]` and `[!a-z]` are within a name, and a name that
    /// begins with a dot is like any other; `**` alone between slashes is any number of directories. `\` goes
    /// before a character that stands for itself. A file need not be there yet. A path covers the file or
    /// directory, and the direct entries of a directory.
    #[schemars(schema_with = "shape::watch_paths")]
    pub paths: Vec<String>,
    /// Whether the paths cover all that is below a directory, at any depth. Without it they do not.
    #[serde(default)]
    pub recursive: bool,
    /// What the policy leaves out: globs over names of files, or with a `/` over whole paths. Policies that
    /// come after it may cover that all the same.
    #[serde(default)]
    #[schemars(schema_with = "shape::watch_ignore")]
    pub ignore: Vec<String>,
    /// Operations that are recorded. `change` is all after which something is not as it was, `all` is all there
    /// are; without it `change`. What each is stands in `docs/watch-policies.md`.
    #[serde(default = "Watch::usual_operations")]
    #[schemars(schema_with = "shape::watch_operations")]
    pub operations: Vec<String>,
    /// Whether it holds in containers too, for the paths that these see. Without it the host's files alone
    /// are covered. In containers opens and calls are told, but not what only notifications tell of:
    /// `file.modify`, `file.close`, 32-bit calls and `io_uring`.
    #[serde(default)]
    pub containers: bool,
}

/// How much is recorded of sockets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Connections of the same process with the same address and port that begin and end within this time after
    /// the first of them become one event with their count, and so do flows of datagrams. `0`: each is an event.
    #[schemars(extend("x-range" = {"most": "1m", "zero": true}))]
    pub fold: Period,
    /// A flow of datagrams that nothing went by for so long has ended.
    #[schemars(extend("x-range" = {"least": "1s", "most": "1h"}))]
    pub idle: Period,
    /// Whether connections to the unix sockets of container runtimes are recorded, as whoever may speak to one
    /// rules the host: those of docker, containerd, CRI-O, podman, cri-dockerd, buildkit, k3s and LXD, where they
    /// are by default.
    pub runtimes: bool,
    /// Other unix sockets of which connections are recorded: paths as they were bound, or `@` and an abstract
    /// name. What is below `/run` is found below `/var/run` too, and the other way round.
    #[schemars(schema_with = "shape::unix_sockets")]
    pub unix: Vec<String>,
    /// Connections, and flows of datagrams, that are known at a time. It bounds the memory for that; of what is
    /// beyond it less is told.
    #[schemars(range(min = 1024, max = 1_000_000))]
    pub connections: u32,
}

/// Events as lines of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Json {
    /// File that events are appended to, with an absolute path; `-` is standard output. Without it no JSON is
    /// written.
    #[schemars(schema_with = "shape::json_file")]
    pub file: Option<PathBuf>,
    /// Form of the lines; `docs/profiles.md` has each of them with samples.
    pub profile: Profile,
    /// Size at which the file is rotated. `0`: no size is too large.
    #[schemars(extend("x-range" = {"least": "1MiB", "most": "1TiB", "zero": true}))]
    pub rotate_size: Size,
    /// Age at which the file is rotated. `0`: none is too old.
    #[schemars(extend("x-range" = {"least": "1m", "most": "3650d", "zero": true}))]
    pub rotate_age: Period,
    /// Rotated files that are kept; the oldest is removed when there is one more.
    #[schemars(range(min = 0, max = 10_000))]
    pub keep: u32,
    /// How rotated files are compressed.
    pub compress: Compress,
}

/// Form of the lines of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// As the schema of events has it: all that is known.
    Native,
    /// As consumers of the Threat Stack agent's events read them.
    Threatstack,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
}

/// How rotated files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// Not at all.
    None,
    /// As `NAME.gz`.
    Gzip,
    /// As `NAME.zst`: smaller than gzip for less work.
    Zstd,
}

/// The backend that events are delivered to.
///
/// What is to be delivered waits in a spool on disk until the backend has it, so that neither an outage nor a crash of
/// either side loses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// Its URL, as `https://HOST:PORT`. Without it nothing is delivered and there is no spool.
    #[schemars(schema_with = "shape::backend_address")]
    pub address: Option<String>,
    /// Name that the backend's certificate must have. Without it the host of `address`.
    #[schemars(schema_with = "shape::server_name")]
    pub server_name: Option<String>,
    /// HTTP proxy that the connection goes through (`CONNECT`), with name and password if it asks for such. Those of
    /// environment variables do not count.
    #[schemars(schema_with = "shape::proxy")]
    pub proxy: Option<String>,
    /// Whether the address may be one with `http://`: without TLS, to a backend that was started so on the same host.
    /// Elsewhere than on loopback it is refused all the same, and TLS never falls back to it.
    pub plaintext: bool,
    /// Whether the agent does as the backend says what to record: `kinds`, `filters`, `files`,
    /// `network` and `history` may be set from there, over what the files say; secrets stay masked as these have it.
    pub configure: bool,
    /// Whether whoever may ask the backend may watch this host live by it, also what is not delivered.
    pub tail: bool,
    /// Disk space that the spool may take. When it is full, the oldest events of files and sockets are dropped first,
    /// then the oldest others; the backend is told how many.
    #[schemars(extend("x-range" = {"least": "1MiB", "most": "1TiB"}))]
    pub spool_size: Size,
    /// Events are on the disk, past its cache, after this time: what a loss of power may cost. A crash of the agent
    /// does not take what is in the spool.
    #[schemars(extend("x-range" = {"least": "100ms", "most": "1m"}))]
    pub sync: Period,
}

/// The socket for readers on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Socket {
    /// Whether there is one. Without it `nightjar tail` and `nightjar status` do not reach this agent.
    pub enabled: bool,
    /// Where it is, as an absolute path. Without it `/run/nightjar/INSTANCE.sock`, where INSTANCE is the
    /// setting `instance`.
    #[schemars(schema_with = "shape::socket_path")]
    pub path: Option<PathBuf>,
    /// Group of `/etc/group` whose members may read events, besides root: all that runs on the host, its
    /// arguments included. Without it root alone.
    #[schemars(schema_with = "shape::group")]
    pub group: Option<String>,
}

/// Counters for Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// TCP address to answer on, with a port. Whoever reaches it may read the counters, so it should be of
    /// the loopback interface. Without it no port is opened.
    #[schemars(schema_with = "shape::address")]
    pub listen: Option<SocketAddr>,
}

/// The programs in the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kernel {
    /// Ring buffer from the kernel to the agent. It takes this much memory; with a larger one fewer events
    /// are lost when more come than are written.
    #[schemars(extend("x-range" = {"least": "1MiB", "most": "1GiB", "power_of_two": true}))]
    #[schemars(extend("x-restart" = true))]
    pub ring_size: Size,
    /// Ring buffer for events of files and sockets, which are so many at times that others should not have to wait behind
    /// them. It takes this much memory.
    #[schemars(extend("x-range" = {"least": "1MiB", "most": "1GiB", "power_of_two": true}))]
    #[schemars(extend("x-restart" = true))]
    pub bulk_ring_size: Size,
    /// What the kernel programs say of themselves in the agent's log: this and what is graver. It slows them
    /// down; for finding faults.
    #[schemars(extend("x-restart" = true))]
    pub log: Level,
}

/// Bounds of what is remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tables {
    /// Processes that are remembered, ended ones included. When there are more, those that were quiet
    /// longest are forgotten, and their next event lacks its parent.
    #[schemars(range(min = 256, max = 4_194_304))]
    pub processes: u32,
    /// Memory that they may take: what they run, with arguments and paths.
    #[schemars(extend("x-range" = {"least": "1MiB", "most": "16GiB"}))]
    pub process_memory: Size,
    /// Ended processes among them, kept for events that come late and for children that name their parent.
    #[schemars(range(min = 0, max = 4_194_304))]
    pub ended_processes: u32,
    /// How long an ended process is kept at most.
    #[schemars(extend("x-range" = {"most": "1h", "zero": true}))]
    pub keep_ended: Period,
}

/// What the agent may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Privileges {
    /// Whether capabilities are given up that are only needed at the start. Without it a fault in the agent
    /// is a fault with all of root's powers.
    #[schemars(extend("x-restart" = true))]
    pub drop: bool,
}

/// How grave a message must be to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is told.
    Off = 0,
    /// Something does not work.
    Error = 1,
    /// Something is not as it should be.
    Warn = 2,
    /// What the agent does.
    Info = 3,
    /// How it does it.
    Debug = 4,
    /// All there is.
    Trace = 5,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self {
            kinds: texts(&["*", "!process.fork"]),
            filters: Vec::new(),
            environment: texts(&["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES"]),
            redact: Redact::default(),
            files: Files::default(),
            network: Network::default(),
            json: Json::default(),
            backend: Backend::default(),
            state: None,
            socket: Socket::default(),
            history: Size::from_mib(2),
            metrics: Metrics::default(),
            kernel: Kernel::default(),
            tables: Tables::default(),
            privileges: Privileges::default(),
            instance: "default".to_owned(),
            log: Level::Warn,
        }
    }
}

impl Config {
    /// Whether events of this kind are recorded: the last of `kinds` that fits decides.
    #[must_use]
    pub fn records(&self, kind: &str) -> bool {
        let last = self.kinds.iter().rev().find(|glob| WildMatch::new(without_not(glob)).matches(kind));
        last.is_some_and(|glob| !glob.starts_with('!'))
    }

    /// Where the socket is.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        let usual = || format!("/run/nightjar/{}.sock", self.instance).into();
        self.socket.path.clone().unwrap_or_else(usual)
    }

    /// Where the state is.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        let usual = || format!("/var/lib/nightjar/{}", self.instance).into();
        self.state.clone().unwrap_or_else(usual)
    }
}

/// A glob of `kinds` without the mark that turns it round.
pub(super) fn without_not(glob: &str) -> &str {
    glob.strip_prefix('!').unwrap_or(glob)
}

// === impl Rule ===

impl Rule {
    /// What it takes for the rule to decide.
    #[must_use]
    pub fn conditions(&self) -> &Match {
        match self {
            Self::Drop(conditions) | Self::Keep(conditions) => conditions,
        }
    }
}

// By hand: derived, it would be one schema of alternatives, and what a mistake in one of them is could only
// be guessed.
impl JsonSchema for Rule {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut verb = |does: &str| {
            let mut conditions = generator.subschema_for::<Match>();
            conditions.insert("description".to_owned(), does.into());
            conditions
        };
        let drop = verb("Events that these conditions fit are counted and not exported.");
        let keep = verb("Events that these conditions fit are exported, whatever the rules below say.");
        json_schema!({
            "title": "a rule",
            "type": "object",
            "properties": {"drop": drop, "keep": keep},
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
            "examples": [{"drop": {"exe": "/usr/bin/true"}}],
        })
    }
}

// === impl Files ===

impl Files {
    /// The policies that hold, in the order in which they are asked: those of the configuration, then those
    /// that the agent comes with and that none of the configuration replaces.
    #[must_use]
    pub fn policies(&self) -> Vec<PolicySpec> {
        let is_replaced = |shipped: &PolicySpec| self.watch.iter().any(|own| own.name == shipped.name);
        let shipped = if self.defaults { policy::defaults() } else { Vec::new() };
        let shipped = shipped.into_iter().filter(|shipped| !is_replaced(shipped));
        self.watch.iter().map(PolicySpec::from).chain(shipped).collect()
    }
}

// === impl Watch ===

impl Watch {
    fn usual_operations() -> Vec<String> {
        vec!["change".to_owned()]
    }
}

impl From<&Watch> for PolicySpec {
    fn from(watch: &Watch) -> Self {
        let Watch { name, paths, recursive, ignore, operations, containers } = watch.clone();
        Self { name, paths, recursive, ignore, operations, containers }
    }
}

// === impl OneOrMany ===

impl OneOrMany {
    /// All of them, as text.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let all = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        };
        all.iter().map(|one| match one {
            TextOrNumber::Number(number) => number.to_string(),
            TextOrNumber::Text(text) => text.clone(),
        })
    }
}

// === impl defaults ===

impl Default for Redact {
    fn default() -> Self {
        Self { enabled: true, flags: Vec::new(), names: Vec::new(), patterns: Vec::new() }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            fold: Period::from_secs(5),
            idle: Period::from_secs(30),
            runtimes: true,
            unix: Vec::new(),
            connections: 65536,
        }
    }
}

impl Network {
    /// Names of unix sockets of which connections are recorded.
    #[must_use]
    pub fn unix_sockets(&self) -> Vec<String> {
        /// Where container runtimes listen by default.
        const RUNTIMES: [&str; 9] = [
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/crio/crio.sock",
            "/run/podman/podman.sock",
            "/run/cri-dockerd.sock",
            "/run/buildkit/buildkitd.sock",
            "/run/k3s/containerd/containerd.sock",
            "/run/lxd.socket",
            "/var/snap/lxd/common/lxd/unix.socket",
        ];
        let runtimes = RUNTIMES.iter().filter(|_| self.runtimes).map(|name| (*name).to_owned());
        runtimes.chain(self.unix.iter().cloned()).collect()
    }
}

impl Default for Files {
    fn default() -> Self {
        Self {
            defaults: true,
            watch: Vec::new(),
            all: false,
            failed: false,
            fold: Period::from_secs(2),
            directories: 20_000,
        }
    }
}

impl Default for Json {
    fn default() -> Self {
        Self {
            file: None,
            profile: Profile::Native,
            rotate_size: Size::from_mib(100),
            rotate_age: Period::from_secs(24 * 60 * 60),
            keep: 10,
            compress: Compress::None,
        }
    }
}

impl Default for Backend {
    fn default() -> Self {
        Self {
            address: None,
            server_name: None,
            proxy: None,
            plaintext: false,
            configure: true,
            tail: true,
            spool_size: Size::from_mib(512),
            sync: Period::from_secs(1),
        }
    }
}

impl Default for Socket {
    fn default() -> Self {
        Self { enabled: true, path: None, group: None }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self { ring_size: Size::from_mib(4), bulk_ring_size: Size::from_mib(8), log: Level::Off }
    }
}

impl Default for Tables {
    fn default() -> Self {
        // Most processes take less than 1 KiB; all together stay within the agent's 40 MiB.
        Self {
            processes: 16_384,
            process_memory: Size::from_mib(14),
            ended_processes: 4_096,
            keep_ended: Period::from_secs(30),
        }
    }
}

impl Default for Privileges {
    fn default() -> Self {
        Self { drop: true }
    }
}

impl Level {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(globs: &[&str]) -> Config {
        Config { kinds: globs.iter().map(|&glob| glob.to_owned()).collect(), ..Config::default() }
    }

    #[test]
    fn the_last_glob_that_fits_a_kind_decides() {
        assert!(Config::default().records("process.exec"));
        assert!(!Config::default().records("process.fork"));
        assert!(kinds(&["!*", "process.*"]).records("process.fork"));
        assert!(!kinds(&["process.*", "!process.e*", "file.*"]).records("process.exec"));
        assert!(!kinds(&["process.exec"]).records("process.exec_failed"));
        assert!(!kinds(&[]).records("process.exec"));
    }

    #[test]
    fn the_socket_is_called_after_the_instance() {
        let mut config = Config { instance: "b-2".to_owned(), ..Config::default() };
        assert_eq!(config.socket_path(), PathBuf::from("/run/nightjar/b-2.sock"));
        config.socket.path = Some("/x".into());
        assert_eq!(config.socket_path(), PathBuf::from("/x"));
    }

    /// Names of the policies that hold, with these in the configuration.
    fn policies(files: &str) -> Vec<String> {
        let files: Files = serde_json::from_str(files).unwrap();
        files.policies().into_iter().map(|policy| policy.name).collect()
    }

    #[test]
    fn policies_of_the_configuration_come_before_those_of_the_agent() {
        let shipped: Vec<_> = policy::defaults().into_iter().map(|policy| policy.name).collect();
        assert_eq!(policies("{}"), shipped);
        let own = r#"{"name":"b","paths":["/b"]},{"name":"a","paths":["/a"]}"#;
        assert_eq!(
            policies(&format!(r#"{{"watch":[{own}]}}"#)),
            [&["b", "a"].map(String::from), &*shipped].concat()
        );
        assert_eq!(policies(&format!(r#"{{"defaults":false,"watch":[{own}]}}"#)), ["b", "a"]);
        assert_eq!(policies(r#"{"defaults":false}"#), [""; 0]);
    }

    #[test]
    fn a_policy_with_the_name_of_one_of_the_agent_replaces_it() {
        let files = r#"{"watch":[{"name":"etc","paths":["/etc/nginx"],"operations":["read"]}]}"#;
        let files: Files = serde_json::from_str(files).unwrap();
        let policies = files.policies();
        assert_eq!(policies.len(), policy::defaults().len());
        let named: Vec<_> = policies.iter().filter(|policy| policy.name == "etc").collect();
        assert_eq!(named, [&policies[0]]);
        assert_eq!(
            (&policies[0].paths[..], &policies[0].operations[..]),
            (&["/etc/nginx".to_owned()][..], &["read".to_owned()][..])
        );
    }

    #[test]
    fn a_policy_is_about_changes_on_the_host_unless_it_says_otherwise() {
        let watch: Watch = serde_json::from_str(r#"{"name":"a","paths":["/a"]}"#).unwrap();
        let expected = PolicySpec {
            name: "a".to_owned(),
            paths: vec!["/a".to_owned()],
            operations: vec!["change".to_owned()],
            ..PolicySpec::default()
        };
        assert_eq!(PolicySpec::from(&watch), expected);
    }

    #[test]
    fn rules_are_kept_as_they_were_written() {
        let json = r#"[{"drop":{"kind":"process.exit","user":[0,"bin"]}},{"keep":{}}]"#;
        let rules: Vec<Rule> = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&rules).unwrap(), json);
        let users = rules[0].conditions().user.as_ref().unwrap();
        assert_eq!(users.texts().collect::<Vec<_>>(), ["0", "bin"]);
    }

    #[test]
    fn levels_are_called_as_they_are_written() {
        for level in [Level::Off, Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
    }
}
