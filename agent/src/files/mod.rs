//! Which files are watched, and which operations on them.

mod defaults;
mod glob;
pub mod policy;
