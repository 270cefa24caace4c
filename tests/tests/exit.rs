//! `process.exit`: how it ended and what it used.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{os::unix::process::ExitStatusExt, time::Duration};

use nightjar_tests::{
    Event, Ran, exec, exit, folder_for_all, run, skip_without_kernel, workload, workload_path,
};

fn exits_of(ran: &Ran) -> Vec<Event> {
    ran.events().into_iter().filter(|event| event.kind() == "process.exit").collect()
}

fn assert_near(found: u64, expected: u64, what: &str) {
    let tolerance = expected * 15 / 100;
    assert!(found.abs_diff(expected) <= tolerance, "{what}: {found} is not within 15 % of {expected}");
}

fn cpu_time(ran: &Ran) -> u64 {
    nanos(ran.ended.user_time + ran.ended.system_time)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

#[test]
fn the_code_is_that_which_wait_gives() {
    skip_without_kernel!();
    for code in [0, 1, 77, 255] {
        let ran = workload(&["exit", &code.to_string()]).finish();
        assert_eq!(ran.ended.status.code(), Some(code));
        ran.expect_event(exit().code(code.unsigned_abs()).without("exit.core_dumped"));
    }
}

#[test]
fn a_signal_that_ends_a_process_is_named() {
    skip_without_kernel!();
    for (signal, name) in [
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGUSR1, "SIGUSR1"),
        // The first two that the C library does not keep for itself.
        (34, "SIGRTMIN+2"),
    ] {
        let ran = workload(&["kill-self", &signal.to_string()]).finish();
        assert_eq!(ran.ended.status.signal(), Some(signal));
        ran.expect_event(exit().with("exit.signal", name).without("exit.code").without("exit.core_dumped"));
    }
}

#[test]
fn a_core_dump_is_told_as_wait_tells_it() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let ran = run(workload_path()).arg("abort-with-core").in_folder(folder.path()).finish();
    assert_eq!(ran.ended.status.signal(), Some(libc::SIGABRT));
    ran.expect_event(
        exit()
            .with("exit.signal", "SIGABRT")
            .with_or_default("exit.core_dumped", ran.ended.status.core_dumped()),
    );
}

#[test]
fn the_time_on_a_processor_is_that_which_was_burnt() {
    skip_without_kernel!();
    let ran = workload(&["burn", "300"]).succeed();
    let event = ran.expect_event(exit());
    let cpu = event.number("exit.cpu_time_ns");
    assert!(cpu >= 285_000_000, "{cpu}");
    assert_near(cpu, cpu_time(&ran), "time on a processor");
    let split = |name: &str| event.get(name).map_or(0, |_| event.number(name));
    let sum = split("exit.user_time_ns") + split("exit.system_time_ns");
    // Each part is rounded down.
    assert!(sum <= cpu && cpu - sum <= 2, "{sum} of {cpu}");
    // By the ticks of the scheduler: where there are few, a tick more or less is much.
    let apart = split("exit.user_time_ns").abs_diff(nanos(ran.ended.user_time));
    assert!(apart < cpu / 5, "{event}, and wait says {:?}", ran.ended);
}

#[test]
fn the_time_of_threads_that_ended_before_counts() {
    skip_without_kernel!();
    let ran = workload(&["burn-in-threads", "3", "100"]).succeed();
    let event = ran.expect_event(exit());
    let cpu = event.number("exit.cpu_time_ns");
    assert!(cpu >= 285_000_000, "{cpu}");
    assert_near(cpu, cpu_time(&ran), "time on a processor");
}

#[test]
fn the_run_time_is_from_the_start_to_the_end() {
    skip_without_kernel!();
    let ran = workload(&["burn", "200"]).succeed();
    let event = ran.expect_event(exit());
    let run_time = event.number("exit.run_time_ns");
    assert!(run_time >= 200_000_000, "{run_time}");
    let start = event.nanos("process.start_time");
    let between = u64::try_from(event.nanos("time") - start).unwrap();
    assert_near(run_time, between, "time from start to end");
    let exec = ran.expect_event(exec());
    let exec_start = exec.nanos("process.start_time");
    // The wall clock is looked at every second: it may be set in between.
    assert!((exec_start - start).abs() < 1_000_000, "{exec_start} {start}");
}

#[test]
fn the_peak_of_memory_is_that_which_wait_gives() {
    skip_without_kernel!();
    let ran = workload(&["touch", "64"]).succeed();
    let event = ran.expect_event(exit());
    let peak = event.number("exit.peak_resident_bytes");
    assert!(peak >= 64 << 20, "{peak}");
    assert_near(peak, ran.ended.peak_resident_bytes, "resident memory");
}

#[test]
fn a_process_whose_leader_ends_first_ends_once_and_last() {
    skip_without_kernel!();
    let ran = workload(&["leader-first", "5"]).finish();
    assert_eq!(ran.ended.status.code(), Some(5));
    let exits = exits_of(&ran);
    let [event] = exits.as_slice() else { panic!("{exits:?}") };
    assert_eq!(event.number("exit.code"), 5);
    assert_eq!(event.number("process.pid"), u64::from(ran.pid));
    assert_ne!(event.number("process.tid"), u64::from(ran.pid));
    assert!(event.arguments().ends_with(&[b"leader-first".to_vec(), b"5".to_vec()]));
}

#[test]
fn a_process_with_many_threads_ends_once() {
    skip_without_kernel!();
    let ran = workload(&["threads", "20"]).succeed();
    assert_eq!(exits_of(&ran).len(), 1);
}
