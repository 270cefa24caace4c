//! Many short processes: nothing is missing, and everything is in order.

use std::collections::HashMap;

use nightjar_tests::{Agent, Event, TRUE, skip_without_kernel, workload};

const SPAWNERS: u32 = 4;
const EACH: u32 = 1250;

#[test]
fn of_five_thousand_short_processes_none_is_missed() {
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.*", "--ring-size", "64MiB"]);
    let count = EACH.to_string();
    let spawners: Vec<_> = (0..SPAWNERS)
        .map(|number| {
            let marker = format!("nightjar-volume-{number}");
            workload(&["spawn-many", &count, TRUE, &marker]).start()
        })
        .collect();
    let ran: Vec<_> = spawners.into_iter().map(nightjar_tests::Running::succeed).collect();
    agent.catch_up();

    let mut of_process: HashMap<String, Vec<Event>> = HashMap::new();
    for kind in ["process.fork", "process.exec", "process.exit"] {
        for event in agent.events(kind) {
            of_process.entry(event.text("process.id").to_owned()).or_default().push(event);
        }
    }
    let runs: HashMap<(String, String), &Vec<Event>> = of_process
        .values()
        .filter_map(|events| {
            let exec = events.iter().find(|event| event.kind() == "process.exec")?;
            match exec.list("process.args").as_slice() {
                [TRUE, marker, number] => Some((((*marker).to_owned(), (*number).to_owned()), events)),
                _ => None,
            }
        })
        .collect();

    for (spawner, ran) in ran.iter().enumerate() {
        let said = ran.said();
        for (number, pid) in said["pids"].as_array().unwrap().iter().enumerate() {
            let key = (format!("nightjar-volume-{spawner}"), number.to_string());
            let events = runs.get(&key).unwrap_or_else(|| panic!("no exec of {key:?}, process {pid}"));
            expect_a_life(events, pid.as_u64().unwrap(), ran.pid);
        }
    }
    assert_eq!(runs.len(), (SPAWNERS * EACH) as usize);
    agent.stop().expect_nothing_lost();
}

/// Born, then run, then ended; of one process, made by `parent`.
fn expect_a_life(events: &[Event], pid: u64, parent: u32) {
    // By kind they are in that order already; by time they must be as well.
    let kinds: Vec<_> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["process.fork", "process.exec", "process.exit"], "{events:?}");
    assert!(events.is_sorted_by_key(|event| event.nanos("time")), "{events:?}");
    for event in events {
        assert_eq!(event.number("process.pid"), pid);
        assert_eq!(event.number("parent.pid"), u64::from(parent));
        assert_eq!(event.text("parent.comm"), "workload");
        assert_eq!(event.text("process.source"), "kernel");
    }
    // So that the order is that of the lines, not only of the time stamps.
    assert!(events.is_sorted_by_key(|event| event.line), "{events:?}");
}
