//! What the spool has, as messages of the protocol.

use nightjar_proto::v1 as wire;

use crate::deliver::spool::{BootId, Content, Entry, Lane, Position};

pub(super) fn lane(lane: Lane) -> wire::Lane {
    match lane {
        Lane::Critical => wire::Lane::Critical,
        Lane::Bulk => wire::Lane::Bulk,
    }
}

/// `None`: a lane of a newer backend.
pub(super) fn known_lane(number: i32) -> Option<Lane> {
    Lane::ALL.into_iter().find(|known| i32::from(lane(*known)) == number)
}

/// `None`: of a boot or lane that we cannot have.
pub(super) fn known_position(known: &wire::LanePosition) -> Option<(BootId, Lane, Position)> {
    let at = Position { epoch: known.epoch, sequence: known.sequence };
    Some((known.boot_id.parse().ok()?, known_lane(known.lane)?, at))
}

pub(super) fn position(boot: BootId, of: Lane, at: Position) -> wire::LanePosition {
    wire::LanePosition {
        boot_id: boot.to_string(),
        epoch: at.epoch,
        lane: lane(of).into(),
        sequence: at.sequence,
    }
}

pub(super) fn batch(agent_id: &str, entry: &Entry) -> wire::Batch {
    let lane = lane(entry.lane).into();
    let batch = wire::Batch {
        agent_id: agent_id.to_owned(),
        boot_id: entry.boot.to_string(),
        epoch: entry.at.epoch,
        lane,
        sequence: entry.at.sequence,
        ..wire::Batch::default()
    };
    match &entry.content {
        Content::Events(events) => wire::Batch {
            first_time: events.first_time,
            last_time: events.last_time,
            count: events.count,
            events: events.events.clone(),
            uncompressed_bytes: events.uncompressed_bytes.into(),
            ..batch
        },
        Content::Lost(loss) => wire::Batch {
            first_time: loss.first_time,
            last_time: loss.last_time,
            losses: vec![wire::LostBatches {
                lane,
                first_sequence: loss.first_sequence,
                last_sequence: loss.last_sequence,
                events: loss.events,
                first_time: loss.first_time,
                last_time: loss.last_time,
                reason: loss.reason.as_str().to_owned(),
            }],
            ..batch
        },
    }
}
