//! Sizes and spans of time, as people write them.

use std::{fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of bytes: `100MiB`, `4 MiB`, `64KiB`, `1GB`; a bare number is bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Size(u64);

/// A span of time: `500ms`, `10s`, `5m`, `24h`, `7d`. Zero needs no unit, all else does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Period(u64);

/// What is wrong with a size or a span of time, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// As the YAML has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

/// A way to write numbers of something.
struct Units {
    is: &'static str,
    example: &'static str,
    rows: &'static [Unit],
    /// What a number alone is a number of, where it may stand alone.
    bare: Option<u64>,
}

struct Unit {
    name: &'static str,
    factor: u64,
    /// The least value that is shown in this unit.
    shown_from: u64,
}

const fn unit(name: &'static str, factor: u64, shown_from: u64) -> Unit {
    Unit { name, factor, shown_from }
}

/// For units that are understood and never shown.
const NEVER: u64 = u64::MAX;

const SIZE: Units = Units {
    is: "size",
    example: "100MiB",
    rows: &[
        unit("TiB", 1 << 40, 0),
        unit("GiB", 1 << 30, 0),
        unit("MiB", 1 << 20, 0),
        unit("KiB", 1 << 10, 0),
        unit("TB", 1_000_000_000_000, NEVER),
        unit("GB", 1_000_000_000, NEVER),
        unit("MB", 1_000_000, NEVER),
        unit("KB", 1_000, NEVER),
        unit("kB", 1_000, NEVER),
        unit("B", 1, NEVER),
    ],
    bare: Some(1),
};

const PERIOD: Units = Units {
    is: "span of time",
    example: "30s",
    rows: &[
        // 24h is what people write for a day.
        unit("d", 86_400_000, 2 * 86_400_000),
        unit("h", 3_600_000, 0),
        unit("m", 60_000, 0),
        unit("s", 1_000, 0),
        unit("ms", 1, 0),
    ],
    bare: None,
};

// === impl Size ===

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many MiB.
    #[must_use]
    pub const fn from_mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        SIZE.parse(text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&SIZE.show(self.0))
    }
}

impl From<Size> for Written {
    fn from(size: Size) -> Self {
        Self::of(&SIZE, size.0)
    }
}

impl TryFrom<Written> for Size {
    type Error = UnitError;

    fn try_from(written: Written) -> Result<Self, UnitError> {
        written.read(&SIZE).map(Self)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "a size",
            "type": ["string", "integer"],
            "pattern": SIZE.pattern(),
            "minimum": 0,
            "examples": ["100MiB", "64KiB", "1GB", 4096],
            "x-check": "size",
        })
    }
}

// === impl Period ===

impl Period {
    /// So many seconds.
    #[must_use]
    pub const fn from_secs(secs: u32) -> Self {
        Self(secs as u64 * 1000)
    }

    /// So many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    pub(super) const fn millis(self) -> u64 {
        self.0
    }

    /// Whether it is no time at all, which stands for "never" with some settings.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        PERIOD.parse(text).map(Self)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&PERIOD.show(self.0))
    }
}

impl From<Period> for Written {
    fn from(period: Period) -> Self {
        Self::of(&PERIOD, period.0)
    }
}

impl TryFrom<Written> for Period {
    type Error = UnitError;

    fn try_from(written: Written) -> Result<Self, UnitError> {
        written.read(&PERIOD).map(Self)
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "a span of time",
            "type": ["string", "integer"],
            "pattern": PERIOD.pattern(),
            "minimum": 0,
            "maximum": 0,
            "examples": ["30s", "500ms", "24h", "7d", 0],
            "x-check": "period",
        })
    }
}

// === impl Written ===

impl Written {
    fn of(units: &Units, value: u64) -> Self {
        let shown = units.show(value);
        shown.parse().map_or(Self::Text(shown), Self::Number)
    }

    fn read(self, units: &Units) -> Result<u64, UnitError> {
        match self {
            Self::Number(number) => units.bare(number),
            Self::Text(text) => units.parse(&text),
        }
    }
}

// === impl Units ===

impl Units {
    fn parse(&self, text: &str) -> Result<u64, UnitError> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, rest) = text.split_at(end);
        let name = rest.trim_start_matches(' ');
        let quoted = super::text::quoted(text);
        if digits.is_empty() {
            let (is, example) = (self.is, self.example);
            return Err(UnitError(format!(
                "{quoted} is no {is}; write a number and a unit, such as {example}"
            )));
        }
        if name.starts_with(['.', ',']) {
            return Err(UnitError(format!(
                "{quoted} is no whole number; write one, in a smaller unit where need be"
            )));
        }
        let too_large = || UnitError(format!("{quoted} is too large a {}; write a smaller one", self.is));
        let number: u64 = digits.parse().map_err(|_| too_large())?;
        if name.is_empty() {
            return self.bare(number);
        }
        let Some(unit) = self.rows.iter().find(|unit| unit.name == name) else {
            let instead = match self.nearest(name) {
                Some(unit) => format!("{number}{unit}"),
                None => format!("one of {}", self.names().join(", ")),
            };
            return Err(UnitError(format!("{quoted} has no unit that is known; write {instead}")));
        };
        number.checked_mul(unit.factor).ok_or_else(too_large)
    }

    fn bare(&self, number: u64) -> Result<u64, UnitError> {
        match self.bare {
            Some(factor) => Ok(number * factor),
            None if number == 0 => Ok(0),
            None => Err(UnitError(format!("{number} has no unit; write a unit: {number}s"))),
        }
    }

    /// The unit that somebody meant: `MiB` with `M` or `mib`, `m` with `min`, `ms` with `msec`.
    fn nearest(&self, name: &str) -> Option<&'static str> {
        let name = name.to_ascii_lowercase();
        let lower: Vec<_> =
            self.rows.iter().map(|unit| (unit.name.to_ascii_lowercase(), unit.name)).collect();
        let same = lower.iter().find(|(unit, _)| *unit == name);
        let longer = lower.iter().find(|(unit, _)| unit.starts_with(&name));
        let shorter = || {
            let begins = lower.iter().filter(|(unit, _)| name.starts_with(unit.as_str()));
            begins.max_by_key(|(unit, _)| unit.len())
        };
        same.or(longer).or_else(shorter).map(|(_, unit)| *unit)
    }

    fn names(&self) -> Vec<&'static str> {
        self.rows.iter().map(|unit| unit.name).collect()
    }

    fn show(&self, value: u64) -> String {
        let fits = |unit: &&Unit| value != 0 && value.is_multiple_of(unit.factor) && value >= unit.shown_from;
        match self.rows.iter().filter(|unit| unit.shown_from != NEVER).find(fits) {
            Some(unit) => format!("{}{}", value / unit.factor, unit.name),
            None => value.to_string(),
        }
    }

    fn pattern(&self) -> String {
        let names = self.names().join("|");
        match self.bare {
            Some(_) => format!("^[0-9]+ *({names})?$"),
            None => format!("^(0+ *|[0-9]+ *({names}))$"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_in_all_units() {
        for (text, bytes) in [
            ("512", 512),
            ("512B", 512),
            ("64KiB", 64 << 10),
            ("4 MiB", 4 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
            ("3kB", 3_000),
            ("3KB", 3_000),
            ("3MB", 3_000_000),
            ("0", 0),
            ("0MiB", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn periods_are_read_in_all_units() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("7 d", 604_800_000)]
        {
            assert_eq!(text.parse(), Ok(Period(millis)), "{text}");
        }
        assert_eq!("0".parse(), Ok(Period(0)));
        assert_eq!(Period(1500).duration(), Duration::from_millis(1500));
    }

    #[test]
    fn a_wrong_size_is_refused_with_a_right_one() {
        for (text, message) in [
            ("", r#""" is no size; write a number and a unit, such as 100MiB"#),
            ("-1MiB", r#""-1MiB" is no size; write a number and a unit, such as 100MiB"#),
            ("much", r#""much" is no size; write a number and a unit, such as 100MiB"#),
            ("100M", r#""100M" has no unit that is known; write 100MiB"#),
            ("100mb", r#""100mb" has no unit that is known; write 100MB"#),
            (
                "100 Gigs",
                r#""100 Gigs" has no unit that is known; write one of TiB, GiB, MiB, KiB, TB, GB, MB, KB, kB, B"#,
            ),
            ("1.5GiB", r#""1.5GiB" is no whole number; write one, in a smaller unit where need be"#),
            ("99999999999999999999", r#""99999999999999999999" is too large a size; write a smaller one"#),
            ("99999999TiB", r#""99999999TiB" is too large a size; write a smaller one"#),
        ] {
            assert_eq!(text.parse::<Size>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_wrong_period_is_refused_with_a_right_one() {
        for (text, message) in [
            ("soon", r#""soon" is no span of time; write a number and a unit, such as 30s"#),
            ("30", "30 has no unit; write a unit: 30s"),
            ("30 sec", r#""30 sec" has no unit that is known; write 30s"#),
            ("5min", r#""5min" has no unit that is known; write 5m"#),
            ("5msec", r#""5msec" has no unit that is known; write 5ms"#),
            ("2H", r#""2H" has no unit that is known; write 2h"#),
            ("1w", r#""1w" has no unit that is known; write one of d, h, m, s, ms"#),
            ("1,5s", r#""1,5s" is no whole number; write one, in a smaller unit where need be"#),
        ] {
            assert_eq!(text.parse::<Period>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn what_is_shown_is_what_people_write() {
        for (size, shown) in
            [(0, "0"), (1000, "1000"), (1536, "1536"), (100 << 20, "100MiB"), (1 << 30, "1GiB")]
        {
            assert_eq!(Size(size).to_string(), shown);
        }
        for (millis, shown) in [
            (0, "0"),
            (1, "1ms"),
            (1500, "1500ms"),
            (86_400_000, "24h"),
            (604_800_000, "7d"),
            (90_000, "90s"),
        ] {
            assert_eq!(Period(millis).to_string(), shown);
        }
    }

    #[test]
    fn numbers_stay_numbers_and_units_stay_text() {
        assert_eq!(serde_json::to_string(&[Size(512), Size(1 << 20)]).unwrap(), r#"[512,"1MiB"]"#);
        assert_eq!(serde_json::to_string(&[Period(0), Period(30_000)]).unwrap(), r#"[0,"30s"]"#);
        assert!(serde_json::from_str::<Period>("30").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(value: u64) {
            prop_assert_eq!(Size(value).to_string().parse(), Ok(Size(value)));
            prop_assert_eq!(Period(value).to_string().parse(), Ok(Period(value)));
            let json = serde_json::to_string(&(Size(value), Period(value))).unwrap();
            prop_assert_eq!(serde_json::from_str::<(Size, Period)>(&json).unwrap(), (Size(value), Period(value)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,12}", digits in "[0-9]{0,25} ?[a-zA-Z]{0,4}") {
            let pattern = |units: &Units| regex::Regex::new(&units.pattern()).unwrap();
            for text in [text, digits] {
                // The pattern is for editors: it may let through what is too large, and no more than that.
                let too_large = |error: UnitError| error.0.contains("too large");
                prop_assert!(!pattern(&SIZE).is_match(&text) || text.parse::<Size>().map_or_else(too_large, |_| true));
                prop_assert!(pattern(&SIZE).is_match(&text) || text.parse::<Size>().is_err());
                prop_assert!(!pattern(&PERIOD).is_match(&text) || text.parse::<Period>().map_or_else(too_large, |_| true));
                prop_assert!(pattern(&PERIOD).is_match(&text) || text.parse::<Period>().is_err());
            }
        }
    }
}
