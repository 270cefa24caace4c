//! What the store has of each stream of batches: the last number, what is missing before it, and what the agent told of
//! that.
//!
//! This decides whether a batch is new, and tells of gaps. It is made of the batches alone: the same batches in the
//! same order give the same index, so it is not written for each but as a [`Checkpoint`] at the head of every file of
//! the log.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use nightjar_proto::v1::{Batch, LostBatches};
use prost::Message as _;

/// Most gaps that one stream may have; then the oldest is only counted. An agent makes one where it loses something,
/// so this many mean that something else is wrong.
pub(super) const MOST_GAPS: usize = 4096;

/// Most streams of one agent: two lanes of sixteen boots. The one that was silent for longest is forgotten.
const MOST_STREAMS: usize = 32;

/// Numbers of batches whose counts of events are remembered. An agent may tell of a batch that it is lost although it is
/// stored, when the acknowledgement did not reach it and it had to make room; these are batches that were under way last.
pub(super) const MOST_COUNTS: usize = 256;

/// Most reasons of losses before batches had a number; the others are added to the last.
pub(super) const MOST_REASONS: usize = 16;

/// Bytes after which an index is written on in another [`Checkpoint`]: a stream has 2 MiB at most, with all gaps that it
/// may have.
pub const PART: usize = 8 << 20;

/// Most characters of a reason.
pub(super) const LONGEST_REASON: usize = 64;

/// What numbers batches: one lane of one boot of one agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// As in the batch.
    pub agent: String,
    /// As in the batch.
    pub boot: String,
    /// As in the batch.
    pub epoch: u64,
    /// As in the batch.
    pub lane: i32,
}

/// Numbers that did not come, or events that were lost before they had a number: `from` and `to` are 0 then.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Gap {
    /// The first of them.
    #[prost(uint64, tag = "1")]
    pub from: u64,
    /// The last of them.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// When it was noticed, in nanoseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub since: u64,
    /// Why, as the agent told; empty: it did not.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// Events that were lost, as the agent told.
    #[prost(uint64, tag = "5")]
    pub events: u64,
    /// Earliest time of one of these events, in nanoseconds since 1970; 0: not known.
    #[prost(uint64, tag = "6")]
    pub first_time: u64,
    /// Latest time of one.
    #[prost(uint64, tag = "7")]
    pub last_time: u64,
}

/// What is known of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Position {
    /// The highest number that came, or that was told to be lost.
    #[prost(uint64, tag = "1")]
    pub last: u64,
    /// When a batch last came, in nanoseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub seen: u64,
    /// Gaps before `last`, in order.
    #[prost(message, repeated, tag = "3")]
    pub gaps: Vec<Gap>,
    /// Batches in gaps that were too many to keep and that nothing explained.
    #[prost(uint64, tag = "4")]
    pub forgotten: u64,
    /// Events in gaps that were too many to keep, as the agent told.
    #[prost(uint64, tag = "5")]
    pub forgotten_events: u64,
    /// What was lost before it had a number, a row for each reason.
    #[prost(message, repeated, tag = "6")]
    pub unnumbered: Vec<Gap>,
    /// Events of the last numbers up to `last`, that of `last` at the end; 0 where one did not come.
    #[prost(uint64, repeated, tag = "7")]
    pub(super) counts: Vec<u64>,
}

/// A stream and what is known of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entered {
    #[prost(string, tag = "1")]
    agent: String,
    #[prost(string, tag = "2")]
    boot: String,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(int32, tag = "4")]
    lane: i32,
    #[prost(message, required, tag = "5")]
    position: Position,
}

/// An index, written, or a part of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Checkpoint {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<Entered>,
}

/// All streams. See the head of this module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Index(BTreeMap<Stream, Position>);

// === impl Stream ===

impl Stream {
    /// The stream that a batch belongs to.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        Self {
            agent: batch.agent_id.clone(),
            boot: batch.boot_id.clone(),
            epoch: batch.epoch,
            lane: batch.lane,
        }
    }
}

// === impl Index ===

impl Index {
    /// Whether the batch is not stored yet.
    #[must_use]
    pub fn is_new(&self, batch: &Batch) -> bool {
        self.0.get(&Stream::of(batch)).is_none_or(|position| position.misses(batch.sequence))
    }

    /// Enters that the stream of a batch begins after a number, if nothing is known of the stream: the agent says that all
    /// up to there was acknowledged to it, by another backend or under another name, so it will never come. What is known
    /// of a stream is not changed by what an agent says, and the batch itself stays new. Gives whether it was entered.
    pub fn begin(&mut self, batch: &Batch, after: u64) -> bool {
        let last = after.min(batch.sequence.saturating_sub(1));
        if last == 0 {
            return false;
        }
        match self.0.entry(Stream::of(batch)) {
            Entry::Vacant(entry) => {
                entry.insert(Position { last, ..Position::default() });
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Takes note of a batch that is new.
    pub fn add(&mut self, batch: &Batch, received: u64) {
        let stream = Stream::of(batch);
        // One that stands for itself has nothing that came: its number is one of those that are lost.
        let is_lost = |loss: &LostBatches| {
            loss.lane == batch.lane && (loss.first_sequence..=loss.last_sequence).contains(&batch.sequence)
        };
        if batch.count > 0 || !batch.losses.iter().any(is_lost) {
            self.position(&stream).add(batch.sequence, batch.count, received);
        }
        for loss in &batch.losses {
            let stream = Stream { lane: loss.lane, ..stream.clone() };
            self.position(&stream).explain(loss, received);
        }
        self.bound(&stream.agent);
    }

    /// What is known of one stream.
    #[must_use]
    pub fn get(&self, stream: &Stream) -> Option<&Position> {
        self.0.get(stream)
    }

    /// All streams of an agent.
    pub fn of_agent(&self, agent: &str) -> impl Iterator<Item = (&Stream, &Position)> {
        let first = Stream { agent: agent.to_owned(), boot: String::new(), epoch: 0, lane: i32::MIN };
        self.0.range(first..).take_while(move |(stream, _)| stream.agent == agent)
    }

    /// Takes what another one knows of its streams, in place of what was known of these.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// All streams.
    pub fn iter(&self) -> impl Iterator<Item = (&Stream, &Position)> {
        self.0.iter()
    }

    /// Leaves out streams that were silent since then.
    pub fn forget_before(&mut self, time: u64) {
        self.0.retain(|_, position| position.seen >= time);
    }

    /// Leaves out streams that `wanted` does not have.
    pub fn retain(&mut self, wanted: &BTreeSet<Stream>) {
        self.0.retain(|stream, _| wanted.contains(stream));
    }

    /// To be written, in parts that are not too large for a record.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        let (mut parts, mut part, mut bytes) = (Vec::new(), Checkpoint::default(), 0);
        for entered in self.checkpoint().streams {
            let size = entered.encoded_len();
            if bytes + size > PART && bytes > 0 {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.streams.push(entered);
        }
        parts.push(part);
        parts
    }

    /// Takes what was known later of streams that are behind: what would have said so is damaged.
    pub fn catch_up(&mut self, later: Checkpoint) {
        for (stream, position) in Self::from(later).0 {
            match self.0.entry(stream) {
                Entry::Vacant(entry) => drop(entry.insert(position)),
                Entry::Occupied(mut entry) => entry.get_mut().miss(position.last, position.seen),
            }
        }
    }

    /// To be written, all at once.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let entered = |(stream, position): (&Stream, &Position)| Entered {
            agent: stream.agent.clone(),
            boot: stream.boot.clone(),
            epoch: stream.epoch,
            lane: stream.lane,
            position: position.clone(),
        };
        Checkpoint { streams: self.0.iter().map(entered).collect() }
    }

    fn position(&mut self, stream: &Stream) -> &mut Position {
        self.0.entry(stream.clone()).or_default()
    }

    fn bound(&mut self, agent: &str) {
        if self.of_agent(agent).count() > MOST_STREAMS {
            let oldest = self.of_agent(agent).min_by_key(|(_, position)| position.seen);
            if let Some(stream) = oldest.map(|(stream, _)| stream.clone())
                && let Entry::Occupied(entry) = self.0.entry(stream)
            {
                entry.remove();
            }
        }
    }
}

impl From<Checkpoint> for Index {
    fn from(checkpoint: Checkpoint) -> Self {
        let entry = |entered: Entered| {
            let Entered { agent, boot, epoch, lane, position } = entered;
            (Stream { agent, boot, epoch, lane }, position)
        };
        Self(checkpoint.streams.into_iter().map(entry).collect())
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn batch(sequence: u64) -> Batch {
        Batch { agent_id: "a".to_owned(), lane: 1, sequence, ..Batch::default() }
    }

    fn telling(sequence: u64, first_sequence: u64, last_sequence: u64) -> Batch {
        let loss = LostBatches {
            lane: 1,
            first_sequence,
            last_sequence,
            events: 12,
            reason: "spool_full".to_owned(),
            ..LostBatches::default()
        };
        Batch { losses: vec![loss], ..batch(sequence) }
    }

    fn index(batches: &[Batch]) -> Index {
        let mut index = Index::default();
        for batch in batches {
            assert!(index.is_new(batch), "{} is stored already", batch.sequence);
            index.add(batch, 1);
        }
        index
    }

    fn gaps(index: &Index) -> Vec<(u64, u64, &str)> {
        let gaps = index.iter().flat_map(|(_, position)| &position.gaps);
        gaps.map(|gap| (gap.from, gap.to, gap.reason.as_str())).collect()
    }

    #[test]
    fn a_batch_is_new_once() {
        let index = index(&[batch(1), batch(2)]);
        assert!(!index.is_new(&batch(1)));
        assert!(!index.is_new(&batch(2)));
        assert!(index.is_new(&batch(3)));
        assert!(index.is_new(&Batch { lane: 2, ..batch(1) }));
        assert!(index.is_new(&Batch { epoch: 1, ..batch(1) }));
        assert!(index.is_new(&Batch { boot_id: "other".to_owned(), ..batch(1) }));
    }

    #[test]
    fn numbers_that_did_not_come_are_a_gap_until_they_come() {
        let mut index = index(&[batch(1), batch(6)]);
        assert_eq!(gaps(&index), [(2, 5, "")]);
        assert!(index.is_new(&batch(3)));
        index.add(&batch(3), 1);
        assert_eq!(gaps(&index), [(2, 2, ""), (4, 5, "")]);
        assert!(!index.is_new(&batch(3)));
        index.add(&batch(2), 1);
        index.add(&batch(5), 1);
        index.add(&batch(4), 1);
        assert_eq!(gaps(&index), []);
    }

    #[test]
    fn a_loss_that_is_told_explains_the_gap_whenever_it_comes() {
        // In the place of the last that is lost.
        assert_eq!(gaps(&index(&[batch(4), telling(9, 5, 9)])), [(1, 3, ""), (5, 9, "spool_full")]);
        // With a later number.
        assert_eq!(gaps(&index(&[batch(1), batch(4), telling(5, 2, 2)])), [(2, 2, "spool_full"), (3, 3, "")]);
        // Before what follows it has come.
        let early = Batch { lane: 2, ..telling(1, 1, 3) };
        assert_eq!(gaps(&index(&[early])), [(1, 3, "spool_full")]);
    }

    #[test]
    fn a_loss_that_is_told_under_its_own_number_counts() {
        let loss = |events| LostBatches { events, ..telling(2, 2, 2).losses[0].clone() };
        let mut index = index(&[batch(1), Batch { count: 0, losses: vec![loss(7)], ..batch(2) }, batch(3)]);
        let told = |index: &Index| index.iter().map(|(_, position)| position.told_lost()).sum::<u64>();
        assert_eq!((gaps(&index), told(&index)), (vec![(2, 2, "spool_full")], 7));
        // It comes once more, as the acknowledgement was lost.
        index.add(&Batch { count: 0, losses: vec![loss(7)], ..batch(2) }, 2);
        assert_eq!((gaps(&index), told(&index)), (vec![(2, 2, "spool_full")], 7));
    }

    #[test]
    fn a_stream_that_is_not_known_begins_where_the_agent_says_and_any_other_does_not() {
        let mut index = Index::default();
        index.begin(&batch(481), 480);
        assert!(index.is_new(&batch(481)));
        index.add(&batch(481), 1);
        assert_eq!(gaps(&index), []);
        index.begin(&batch(484), 483);
        index.add(&batch(484), 1);
        assert_eq!(gaps(&index), [(482, 483, "")], "it was known, and is not raised");
        let mut index = Index::default();
        index.begin(&batch(3), u64::MAX);
        assert!(index.is_new(&batch(3)), "what comes was not acknowledged, whatever the agent says");
    }

    #[test]
    fn a_checkpoint_is_the_index() {
        let index = index(&[batch(2), telling(9, 5, 7)]);
        assert_eq!(Index::from(index.checkpoint()), index);
    }

    #[test]
    fn a_large_index_is_written_in_parts_each_of_which_can_be_read() {
        use crate::store::record::{Reader, Record, encode};
        let mut index = Index::default();
        for agent in 0..60 {
            let of_agent = |sequence| Batch { agent_id: format!("agent-{agent}"), ..batch(sequence) };
            index.add(&of_agent(MOST_GAPS as u64 * 2 + 1), 1);
        }
        // As many gaps as a stream may have, with reasons as long as they may be: too much for one record.
        for position in index.0.values_mut() {
            let gap = |number: u64| Gap {
                from: number * 2,
                to: number * 2,
                since: u64::MAX,
                reason: "\u{1f319}".repeat(LONGEST_REASON),
                events: u64::MAX,
                first_time: u64::MAX,
                last_time: u64::MAX,
            };
            position.gaps = (1..=MOST_GAPS as u64).map(gap).collect();
        }
        let parts = index.checkpoints();
        assert!(parts.len() > 5 && parts.iter().all(|part| part.encoded_len() < 2 * PART), "{}", parts.len());
        let mut bytes = Vec::new();
        for part in parts {
            encode(&Record::Checkpoint(part), &mut bytes);
        }
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let mut reader = Reader::new(std::sync::Arc::new(file), 0);
        let mut read = Index::default();
        while let Some(Record::Checkpoint(part)) = reader.next(bytes.len() as u64).unwrap() {
            read.extend(part.into());
        }
        assert!(read == index);
    }

    #[test]
    fn what_a_later_checkpoint_knows_more_is_missing() {
        let mut damaged = index(&[batch(1), batch(2)]);
        let mut whole = damaged.clone();
        whole.add(&batch(3), 1);
        whole.add(&Batch { lane: 2, ..batch(1) }, 1);
        damaged.catch_up(whole.checkpoint());
        assert_eq!(gaps(&damaged), [(3, 3, "")]);
        assert!(!damaged.is_new(&Batch { lane: 2, ..batch(1) }));
        // And nothing where it does not.
        let before = damaged.clone();
        damaged.catch_up(whole.checkpoint());
        assert!(damaged == before);
    }

    #[test]
    fn an_agent_cannot_have_more_streams_or_gaps_than_are_bounded() {
        let mut index = Index::default();
        for number in 0..200 {
            index.add(&Batch { boot_id: number.to_string(), ..batch(1) }, number);
        }
        assert_eq!(index.iter().count(), MOST_STREAMS);
        assert!(index.iter().any(|(stream, _)| stream.boot == "199"));
        let mut index = Index::default();
        (1..=MOST_GAPS as u64 + 9).for_each(|number| index.add(&batch(number * 2), 1));
        let position = index.iter().next().unwrap().1;
        assert_eq!((position.gaps.len(), position.forgotten), (MOST_GAPS, 9));
    }
}
