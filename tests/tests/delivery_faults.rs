//! Events get to the backend whatever happens to either side: made = stored + told as lost, each once.
//!
//! A feeder, which is what an agent does after its pipeline, delivers events of which each is known to a real backend.
//! What is printed is the table of what was made, stored, told as lost, and there twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nightjar_backend::store::record::{Reader, Record, Stored};
use nightjar_tests::{Backend, Feeder, Relay, backend_command, expect_all};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);

/// Events a second of feeders that are killed.
const RATE: u64 = 10_000;
/// How far back a killed feeder's mark is, on the average: it sets one each 50 ms, half of which has passed, and the rest is
/// what the spool takes to write all before it while other tests have the CPUs.
const MOST_UNMARKED_MS: u64 = 120;

/// A feeder and its backend in one folder.
fn pair(backend_args: &[&str], feeder_args: &[&str]) -> (TempDir, Backend, Feeder) {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::start_secure(&folder.path().join("backend"), backend_args);
    let feeder = Feeder::new(&folder, &backend, feeder_args);
    (folder, backend, feeder)
}

/// The same where a feeder was killed: what it had in memory is lost, in spans that are told. Of what it made so far the
/// spans have no more than it may have had in memory, at the rate of `RATE`, at each of so many kills.
#[track_caller]
fn expect_all_but_absences(name: &str, backend: &Backend, feeder: &Feeder, kills: u64) {
    let start = Instant::now();
    loop {
        let (made, stored) = (feeder.made(), backend.stored());
        let missing: Vec<_> = made.iter().filter(|(number, _)| !stored.events.contains_key(number)).collect();
        let is_told =
            |time: u64| stored.absences.iter().any(|(since, until)| (*since..=*until).contains(&time));
        let untold = missing.iter().filter(|(_, time)| !is_told(*time)).count();
        let twice = stored.events.values().filter(|times| **times > 1).count();
        assert_eq!(twice, 0, "{name}");
        if untold == 0 {
            println!(
                "{name:40} made {:8}  stored {:8}  lost in {} told absences {:6}  twice {twice}",
                made.len(),
                stored.events.len(),
                stored.absences.len(),
                missing.len(),
            );
            let told = made.iter().filter(|(_, time)| is_told(*time)).count() as u64;
            let most = kills * RATE * MOST_UNMARKED_MS / 1000;
            assert!(made.len() as u64 > kills * 100, "{name}: hardly one of its lives made something");
            assert!(told < most, "{name}: {told} events were made in times that were told, more than {most}");
            assert_eq!(backend.counts().missing, 0, "{name}: {}", backend.says(&["gaps"]));
            return;
        }
        assert!(
            start.elapsed() < 60 * SECOND,
            "{name}: {untold} of {} are neither there nor told",
            made.len()
        );
        thread::sleep(SECOND);
    }
}

#[test]
fn a_backend_that_is_away_for_a_minute_gets_all_when_it_is_back() {
    let (_folder, mut backend, mut feeder) = pair(&[], &["--rate", "5000"]);
    feeder.live_for(3 * SECOND);
    backend.kill();
    thread::sleep(60 * SECOND);
    backend.again();
    // It is tried again each ten seconds.
    thread::sleep(12 * SECOND);
    assert!(feeder.peak_resident() < 64 << 20, "{} bytes of memory", feeder.peak_resident());
    let said = feeder.end();
    assert!(said["events"].as_u64().expect("a count") > 250_000, "{said}");
    assert_eq!(expect_all("away for 60 s", &backend, &feeder), 0);
}

#[test]
fn a_backend_that_is_killed_every_three_seconds_has_each_event_once() {
    let (_folder, mut backend, mut feeder) = pair(&[], &["--rate", "5000"]);
    feeder.live();
    for _ in 0..20 {
        thread::sleep(3 * SECOND);
        backend.kill();
        backend.again();
    }
    feeder.end();
    // What waits when an agent ends is sent when it begins again.
    feeder.live_for(3 * SECOND);
    feeder.end();
    assert_eq!(expect_all("backend killed every 3 s", &backend, &feeder), 0);
}

#[test]
fn connections_that_are_reset_in_the_middle_of_a_batch_cost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::start_secure(&folder.path().join("backend"), &[]);
    let relay = Relay::breaking(&backend);
    let mut feeder = Feeder::new(&folder, &backend, &["--rate", "20000"]);
    feeder.url = relay.url();
    feeder.live();
    // Between two there is a pause, which may be ten seconds.
    let end = Instant::now() + 120 * SECOND;
    while relay.resets() <= 10 && Instant::now() < end {
        thread::sleep(SECOND);
    }
    relay.hold();
    thread::sleep(5 * SECOND);
    feeder.end();
    let resets = relay.resets();
    assert!(resets > 10, "{resets} connections were reset");
    feeder.live_for(SECOND);
    feeder.end();
    assert_eq!(expect_all(&format!("{resets} resets in mid-batch"), &backend, &feeder), 0);
}

#[test]
fn a_backend_that_hangs_is_left_and_found_again() {
    let (_folder, backend, mut feeder) = pair(&[], &["--rate", "5000"]);
    feeder.live_for(3 * SECOND);
    backend.signal(Signal::STOP);
    thread::sleep(35 * SECOND);
    backend.signal(Signal::CONT);
    thread::sleep(8 * SECOND);
    assert!(feeder.peak_resident() < 64 << 20, "{} bytes of memory", feeder.peak_resident());
    feeder.end();
    assert_eq!(expect_all("SIGSTOP of the backend for 35 s", &backend, &feeder), 0);
}

#[test]
fn an_agent_killed_at_two_hundred_moments_loses_only_what_it_tells() {
    let (_folder, backend, mut feeder) = pair(&[], &["--rate", &RATE.to_string()]);
    for life in 0..200_u64 {
        feeder.live_for(Duration::from_millis(40 + life * 7919 % 211));
        feeder.kill();
    }
    feeder.live_for(2 * SECOND);
    feeder.end();
    expect_all_but_absences("agent killed at 200 moments", &backend, &feeder, 200);
}

#[test]
fn both_killed_again_and_again_lose_only_what_is_told() {
    let (_folder, mut backend, mut feeder) = pair(&[], &["--rate", &RATE.to_string()]);
    for life in 0..30_u64 {
        feeder.live_for(Duration::from_millis(100 + life * 7919 % 400));
        if life % 2 == 0 {
            backend.kill();
            feeder.kill();
            backend.again();
        } else {
            feeder.kill();
            backend.kill();
            backend.again();
        }
    }
    feeder.live_for(3 * SECOND);
    feeder.end();
    expect_all_but_absences("both killed 30 times", &backend, &feeder, 30);
}

#[test]
fn a_full_spool_and_a_full_disk_cost_what_is_counted_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("agent");
    let disk = Tmpfs::mount(&state, "6m");
    let mut backend = Backend::start_secure(&folder.path().join("backend"), &[]);
    let mut feeder = Feeder::new(&folder, &backend, &["--rate", "20000", "--spool", "8388608"]);
    feeder.live_for(SECOND);
    backend.kill();
    thread::sleep(15 * SECOND);
    backend.again();
    // It is tried again each ten seconds.
    thread::sleep(12 * SECOND);
    let said = feeder.end();
    assert!(feeder.made().len() > 300_000, "{said}");
    let lost = expect_all("spool of 8 MiB on a tmpfs of 6 MiB", &backend, &feeder);
    assert!(lost > 10_000, "the disk was never full: {lost} lost");
    // What is lost is bulk first.
    let gaps = backend.says(&["gaps", "--json"]);
    assert!(gaps.contains(r#""lane":"bulk""#), "{gaps}");
    drop(disk);
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    const YEAR: i64 = 365 * 86_400;
    let (_folder, backend, mut feeder) = pair(&[], &["--rate", "5000"]);
    for clock in [0, -YEAR, YEAR, 0, -3600, 60] {
        feeder.live_with(&["--clock", &clock.to_string()]);
        thread::sleep(SECOND);
        feeder.end();
    }
    feeder.live_for(SECOND);
    feeder.end();
    assert_eq!(expect_all("clock that jumps by years", &backend, &feeder), 0);
}

#[test]
fn a_spool_that_is_damaged_costs_what_is_told() {
    let (_folder, mut backend, mut feeder) = pair(&[], &["--rate", "20000"]);
    let mut lost = 0;
    for life in 0..5 {
        backend.kill();
        feeder.live_for(2 * SECOND);
        feeder.end();
        damage(&feeder.state.join("spool"), life);
        backend.again();
        feeder.live_for(2 * SECOND);
        feeder.end();
        lost = expect_all(&format!("damaged spool, {}", life + 1), &backend, &feeder);
    }
    assert!(lost > 0, "nothing was damaged");
}

#[test]
fn a_backend_whose_disk_is_full_takes_all_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("backend");
    let disk = Tmpfs::mount(&data, "8m");
    let backend = Backend::start_secure(&data, &["--reserve", "2"]);
    let mut feeder = Feeder::new(&folder, &backend, &["--rate", "20000"]);
    feeder.live_for(20 * SECOND);
    let before = backend.counts();
    thread::sleep(2 * SECOND);
    assert_eq!(backend.counts(), before, "the disk is not full");
    disk.resize("256m");
    thread::sleep(8 * SECOND);
    feeder.end();
    feeder.live_for(2 * SECOND);
    feeder.end();
    assert_eq!(expect_all("backend on a tmpfs of 8 MiB, then more", &backend, &feeder), 0);
    drop(backend);
    drop(disk);
}

#[test]
fn a_data_directory_with_a_torn_file_is_put_in_order() {
    let (_folder, mut backend, mut feeder) = pair(&[], &["--rate", "10000"]);
    feeder.live_for(2 * SECOND);
    for round in 0..3_u8 {
        backend.kill();
        let last = newest(&backend.data.join("wal"));
        // As a crash leaves it: the beginning of a record of which the rest was not written.
        let mut log = OpenOptions::new().append(true).open(&last).expect("the log");
        let whole = fs::read(&last).expect("the log");
        let torn = &whole[..whole.len().min(40 + usize::from(round) * 100)];
        log.write_all(torn).expect("the log");
        backend.again();
        thread::sleep(2 * SECOND);
    }
    feeder.end();
    assert_eq!(expect_all("torn last file of the backend", &backend, &feeder), 0);
    let status = backend.says(&["status", "--json"]);
    assert!(!status.contains(r#""torn_bytes":0"#), "{status}");
}

#[test]
fn what_was_stored_and_is_gone_is_a_gap_that_is_listed() {
    let (_folder, mut backend, mut feeder) = pair(&[], &["--rate", "10000"]);
    feeder.live_for(3 * SECOND);
    feeder.end();
    expect_all("before the log is cut", &backend, &feeder);
    backend.kill();
    let newest_log = newest(&backend.data.join("wal"));
    let mut gone = batches(&newest_log);
    let length = fs::metadata(&newest_log).expect("the log").len();
    OpenOptions::new()
        .write(true)
        .open(&newest_log)
        .expect("the log")
        .set_len(length * 2 / 3)
        .expect("a cut");
    for left in batches(&newest_log).keys() {
        gone.remove(left);
    }
    assert!(gone.len() > 10, "{gone:?}");

    backend.again();
    feeder.live_for(3 * SECOND);
    feeder.end();
    let missed: u64 = gone.values().sum();
    let counts = backend.await_all(feeder.made().len() as u64 - missed);
    let (made, stored) = (feeder.made().len() as u64, backend.stored().events);
    let twice = stored.values().filter(|times| **times > 1).count();
    println!(
        "{:40} made {made:8}  stored {:8}  lost in {} missing batches {missed:6}  twice {twice}",
        "log cut by a third",
        stored.len(),
        counts.missing
    );
    assert_eq!((stored.len() as u64 + missed, twice), (made, 0));
    assert_eq!(counts.missing, gone.len() as u64);
    // Each of them is listed, and no other.
    let mut listed = BTreeSet::new();
    for line in backend.says(&["gaps", "--json"]).lines() {
        let gap: Value = serde_json::from_str(line).expect("JSON");
        let number = |name: &str| gap[name].as_u64().unwrap_or_else(|| panic!("{name} in {gap}"));
        assert_eq!(gap["told"], false, "{gap}");
        let lane = gap["lane"].as_str().expect("a lane").to_owned();
        listed.extend((number("from")..=number("to")).map(|sequence| (lane.clone(), sequence)));
    }
    assert_eq!(listed, gone.into_keys().collect());
}

/// The batches of a file of the backend's log, by lane and number, and how many events each has.
fn batches(log: &Path) -> BTreeMap<(String, u64), u64> {
    let file = fs::File::open(log).expect("the log");
    let length = file.metadata().expect("the log").len();
    let (mut reader, mut found) = (Reader::new(Arc::new(file), 0), BTreeMap::new());
    while let Some(record) = reader.next(length).expect("the log") {
        if let Record::Batch(Stored { batch: Some(batch), .. }) = record {
            let lane = batch.lane().as_str_name().trim_start_matches("LANE_").to_lowercase();
            found.insert((lane, batch.sequence), batch.count);
        }
    }
    found
}

#[test]
fn an_older_backend_directory_in_use_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::start_secure(folder.path(), &[]);
    let args = ["serve", "--listen", "127.0.0.1:0"];
    let second = backend_command(&backend.data, &args).output().expect("a program");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&backend.data.display().to_string()), "{said}");
}

/// Flips bits, cuts a file and leaves a foreign one, another way each time.
fn damage(spool: &Path, round: u64) {
    let mut files: Vec<_> =
        fs::read_dir(spool).expect("a spool").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
    files.sort();
    for (index, path) in files.iter().enumerate() {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
        let length = file.metadata().expect("a segment").len();
        if length == 0 {
            continue;
        }
        let at = (round * 7919 + index as u64 * 104_729) % length;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        byte[0] ^= 1 << (round % 8);
        file.write_all_at(&byte, at).expect("a byte");
    }
    if let Some(last) = files.last().filter(|_| round % 2 == 1) {
        let file = OpenOptions::new().write(true).open(last).expect("a segment");
        let length = file.metadata().expect("a segment").len();
        file.set_len(length * 3 / 4).expect("a cut");
    }
    fs::write(spool.join("notes.txt"), "not ours").expect("a foreign file");
}

fn newest(folder: &Path) -> std::path::PathBuf {
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    paths.max().expect("a file")
}

/// A file system in memory, of bounded size.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        fs::create_dir_all(at).expect("a folder");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "nightjar-test"])
            .arg(at)
            .status();
        assert!(status.expect("mount").success(), "a tmpfs needs root");
        Self(at)
    }

    fn resize(&self, size: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(self.0).status();
        assert!(status.expect("mount").success());
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}
