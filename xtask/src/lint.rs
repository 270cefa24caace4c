//! `cargo xtask lint`

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::anyhow;

use crate::{
    docs,
    kernel_crate::{self, PACKAGE},
    tools,
    workspace::{Workspace, execute, say},
};

const CLIPPY: [&str; 5] = ["clippy", "--workspace", "--exclude", PACKAGE, "--all-targets"];
const DOC: [&str; 5] = ["doc", "--workspace", "--exclude", PACKAGE, "--no-deps"];
const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

/// Runs every check that CI makes, the quickest first.
///
/// # Errors
///
/// When a check finds something.
pub fn run(workspace: &Workspace) -> anyhow::Result<()> {
    execute(&mut workspace.cargo(["fmt", "--all", "--check"]))?;
    dependencies(workspace)?;
    execute(workspace.cargo(CLIPPY).args(DENY_WARNINGS))?;
    kernel_crate(workspace)?;
    execute(workspace.cargo(DOC).env("RUSTDOCFLAGS", "-D warnings"))?;
    docs::run(workspace, true)
}

/// The kernel crate compiles for its own target only, with flags of its own.
fn kernel_crate(workspace: &Workspace) -> anyhow::Result<()> {
    let target_dir = workspace.target_dir.join("bpf");
    let mut clippy = kernel_crate::cargo("clippy", &workspace.root, &target_dir, env::consts::ARCH)
        .map_err(|missing| anyhow!(missing))?;
    execute(clippy.args(DENY_WARNINGS))
}

/// Licences, duplicates and sources need nothing but the lock file. Advisories need their database, a git
/// repository: a machine that cannot reach it uses the copy it has or goes without.
fn dependencies(workspace: &Workspace) -> anyhow::Result<()> {
    let deny = tools::CARGO_DENY.find(&workspace.root).map_err(|missing| anyhow!(missing))?;
    let deny = |args: &[&str]| {
        let mut command = Command::new(&deny);
        command.args(args).current_dir(&workspace.root);
        command
    };
    execute(&mut deny(&["check", "licenses", "bans", "sources"]))?;

    // git would otherwise ask a terminal for a password, or wait for a dead route without end.
    let mut fetch = deny(&["--log-level", "off", "fetch", "db"]);
    fetch.env("GIT_TERMINAL_PROMPT", "0");
    let fetched = execute(&mut fetch).is_ok();
    if !advisory_databases().is_some_and(|dir| has_directory(&dir)) {
        say(format_args!(
            "skipped: advisories, because their database cannot be fetched and there is no copy"
        ));
        return Ok(());
    }
    if !fetched {
        say(format_args!("the advisory database cannot be fetched: using the copy of an earlier run"));
    }
    execute(&mut deny(&["check", "--disable-fetch", "advisories"]))
}

/// Where cargo-deny keeps databases unless told otherwise.
fn advisory_databases() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(env::home_dir()?.join(".cargo"))).map(|home| home.join("advisory-dbs"))
}

/// A failed fetch leaves a lock file and no directory.
fn has_directory(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
}
