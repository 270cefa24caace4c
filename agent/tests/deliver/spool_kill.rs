//! The real thing: a process that is killed, a disk that is full, a directory that goes away.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nightjar::deliver::spool::{
    Batch, BootId, Content, Lane, Limits, OpenError, Position, Reader, Reason, Refused, Spool,
};

const DIRECTORY: &str = "NIGHTJAR_SPOOL_TEST";

fn limits(bytes: u64) -> Limits {
    Limits { bytes, sync_every: Duration::from_millis(20) }
}

fn open(directory: &Path, bytes: u64) -> (Spool, Reader) {
    let (spool, reader, _) = Spool::open(directory, BootId([1; 16]), limits(bytes)).unwrap();
    (spool, reader)
}

fn batch(name: u64, size: usize) -> Batch {
    let mut events = name.to_be_bytes().to_vec();
    events.resize(size.max(8), 0x5a);
    Batch {
        first_time: name,
        last_time: name,
        count: 1 + name % 7,
        uncompressed_bytes: 1,
        events: events.into(),
    }
}

/// Takes everything as a backend would: names of batches, events in them, events that are told as lost.
fn drain(reader: &mut Reader, lane: Lane) -> (Vec<u64>, u64, u64) {
    let (mut names, mut events, mut lost) = (Vec::new(), 0, 0);
    let mut at = reader.acknowledged(lane);
    while let Some(entry) = reader.next_after(lane, at) {
        match entry.content {
            Content::Events(batch) => {
                names.push(u64::from_be_bytes(batch.events[..8].try_into().unwrap()));
                events += batch.count;
            }
            Content::Lost(told) => lost += told.events,
        }
        at = entry.at;
    }
    reader.acknowledge(lane, at);
    (names, events, lost)
}

/// Not a test by itself: what the next one starts and kills.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (spool, mut reader) = open(Path::new(&directory), 256 << 10);
    let first = spool.stats().lanes[1].unacknowledged;
    let _keeper = nightjar::deliver::spool::Keeper::start(spool.clone()).unwrap();
    // Names go on where the last life ended, which the parent says.
    let mut name: u64 = std::env::var("FIRST").unwrap().parse().unwrap();
    let mut at = reader.acknowledged(Lane::Bulk);
    println!("start {first}");
    loop {
        println!("try {name}");
        if spool.append(Lane::Bulk, &batch(name, 40 + usize::try_from(name * 7919 % 9000).unwrap())).is_ok() {
            println!("done {name}");
        }
        name += 1;
        // Given out and never acknowledged: the parent is the backend.
        at = reader.next_after(Lane::Bulk, at).map_or(at, |entry| entry.at);
    }
}

#[test]
fn a_process_killed_at_200_random_moments_loses_nothing_that_it_appended() {
    let directory = tempfile::tempdir().unwrap();
    let mut name = 1;
    let mut tried = 0;
    let mut offered: BTreeMap<u64, u64> = BTreeMap::new();
    let mut doubtful: Vec<u64> = Vec::new();
    let (mut names, mut events, mut lost) = (Vec::new(), 0, 0);
    for life in 0_u64..200 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "spool_kill::child_that_appends_until_it_is_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(DIRECTORY, directory.path())
            .env("FIRST", name.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It runs for a random time after its first append.
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            let mut killed = None;
            while let Some(Ok(line)) = lines.next() {
                if line.contains("start ") {
                    killed = Some(Instant::now());
                }
                seen.push(line);
                if killed.is_some_and(|since| since.elapsed() > Duration::from_micros(life * 7919 % 23_000)) {
                    child.kill().unwrap();
                    killed = Some(Instant::now() + Duration::from_mins(1));
                }
            }
            child.wait().unwrap();
            seen
        });
        for line in reader.join().unwrap() {
            let number = |line: &str| line.trim().parse::<u64>().unwrap();
            if let Some((_, text)) = line.split_once("try ") {
                tried = number(text);
                name = tried + 1;
                doubtful.push(tried);
            } else if let Some((_, text)) = line.split_once("done ") {
                doubtful.pop();
                offered.insert(number(text), batch(number(text), 0).count);
            }
        }
        // Some lives are not drained, so that it fills up.
        if life % 5 == 4 {
            let (_spool, mut reader) = open(directory.path(), 256 << 10);
            let (more, more_events, more_lost) = drain(&mut reader, Lane::Bulk);
            names.extend(more);
            events += more_events;
            lost += more_lost;
        }
    }
    assert!(tried > 200, "{tried}");
    assert!(names.is_sorted_by(|one, next| one < next), "in order, and nothing twice");
    let certain: u64 = offered.values().sum();
    let perhaps: u64 = doubtful.iter().map(|name| batch(*name, 0).count).sum();
    println!(
        "{tried} batches, {certain} events appended, {perhaps} perhaps, {events} out, {lost} counted as lost"
    );
    assert!(
        (certain..=certain + perhaps).contains(&(events + lost)),
        "{certain} + {perhaps}: {events} + {lost}"
    );
}

#[test]
fn a_second_agent_is_told_who_has_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path(), 1 << 20);
    let second = Spool::open(directory.path(), BootId([1; 16]), limits(1 << 20));
    let OpenError::Locked { holder, .. } = second.unwrap_err();
    assert_eq!(holder, format!("process {}", std::process::id()));
}

#[test]
fn a_directory_deleted_under_it_is_made_again_and_what_was_in_it_is_counted() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("spool");
    let (spool, mut reader) = open(&directory, 1 << 20);
    for name in 1..=10 {
        spool.append(Lane::Bulk, &batch(name, 100)).unwrap();
    }
    fs::remove_dir_all(&directory).unwrap();
    spool.append(Lane::Bulk, &batch(11, 100)).unwrap();
    let (names, events, lost) = drain(&mut reader, Lane::Bulk);
    assert_eq!(names, [11]);
    assert_eq!((events, lost), (batch(11, 0).count, (1..=10).map(|name| batch(name, 0).count).sum()));
    assert_eq!(spool.stats().faults.recreated, 1);
}

#[test]
fn a_directory_moved_away_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("spool");
    let (spool, mut reader) = open(&directory, 1 << 20);
    spool.append(Lane::Critical, &batch(1, 100)).unwrap();
    fs::rename(&directory, parent.path().join("elsewhere")).unwrap();
    spool.keep();
    spool.append(Lane::Critical, &batch(2, 100)).unwrap();
    let (names, _, lost) = drain(&mut reader, Lane::Critical);
    assert_eq!((names, lost), (vec![2], batch(1, 0).count));
}

#[test]
fn a_directory_whose_files_are_deleted_is_still_locked() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _reader) = open(directory.path(), 1 << 20);
    for file in ["marks", "lock"] {
        fs::remove_file(directory.path().join(file)).unwrap();
        spool.keep();
        let second = Spool::open(directory.path(), BootId([1; 16]), limits(1 << 20));
        assert!(matches!(second, Err(OpenError::Locked { .. })), "{file} was deleted");
    }
    assert_eq!(spool.stats().faults.locked_out, 0);
}

#[test]
fn nothing_is_written_to_a_directory_that_another_agent_has_put_in_the_place_of_ours() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("spool");
    let (spool, mut reader) = open(&directory, 1 << 20);
    spool.append(Lane::Bulk, &batch(1, 100)).unwrap();
    fs::rename(&directory, parent.path().join("elsewhere")).unwrap();
    let (other, mut its_reader) = open(&directory, 1 << 20);
    other.append(Lane::Bulk, &batch(100, 100)).unwrap();

    assert_eq!(spool.append(Lane::Bulk, &batch(2, 100)), Err(Refused(Reason::Unwritable)));
    let stats = spool.stats();
    assert_eq!((stats.is_locked_out, stats.is_ready, stats.faults.locked_out), (true, false, 1));
    assert_eq!(reader.next_after(Lane::Bulk, Position::default()), None);
    assert!(spool.sync_now().is_err());
    assert_eq!(drain(&mut its_reader, Lane::Bulk).0, [100]);

    drop((other, its_reader));
    spool.keep();
    assert!(!spool.stats().is_locked_out);
    spool.append(Lane::Bulk, &batch(3, 100)).unwrap();
    let (names, _, lost) = drain(&mut reader, Lane::Bulk);
    assert_eq!((names, lost), (vec![3], batch(1, 0).count + batch(2, 0).count));
    assert_eq!(spool.stats().lanes[1].lost.iter().sum::<u64>(), lost);
    spool.sync_now().unwrap();
}

#[test]
fn an_unusable_directory_is_no_error_and_what_was_refused_is_told_later() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("file/spool");
    fs::write(parent.path().join("file"), "in the way").unwrap();
    let (spool, mut reader) = open(&directory, 1 << 20);
    assert!(spool.append(Lane::Bulk, &batch(1, 100)).is_err());
    fs::remove_file(parent.path().join("file")).unwrap();
    spool.keep();
    spool.append(Lane::Bulk, &batch(2, 100)).unwrap();
    let (names, _, lost) = drain(&mut reader, Lane::Bulk);
    assert_eq!((names, lost), (vec![2], batch(1, 0).count));
}

#[test]
fn when_it_is_full_bulk_goes_first_and_the_loss_is_one_record_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), 256 << 10);
    for name in 1..=20 {
        spool.append(Lane::Critical, &batch(name, 1000)).unwrap();
    }
    for name in 1..=2000 {
        spool.append(Lane::Bulk, &batch(name, 1000)).unwrap();
    }
    assert!(spool.stats().bytes <= 256 << 10);
    assert_eq!(drain(&mut reader, Lane::Critical).0, (1..=20).collect::<Vec<_>>());
    let first = reader.next_after(Lane::Bulk, Position::default()).unwrap();
    let Content::Lost(loss) = first.content else { panic!("{first:?}") };
    assert_eq!((loss.first_sequence, loss.last_sequence), (1, first.at.sequence));
    assert_eq!((loss.first_time, loss.last_time), (1, loss.last_sequence));
    assert_eq!(loss.events, (1..=loss.last_sequence).map(|name| batch(name, 0).count).sum::<u64>());
    let (names, ..) = drain(&mut reader, Lane::Bulk);
    assert_eq!(names, (loss.last_sequence + 1..=2000).collect::<Vec<_>>());
}

/// Needs a tmpfs of a few MiB, which a mount namespace of its own gives to root.
#[test]
fn a_full_tmpfs_costs_counted_events_and_no_more() {
    if let Some(directory) = std::env::var_os("NIGHTJAR_TMPFS_TEST") {
        return on_a_full_disk(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=2m none \"$NIGHTJAR_TMPFS_TEST\" || exit 77; exec \"$0\" \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "spool_kill::a_full_tmpfs_costs_counted_events_and_no_more", "--nocapture"])
        .env("NIGHTJAR_TMPFS_TEST", directory.path())
        .status();
    match status.as_ref().map(std::process::ExitStatus::code) {
        Ok(Some(0)) => {}
        Ok(Some(1 | 77)) | Err(_) if std::env::var_os("CI").is_none() && !is_root() => {
            println!("skipped: mounting a tmpfs takes root");
        }
        other => panic!("{other:?}"),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn on_a_full_disk(directory: &Path) {
    let spool_directory = directory.join("spool");
    let (spool, mut reader) = open(&spool_directory, 8 << 20);
    let (mut offered, mut refused) = (0, 0);
    let mut append = |name: u64| {
        let batch = batch(name, 20_000);
        offered += batch.count;
        refused += u64::from(spool.append(Lane::Bulk, &batch).is_err());
    };
    (1..=200).for_each(&mut append);
    // Others take all that is left, and what is freed: nothing can be written at all.
    let ballast = directory.join("ballast");
    let _ = fs::write(&ballast, vec![1; 4 << 20]);
    (201..=400).for_each(&mut append);
    fs::remove_file(&ballast).unwrap();
    (401..=420).for_each(&mut append);
    let (names, events, lost) = drain(&mut reader, Lane::Bulk);
    println!(
        "{offered} offered, {refused} batches refused, {events} out, {lost} lost: {:?}",
        spool.stats().faults
    );
    assert!(names.is_sorted_by(|one, next| one < next));
    assert_eq!(names.last(), Some(&420));
    assert_eq!(events + lost, offered);
}

#[test]
fn a_clock_that_is_set_back_does_not_make_old_batches_of_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let far = u64::MAX / 4;
    // As a boot in a far future left it.
    fs::write(directory.path().join(format!("bulk-{far:016x}-0000000000000001.spool")), b"").unwrap();
    let (spool, _reader) = open(directory.path(), 1 << 20);
    let at =
        spool.append(Lane::Bulk, &Batch { events: Bytes::from_static(b"x"), count: 1, ..Batch::default() });
    assert_eq!(at.unwrap().epoch, far + 1);
}
