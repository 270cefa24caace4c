//! A ring that is too small for what happens: what is lost is counted exactly.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::collections::HashSet;

use nightjar_tests::{Agent, Event, TRUE, loss, skip_without_kernel, workload};
use rustix::process::Signal;

const SPAWNERS: u32 = 4;
const EACH: u32 = 1500;
const MARKER: &str = "nightjar-overflow";

#[test]
fn what_a_full_ring_loses_is_counted_and_told() {
    skip_without_kernel!();
    // One that sees all, to know what the other does not: other programs run on this machine as well.
    let witness = Agent::start(&["--kind", "process.exec", "--ring-size", "64MiB"]);
    let small = Agent::start(&["--kind", "process.exec", "--ring-size", "1MiB"]);
    let first = small.catch_up();

    small.signal(Signal::STOP);
    let (long, count) = ("x".repeat(8000), EACH.to_string());
    let spawners: Vec<_> =
        (0..SPAWNERS).map(|_| workload(&["spawn-many", &count, TRUE, MARKER, &long]).start()).collect();
    for spawner in spawners {
        let ran = spawner.succeed();
        assert_eq!(ran.said()["pids"].as_array().unwrap().len(), EACH as usize);
    }
    let mark = small.mark();
    small.signal(Signal::CONT);
    let told = small.expect_event(&loss(), mark);
    let last = small.catch_up();
    witness.catch_up();

    let (seen, all) = (small.events("process.exec"), witness.events("process.exec"));
    let losses = small.events("telemetry.loss");
    let summary = small.stop();
    witness.stop().expect_nothing_lost();

    let ours = all.iter().filter(|event| event.list("process.args").get(1) == Some(&MARKER)).count();
    assert_eq!(ours, (SPAWNERS * EACH) as usize);

    let known: HashSet<&str> = seen.iter().map(|event| event.text("process.exec_id")).collect();
    let span = first.nanos("time")..=last.nanos("time");
    let is_missing = |event: &&Event| {
        span.contains(&event.nanos("time")) && !known.contains(event.text("process.exec_id"))
    };
    let missing = all.iter().filter(is_missing).count() as u64;
    let counted: u64 = losses.iter().map(|event| lost(event, "exec")).sum();
    assert!(missing > u64::from(SPAWNERS * EACH) / 2, "the ring took nearly all: only {missing} are missing");
    assert_eq!(counted, missing, "{} were seen, {} happened", seen.len(), all.len());

    assert!(lost(&told, "exec") > 0, "{told}");
    assert!(told.nanos("telemetry.since") < told.nanos("telemetry.until"), "{told}");
    let of_exec = entry(&told, "exec").expect("just counted");
    assert_eq!(of_exec["kinds"], serde_json::json!(["process.exec"]));
    let missing_times = all.iter().filter(is_missing).map(|event| event.nanos("time"));
    let inside = |time: i128| {
        losses.iter().any(|loss| {
            // The two agents may have read the wall clock a little apart.
            let slack = 1_000_000;
            (loss.nanos("telemetry.since") - slack..=loss.nanos("telemetry.until") + slack).contains(&time)
        })
    };
    assert!(missing_times.into_iter().all(inside), "a loss is outside of the span that is told: {losses:?}");

    assert!(summary.status.success(), "{summary:?}");
    assert!(summary.line().contains(&format!("exec {counted} (ring_full)")), "{summary:?}");
}

fn entry<'a>(event: &'a Event, hook: &str) -> Option<&'a serde_json::Value> {
    let losses = event.field("telemetry.losses").as_array().unwrap();
    losses.iter().find(|loss| loss["hook"] == hook && loss["reason"] == "ring_full")
}

fn lost(event: &Event, hook: &str) -> u64 {
    entry(event, hook).map_or(0, |loss| loss["count"].as_u64().unwrap())
}
