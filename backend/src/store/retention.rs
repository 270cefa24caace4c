//! The clock by which events are too old.
//!
//! It is not the wall clock: one step of that, by a wrong time server or a clock without a battery, would make all that is
//! stored too old at once. This one follows the wall clock back at once, and ahead from hour to hour. Where the wall clock
//! is more than an hour ahead of it, as after a step or where the backend was off for long, it goes on by the time that
//! the process runs, and warns; only when the wall clock was ahead for [`GRACE`] of running is it believed. So nothing is
//! dropped sooner than that after a step, and what is really old is dropped a day late.
//!
//! It is kept in `DIR/retention` as the hour and the minutes of the grace that are over, `2026-11-22T19 180`, so that a
//! restart neither believes a step nor begins to doubt anew. Without that file it begins at the newest hour that is stored.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::hour::Hour;

/// How long the wall clock must have been ahead to be believed: time for somebody to see the warnings and to set it right.
pub const GRACE: Duration = Duration::from_hours(24);

const HOUR: Duration = Duration::from_hours(1);
/// How often it is kept.
const KEPT_EVERY: Duration = Duration::from_mins(10);
const MINUTE: Duration = Duration::from_mins(1);

/// See the head of this module.
#[derive(Debug)]
pub struct RetentionClock {
    path: PathBuf,
    hour: Hour,
    /// Time of running since the hour began.
    ran: Duration,
    /// Time of running while the wall clock was ahead.
    ahead: Duration,
    /// What the wall clock said last.
    wall: Option<Hour>,
    saved: Option<(Hour, u64)>,
}

// === impl RetentionClock ===

impl RetentionClock {
    /// Goes on where the one of that data directory was; else from the newest hour that is stored, if there is one.
    #[must_use]
    pub fn open(dir: &Path, newest: Option<Hour>, wall: Hour) -> Self {
        let path = dir.join("retention");
        let read = fs::read_to_string(&path).ok();
        let saved = read.and_then(|text| {
            let (hour, ahead) = text.trim().split_once(' ')?;
            Some((hour.parse().ok()?, ahead.parse().ok()?))
        });
        let (hour, ahead): (Hour, u32) = saved.unwrap_or((newest.unwrap_or(wall), 0));
        Self { path, hour, ran: Duration::ZERO, ahead: MINUTE.saturating_mul(ahead), wall: None, saved: None }
    }

    /// The hour now.
    #[must_use]
    pub fn hour(&self) -> Hour {
        self.hour
    }

    /// Takes note of the wall clock, so long after the time before, in which the host may have been suspended. Gives the hour
    /// now.
    pub fn tick(&mut self, wall: Hour, elapsed: Duration) -> Hour {
        let passed = elapsed.as_secs().div_ceil(HOUR.as_secs());
        let stepped = self.wall.replace(wall).is_some_and(|before| wall.0 > before.0 + passed.max(1));
        if wall.0 <= self.hour.0 + 1 {
            if wall != self.hour {
                self.ran = Duration::ZERO;
            }
            (self.hour, self.ahead) = (wall, Duration::ZERO);
        } else {
            // Another step is another one to be believed.
            self.ahead = if stepped { Duration::ZERO } else { self.ahead.saturating_add(elapsed) };
            self.ran = self.ran.saturating_add(elapsed);
            while let Some(rest) = self.ran.checked_sub(HOUR) {
                (self.hour.0, self.ran) = (self.hour.0 + 1, rest);
            }
            if self.ahead >= GRACE {
                tracing::warn!(
                    "the clock says {wall} for {} hours, and is believed now",
                    GRACE.as_secs() / 3600
                );
                (self.hour, self.ran, self.ahead) = (wall, Duration::ZERO, Duration::ZERO);
            }
        }
        self.save(wall);
        self.hour
    }

    /// Now and then, or when something happens.
    fn save(&mut self, wall: Hour) {
        let hour = self.hour;
        let ahead = self.ahead.as_secs() / KEPT_EVERY.as_secs() * (KEPT_EVERY.as_secs() / 60);
        if self.saved == Some((hour, ahead)) {
            return;
        }
        let is_told =
            self.saved.is_some_and(|(before, minutes)| (before, minutes / 60) == (hour, ahead / 60));
        if wall.0 > hour.0 + 1 && !is_told {
            let left = (GRACE.as_secs() / HOUR.as_secs()).saturating_sub(ahead / 60);
            tracing::warn!(
                "the clock says {wall}, but by what is stored and how long this runs it is {hour}; if it says so for {left} \
                 more hours it is believed, and what is too old by it is dropped: set it right before, or raise --retention"
            );
        }
        self.saved = Some((hour, ahead));
        if let Err(error) = self.write(&format!("{hour} {ahead}\n")) {
            tracing::warn!(
                "{}: {error}; after a restart the clock of the retention begins anew",
                self.path.display()
            );
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 500_000;

    fn ticks(clock: &mut RetentionClock, wall: impl Fn(u64) -> u64, hours: u64) -> u64 {
        (0..hours * 60)
            .map(|minute| clock.tick(Hour(wall(minute / 60)), Duration::from_mins(1)).0)
            .last()
            .unwrap()
    }

    fn open(dir: &tempfile::TempDir, newest: u64, wall: u64) -> RetentionClock {
        RetentionClock::open(dir.path(), Some(Hour(newest)), Hour(wall))
    }

    #[test]
    fn it_is_the_wall_clock_as_long_as_that_goes_from_hour_to_hour() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = open(&dir, START, START);
        for hour in START..START + 100 {
            assert_eq!(clock.tick(Hour(hour), HOUR).0, hour);
        }
        // Back at once.
        assert_eq!(clock.tick(Hour(START), Duration::ZERO).0, START);
    }

    #[test]
    fn a_step_ahead_is_believed_only_when_it_lasted() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = open(&dir, START, START);
        let step = 31 * 24;
        assert_eq!(ticks(&mut clock, |hour| START + step + hour, 23), START + 23);
        // It was set right.
        assert_eq!(clock.tick(Hour(START + 23), HOUR).0, START + 23);
        assert_eq!(ticks(&mut clock, |hour| START + 23 + step + hour, 23), START + 23 + 23);
        assert_eq!(ticks(&mut clock, |hour| START + 46 + step + hour, 2), START + 46 + step + 1);
    }

    #[test]
    fn a_host_that_sleeps_every_night_is_believed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = open(&dir, START, START);
        // Off for a week, then eight hours of each day are one tick.
        let mut wall = START + 7 * 24;
        let mut believed = None;
        for day in 0..3 {
            for _ in 0..16 {
                for _ in 0..60 {
                    clock.tick(Hour(wall), MINUTE);
                }
                wall += 1;
            }
            wall += 7;
            if clock.tick(Hour(wall), 8 * HOUR).0 == wall {
                believed = believed.or(Some(day));
            }
        }
        assert_eq!(believed, Some(0));
    }

    #[test]
    fn restarts_within_the_hour_do_not_keep_it_from_believing() {
        let dir = tempfile::tempdir().unwrap();
        let wall = START + 7 * 24;
        let hour = |minute: u64| Hour(wall + minute / 60);
        let mut believed = false;
        for start in (0..40 * 60).step_by(30) {
            let mut clock = RetentionClock::open(dir.path(), Some(Hour(START)), hour(start));
            for minute in start..start + 30 {
                believed |= clock.tick(hour(minute), MINUTE) == hour(minute);
            }
        }
        assert!(believed);
    }

    #[test]
    fn a_second_step_is_doubted_as_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut clock = open(&dir, START, START);
        assert_eq!(ticks(&mut clock, |hour| START + 5 + hour, 20), START + 20);
        assert_eq!(ticks(&mut clock, |hour| START + 20 + 7000 + hour, 20), START + 40);
    }

    #[test]
    fn restarts_neither_make_it_believe_nor_forget_what_it_waited() {
        let dir = tempfile::tempdir().unwrap();
        // It was off for a week, and is started again every five hours; what comes meanwhile is of the new time.
        let wall = START + 7 * 24;
        let mut believed = None;
        for start in (0..48).step_by(5) {
            let newest = if start == 0 { START } else { wall + start };
            let mut clock = open(&dir, newest, wall + start);
            let hour = ticks(&mut clock, |hour| wall + start + hour, 5);
            if hour >= wall {
                believed = Some(start);
                break;
            }
        }
        assert!(believed.is_some_and(|start| (20..=30).contains(&start)), "{believed:?}");
    }
}
