//! What is done now and then: making durable what was written, and noticing that files are gone.

use std::{collections::HashSet, io, path::Path, sync::Arc};

use super::{
    core::{Access, Core, MOST_CLOSED},
    disk::{Disk, DiskFile, Open},
    marks::{LaneMarks, Pending},
    recover::Locked,
    segment::{Name, Segment},
    types::{Lane, Reason},
};

/// Name of the file that keeps a second agent out.
pub(super) const LOCK: &str = "lock";

/// Name of the file with the marks.
pub(super) const MARKS: &str = "marks";

/// What has to be made durable; that is done while nobody waits.
pub(super) struct Unsynced {
    files: Vec<(Name, Arc<dyn DiskFile>)>,
    marks: Option<Arc<dyn DiskFile>>,
    directory: bool,
}

/// Bytes of a file that are written once more at a time.
const STRIDE: usize = 64 << 10;

// === impl Core ===

impl Core {
    /// Looks whether files are where they were. What is gone is forgotten here: the reader will find that numbers are
    /// missing, and how many events they had. The directory, the lock and the marks are made again if need be.
    pub(super) fn inspect(&mut self) {
        let marks = self.directory.join(MARKS);
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let mut listed = self.disk.list(&self.directory);
        if listed.as_ref().is_err_and(is_gone) {
            self.faults.recreated += u64::from(self.disk.create_directory(&self.directory).is_ok());
            listed = Ok(Vec::new());
        }
        if self.take_lock().is_err() {
            self.lock_out();
            return;
        }
        if !self.marks_file.is_at(&marks) {
            self.marks_file.open(self.disk.open(&marks, Open::Create).ok());
            self.directory_dirty = true;
            self.save_marks();
        }
        // Not to be had is not gone: only what is not found is forgotten.
        let Ok(listed) = listed else { return };
        let there: HashSet<String> = listed.into_iter().map(|entry| entry.name).collect();
        for state in &mut self.lanes {
            let before = state.segments.len();
            let last = state.segments.back().map(|segment| self.directory.join(segment.name.to_string()));
            if let (Some(active), Some(path)) = (&state.active, last)
                && !active.is_at(&path)
            {
                state.active = None;
                state.segments.pop_back();
            }
            state.segments.retain(|segment| segment.is_gone || there.contains(&segment.name.to_string()));
            if state.segments.is_empty() {
                state.active = None;
            }
            self.faults.missing += (before - state.segments.len()) as u64;
        }
        for lane in Lane::ALL {
            self.restore_ends(lane);
        }
    }

    /// Takes the lock of the directory, unless it is held: another directory may be in its place, whose lock is another.
    /// Where there is none to be had, as on a disk that is read-only, what was held before stays held.
    ///
    /// # Errors
    /// When another process has it.
    pub(super) fn take_lock(&mut self) -> Result<(), Locked> {
        let path = self.directory.join(LOCK);
        if self.lock.as_ref().is_some_and(|lock| lock.is_at(&path)) {
            return Ok(());
        }
        match self.disk.lock(&path) {
            Ok(Some(lock)) => self.lock = Some(lock),
            Ok(None) => return Err(Locked),
            Err(_) => self.faults.locks += 1,
        }
        Ok(())
    }

    /// Another process has what is at our path now. Nothing is read or written there until it is gone; what was in our
    /// directory and not acknowledged counts as missing.
    fn lock_out(&mut self) {
        self.access = Access::LockedOut;
        self.recoveries = 0;
        self.faults.locked_out += 1;
        self.marks_file.open(None);
        self.garbage.clear();
        self.closed.clear();
        self.undurable.clear();
        self.marks_undurable = false;
        for lane in Lane::ALL {
            let state = self.lane(lane);
            let of_epoch = |segment: &&Segment| segment.last_position() > state.marks.acknowledged.at;
            let mut gone = Pending::default();
            for segment in state.segments.iter().filter(of_epoch) {
                let acknowledged = state.marks.acknowledged;
                let is_partly = acknowledged.at.epoch == segment.name.epoch;
                let before = segment.events_before.max(if is_partly { acknowledged.events } else { 0 });
                let events = segment.events_after.saturating_sub(before);
                gone.add(events, segment.first_time, segment.last_time);
            }
            let pending = state.marks.pending;
            state.marks = LaneMarks { pending, ..LaneMarks::default() };
            state.segments.clear();
            state.under_way.clear();
            state.active = None;
            if gone.events > 0 {
                self.refuse(lane, Reason::Missing, gone.events, gone.first_time, gone.last_time);
            }
        }
    }

    /// What was written since the last time.
    pub(super) fn unsynced(&mut self) -> Unsynced {
        let mut files = std::mem::take(&mut self.closed);
        for state in &mut self.lanes {
            if std::mem::take(&mut state.dirty)
                && let (Some(segment), Some(file)) = (state.segments.back(), &state.active)
            {
                files.push((segment.name, file.clone()));
            }
        }
        let directory = std::mem::take(&mut self.directory_dirty);
        let is_changed = directory || self.marks_undurable || !files.is_empty();
        let marks = self.marks_file.file().filter(|_| is_changed).cloned();
        Unsynced { files, marks, directory }
    }

    /// Takes what came of it. A file that could not be made durable gets no more records, and is written once more before
    /// it is tried again: the kernel has forgotten what it could not write, and would not say so a second time.
    pub(super) fn synced(&mut self, failed: Unsynced) {
        let Unsynced { files, marks, directory } = failed;
        self.faults.syncs += files.len() as u64 + u64::from(marks.is_some()) + u64::from(directory);
        self.directory_dirty |= directory;
        self.marks_undurable = marks.is_some();
        for state in &mut self.lanes {
            let is_failed =
                |active: &Arc<dyn DiskFile>| files.iter().any(|(_, file)| Arc::ptr_eq(active, file));
            if state.active.as_ref().is_some_and(is_failed) {
                state.active = None;
            }
        }
        // What was removed meanwhile need not be.
        let is_there =
            |name: &Name| self.lanes[name.lane.index()].segments.iter().any(|segment| segment.name == *name);
        self.undurable.extend(files.into_iter().filter(|(name, _)| is_there(name)));
        let too_many = self.undurable.len().saturating_sub(MOST_CLOSED);
        self.undurable.drain(..too_many);
    }

    /// Writes once more what could not be made durable, as far as it can still be read: one file each time, as who appends
    /// has to wait meanwhile.
    fn write_again(&mut self) {
        if let Some((name, file)) = self.undurable.pop_front() {
            match write_again(&*file) {
                Ok(()) => self.sync_later(name, file),
                Err(_) => self.undurable.push_back((name, file)),
            }
        }
        if self.marks_undurable {
            self.marks_file.write_both();
            self.save_marks();
        }
    }

    /// What is tried again until it works.
    pub(super) fn retry(&mut self) {
        if !self.is_ready() {
            // Whoever has the directory now may leave it later.
            let _ = self.recover();
            return;
        }
        self.inspect();
        for lane in Lane::ALL {
            self.write_pending(lane);
        }
        if self.unsaved {
            self.save_marks();
        }
        self.remove_acknowledged();
        self.write_again();
    }
}

/// Writes over a file what is in it.
fn write_again(file: &dyn DiskFile) -> io::Result<()> {
    let mut bytes = vec![0; STRIDE];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut bytes, offset)?;
        if read == 0 {
            return Ok(());
        }
        file.write_at(&bytes[..read], offset)?;
        offset += read as u64;
    }
}

// === impl Unsynced ===

impl Unsynced {
    /// Everything was made durable.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.marks.is_none() && !self.directory
    }

    /// Makes it durable; returns what could not be.
    pub(super) fn sync(mut self, disk: &dyn Disk, directory: &Path) -> Self {
        self.files.retain(|(_, file)| file.sync().is_err());
        self.marks = self.marks.filter(|file| file.sync().is_err());
        self.directory = self.directory && disk.sync_directory(directory).is_err();
        self
    }
}
