//! How events are chosen (`--where`) and shown (`-o`), by the agent and by the backend alike.

#![forbid(unsafe_code)]

pub mod compact;
pub mod expression;
pub mod profile;

use std::io::{self, Write};

use nightjar_proto::v1::Event;

use self::profile::Profile;

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

/// Bytes that are collected before they are written, where more events are at hand.
const BATCH: usize = 64 << 10;

/// Writes events as lines of JSON, in the form of a profile. Only whole lines are handed to the writer.
pub struct Json<W> {
    to: W,
    profile: Profile,
    lines: Vec<u8>,
}

// === impl Json ===

impl<W: Write> Json<W> {
    /// Writes to `to`, which need not be buffered.
    pub fn new(to: W, profile: Profile) -> Self {
        Self { to, profile, lines: Vec::with_capacity(BATCH) }
    }
}

impl<W: Write + Send> Export for Json<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.profile.write(event, &mut self.lines);
        self.lines.push(b'\n');
        if self.lines.len() < BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.write_all(&self.lines).and_then(|()| self.to.flush());
        self.lines.clear();
        // One event of many megabytes should not be paid for ever after.
        self.lines.shrink_to(BATCH * 2);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let mut bytes = Vec::new();
        let mut json = Json::new(&mut bytes, Profile::Native);
        let event = Event { kind: "process.exec".to_owned(), ..Event::default() };
        json.event(&event).unwrap();
        json.event(&event).unwrap();
        json.flush().unwrap();
        drop(json);
        assert_eq!(bytes, b"{\"kind\":\"process.exec\"}\n{\"kind\":\"process.exec\"}\n");
    }
}
