//! What is done now and then: making durable what was written, and noticing that files are gone.

use std::{collections::HashSet, io, path::Path, sync::Arc};

use super::{
    core::Access,
    core::Core,
    disk::{Disk, DiskFile, Open},
    marks::{LaneMarks, Pending},
    recover::Locked,
    segment::Segment,
    types::{Lane, Reason},
};

/// Name of the file that keeps a second agent out.
pub(super) const LOCK: &str = "lock";

/// Name of the file with the marks.
pub(super) const MARKS: &str = "marks";

/// What has to be made durable; that is done while nobody waits.
pub(super) struct Unsynced {
    files: Vec<Arc<dyn DiskFile>>,
    directory: bool,
}

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
        let mut files: Vec<_> = self.closed.drain(..).map(|(_, file)| file).collect();
        for state in &mut self.lanes {
            if std::mem::take(&mut state.dirty) {
                files.extend(state.active.clone());
            }
        }
        let directory = std::mem::take(&mut self.directory_dirty);
        if directory || !files.is_empty() {
            files.extend(self.marks_file.file().cloned());
        }
        Unsynced { files, directory }
    }

    /// Takes what came of it. A file that could not be made durable gets no more records: the kernel has forgotten what
    /// it could not write, and would not say so a second time.
    pub(super) fn synced(&mut self, failed: &Unsynced) {
        self.faults.syncs += failed.files.len() as u64 + u64::from(failed.directory);
        self.directory_dirty |= failed.directory;
        for state in &mut self.lanes {
            let is_failed =
                |active: &Arc<dyn DiskFile>| failed.files.iter().any(|file| Arc::ptr_eq(active, file));
            if state.active.as_ref().is_some_and(is_failed) {
                state.active = None;
            }
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
    }
}

// === impl Unsynced ===

impl Unsynced {
    /// Everything was made durable.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.directory
    }

    /// Makes it durable; returns what could not be.
    pub(super) fn sync(mut self, disk: &dyn Disk, directory: &Path) -> Self {
        self.files.retain(|file| file.sync().is_err());
        self.directory = self.directory && disk.sync_directory(directory).is_err();
        self
    }
}
