//! Nightjar's agent: events go one way, from the kernel programs to an export.
//!
//! [`kernel`] drains records, [`decode`] makes them typed, [`process`] knows who is who, [`enrich`] adds
//! names, [`pipeline`] makes events of it all, [`export`] writes them; [`cli`] puts the parts together.

pub mod cli;
pub mod config;
pub mod decode;
pub mod deliver;
pub mod doctor;
pub mod enrich;
pub mod export;
pub mod files;
pub mod kernel;
pub mod network;
pub mod pipeline;
pub mod process;
pub mod server;
pub mod service;
pub mod watch;
