//! Where things are, and how a command is run in it.

use std::{
    env,
    ffi::OsStr,
    path::{self, Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::build::Programs;

/// The checkout that `cargo xtask` was called in.
pub struct Workspace {
    /// The directory of the root manifest.
    pub root: PathBuf,
    /// Absolute: commands run in `root`, wherever xtask was called.
    pub target_dir: PathBuf,
}

impl Workspace {
    /// # Errors
    ///
    /// When not run by cargo, which says where the manifest is.
    pub fn current() -> anyhow::Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").context("run this by `cargo xtask`")?;
        let root = Path::new(&manifest).parent().context("xtask is not inside a workspace")?.to_owned();
        let target_dir = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => path::absolute(dir).context("CARGO_TARGET_DIR")?,
            None => root.join("target"),
        };
        Ok(Self { root, target_dir })
    }

    /// The programs that [`crate::build`] leaves.
    pub fn programs(&self) -> Programs {
        let release = self.target_dir.join("release");
        Programs { agent: release.join("nightjar"), backend: release.join("nightjar-backend") }
    }

    /// `cargo ARGS` in this workspace.
    pub fn cargo<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.args(args).current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target_dir);
        cargo
    }
}

/// Runs a command to its end; it shows its own output.
///
/// # Errors
///
/// When it does not start or does not succeed. The message has the command line.
pub fn execute(command: &mut Command) -> anyhow::Result<()> {
    let line = command_line(command);
    say(format_args!("{line}"));
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("`{line}` does not start"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// The command as one would type it, for messages.
pub fn command_line(command: &Command) -> String {
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| match word.to_string_lossy() {
            quoted if quoted.is_empty() || quoted.contains(char::is_whitespace) => format!("'{quoted}'"),
            plain => plain.into_owned(),
        })
        .collect();
    words.join(" ")
}

/// One line of progress. It goes to stderr: stdout belongs to the programs that are run.
pub fn say(line: std::fmt::Arguments<'_>) {
    eprintln!("xtask: {line}");
}

/// Whether commands may install packages and load kernel programs.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a skipped check is an error here.
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// The program of that name on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_reads_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["test", "a b", ""]);
        assert_eq!(command_line(&command), "cargo test 'a b' ''");
    }

    #[test]
    fn cargo_runs_in_the_workspace_with_its_target_directory() {
        let workspace = Workspace { root: "/checkout".into(), target_dir: "/elsewhere".into() };
        let cargo = workspace.cargo(["build"]);
        assert_eq!(cargo.get_current_dir(), Some(Path::new("/checkout")));
        assert!(
            cargo
                .get_envs()
                .any(|env| env == (OsStr::new("CARGO_TARGET_DIR"), Some(OsStr::new("/elsewhere"))))
        );
        assert_eq!(workspace.programs().agent, Path::new("/elsewhere/release/nightjar"));
    }
}
