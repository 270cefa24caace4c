//! The configuration that came from the backend: one file, called after its version, below the state directory.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nightjar_proto::v1::WatchPolicy;
use serde_json::json;

use crate::config::{self, Config, LARGEST_FILE};

/// Directory of the file.
const DIRECTORY: &str = "configuration";

/// What came from the backend, as far as this host takes any.
#[derive(Debug)]
pub(super) struct Remote {
    directory: PathBuf,
    /// The file in force.
    current: Option<PathBuf>,
}

/// A configuration that is not in force yet. Unless it is kept, it goes as it came.
#[derive(Debug)]
pub(super) struct Staged {
    /// `None`: the host's own files alone count again.
    path: Option<PathBuf>,
    version: String,
}

// === impl Remote ===

impl Remote {
    /// Looks for what came in an earlier run.
    pub(super) fn open(config: &Config) -> Self {
        let directory = config.state_directory().join(DIRECTORY);
        let is_taken = config.backend.address.is_some() && config.backend.configure;
        let current = if is_taken { newest(&directory) } else { None };
        Self { directory, current }
    }

    /// The file in force.
    pub(super) fn file(&self) -> Option<&Path> {
        self.current.as_deref()
    }

    /// Its version; empty where there is none.
    pub(super) fn version(&self) -> &str {
        self.current.as_deref().and_then(Path::file_stem).and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// What there is cannot be used: the host's own files alone count.
    pub(super) fn leave_out(&mut self) {
        self.current = None;
    }

    /// Writes down what came, not in force yet. Empty content takes away what there is.
    ///
    /// # Errors
    /// When it cannot be the name of a file, or not be written.
    pub(super) fn stage(&self, version: &str, yaml: &str) -> Result<Staged> {
        if yaml.trim().is_empty() {
            return Ok(Staged { path: None, version: String::new() });
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure!(
            (1..=64).contains(&version.len()) && version.chars().all(is_plain) && !version.starts_with('.'),
            "version {version:?} is no name; it must have letters, digits, dots and dashes, at most 64"
        );
        ensure!(
            yaml.len() as u64 <= LARGEST_FILE,
            "{} bytes are too many; at most {LARGEST_FILE} are taken",
            yaml.len()
        );
        let path = self.directory.join(format!("{version}.yaml.new"));
        write(&self.directory, &path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Staged { path: Some(path), version: version.to_owned() })
    }

    /// Puts it in force for this run and those after.
    ///
    /// # Errors
    /// When it cannot be kept for the next start.
    pub(super) fn keep(&mut self, staged: &Staged) -> io::Result<()> {
        let kept = self.directory.join(format!("{}.yaml", staged.version));
        let current = match &staged.path {
            Some(path) => {
                fs::rename(path, &kept)?;
                Some(kept)
            }
            None => None,
        };
        if let Some(old) = std::mem::replace(&mut self.current, current)
            && Some(&old) != self.current.as_ref()
        {
            fs::remove_file(old)?;
        }
        File::open(&self.directory).and_then(|directory| directory.sync_all())
    }
}

// === impl Staged ===

impl Staged {
    /// Where it is.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Not there any more where it was kept.
            let _kept = fs::remove_file(path);
        }
    }
}

/// The one that came last: there are two where the agent ended between taking one and removing the other.
fn newest(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let files = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "yaml"));
    files
        .max_by_key(|entry| entry.metadata().and_then(|facts| facts.modified()).ok())
        .map(|entry| entry.path())
}

fn write(directory: &Path, path: &Path, yaml: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(yaml.as_bytes())?;
    file.sync_all()
}

/// The configuration with policies of files of their own, each of which is an entry of `files.watch`. Without any it stays
/// as it was written, so that what is said about it has its own lines.
///
/// # Errors
/// When one of the texts is no YAML.
pub(super) fn with_policies(yaml: &str, policies: &[WatchPolicy]) -> Result<String> {
    if policies.is_empty() {
        return Ok(yaml.to_owned());
    }
    let parse = |name: &str, text: &str| config::value_of(text).map_err(|error| anyhow!("{name}: {error}"));
    let mut configuration = parse("the configuration", yaml)?;
    if configuration.is_null() {
        configuration = json!({});
    }
    let top =
        configuration.as_object_mut().context("the configuration is no mapping; write `name: value`")?;
    let files = top.entry("files").or_insert_with(|| json!({}));
    let files = files.as_object_mut().context("files is no mapping; write `files: {watch: [..]}`")?;
    let watch = files.entry("watch").or_insert_with(|| json!([]));
    let watch = watch.as_array_mut().context("files.watch is no list; write one policy after another")?;
    for WatchPolicy { name, yaml } in policies {
        watch.push(parse(name, yaml)?);
    }
    Ok(serde_json::to_string_pretty(&configuration)?)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn policies_are_added_to_those_of_the_configuration() {
        let policy = |name: &str| WatchPolicy {
            name: format!("{name}.yaml"),
            yaml: format!("name: {name}\npaths: [/srv/{name}]"),
        };
        let text = "kinds: [file.open]\nfiles:\n  watch:\n    - {name: a, paths: [/a]}";
        assert_eq!(with_policies(text, &[]).unwrap(), text);
        let added = with_policies(text, &[policy("b"), policy("c")]).unwrap();
        let added: Value = serde_json::from_str(&added).unwrap();
        let names: Vec<_> =
            added["files"]["watch"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let alone: Value = serde_json::from_str(&with_policies("", &[policy("b")]).unwrap()).unwrap();
        assert_eq!(alone, json!({"files": {"watch": [{"name": "b", "paths": ["/srv/b"]}]}}));
        for scalar in ["files: 5", "files: {watch: 5}", "5"] {
            assert!(with_policies(scalar, &[policy("b")]).is_err(), "{scalar}");
        }
        let broken = WatchPolicy { name: "x.yaml".to_owned(), yaml: "[".to_owned() };
        assert!(with_policies("", &[broken]).unwrap_err().to_string().starts_with("x.yaml: "));
    }

    fn remote(state: &Path) -> Remote {
        let mut config = Config { state: Some(state.to_owned()), ..Config::default() };
        config.backend.address = Some("https://b:1".to_owned());
        Remote::open(&config)
    }

    #[test]
    fn what_is_kept_is_there_at_the_next_start_and_alone() {
        let state = tempfile::tempdir().unwrap();
        let mut first = remote(state.path());
        assert_eq!((first.file(), first.version()), (None, ""));
        for version in ["1-a", "2-b"] {
            let staged = first.stage(version, "log: error").unwrap();
            first.keep(&staged).unwrap();
        }
        let next = remote(state.path());
        assert_eq!(next.version(), "2-b");
        assert_eq!(fs::read_to_string(next.file().unwrap()).unwrap(), "log: error");
        assert_eq!(fs::read_dir(state.path().join(DIRECTORY)).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_kept_is_gone_and_what_was_stays() {
        let state = tempfile::tempdir().unwrap();
        let mut remote_of = remote(state.path());
        let staged = remote_of.stage("1", "log: error").unwrap();
        remote_of.keep(&staged).unwrap();
        drop(remote_of.stage("2", "log: warn").unwrap());
        assert_eq!(remote(state.path()).version(), "1");
        assert_eq!(fs::read_dir(state.path().join(DIRECTORY)).unwrap().count(), 1);
    }

    #[test]
    fn nothing_takes_away_what_there_was() {
        let state = tempfile::tempdir().unwrap();
        let mut first = remote(state.path());
        let staged = first.stage("1", "log: error").unwrap();
        first.keep(&staged).unwrap();
        let nothing = first.stage("2", " \n").unwrap();
        first.keep(&nothing).unwrap();
        assert_eq!(remote(state.path()).file(), None);
    }

    #[test]
    fn a_version_is_no_path() {
        let state = tempfile::tempdir().unwrap();
        for version in ["", "../x", "a/b", ".hidden", "a b", &"x".repeat(65)] {
            assert!(remote(state.path()).stage(version, "log: error").is_err(), "{version:?}");
        }
    }

    #[test]
    fn a_host_that_takes_none_has_none() {
        let state = tempfile::tempdir().unwrap();
        let mut taken = remote(state.path());
        let staged = taken.stage("1", "log: error").unwrap();
        taken.keep(&staged).unwrap();
        let mut config = Config { state: Some(state.path().to_owned()), ..Config::default() };
        config.backend.address = Some("https://b:1".to_owned());
        config.backend.configure = false;
        assert_eq!(Remote::open(&config).file(), None);
    }
}
