//! Delivery of events to the backend.
//!
//! In the order in which they travel: [`delivery`] is the output that takes events from the pipeline, [`writer`] collects
//! them in batches ([`batch`]), [`spool`] keeps these on disk until the backend has them, [`client`] sends them, with
//! [`connect`], [`tls`], [`channel`](self) and [`backoff`] to reach it. [`control`] does as the backend says on the same
//! connection; [`enrol`] makes the agent known to it.

pub mod backoff;
pub mod batch;
mod channel;
pub mod client;
pub mod connect;
pub mod control;
pub mod delivery;
pub mod enrol;
pub mod renew;
pub mod spool;
pub mod tls;
mod watermark;
pub mod writer;

pub use delivery::{Delivery, DeliveryError, Link, Options};
