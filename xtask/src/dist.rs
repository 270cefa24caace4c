//! `cargo xtask dist`

use std::path::PathBuf;

use crate::workspace::{Workspace, execute, say};

/// Programs for it need nothing of the host but its kernel.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// What the programs are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    let args =
        ["build", "--release", "--target", TARGET, "--package", "nightjar", "--package", "nightjar-backend"];
    let mut cargo = workspace.cargo(args);
    // For the parts in C: compression and cryptography.
    cargo.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    if purpose == Purpose::Test {
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    }
    execute(&mut cargo)?;
    let directory = workspace.target_dir.join(TARGET).join("release");
    say(format_args!("{0}/nightjar and {0}/nightjar-backend", directory.display()));
    Ok(directory)
}
