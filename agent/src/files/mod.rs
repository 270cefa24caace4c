//! Files: which are watched, and what the records and the kernel's notifications together say of them.
//!
//! * [`policy`]: what somebody wants to be told of; [`resolve`]: which inodes and directories that is now.
//! * [`fanotify`]: the kernel's notifications. They are of directories and names as the kernel used them, by
//!   whatever call, but say neither when nor how.
//! * [`Monitor`]: puts the two together. A notification waits when a call returns, so whoever has the record of a
//!   call finds what the kernel says of it; what has no record is an event by itself.

mod defaults;
mod describe;
mod echo;
pub mod fanotify;
mod glob;
mod inode;
mod monitor;
mod paths;
pub mod policy;
pub mod resolve;
mod session;
mod tree;

pub use monitor::{Act, Actor, Monitor, NOTICED, Options, limits};
