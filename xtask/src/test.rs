//! `cargo xtask test`

use anyhow::bail;

use crate::{
    build::{self, Programs},
    dist::{self, Purpose},
    kernel_crate::PACKAGE,
    workspace::{Workspace, execute, is_ci, is_root, say},
};

/// Tells the tests and benchmarks the absolute path of the program to run.
pub const NIGHTJAR_BIN: &str = "NIGHTJAR_BIN";
/// Likewise of the backend.
pub const NIGHTJAR_BACKEND_BIN: &str = "NIGHTJAR_BACKEND_BIN";

/// Tells the tests the directory of the statically linked programs.
const NIGHTJAR_DIST: &str = "NIGHTJAR_DIST";

const KERNEL_TESTS: &str = "nightjar-tests";

/// What becomes of the tests that need a kernel.
#[derive(Debug, PartialEq)]
enum KernelTests {
    Run,
    Skip,
    Refuse,
}

/// Runs ring 1, the tests that run anywhere, then ring 2, those that load kernel programs.
///
/// # Errors
///
/// When a test or a build fails, and when ring 2 would be skipped where `CI=true`.
pub fn run(workspace: &Workspace, args: &[String]) -> anyhow::Result<()> {
    execute(
        workspace.cargo(["test", "--workspace", "--exclude", PACKAGE, "--exclude", KERNEL_TESTS]).args(args),
    )?;

    match kernel_tests(is_root(), is_ci()) {
        KernelTests::Run => {
            let Programs { agent, backend } = build::both(workspace)?;
            let dist = dist::dist(workspace, Purpose::Test)?;
            let test = ["test", "--package", KERNEL_TESTS];
            execute(
                workspace
                    .cargo(test)
                    .args(args)
                    .env(NIGHTJAR_BIN, agent)
                    .env(NIGHTJAR_BACKEND_BIN, backend)
                    .env(NIGHTJAR_DIST, dist),
            )
        }
        KernelTests::Skip => {
            say(format_args!(
                "skipped: the tests that need a kernel, because loading its programs needs root"
            ));
            Ok(())
        }
        KernelTests::Refuse => {
            bail!("the tests that need a kernel need root, and CI=true forbids to skip them")
        }
    }
}

fn kernel_tests(root: bool, ci: bool) -> KernelTests {
    match (root, ci) {
        (true, _) => KernelTests::Run,
        (false, false) => KernelTests::Skip,
        (false, true) => KernelTests::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_root_kernel_tests_are_skipped_but_never_in_ci() {
        assert_eq!(kernel_tests(true, true), KernelTests::Run);
        assert_eq!(kernel_tests(false, false), KernelTests::Skip);
        assert_eq!(kernel_tests(false, true), KernelTests::Refuse);
    }
}
