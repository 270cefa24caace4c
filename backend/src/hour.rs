//! Hours, by which events are kept and dropped.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// An hour in UTC, counted since 1970. As text `2026-11-22T19`, which sorts as time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(pub u64);

/// It is not an hour as this program writes it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hour; one looks as 2026-11-22T19 does")]
pub struct NoHour(String);

/// Nanoseconds since 1970, by the wall clock.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds of a duration.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Hour ===

impl Hour {
    /// The hour of a time in nanoseconds since 1970.
    #[must_use]
    pub fn of(time: u64) -> Self {
        Self(time / 3_600_000_000_000)
    }

    /// When it begins, in nanoseconds since 1970.
    #[must_use]
    pub fn begin(self) -> u64 {
        self.0.saturating_mul(3_600_000_000_000)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / 24);
        write!(formatter, "{year:04}-{month:02}-{day:02}T{:02}", self.0 % 24)
    }
}

impl FromStr for Hour {
    type Err = NoHour;

    fn from_str(text: &str) -> Result<Self, NoHour> {
        let refused = || NoHour(text.to_owned());
        let (date, hour) = text.split_once('T').ok_or_else(refused)?;
        let numbers = date.split('-').chain([hour]).map(|number| number.parse().ok());
        let numbers: Vec<u64> = numbers.collect::<Option<_>>().ok_or_else(refused)?;
        let [year, month, day, hour] = numbers[..] else { return Err(refused()) };
        // The year starts in March, so that the leap day is its last.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
        let days = (year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day)
            .checked_sub(719_469)
            .ok_or_else(refused)?;
        let parsed = Self(days * 24 + hour);
        if parsed.to_string() == text { Ok(parsed) } else { Err(refused()) }
    }
}

/// Year, month and day of a day since 1970, by the arithmetic of the Gregorian calendar: 146,097 days are 400 years.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (year + era * 400, day - (153 * month + 2) / 5 + 1);
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_what_the_calendar_says() {
        for (hour, text) in [
            (0, "1970-01-01T00"),
            (951_782_400 / 3600, "2000-02-29T00"),
            (1_709_164_800 / 3600 + 23, "2024-02-29T23"),
            (1_795_374_000 / 3600, "2026-11-22T19"),
        ] {
            assert_eq!(Hour(hour).to_string(), text);
            assert_eq!(text.parse(), Ok(Hour(hour)));
        }
    }

    #[test]
    fn every_hour_of_a_century_is_read_as_it_is_written() {
        for hour in (0..876_600).step_by(7) {
            assert_eq!(Hour(hour).to_string().parse(), Ok(Hour(hour)));
        }
    }

    #[test]
    fn what_is_no_hour_is_refused() {
        for text in
            ["", "2026-11-22", "2026-11-31T00", "2026-11-22T24", "2026-1-1T0", "x-y-zT1", "0001-01-01T00"]
        {
            assert!(text.parse::<Hour>().is_err(), "{text}");
        }
    }
}
