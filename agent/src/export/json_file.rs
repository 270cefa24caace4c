//! One JSON object a line, in a file.

use std::path::PathBuf;

use nightjar_proto::v1::{self, Event};
use nightjar_show::profile::Profile;

use super::file::{FileError, Opened, RotatingFile, Rotation};

/// Bytes that are collected before they are written, where more events are at hand.
const BATCH: usize = 64 << 10;

/// Writes events as lines of JSON, in the form of a profile, into a file that is rotated. What cannot be written is counted, not an error:
/// other outputs go on.
pub struct JsonFile {
    file: RotatingFile,
    /// As it was asked for.
    path: PathBuf,
    profile: Profile,
    lines: Vec<u8>,
}

impl JsonFile {
    /// Opens a file, or makes it.
    ///
    /// # Errors
    /// As [`RotatingFile::open`].
    pub fn open(path: PathBuf, profile: Profile, rotation: Rotation) -> Result<(Self, Opened), FileError> {
        let (file, opened) = RotatingFile::open(&path, rotation)?;
        Ok((Self { file, path, profile, lines: Vec::with_capacity(BATCH) }, opened))
    }

    /// The path as it was asked for.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Takes one event.
    pub fn event(&mut self, event: &Event) {
        self.profile.write(event, &mut self.lines);
        self.lines.push(b'\n');
        if self.lines.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes what was taken.
    pub fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        // The file keeps count of what it lost, and tells.
        let _counted = self.file.write(&self.lines);
        self.lines.clear();
        self.lines.shrink_to(BATCH * 2);
    }

    /// About once a second: rotates by age, looks after the file.
    pub fn tick(&mut self) {
        self.file.tick();
    }

    /// Writes events in another form from now on.
    pub fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// Rotates otherwise from now on.
    pub fn set_rotation(&mut self, rotation: Rotation) {
        self.file.set_rotation(rotation);
    }

    /// Events that could not be written, by reason, since it was opened.
    #[must_use]
    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        self.file.stats().lost.iter().map(|(reason, count)| (reason.name(), count.events)).collect()
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> v1::OutputStatus {
        let stats = self.file.stats();
        let lost_by_reason: Vec<_> = self
            .lost()
            .into_iter()
            .map(|(reason, count)| v1::Drops { reason: reason.to_owned(), count })
            .collect();
        v1::OutputStatus {
            name: "json".to_owned(),
            target: self.path.display().to_string(),
            events: stats.written.events,
            bytes: stats.written.bytes,
            lost: lost_by_reason.iter().map(|drops| drops.count).sum(),
            failing: stats.failing.as_ref().map_or_else(String::new, |failing| failing.why.clone()),
            failing_since: stats.failing.as_ref().map(|failing| failing.since.into()),
            kept_files: u32::try_from(stats.kept).unwrap_or(u32::MAX),
            lost_by_reason,
        }
    }

    /// Writes what was taken and waits for the disk a little; gives the number of events that it lost.
    pub fn close(mut self) -> u64 {
        self.flush();
        let lost = self.lost().iter().map(|(_, count)| count).sum();
        let path = self.path;
        if let Err(error) = self.file.close() {
            tracing::warn!("{} may not be whole on its disk: {error}", path.display());
        }
        lost
    }
}
