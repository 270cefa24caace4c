//! The backend as a process, and real clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

mod access;
mod client;
mod control;
mod crash;
mod events;
mod full;
mod many;
mod modes;
mod process;
mod resumed;
mod strangers;
