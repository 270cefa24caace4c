//! `cargo xtask dist`

use std::path::PathBuf;

use crate::{
    build::Programs,
    workspace::{Workspace, execute, say},
};

/// Programs for it need nothing of the host but its kernel.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds agent and backend, statically linked.
///
/// # Errors
///
/// When the build fails; cargo has said why.
pub fn dist(workspace: &Workspace) -> anyhow::Result<()> {
    let Programs { agent, backend } = programs(workspace);
    let args =
        ["build", "--release", "--target", TARGET, "--package", "nightjar", "--package", "nightjar-backend"];
    // For the parts in C: compression and cryptography.
    execute(workspace.cargo(args).env("CC_x86_64_unknown_linux_musl", "musl-gcc"))?;
    for program in [agent, backend] {
        say(format_args!("{}", program.display()));
    }
    Ok(())
}

/// Where they are.
fn programs(workspace: &Workspace) -> Programs {
    let at = |name: &str| -> PathBuf { workspace.target_dir.join(TARGET).join("release").join(name) };
    Programs { agent: at("nightjar"), backend: at("nightjar-backend") }
}
