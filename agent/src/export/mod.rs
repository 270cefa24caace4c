//! Where events go.

pub mod compact;
pub mod file;
pub mod hub;
mod json;

use std::io;

pub use json::{Json, JsonFile};
use nightjar_proto::v1::Event;

/// Takes events, in order.
pub trait Export: Send {
    /// Takes one event.
    ///
    /// # Errors
    /// When it cannot be written.
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// Writes what was taken; called when nothing more is at hand.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}
