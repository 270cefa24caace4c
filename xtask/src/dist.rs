//! `cargo xtask dist`

use std::path::PathBuf;

use crate::workspace::{Workspace, execute, say};

/// Programs for it need nothing of the host but its kernel.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds agent and backend, statically linked, and gives the directory that they are in.
///
/// # Errors
///
/// When the build fails; cargo has said why.
pub fn dist(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let directory = workspace.target_dir.join(TARGET).join("release");
    let args =
        ["build", "--release", "--target", TARGET, "--package", "nightjar", "--package", "nightjar-backend"];
    // For the parts in C: compression and cryptography.
    execute(workspace.cargo(args).env("CC_x86_64_unknown_linux_musl", "musl-gcc"))?;
    say(format_args!("{0}/nightjar and {0}/nightjar-backend", directory.display()));
    Ok(directory)
}
