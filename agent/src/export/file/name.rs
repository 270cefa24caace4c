//! Names of rotated files: `events-20260822T101500.123Z.json`, `….json.gz`, `….json.zst`.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Compression, open::Keepers};

/// Length of a [`Stamp`] in a name.
const STAMP_LEN: usize = "20260822T101500.123Z".len();
const DAY: u64 = 86_400_000;

/// When a file was rotated, in milliseconds since 1970. Its text sorts as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

/// What a rotated file is called, and which names are such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    folder: PathBuf,
    /// The name of the current file up to its extension.
    stem: OsString,
    /// Of the current file, with its dot.
    extension: OsString,
}

/// What of our own lies in the folder, the current file aside.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Rotated files from the oldest on: what there is of each.
    pub(super) rotated: BTreeMap<Stamp, Vec<Compression>>,
    /// Compressed files that are not finished.
    pub(super) partial: Vec<PathBuf>,
}

/// What a name of ours stands for.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Rotated(Stamp, Compression),
    Partial,
}

// === impl Stamp ===

impl Stamp {
    /// The last that four digits of a year can tell.
    const LAST: Self = Self(days_before(10_000) * DAY - 1);

    pub(super) fn of(time: SystemTime) -> Self {
        let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        u64::try_from(millis).map_or(Self::LAST, |millis| Self(millis).min(Self::LAST))
    }

    /// The one after this, if it can be written.
    pub(super) fn next(self) -> Option<Self> {
        (self < Self::LAST).then_some(Self(self.0 + 1))
    }

    pub(super) fn time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let number = |from: usize, len: usize| -> Option<u64> {
            let digits = text.get(from..from + len)?;
            digits.iter().all(u8::is_ascii_digit).then_some(())?;
            str::from_utf8(digits).ok()?.parse().ok()
        };
        let (year, month, day) = (number(0, 4)?, number(4, 2)?, number(6, 2)?);
        let (hour, minute, second) = (number(9, 2)?, number(11, 2)?, number(13, 2)?);
        let millisecond = number(16, 3)?;
        if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let days = days_before(year) + months(year).take(usize::try_from(month).ok()? - 1).sum::<u64>();
        let seconds = ((days + day - 1) * 24 + hour) * 3600 + minute * 60 + second;
        let stamp = Self(seconds * 1000 + millisecond);
        // One way to write it: no 30 February, no 24:61.
        (stamp <= Self::LAST && stamp.to_string().as_bytes() == text).then_some(stamp)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / DAY, self.0 % DAY);
        // At most a few years too early, since no year is longer.
        let mut year = 1970 + days / 366;
        while days_before(year + 1) <= days {
            year += 1;
        }
        let (mut day, mut month) = (days - days_before(year), 1);
        for length in months(year) {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
        let day = day + 1;
        write!(f, "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{:03}Z", rest % 1000)
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn months(year: u64) -> impl Iterator<Item = u64> {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter()
}

/// Days from 1970 to the first of a year.
const fn days_before(year: u64) -> u64 {
    const fn leap_years_before(year: u64) -> u64 {
        let years = year - 1;
        years / 4 - years / 100 + years / 400
    }
    (year - 1970) * 365 + leap_years_before(year) - leap_years_before(1970)
}

// === impl Names ===

impl Names {
    /// For a current file; none where the path does not end in a name.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?;
        let stem = path.file_stem()?.to_owned();
        let extension = OsStr::from_bytes(name.as_bytes().strip_prefix(stem.as_bytes())?).to_owned();
        Some(Self { folder: path.parent()?.to_owned(), stem, extension })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn rotated(&self, stamp: Stamp, compression: Compression) -> PathBuf {
        self.folder.join(self.name(stamp, compression))
    }

    /// Where a compressed file is made. It starts with a dot, so that whoever collects `events-*` passes by.
    pub(super) fn partial(&self, stamp: Stamp, compression: Compression) -> PathBuf {
        let name = self.name(stamp, compression);
        self.folder.join(OsString::from_vec([b".", name.as_bytes(), b".tmp"].concat()))
    }

    fn name(&self, stamp: Stamp, compression: Compression) -> OsString {
        let stamp = format!("-{stamp}");
        let parts = [self.stem.as_bytes(), stamp.as_bytes(), self.extension.as_bytes()];
        OsString::from_vec([parts.concat().as_slice(), compression.suffix().as_bytes()].concat())
    }

    fn kind(&self, name: &[u8]) -> Option<Kind> {
        if let Some(Kind::Rotated(_, compression)) = name
            .strip_prefix(b".")
            .and_then(|name| name.strip_suffix(b".tmp"))
            .and_then(|name| self.rotated_kind(name))
            && compression != Compression::None
        {
            return Some(Kind::Partial);
        }
        self.rotated_kind(name)
    }

    fn rotated_kind(&self, name: &[u8]) -> Option<Kind> {
        let rest = name.strip_prefix(self.stem.as_bytes())?.strip_prefix(b"-")?;
        let (stamp, rest) = rest.split_at_checked(STAMP_LEN)?;
        let suffix = rest.strip_prefix(self.extension.as_bytes())?;
        let compression = Compression::ALL.into_iter().find(|one| one.suffix().as_bytes() == suffix)?;
        Some(Kind::Rotated(Stamp::parse(stamp)?, compression))
    }

    /// Looks what there is. Only regular files of our own naming are ours.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let keepers = Keepers::of(&self.folder)?;
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some(kind) = self.kind(entry.file_name().as_bytes()) else { continue };
            // Where it is gone meanwhile, there is nothing to list.
            let Ok(facts) = entry.metadata() else { continue };
            if !facts.is_file() || !keepers.may_own(facts.uid()) {
                continue;
            }
            match kind {
                Kind::Rotated(stamp, compression) => {
                    listing.rotated.entry(stamp).or_default().push(compression);
                }
                Kind::Partial => listing.partial.push(entry.path()),
            }
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Names {
        Names::of(Path::new(path)).unwrap()
    }

    #[test]
    fn a_stamp_is_the_time_in_utc() {
        for (seconds, text) in [
            (0, "19700101T000000.000Z"),
            (951_782_400, "20000229T000000.000Z"),
            (1_787_393_700, "20260822T101500.000Z"),
            (4_107_542_399, "21000228T235959.000Z"),
            (4_107_542_400, "21000301T000000.000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Stamp::of(time).to_string(), text);
            assert_eq!(Stamp::parse(text.as_bytes()), Some(Stamp::of(time)));
        }
        assert_eq!(Stamp::LAST.to_string(), "99991231T235959.999Z");
        assert_eq!(Stamp::LAST.next(), None);
    }

    #[test]
    fn what_is_no_time_is_no_stamp() {
        for text in [
            "20260230T101500.123Z",
            "20261301T101500.123Z",
            "20260800T101500.123Z",
            "20260822T241500.123Z",
            "20260822T106000.123Z",
            "20260822 101500.123Z",
            "20260822T101500.123 ",
            "+0260822T101500.123Z",
            "19691231T235959.999Z",
            "20260822T101500.12Z",
            "",
        ] {
            assert_eq!(Stamp::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn stamps_sort_as_their_text_and_are_read_again(one in 0..=Stamp::LAST.0, other in 0..=Stamp::LAST.0) {
            let (one, other) = (Stamp(one), Stamp(other));
            assert_eq!(Stamp::parse(one.to_string().as_bytes()), Some(one));
            assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        }

        #[test]
        fn no_bytes_are_too_odd_for_a_name(bytes in proptest::collection::vec(0u8.., 0..60)) {
            let _ = names("/var/log/events.json").kind(&bytes);
            let odd = [b"events-".as_slice(), &bytes].concat();
            let _ = names("/var/log/events.json").kind(&odd);
        }
    }

    #[test]
    fn names_are_made_and_known_again() {
        let stamp = Stamp::parse(b"20260822T101500.123Z").unwrap();
        for (path, gzip) in [
            ("/l/events.json", "/l/events-20260822T101500.123Z.json.gz"),
            ("/l/events", "/l/events-20260822T101500.123Z.gz"),
            ("/l/a.b.log", "/l/a.b-20260822T101500.123Z.log.gz"),
            ("/l/.hidden", "/l/.hidden-20260822T101500.123Z.gz"),
        ] {
            let names = names(path);
            assert_eq!(names.rotated(stamp, Compression::Gzip), Path::new(gzip));
            for compression in Compression::ALL {
                let name = names.name(stamp, compression);
                assert_eq!(names.kind(name.as_bytes()), Some(Kind::Rotated(stamp, compression)));
            }
            let partial = names.partial(stamp, Compression::Zstd);
            assert_eq!(names.kind(partial.file_name().unwrap().as_bytes()), Some(Kind::Partial));
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let names = names("/l/events.json");
        for name in [
            "events.json",
            "events-.json",
            "events-20260822T101500.123Z",
            "events-20260822T101500.123Z.json.bz2",
            "events-20260822T101500.123Z.json.gz.1",
            "events-20260822T101500.123Z.json.tmp",
            ".events-20260822T101500.123Z.json.tmp",
            "events2-20260822T101500.123Z.json",
            "events-20260822.json",
            "my-events-20260822T101500.123Z.json",
        ] {
            assert_eq!(names.kind(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_path_without_a_name_has_none() {
        assert_eq!(Names::of(Path::new("/")), None);
        assert_eq!(Names::of(Path::new("/var/log/..")), None);
    }
}
