//! Notifications that wait for the record of the call that made them.
//!
//! The kernel queues a notification before the call returns, and the record is made when it returns: whoever has
//! a record and then reads all notifications has those of the record too. Equal notifications of a process that
//! nobody has read yet are one, so one of them may go with several records. A notification that no record has come
//! for within [`HOLD`] is of a call that makes none: it is an event by itself.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::tree::{ByHash, hash, hash_of_all};

/// How long a notification waits: from what was done to the return of the call it is microseconds.
const HOLD: Duration = Duration::from_millis(100);
/// How much later than a notification was read the call may have returned, nanoseconds: on a crowded machine its
/// thread waits for its turn.
const LATEST_RETURN: u64 = 100_000_000;
/// The most that wait at a time.
const MOST: usize = 65536;

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Open,
    Create,
    Delete,
    Rename,
    Attributes,
    Modify,
}

/// A notification.
#[derive(Debug, Clone)]
pub(super) struct Echo {
    pub(super) class: Class,
    pub(super) pid: u32,
    /// Path as policies see it; of a rename the old one, empty where that is not watched.
    pub(super) path: Vec<u8>,
    /// Of a rename the new one, empty where that is not watched.
    pub(super) target: Vec<u8>,
    pub(super) is_directory: bool,
    /// When it was read, nanoseconds since boot.
    pub(super) time: u64,
    read: Instant,
    confirmed: bool,
    /// What it is found by: its whole path, and its file name.
    keys: [u64; 2],
}

/// A notification that goes with a record.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub(super) echo: Echo,
    /// It is of that very call, as far as anybody can tell. Else it may be that of another of the process.
    pub(super) is_certain: bool,
    /// There was no other that it could have been.
    pub(super) is_only: bool,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    waiting: VecDeque<Echo>,
    /// Number of the first of them.
    first: u64,
    /// By process, class and paths.
    by_path: ByHash<Same>,
    /// By process, class and the file names in them.
    by_name: ByHash<Same>,
    turns: HashMap<(u32, Class), Turns>,
    /// Opens that were told and may be repeated without a record: until when.
    opens: HashMap<(u32, u64), Instant>,
}

/// Notifications that say the same.
#[derive(Debug, Default)]
struct Same {
    /// Those that no record has come for, oldest first.
    free: VecDeque<u64>,
    /// The last that one has come for.
    last: Option<u64>,
}

/// Notifications of a process in the order of what was done.
#[derive(Debug, Default)]
struct Turns {
    /// Those that no record has come for, and perhaps others.
    queue: VecDeque<u64>,
    /// How many no record has come for.
    free: usize,
    /// Of those with lower numbers nobody can say which record they go with.
    doubtful_below: u64,
}

// === impl Echo ===

impl Echo {
    /// The path that it is known by: of a rename the new one if there is one.
    fn key(&self) -> &[u8] {
        if self.target.is_empty() { &self.path } else { &self.target }
    }

    pub(super) fn new(class: Class, pid: u32, path: Vec<u8>, is_directory: bool, time: u64) -> Self {
        Self::of_two(class, pid, (path, Vec::new()), is_directory, time)
    }

    /// Of an old and a new path.
    pub(super) fn of_two(
        class: Class,
        pid: u32,
        (path, target): (Vec<u8>, Vec<u8>),
        is_directory: bool,
        time: u64,
    ) -> Self {
        let keys = [key_of_paths(class, pid, &path, &target), key_of_names(class, pid, &path, &target)];
        let read = Instant::now();
        Self { class, pid, path, target, is_directory, time, read, confirmed: false, keys }
    }
}

/// What notifications of one path, or of two, are found by.
fn key_of_paths(class: Class, pid: u32, path: &[u8], target: &[u8]) -> u64 {
    // No path has a NUL, so that nothing else is the same.
    hash_of_all(&[path, b"\0", target, b"\0", &pid.to_ne_bytes(), &[class as u8]])
}

fn key_of_names(class: Class, pid: u32, path: &[u8], target: &[u8]) -> u64 {
    key_of_paths(class, pid, file_name(path), file_name(target))
}

// === impl Echoes ===

impl Echoes {
    /// Takes a notification.
    pub(super) fn push(&mut self, mut echo: Echo) {
        echo.confirmed |= echo.class == Class::Open
            && self.opens.get(&(echo.pid, hash(&echo.path))).is_some_and(|until| *until > echo.read);
        let number = self.first + self.waiting.len() as u64;
        for (map, key) in [&mut self.by_path, &mut self.by_name].into_iter().zip(echo.keys) {
            let same = map.entry(key).or_default();
            if echo.confirmed {
                same.last = Some(number);
            } else {
                same.free.push_back(number);
            }
        }
        if !echo.confirmed {
            let turns = self.turns.entry((echo.pid, echo.class)).or_default();
            turns.queue.push_back(number);
            turns.free += 1;
        }
        self.waiting.push_back(echo);
    }

    /// An open was told that may be repeated without a record until `until`.
    pub(super) fn expect_opens(&mut self, pid: u32, path: &[u8], until: Instant) {
        self.opens.insert((pid, hash(path)), until);
    }

    /// The notification of this path that a record of a process, made at `time`, goes with.
    ///
    /// What one thread does comes in the order in which it is done. Where the turn was another's the process has
    /// several threads, which may have changed each other's names: then nobody can say which is whose.
    pub(super) fn confirm(
        &mut self,
        class: Class,
        pid: u32,
        path: &[u8],
        target: &[u8],
        time: u64,
    ) -> Option<Confirmed> {
        // Of a rename one of the names may be where nothing is watched.
        let keys = [(path, target), (path, &[][..]), (&[][..], target)];
        let keys = keys.into_iter().take(if target.is_empty() { 1 } else { 3 });
        let number = keys.into_iter().find_map(|(path, target)| {
            self.first(&self.by_path, key_of_paths(class, pid, path, target), time)
        })?;
        self.take(number, time)
    }

    /// The notification that goes with a record whose path leads over symbolic links: of the same file name.
    pub(super) fn confirm_by_name(
        &mut self,
        class: Class,
        pid: u32,
        (path, target): (&[u8], &[u8]),
        time: u64,
        is_same: impl Fn(&[u8]) -> bool,
    ) -> Option<Confirmed> {
        let number = self.first(&self.by_name, key_of_names(class, pid, path, target), time)?;
        // The same name in another directory is another file.
        is_same(self.get(number)?.key()).then_some(())?;
        self.take(number, time)
    }

    /// The first that no record has come for, else the last that one has.
    fn first(&self, map: &ByHash<Same>, key: u64, time: u64) -> Option<u64> {
        let same = map.get(&key)?;
        let may_be = |number: &u64| self.get(*number).is_some_and(|echo| echo.time + LATEST_RETURN >= time);
        same.free.front().copied().or_else(|| same.last.filter(may_be))
    }

    /// The notification that goes with a record whose name was changed during the call: the one whose turn it is,
    /// certain if there is no other.
    pub(super) fn confirm_next(
        &mut self,
        class: Class,
        pid: u32,
        is_directory: bool,
        time: u64,
    ) -> Option<Confirmed> {
        let turns = self.turns.get(&(pid, class))?;
        let is_only = turns.free == 1;
        let is_free = |number: &&u64| self.get(**number).is_some_and(|echo| !echo.confirmed);
        let number = *turns.queue.iter().find(is_free)?;
        if self.get(number)?.is_directory != is_directory {
            return None;
        }
        let mut confirmed = self.take(number, time)?;
        confirmed.is_certain &= is_only;
        if !is_only {
            self.doubt(class, pid);
        }
        Some(confirmed)
    }

    /// Both notifications of two names that changed places.
    pub(super) fn confirm_exchange(&mut self, pid: u32, one: &[u8], other: &[u8], time: u64) -> bool {
        let pair = [(one, other), (other, one)];
        let fits = |echo: &Echo| pair.iter().any(|(old, new)| echo.path == *old && echo.target == *new);
        let turns = self.turns.get(&(pid, Class::Rename)).into_iter().flat_map(|turns| &turns.queue);
        let is_it = |number: &u64| self.get(*number).is_some_and(|echo| !echo.confirmed && fits(echo));
        let found: Vec<_> = turns.copied().filter(is_it).take(2).collect();
        for number in &found {
            self.take(*number, time);
        }
        !found.is_empty()
    }

    fn get(&self, number: u64) -> Option<&Echo> {
        self.waiting.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn take(&mut self, number: u64, time: u64) -> Option<Confirmed> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let echo = self.waiting.get_mut(index)?;
        if echo.confirmed && echo.time + LATEST_RETURN < time {
            // It was read before the call was made.
            return None;
        }
        let (pid, class, was_confirmed) = (echo.pid, echo.class, echo.confirmed);
        echo.confirmed = true;
        let echo = echo.clone();
        if !was_confirmed {
            for (map, key) in [&mut self.by_path, &mut self.by_name].into_iter().zip(echo.keys) {
                if let Some(same) = map.get_mut(&key) {
                    // Nearly always the first.
                    let at = same.free.iter().position(|free| *free == number);
                    at.and_then(|at| same.free.remove(at));
                    same.last = Some(number);
                }
            }
        }
        let Self { waiting, first, turns, .. } = self;
        let Some(turns) = turns.get_mut(&(pid, class)) else {
            return Some(Confirmed { echo, is_certain: true, is_only: !was_confirmed });
        };
        let is_done = |turn: u64| {
            let at = turn.checked_sub(*first).and_then(|at| usize::try_from(at).ok());
            turn != number && at.and_then(|at| waiting.get(at)).is_none_or(|echo| echo.confirmed)
        };
        while turns.queue.front().is_some_and(|turn| is_done(*turn)) {
            turns.queue.pop_front();
        }
        let is_turn = turns.queue.front() == Some(&number);
        if is_turn {
            turns.queue.pop_front();
        }
        if !was_confirmed {
            turns.free = turns.free.saturating_sub(1);
        }
        let is_only = is_turn && !was_confirmed && turns.free == 0;
        let is_doubtful = number < turns.doubtful_below;
        // Merged with an earlier one, and nobody else in sight.
        let is_repeat = was_confirmed && turns.free == 0;
        let is_certain = (is_turn || is_repeat) && !is_doubtful;
        if !is_turn && turns.free > 0 {
            self.doubt(class, pid);
        }
        Some(Confirmed { echo, is_certain, is_only })
    }

    fn doubt(&mut self, class: Class, pid: u32) {
        let next = self.first + self.waiting.len() as u64;
        if let Some(turns) = self.turns.get_mut(&(pid, class)) {
            turns.doubtful_below = next;
        }
    }

    /// Those that no record came for in time. All records of what was done until `drained` have been here.
    pub(super) fn expired(&mut self, drained: Instant) -> Vec<Echo> {
        let mut expired = Vec::new();
        while let Some(echo) = self.waiting.front() {
            let is_early = drained.saturating_duration_since(echo.read) < HOLD;
            if self.waiting.len() <= MOST && is_early {
                break;
            }
            let Some(echo) = self.waiting.pop_front() else { break };
            let number = self.first;
            self.first += 1;
            for (map, key) in [&mut self.by_path, &mut self.by_name].into_iter().zip(echo.keys) {
                if let Some(same) = map.get_mut(&key) {
                    same.free.pop_front_if(|free| *free == number);
                    same.last = same.last.filter(|last| *last != number);
                    if same.free.is_empty() && same.last.is_none() {
                        map.remove(&key);
                    }
                }
            }
            let key = (echo.pid, echo.class);
            if let Some(turns) = self.turns.get_mut(&key) {
                turns.queue.pop_front_if(|turn| *turn <= number);
                if !echo.confirmed {
                    turns.free = turns.free.saturating_sub(1);
                }
                if turns.queue.is_empty() && turns.free == 0 {
                    self.turns.remove(&key);
                }
            }
            // It may have been told since it came that this open is repeated.
            let is_repeat = echo.class == Class::Open
                && self.opens.get(&(echo.pid, hash(&echo.path))).is_some_and(|until| *until > echo.read);
            if !echo.confirmed && !is_repeat {
                expired.push(echo);
            }
        }
        if self.opens.len() > MOST {
            self.opens.retain(|_, until| *until > drained);
        }
        expired
    }

    /// Whether any wait.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What follows the last slash.
pub(super) fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// What is before the last slash.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(class: Class, path: &str) -> Echo {
        Echo::new(class, 7, path.into(), false, 0)
    }

    fn expired(echoes: &mut Echoes) -> Vec<Vec<u8>> {
        let later = Instant::now() + HOLD;
        echoes.expired(later).into_iter().map(|echo| echo.path).collect()
    }

    #[test]
    fn one_that_a_record_came_for_is_no_event_of_its_own() {
        let mut echoes = Echoes::default();
        echoes.push(echo(Class::Delete, "/etc/a"));
        echoes.push(echo(Class::Delete, "/etc/b"));
        assert!(echoes.confirm(Class::Delete, 7, b"/etc/a", b"", 0).unwrap().is_certain);
        assert_eq!(expired(&mut echoes), [b"/etc/b"]);
        assert!(echoes.is_empty() && echoes.by_path.is_empty() && echoes.by_name.is_empty());
        assert!(echoes.turns.is_empty());
    }

    #[test]
    fn equal_ones_are_merged_and_go_with_several_records() {
        let mut echoes = Echoes::default();
        echoes.push(echo(Class::Delete, "/etc/a"));
        assert!(echoes.confirm(Class::Delete, 7, b"/etc/a", b"", 0).unwrap().is_certain);
        assert!(echoes.confirm(Class::Delete, 7, b"/etc/a", b"", 0).unwrap().is_certain);
        assert!(expired(&mut echoes).is_empty());
    }

    #[test]
    fn a_repeat_from_before_the_call_is_not_of_it() {
        let mut echoes = Echoes::default();
        echoes.push(echo(Class::Delete, "/etc/a"));
        assert!(
            echoes.confirm(Class::Delete, 7, b"/etc/a", b"", LATEST_RETURN + 1).is_some(),
            "it took long"
        );
        assert!(echoes.confirm(Class::Delete, 7, b"/etc/a", b"", LATEST_RETURN + 1).is_none());
    }

    #[test]
    fn a_record_that_took_another_way_finds_it_by_its_name() {
        let mut echoes = Echoes::default();
        echoes.push(echo(Class::Delete, "/etc/x/a"));
        echoes.push(echo(Class::Delete, "/etc/y/b"));
        let found = echoes.confirm_by_name(Class::Delete, 7, (b"/link/b", b""), 0, |_| true).unwrap();
        assert_eq!(found.echo.path, b"/etc/y/b");
        assert!(echoes.confirm_by_name(Class::Create, 7, (b"/link/b", b""), 0, |_| true).is_none());
    }

    #[test]
    fn a_name_that_was_changed_during_the_call_is_found_out_if_there_is_no_doubt() {
        let mut echoes = Echoes::default();
        echoes.push(echo(Class::Delete, "/etc/true"));
        let found = echoes.confirm_next(Class::Delete, 7, false, 0).unwrap();
        assert!(found.is_certain && found.echo.path == b"/etc/true");
        assert!(echoes.confirm_next(Class::Delete, 7, false, 0).is_none(), "it goes with one alone");

        let mut echoes = Echoes::default();
        echoes.push(echo(Class::Delete, "/etc/1"));
        echoes.push(echo(Class::Delete, "/etc/2"));
        assert!(echoes.confirm_next(Class::Delete, 8, false, 0).is_none(), "of another process");
        assert!(echoes.confirm_next(Class::Delete, 7, true, 0).is_none(), "no directory");
        assert!(!echoes.confirm_next(Class::Delete, 7, false, 0).unwrap().is_certain);
    }

    #[test]
    fn names_that_may_have_been_swapped_are_not_certain() {
        let mut echoes = Echoes::default();
        echoes.push(echo(Class::Delete, "/etc/1"));
        echoes.push(echo(Class::Delete, "/etc/2"));
        assert!(!echoes.confirm(Class::Delete, 7, b"/etc/2", b"", 0).unwrap().is_certain);
        assert!(!echoes.confirm(Class::Delete, 7, b"/etc/1", b"", 0).unwrap().is_certain);
        assert!(expired(&mut echoes).is_empty(), "but each is told once");
    }

    #[test]
    fn repeats_of_an_open_that_was_told_are_no_events() {
        let mut echoes = Echoes::default();
        echoes.expect_opens(7, b"/etc/shadow", Instant::now() + Duration::from_secs(1));
        echoes.push(echo(Class::Open, "/etc/shadow"));
        echoes.push(echo(Class::Open, "/etc/gshadow"));
        assert_eq!(expired(&mut echoes), [b"/etc/gshadow".to_vec()]);
    }

    #[test]
    fn a_rename_is_known_by_both_names_or_the_one_that_is_watched() {
        let rename =
            |old: &str, new: &str| Echo::of_two(Class::Rename, 7, (old.into(), new.into()), false, 0);
        let mut echoes = Echoes::default();
        for (old, new) in [("/etc/a", "/etc/b"), ("/etc/b", "/etc/a"), ("/etc/a", "/etc/b"), ("", "/etc/c")] {
            echoes.push(rename(old, new));
        }
        for (old, new) in
            [("/etc/a", "/etc/b"), ("/etc/b", "/etc/a"), ("/etc/a", "/etc/b"), ("/tmp/c", "/etc/c")]
        {
            let found = echoes.confirm(Class::Rename, 7, old.as_bytes(), new.as_bytes(), 0).unwrap();
            assert!(found.is_certain, "{old} {new}");
        }
        assert!(expired(&mut echoes).is_empty());
    }
}
