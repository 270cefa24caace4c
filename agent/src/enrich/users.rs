//! Names of users and groups, as the host's files give them.
//!
//! `/etc/passwd` and `/etc/group` (passwd(5), group(5)) are read, and nothing else is asked: NSS would load
//! the host's libraries into the agent and may go to the network for an answer. Users that only a
//! directory service or systemd (`DynamicUser=`) knows have no name here.
//!
//! Ids are those of the initial user namespace, which is what the kernel programs report. A process in a
//! user namespace of its own has an id that was lent to somebody by `/etc/subuid` or `/etc/subgid`
//! (subuid(5)). Such an id has the name `owner+offset`: with `alice:100000:65536`, uid 100165 is
//! `alice+165`. Offsets count on through the ranges of one owner in the order of the file, the way rootless
//! Podman and Docker map them: there `alice+165` is uid 166 of the namespace, uid 0 being alice herself. No
//! user can be called that: useradd(8) admits no `+`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nightjar_proto::text;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

/// The most entries that are taken from one file.
const MAX_ENTRIES: usize = 100_000;

/// The most bytes that are read of one file: 160 for each entry, where 50 to 80 are usual.
const MAX_BYTES: u64 = 160 * MAX_ENTRIES as u64;

/// The most ids without an entry whose answers are kept. One user namespace has 65,536 ids, but few of
/// them run something.
const MAX_DERIVED: usize = 8_192;

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `(uid_t)-1` and `(gid_t)-1` mean "none": an unset loginuid, a side of chown(2) left alone.
const NO_ID: u32 = u32::MAX;

/// Names by id, as a file has them.
type Entries = HashMap<u32, Arc<str>>;

/// The users and groups of a host.
///
/// A file is read when its identity (device, inode, size, times of change) is not the one it had; they are
/// looked at with the first lookup and then once a second at most, and only when there is a lookup. A file
/// that is missing or no regular file has no names, until it is there. Symbolic links, absolute ones too,
/// are followed within the root.
///
/// At most 100,000 entries and 16 MB of a file are taken; that there are more is told by a warning, once
/// per file. Lines that are not valid are passed over: comments, `+` and `-` of NIS, those without a name
/// or a number. Where an id is there twice, its first line counts, as it does with glibc.
#[derive(Debug)]
pub struct Users {
    root: PathBuf,
    passwd: Watched,
    group: Watched,
    subuid: Watched,
    subgid: Watched,
    by_uid: Names,
    by_gid: Names,
    /// When the files are due to be looked at, by the clock of [`coarse_now`]; at first, at once.
    due: Option<Duration>,
}

impl Users {
    /// The users of the system whose root directory is `root`.
    ///
    /// Nothing is read yet: `root` need not be there.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            passwd: Watched::new("etc/passwd"),
            group: Watched::new("etc/group"),
            subuid: Watched::new("etc/subuid"),
            subgid: Watched::new("etc/subgid"),
            by_uid: Names::default(),
            by_gid: Names::default(),
            due: None,
        }
    }

    /// The users of the host: of `/proc/1/root` where process 1 has another mount namespace than the agent
    /// and its root can be read, as in a container with the host's PID namespace; else of `/`.
    #[must_use]
    pub fn host() -> Self {
        Self::new(host_root())
    }

    /// The name of user `uid`, a uid of the initial user namespace: a name of `/etc/passwd`, else
    /// `owner+offset` by `/etc/subuid`.
    pub fn user(&mut self, uid: u32) -> Option<Arc<str>> {
        self.user_at(uid, coarse_now())
    }

    /// The name of group `gid`, a gid of the initial user namespace: a name of `/etc/group`, else
    /// `owner+offset` by `/etc/subgid`, where the owner is a user.
    pub fn group(&mut self, gid: u32) -> Option<Arc<str>> {
        self.group_at(gid, coarse_now())
    }

    fn user_at(&mut self, uid: u32, now: Duration) -> Option<Arc<str>> {
        self.look(now);
        self.by_uid.name(uid, None)
    }

    fn group_at(&mut self, gid: u32, now: Duration) -> Option<Arc<str>> {
        self.look(now);
        self.by_gid.name(gid, Some(&self.by_uid.entries))
    }

    /// Takes note of files that have changed, if they are due to be looked at.
    fn look(&mut self, now: Duration) {
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        self.due = Some(now + LOOK_EVERY);
        let mut changed = false;
        // passwd(5): name:password:uid:gid:… and group(5): name:password:gid:…; glibc takes no line without
        // these numbers.
        for (file, numbers, names) in
            [(&mut self.passwd, 2, &mut self.by_uid), (&mut self.group, 1, &mut self.by_gid)]
        {
            if let Some(bytes) = file.read_if_changed(&self.root) {
                names.entries = parse_entries(&bytes, numbers, &mut file.cut);
                file.warn_once_if_cut(&self.root);
                changed = true;
            }
        }
        for (file, names) in [(&mut self.subuid, &mut self.by_uid), (&mut self.subgid, &mut self.by_gid)] {
            if let Some(bytes) = file.read_if_changed(&self.root) {
                names.ranges = parse_ranges(&bytes, &mut file.cut);
                file.warn_once_if_cut(&self.root);
                changed = true;
            }
        }
        if changed {
            self.by_uid.derived.clear();
            self.by_gid.derived.clear();
        }
    }
}

// === impl Names ===

/// The names of one kind of id.
#[derive(Debug, Default)]
struct Names {
    entries: Entries,
    ranges: Vec<Range>,
    /// Answers for ids without an entry, so that they cost one lookup as well.
    derived: HashMap<u32, Option<Arc<str>>>,
}

impl Names {
    /// The name of `id`; `users` are the users that ids can be lent to, where these are not they.
    fn name(&mut self, id: u32, users: Option<&Entries>) -> Option<Arc<str>> {
        if let Some(name) = self.entries.get(&id) {
            return Some(Arc::clone(name));
        }
        if let Some(answer) = self.derived.get(&id) {
            return answer.clone();
        }
        let answer = self.lent(id, users.unwrap_or(&self.entries));
        if self.derived.len() >= MAX_DERIVED {
            self.derived.clear();
        }
        self.derived.insert(id, answer.clone());
        answer
    }

    /// The name of an id that was lent to one of `users`.
    fn lent(&self, id: u32, users: &Entries) -> Option<Arc<str>> {
        if id == NO_ID {
            return None;
        }
        let (at, range) = self.ranges.iter().enumerate().find(|(_, range)| range.contains(id))?;
        let owner = range.owner(users);
        let before: u64 =
            self.ranges[..at].iter().filter(|r| r.owner(users) == owner).map(|r| u64::from(r.count)).sum();
        let offset = before + u64::from(id - range.first);
        Some(format!("{owner}+{offset}").into())
    }
}

// === impl Range ===

/// Ids that are lent to a user: a line of subuid(5) or subgid(5).
#[derive(Debug)]
struct Range {
    owner: Arc<str>,
    first: u32,
    count: u32,
}

impl Range {
    fn contains(&self, id: u32) -> bool {
        id.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// The owner's name, where the file has a uid and that uid has a name.
    fn owner<'a>(&'a self, users: &'a Entries) -> &'a str {
        parse_id(self.owner.as_bytes()).and_then(|uid| users.get(&uid)).unwrap_or(&self.owner)
    }
}

// === impl Watched ===

/// A file that is read when it has changed.
#[derive(Debug)]
struct Watched {
    /// Relative to the root.
    path: &'static str,
    /// What was there when it was last read.
    seen: Option<Identity>,
    /// Whether the file had more than is taken.
    cut: bool,
    warned: bool,
}

/// What tells one state of a file from another: device, inode, size, modification and change time.
type Identity = (u64, u64, i64, i64, u64, i64, u64);

impl Watched {
    const fn new(path: &'static str) -> Self {
        Self { path, seen: None, cut: false, warned: false }
    }

    /// What the file has, if that is not what it had; nothing is what a file has that cannot be read.
    fn read_if_changed(&mut self, root: &Path) -> Option<Vec<u8>> {
        // Neither reads nor counts as opening the file: a path is all that this asks for.
        let now = match open_in(root, self.path, OFlags::PATH).and_then(|file| identity(&file)) {
            Ok(identity) => identity,
            Err(error) if is_passing(error) => return None,
            Err(_) => None,
        };
        if now == self.seen {
            return None;
        }
        if now.is_none() {
            self.seen = None;
            return Some(Vec::new());
        }
        match self.read(root) {
            Ok((bytes, identity)) => {
                self.seen = identity;
                Some(bytes)
            }
            Err(error) if Errno::from_io_error(&error).is_some_and(is_passing) => None,
            Err(error) => {
                tracing::debug!(path = %root.join(self.path).display(), %error, "names are not readable");
                // As what was seen, so that it is tried again when the file changes its mode.
                self.seen = now;
                Some(Vec::new())
            }
        }
    }

    fn read(&mut self, root: &Path) -> io::Result<(Vec<u8>, Option<Identity>)> {
        // Should it have become a FIFO, opening it must not wait for a writer.
        let file = open_in(root, self.path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        // Before the read: a change meanwhile is then found with the next look.
        let identity = identity(&file)?;
        let mut bytes = Vec::new();
        if identity.is_some() {
            File::from(file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        }
        self.cut = bytes.len() as u64 > MAX_BYTES;
        if self.cut {
            // Drops the line that was cut in two.
            bytes.truncate(bytes.iter().rposition(|&b| b == b'\n').unwrap_or(0));
        }
        Ok((bytes, identity))
    }

    fn warn_once_if_cut(&mut self, root: &Path) {
        if self.cut && !self.warned {
            self.warned = true;
            tracing::warn!(
                path = %root.join(self.path).display(),
                max_entries = MAX_ENTRIES,
                max_bytes = MAX_BYTES,
                "the file is larger than is taken; ids in the rest of it have no names"
            );
        }
    }
}

/// Opens `path` as a process would whose root directory is `root`: links do not lead out of it.
fn open_in(root: &Path, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The identity of a regular file; none for anything else, which is as good as no file.
fn identity(file: &OwnedFd) -> rustix::io::Result<Option<Identity>> {
    let stat = fstat(file)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_file.then_some((
        stat.st_dev,
        stat.st_ino,
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
    )))
}

/// Whether an error says nothing about the file, so that what was read of it stays good.
fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::INTR | Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// Names by id of `name:password:number[:number]…`; `numbers` says how many numbers there have to be.
fn parse_entries(bytes: &[u8], numbers: usize, cut: &mut bool) -> Entries {
    let mut names = Entries::new();
    for line in lines(bytes) {
        let mut fields = line.split(|&b| b == b':');
        let Some(name) = fields.next().filter(|name| !name.is_empty()) else { continue };
        let mut ids = fields.skip(1).map(parse_id);
        let Some(Some(id)) = ids.next() else { continue };
        if id == NO_ID || (1..numbers).any(|_| ids.next().flatten().is_none()) {
            continue;
        }
        let full = names.len() >= MAX_ENTRIES;
        if let Entry::Vacant(entry) = names.entry(id) {
            if full {
                *cut = true;
                break;
            }
            entry.insert(text::from_bytes(name).into());
        }
    }
    names
}

/// Ranges of `owner:first:count`.
fn parse_ranges(bytes: &[u8], cut: &mut bool) -> Vec<Range> {
    let mut ranges = Vec::new();
    for line in lines(bytes) {
        let mut fields = line.split(|&b| b == b':');
        let (Some(owner), Some(first), Some(count), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (Some(first), Some(count)) = (parse_id(first), parse_id(count)) else { continue };
        if owner.is_empty() {
            continue;
        }
        if ranges.len() >= MAX_ENTRIES {
            *cut = true;
            break;
        }
        ranges.push(Range { owner: text::from_bytes(owner).into(), first, count });
    }
    ranges
}

/// The lines that can be entries.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|&b| b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !matches!(line.first(), None | Some(b'#' | b'+' | b'-')))
}

/// A decimal number without a sign.
fn parse_id(field: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(field).ok()?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Time since boot, to a few milliseconds: a tenth of the cost of the exact time, and never a system call.
fn coarse_now() -> Duration {
    // Neither part is ever negative; if one were, the files would be looked at late, not never.
    Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).unwrap_or_default()
}

/// The root directory of the host as the agent can reach it.
fn host_root() -> &'static Path {
    let (own, init) = ("/proc/self/ns/mnt", "/proc/1/ns/mnt");
    let namespace = |path| fs::metadata(path).map(|namespace| (namespace.dev(), namespace.ino()));
    let root = Path::new("/proc/1/root");
    match (namespace(own), namespace(init)) {
        (Ok(own), Ok(init)) if own != init && fs::metadata(root.join("etc")).is_ok() => root,
        _ => Path::new("/"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A host's root directory, and a clock.
    struct Host {
        root: TempDir,
        users: Users,
        now: Duration,
    }

    impl Host {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("etc")).unwrap();
            let users = Users::new(root.path());
            Self { root, users, now: Duration::from_secs(1_000) }
        }

        fn with(path: &str, content: impl AsRef<[u8]>) -> Self {
            Self::new().and(path, content)
        }

        fn and(self, path: &str, content: impl AsRef<[u8]>) -> Self {
            self.write(path, content);
            self
        }

        fn write(&self, path: &str, content: impl AsRef<[u8]>) {
            fs::write(self.path(path), content).unwrap();
        }

        fn path(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        fn wait(&mut self) {
            self.now += LOOK_EVERY;
        }

        fn user(&mut self, uid: u32) -> Option<String> {
            self.users.user_at(uid, self.now).as_deref().map(str::to_owned)
        }

        fn group(&mut self, gid: u32) -> Option<String> {
            self.users.group_at(gid, self.now).as_deref().map(str::to_owned)
        }

        fn lookups_are(&mut self, expected: &[(u32, Option<&str>)]) {
            for (uid, name) in expected {
                assert_eq!(self.user(*uid).as_deref(), *name, "uid {uid}");
            }
        }
    }

    const ALICE: &str = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\n";

    #[test]
    fn users_and_groups_have_the_names_of_the_files() {
        let mut host = Host::with("etc/passwd", ALICE).and("etc/group", "root:x:0:\nwheel:x:10:alice\n");
        host.lookups_are(&[(0, Some("root")), (1000, Some("alice")), (1001, None)]);
        assert_eq!(host.group(10).as_deref(), Some("wheel"));
        assert_eq!(host.group(1000), None);
    }

    #[test]
    fn lines_that_are_no_entries_are_passed_over() {
        let passwd = [
            "# root:x:1:1::/:",
            "+bob:x:2:2::/:",
            "+::::::",
            "-eve:x:3:3::/:",
            "",
            ":x:4:4::/:",
            "short:x:5",
            "shorter:x",
            "word",
            "letters:x:six:6::/:",
            "signed:x:+7:7::/:",
            "negative:x:-8:8::/:",
            "empty:x::9::/:",
            "large:x:4294967296:1::/:",
            "none:x:4294967295:1::/:",
            "\t indented:x:10:10::/:",
            "crlf:x:11:11::/:\r",
            "bare:x:12:12",
            "no-gid:x:13:word::/:",
            "last:x:14:14::/:/bin/sh",
        ]
        .join("\n");
        let mut host = Host::with("etc/passwd", passwd);
        for id in (1..10).chain([13, NO_ID]) {
            assert_eq!(host.user(id), None, "uid {id}");
        }
        host.lookups_are(&[
            (10, Some("indented")),
            (11, Some("crlf")),
            (12, Some("bare")),
            (14, Some("last")),
        ]);
    }

    #[test]
    fn a_group_needs_no_list_of_members() {
        assert_eq!(Host::with("etc/group", "wheel:x:10").group(10).as_deref(), Some("wheel"));
    }

    #[test]
    fn of_two_lines_with_one_id_the_first_counts() {
        let mut host = Host::with("etc/passwd", "root:x:0:0::/:\ntoor:x:0:0::/:\n");
        assert_eq!(host.user(0).as_deref(), Some("root"));
    }

    #[test]
    fn a_name_that_is_no_utf8_is_written_as_text() {
        let mut host = Host::with("etc/passwd", b"caf\xe9:x:7:7::/:\nb\xc3\xa9a:x:8:8::/:\n");
        host.lookups_are(&[(7, Some(r"caf\xe9")), (8, Some("b\u{e9}a"))]);
    }

    #[test]
    fn a_change_is_seen_a_second_later_and_not_before() {
        let mut host = Host::with("etc/passwd", ALICE);
        assert_eq!(host.user(1000).as_deref(), Some("alice"));
        assert_eq!(host.user(1001), None);
        host.write("etc/passwd.new", format!("{ALICE}bob:x:1001:1001::/:\n"));
        fs::rename(host.path("etc/passwd.new"), host.path("etc/passwd")).unwrap();
        host.now += LOOK_EVERY.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(host.user(1001), None);
        host.now += Duration::from_millis(1);
        assert_eq!(host.user(1001).as_deref(), Some("bob"));
    }

    #[test]
    fn a_file_replaced_by_one_of_the_same_size_is_read_again() {
        let mut host = Host::with("etc/passwd", "alice:x:7:7::/:\n");
        assert_eq!(host.user(7).as_deref(), Some("alice"));
        host.write("etc/passwd.new", "carol:x:7:7::/:\n");
        fs::rename(host.path("etc/passwd.new"), host.path("etc/passwd")).unwrap();
        host.wait();
        assert_eq!(host.user(7).as_deref(), Some("carol"));
    }

    #[test]
    fn a_file_that_did_not_change_is_not_read_again() {
        let mut host = Host::with("etc/passwd", ALICE);
        assert_eq!(host.user(0).as_deref(), Some("root"));
        let seen = host.users.passwd.seen;
        assert!(seen.is_some());
        host.wait();
        let root = host.root.path().to_owned();
        assert_eq!(host.users.passwd.read_if_changed(&root), None);
        assert_eq!(host.users.passwd.seen, seen);
    }

    #[test]
    fn a_file_that_comes_and_goes_is_noticed() {
        let mut host = Host::new();
        assert_eq!(host.user(0), None);
        host.write("etc/passwd", ALICE);
        host.wait();
        assert_eq!(host.user(0).as_deref(), Some("root"));
        fs::remove_file(host.path("etc/passwd")).unwrap();
        host.wait();
        assert_eq!(host.user(0), None);
    }

    #[test]
    fn a_root_that_is_not_there_yet_is_tried_again() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("later");
        let mut users = Users::new(&root);
        assert_eq!(users.user_at(0, Duration::ZERO), None);
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), ALICE).unwrap();
        assert_eq!(users.user_at(0, LOOK_EVERY).as_deref(), Some("root"));
    }

    #[test]
    fn a_directory_in_place_of_a_file_has_no_names() {
        let mut host = Host::new();
        fs::create_dir(host.path("etc/passwd")).unwrap();
        assert_eq!(host.user(0), None);
        fs::remove_dir(host.path("etc/passwd")).unwrap();
        host.write("etc/passwd", ALICE);
        host.wait();
        assert_eq!(host.user(0).as_deref(), Some("root"));
    }

    #[test]
    fn a_fifo_in_place_of_a_file_does_not_block() {
        let mut host = Host::new();
        rustix::fs::mknodat(CWD, host.path("etc/passwd"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(host.user(0), None);
    }

    #[test]
    fn a_file_that_becomes_readable_is_read() {
        let mut host = Host::with("etc/passwd", ALICE);
        fs::set_permissions(host.path("etc/passwd"), fs::Permissions::from_mode(0o000)).unwrap();
        // Root may read it all the same; either way there is an answer a second after the change.
        let _ = host.user(0);
        fs::set_permissions(host.path("etc/passwd"), fs::Permissions::from_mode(0o644)).unwrap();
        host.wait();
        assert_eq!(host.user(0).as_deref(), Some("root"));
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let mut host = Host::with("etc/users", ALICE);
        symlink("/etc/users", host.path("etc/passwd")).unwrap();
        symlink("../../../../../../../../etc/group", host.path("etc/group")).unwrap();
        assert_eq!(host.user(1000).as_deref(), Some("alice"));
        // Out of the root it would be this system's /etc/group, which has a group 0.
        assert_eq!(host.group(0), None);
    }

    #[test]
    fn a_lent_id_has_its_owner_s_name_and_the_offset() {
        let mut host = Host::with("etc/passwd", ALICE)
            .and("etc/subuid", "alice:100000:65536\nbob:165536:65536\n")
            .and("etc/subgid", "alice:200000:10\n");
        host.lookups_are(&[
            (99_999, None),
            (100_000, Some("alice+0")),
            (100_165, Some("alice+165")),
            (165_535, Some("alice+65535")),
            (165_536, Some("bob+0")),
            (231_072, None),
        ]);
        assert_eq!(host.group(200_009).as_deref(), Some("alice+9"));
        assert_eq!(host.group(200_010), None);
        assert_eq!(host.group(100_000), None);
    }

    #[test]
    fn an_entry_counts_before_a_range() {
        let mut host = Host::with("etc/passwd", "svc:x:100005:1::/:\n").and("etc/subuid", "a:100000:65536");
        assert_eq!(host.user(100_005).as_deref(), Some("svc"));
    }

    #[test]
    fn offsets_count_on_through_the_ranges_of_an_owner() {
        let subuid = "alice:100000:100\nbob:5000000:9\n1000:200000:100\n";
        let mut host = Host::with("etc/passwd", ALICE).and("etc/subuid", subuid);
        host.lookups_are(&[(200_001, Some("alice+101")), (5_000_000, Some("bob+0"))]);
    }

    #[test]
    fn an_owner_given_by_uid_has_a_name_as_soon_as_the_uid_has() {
        let mut host = Host::with("etc/subuid", "1000:100000:65536\n");
        assert_eq!(host.user(100_001).as_deref(), Some("1000+1"));
        host.write("etc/passwd", ALICE);
        host.wait();
        assert_eq!(host.user(100_001).as_deref(), Some("alice+1"));
    }

    #[test]
    fn ranges_that_make_no_sense_lend_nothing() {
        let subuid = "# a:1:9\n:10:9\na:20\na:30:9:9\na:b:9\na:40:-1\na:50:0\na:4294967290:4294967295\n";
        let mut host = Host::with("etc/subuid", subuid);
        for id in [1, 10, 20, 30, 40, 50, NO_ID] {
            assert_eq!(host.user(id), None, "uid {id}");
        }
        assert_eq!(host.user(NO_ID - 1).as_deref(), Some("a+4"));
    }

    #[test]
    fn a_huge_file_is_cut() {
        use std::fmt::Write as _;
        let mut passwd = String::new();
        for uid in 0..=MAX_ENTRIES {
            writeln!(passwd, "u{uid}:x:{uid}:100::/:").unwrap();
        }
        let mut host = Host::with("etc/passwd", passwd);
        assert_eq!(host.user(99_999).as_deref(), Some("u99999"));
        assert_eq!(host.user(100_000), None);
        assert!(host.users.passwd.warned);
    }

    #[test]
    fn a_file_of_one_endless_line_is_cut() {
        let mut host = Host::new();
        let file = File::create(host.path("etc/passwd")).unwrap();
        file.set_len(1 << 34).unwrap();
        assert_eq!(host.user(0), None);
        assert!(host.users.passwd.warned);
    }

    #[test]
    fn a_flood_of_ids_does_not_grow_what_is_kept() {
        let mut host = Host::with("etc/subuid", "alice:100000:65536\n");
        for id in 100_000..120_000 {
            assert!(host.user(id).is_some());
        }
        assert!(host.users.by_uid.derived.len() <= MAX_DERIVED);
    }

    #[test]
    fn this_host_has_a_root() {
        assert_eq!(Users::host().user(0).as_deref(), Some("root"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let mut cut = false;
            parse_entries(&bytes, 2, &mut cut);
            parse_ranges(&bytes, &mut cut);
            proptest::prop_assert!(!cut);
        }

        #[test]
        fn lines_of_odd_fields_are_read(text in "([a:+#0-9-]{0,12}\n){0,20}") {
            let mut cut = false;
            for name in parse_entries(text.as_bytes(), 2, &mut cut).values() {
                proptest::prop_assert!(!name.is_empty() && !name.contains(':'));
            }
        }
    }
}
