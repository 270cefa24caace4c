//! The client and enrolment, against a real server with real TLS.

mod agent;
mod authority;
pub mod backend;
mod delivery;
mod enrolment;
mod resume;
mod trust;
