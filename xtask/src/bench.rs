//! `cargo xtask bench`

use crate::{
    build,
    test::NIGHTJAR_BIN,
    workspace::{Workspace, execute},
};

/// Runs one benchmark of the tests crate against the release program.
///
/// # Errors
///
/// When a build or the benchmark fails.
pub fn run(workspace: &Workspace, name: &str, args: &[String]) -> anyhow::Result<()> {
    let program = build::build(workspace)?;
    let bench = ["run", "--release", "--package", "nightjar-tests", "--bin", "bench", "--", name];
    execute(workspace.cargo(bench).args(args).env(NIGHTJAR_BIN, program))
}
