//! What a line costs in each profile: time and length, of the events that documentation shows.
//!
//! `cargo bench -p nightjar-show`

#[path = "../../proto/tests/samples/typical.rs"]
mod typical;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use nightjar_proto::v1::Event;
use nightjar_show::profile::Profile;

const ROUNDS: u32 = 50;
const CALLS: u32 = 2_000;

/// Time of one event, in the fastest of many rounds: what others do on the machine only adds.
fn measure(profile: Profile, events: &[Event], buffer: &mut Vec<u8>) -> Duration {
    let round = |buffer: &mut Vec<u8>| {
        let start = Instant::now();
        for event in events.iter().cycle().take(CALLS as usize) {
            buffer.clear();
            profile.write(black_box(event), buffer);
            black_box(&*buffer);
        }
        start.elapsed() / CALLS
    };
    (0..ROUNDS).map(|_| round(buffer)).min().unwrap_or_default()
}

fn main() {
    let events = typical::typical();
    let families = ["process.exec", "file.", "network.", ""];
    for profile in Profile::ALL {
        for family in families {
            let events: Vec<Event> =
                events.iter().filter(|event| event.kind.starts_with(family)).cloned().collect();
            let mut buffer = Vec::new();
            for event in &events {
                profile.write(event, &mut buffer);
            }
            let length = buffer.len() / events.len().max(1);
            let time = measure(profile, &events, &mut buffer);
            println!("{profile:12} {family:14} {length:5} bytes {time:>9.3?}");
        }
    }
}
