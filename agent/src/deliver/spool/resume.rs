//! Going on where the backend says that it is.
//!
//! When a session begins the backend says which numbers it has. Normally these were all given out here: an
//! acknowledgement was lost on its way, and is made up for.
//!
//! If it has more than was ever given out, or an epoch of this boot that is not known here, then this spool was set back: a
//! virtual machine was restored from a snapshot of its memory, or somebody put back the directory. Numbers were given
//! twice then, and what has them here would be taken for what the backend has. So the epoch gets another number outside
//! of the spool, above all that are known to either side: everything that is not acknowledged goes out under this, with
//! the numbers of batches that it has. What was stored before the snapshot, and was not acknowledged in it, is stored
//! twice: nothing tells it apart from what is new.
//!
//! That is not done for epochs of before: they get no more numbers. Where the backend has more of one than there is here,
//! the host lost its power.
//!
//! It cannot be seen if as much was given out since as the backend has, which takes a connection that is dead and not
//! known to be.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    core::Core,
    marks::Renumbered,
    segment::Segment,
    types::{BootId, Lane, Position},
};

impl Core {
    /// Takes what the backend has at the beginning of a session, in epochs as they are outside. True if numbers were
    /// given twice: nothing of this epoch was acknowledged, its number is another one, and the backend is to be asked anew.
    pub(super) fn resume(&mut self, known: &[(BootId, Lane, Position)]) -> bool {
        if !self.is_ready() {
            return false;
        }
        let is_set_back = self.is_set_back(known);
        for lane in Lane::ALL {
            for epoch in self.epochs(lane) {
                if is_set_back && epoch == self.epoch {
                    break;
                }
                let published = self.published(epoch);
                let of_epoch = known.iter().filter(|(_, of, at)| *of == lane && at.epoch == published);
                if let Some(sequence) = of_epoch.map(|(_, _, at)| at.sequence).max() {
                    self.acknowledge(lane, Position { epoch, sequence });
                }
                // What the backend has of an epoch says nothing of the one before.
                let acknowledged = self.lane(lane).marks.acknowledged.at;
                if self.waits(lane).any(|at| at.epoch == epoch && at > acknowledged) {
                    break;
                }
            }
        }
        if is_set_back {
            self.renumber(known);
        }
        is_set_back
    }

    /// The number that an epoch has outside.
    pub(super) fn published(&self, epoch: u64) -> u64 {
        let known = self.renumbered.iter().find(|known| known.epoch == epoch);
        known.map_or(epoch, |known| known.published)
    }

    /// The epoch that has this number outside.
    pub(super) fn written(&self, published: u64) -> u64 {
        let known = self.renumbered.iter().find(|known| known.published == published);
        known.map_or(published, |known| known.epoch)
    }

    /// A number for an epoch that was never used here: the time in nanoseconds, or one above all known ones.
    pub(super) fn new_epoch(&self, known: u64) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos());
        let now = u64::try_from(now).unwrap_or(u64::MAX / 2);
        let published = self.renumbered.iter().map(|known| known.published).max().unwrap_or(0);
        now.max(known.max(published).saturating_add(1))
    }

    /// The backend has what this spool did not give out.
    fn is_set_back(&self, known: &[(BootId, Lane, Position)]) -> bool {
        let published = self.published(self.epoch);
        known.iter().any(|(boot, lane, at)| {
            let state = &self.lanes[lane.index()];
            let may_have = state.marks.given.at.max(state.opened);
            let may_have = if may_have.epoch == self.epoch { may_have.sequence } else { 0 };
            let is_unknown = *boot == self.boot && at.epoch > published;
            is_unknown || at.epoch == published && at.sequence > may_have
        })
    }

    fn renumber(&mut self, known: &[(BootId, Lane, Position)]) {
        let epoch = self.epoch;
        let highest = known.iter().map(|(_, _, at)| at.epoch).chain([epoch]).max().unwrap_or(epoch);
        let published = self.new_epoch(highest);
        let others = self.renumbered.into_iter().filter(|known| known.epoch != epoch);
        let all = [Renumbered { epoch, published }].into_iter().chain(others);
        let mut renumbered = <[Renumbered; _]>::default();
        renumbered.iter_mut().zip(all).for_each(|(place, known)| *place = known);
        self.renumbered = renumbered;
        self.save_marks();
    }

    /// Those that there is something of, in order.
    fn epochs(&self, lane: Lane) -> Vec<u64> {
        let mut epochs: Vec<u64> = self.waits(lane).map(|at| at.epoch).chain([self.epoch]).collect();
        epochs.dedup();
        epochs
    }

    /// Where each segment ends.
    fn waits(&self, lane: Lane) -> impl Iterator<Item = Position> {
        self.lanes[lane.index()].segments.iter().map(Segment::last_position)
    }
}
