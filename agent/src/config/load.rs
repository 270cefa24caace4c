//! From files and flags to a configuration.
//!
//! Each file is a layer, each flag one more. A layer is checked by itself, so that what is said about it has
//! its own lines; what is wrong is then taken out of it, so that the rest is checked all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt,
    fs::{self, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    check::{Checker, Finding, escaped, readable},
    error::{Errors, Place, Problem, for_shell},
    model::{Compress, Config},
    policies::policies_fault,
    schema::{is_section, shape_at},
    shape::{Host, fits_everything},
    yaml::{self, Data, Node, Position},
};
use crate::deliver::connect::Target;

/// Where the configuration is, unless somebody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/nightjar/nightjar.yaml";

/// The most bytes of a file, also of one that the backend sends.
pub const LARGEST_FILE: u64 = 1 << 20;

/// What the backend may set; the rest is up to the host. Neither the masking of secrets nor the environment is among it.
const REMOTE: [&str; 5] = ["kinds", "filters", "files", "network", "history"];

/// Where the configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In [`DEFAULT_FILE`], which need not be there.
    Default,
    /// In a file that somebody named, so it must be there.
    Named(PathBuf),
}

/// A setting that was given on the command line; it overrides what files say.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// The setting, as in `json.file`.
    pub setting: String,
    /// What it is set to. A relative path is one from the current folder.
    pub value: Value,
    /// What the flag is called, as in `--json`.
    pub name: String,
}

/// A configuration, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What counts.
    pub config: Config,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// By JSON pointer; what is not there is a default.
    origins: BTreeMap<String, Origin>,
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "source")]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// It was set here last.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// It was given on the command line.
    Flag {
        /// The name of the flag.
        name: String,
    },
}

/// Reads, merges and checks the configuration.
///
/// `known_kinds` are those that the agent can record, such as `process.exec`. `remote` is a file with what came from the
/// backend: it counts above the host's files, and may set less than these.
///
/// # Errors
/// All that is wrong with files and flags, not just the first.
pub fn load(
    at: &Location,
    known_kinds: &[&str],
    flags: &[Flag],
    remote: Option<&Path>,
) -> Result<Loaded, Errors> {
    let host = Host {
        known_kinds: known_kinds.iter().map(|&kind| kind.to_owned()).collect(),
        group_file: "/etc/group".into(),
        is_root: rustix::process::geteuid().is_root(),
    };
    match at {
        Location::Default => load_from(Path::new(DEFAULT_FILE), false, host, flags, remote),
        Location::Named(path) => load_from(path, true, host, flags, remote),
    }
}

fn load_from(
    main: &Path,
    must_exist: bool,
    host: Host,
    flags: &[Flag],
    remote: Option<&Path>,
) -> Result<Loaded, Errors> {
    let mut loader = Loader::new(host);
    loader.file(main, must_exist, None);
    for path in loader.drop_ins(main) {
        loader.file(&path, true, None);
    }
    if let Some(path) = remote {
        loader.file(path, true, Some(&REMOTE));
    }
    for flag in flags {
        loader.flag(flag);
    }
    loader.finish()
}

/// What would be said of a file with this text.
pub(super) fn load_text(path: &Path, text: &str, host: Host) -> Result<Loaded, Errors> {
    let mut loader = Loader::new(host);
    loader.text(path, text, None);
    loader.finish()
}

/// The folder of files that are read after `main`.
fn drop_in_folder(main: &Path) -> PathBuf {
    if main.extension() == Some(OsStr::new("yaml")) {
        return main.with_extension("d");
    }
    let mut folder = main.as_os_str().to_owned();
    folder.push(".d");
    folder.into()
}

/// Layers, one over the other.
struct Loader {
    host: Host,
    checker: Checker,
    merged: Value,
    origins: BTreeMap<String, Origin>,
    /// Of each file, for messages.
    lines: BTreeMap<PathBuf, Vec<String>>,
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
    /// Settings that were set to something wrong: what counts is not known.
    unknown: BTreeSet<String>,
    /// A file could not be read at all: no setting is known for certain.
    incomplete: bool,
}

/// What one file or flag sets.
struct Layer {
    value: Value,
    origins: BTreeMap<String, Spot>,
    place: Place,
}

/// A part of a layer.
struct Spot {
    origin: Origin,
    /// Of the value.
    at: Position,
    /// Of its name, or of the value where it has none.
    name_at: Position,
    /// A number or the like as it was written.
    raw: Option<String>,
}

// === impl Loader ===

impl Loader {
    fn new(host: Host) -> Self {
        Self {
            checker: Checker::new(host.clone()),
            host,
            merged: serde_json::to_value(Config::default()).expect("a configuration can be serialised"),
            origins: BTreeMap::new(),
            lines: BTreeMap::new(),
            files: Vec::new(),
            problems: Vec::new(),
            unknown: BTreeSet::new(),
            incomplete: false,
        }
    }

    /// `allowed`: settings and sections that it may have; others are a mistake. `None`: all.
    fn file(&mut self, path: &Path, must_exist: bool, allowed: Option<&[&str]>) {
        match read(path, &self.host) {
            Ok(text) => self.text(path, &text, allowed),
            Err(Unread::Missing) if !must_exist => {}
            Err(unread) => {
                self.incomplete = true;
                self.problems.push(Problem::file(path, unread.message(path)));
            }
        }
    }

    /// Files beside the main one, in the order of the bytes of their names.
    fn drop_ins(&mut self, main: &Path) -> Vec<PathBuf> {
        let folder = drop_in_folder(main);
        match list(&folder, &self.host) {
            Ok(files) => files,
            Err(Unread::Missing) => Vec::new(),
            Err(unread) => {
                self.incomplete = true;
                self.problems.push(Problem::file(&folder, unread.message(&folder)));
                Vec::new()
            }
        }
    }

    fn text(&mut self, path: &Path, text: &str, allowed: Option<&[&str]>) {
        self.files.push(path.to_owned());
        self.lines.insert(path.to_owned(), text.lines().map(str::to_owned).collect());
        match yaml::parse(text) {
            Ok(Some(root)) => {
                self.refuse_others(path, &root, allowed);
                self.layer(Layer::of_file(path, &root));
            }
            Ok(None) => {}
            Err(faults) => {
                self.incomplete = true;
                let lines = &self.lines[path];
                let problems = faults.into_iter().map(|fault| {
                    Problem::new(Place::Line(path.to_owned(), fault.at), "", fault.message)
                        .with_line_of(lines)
                });
                self.problems.extend(problems);
            }
        }
    }

    /// Says of each setting of a file that it may not have it.
    fn refuse_others(&mut self, path: &Path, root: &Node, allowed: Option<&[&str]>) {
        let (Some(allowed), Data::Map(entries)) = (allowed, &root.data) else { return };
        let lines = &self.lines[path];
        // Words that are no setting at all are told as such by the check of the layer.
        let known = |name: &str| !self.checker.schema["properties"][name].is_null();
        let others =
            entries.iter().filter(|entry| !allowed.contains(&entry.key.as_str()) && known(&entry.key));
        let problems = others.map(|entry| {
            let message =
                format!("this is up to the host's own files; the backend may set {}", allowed.join(", "));
            Problem::new(Place::Line(path.to_owned(), entry.key_at), &entry.key, message).with_line_of(lines)
        });
        self.problems.extend(problems.collect::<Vec<_>>());
    }

    fn flag(&mut self, flag: &Flag) {
        let pointer = pointer_of(&flag.setting);
        let check = &shape_at(&self.checker.schema, &pointer)["x-check"];
        let is_path = ["json-file", "socket-path", "directory"].iter().any(|path| check == path);
        let relative = flag.value.as_str().filter(|path| is_path && *path != "-" && !path.starts_with('/'));
        let absolute = relative.and_then(|path| std::path::absolute(path).ok());
        let absolute = absolute.as_deref().and_then(Path::to_str).map(Value::from);
        self.layer(Layer::of_flag(flag, absolute.unwrap_or_else(|| flag.value.clone())));
    }

    fn layer(&mut self, mut layer: Layer) {
        let raw = |pointer: &str| layer.origins.get(pointer)?.raw.as_deref();
        let findings = self.checker.findings(&layer.value, raw);
        let mut problems: Vec<_> = findings.iter().map(|finding| self.problem(&layer, finding)).collect();
        problems.sort_by_key(Problem::position);
        self.problems.extend(problems);
        for finding in &findings {
            let setting = self.setting_of(&finding.pointer);
            remove(&mut layer.value, &setting);
            self.unknown.insert(setting);
        }
        let Layer { value: Value::Object(settings), origins, .. } = layer else { return };
        for (name, value) in settings {
            let pointer = format!("/{}", escaped(&name));
            if is_section(&self.checker.schema["properties"][&name]) {
                for (below, value) in value.as_object().into_iter().flatten() {
                    self.set(&format!("{pointer}/{}", escaped(below)), value.clone(), &origins);
                }
            } else {
                self.set(&pointer, value, &origins);
            }
        }
    }

    fn problem(&self, layer: &Layer, finding: &Finding) -> Problem {
        let Finding { pointer, about_name, message } = finding;
        let place = layer.place_of(pointer, *about_name);
        // A name that is no setting's is in the message; a flag is a name already.
        let setting = match (&place, about_name) {
            (Place::Flag(_), _) => "",
            (_, true) => pointer.rsplit_once('/').map_or("", |(above, _)| above),
            (_, false) => pointer,
        };
        let problem = Problem::new(place.clone(), readable(setting), message);
        match &place {
            Place::Line(path, _) => problem.with_line_of(&self.lines[path]),
            _ => problem,
        }
    }

    /// The setting that a value is, or is a part of.
    fn setting_of(&self, pointer: &str) -> String {
        let mut names = pointer.splitn(4, '/').skip(1);
        let Some(name) = names.next() else { return String::new() };
        let in_section = is_section(&self.checker.schema["properties"][name]);
        let below = names.next().filter(|_| in_section);
        below.map_or_else(|| format!("/{name}"), |below| format!("/{name}/{below}"))
    }

    fn set(&mut self, pointer: &str, value: Value, origins: &BTreeMap<String, Spot>) {
        let Some(place) = self.merged.pointer_mut(pointer) else { return };
        *place = value;
        let below = format!("{pointer}/");
        let is_within = |other: &str| other == pointer || other.starts_with(&below);
        self.origins.retain(|other, _| !is_within(other));
        let new = origins.iter().filter(|(other, _)| is_within(other));
        self.origins.extend(new.map(|(other, spot)| (other.clone(), spot.origin.clone())));
    }

    fn finish(mut self) -> Result<Loaded, Errors> {
        match serde_json::from_value::<Config>(self.merged.clone()) {
            Ok(config) => {
                if !self.incomplete {
                    let problems: Vec<_> =
                        CONTRADICTIONS.iter().filter_map(|rule| self.contradiction(rule, &config)).collect();
                    self.problems.extend(problems);
                }
                if self.problems.is_empty() {
                    return Ok(Loaded { config, files: self.files, origins: self.origins });
                }
            }
            // The schema lets through nothing that the types do not take; if it ever does, say what there is.
            Err(error) => {
                self.problems.push(Problem::new(
                    Place::Nowhere,
                    "",
                    format!("these settings cannot be used: {error}"),
                ));
            }
        }
        Err(Errors::new(self.problems))
    }

    fn contradiction(&self, rule: &Contradiction, config: &Config) -> Option<Problem> {
        let pointers: Vec<_> = rule.settings.iter().map(|setting| pointer_of(setting)).collect();
        if pointers.iter().any(|pointer| self.unknown.contains(pointer)) {
            return None;
        }
        let (part, message) = (rule.fault)(config, &self.host)?;
        let first = format!("{}{part}", pointers.first()?);
        let set = std::iter::once(&first)
            .chain(&pointers)
            .find_map(|pointer| Some((pointer, self.origins.get(pointer)?)));
        let (pointer, place) = match set {
            Some((pointer, Origin::File { path, line, column })) => {
                let at = Position { line: *line, column: *column };
                (pointer, Place::Line(path.clone(), at))
            }
            Some((pointer, Origin::Flag { name })) => (pointer, Place::Flag(name.clone())),
            Some((_, Origin::Default)) | None => (&first, Place::Nowhere),
        };
        let problem = Problem::new(place.clone(), readable(pointer), message);
        Some(match &place {
            Place::Line(path, _) => problem.with_line_of(&self.lines[path]),
            _ => problem,
        })
    }
}

fn pointer_of(setting: &str) -> String {
    setting.split('.').fold(String::new(), |pointer, name| format!("{pointer}/{}", escaped(name)))
}

/// Takes a setting out of a layer; the whole where the pointer is empty.
fn remove(tree: &mut Value, pointer: &str) {
    let Some((above, name)) = pointer.rsplit_once('/') else {
        *tree = Value::Null;
        return;
    };
    if let Some(Value::Object(entries)) = tree.pointer_mut(above) {
        entries.remove(&name.replace("~1", "/").replace("~0", "~"));
    }
}

// === impl Layer ===

impl Layer {
    fn of_file(path: &Path, root: &Node) -> Self {
        let mut origins = BTreeMap::new();
        spots(&mut origins, path, root, String::new(), root.at);
        Self { value: root.value(), origins, place: Place::File(path.to_owned()) }
    }

    fn of_flag(flag: &Flag, value: Value) -> Self {
        let names = flag.setting.rsplit('.');
        let value = names.fold(value, |value, name| Value::from(Map::from_iter([(name.to_owned(), value)])));
        let origin = Origin::Flag { name: flag.name.clone() };
        let at = Position { line: 1, column: 1 };
        let spot = Spot { origin, at, name_at: at, raw: None };
        let origins = BTreeMap::from_iter([(pointer_of(&flag.setting), spot)]);
        Self { value, origins, place: Place::Flag(flag.name.clone()) }
    }

    fn place_of(&self, pointer: &str, about_name: bool) -> Place {
        let Place::File(path) = &self.place else { return self.place.clone() };
        let Some(spot) = self.origins.get(pointer) else { return self.place.clone() };
        Place::Line(path.clone(), if about_name { spot.name_at } else { spot.at })
    }
}

fn spots(all: &mut BTreeMap<String, Spot>, path: &Path, node: &Node, pointer: String, name_at: Position) {
    let origin = Origin::File { path: path.to_owned(), line: name_at.line, column: name_at.column };
    // Nothing at all has no place but that of its name.
    let at = if node.is_null() { name_at } else { node.at };
    let raw = match &node.data {
        Data::Scalar { value, raw } if !value.is_string() => Some(raw.clone()),
        _ => None,
    };
    match &node.data {
        Data::Scalar { .. } => {}
        Data::List(parts) => {
            for (index, part) in parts.iter().enumerate() {
                spots(all, path, part, format!("{pointer}/{index}"), part.at);
            }
        }
        Data::Map(entries) => {
            for entry in entries {
                spots(all, path, &entry.node, format!("{pointer}/{}", escaped(&entry.key)), entry.key_at);
            }
        }
    }
    all.insert(pointer, Spot { origin, at, name_at, raw });
}

// === impl Loaded ===

impl Loaded {
    /// Where a setting (`json.keep`) or a part of it (`kinds.0`) comes from.
    #[must_use]
    pub fn origin(&self, setting: &str) -> &Origin {
        self.origins.get(&pointer_of(setting)).unwrap_or(&Origin::Default)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, .. } => write!(f, "{}:{line}", super::error::shown(path)),
            Self::Flag { name } => f.write_str(name),
        }
    }
}

// === settings that do not go together ===

/// A rule over several settings.
struct Contradiction {
    /// Those that it is about, first the one to change.
    settings: &'static [&'static str],
    /// What is wrong, and which part of the first setting it is.
    fault: fn(&Config, &Host) -> Option<(String, String)>,
}

const CONTRADICTIONS: &[Contradiction] = &[
    Contradiction {
        settings: &["kinds"],
        fault: |config, host| {
            let none = !host.known_kinds.iter().any(|kind| config.records(kind));
            whole(none, || "no kind of event is left; write \"*\" first".to_owned())
        },
    },
    Contradiction {
        settings: &["filters"],
        fault: |config, _| {
            let rules = &config.filters;
            let all = rules.iter().position(|rule| fits_everything(rule.conditions()))?;
            (all + 1 < rules.len()).then(|| {
                let message = format!(
                    "this rule never counts, as filters[{all}] fits every event; put it above that, or \
                     remove it"
                );
                (format!("/{}", all + 1), message)
            })
        },
    },
    Contradiction {
        settings: &["files.watch", "files.defaults"],
        fault: |config, _| policies_fault(&config.files),
    },
    Contradiction {
        settings: &["json.keep", "json.rotate_size", "json.rotate_age"],
        fault: |Config { json, .. }, _| {
            let rotates = json.rotate_size.bytes() != 0 || !json.rotate_age.is_zero();
            whole(json.keep == 0 && rotates, || {
                "with 0 a file is lost as soon as it is rotated; write at least 1, or turn rotation off with \
                 rotate_size: 0 and rotate_age: 0"
                    .to_owned()
            })
        },
    },
    Contradiction {
        settings: &["json.compress", "json.rotate_size", "json.rotate_age"],
        fault: |Config { json, .. }, _| {
            let rotates = json.rotate_size.bytes() != 0 || !json.rotate_age.is_zero();
            whole(json.compress != Compress::None && !rotates, || {
                "only rotated files are compressed, and rotate_size and rotate_age are 0; write none, or let \
                 the file be rotated"
                    .to_owned()
            })
        },
    },
    Contradiction {
        settings: &["json.file", "socket.path", "socket.enabled", "instance"],
        fault: |config, _| {
            let same = config.socket.enabled && config.json.file.as_ref() == Some(&config.socket_path());
            whole(same, || "this is the path of the socket as well; write another".to_owned())
        },
    },
    Contradiction {
        settings: &["backend.address", "backend.plaintext", "backend.server_name", "backend.proxy"],
        fault: |Config { backend, .. }, _| {
            let address = backend.address.as_deref()?;
            let (name, proxy) = (backend.server_name.as_deref(), backend.proxy.as_deref());
            let error = Target::parse(address, name, proxy, backend.plaintext).err()?;
            Some((String::new(), error.to_string()))
        },
    },
    Contradiction {
        settings: &["tables.ended_processes", "tables.processes"],
        fault: |Config { tables, .. }, _| {
            whole(tables.ended_processes > tables.processes, || {
                format!(
                    "{} is more than there may be processes in all; write at most {}, or raise \
                     tables.processes",
                    tables.ended_processes, tables.processes
                )
            })
        },
    },
];

fn whole(wrong: bool, message: impl FnOnce() -> String) -> Option<(String, String)> {
    wrong.then(|| (String::new(), message()))
}

// === files ===

/// Why a file or folder was not read.
enum Unread {
    Missing,
    Because(String),
}

impl Unread {
    fn message(self, path: &Path) -> String {
        match self {
            Self::Missing if path == Path::new("-") => {
                "standard input is not read; write the path of a file".to_owned()
            }
            Self::Missing => "there is no such file; check the path".to_owned(),
            Self::Because(why) => why,
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Because(
                "may not be read by this user; run nightjar as root, or change who may read it".to_owned(),
            ),
            _ => Self::Because(format!("cannot be read: {error}")),
        }
    }
}

fn read(path: &Path, host: &Host) -> Result<String, Unread> {
    // Not blocking: a named pipe would wait for somebody to write.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let is = if metadata.is_dir() { "a folder" } else { "no regular file" };
        return Err(Unread::Because(format!("this is {is}; name a file of settings")));
    }
    refuse_foreign_writers(path, &metadata, host)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Unread::Because("the file is larger than 1 MiB; no configuration is".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].split(|&byte| byte == b'\n').count();
        Unread::Because(format!("line {line} is not UTF-8; save the file in that encoding"))
    })
}

fn list(folder: &Path, host: &Host) -> Result<Vec<PathBuf>, Unread> {
    let metadata = fs::metadata(folder)?;
    if !metadata.is_dir() {
        return Err(Unread::Because(
            "this is no folder, and files of settings are looked for in it; remove it".to_owned(),
        ));
    }
    refuse_foreign_writers(folder, &metadata, host)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension() == Some(OsStr::new("yaml")) && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Who may write the configuration of an agent that is root may do what root may.
fn refuse_foreign_writers(path: &Path, metadata: &Metadata, host: &Host) -> Result<(), Unread> {
    if !host.is_root || metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Unread::Because(format!(
        "others than its owner may write to it, and the agent runs as root; mend it with: chmod go-w {}",
        for_shell(path)
    )))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::LazyLock};

    use proptest::prelude::*;
    use serde_json::json;
    use tempfile::TempDir;

    use super::{
        super::{model::Level, render, shape::tests::host},
        *,
    };
    use crate::files::policy::{self, MAX_POLICIES};

    /// A folder with a configuration in it.
    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Writes a file, with the folders above it.
        fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            self
        }

        fn mode(self, name: &str, mode: u32) -> Self {
            fs::set_permissions(self.0.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
            self
        }

        fn main(&self) -> PathBuf {
            self.0.path().join("nightjar.yaml")
        }

        fn load(&self) -> Result<Loaded, Errors> {
            load_from(&self.main(), true, host(), &[], None)
        }

        fn load_as_root(&self) -> Result<Loaded, Errors> {
            load_from(&self.main(), true, Host { is_root: true, ..host() }, &[], None)
        }

        /// What is said, without the folder.
        fn said(&self, result: Result<Loaded, Errors>) -> String {
            result.unwrap_err().to_string().replace(&format!("{}/", self.0.path().display()), "")
        }

        #[track_caller]
        fn expect_said(&self, expected: &str) {
            assert_eq!(self.said(self.load()), expected);
        }
    }

    fn flag(setting: &str, value: impl Into<Value>, name: &str) -> Flag {
        Flag { setting: setting.to_owned(), value: value.into(), name: name.to_owned() }
    }

    #[test]
    fn the_backend_sets_what_it_may_and_counts_above_the_files() {
        let folder = Folder::new()
            .with("nightjar.yaml", "kinds: [process.exec]\nlog: error\n")
            .with("remote.yaml", "kinds: [process.exit]\nhistory: 1MiB\n");
        let remote = folder.0.path().join("remote.yaml");
        let flags = [flag("history", "3MiB", "--history")];
        let loaded = load_from(&folder.main(), true, host(), &flags, Some(&remote)).unwrap();
        assert_eq!((loaded.config.kinds, loaded.config.log), (vec!["process.exit".to_owned()], Level::Error));
        assert_eq!(loaded.config.history.to_string(), "3MiB");
    }

    #[test]
    fn what_is_up_to_the_host_is_refused_from_the_backend_with_its_line() {
        let folder = Folder::new()
            .with("nightjar.yaml", "log: error\n")
            .with("remote.yaml", "kinds: [process.exit]\njson:\n  file: /etc/passwd\n");
        let remote = folder.0.path().join("remote.yaml");
        let result = load_from(&folder.main(), true, host(), &[], Some(&remote));
        assert_eq!(
            folder.said(result),
            "remote.yaml:2:1: json: this is up to the host's own files; the backend may set kinds, filters, files, \
             network, history\n    json:"
        );
    }

    #[test]
    fn without_any_file_the_defaults_count() {
        let folder = Folder::new();
        let loaded = load_from(&folder.main(), false, host(), &[], None).unwrap();
        assert_eq!((loaded.config, loaded.files), (Config::default(), Vec::new()));
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        Folder::new().expect_said("nightjar.yaml: there is no such file; check the path");
        let error = load(&Location::Named("-".into()), &["process.exec"], &[], None).unwrap_err();
        assert_eq!(error.to_string(), "-: standard input is not read; write the path of a file");
    }

    #[test]
    fn drop_ins_come_in_the_order_of_their_names() {
        let folder = Folder::new()
            .with("nightjar.yaml", "log: error\njson: {keep: 1, file: /a}\nkinds: [process.exec]\n")
            .with("nightjar.d/9.yaml", "json: {keep: 9}\n")
            .with("nightjar.d/10.yaml", "json: {keep: 10}\nkinds: [process.exit, process.fork]\n")
            .with("nightjar.d/.hidden.yaml", "wrong")
            .with("nightjar.d/9.yaml.bak", "wrong");
        let loaded = folder.load().unwrap();
        assert_eq!(loaded.config.json.keep, 9);
        assert_eq!(loaded.config.json.file, Some("/a".into()));
        assert_eq!(loaded.config.kinds, ["process.exit", "process.fork"]);
        assert_eq!(loaded.config.log, Level::Error);
        let names: Vec<_> = loaded.files.iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["nightjar.yaml", "10.yaml", "9.yaml"]);
    }

    #[test]
    fn drop_ins_count_without_a_main_file() {
        let folder = Folder::new().with("nightjar.d/a.yaml", "log: error");
        assert_eq!(load_from(&folder.main(), false, host(), &[], None).unwrap().config.log, Level::Error);
    }

    #[test]
    fn the_folder_of_drop_ins_is_called_after_the_file() {
        for (file, folder) in [("/a/b.yaml", "/a/b.d"), ("/a/b.conf", "/a/b.conf.d"), ("b", "b.d")] {
            assert_eq!(drop_in_folder(Path::new(file)), Path::new(folder));
        }
    }

    #[test]
    fn every_setting_knows_where_it_comes_from() {
        let folder = Folder::new()
            .with(
                "nightjar.yaml",
                "kinds:\n  - process.exec\n  - process.exit\njson:\n  keep: 1\n  file: /a\n",
            )
            .with("nightjar.d/a.yaml", "\nkinds: ['*']\njson:\n");
        let flags = [flag("json.keep", 5, "--keep")];
        let loaded = load_from(&folder.main(), true, host(), &flags, None).unwrap();
        assert_eq!(loaded.config.json.keep, 5);
        let drop_in = folder.0.path().join("nightjar.d/a.yaml");
        assert_eq!(*loaded.origin("kinds"), Origin::File { path: drop_in.clone(), line: 2, column: 1 });
        assert_eq!(*loaded.origin("kinds.0"), Origin::File { path: drop_in, line: 2, column: 9 });
        assert_eq!(*loaded.origin("kinds.1"), Origin::Default, "the list was replaced as a whole");
        assert_eq!(loaded.origin("json.keep").to_string(), "--keep");
        assert_eq!(loaded.origin("json.file").to_string(), format!("{}:6", folder.main().display()));
        assert_eq!(loaded.origin("log").to_string(), "default");
    }

    #[test]
    fn a_flag_is_checked_like_a_file() {
        let said = |flag: Flag| {
            load_from(Path::new("/nonexistent/a.yaml"), false, host(), &[flag], None).unwrap_err().to_string()
        };
        assert_eq!(
            said(flag("kernel.ring_size", "3MiB", "--ring-size")),
            "--ring-size: 3MiB is not a power of two; write 2MiB or 4MiB"
        );
        assert_eq!(
            said(flag("kinds", json!(["process.exce"]), "--kind")),
            "--kind: \"process.exce\" fits no kind of event; did you mean \"process.exec\"?"
        );
        assert_eq!(
            said(flag("kernel.ring", "3MiB", "--ring")),
            "--ring: unknown setting \"ring\"; did you mean \"ring_size\"?"
        );
        assert_eq!(
            said(flag("kinds", json!(["!*"]), "--kind")),
            "--kind: kinds: no kind of event is left; write \"*\" first"
        );
    }

    #[test]
    fn paths_of_flags_are_relative_to_the_current_folder() {
        let at = Path::new("/nonexistent/a.yaml");
        let file = |value: &str| {
            load_from(at, false, host(), &[flag("json.file", value, "--json")], None)
                .unwrap()
                .config
                .json
                .file
        };
        assert_eq!(file("events.json"), Some(std::env::current_dir().unwrap().join("events.json")));
        assert_eq!(file("-"), Some("-".into()));
        assert_eq!(file("/a"), Some("/a".into()));
    }

    #[test]
    fn all_that_is_wrong_in_all_files_is_told_in_order() {
        let folder = Folder::new()
            .with("nightjar.yaml", "log: loud\nkind: []\ntables:\n  processes: 300\n  ended_processes: 400\n")
            .with("nightjar.d/a.yaml", "json:\n  keep: many\nfilters: [{drop: {exe: a}}]\n");
        folder.expect_said(
            "nightjar.yaml:1:6: log: found \"loud\"; write one of off, error, warn, info, debug, trace\n    \
             log: loud\n\
             nightjar.yaml:2:1: unknown setting \"kind\"; did you mean \"kinds\"?\n    kind: []\n\
             nightjar.d/a.yaml:2:9: json.keep: found \"many\"; write a whole number from 0 to 10000, such as 10\n    \
             keep: many\n\
             nightjar.d/a.yaml:3:24: filters[0].drop.exe: \"a\" fits nothing, as a program is known by its whole \
             path; write that, or \"*/a\"\n    filters: [{drop: {exe: a}}]\n\
             nightjar.yaml:5:3: tables.ended_processes: 400 is more than there may be processes in all; write at \
             most 300, or raise tables.processes\n    ended_processes: 400",
        );
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        for (text, expected) in [
            ("kinds: ['!process.fork']", "1:1: kinds: no kind of event is left; write \"*\" first"),
            (
                "filters:\n- keep: {user: root}\n- drop: {}\n- keep: {exe: /a}",
                "4:3: filters[2]: this rule never counts, as filters[1] fits every event; put it above that, or remove it",
            ),
            (
                "files:\n  watch:\n  - {name: a, paths: [/a]}\n  - {paths: [/b], name: a}",
                "4:19: files.watch[1].name: files.watch[0] has the name \"a\" already; give each a name of its own",
            ),
            (
                "json: {keep: 0}",
                "1:8: json.keep: with 0 a file is lost as soon as it is rotated; write at least 1, or turn rotation off with rotate_size: 0 and rotate_age: 0",
            ),
            (
                "json: {compress: zstd, rotate_size: 0, rotate_age: 0}",
                "1:8: json.compress: only rotated files are compressed, and rotate_size and rotate_age are 0; write none, or let the file be rotated",
            ),
            (
                "json: {file: /run/nightjar/default.sock}",
                "1:8: json.file: this is the path of the socket as well; write another",
            ),
            (
                "json: {file: /a}\nsocket: {path: /a}",
                "1:8: json.file: this is the path of the socket as well; write another",
            ),
            (
                "tables: {processes: 300}",
                "1:10: tables.processes: 4096 is more than there may be processes in all; write at most 300, or raise tables.processes",
            ),
        ] {
            let said = load_text(Path::new("/a.yaml"), text, host()).unwrap_err().to_string();
            assert_eq!(said.lines().next(), Some(format!("/a.yaml:{expected}").as_str()), "{text}");
            assert_eq!(said.lines().count(), 2, "{said}");
        }
    }

    #[test]
    fn there_may_be_so_many_policies_and_no_more() {
        let own = |count: usize| -> String {
            let policy = |index| format!("  - {{name: p{index}, paths: [/p]}}\n");
            (0..count).map(policy).collect()
        };
        let load = |text: &str| load_text(Path::new("/a.yaml"), text, host());
        let room = MAX_POLICIES - policy::defaults().len();
        load(&format!("files:\n  watch:\n{}", own(room))).unwrap();
        load(&format!("files:\n  defaults: false\n  watch:\n{}", own(MAX_POLICIES))).unwrap();
        let said = load(&format!("files:\n  watch:\n{}", own(room + 1))).unwrap_err().to_string();
        let expected = format!(
            "/a.yaml:2:3: files.watch: with those that the agent comes with there are more than {MAX_POLICIES} \
             policies; put paths that are watched alike into one, or write defaults: false"
        );
        assert_eq!(said.lines().next(), Some(&*expected));
    }

    #[test]
    fn all_that_is_wrong_with_policies_is_told_with_its_place() {
        let text = "files:\n  watch:\n    - name: a\n      paths:\n        - /a\n        - b\n      operations: [reed]\n    - {name: c, paths: ['/proc/*/m*']}\n";
        let said = load_text(Path::new("/a.yaml"), text, host()).unwrap_err().to_string();
        let places: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("/a.yaml:")).collect();
        assert_eq!(
            places
                .iter()
                .map(|place| place.split(": ").take(3).collect::<Vec<_>>().join(": "))
                .collect::<Vec<_>>(),
            [
                "6:11: files.watch[0].paths[1]: in \"a\"",
                "7:20: files.watch[0].operations[0]: in \"a\"",
                "8:25: files.watch[1].paths[0]: in \"c\"",
            ]
        );
    }

    #[test]
    fn settings_that_go_together_are_taken() {
        for text in [
            "json: {keep: 0, rotate_size: 0, rotate_age: 0}",
            "json: {file: /a}\nsocket: {path: /a, enabled: false}",
            "filters: [{keep: {user: root}}, {drop: {}}]",
            "tables: {processes: 300, ended_processes: 300}",
            "files: {watch: [{name: etc, paths: [/etc/nginx]}]}",
            "files: {defaults: false}",
        ] {
            load_text(Path::new("/a.yaml"), text, host()).unwrap();
        }
    }

    #[test]
    fn of_a_setting_that_is_wrong_no_contradiction_is_told() {
        let said = load_text(Path::new("/a"), "json: {keep: 0, rotate_size: x}", host()).unwrap_err();
        assert_eq!(said.problems().len(), 1, "{said}");
        let said = load_text(Path::new("/a"), "json: 5", host()).unwrap_err();
        assert_eq!(said.problems().len(), 1, "{said}");
        let folder = Folder::new().with("nightjar.yaml", "json: {keep: 0}").with("nightjar.d/a.yaml", "a: [");
        assert_eq!(folder.load().unwrap_err().problems().len(), 1);
    }

    #[test]
    fn what_is_no_file_of_settings_is_refused() {
        Folder::new()
            .with("nightjar.yaml/x", "")
            .expect_said("nightjar.yaml: this is a folder; name a file of settings");
        Folder::new().with("nightjar.yaml", "").with("nightjar.d", "").expect_said(
            "nightjar.d: this is no folder, and files of settings are looked for in it; remove it",
        );
        Folder::new()
            .with("nightjar.yaml", b"a: b\n# caf\xe9\n")
            .expect_said("nightjar.yaml: line 2 is not UTF-8; save the file in that encoding");
        Folder::new()
            .with("nightjar.yaml", "#".repeat((1 << 20) + 1))
            .expect_said("nightjar.yaml: the file is larger than 1 MiB; no configuration is");
        let folder = Folder::new();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.main(), rustix::fs::Mode::RUSR).unwrap();
        folder.expect_said("nightjar.yaml: this is no regular file; name a file of settings");
        let dangling = Folder::new().with("nightjar.yaml", "").with("nightjar.d/b.yaml", "");
        std::os::unix::fs::symlink("nowhere", dangling.0.path().join("nightjar.d/a.yaml")).unwrap();
        dangling.expect_said("nightjar.d/a.yaml: there is no such file; check the path");
    }

    #[test]
    fn root_takes_no_settings_that_others_may_write() {
        for (mode, is_refused) in [(0o644, false), (0o600, false), (0o664, true), (0o646, true)] {
            let folder = Folder::new().with("nightjar.yaml", "").mode("nightjar.yaml", mode);
            assert!(folder.load().is_ok(), "{mode:o}");
            assert_eq!(folder.load_as_root().is_err(), is_refused, "{mode:o}");
        }
        let folder = Folder::new().with("nightjar.yaml", "").mode("nightjar.yaml", 0o666);
        assert_eq!(
            folder.said(folder.load_as_root()),
            "nightjar.yaml: others than its owner may write to it, and the agent runs as root; mend it with: chmod go-w nightjar.yaml"
        );
        let folder =
            Folder::new().with("nightjar.yaml", "").with("nightjar.d/a.yaml", "").mode("nightjar.d", 0o775);
        assert_eq!(
            folder.said(folder.load_as_root()),
            "nightjar.d: others than its owner may write to it, and the agent runs as root; mend it with: chmod go-w nightjar.d"
        );
    }

    #[test]
    fn a_mistake_in_the_yaml_has_its_place() {
        Folder::new()
            .with("nightjar.yaml", "kinds:\n  - *\n")
            .expect_said("nightjar.yaml:2:5: text that begins with \"*\" needs quotes; write \"*\"\n    - *");
    }

    #[test]
    fn the_real_group_file_is_asked() {
        let at = Location::Named("/nonexistent".into());
        let flags = [flag("socket.group", "no such group", "--group")];
        let said = load(&at, &["process.exec"], &flags, None).unwrap_err().to_string();
        assert!(said.contains("--group: there is no group \"no such group\" in /etc/group"), "{said}");
    }

    static EXAMPLE: LazyLock<String> = LazyLock::new(render::example);

    /// Everything that can be set, as a basis for files that are nearly right.
    fn full() -> String {
        let uncomment = |line: &str| {
            let indent = line.len() - line.trim_start().len();
            let is_setting =
                line.trim_start().strip_prefix('#').is_some_and(|rest| !rest.starts_with([' ', '#']));
            if is_setting { format!("{}{}", &line[..indent], &line[indent + 1..]) } else { String::new() }
        };
        let mut lines: Vec<_> =
            EXAMPLE
                .lines()
                .map(|line| {
                    if line.ends_with(':') && !line.contains('#') { line.to_owned() } else { uncomment(line) }
                })
                .collect();
        lines.retain(|line| !line.is_empty());
        lines.join("\n") + "\n"
    }

    /// Whether it is taken or refused in words that say something.
    fn survives(bytes: &[u8]) {
        let folder = Folder::new().with("nightjar.yaml", bytes);
        match folder.load() {
            Ok(loaded) => {
                let again = load_text(Path::new("/b"), &render::show(&loaded, false), host());
                assert_eq!(again.unwrap().config, loaded.config);
            }
            Err(errors) => {
                let said = errors.to_string();
                for jargon in ["cannot be used", "anyOf", "oneOf", "serde", "schema", "no valid YAML ()"] {
                    assert!(!said.contains(jargon), "{said}");
                }
                assert!(said.starts_with(&folder.main().display().to_string()), "{said}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            survives(&bytes);
        }

        #[test]
        fn files_that_are_nearly_right_do_not_make_it_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3usize, "[-a-z0-9:{}\\[\\],&*!|>'\"%@`#?~ \n\t\\\\é]{0,3}"), 1..6),
        ) {
            let mut text: Vec<char> = full().chars().collect();
            for (at, removed, inserted) in edits {
                let at = at.index(text.len());
                let end = (at + removed).min(text.len());
                text.splice(at..end, inserted.chars());
            }
            survives(text.iter().collect::<String>().as_bytes());
        }

        #[test]
        fn any_value_of_any_setting_is_taken_or_refused(
            index in any::<prop::sample::Index>(),
            value in prop::sample::select(vec![
                "", "0", "1", "-1", "4294967296", "1e300", "1.5", "true", "''", "' '", "x", "'*'", "/x", "/x/", "1MiB", "2s",
                "[]", "[x]", "[[]]", "{}", "{x: y}", "[{}]", "[{drop: {}}]", "[{drop: }]", "[{drop: {user: 1}}]", "[{drop: {exe: }}]",
                "[{name: a, regex: b}]", "[{name: a, paths: [/a]}]", "[{name: a, paths: ['/[']}]", "[{name: '', regex: '['}]", "debug", "gzip", "\"\\0\"", "'1:1'", "99999999999999999999",
            ]),
        ) {
            let text = full();
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            let at = index.index(lines.len());
            let name = lines[at].split(':').next().unwrap().to_owned();
            lines[at] = format!("{name}: {value}");
            survives(lines.join("\n").as_bytes());
        }
    }
}
