//! `cargo xtask run`

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::Context;

use crate::{
    build,
    workspace::{Workspace, command_line, is_root, on_path, say},
};

/// Builds the program and becomes it, so that signals reach it directly. Only the program runs by sudo: what
/// cargo writes stays the caller's.
///
/// # Errors
///
/// When the build fails or the program does not start.
pub fn run(workspace: &Workspace, args: &[String]) -> anyhow::Result<()> {
    let program = build::build(workspace)?;
    let mut command = if is_root() {
        Command::new(&program)
    } else if on_path("sudo").is_some() {
        say(format_args!("not root, which kernel programs need: running the program by sudo"));
        let mut sudo = Command::new("sudo");
        sudo.arg("-E").arg(&program);
        sudo
    } else {
        say(format_args!(
            "not root, which kernel programs need, and there is no sudo: expect it to be refused"
        ));
        Command::new(&program)
    };
    command.args(args);
    let line = command_line(&command);
    say(format_args!("{line}"));
    Err(command.exec()).with_context(|| format!("`{line}` does not start"))
}
