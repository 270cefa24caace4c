//! `cargo xtask build`

use std::path::PathBuf;

use crate::workspace::{Workspace, execute};

/// What a build leaves.
pub struct Programs {
    /// `nightjar`
    pub agent: PathBuf,
    /// `nightjar-backend`
    pub backend: PathBuf,
}

/// Builds the agent for release, kernel programs included, and gives its path.
///
/// # Errors
///
/// When the build fails; cargo has said why.
pub fn agent(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    execute(&mut workspace.cargo(["build", "--release", "--package", "nightjar"]))?;
    Ok(workspace.programs().agent)
}

/// Builds agent and backend for release.
///
/// # Errors
///
/// As [`agent`].
pub fn both(workspace: &Workspace) -> anyhow::Result<Programs> {
    let args = ["build", "--release", "--package", "nightjar", "--package", "nightjar-backend"];
    execute(&mut workspace.cargo(args))?;
    Ok(workspace.programs())
}
