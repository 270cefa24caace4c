//! Files whose content changed on the disk after it had been acknowledged.
//!
//! What was in them may be lost, and the index cannot tell, as it counts it as stored. So a file with the ending `.damaged`
//! says it, as long as the events would have been kept, and `gaps` lists it:
//!
//! ```text
//! DIR/wal/000000000016-2026-11-22T19-30.damaged                  a file of the log; 30 events of it are lost
//! DIR/events/2026-11-22T19/000000000012-000000000015.damaged     a Parquet file that cannot be opened, or an empty
//!                                                                file beside one of which a part cannot be read
//! ```

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::hour::Hour;

/// Ending of the names of these files.
pub const ENDING: &str = "damaged";

/// One such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it is.
    pub path: PathBuf,
    /// When its batches came.
    pub hour: Hour,
    /// Events that are lost; 0: it is not known how many.
    pub events: u64,
    /// When it was noticed, in nanoseconds since 1970.
    pub noticed: u64,
}

// === impl Damage ===

impl Damage {
    /// Of a file that is there. `None`: it is no such file.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".damaged")?;
        let parent = path.parent()?.file_name()?.to_str()?;
        let (first, rest) = name.split_once('-')?;
        let _: u64 = first.parse().ok()?;
        let (hour, events) = if let Ok(hour) = parent.parse() {
            let _: u64 = rest.parse().ok()?;
            (hour, 0)
        } else {
            let (hour, events) = rest.rsplit_once('-')?;
            (hour.parse().ok()?, events.parse().ok()?)
        };
        // It got its name, or was made, when the damage was noticed.
        let metadata = fs::metadata(path).ok()?;
        let nanos = |seconds: i64, nanos: i64| u64::try_from(seconds * 1_000_000_000 + nanos).unwrap_or(0);
        let noticed = nanos(metadata.ctime(), metadata.ctime_nsec());
        Some(Self { path: path.to_owned(), hour, events, noticed })
    }

    /// The name that a file of the log is kept by of which so many events are lost.
    #[must_use]
    pub fn name_of_log(log: &Path, events: u64) -> PathBuf {
        let name = log.file_stem().unwrap_or_default().to_string_lossy();
        log.with_file_name(format!("{name}-{events}.{ENDING}"))
    }

    /// Takes the file off the disk.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let parent = self.path.parent();
        let is_hour = |parent: &&Path| {
            parent.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<Hour>().is_ok())
        };
        if let Some(hour) = parent.filter(is_hour) {
            // Of an hour that has no other files any more.
            let _others_are_there = fs::remove_dir(hour);
        }
        Ok(())
    }
}
