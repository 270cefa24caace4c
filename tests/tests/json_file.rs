//! Events in a file: rotation, sudden ends, full disks and odd paths.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use nightjar_tests::{
    Service, Session, TRUE, expect_events, folder_for_all, instance, nightjar, nightjar_path, quiet, skip,
    skip_without_kernel, until, workload_path,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Some 10 KB of events come of each program with this argument: its exec and its exit.
const LONG: usize = 4000;

/// One test at a time: what one of them floods the others with is much for agents that are built for tests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder with a configuration, and with the files of one agent.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(configuration: &str) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.configure(configuration);
        files
    }

    fn configure(&self, configuration: &str) {
        // To look for secrets in so much is a lot of work, and to load what nobody here asks for takes seconds.
        let configuration =
            format!("{configuration}redact: {{enabled: false}}\nkinds: [\"process.*\", \"!process.fork\"]\n");
        fs::write(self.folder.path().join("nightjar.yaml"), configuration).unwrap();
    }

    fn current(&self) -> PathBuf {
        self.folder.path().join("events.json")
    }

    fn start(&self) -> Service {
        let instance = instance();
        let mut command = nightjar(["run", "--instance", &instance, "--ring-size", "64MiB", "--json"]);
        command.arg(self.current()).arg("--config").arg(self.folder.path().join("nightjar.yaml"));
        Service::of(command, &instance)
    }

    /// Waits until all that happened so far was written: what comes later is written later.
    fn catch_up(&self) {
        let pid = quiet(&[TRUE, "nightjar-catches-up"]);
        let event = format!("\"pid\":{pid},");
        let is_written = |text: String| text.contains(&event);
        until("all is written", || fs::read_to_string(self.current()).is_ok_and(is_written).then_some(()));
    }

    /// Names of all files of events, the oldest first, the current one last.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // `-` is before `.`.
        let names: BTreeSet<_> = names.filter(|name| name != "nightjar.yaml").collect();
        names.into_iter().collect()
    }

    fn rotated(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.starts_with("events-")).collect()
    }

    /// What all files have, in order. Each ends with a whole line, and nobody else can read it.
    fn text(&self) -> String {
        self.names().iter().map(|name| self.text_of(name)).collect()
    }

    fn text_of(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
        let text = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => decompressed("gzip", &path),
            Some("zst") => decompressed("zstd", &path),
            _ => fs::read_to_string(path).unwrap(),
        };
        assert!(text.is_empty() || text.ends_with('\n'), "{name} ends in the middle of a line");
        text
    }
}

fn decompressed(program: &str, path: &Path) -> String {
    let output = Command::new(program).arg("-dc").stdin(File::open(path).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", path.display());
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a name has this extension.
fn is_a(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|its| its == extension)
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// How often the last argument of the programs with this marker is in the execs of these lines, all of which are
/// events.
fn numbers(lines: &str, marker: &str) -> BTreeMap<u32, usize> {
    expect_events(lines);
    let mut numbers = BTreeMap::new();
    for line in lines.lines().filter(|line| line.contains(marker)) {
        let event: Value = serde_json::from_str(line).unwrap();
        let args = event["process"]["args"].as_array().unwrap();
        if event["kind"] == "process.exec" && args.get(1).is_some_and(|arg| arg == marker) {
            *numbers.entry(args.last().unwrap().as_str().unwrap().parse().unwrap()).or_default() += 1;
        }
    }
    numbers
}

/// Each event is there once, whichever program it is of.
fn expect_no_event_twice(lines: &str) {
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(seen.insert(event["id"].as_str().unwrap().to_owned()), "twice: {line}");
    }
}

/// A word that no other program that runs the same tests has.
fn marker(word: &str) -> String {
    format!("{word}-{}", std::process::id())
}

/// Runs this many programs, with their numbers for last arguments.
fn run_many(count: u32, marker: &str) {
    let (program, long) = (workload_path(), "x".repeat(LONG));
    quiet(&[program.to_str().unwrap(), "spawn-many", &count.to_string(), TRUE, marker, &long]);
}

fn expect_all_once(found: &BTreeMap<u32, usize>, count: u32) {
    let wrong: Vec<_> = (0..count).filter(|n| found.get(n) != Some(&1)).collect();
    assert!(wrong.is_empty() && found.len() == count as usize, "not there once: {wrong:?}");
}

fn rotated_under_load(compress: &str, extension: &str) {
    const PROGRAMS: u32 = 350;
    let files = Files::new(&format!("json: {{rotate_size: 1MiB, keep: 100, compress: {compress}}}\n"));
    let agent = files.start();
    run_many(PROGRAMS, &marker("nightjar-rotates"));
    files.catch_up();
    until("all but the current file is compressed", || {
        let rotated = files.rotated();
        (rotated.len() >= 3 && rotated.iter().all(|name| is_a(name, extension))).then_some(())
    });
    let status = agent.status();
    assert_eq!(status["outputs"][0]["kept_files"], files.rotated().len(), "{status}");
    agent.end_well(Signal::TERM);

    let names = files.names();
    assert!(names.last().unwrap() == "events.json" && names.len() == files.rotated().len() + 1, "{names:?}");
    for name in &files.rotated() {
        let length = files.text_of(name).len();
        assert!((1 << 19..=1 << 20).contains(&length), "{name} has {length} bytes");
    }
    let text = files.text();
    expect_all_once(&numbers(&text, &marker("nightjar-rotates")), PROGRAMS);
    expect_no_event_twice(&text);
}

#[test]
fn a_file_is_rotated_under_load_without_compression() {
    skip_without_kernel!();
    let _alone = alone();
    rotated_under_load("none", "json");
}

#[test]
fn a_file_is_rotated_under_load_and_compressed_by_gzip() {
    skip_without_kernel!();
    let _alone = alone();
    if !is_installed("gzip") {
        return skip("gzip is not installed");
    }
    rotated_under_load("gzip", "gz");
}

#[test]
fn a_file_is_rotated_under_load_and_compressed_by_zstd() {
    skip_without_kernel!();
    let _alone = alone();
    if !is_installed("zstd") {
        return skip("zstd is not installed");
    }
    rotated_under_load("zstd", "zst");
}

#[test]
fn no_more_files_are_kept_than_asked_for() {
    const PROGRAMS: u32 = 450;
    skip_without_kernel!();
    let _alone = alone();
    let files = Files::new("json: {rotate_size: 1MiB, keep: 2, compress: none}\n");
    let agent = files.start();
    run_many(PROGRAMS, &marker("nightjar-keeps"));
    files.catch_up();
    until("two files are kept", || (files.rotated().len() == 2).then_some(()));
    agent.end_well(Signal::TERM);
    // The latest are there, without a gap.
    let found = numbers(&files.text(), &marker("nightjar-keeps"));
    let first = *found.keys().next().unwrap();
    assert!(first > 0 && first < PROGRAMS - 100, "{first}");
    assert_eq!(found, (first..PROGRAMS).map(|n| (n, 1)).collect());
}

#[test]
fn a_rotation_that_is_configured_while_it_runs_counts_from_then_on() {
    skip_without_kernel!();
    let _alone = alone();
    let files = Files::new("json: {rotate_size: 0}\n");
    let agent = files.start();
    run_many(200, &marker("nightjar-grows"));
    let size = || files.current().metadata().unwrap().len();
    until("the file is larger than it may be soon", || (size() > 3 << 19).then_some(()));
    assert_eq!(files.rotated(), [""; 0]);
    files.configure("json: {rotate_size: 1MiB, keep: 5}\n");
    agent.signal(Signal::HUP);
    agent.await_message("READY=1");
    until("it is rotated", || {
        quiet(&[TRUE]);
        (files.rotated().len() == 1).then_some(())
    });
    run_many(20, &marker("nightjar-goes-on"));
    agent.end_well(Signal::TERM);
    let text = files.text();
    expect_all_once(&numbers(&text, &marker("nightjar-grows")), 200);
    expect_all_once(&numbers(&text, &marker("nightjar-goes-on")), 20);
}

/// Programs that are run one after another, each with a number of its own, until this is dropped.
struct Flood<'a> {
    started: &'a AtomicU32,
    ends: &'a AtomicBool,
}

impl Flood<'_> {
    fn during(of: impl FnOnce(&Flood<'_>)) -> u32 {
        let (started, ends) = (AtomicU32::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (marker, long) = (marker("nightjar-floods"), "x".repeat(LONG));
                    while !ends.load(Ordering::Relaxed) {
                        let number = started.fetch_add(1, Ordering::Relaxed).to_string();
                        quiet(&[TRUE, &marker, &long, &number]);
                    }
                });
            }
            of(&Flood { started: &started, ends: &ends });
        });
        started.into_inner()
    }

    /// Waits until this many more have started.
    fn more(&self, count: u32) {
        let from = self.started.load(Ordering::Relaxed);
        until("programs run", || (self.started.load(Ordering::Relaxed) - from >= count).then_some(()));
    }
}

impl Drop for Flood<'_> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_agent_that_is_killed_again_and_again_leaves_whole_lines_and_nothing_twice() {
    const KILLS: u32 = 5;
    skip_without_kernel!();
    let _alone = alone();
    let files = Files::new("json: {rotate_size: 1MiB, keep: 1000, compress: gzip}\n");
    let started = Flood::during(|flood| {
        for _ in 0..KILLS {
            let agent = files.start();
            flood.more(150);
            let end = agent.end(Signal::KILL);
            assert!(!end.output.status.success());
            // The current file may end in the middle of a line; no other does.
            for name in files.rotated().iter().filter(|name| is_a(name, "json")) {
                let _whole = files.text_of(name);
            }
        }
    });
    let agent = files.start();
    files.catch_up();
    // What was being compressed is begun anew.
    until("all but the current file is compressed", || {
        let is_done = |name: &String| name == "events.json" || is_a(name, "gz");
        files.names().iter().all(is_done).then_some(())
    });
    agent.end_well(Signal::TERM);
    let text = files.text();
    expect_no_event_twice(&text);
    let found = numbers(&text, &marker("nightjar-floods"));
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    assert!(found.len() > 300 && found.len() <= started as usize, "{} of {started}", found.len());
    assert!(files.rotated().len() >= 3, "{:?}", files.names());
    assert!(files.names().iter().all(|name| !name.starts_with('.')), "{:?}", files.names());
}

#[test]
fn what_a_kill_left_of_a_line_is_cut_off_and_told() {
    skip_without_kernel!();
    let _alone = alone();
    let files = Files::new("");
    fs::write(files.current(), "{\"kept\":1}\n{\"torn\":").unwrap();
    fs::set_permissions(files.current(), fs::Permissions::from_mode(0o600)).unwrap();
    let end = files.start().end_well(Signal::TERM);
    assert!(end.complaints().contains("8 bytes of an unfinished event were cut off"), "{}", end.complaints());
    let text = fs::read_to_string(files.current()).unwrap();
    expect_events(text.strip_prefix("{\"kept\":1}\n").unwrap());
}

/// An agent that writes to a small file system of its own, in a mount namespace that ends with it.
struct OnSmallDisk {
    agent: Service,
    /// The folder as it is seen from here.
    folder: PathBuf,
}

impl OnSmallDisk {
    fn start(place: &TempDir) -> Self {
        let instance = instance();
        // One process all along, which ends with this one.
        let script = "mount -t tmpfs -o size=1m,mode=700 tmpfs \"$1\" && shift && exec setpriv --pdeathsig KILL \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(place.path()).arg(nightjar_path());
        // Of files and sockets others on this host make some at any time, which would be counted as well.
        command.args([
            "run",
            "--instance",
            &instance,
            "--ring-size",
            "64MiB",
            "--kind",
            "process.*",
            "--json",
        ]);
        command.arg(place.path().join("events.json")).stdin(Stdio::null());
        let agent = Service::of(command, &instance);
        let below = place.path().strip_prefix("/").unwrap();
        let folder = Path::new("/proc").join(agent.pid().to_string()).join("root").join(below);
        Self { agent, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn fill(&self) {
        let mut filler = File::create(self.file("filler")).unwrap();
        let block = vec![b'x'; 1 << 16];
        while filler.write_all(&block).is_ok() {}
        while filler.write_all(b"x").is_ok() {}
    }

    fn output(&self) -> Value {
        self.agent.status()["outputs"][0].clone()
    }
}

fn is_loss_by_full_disk(line: &str) -> bool {
    line.contains("\"telemetry.loss\"") && line.contains("\"disk_full\"")
}

/// Events that were lost as the disk was full, as all `telemetry.loss` of these lines say.
fn told_lost(lines: &str) -> u64 {
    let told = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let losses = event["telemetry"]["losses"].as_array().unwrap().clone();
        let of_disk =
            losses.into_iter().filter(|loss| loss["reason"] == "disk_full" && loss["hook"] == "agent");
        of_disk.map(|loss| loss["count"].as_u64().unwrap()).sum::<u64>()
    };
    lines.lines().filter(|line| is_loss_by_full_disk(line)).map(told).sum()
}

/// Whether these lines tell of all events that were lost, but for those that told of losses: they may be lost as well,
/// and are as many as `seen` has.
fn is_all_told(lines: &str, seen: &str, lost: u64) -> bool {
    let tellers = seen.lines().filter(|line| is_loss_by_full_disk(line)).count() as u64;
    told_lost(lines) + tellers >= lost
}

#[test]
fn a_full_disk_costs_events_which_are_counted_and_the_agent_goes_on() {
    skip_without_kernel!();
    let _alone = alone();
    if let Some(missing) = ["unshare", "setpriv"].into_iter().find(|program| !is_installed(program)) {
        return skip(&format!("{missing} is not installed"));
    }
    let place = tempfile::tempdir().unwrap();
    let disk = OnSmallDisk::start(&place);
    let agent = &disk.agent;
    let args = ["tail", "--instance", agent.instance(), "-o", "json", "--since", "1m"];
    let tail = Session::start(nightjar(args));
    quiet(&[TRUE, "nightjar-with-room"]);
    let text = || fs::read_to_string(disk.file("events.json")).unwrap();
    until("there is room", || text().contains("nightjar-with-room").then_some(()));

    disk.fill();
    let long = "x".repeat(LONG);
    until("the disk is full, and status says so", || {
        quiet(&[TRUE, "nightjar-without-room", &long]);
        let output = disk.output();
        let failing = output["failing"].as_str()?.to_owned();
        assert!(failing.contains("No space left"), "{output}");
        assert!(output["failing_since"].is_string(), "{output}");
        assert_eq!(output["lost_by_reason"][0]["reason"], "disk_full", "{output}");
        (output["lost"].as_u64()? > 10).then_some(())
    });
    let code = nightjar(["status", "--instance", agent.instance()]).output().unwrap().status.code();
    assert_eq!(code, Some(3));
    tail.await_output("the loss is told to who watches", |text| text.lines().any(is_loss_by_full_disk));
    let before = text();
    assert!(before.ends_with('\n'), "a line is torn while the disk is full");
    expect_events(&before);
    assert!(agent.complaints().contains("they are lost: No space left"), "{}", agent.complaints());

    fs::remove_file(disk.file("filler")).unwrap();
    until("events are written again", || {
        quiet(&[TRUE, "nightjar-with-room-again"]);
        text().contains("nightjar-with-room-again").then_some(())
    });
    let output = disk.output();
    assert_eq!(output.get("failing"), None, "{output}");
    let lost = output["lost"].as_u64().unwrap();
    assert!(lost > 10, "{output}");
    let all = tail.await_output("all that was lost is told", |text| is_all_told(text, text, lost));
    expect_events(&all);
    let told = told_lost(&all);
    assert!(told <= lost, "{told} were told, {lost} were lost");
    let _ended = tail.interrupt();

    // It is over, and not forgotten.
    let status = agent.status();
    assert_eq!(status["outputs"][0].get("failing"), None, "{status}");
    assert_eq!(status["outputs"][0]["lost"], lost, "{status}");
    let losses = status["losses"]["losses"].as_array().unwrap();
    let of_disk = losses.iter().find(|loss| loss["reason"] == "disk_full");
    assert_eq!(of_disk.unwrap()["count"], told, "{status}");
    let copy = place.path().join("copy");
    // The file system is gone when the agent is.
    agent.signal(Signal::STOP);
    fs::copy(disk.file("events.json"), &copy).unwrap();
    agent.signal(Signal::CONT);
    let text = fs::read_to_string(copy).unwrap();
    assert!(text.ends_with('\n') && text.starts_with(&before));
    expect_events(&text);
    expect_no_event_twice(&text);

    let OnSmallDisk { agent, .. } = disk;
    let end = agent.end_well(Signal::TERM);
    assert!(
        end.complaints().contains(&format!("{lost} could not be written to the file")),
        "{}",
        end.complaints()
    );
    assert!(
        end.complaints().contains(&format!("again; {lost} were lost")) || !end.complaints().contains("INFO")
    );
}

#[test]
fn a_reader_of_the_file_learns_how_many_events_a_full_disk_cost() {
    skip_without_kernel!();
    let _alone = alone();
    if let Some(missing) = ["unshare", "setpriv"].into_iter().find(|program| !is_installed(program)) {
        return skip(&format!("{missing} is not installed"));
    }
    let place = tempfile::tempdir().unwrap();
    let disk = OnSmallDisk::start(&place);
    let tail = Session::start(nightjar(["tail", "--instance", disk.agent.instance(), "-o", "json"]));
    disk.fill();
    let long = "x".repeat(LONG);
    // For a while, in which the losses that are told are lost as well.
    until("the disk is full for some seconds", || {
        quiet(&[TRUE, "nightjar-without-room", &long]);
        let losses = |text: &str| text.lines().filter(|line| is_loss_by_full_disk(line)).count();
        let in_file = fs::read_to_string(disk.file("events.json")).unwrap();
        (losses(&tail.output()) > losses(&in_file) + 3).then_some(())
    });
    fs::remove_file(disk.file("filler")).unwrap();
    let lost = until("events are written again", || {
        quiet(&[TRUE]);
        let output = disk.output();
        output.get("failing").is_none().then(|| output["lost"].as_u64().unwrap())
    });
    tail.await_output("all that was lost is told", |text| is_all_told(text, text, lost));
    let text = || fs::read_to_string(disk.file("events.json")).unwrap();
    until("the file tells of all that is not in it", || {
        is_all_told(&text(), &tail.output(), lost).then_some(())
    });
    assert!(told_lost(&text()) <= lost);
    let _ended = tail.interrupt();
    let OnSmallDisk { agent, .. } = disk;
    agent.end_well(Signal::TERM);
}

/// Does not write to this path; says what is wrong with it and the mend.
fn expect_refused(path: &Path, words: &[&str]) {
    let mut command = nightjar(["run", "--kind", "process.exec", "--instance", &instance(), "--json"]);
    command.arg(path);
    let output = Session::start(command).finish();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}: {stderr}", path.display());
    for word in [&[path.to_str().unwrap()], words].concat() {
        assert!(stderr.contains(word), "{} is refused without {word:?}: {stderr}", path.display());
    }
}

#[test]
fn paths_that_should_not_be_written_to_are_refused_with_the_mend() {
    skip_without_kernel!();
    let _alone = alone();
    let folder = folder_for_all();
    let path = |name: &str| folder.path().join(name);
    let place = folder.path().to_str().unwrap();

    expect_refused(folder.path(), &["is a folder; name a file in it"]);
    expect_refused(
        &path("missing/events.json"),
        &[&format!("there is no folder {place}/missing"), "mkdir -m 700"],
    );
    let fifo = path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    expect_refused(&fifo, &["is a FIFO", "regular file"]);
    expect_refused(Path::new("/dev/tty"), &["is a terminal or another device", "regular file"]);

    let (target, link) = (path("target"), path("link"));
    symlink(&target, &link).unwrap();
    lchown(&link, Some(65534), Some(65534)).unwrap();
    expect_refused(&link, &["is a symbolic link of user 65534", "remove it"]);
    assert!(!target.exists());

    let text = path("shadow");
    fs::write(&text, "root:x:\n").unwrap();
    expect_refused(&text, &["does not hold events", "name another file"]);
    assert_eq!(fs::read_to_string(&text).unwrap(), "root:x:\n");

    let public = path("public");
    fs::create_dir(&public).unwrap();
    fs::set_permissions(&public, fs::Permissions::from_mode(0o1777)).unwrap();
    let planted = public.join("events.json");
    fs::write(&planted, "").unwrap();
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::chown(&planted, Some(65534), Some(65534)).unwrap();
    expect_refused(&planted, &["belongs to user 65534", "delete it"]);
}

#[test]
fn a_symbolic_link_of_roots_is_followed() {
    skip_without_kernel!();
    let _alone = alone();
    let files = Files::new("");
    let target = files.folder.path().join("elsewhere.json");
    symlink(&target, files.current()).unwrap();
    let agent = files.start();
    quiet(&[TRUE, "nightjar-elsewhere"]);
    until("it is written where the link leads", || {
        fs::read_to_string(&target).is_ok_and(|text| text.contains("nightjar-elsewhere")).then_some(())
    });
    agent.end_well(Signal::TERM);
    assert!(files.current().is_symlink());
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn two_agents_do_not_write_to_one_file() {
    skip_without_kernel!();
    let _alone = alone();
    let files = Files::new("");
    let agent = files.start();
    expect_refused(&files.current(), &["another process writes events to", "name another file for each"]);
    agent.end_well(Signal::TERM);
}

#[test]
fn a_file_that_is_moved_away_is_made_anew() {
    skip_without_kernel!();
    let _alone = alone();
    let files = Files::new("");
    let agent = files.start();
    let moved = files.folder.path().join("moved.json");
    quiet(&[TRUE, "nightjar-before-the-move"]);
    let has = |path: &Path, word: &str| fs::read_to_string(path).is_ok_and(|text| text.contains(word));
    until("it is written", || has(&files.current(), "nightjar-before-the-move").then_some(()));
    fs::rename(files.current(), &moved).unwrap();
    until("it is made anew", || {
        quiet(&[TRUE, "nightjar-after-the-move"]);
        has(&files.current(), "nightjar-after-the-move").then_some(())
    });
    agent.end_well(Signal::TERM);
    let all = fs::read_to_string(&moved).unwrap() + &fs::read_to_string(files.current()).unwrap();
    expect_events(&all);
    expect_no_event_twice(&all);
}
