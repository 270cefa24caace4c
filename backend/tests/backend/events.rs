//! Stored events are shown.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    client::{Answer, Stream, batch, channel},
    process::{Backend, complaint, free_address, printed, run, spawn},
};

async fn put(stream: &mut Stream, agent: &str, sequence: u64) {
    stream.send(batch(agent, sequence, 3)).await;
    assert!(matches!(stream.answer().await, Answer::Acknowledged(acked) if acked == sequence));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_chosen_by_agent_time_kind_and_expression() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let backend = Backend::start(data, free_address(), &["--plaintext", "--reserve", "1"]);
    for agent in ["a", "b"] {
        let mut stream = Stream::open(channel(backend.address).await.unwrap(), agent).await.unwrap();
        put(&mut stream, agent, 1).await;
    }
    let count = |arguments: &[&str]| {
        let all = [&["events", "-o", "json"], arguments].concat();
        printed(data, &all).lines().count()
    };
    // Their time is 2027-01-15T08:00:00Z.
    for (arguments, expected) in [
        (&[][..], 10),
        (&["--agent", "a"], 5),
        (&["--agent", "a", "--agent", "b", "-n", "7"], 7),
        (&["--since", "2027-01-15T08:00:00Z"], 10),
        (&["--since", "2027-01-15T08:00:01Z"], 0),
        (&["--until", "2027-01-15T08:00:00Z"], 0),
        (&["--until", "2027-01-15T08:00:01Z", "--agent", "b"], 5),
        (&["--kind", "process.*", "--where", "id.endsWith(\"/0\")"], 2),
        (&["--kind", "file.*"], 0),
    ] {
        assert_eq!(count(arguments), expected, "{arguments:?}");
    }
    assert_eq!(printed(data, &["events"]).lines().count(), 10);
    assert!(complaint(data, &["events", "--where", "kind =="]).contains("--where: column "));
    assert!(complaint(data, &["events", "--agent", "nobody"]).contains("no agent"));
    assert!(complaint(data, &["events", "--since", "1h", "--until", "2h"]).contains("not before"));
    assert_eq!(run(data, &["events", "--since", "yesterday"]).status.code(), Some(2));
    // Nothing is opened, and so nothing dropped, where no backend runs.
    backend.stop();
    assert!(complaint(data, &["events"]).contains("no backend runs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_sees_an_event_within_a_second_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &["--plaintext", "--reserve", "1"]);
    let mut stream = Stream::open(channel(backend.address).await.unwrap(), "a").await.unwrap();
    put(&mut stream, "a", 1).await;
    let mut following = spawn(dir.path(), &["events", "--follow", "-o", "json"]);
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    (0..5).for_each(|_| drop(next()));
    for sequence in 2..12 {
        let start = Instant::now();
        put(&mut stream, "a", sequence).await;
        assert!(next().contains(&format!("a/{sequence}/0")));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        (0..4).for_each(|_| drop(next()));
    }
    let pid = rustix::process::Pid::from_child(&following);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(following.wait().unwrap().success());
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_after_a_damaged_file_are_shown_and_the_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let backend =
        Backend::start(data, free_address(), &["--plaintext", "--reserve", "1", "--log-file", "32"]);
    let mut stream = Stream::open(channel(backend.address).await.unwrap(), "a").await.unwrap();
    for sequence in 1..=9 {
        stream.send(batch("a", sequence, 2000)).await;
        assert!(matches!(stream.answer().await, Answer::Acknowledged(acked) if acked == sequence));
    }
    while backend.number("now", "partitions") == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let files =
        |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let hour = files(data.join("events")).remove(0);
    let mut partitions = files(hour);
    partitions.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    partitions.sort();
    let file = fs::OpenOptions::new().write(true).open(&partitions[0]).unwrap();
    file.write_all_at(&[0xff; 64], 4).unwrap();

    let output = run(data, &["events", "-o", "json"]);
    let (shown, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{told}");
    let name = partitions[0].file_stem().unwrap().to_str().unwrap();
    assert!(told.contains(name) && told.contains("gaps lists them"), "{told}");
    assert!(!shown.contains("a/1/0") && shown.contains("a/9/4"));
    let gaps = printed(data, &["gaps"]);
    assert!(gaps.contains(&format!("{name}.damaged")), "{gaps}");
    assert_eq!(printed(data, &["gaps", "--json"]).lines().count(), 1);

    let mut following = spawn(data, &["events", "--follow", "-o", "json"]);
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("a/9/4")));
    put(&mut stream, "a", 10).await;
    assert!(lines.any(|line| line.contains("a/10/4")));
    let pid = rustix::process::Pid::from_child(&following);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(following.wait().unwrap().code(), Some(1));
    backend.stop();
}
