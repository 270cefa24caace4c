//! What is under way in one session: sent, and not known to be durable.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::deliver::spool::{Batch, BootId, Content, Entry, Lane, Loss, Position, Reason};

/// What is under way in all lanes.
#[derive(Debug)]
pub(super) struct Flight {
    lanes: [LaneFlight; 2],
    /// Bytes under way.
    pub bytes: u64,
    /// Things that were sent, which orders them.
    sent: u64,
    /// When the backend last answered for something, or the first after all was answered for was sent.
    pub progress: Instant,
}

#[derive(Debug)]
struct LaneFlight {
    /// The last that was sent.
    position: Position,
    /// The highest that was acknowledged.
    acknowledged: Position,
    under_way: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    at: Position,
    boot: BootId,
    /// Events, with their times; `None` if it tells of a loss.
    events: Option<(u64, u64, u64)>,
    size: u64,
    order: u64,
    when: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Waits for an acknowledgement of it, or of one after it.
    UnderWay,
    /// Will never be accepted, and the backend is to be told that it is lost. An acknowledgement of one after it does not
    /// count, but for one that was sent after that was told.
    Refused,
    Done,
}

/// What an acknowledgement means.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Acknowledged {
    /// All up to here is done with.
    pub up_to: Option<Position>,
    /// From when the batch was sent.
    pub round_trip: Option<Duration>,
}

/// What a refusal means.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// It is not under way.
    Unknown,
    /// The loss is to be told instead, under the same number.
    Tell(Entry),
    /// Even that was refused: it is done with, up to here as far as something changed.
    GivenUp(Acknowledged),
}

// === impl Flight ===

impl Flight {
    /// Nothing is under way; the next are those after `positions`.
    pub(super) fn new(position: impl Fn(Lane) -> Position) -> Self {
        let lane = |lane| LaneFlight {
            position: position(lane),
            acknowledged: position(lane),
            under_way: VecDeque::new(),
        };
        Self { lanes: Lane::ALL.map(lane), bytes: 0, sent: 0, progress: Instant::now() }
    }

    /// After which the next of a lane is to be sent.
    pub(super) fn position(&self, lane: Lane) -> Position {
        self.lanes[index(lane)].position
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.under_way.is_empty())
    }

    /// Something was sent: a batch, or in its place that it is lost.
    pub(super) fn sent(&mut self, entry: &Entry) {
        let now = Instant::now();
        if self.is_empty() {
            self.progress = now;
        }
        self.sent += 1;
        let order = self.sent;
        let lane = &mut self.lanes[index(entry.lane)];
        if let Some(again) = lane.under_way.iter_mut().find(|sent| sent.at == entry.at) {
            again.order = order;
            again.events = None;
            return;
        }
        let events = match &entry.content {
            Content::Events(Batch { count, first_time, last_time, .. }) => {
                Some((*count, *first_time, *last_time))
            }
            Content::Lost(_) => None,
        };
        let Entry { boot, at, .. } = *entry;
        lane.position = at;
        lane.under_way.push_back(Sent {
            at,
            boot,
            events,
            size: size(entry),
            order,
            when: now,
            stage: Stage::UnderWay,
        });
        self.bytes += size(entry);
    }

    pub(super) fn acknowledged(&mut self, of: Lane, at: Position) -> Acknowledged {
        let lane = &mut self.lanes[index(of)];
        lane.acknowledged = lane.acknowledged.max(at);
        let named = lane.under_way.iter().find(|sent| sent.at == at).map(|sent| (sent.order, sent.when));
        if let Some((order, _)) = named {
            // The order of one whose loss is not told yet is that of the batch itself, which was not stored.
            let is_told = |sent: &&mut Sent| sent.stage == Stage::Refused && sent.events.is_none();
            for sent in lane.under_way.iter_mut().filter(is_told).filter(|sent| sent.order <= order) {
                sent.stage = Stage::Done;
            }
        }
        Acknowledged { up_to: self.settle(of), round_trip: named.map(|(_, when)| when.elapsed()) }
    }

    pub(super) fn refused(&mut self, of: Lane, at: Position) -> Refused {
        let lane = &mut self.lanes[index(of)];
        let Some(sent) = lane.under_way.iter_mut().find(|sent| sent.at == at) else {
            return Refused::Unknown;
        };
        self.progress = Instant::now();
        let Some((events, first_time, last_time)) = sent.events else {
            sent.stage = Stage::Done;
            return Refused::GivenUp(Acknowledged { up_to: self.settle(of), round_trip: None });
        };
        sent.stage = Stage::Refused;
        let (first_sequence, last_sequence) = (at.sequence, at.sequence);
        let reason = Reason::Refused;
        let loss = Loss { first_sequence, last_sequence, events, first_time, last_time, reason };
        Refused::Tell(Entry { boot: sent.boot, lane: of, at, content: Content::Lost(loss) })
    }

    fn settle(&mut self, of: Lane) -> Option<Position> {
        let lane = &mut self.lanes[index(of)];
        let acknowledged = lane.acknowledged;
        let is_done = |sent: &mut Sent| match sent.stage {
            Stage::UnderWay => sent.at <= acknowledged,
            Stage::Refused => false,
            Stage::Done => true,
        };
        let mut last = None;
        while let Some(first) = lane.under_way.pop_front_if(is_done) {
            self.bytes -= first.size;
            last = Some(first.at);
        }
        if last.is_some() {
            self.progress = Instant::now();
        }
        last
    }
}

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Critical => 0,
        Lane::Bulk => 1,
    }
}

/// What an entry counts against the credit. One without events counts too, so that losses do not pile up.
pub(super) fn size(entry: &Entry) -> u64 {
    match &entry.content {
        Content::Events(batch) => (batch.events.len() as u64).max(1),
        Content::Lost(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> Position {
        Position { epoch: 1, sequence }
    }

    fn batch(sequence: u64) -> Entry {
        let batch = Batch { count: 3, events: vec![0; 10].into(), ..Batch::default() };
        Entry { boot: BootId([1; 16]), lane: Lane::Bulk, at: at(sequence), content: Content::Events(batch) }
    }

    fn flight(batches: u64) -> Flight {
        let mut flight = Flight::new(|_| at(0));
        (1..=batches).for_each(|sequence| flight.sent(&batch(sequence)));
        flight
    }

    fn up_to(acknowledged: &Acknowledged) -> Option<u64> {
        acknowledged.up_to.map(|at| at.sequence)
    }

    #[test]
    fn an_acknowledgement_is_of_all_before_it() {
        let mut flight = flight(3);
        assert_eq!(flight.bytes, 30);
        assert_eq!(up_to(&flight.acknowledged(Lane::Bulk, at(2))), Some(2));
        assert_eq!(up_to(&flight.acknowledged(Lane::Bulk, at(2))), None);
        assert_eq!((flight.bytes, flight.is_empty()), (10, false));
    }

    #[test]
    fn a_batch_that_is_refused_is_done_with_when_its_loss_is_acknowledged() {
        let mut flight = flight(3);
        let Refused::Tell(loss) = flight.refused(Lane::Bulk, at(2)) else { panic!("{flight:?}") };
        let Content::Lost(told) = &loss.content else { panic!("{loss:?}") };
        assert_eq!((told.first_sequence, told.last_sequence, told.events), (2, 2, 3));
        // The third was sent before the loss was told.
        assert_eq!(up_to(&flight.acknowledged(Lane::Bulk, at(3))), Some(1));
        flight.sent(&loss);
        assert_eq!(up_to(&flight.acknowledged(Lane::Bulk, at(2))), Some(3));
        assert_eq!((flight.bytes, flight.is_empty()), (0, true));
    }

    #[test]
    fn an_acknowledgement_of_what_was_sent_after_a_loss_was_told_is_of_that_too() {
        let mut flight = flight(1);
        let Refused::Tell(loss) = flight.refused(Lane::Bulk, at(1)) else { panic!("{flight:?}") };
        flight.sent(&loss);
        flight.sent(&batch(2));
        assert_eq!(up_to(&flight.acknowledged(Lane::Bulk, at(2))), Some(2));
    }

    #[test]
    fn a_loss_that_is_refused_is_given_up() {
        let mut flight = flight(1);
        let Refused::Tell(loss) = flight.refused(Lane::Bulk, at(1)) else { panic!("{flight:?}") };
        flight.sent(&loss);
        let Refused::GivenUp(done) = flight.refused(Lane::Bulk, at(1)) else { panic!("{flight:?}") };
        assert_eq!(up_to(&done), Some(1));
        assert_eq!(flight.refused(Lane::Bulk, at(1)), Refused::Unknown);
    }
}
