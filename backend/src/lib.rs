//! The backend of Nightjar: takes what agents send, keeps it and shows it.
//!
//! A batch comes by [`ingest`], is looked through ([`check`]), handed to the [`store`] and acknowledged when it is
//! durable. [`registry`], [`ca`] and [`tls`] decide who may send; by [`control`] agents are steered and watched
//! ([`tails`]); [`admin`] is what the subcommands ask.

#![forbid(unsafe_code)]

pub mod admin;
pub mod ca;
pub mod check;
pub mod cli;
pub mod control;
pub mod enrolment;
pub mod hour;
pub mod ingest;
mod locks;
pub mod registry;
pub mod server;
pub mod store;
pub mod tails;
pub mod tls;
pub mod wire;
