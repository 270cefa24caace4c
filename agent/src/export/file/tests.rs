//! On real files. Where a test needs root, it is skipped without, with a line that says so.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fmt::Write as _,
    fs::Permissions,
    io::{BufRead, BufReader, Read},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, lchown, symlink},
        net::UnixListener,
    },
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use proptest::prelude::*;
use rustix::{
    fs::{FileType, Mode, mknodat},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::geteuid,
    thread::UnshareFlags,
};
use tempfile::TempDir;

use super::*;

const NOBODY: u32 = 65534;
const ONE_DAY: Duration = Duration::from_hours(24);

/// A folder with `events.json`, and a clock that is set by hand.
struct Place {
    folder: PathBuf,
    now: Arc<Mutex<SystemTime>>,
    /// Removes the folder at the end.
    _temporary: Option<TempDir>,
}

impl Place {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let place = Self::at(temporary.path());
        Self { _temporary: Some(temporary), ..place }
    }

    fn at(folder: &Path) -> Self {
        let now = Arc::new(Mutex::new(SystemTime::now()));
        Self { folder: folder.to_owned(), now, _temporary: None }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("events.json")
    }

    fn try_open(&self, rotation: Rotation) -> Result<(RotatingFile, Opened), FileError> {
        let now = Arc::clone(&self.now);
        RotatingFile::open_at(&self.path(), rotation, Box::new(move || *now.lock().unwrap()))
    }

    fn open(&self, rotation: Rotation) -> RotatingFile {
        self.try_open(rotation).unwrap().0
    }

    fn set_clock(&self, time: SystemTime) {
        *self.now.lock().unwrap() = time;
    }

    fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.join(name), content).unwrap();
    }

    /// Names in the folder, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn rotated(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.starts_with("events-")).collect()
    }

    /// Content of a file, compressed or not.
    fn content(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap();
        let mut text = String::new();
        match name.rsplit('.').next() {
            Some("gz") => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
            Some("zst") => zstd::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap(),
            _ => bytes.as_slice().read_to_string(&mut text).unwrap(),
        };
        text
    }

    /// Of all rotated files from the oldest on, and then of the current one.
    fn contents(&self) -> Vec<String> {
        let mut names = self.rotated();
        names.push("events.json".to_owned());
        names.iter().map(|name| self.content(name)).collect()
    }
}

fn by_size(size: u64) -> Rotation {
    Rotation { size, keep: 1000, ..Rotation::default() }
}

fn by_age(age: Duration) -> Rotation {
    Rotation { age, keep: 1000, ..Rotation::default() }
}

/// A line of so many bytes, its newline included.
fn line(len: usize) -> String {
    format!("{{{}}}\n", " ".repeat(len - 3))
}

/// Writes what must not be lost.
fn write(file: &mut RotatingFile, lines: &str) {
    assert_eq!(file.write(lines.as_bytes()), written(lines));
}

fn written(lines: &str) -> Written {
    Written { written: Count::of(lines.as_bytes()), lost: Count::default() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn is_root(test: &str) -> bool {
    if !geteuid().is_root() {
        eprintln!("{test} is skipped: only root can set it up");
    }
    geteuid().is_root()
}

// === opening ===

#[test]
fn lines_are_appended_to_what_is_there() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    write(&mut file, "{\"n\":1}\n");
    write(&mut file, "{\"n\":2}\n{\"n\":3}\n");
    assert_eq!(place.content("events.json"), "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    let stats = file.stats();
    assert_eq!((stats.written, stats.size), (Count { events: 3, bytes: 24 }, 24));
    file.close().unwrap();

    let (mut file, opened) = place.try_open(Rotation::default()).unwrap();
    assert_eq!(opened, Opened { path: place.path(), cut: 0, warnings: Vec::new() });
    write(&mut file, "{\"n\":4}\n");
    assert_eq!(place.content("events.json"), "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n");
    assert_eq!(file.stats().size, 32);
}

#[test]
fn an_unfinished_line_is_cut_off_and_told() {
    let place = Place::new();
    place.put("events.json", b"{\"n\":1}\n{\"n\":");
    let (mut file, opened) = place.try_open(Rotation::default()).unwrap();
    assert_eq!(opened.cut, 5);
    write(&mut file, "{\"n\":3}\n");
    assert_eq!(place.content("events.json"), "{\"n\":1}\n{\"n\":3}\n");
}

#[test]
fn a_missing_newline_is_added() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    assert_eq!(file.write(b"{\"n\":1}").written, Count { events: 1, bytes: 8 });
    write(&mut file, "{\"n\":2}\n");
    assert_eq!(place.content("events.json"), "{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn nothing_written_is_nothing() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    assert_eq!(file.write(b""), Written::default());
    assert_eq!(place.content("events.json"), "");
}

#[test]
fn what_is_no_place_for_events_is_refused() {
    let place = Place::new();
    fs::create_dir(place.folder.join("folder")).unwrap();
    let _socket = UnixListener::bind(place.folder.join("socket")).unwrap();
    mknodat(CWD, place.folder.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(fs::symlink_metadata(place.folder.join("fifo")).unwrap().file_type().is_fifo());
    place.put("passwd", b"root:x:0:0::/root:/bin/sh");
    symlink("loop", place.folder.join("loop")).unwrap();
    for (path, message) in [
        ("folder", "is a folder; name a file in it"),
        ("socket", "is a socket; events go to a regular file"),
        ("fifo", "is a FIFO; events go to a regular file"),
        ("passwd", "does not hold events: it starts with no {"),
        ("loop", "more than 8 symbolic links in a row"),
        ("none/events.json", "there is no folder"),
        ("/", "/ is a folder"),
        ("..", "is a folder"),
        ("/dev/zero", "/dev/zero is a terminal or another device"),
        ("/proc/self/fd/0", "/proc/self/fd/0 is an open file of a process"),
    ] {
        let error = RotatingFile::open(&place.folder.join(path), Rotation::default()).err().unwrap();
        assert!(error.to_string().contains(message), "{path}: {error}");
    }
    assert_eq!(place.content("passwd"), "root:x:0:0::/root:/bin/sh");
}

#[test]
fn a_link_of_our_own_is_followed_and_rotated_files_are_where_it_leads() {
    let place = Place::new();
    fs::create_dir(place.folder.join("disk")).unwrap();
    symlink("disk/large.json", place.folder.join("middle")).unwrap();
    symlink("middle", place.path()).unwrap();
    let (mut file, opened) = place.try_open(by_size(8)).unwrap();
    assert_eq!(opened.path, place.folder.join("disk/large.json"));
    write(&mut file, &line(8));
    write(&mut file, &line(8));
    assert_eq!(place.names(), ["disk", "events.json", "middle"]);
    assert_eq!(fs::read_dir(place.folder.join("disk")).unwrap().count(), 2);
}

#[test]
fn a_link_of_somebody_else_is_refused() {
    if !is_root("a_link_of_somebody_else_is_refused") {
        return;
    }
    let place = Place::new();
    place.put("target", b"");
    symlink("target", place.path()).unwrap();
    lchown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let error = place.try_open(Rotation::default()).err().unwrap();
    assert!(error.to_string().contains("is a symbolic link of user 65534 and is not followed"), "{error}");
}

#[test]
fn a_link_that_comes_later_is_not_followed() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    fs::rename(place.path(), place.folder.join("moved")).unwrap();
    place.put("target", b"");
    symlink("target", place.path()).unwrap();
    assert!(!file.reopen());
    write(&mut file, "{}\n");
    assert_eq!(place.content("moved"), "{}\n");
    assert_eq!(place.content("target"), "");
    let trouble = file.stats().trouble.unwrap().text;
    assert!(trouble.contains("is a symbolic link now"), "{trouble}");

    // Nor does a rotation touch it, or try again and again.
    file.set_rotation(by_size(3));
    write(&mut file, "{}\n{}\n");
    assert_eq!(place.content("moved"), "{}\n".repeat(3));
    assert_eq!(file.stats().rotation_failures, 1);
    assert_eq!(place.names(), ["events.json", "moved", "target"]);
}

#[test]
fn a_file_that_was_planted_is_refused() {
    if !is_root("a_file_that_was_planted_is_refused") {
        return;
    }
    let place = Place::new();
    place.put("events.json", b"");
    lchown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let (_, opened) = place.try_open(Rotation::default()).unwrap();
    assert!(opened.warnings[1].contains("belongs to user 65534"), "{:?}", opened.warnings);

    fs::set_permissions(&place.folder, Permissions::from_mode(0o1777)).unwrap();
    let error = place.try_open(Rotation::default()).err().unwrap();
    assert!(matches!(error, FileError::Planted { owner: NOBODY, .. }), "{error}");
}

#[test]
fn a_second_name_of_a_file_is_refused_where_others_can_make_it() {
    let place = Place::new();
    place.put("precious", b"{}\n");
    fs::hard_link(place.folder.join("precious"), place.path()).unwrap();
    drop(place.open(Rotation::default()));
    fs::set_permissions(&place.folder, Permissions::from_mode(0o1777)).unwrap();
    let error = place.try_open(Rotation::default()).err().unwrap();
    assert!(matches!(error, FileError::HardLinks { links: 2, .. }), "{error}");
}

#[test]
fn a_file_that_others_can_read_is_told() {
    let place = Place::new();
    place.put("events.json", b"{}\n");
    fs::set_permissions(place.path(), Permissions::from_mode(0o644)).unwrap();
    let (mut file, opened) = place.try_open(Rotation::default()).unwrap();
    assert_eq!(opened.warnings.len(), 1);
    assert!(opened.warnings[0].contains("is open to other users (mode 0644)"), "{:?}", opened.warnings);
    write(&mut file, "{}\n");
    assert_eq!(mode(&place.path()), 0o644);
}

#[test]
fn two_agents_do_not_write_to_one_file() {
    let place = Place::new();
    let mut file = place.open(by_size(8));
    let refused = |place: &Place| {
        let error = place.try_open(Rotation::default()).err().unwrap();
        assert!(matches!(error, FileError::Busy(_)), "{error}");
    };
    refused(&place);
    write(&mut file, &line(8));
    write(&mut file, &line(8));
    refused(&place);
    file.close().unwrap();
    place.open(Rotation::default());
}

#[test]
fn devices_that_keep_nothing_are_written_to() {
    let (mut file, opened) = RotatingFile::open(Path::new("/dev/null"), by_size(2)).unwrap();
    assert!(opened.warnings.is_empty(), "{:?}", opened.warnings);
    write(&mut file, "{}\n{}\n");
    file.tick();
    assert_eq!(file.stats().rotations, 0);
    file.close().unwrap();
}

// === rotation ===

#[test]
fn a_file_is_rotated_before_a_batch_that_does_not_fit() {
    let place = Place::new();
    let mut file = place.open(by_size(20));
    for len in [10, 10, 3, 17, 4] {
        write(&mut file, &line(len));
    }
    assert_eq!(place.contents(), [line(10).repeat(2), line(3) + &line(17), line(4)]);
    let stats = file.stats();
    assert_eq!((stats.rotations, stats.size), (2, 4));
}

#[test]
fn a_batch_larger_than_a_file_is_split_between_lines() {
    let place = Place::new();
    let mut file = place.open(by_size(20));
    write(&mut file, &line(5));
    write(&mut file, &(line(8).repeat(5) + &line(50) + &line(6)));
    let expected = [line(5), line(8).repeat(2), line(8).repeat(2), line(8), line(50), line(6)];
    assert_eq!(place.contents(), expected);
}

#[test]
fn a_file_is_rotated_by_age_also_when_nothing_comes() {
    let place = Place::new();
    let mut file = place.open(by_age(ONE_DAY));
    place.pass(ONE_DAY * 3);
    file.tick();
    // The age is that of the first line, not of the file.
    write(&mut file, "{\"n\":1}\n");
    place.pass(Duration::from_secs(24 * 3600 - 1));
    write(&mut file, "{\"n\":2}\n");
    file.tick();
    assert!(place.rotated().is_empty());
    place.pass(Duration::from_secs(1));
    file.tick();
    assert_eq!(place.contents(), ["{\"n\":1}\n{\"n\":2}\n", ""]);

    write(&mut file, "{\"n\":3}\n");
    place.pass(ONE_DAY);
    write(&mut file, "{\"n\":4}\n");
    assert_eq!(place.contents()[1..], ["{\"n\":3}\n", "{\"n\":4}\n"]);
}

#[test]
fn a_restart_does_not_make_a_file_younger() {
    let place = Place::new();
    let mut file = place.open(by_age(ONE_DAY));
    write(&mut file, "{\"n\":1}\n");
    file.close().unwrap();
    place.pass(Duration::from_mins(24 * 60 - 1));
    let mut file = place.open(by_age(ONE_DAY));
    file.tick();
    assert!(place.rotated().is_empty());
    place.pass(Duration::from_mins(2));
    file.tick();
    assert_eq!(place.rotated().len(), 1);
}

#[test]
fn a_clock_that_is_set_back_starts_the_age_anew() {
    let place = Place::new();
    let mut file = place.open(by_age(ONE_DAY));
    place.pass(ONE_DAY * 1000);
    write(&mut file, "{\"n\":1}\n");
    place.set_clock(SystemTime::now());
    file.tick();
    place.pass(ONE_DAY);
    file.tick();
    assert_eq!(place.rotated().len(), 1);
}

#[test]
fn names_sort_by_time_also_where_the_clock_does_not() {
    let place = Place::new();
    let mut file = place.open(by_size(3));
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_787_393_700_123);
    for (at, n) in [(start, 0), (start, 1), (start - ONE_DAY, 2), (start + ONE_DAY, 3), (start, 4)] {
        place.set_clock(at);
        write(&mut file, &format!("{{{n}}}\n"));
    }
    assert_eq!(
        place.rotated(),
        [
            "events-20260822T101500.123Z.json",
            "events-20260822T101500.124Z.json",
            "events-20260823T101500.123Z.json",
            "events-20260823T101500.124Z.json",
        ]
    );
    assert_eq!(place.contents().concat(), "{0}\n{1}\n{2}\n{3}\n{4}\n");
    file.close().unwrap();

    // Nor does a restart forget what the latest was.
    let mut file = place.open(by_size(3));
    write(&mut file, "{5}\n");
    assert_eq!(place.rotated().last().unwrap(), "events-20260823T101500.125Z.json");
}

#[test]
fn no_file_is_written_over() {
    let place = Place::new();
    let mut file = place.open(by_size(3));
    place.set_clock(SystemTime::UNIX_EPOCH + Duration::from_millis(1_787_393_700_123));
    // They came after our last look.
    place.put("events-20260822T101500.123Z.json", b"a");
    fs::create_dir(place.folder.join("events-20260822T101500.124Z.json")).unwrap();
    symlink("nowhere", place.folder.join("events-20260822T101500.125Z.json")).unwrap();
    write(&mut file, "{1}\n");
    write(&mut file, "{2}\n");
    assert_eq!(place.content("events-20260822T101500.123Z.json"), "a");
    assert_eq!(place.content("events-20260822T101500.126Z.json"), "{1}\n");
    assert!(!place.folder.join("nowhere").exists());
}

#[test]
fn a_rotation_that_fails_costs_no_events() {
    let place = Place::new();
    place.put("events-99991231T235959.999Z.json", b"{0}\n");
    let mut file = place.open(by_size(3));
    for n in 1..5 {
        write(&mut file, &format!("{{{n}}}\n"));
    }
    assert_eq!(place.content("events.json"), "{1}\n{2}\n{3}\n{4}\n");
    let stats = file.stats();
    assert_eq!((stats.rotations, stats.rotation_failures), (0, 1), "tried with every batch");
    let trouble = stats.trouble.unwrap().text;
    assert!(trouble.contains("rotated files have all names until the year 10000"), "{trouble}");
    assert!(trouble.ends_with("events go on in it"), "{trouble}");
    place.pass(ROTATE_AGAIN);
    file.tick();
    assert_eq!(file.stats().rotation_failures, 2);
}

#[test]
fn only_so_many_files_are_kept() {
    let place = Place::new();
    for name in ["events-20200101T000000.000Z.json", "events-20200101T000000.001Z.json.gz"] {
        place.put(name, b"old");
    }
    let foreign = [
        "events-20200101.json",
        "events-20200101T000000.000Z.json.bz2",
        "events-old.json",
        "other-20200101T000000.000Z.json",
    ];
    for name in foreign {
        place.put(name, b"not ours");
    }
    fs::create_dir(place.folder.join("events-20200101T000000.002Z.json")).unwrap();

    let mut file = place.open(Rotation { keep: 3, ..by_size(3) });
    file.archive.settle();
    assert_eq!(file.stats().kept, 2);
    for n in 0..5 {
        write(&mut file, &format!("{{{n}}}\n"));
    }
    file.archive.settle();
    let stats = file.stats();
    assert_eq!((stats.kept, stats.deleted, stats.rotations), (3, 3, 4));
    for name in foreign {
        assert_eq!(place.content(name), "not ours");
    }
    assert!(place.folder.join("events-20200101T000000.002Z.json").is_dir());

    file.set_rotation(Rotation { keep: 1, ..by_size(3) });
    file.archive.settle();
    assert_eq!((file.stats().kept, file.stats().deleted), (1, 5));
    file.set_rotation(Rotation { keep: 0, ..by_size(3) });
    file.archive.settle();
    assert_eq!((file.stats().kept, file.stats().deleted), (0, 6));
    assert_eq!(place.content("events.json"), "{4}\n");
}

#[test]
fn a_new_limit_holds_at_once() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    write(&mut file, &line(30));
    file.set_rotation(by_size(20));
    file.tick();
    assert_eq!(place.contents(), [line(30), String::new()]);
}

#[test]
fn rotation_works_where_names_cannot_be_exchanged() {
    let place = Place::new();
    let mut file = place.open(by_size(3));
    file.exchanges = false;
    for n in 0..4 {
        write(&mut file, &format!("{{{n}}}\n"));
    }
    assert_eq!(place.contents(), ["{0}\n", "{1}\n", "{2}\n", "{3}\n"]);
    assert_eq!(mode(&place.path()), 0o600);
}

// === archive ===

#[test]
fn rotated_files_are_compressed() {
    for (compression, extension) in [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")] {
        let place = Place::new();
        let mut file = place.open(Rotation { compression, ..by_size(200_000) });
        let lines: Vec<_> = (0..3).map(|n| format!("{{\"n\":{n}}}\n").repeat(25_000)).collect();
        for lines in &lines {
            write(&mut file, lines);
        }
        file.archive.settle();
        let names = place.rotated();
        assert_eq!(names.len(), 2);
        for name in &names {
            assert_eq!(Path::new(name).extension().unwrap(), extension);
            let path = place.folder.join(name);
            assert_eq!(mode(&path), 0o600);
            assert!(fs::metadata(&path).unwrap().len() < 10_000);
        }
        assert_eq!(place.contents(), lines);
        assert_eq!(place.names().len(), 3);
        assert_eq!(file.stats().kept, 2);
    }
}

#[test]
fn a_compressed_file_is_as_old_as_the_original() {
    let place = Place::new();
    let time = SystemTime::UNIX_EPOCH + ONE_DAY;
    place.put("events-20200101T000000.000Z.json", b"{}\n");
    let path = place.folder.join("events-20200101T000000.000Z.json");
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    let file = place.open(Rotation { compression: Compression::Zstd, ..by_size(3) });
    file.archive.settle();
    let compressed = place.folder.join("events-20200101T000000.000Z.json.zst");
    assert_eq!(fs::metadata(compressed).unwrap().modified().unwrap(), time);
}

#[test]
fn what_a_kill_left_half_done_is_done_at_the_next_start() {
    let place = Place::new();
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    // Compressing was under way.
    place.put("events-20200101T000000.000Z.json", b"{0}\n");
    place.put(".events-20200101T000000.000Z.json.gz.tmp", b"\x1f");
    // It was done, but for the original.
    place.put("events-20200101T000000.001Z.json", b"{1}\n");
    place.put("events-20200101T000000.001Z.json.gz", &gzip(b"{1}\n"));
    // A rotation was under way.
    place.put("events-20200101T000000.002Z.json", b"");
    place.put("events.json", b"{2}\n");
    let file = place.open(Rotation { compression: Compression::Gzip, ..by_size(100) });
    file.archive.settle();
    assert_eq!(
        place.names(),
        ["events-20200101T000000.000Z.json.gz", "events-20200101T000000.001Z.json.gz", "events.json"]
    );
    assert_eq!(place.contents(), ["{0}\n", "{1}\n", "{2}\n"]);
}

#[test]
fn a_file_that_cannot_be_compressed_is_kept() {
    let place = Place::new();
    place.put("events-20200101T000000.000Z.json", b"{0}\n");
    place.put("events-20200101T000000.001Z.json", b"{1}\n");
    fs::create_dir(place.folder.join(".events-20200101T000000.000Z.json.zst.tmp")).unwrap();
    let file = place.open(Rotation { compression: Compression::Zstd, ..by_size(100) });
    file.archive.settle();
    assert_eq!(place.rotated(), ["events-20200101T000000.000Z.json", "events-20200101T000000.001Z.json.zst"]);
    let stats = file.stats();
    assert_eq!((stats.compress_failures, stats.kept), (1, 2));
    let trouble = stats.trouble.unwrap().text;
    assert!(trouble.contains("000.000Z.json: ") && trouble.ends_with("it is kept as it is"), "{trouble}");
}

#[test]
fn the_end_does_not_wait_for_compressing() {
    let place = Place::new();
    let large = "{\"n\":1}\n".repeat(4 << 20);
    place.put("events-20200101T000000.000Z.json", large.as_bytes());
    let file = place.open(Rotation { compression: Compression::Gzip, ..by_size(100) });
    file.close().unwrap();
    // Nothing is half done, and nothing is gone.
    assert_eq!(place.names().len(), 2, "{:?}", place.names());
    assert_eq!(place.contents()[0].len(), large.len());
}

// === what others do ===

#[test]
fn a_file_that_is_moved_is_followed_by_a_new_one() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    write(&mut file, "{1}\n");
    assert!(!file.reopen());
    fs::rename(place.path(), place.folder.join("events.json.1")).unwrap();
    write(&mut file, "{2}\n");
    file.tick();
    write(&mut file, "{3}\n");
    assert_eq!(place.content("events.json.1"), "{1}\n{2}\n");
    assert_eq!(place.content("events.json"), "{3}\n");
    assert_eq!(mode(&place.path()), 0o600);
    assert_eq!(file.stats().reopened, 1);
}

#[test]
fn a_file_that_was_moved_is_not_rotated_in_place_of_another() {
    let place = Place::new();
    let mut file = place.open(by_size(4));
    write(&mut file, "{1}\n");
    fs::rename(place.path(), place.folder.join("events.json.1")).unwrap();
    place.put("events.json", b"{of somebody else}\n");
    write(&mut file, "{2}\n");
    assert_eq!(place.contents(), ["{of somebody else}\n{2}\n"]);
    write(&mut file, "{3}\n");
    assert_eq!(place.contents(), ["{of somebody else}\n{2}\n", "{3}\n"]);
}

#[test]
fn a_file_that_is_deleted_costs_no_later_line() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    write(&mut file, "{1}\n");
    fs::remove_file(place.path()).unwrap();
    write(&mut file, "{2}\n");
    assert_eq!(place.content("events.json"), "{2}\n");
    assert_eq!(file.stats().size, 4);
}

#[test]
fn while_the_folder_is_gone_lines_are_lost_and_counted() {
    let place = Place::new();
    let mut file = place.open(Rotation::default());
    write(&mut file, "{1}\n");
    let since = *place.now.lock().unwrap();
    fs::remove_dir_all(&place.folder).unwrap();
    for _ in 0..2 {
        let lost = Count { events: 2, bytes: 8 };
        assert_eq!(file.write(b"{2}\n{3}\n"), Written { written: Count::default(), lost });
        file.tick();
        place.pass(ONE_DAY);
    }
    let stats = file.stats();
    assert_eq!(stats.lost, BTreeMap::from([(Reason::Gone, Count { events: 4, bytes: 16 })]));
    let failing = stats.failing.unwrap();
    assert_eq!((failing.reason, failing.since), (Reason::Gone, since));
    assert!(failing.why.contains("there is no folder"), "{}", failing.why);

    fs::create_dir(&place.folder).unwrap();
    write(&mut file, "{4}\n");
    assert_eq!(place.content("events.json"), "{4}\n");
    let stats = file.stats();
    assert_eq!((stats.failing, stats.recovered), (None, Some(since + ONE_DAY * 2)));
}

#[test]
fn a_file_that_others_cut_or_append_to_still_has_whole_lines() {
    let place = Place::new();
    let mut file = place.open(by_size(100));
    write(&mut file, "{1}\n");
    let other = File::options().append(true).open(place.path()).unwrap();
    (&other).write_all(b"{of somebody else}\n{half").unwrap();
    write(&mut file, "{2}\n");
    assert_eq!(place.content("events.json"), "{1}\n{of somebody else}\n{2}\n");
    assert_eq!(file.stats().size, 27);
    other.set_len(0).unwrap();
    write(&mut file, "{3}\n");
    assert_eq!((place.content("events.json"), file.stats().size), ("{3}\n".to_owned(), 4));
}

// === no room ===

#[test]
fn a_full_device_loses_lines_and_says_so() {
    let now = SystemTime::now();
    let (mut file, _) =
        RotatingFile::open_at(Path::new("/dev/full"), by_size(4), Box::new(move || now)).unwrap();
    let lost = Count { events: 2, bytes: 8 };
    assert_eq!(file.write(b"{1}\n{2}\n"), Written { written: Count::default(), lost });
    let stats = file.stats();
    assert_eq!(stats.lost, BTreeMap::from([(Reason::DiskFull, lost)]));
    let failing = stats.failing.unwrap();
    assert_eq!((failing.reason, failing.since), (Reason::DiskFull, now));
    assert!(failing.why.contains("No space left on device"), "{}", failing.why);
}

/// Runs an ignored test of this file in a process of its own, from a shell that was prepared by `shell`.
fn child(shell: &str, test: &str, environment: &[(&str, String)]) -> Command {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("{module}::{test}"), "--exact", "--ignored", "--nocapture"])
        .envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

#[track_caller]
fn succeed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("run by another test, with {name}"))
}

#[test]
fn a_file_has_mode_0600_whatever_the_umask() {
    for umask in ["0", "0777"] {
        let place = Place::new();
        let folder = place.folder.to_str().unwrap().to_owned();
        let output = child(&format!("umask {umask};"), "under_a_umask", &[("FOLDER", folder)]).output();
        succeed(&output.unwrap());
        assert_eq!(mode(&place.path()), 0o600);
        assert_eq!(mode(&place.folder.join(&place.rotated()[0])), 0o600);
    }
}

#[test]
#[ignore = "run by a_file_has_mode_0600_whatever_the_umask"]
fn under_a_umask() {
    let place = Place::at(Path::new(&environment("FOLDER")));
    let mut file = place.open(Rotation { compression: Compression::Gzip, ..by_size(4) });
    write(&mut file, "{1}\n");
    write(&mut file, "{2}\n");
    file.archive.settle();
    file.close().unwrap();
}

#[test]
fn lines_that_do_not_fit_a_limit_on_file_sizes_are_taken_back() {
    let place = Place::new();
    let folder = place.folder.to_str().unwrap().to_owned();
    // The unit is 512 bytes.
    let shell = "trap '' XFSZ; ulimit -f 8;";
    let output = child(shell, "under_a_limit_on_file_sizes", &[("FOLDER", folder)]).output().unwrap();
    succeed(&output);
}

#[test]
#[ignore = "run by lines_that_do_not_fit_a_limit_on_file_sizes_are_taken_back"]
fn under_a_limit_on_file_sizes() {
    let place = Place::at(Path::new(&environment("FOLDER")));
    let mut file = place.open(Rotation::default());
    write(&mut file, &line(1000).repeat(3));
    // 1096 bytes fit: one of these lines, and a piece of the next.
    let done = file.write(line(1000).repeat(3).as_bytes());
    assert_eq!((done.written.events, done.lost.events), (1, 2));
    assert_eq!(place.content("events.json"), line(1000).repeat(4));
    // Only a piece of a line fits, then a whole one.
    assert_eq!(file.write(line(97).as_bytes()).lost.events, 1);
    assert_eq!(file.stats().failing.unwrap().reason, Reason::FileTooBig);
    write(&mut file, &line(96));
    assert_eq!(place.content("events.json"), line(1000).repeat(4) + &line(96));
    let stats = file.stats();
    assert_eq!(stats.lost, BTreeMap::from([(Reason::FileTooBig, Count { events: 3, bytes: 2097 })]));
    assert!(stats.failing.is_none() && stats.recovered.is_some());
    // Not even one byte fits; a new file is as good as any other.
    assert_eq!(file.write(b"{}\n").lost.events, 1);
    file.set_rotation(by_size(4000));
    write(&mut file, "{}\n");
    assert_eq!(place.contents(), [line(1000).repeat(4) + &line(96), "{}\n".to_owned()]);
}

/// Runs a test on a tmpfs of these options, which no other thread sees.
fn on_a_small_disk(test: &str, options: &str, run: impl FnOnce(&Place) + Send) {
    fn mount_privately(folder: &Path, options: &str) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "it became unsafe for the sake of CLONE_FILES, which is not asked for"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let options = CString::new(options).unwrap();
        Ok(mount("tmpfs", folder, "tmpfs", MountFlags::empty(), options.as_c_str())?)
    }
    if !is_root(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| match mount_privately(folder.path(), options) {
            Ok(()) => run(&Place::at(folder.path())),
            Err(error) => eprintln!("{test} is skipped: no tmpfs can be mounted here: {error}"),
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_full_disk_costs_only_the_lines_that_do_not_fit() {
    on_a_small_disk("a_full_disk_costs_only_the_lines_that_do_not_fit", "size=64k,mode=700", |place| {
        let mut file = place.open(Rotation::default());
        place.put("ballast", &vec![0; 20_000]);
        let (mut expected, mut number) = (String::new(), 0);
        // How many of seven lines are lost.
        let mut seven = |file: &mut RotatingFile| {
            let lines: Vec<_> = (number..number + 7)
                .map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(900 + n % 200)))
                .collect();
            number += 7;
            let done = file.write(lines.concat().as_bytes());
            assert_eq!(done.written.events + done.lost.events, 7);
            expected
                .extend(lines[..usize::try_from(done.written.events).unwrap()].iter().map(String::as_str));
            assert_eq!(place.content("events.json"), expected);
            done.lost.events
        };
        while seven(&mut file) == 0 {}
        assert_eq!(file.stats().failing.unwrap().reason, Reason::DiskFull);
        assert!(seven(&mut file) > 0);
        fs::remove_file(place.folder.join("ballast")).unwrap();
        assert_eq!(seven(&mut file), 0);
        let stats = file.stats();
        assert!(stats.failing.is_none() && stats.recovered.is_some());
        assert_eq!(stats.lost.keys().collect::<Vec<_>>(), [&Reason::DiskFull]);
        let lost = stats.lost[&Reason::DiskFull];
        assert_eq!(stats.written.events + lost.events, number as u64);
    });
}

#[test]
fn where_there_is_no_room_for_another_file_the_current_one_grows() {
    let test = "where_there_is_no_room_for_another_file_the_current_one_grows";
    // The folder itself is one, the current file another.
    on_a_small_disk(test, "size=1m,nr_inodes=2,mode=700", |place| {
        for exchanges in [true, false] {
            let mut file = place.open(by_size(4));
            file.exchanges = exchanges;
            fs::remove_file(place.path()).unwrap();
            write(&mut file, "{1}\n");
            write(&mut file, "{2}\n");
            assert_eq!(place.contents(), ["{1}\n{2}\n"]);
            assert_eq!(file.stats().rotation_failures, 1);
            file.close().unwrap();
        }
    });
}

#[test]
fn where_there_is_no_room_to_compress_files_stay_as_they_are() {
    let test = "where_there_is_no_room_to_compress_files_stay_as_they_are";
    on_a_small_disk(test, "size=64k,mode=700", |place| {
        let lines = line(40_000);
        let mut file = place.open(Rotation { compression: Compression::Gzip, ..by_size(50_000) });
        write(&mut file, &lines);
        write(&mut file, &line(12_000));
        file.archive.settle();
        assert_eq!(place.contents(), [lines, line(12_000)]);
        assert_eq!(place.names().len(), 2, "{:?}", place.names());
        let stats = file.stats();
        assert_eq!((stats.compress_failures, stats.kept), (1, 1));
        let trouble = stats.trouble.unwrap().text;
        assert!(trouble.contains("bytes are left on the disk"), "{trouble}");
    });
}

#[test]
fn a_compressed_file_that_cannot_be_finished_is_removed() {
    let place = Place::new();
    // Hardly to be made smaller.
    let mut random = 1u64;
    let noise = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + u8::try_from(random >> 58).unwrap())
    });
    let noise: String = noise.take(400_000).collect();
    place.put("events-20200101T000000.000Z.json", format!("{{{noise}}}\n").as_bytes());
    let folder = place.folder.to_str().unwrap().to_owned();
    let shell = "trap '' XFSZ; ulimit -f 8;";
    let output = child(shell, "compresses_under_a_limit_on_file_sizes", &[("FOLDER", folder)]).output();
    succeed(&output.unwrap());
    assert_eq!(place.names(), ["events-20200101T000000.000Z.json", "events.json"]);
    assert_eq!(place.contents().concat(), format!("{{{noise}}}\n"));
}

#[test]
#[ignore = "run by a_compressed_file_that_cannot_be_finished_is_removed"]
fn compresses_under_a_limit_on_file_sizes() {
    let place = Place::at(Path::new(&environment("FOLDER")));
    for compression in [Compression::Gzip, Compression::Zstd] {
        let file = place.open(Rotation { compression, ..by_size(1000) });
        file.archive.settle();
        let stats = file.stats();
        assert_eq!((stats.compress_failures, stats.kept), (1, 1));
        let trouble = stats.trouble.unwrap().text;
        assert!(trouble.contains("File too large"), "{trouble}");
        file.close().unwrap();
    }
}

// === kills ===

/// What a writer says when it has written something.
const BEGUN: &str = "it has begun";

/// What a writer that will be killed writes.
fn numbered(run: u64, number: u64) -> String {
    let pad = "x".repeat(usize::try_from(number * 7919 % 1500).unwrap());
    format!("{{\"run\":{run},\"number\":{number},\"pad\":\"{pad}\"}}\n")
}

#[test]
fn a_kill_tears_no_line_and_doubles_none() {
    let place = Place::new();
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut state = u64::from(since_1970.subsec_nanos()) | 1;
    println!("seed {state}");
    let gzipped = |place: &Place| place.names().iter().filter(|name| name.contains(".json.gz")).count();
    for run in 0..20u64 {
        let environment = [("FOLDER", place.folder.to_str().unwrap().to_owned()), ("RUN", run.to_string())];
        let mut writer =
            child("", "writes_until_it_is_killed", &environment).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(BEGUN)), "it ended before it began");
        // Every third run is about to compress when it is killed, or has just done so.
        let (before, deadline) = (gzipped(&place), Instant::now() + Duration::from_secs(10));
        while run % 3 == 1 && gzipped(&place) == before && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        thread::sleep(Duration::from_millis(state % 40));
        writer.kill().unwrap();
        assert!(writer.wait().unwrap().code().is_none(), "it ended by itself");
    }
    assert!(gzipped(&place) > 0, "none of {:?}", place.rotated());
    let (file, _) = place.try_open(Rotation { compression: Compression::Zstd, ..by_size(20_000) }).unwrap();
    file.archive.settle();
    file.close().unwrap();

    let mut next = BTreeMap::new();
    let mut last_run = 0;
    for content in place.contents() {
        for line in content.split_inclusive('\n') {
            let run: u64 = line[7..].split(',').next().unwrap().parse().unwrap();
            let number = next.entry(run).or_insert(0);
            assert_eq!(line, numbered(run, *number));
            *number += 1;
            assert!(run >= last_run);
            last_run = run;
        }
    }
    assert!(next.len() >= 20, "some wrote nothing: {next:?}");
    // And nothing else is left over.
    assert_eq!(place.names().len(), place.rotated().len() + 1, "{:?}", place.names());
}

#[test]
#[ignore = "run by a_kill_tears_no_line_and_doubles_none"]
fn writes_until_it_is_killed() {
    let place = Place::at(Path::new(&environment("FOLDER")));
    let run: u64 = environment("RUN").parse().unwrap();
    let compression = Compression::ALL[usize::try_from(run % 3).unwrap()];
    let mut file = place.open(Rotation { compression, keep: 1_000_000, ..by_size(20_000) });
    file.exchanges = run.is_multiple_of(2);
    let mut number = 0;
    loop {
        place.set_clock(SystemTime::now());
        let count = 1 + number % 11;
        let lines: String = (number..number + count).map(|number| numbered(run, number)).collect();
        number += count;
        write(&mut file, &lines);
        if number == count {
            println!("{BEGUN}");
        }
        // Else all there is to see is files that wait to be compressed.
        thread::sleep(Duration::from_millis(5));
    }
}

// === all together ===

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<usize>),
    Tick(i64),
    Rotate(u64, Compression),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(20usize..90, 0..9).prop_map(Step::Write),
        3 => (-100i64..4000).prop_map(Step::Tick),
        1 => (20u64..400, prop::sample::select(Compression::ALL.to_vec()))
            .prop_map(|(size, compression)| Step::Rotate(size, compression)),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_files_in_order_are_all_lines_in_order(exchanges: bool, steps in steps()) {
        let place = Place::new();
        let mut rotation = Rotation { age: Duration::from_hours(1), ..by_size(200) };
        let open = |rotation| {
            let mut file = place.open(rotation);
            file.exchanges = exchanges;
            file
        };
        let mut file = open(rotation);
        let (mut all, mut number, mut largest) = (String::new(), 0, rotation.size);
        for step in steps {
            match step {
                Step::Write(lens) => {
                    let mut lines = String::new();
                    for len in lens {
                        number += 1;
                        let _ = writeln!(lines, "{{\"n\":{number:09}{}}}", " ".repeat(len - 16));
                    }
                    write(&mut file, &lines);
                    all += &lines;
                }
                Step::Tick(seconds) => {
                    let now = *place.now.lock().unwrap();
                    let by = Duration::from_secs(seconds.unsigned_abs());
                    place.set_clock(if seconds < 0 { now - by } else { now + by });
                    file.tick();
                }
                Step::Rotate(size, compression) => {
                    rotation = Rotation { size, compression, ..rotation };
                    largest = largest.max(size);
                    file.set_rotation(rotation);
                }
                Step::Restart => {
                    file.close().unwrap();
                    file = open(rotation);
                }
            }
        }
        file.archive.settle();
        let stats = file.stats();
        prop_assert!(stats.trouble.is_none(), "{:?}", stats.trouble);
        prop_assert_eq!(stats.kept, place.rotated().len() as u64);
        file.close().unwrap();
        let contents = place.contents();
        prop_assert_eq!(contents.concat(), all);
        for content in contents {
            prop_assert!(content.len() as u64 <= largest || content.lines().count() == 1);
        }
    }
}
