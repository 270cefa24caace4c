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
/// The most processes that write one.
const MOST_WRITERS: usize = 64;

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
pub(super) struct Sessions(HashMap<u64, Vec<Session>>);

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
    pub(super) fn changed(&mut self, path: &[u8], pid: u32, time: u64) -> Vec<Session> {
        let sessions = self.0.entry(hash(path)).or_default();
        if !sessions.iter().any(|session| session.pid == pid) {
            sessions.push(Session { is_change: true, ..Session::of(path, pid, time) });
        }
        let crowded = sessions.len() > MOST_WRITERS;
        if self.0.len() <= MOST && !crowded {
            return Vec::new();
        }
        self.0.remove(&hash(path)).unwrap_or_default()
    }

    /// A process closed a file that it could write: what it wrote, or, where it wrote nothing itself, what others did
    /// who may have had the descriptor from it.
    pub(super) fn end(&mut self, path: &[u8], pid: u32) -> Vec<Session> {
        let key = hash(path);
        let Some(sessions) = self.0.get_mut(&key) else { return Vec::new() };
        match sessions.iter().position(|session| session.pid == pid) {
            Some(own) => {
                let own = sessions.remove(own);
                if sessions.is_empty() {
                    self.0.remove(&key);
                }
                vec![own]
            }
            None => self.0.remove(&key).unwrap_or_default(),
        }
    }

    /// Files that have been written for long. They are begun anew by the next change.
    pub(super) fn long(&mut self, now: Instant) -> Vec<Session> {
        let mut long = Vec::new();
        self.0.retain(|_, sessions| {
            long.extend(sessions.extract_if(.., |session| now.duration_since(session.since) >= PATIENCE));
            !sessions.is_empty()
        });
        long
    }

    /// A file has another name.
    pub(super) fn renamed(&mut self, old: &[u8], new: &[u8]) {
        for mut session in self.0.remove(&hash(old)).unwrap_or_default() {
            session.path = new.to_vec();
            self.0.entry(hash(new)).or_default().push(session);
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
    fn each_process_has_its_own() {
        let mut sessions = Sessions::default();
        assert!(sessions.changed(b"/a", 1, 10).is_empty() && sessions.changed(b"/a", 1, 11).is_empty());
        assert!(sessions.changed(b"/a", 2, 20).is_empty());
        sessions.renamed(b"/a", b"/b");
        assert!(sessions.end(b"/a", 1).is_empty());
        let own = sessions.end(b"/b", 2);
        assert_eq!((own[0].pid, own[0].time, own[0].path.as_slice()), (2, 20, b"/b".as_slice()));
        assert_eq!(sessions.end(b"/b", 3)[0].pid, 1, "by a descriptor that was passed on");
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
            assert!(sessions.changed(n.to_string().as_bytes(), 1, 0).is_empty());
        }
        assert_eq!(sessions.changed(b"one more", 1, 0).len(), 1);
    }
}
