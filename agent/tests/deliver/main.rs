//! The way of events to the backend, without kernel programs: spool, writer, client, enrolment.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

mod client;
mod memory_disk;
mod read_only;
mod spool_kill;
mod spool_model;
mod spool_resume;
mod writer;
