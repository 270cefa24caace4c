//! Nightjar's agent: events go one way, from the kernel programs to an export.

pub mod enrich;
pub mod kernel;
