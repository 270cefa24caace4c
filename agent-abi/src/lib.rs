//! What the kernel programs and the agent agree on, and nothing else.
//!
//! * [`fields`]: every kernel structure field that is read, by name. One table gives the kernel
//!   programs their typed accessors and the agent the list that it resolves against the running
//!   kernel's BTF.
//! * [`files`]: what is watched, and which system calls change files.
//! * [`network`]: flows of datagrams, and which sockets are told of.
//! * [`record`]: the layout of what the kernel programs send.
//! * [`reader`]: how the reader of a ring tells whether it wants to be woken.
//! * [`settings`]: what the agent can change while the programs run.
//! * [`hook`]: the places programs are attached to, and the counters each of them keeps.
#![no_std]
#![allow(
    clippy::inline_always,
    reason = "what kernel programs call is part of them: a call costs the verifier what it knows of the arguments"
)]

pub mod fields;
pub mod files;
pub mod hook;
pub mod network;
pub mod record;
pub mod settings;

/// Scratch buffers that each CPU has for records of variable length: a program may be preempted by
/// another on the same CPU.
pub const SCRATCH_LEVELS: u32 = 2;

/// What the reader of a ring buffer does, kept in the map `READER`: the reader writes it before it
/// stops looking, the program that wakes it writes [`AWAKE`](reader::AWAKE).
pub mod reader {
    /// It reads, or naps for some milliseconds and then reads: do not wake it.
    pub const AWAKE: u32 = 0;
    /// It waits for the next record: wake it.
    pub const SLEEPS: u32 = 1;
    /// It wants no more: nothing is counted and nothing sent. Taking programs from their hooks takes the kernel
    /// seconds, during which there would be no end of records.
    pub const LEFT: u32 = 2;
}
