//! Events get to the backend whatever happens to either side: made = stored + told as lost, each once.
//!
//! A feeder, which is what an agent does after its pipeline, delivers events of which each is known to a real backend.
//! What is printed is the table of what was made, stored, told as lost, and there twice.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{Backend, Feeder, backend_command};
use rustix::process::Signal;
use tempfile::TempDir;

const SECOND: Duration = Duration::from_secs(1);

/// A feeder and its backend in one folder.
fn pair(backend_args: &[&str], feeder_args: &[&str]) -> (TempDir, Backend, Feeder) {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::start(&folder.path().join("backend"), backend_args);
    let feeder = Feeder::new(&folder, &backend.url(), feeder_args);
    (folder, backend, feeder)
}

/// All that was made is stored or was told as lost, nothing is there twice, no gap is without an explanation. Gives how
/// many were told as lost.
#[track_caller]
fn expect_all(name: &str, backend: &Backend, feeder: &Feeder) -> u64 {
    let made = feeder.made();
    let counts = backend.await_all(made.len() as u64);
    let stored = backend.stored();
    let twice = stored.events.values().filter(|times| **times > 1).count();
    println!(
        "{name:40} made {:8}  stored {:8}  lost and told {:6}  twice {twice}",
        made.len(),
        stored.events.len(),
        counts.told_lost
    );
    let made: BTreeSet<u64> = made.into_iter().map(|(number, _)| number).collect();
    let foreign = stored.events.keys().filter(|number| !made.contains(number)).count();
    assert_eq!((twice, foreign), (0, 0), "{name}: stored twice, and never made");
    assert_eq!(stored.events.len() as u64 + counts.told_lost, made.len() as u64, "{name}");
    assert_eq!(counts.missing, 0, "{name}: gaps without an explanation: {}", backend.says(&["gaps"]));
    counts.told_lost
}

/// The same where a feeder was killed: what it had in memory is lost, in spans that are told.
#[track_caller]
fn expect_all_but_absences(name: &str, backend: &Backend, feeder: &Feeder) {
    let start = Instant::now();
    loop {
        let (made, stored) = (feeder.made(), backend.stored());
        let missing: Vec<_> = made.iter().filter(|(number, _)| !stored.events.contains_key(number)).collect();
        let is_told =
            |time: u64| stored.absences.iter().any(|(since, until)| (*since..=*until).contains(&time));
        let untold = missing.iter().filter(|(_, time)| !is_told(*time)).count();
        let twice = stored.events.values().filter(|times| **times > 1).count();
        assert_eq!(twice, 0, "{name}");
        assert!(
            stored.events.len() * 2 > made.len(),
            "{name}: of {} only {}",
            made.len(),
            stored.events.len()
        );
        if untold == 0 {
            println!(
                "{name:40} made {:8}  stored {:8}  in {} told absences {:6}  twice {twice}",
                made.len(),
                stored.events.len(),
                stored.absences.len(),
                missing.len(),
            );
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
    thread::sleep(3 * SECOND);
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
    feeder.live_for(SECOND);
    feeder.end();
    assert_eq!(expect_all("backend killed every 3 s", &backend, &feeder), 0);
}

#[test]
fn connections_that_are_reset_in_the_middle_of_a_batch_cost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::start(&folder.path().join("backend"), &[]);
    let wire = Breaking::start(&backend);
    let mut feeder = Feeder::new(&folder, &wire.url(), &["--rate", "20000"]);
    feeder.live_for(15 * SECOND);
    wire.hold();
    thread::sleep(5 * SECOND);
    feeder.end();
    let resets = wire.resets();
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
    let (_folder, backend, mut feeder) = pair(&[], &["--rate", "10000"]);
    for life in 0..200_u64 {
        feeder.live_for(Duration::from_millis(40 + life * 7919 % 211));
        feeder.kill();
    }
    feeder.live_for(2 * SECOND);
    feeder.end();
    expect_all_but_absences("agent killed at 200 moments", &backend, &feeder);
}

#[test]
fn both_killed_again_and_again_lose_only_what_is_told() {
    let (_folder, mut backend, mut feeder) = pair(&[], &["--rate", "10000"]);
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
    expect_all_but_absences("both killed 30 times", &backend, &feeder);
}

#[test]
fn a_full_spool_and_a_full_disk_cost_what_is_counted_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("agent");
    let disk = Tmpfs::mount(&state, "6m");
    let mut backend = Backend::start(&folder.path().join("backend"), &[]);
    let mut feeder = Feeder::new(&folder, &backend.url(), &["--rate", "20000", "--spool", "8388608"]);
    feeder.live_for(SECOND);
    backend.kill();
    thread::sleep(15 * SECOND);
    backend.again();
    thread::sleep(5 * SECOND);
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
    let backend = Backend::start(&data, &["--reserve", "2"]);
    let mut feeder = Feeder::new(&folder, &backend.url(), &["--rate", "20000"]);
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
    backend.kill();
    let last = newest(&backend.data.join("wal"));
    let length = fs::metadata(&last).expect("the log").len();
    OpenOptions::new().write(true).open(&last).expect("the log").set_len(length * 2 / 3).expect("a cut");
    backend.again();
    thread::sleep(3 * SECOND);
    feeder.end();
    let made = feeder.made().len();
    let stored = backend.stored().events.len();
    let counts = backend.counts();
    println!(
        "{:40} made {made:8}  stored {stored:8}  missing batches {}",
        "log cut by a third", counts.missing
    );
    assert!(stored < made && counts.missing > 0, "{counts:?}");
}

#[test]
fn an_older_backend_directory_in_use_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::start(folder.path(), &[]);
    let args = ["serve", "--plaintext", "--listen", "127.0.0.1:0"];
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

/// A way to the backend that is reset after some bytes, at another place each time.
struct Breaking {
    address: std::net::SocketAddr,
    resets: Arc<AtomicU64>,
    holds: Arc<AtomicU64>,
}

impl Breaking {
    fn start(backend: &Backend) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (resets, holds) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, held, to) = (Arc::clone(&resets), Arc::clone(&holds), backend.address);
        thread::spawn(move || {
            for (number, agent) in listener.incoming().enumerate() {
                let (Ok(agent), Ok(backend)) = (agent, TcpStream::connect(to)) else { continue };
                let (mut back, mut answers) =
                    (agent.try_clone().expect("a socket"), backend.try_clone().expect("a socket"));
                thread::spawn(move || io::copy(&mut answers, &mut back));
                let bytes = 20_000 + number as u64 * 7919 % 150_000;
                let (counted, held) = (Arc::clone(&counted), Arc::clone(&held));
                thread::spawn(move || forward(agent, backend, bytes, &held, &counted));
            }
        });
        Self { address, resets, holds }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on nothing is reset.
    fn hold(&self) {
        self.holds.store(1, Ordering::Relaxed);
    }

    fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }
}

/// Carries so many bytes, then resets both sides.
fn forward(mut from: TcpStream, mut to: TcpStream, mut bytes: u64, held: &AtomicU64, resets: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read) = from.read(&mut buffer) else { return };
        if read == 0 {
            let _gone = to.shutdown(Shutdown::Both);
            return;
        }
        let part = (read as u64).min(bytes);
        if held.load(Ordering::Relaxed) > 0 {
            if to.write_all(&buffer[..read]).is_err() {
                return;
            }
            continue;
        }
        let sent = to.write_all(&buffer[..usize::try_from(part).expect("it is a part of the buffer")]);
        bytes -= part;
        if sent.is_err() || bytes == 0 {
            resets.fetch_add(1, Ordering::Relaxed);
            // Lingering for no time is what makes the kernel reset it.
            for socket in [&from, &to] {
                let _gone = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
                let _gone = socket.shutdown(Shutdown::Both);
            }
            return;
        }
    }
}
