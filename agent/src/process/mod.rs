//! The process table: who is who, and who made whom.
//!
//! A process is `(boot, process ID, start time)`, a program image is that and the number that the kernel
//! raises at every exec; [`Identity`] folds them to 64 bits that every observer of the same boot derives
//! alike. Nothing is looked up by a bare process ID, so reuse of one is of no consequence.
//!
//! The table never guesses: what it has not seen it does not say, and where a start was lost the entry is
//! made from what the event at hand carries, and marked.

mod identity;
mod pids;
mod proc;
mod table;

pub use identity::Identity;
pub use pids::Pids;
pub use proc::{arguments_from_proc, read_proc};
pub use table::{Bounds, FileFacts, Image, Lineage, Process, Source, Stats, Table};
