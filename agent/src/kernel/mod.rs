//! The kernel side of the agent: field offsets, hook plan, load and attach, ring drain, counters.
//!
//! [`Kernel::load`] does all of it in order and hands out what the rest needs: a [`Ring`] to read
//! records from, [`Counters`] to sample, and a [`Snapshot`] of what was there before.

pub mod btf;
mod cgroup2;
mod controls;
mod counters;
pub mod fields;
mod files;
mod load;
mod log;
mod network;
mod plan;
mod ring;
mod tracefs;

pub use controls::Controls;
pub use counters::{Counters, Sample};
pub use files::{FileControls, InodeNumber};
pub use load::{Kernel, KernelError, Options, Snapshot, give_back_memory};
pub use log::spawn as spawn_log;
pub use network::NetworkControls;
pub use plan::{
    Candidate, HookKind, Refusal, Sensor, SensorPlan, Serving, call_name, file_call_name, socket_call_name,
};
pub use ring::{Doorbell, Ring, RingError};
