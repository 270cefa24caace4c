//! From the kernel's time since boot to the wall clock.

use nightjar_proto::v1::Event;
use prost_types::Timestamp;
use rustix::time::{ClockId, clock_gettime};

const SECOND: i128 = 1_000_000_000;
/// Two readings differ by the time between them. Only a difference that cannot be that is the clock's.
const TOLERANCE: i128 = 1_000_000;

/// Difference of the two clocks. Time stamps are taken by the kernel on a clock that nobody can set; the
/// difference is read anew now and then, so that a wall clock that is set is followed.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Nanoseconds from 1970 to the boot, by the wall clock of now.
    boot: i128,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        /// One of them will not be interrupted.
        const TRIES: usize = 3;
        let reading = || {
            let before = nanoseconds(ClockId::Boottime);
            let wall = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Boottime);
            (after - before, wall - i128::midpoint(before, after))
        };
        let (_, boot) = std::iter::repeat_with(reading).take(TRIES).min().unwrap_or_default();
        Self { boot }
    }

    /// Follows the wall clock, if it was set or has drifted: else the times of one process would differ by
    /// nanoseconds from event to event.
    pub fn follow(&mut self) {
        let now = Self::read();
        if (now.boot - self.boot).abs() > TOLERANCE {
            *self = now;
        }
    }

    /// Wall clock of a time stamp in nanoseconds since boot.
    #[must_use]
    pub fn wall(&self, since_boot: u64) -> Timestamp {
        let total = self.boot + i128::from(since_boot);
        Timestamp {
            seconds: i64::try_from(total.div_euclid(SECOND)).unwrap_or(i64::MAX),
            nanos: i32::try_from(total.rem_euclid(SECOND)).unwrap_or_default(),
        }
    }
}

/// Nanoseconds since boot, now.
#[must_use]
pub fn since_boot() -> u64 {
    u64::try_from(nanoseconds(ClockId::Boottime)).unwrap_or_default()
}

fn nanoseconds(clock: ClockId) -> i128 {
    let now = clock_gettime(clock);
    i128::from(now.tv_sec) * SECOND + i128::from(now.tv_nsec)
}

/// Makes event IDs: UUIDs of version 7, so that they sort by the time of the event. What is not time is a
/// random number of this agent and a count.
#[derive(Debug)]
pub struct EventIds {
    instance: u32,
    count: u32,
}

impl EventIds {
    /// IDs of an agent with this random number.
    #[must_use]
    pub fn new(instance: u32) -> Self {
        Self { instance, count: 0 }
    }

    /// Gives an event its ID.
    pub fn name(&mut self, event: &mut Event) {
        let time = event.time.unwrap_or_default();
        let nanos = u64::try_from(time.nanos).unwrap_or_default();
        let millis = u64::try_from(time.seconds).unwrap_or_default() * 1000 + nanos / 1_000_000;
        // Twelve bits in which a UUID of version 7 may carry more of the time.
        let fraction = (nanos % 1_000_000) * 4096 / 1_000_000;
        self.count = self.count.wrapping_add(1);
        let mut rest = [0; 10];
        rest[..2].copy_from_slice(&fraction.to_be_bytes()[6..]);
        rest[2..6].copy_from_slice(&self.instance.to_be_bytes());
        rest[6..].copy_from_slice(&self.count.to_be_bytes());
        event.id = uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid().to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_of_now_is_now() {
        let wall = Clock::read().wall(since_boot());
        let now = nanoseconds(ClockId::Realtime);
        let wall = i128::from(wall.seconds) * SECOND + i128::from(wall.nanos);
        assert!((now - wall).abs() < SECOND, "{now} {wall}");
    }

    #[test]
    fn times_before_1970_have_positive_nanoseconds() {
        let clock = Clock { boot: -2 * SECOND };
        assert_eq!(clock.wall(500_000_000), Timestamp { seconds: -2, nanos: 500_000_000 });
    }

    #[test]
    fn ids_sort_by_time_and_do_not_repeat() {
        let mut ids = EventIds::new(7);
        let mut name = |seconds, nanos| {
            let mut event = Event { time: Some(Timestamp { seconds, nanos }), ..Event::default() };
            ids.name(&mut event);
            event.id
        };
        let (first, same, later) = (name(1_000, 5_000), name(1_000, 5_000), name(1_000, 900_000));
        assert_ne!(first, same);
        assert!(same < later, "{same} {later}");
        assert!(later < name(1_001, 0));
        assert_eq!(first.as_bytes()[14], b'7');
    }
}
