//! What became of the lines.

use std::{collections::BTreeMap, io, ops::AddAssign, time::SystemTime};

use rustix::io::Errno;

/// Why lines could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The file system has no room, for bytes or for another file.
    DiskFull,
    /// The quota of the agent's user is used up.
    Quota,
    /// The file may not grow further: a limit of the process or of the file system.
    FileTooBig,
    /// The file system reports an error of another kind.
    IoError,
    /// The file, or its folder, is not there any more and cannot be made anew.
    Gone,
}

/// Which error stands for which reason.
const ERRORS: [(Errno, Reason); 6] = [
    (Errno::NOSPC, Reason::DiskFull),
    (Errno::DQUOT, Reason::Quota),
    (Errno::FBIG, Reason::FileTooBig),
    (Errno::IO, Reason::IoError),
    (Errno::NOENT, Reason::Gone),
    (Errno::STALE, Reason::Gone),
];

impl Reason {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::DiskFull, Self::Quota, Self::FileTooBig, Self::IoError, Self::Gone];

    /// How counters and messages call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::Quota => "quota",
            Self::FileTooBig => "file_too_big",
            Self::IoError => "io_error",
            Self::Gone => "gone",
        }
    }

    /// What a reader of the message can do.
    pub(super) const fn mend(self) -> &'static str {
        match self {
            Self::DiskFull => "make room, or keep fewer or smaller files",
            Self::Quota => "raise the quota, or keep fewer or smaller files",
            Self::FileTooBig => "rotate before that size, or raise the limit on file sizes",
            Self::IoError => "look for file system errors in the kernel's log",
            Self::Gone => "see that its folder is there and can be written to",
        }
    }

    /// The reason for an error, or else `other`.
    pub(super) fn of(error: &io::Error, other: Self) -> Self {
        let errno = Errno::from_io_error(error);
        ERRORS.iter().find(|(known, _)| Some(*known) == errno).map_or(other, |(_, reason)| *reason)
    }
}

/// Lines and bytes, their newlines included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Events: one is a line.
    pub events: u64,
    /// Bytes of these lines.
    pub bytes: u64,
}

impl Count {
    /// Of whole lines.
    pub(super) fn of(lines: &[u8]) -> Self {
        let events = lines.iter().map(|byte| u64::from(*byte == b'\n')).sum();
        Self { events, bytes: lines.len() as u64 }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "what is lost should be told"]
pub struct Written {
    /// In the kernel's hands.
    pub written: Count,
    /// Not written, and not tried again.
    pub lost: Count,
}

/// Events are being lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// The latest reason.
    pub reason: Reason,
    /// The latest error, in words.
    pub why: String,
    /// Since when no batch was written whole.
    pub since: SystemTime,
}

/// Something that costs no events, but somebody should look after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong, with what.
    pub text: String,
    /// When.
    pub at: SystemTime,
}

/// Since the file was opened, and as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// In the kernel's hands.
    pub written: Count,
    /// Not written, by reason; only reasons that there were.
    pub lost: BTreeMap<Reason, Count>,
    /// Where events are being lost now.
    pub failing: Option<Failing>,
    /// When it last began to write again after it had been failing.
    pub recovered: Option<SystemTime>,
    /// The latest trouble that cost no events; it may be over.
    pub trouble: Option<Trouble>,
    /// Bytes of the current file.
    pub size: u64,
    /// Rotated files that are there, as of the last look.
    pub kept: u64,
    /// Files that were rotated.
    pub rotations: u64,
    /// Rotations that failed; events went on in the same file.
    pub rotation_failures: u64,
    /// How often the file was found moved or deleted, and was opened anew.
    pub reopened: u64,
    /// Rotated files that were deleted to keep no more than asked.
    pub deleted: u64,
    /// Rotated files that could not be compressed, each time that was tried.
    pub compress_failures: u64,
    /// Files of which the disk did not confirm that it has them.
    pub sync_failures: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_reasons() {
        for (error, reason) in [
            (Errno::NOSPC, Reason::DiskFull),
            (Errno::DQUOT, Reason::Quota),
            (Errno::FBIG, Reason::FileTooBig),
            (Errno::IO, Reason::IoError),
            (Errno::STALE, Reason::Gone),
            (Errno::PERM, Reason::IoError),
        ] {
            assert_eq!(Reason::of(&error.into(), Reason::IoError), reason, "{error}");
        }
        let made_up = io::Error::from(io::ErrorKind::WriteZero);
        assert_eq!(Reason::of(&made_up, Reason::Gone), Reason::Gone);
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        let mut names = Reason::ALL.map(Reason::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
