//! Helpers of the kernel tests: the real program, real system calls, real events.
//!
//! A test reads as cause and effect:
//!
//! ```no_run
//! use nightjar_tests::{exec, run, skip_without_kernel};
//!
//! # fn the_program_that_ran_is_named() {
//! skip_without_kernel!();
//! run("/bin/true").expect_event(exec().exe("/usr/bin/true").with("exec.filename", "/bin/true"));
//! # }
//! ```
//!
//! `NIGHTJAR_BIN` names the program under test; without it that of `cargo xtask build` is taken. Tests that
//! find no kernel to load programs into are skipped with a line that says why, and fail where `CI=true`.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a helper of tests reports")]
#![allow(clippy::must_use_candidate, reason = "what counts is often that it was waited for")]

mod agent;
mod cgroup;
mod delivery;
mod event;
mod files;
mod netns;
mod os;
mod relay;
mod requirements;
mod run;
mod schema;
mod service;
mod session;
mod sockets;
mod tree;
mod watched;

pub use agent::{Agent, Summary, instance, nightjar, nightjar_path, programs_of, socket_of, status_of};
pub use cgroup::{Cgroup, cgroup_hierarchy};
pub use delivery::{
    Backend, Counts, Feeder, Stored, backend_command, backend_path, expect_all, free_address,
};
pub use event::{
    Event, Expect, Expected, credentials, exec, exec_failed, exit, file, fits, fork, loss, nanos, network,
};
pub use files::{copy_of, folder_for_all, make_executable, remove_cgroup};
pub use netns::{Host, Hosts};
pub use os::{Ended, PseudoTerminal, await_exit, set_file_capabilities, status_of_wait};
pub use relay::Relay;
pub use requirements::{missing_for_kernel_tests, skip};
pub use run::{
    Ran, Run, Running, TRUE, feeder_path, quiet, rawfile_path, rawnet_path, run, workload, workload_path,
};
pub use schema::{expect_events, expect_status, wrong_with};
pub use service::{Service, ServiceEnd, discarded, hook_count};
pub use session::{Session, until};
pub use sockets::{Peer, TALK, Talk, Wire, network_agent, watch_network};
pub use tree::Tree;
pub use watched::{Acted, Folder, Told, events_of_shared, truth, watch};
