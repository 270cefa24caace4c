//! `cargo xtask build`

use std::path::PathBuf;

use crate::workspace::{Workspace, execute};

/// Builds the release program, kernel programs included, and gives its path.
///
/// # Errors
///
/// When the build fails; cargo has said why.
pub fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    execute(&mut workspace.cargo(["build", "--release", "--package", "nightjar"]))?;
    Ok(workspace.program())
}
