//! On a quiet host an event is shown at once.

use std::{
    thread,
    time::{Duration, UNIX_EPOCH},
};

use nightjar_tests::{Agent, skip_without_kernel};

const MEASURED: usize = 15;
/// Long enough for the agent to go to sleep in between.
const QUIET: Duration = Duration::from_millis(200);
const PROMISED: Duration = Duration::from_millis(100);

#[test]
fn an_event_is_shown_within_a_tenth_of_a_second() {
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.exec", "--ring-size", "64MiB"]);
    let mut delays: Vec<Duration> = (0..MEASURED)
        .map(|_| {
            thread::sleep(QUIET);
            let event = agent.catch_up();
            let happened = Duration::from_nanos(u64::try_from(event.nanos("time")).unwrap());
            event.arrived.duration_since(UNIX_EPOCH + happened).unwrap_or_default()
        })
        .collect();
    agent.stop().expect_nothing_lost();
    delays.sort_unstable();
    assert!(delays[MEASURED / 2] < PROMISED, "{delays:?}");
}
