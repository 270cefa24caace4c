//! How a [`Position`] changes with what comes.
//!
//! A number is stored, missing, or told to be lost, and goes from the second to the others only. So of all events that an
//! agent made those that are stored and those that it told to be lost are the sum, once no number is missing.

use nightjar_proto::v1::LostBatches;

use super::index::{Gap, LONGEST_REASON, MOST_COUNTS, MOST_GAPS, MOST_REASONS, Position};

// === impl Position ===

impl Position {
    /// Whether the batch with this number did not come yet.
    #[must_use]
    pub fn misses(&self, sequence: u64) -> bool {
        sequence > self.last || self.gap_with(sequence).is_some()
    }

    /// Gaps that nothing explains.
    pub fn unexplained(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.reason.is_empty())
    }

    /// All that is missing or told to be lost.
    pub fn rows(&self) -> impl Iterator<Item = &Gap> {
        self.unnumbered.iter().chain(&self.gaps)
    }

    /// Batches that are missing without an explanation.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.unexplained().map(Gap::batches).sum::<u64>() + self.forgotten
    }

    /// Events that are lost, as the agent told.
    #[must_use]
    pub fn told_lost(&self) -> u64 {
        self.rows().map(|row| row.events).sum::<u64>() + self.forgotten_events
    }

    /// Takes note of a batch with so many events that is new.
    pub(super) fn add(&mut self, sequence: u64, events: u64, now: u64) {
        self.seen = self.seen.max(now);
        if sequence > self.last {
            self.miss(sequence - 1, now);
            self.advance(sequence, events);
        } else if let Some(at) = self.gap_with(sequence) {
            let mut gap = self.gaps[at].clone();
            // It was told to be lost, and came by another way.
            gap.events = gap.events.saturating_sub(events);
            let before = Gap { to: sequence - 1, ..gap.clone() };
            let left = if before.from <= before.to { 0 } else { gap.events };
            let after = Gap { from: sequence.saturating_add(1), events: left, ..gap };
            self.gaps.splice(at..=at, [before, after].into_iter().filter(|gap| gap.from <= gap.to));
            if let Some(count) = self.count_of(sequence) {
                *count = events;
            }
        }
    }

    /// Enters why numbers are missing, also such as were not known to be.
    pub(super) fn explain(&mut self, loss: &LostBatches, now: u64) {
        self.seen = self.seen.max(now);
        let row = Gap {
            from: loss.first_sequence,
            to: loss.last_sequence,
            since: now,
            reason: reason(&loss.reason),
            events: loss.events,
            first_time: loss.first_time,
            last_time: loss.last_time,
        };
        if loss.first_sequence == 0 || loss.first_sequence > loss.last_sequence {
            self.lose_unnumbered(Gap { from: 0, to: 0, ..row });
            return;
        }
        self.miss(loss.last_sequence, now);
        // What is stored after all is not lost, and what was told before is not lost once more.
        let mut left = row.events.saturating_sub(self.stored(&row)).saturating_sub(self.told(&row));
        let overlaps = |gap: &&Gap| gap.reason.is_empty() && gap.from <= row.to && gap.to >= row.from;
        let mut batches: u64 = self
            .gaps
            .iter()
            .filter(overlaps)
            .map(|gap| gap.to.min(row.to) - gap.from.max(row.from) + 1)
            .sum();
        let gaps = std::mem::take(&mut self.gaps);
        for gap in gaps {
            if !overlaps(&&gap) {
                self.push(gap);
                continue;
            }
            let (from, to) = (gap.from.max(row.from), gap.to.min(row.to));
            let part = |from, to| Gap { from, to, ..gap.clone() };
            if gap.from < from {
                self.push(part(gap.from, from - 1));
            }
            // How many were in which of several gaps is not told: to each its share.
            let events = share(left, to - from + 1, batches);
            (left, batches) = (left - events, batches - (to - from + 1));
            self.push(Gap { from, to, since: gap.since, events, ..row.clone() });
            if to < gap.to {
                self.push(part(to + 1, gap.to));
            }
        }
        self.bound();
    }

    fn gap_with(&self, sequence: u64) -> Option<usize> {
        let at = self.gaps.partition_point(|gap| gap.to < sequence);
        self.gaps.get(at).filter(|gap| gap.from <= sequence).map(|_| at)
    }

    /// All after `last` up to `to` did not come.
    pub(super) fn miss(&mut self, to: u64, since: u64) {
        if to > self.last {
            self.gaps.push(Gap { from: self.last + 1, to, since, ..Gap::default() });
            self.advance(to, 0);
            self.bound();
        }
    }

    /// Appends a gap, to the one before where that is of the same loss.
    fn push(&mut self, gap: Gap) {
        match self.gaps.last_mut() {
            Some(before)
                if !gap.reason.is_empty() && before.reason == gap.reason && before.to + 1 == gap.from =>
            {
                before.to = gap.to;
                before.merge(&gap);
            }
            _ => self.gaps.push(gap),
        }
    }

    fn bound(&mut self) {
        if let Some(too_many) = self.gaps.len().checked_sub(MOST_GAPS + 1) {
            for gap in self.gaps.drain(..=too_many) {
                let batches = if gap.reason.is_empty() { gap.batches() } else { 0 };
                self.forgotten = self.forgotten.saturating_add(batches);
                self.forgotten_events = self.forgotten_events.saturating_add(gap.events);
            }
        }
    }

    fn lose_unnumbered(&mut self, row: Gap) {
        let same = self.unnumbered.iter().position(|known| known.reason == row.reason);
        let full = (self.unnumbered.len() >= MOST_REASONS).then_some(MOST_REASONS - 1);
        match same.or(full) {
            Some(at) => self.unnumbered[at].merge(&row),
            None => self.unnumbered.push(row),
        }
    }

    /// Sets the last number, which has so many events.
    fn advance(&mut self, last: u64, events: u64) {
        let new = usize::try_from(last - self.last).unwrap_or(usize::MAX);
        let most = MOST_COUNTS;
        if new >= most {
            self.counts.clear();
        }
        self.counts.extend(std::iter::repeat_n(0, new.min(most)));
        if let Some(count) = self.counts.last_mut() {
            *count = events;
        }
        // Seldom, as it moves all of them.
        if self.counts.len() > 2 * most {
            self.counts.drain(..self.counts.len() - most);
        }
        self.last = last;
    }

    fn count_of(&mut self, sequence: u64) -> Option<&mut u64> {
        let back = usize::try_from(self.last.checked_sub(sequence)?).ok()?;
        let at = self.counts.len().checked_sub(1 + back)?;
        self.counts.get_mut(at)
    }

    /// Events of a range that were told to be lost before; of a gap that is only partly in it a share.
    fn told(&self, row: &Gap) -> u64 {
        let overlapping = self.gaps.iter().filter(|gap| gap.from <= row.to && gap.to >= row.from);
        let in_row = |gap: &Gap| gap.to.min(row.to) - gap.from.max(row.from) + 1;
        overlapping.map(|gap| share(gap.events, in_row(gap), gap.batches())).sum()
    }

    /// Events of a range that are stored, as far as that is remembered.
    fn stored(&self, row: &Gap) -> u64 {
        let first = self.last + 1 - u64::try_from(self.counts.len()).unwrap_or(0).min(self.last + 1);
        let counts = (first..=self.last).zip(&self.counts);
        counts.filter(|(sequence, _)| (row.from..=row.to).contains(sequence)).map(|(_, count)| count).sum()
    }
}

// === impl Gap ===

impl Gap {
    /// How many batches it is.
    #[must_use]
    pub fn batches(&self) -> u64 {
        if self.from == 0 { 0 } else { self.to - self.from + 1 }
    }

    /// Adds the events of another one.
    fn merge(&mut self, other: &Self) {
        let earlier =
            |one: u64, other: u64| if one == 0 || other == 0 { one.max(other) } else { one.min(other) };
        self.events = self.events.saturating_add(other.events);
        self.first_time = earlier(self.first_time, other.first_time);
        self.last_time = self.last_time.max(other.last_time);
    }
}

/// As many of `events` as `part` batches of `batches` have, were they all of a size.
fn share(events: u64, part: u64, batches: u64) -> u64 {
    let share = u128::from(events) * u128::from(part) / u128::from(batches.max(1));
    u64::try_from(share).unwrap_or(events).min(events)
}

/// What a row says where an agent told a loss without a reason: an empty one would mean that it told nothing.
fn reason(told: &str) -> String {
    if told.is_empty() { "unknown".to_owned() } else { told.chars().take(LONGEST_REASON).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loss(first_sequence: u64, last_sequence: u64, events: u64) -> LostBatches {
        let reason = "spool_full".to_owned();
        LostBatches { lane: 1, first_sequence, last_sequence, events, reason, ..LostBatches::default() }
    }

    fn rows(position: &Position) -> Vec<(u64, u64, u64)> {
        position.rows().map(|gap| (gap.from, gap.to, gap.events)).collect()
    }

    #[test]
    fn losses_one_after_another_are_one_row() {
        let mut position = Position::default();
        position.add(1, 10, 1);
        (2..=9).for_each(|number| position.explain(&loss(number, number, 5), 1));
        assert_eq!(rows(&position), [(2, 9, 40)]);
        assert_eq!((position.told_lost(), position.missing()), (40, 0));
    }

    #[test]
    fn events_lost_before_they_had_a_number_are_a_row_for_each_reason() {
        let mut position = Position::default();
        position.add(5, 10, 1);
        position.explain(&loss(0, 0, 7), 1);
        position.explain(&loss(0, 0, 8), 2);
        position.explain(&LostBatches { reason: String::new(), ..loss(0, 0, 1) }, 2);
        assert_eq!(rows(&position), [(0, 0, 15), (0, 0, 1), (1, 4, 0)]);
        assert_eq!(position.unnumbered[1].reason, "unknown");
        assert_eq!((position.told_lost(), position.missing()), (16, 4));
    }

    #[test]
    fn what_is_stored_is_not_lost_although_the_agent_did_not_hear() {
        let mut position = Position::default();
        (1..=6).for_each(|number| position.add(number, 10, 1));
        // It made room for others, and lost 5 to 8.
        position.explain(&loss(5, 8, 40), 1);
        assert_eq!(rows(&position), [(7, 8, 20)]);
        position.explain(&loss(1, 2, 20), 1);
        assert_eq!(position.told_lost(), 20);
        // And one came after all.
        position.add(7, 10, 1);
        assert_eq!(rows(&position), [(8, 8, 10)]);
    }

    #[test]
    fn what_was_told_before_for_another_reason_is_not_lost_once_more() {
        let other =
            |first, last, events| LostBatches { reason: "damaged".to_owned(), ..loss(first, last, events) };
        let mut position = Position::default();
        position.explain(&loss(5, 8, 40), 1);
        // Around it, beside it and over its end; ten events each.
        position.explain(&other(1, 10, 100), 1);
        assert_eq!(rows(&position), [(1, 4, 40), (5, 8, 40), (9, 10, 20)]);
        position.explain(&loss(9, 14, 60), 1);
        assert_eq!(rows(&position), [(1, 4, 40), (5, 8, 40), (9, 10, 20), (11, 14, 40)]);
        position.explain(&other(1, 14, 140), 1);
        assert_eq!((position.told_lost(), position.missing()), (140, 0));
        // And with some that are stored.
        position.add(15, 10, 1);
        position.explain(&other(13, 17, 50), 1);
        assert_eq!(position.told_lost(), 160);
    }

    #[test]
    fn gaps_that_are_too_many_are_still_counted() {
        let mut position = Position::default();
        for number in 1..=MOST_GAPS as u64 + 50 {
            position.add(number * 3, 1, 1);
            position.explain(&loss(number * 3 - 1, number * 3 - 1, 2), 1);
        }
        assert!(position.gaps.len() <= MOST_GAPS);
        assert_eq!(position.told_lost(), 2 * (MOST_GAPS as u64 + 50));
        assert_eq!(position.missing(), MOST_GAPS as u64 + 50);
    }

    #[derive(Debug, Clone)]
    enum Fate {
        Stored,
        Told,
        Both,
        Nothing,
    }

    proptest! {
        #[test]
        fn ranges_that_overlap_anyhow_are_never_lost_more_often_than_they_were_made(
            told in proptest::collection::vec((1_u64..40, 0_u64..15, 0_u8..3), 1..12),
        ) {
            let mut position = Position::default();
            let mut covered = std::collections::BTreeSet::new();
            for (first, length, reason) in told {
                let last = first + length;
                let reason = reason.to_string();
                position.explain(&LostBatches { reason, ..loss(first, last, 10 * (length + 1)) }, 1);
                covered.extend(first..=last);
            }
            prop_assert_eq!(position.told_lost(), 10 * covered.len() as u64);
        }

        #[test]
        fn stored_and_told_to_be_lost_are_what_was_made_in_whatever_order_it_comes(
            fates in proptest::collection::vec(
                prop_oneof![Just(Fate::Stored), Just(Fate::Told), Just(Fate::Both), Just(Fate::Nothing)], 1..60),
            order in any::<proptest::sample::Index>(),
        ) {
            let mut comes = Vec::new();
            for (number, fate) in (1_u64..).zip(&fates) {
                let events = 1 + number % 7;
                match fate {
                    Fate::Stored => comes.push((number, events, false)),
                    Fate::Told => comes.push((number, events, true)),
                    Fate::Both => comes.extend([(number, events, false), (number, events, true)]),
                    Fate::Nothing => {}
                }
            }
            let turn = if comes.is_empty() { 0 } else { order.index(comes.len()) };
            comes.rotate_left(turn);
            let (mut position, mut stored) = (Position::default(), 0);
            for (number, events, told) in comes {
                if told {
                    position.explain(&loss(number, number, events), 1);
                } else if position.misses(number) {
                    position.add(number, events, 1);
                    stored += events;
                }
            }
            let known = fates.iter().rposition(|fate| !matches!(fate, Fate::Nothing)).map_or(0, |at| at + 1);
            let made: u64 = (1_u64..).zip(&fates)
                .filter(|(_, fate)| !matches!(fate, Fate::Nothing))
                .map(|(number, _)| 1 + number % 7).sum();
            let missing = fates[..known].iter().filter(|fate| matches!(fate, Fate::Nothing)).count();
            prop_assert_eq!(stored + position.told_lost(), made);
            prop_assert_eq!(position.missing(), missing as u64);
        }
    }
}
