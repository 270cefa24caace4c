//! `cargo xtask run`

use std::{os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::Context;

use crate::{
    build,
    workspace::{Workspace, command_line, is_root, on_path, say},
};

/// Builds the agent and becomes it, so that signals reach it directly.
///
/// # Errors
///
/// When the build fails or the program does not start.
pub fn run(workspace: &Workspace, args: &[String]) -> anyhow::Result<()> {
    let program = build::agent(workspace)?;
    let mut command = as_root(&program);
    command.args(args);
    let line = command_line(&command);
    say(format_args!("{line}"));
    Err(command.exec()).with_context(|| format!("`{line}` does not start"))
}

/// A program by sudo, unless the caller is root. Only this: what cargo writes stays the caller's.
pub fn as_root(program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    if on_path("sudo").is_none() {
        say(format_args!(
            "not root, which kernel programs need, and there is no sudo: expect it to be refused"
        ));
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("-E").arg(program);
    sudo
}
