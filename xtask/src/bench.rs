//! `cargo xtask bench`

use crate::{
    build::{self, Programs},
    test::{NIGHTJAR_BACKEND_BIN, NIGHTJAR_BIN},
    workspace::{Workspace, execute},
};

/// Runs one benchmark of the tests crate against the release program.
///
/// # Errors
///
/// When a build or the benchmark fails.
pub fn run(workspace: &Workspace, name: &str, args: &[String]) -> anyhow::Result<()> {
    let Programs { agent, backend } = build::both(workspace)?;
    // What it runs beside itself.
    execute(&mut workspace.cargo(["build", "--release", "--package", "nightjar-tests", "--bin", "feeder"]))?;
    let bench = ["run", "--release", "--package", "nightjar-tests", "--bin", "bench", "--", name];
    let mut bench = workspace.cargo(bench);
    execute(bench.args(args).env(NIGHTJAR_BIN, agent).env(NIGHTJAR_BACKEND_BIN, backend))
}
