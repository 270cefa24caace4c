//! Writing to a file, from the first change to the close: one event however often it was written.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::tree::hash;

/// How long a file is written before that is told though it is still open.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most files that are written at a time.
const MOST: usize = 16384;

/// A file that is being written.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Path as policies see it.
    pub(super) path: Vec<u8>,
    /// Who changed it first since it was last told.
    pub(super) pid: u32,
    /// When, nanoseconds since boot.
    pub(super) time: u64,
    since: Instant,
    is_change: bool,
}

/// Files that are being written.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<u64, Session>);

impl Session {
    /// One that began and ended without a change that was told.
    pub(super) fn of(path: &[u8], pid: u32, time: u64) -> Self {
        Self { path: path.to_vec(), pid, time, since: Instant::now(), is_change: false }
    }

    /// Whether somebody is known to have changed the file.
    pub(super) fn is_change(&self) -> bool {
        self.is_change
    }
}

impl Sessions {
    /// A file was changed by a process. What had to go for lack of room, to be told now.
    pub(super) fn changed(&mut self, path: &[u8], pid: u32, time: u64) -> Option<Session> {
        let make = || Session { is_change: true, ..Session::of(path, pid, time) };
        self.0.entry(hash(path)).or_insert_with(make);
        if self.0.len() <= MOST {
            return None;
        }
        let oldest = self.0.iter().min_by_key(|(_, session)| session.since).map(|(key, _)| *key)?;
        self.0.remove(&oldest)
    }

    /// A file was closed that could be written, or its change was told by other means.
    pub(super) fn end(&mut self, path: &[u8]) -> Option<Session> {
        self.0.remove(&hash(path))
    }

    /// Files that have been written for long. They are begun anew by the next change.
    pub(super) fn long(&mut self, now: Instant) -> Vec<Session> {
        self.0
            .extract_if(|_, session| now.duration_since(session.since) >= PATIENCE)
            .map(|(_, long)| long)
            .collect()
    }

    /// A file has another name.
    pub(super) fn renamed(&mut self, old: &[u8], new: &[u8]) {
        if let Some(mut session) = self.end(old) {
            session.path = new.to_vec();
            self.0.insert(hash(new), session);
        }
    }

    /// Whether none are being written.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whose_who_changed_it_first() {
        let mut sessions = Sessions::default();
        assert!(sessions.changed(b"/a", 1, 10).is_none());
        assert!(sessions.changed(b"/a", 2, 20).is_none());
        sessions.renamed(b"/a", b"/b");
        assert!(sessions.end(b"/a").is_none());
        let session = sessions.end(b"/b").unwrap();
        assert_eq!((session.pid, session.time, session.path.as_slice()), (1, 10, b"/b".as_slice()));
        assert!(sessions.is_empty());
    }

    #[test]
    fn what_is_written_for_long_is_told_and_begun_anew() {
        let mut sessions = Sessions::default();
        sessions.changed(b"/a", 1, 10);
        assert!(sessions.long(Instant::now()).is_empty());
        assert_eq!(sessions.long(Instant::now() + PATIENCE).len(), 1);
        assert!(sessions.is_empty());
    }

    #[test]
    fn more_than_there_is_room_for_are_told_early() {
        let mut sessions = Sessions::default();
        for n in 0..MOST {
            assert!(sessions.changed(n.to_string().as_bytes(), 1, 0).is_none());
        }
        assert!(sessions.changed(b"one more", 1, 0).is_some());
    }
}
