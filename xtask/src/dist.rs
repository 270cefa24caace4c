//! `cargo xtask dist`

use std::path::PathBuf;

use crate::workspace::{Workspace, execute, say};

/// Programs for it need nothing of the host but its kernel.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// What the programs are built for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// To be used.
    Release,
    /// To be started once by a test: minutes of optimizing would not come back.
    Test,
}

/// Builds agent and backend, statically linked, and gives the directory that they are in.
///
/// # Errors
///
/// When the build fails; cargo has said why.
pub fn dist(workspace: &Workspace, purpose: Purpose) -> anyhow::Result<PathBuf> {
    let (profile, folder) = match purpose {
        Purpose::Release => ("release", "release"),
        Purpose::Test => ("dev", "debug"),
    };
    let args = ["build", "--profile", profile, "--target", TARGET];
    let mut cargo = workspace.cargo(args);
    cargo.args(["--package", "nightjar", "--package", "nightjar-backend"]);
    // For the parts in C: compression and cryptography.
    cargo.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    execute(&mut cargo)?;
    let directory = workspace.target_dir.join(TARGET).join(folder);
    say(format_args!("{0}/nightjar and {0}/nightjar-backend", directory.display()));
    Ok(directory)
}
