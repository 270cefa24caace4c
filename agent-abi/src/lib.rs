//! What the kernel programs and the agent agree on, and nothing else.
//!
//! * [`fields`]: every kernel structure field that is read, by name. One table gives the kernel
//!   programs their typed accessors and the agent the list that it resolves against the running
//!   kernel's BTF.
//! * [`record`]: the layout of what the kernel programs send.
//! * [`hook`]: the places programs are attached to, and the counters each of them keeps.
#![no_std]

pub mod fields;
pub mod hook;
pub mod record;
