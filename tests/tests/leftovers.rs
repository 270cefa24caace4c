//! Nothing of the agent stays in the kernel when it is gone.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nightjar_tests::{Agent, programs_of, skip_without_kernel};
use rustix::process::Signal;

/// The kernel unloads what nobody holds any more in its own time.
const PATIENCE: Duration = Duration::from_secs(30);

fn loaded() -> BTreeSet<u32> {
    aya::programs::loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect()
}

/// Programs of the agent, which are loaded: their numbers, as other agents may run on this machine.
fn programs_while_it_runs(agent: &Agent) -> BTreeSet<u32> {
    let programs = programs_of(agent.pid());
    let names: BTreeSet<String> = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| programs.contains(&program.id()))
        .filter_map(|program| Some(program.name_as_str()?.to_owned()))
        .collect();
    for name in ["process_exec", "process_fork", "process_exit", "creds_syscall"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    assert!(programs.is_subset(&loaded()));
    programs
}

fn expect_unloaded(programs: &BTreeSet<u32>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<u32> = programs.intersection(&loaded()).copied().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "programs {left:?} are still loaded");
        std::thread::yield_now();
    }
}

#[test]
fn no_program_stays_loaded_after_an_interrupt() {
    skip_without_kernel!();
    let agent = Agent::start(&["--ring-size", "64MiB"]);
    let programs = programs_while_it_runs(&agent);
    agent.stop().expect_nothing_lost();
    expect_unloaded(&programs);
}

#[test]
fn no_program_stays_loaded_after_a_kill() {
    skip_without_kernel!();
    let agent = Agent::start(&["--ring-size", "64MiB"]);
    let programs = programs_while_it_runs(&agent);
    let summary = agent.stop_by(Signal::KILL);
    assert!(!summary.status.success());
    expect_unloaded(&programs);
}
