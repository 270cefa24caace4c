use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown, symlink},
    thread,
    time::Instant,
};

use proptest::prelude::*;
use rustix::{
    fs::{CWD, Mode, mknodat},
    thread::{CapabilitySet, capabilities, set_capabilities},
};
use tempfile::TempDir;

use super::*;
use crate::files::policy::{Operation, PolicySpec, defaults};

/// A root directory that a test fills.
struct Host {
    directory: TempDir,
    root: Root,
}

/// What was found, with paths below the root.
struct Found {
    resolution: Resolution,
    files: Vec<String>,
    fs: PathBuf,
}

impl Host {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let fs = directory.path().to_owned();
        Self { directory, root: Root { fs, prefix: String::new(), containers_only: false } }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// Makes a directory for a path that ends in `/`, else a file.
    fn with(self, paths: &[&str]) -> Self {
        for path in paths {
            self.make(path);
        }
        self
    }

    fn make(&self, path: &str) {
        let at = self.path(path);
        if path.ends_with('/') {
            fs::create_dir_all(at).unwrap();
        } else {
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, path).unwrap();
        }
    }

    fn link(self, path: &str, target: &str) -> Self {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        symlink(target, self.path(path)).unwrap();
        self
    }

    fn find(&self, policies: &Policies) -> Found {
        self.find_within(policies, Limits::default())
    }

    fn find_within(&self, policies: &Policies, limits: Limits) -> Found {
        let mut files = Vec::new();
        let mut visit = |path: &Path, _: &Statx| files.push(path.to_str().unwrap().to_owned());
        let resolution = resolve(policies, &self.root, limits, &mut visit);
        Found { resolution, files, fs: self.root.fs.clone() }
    }

    fn find_below(&self, policies: &Policies, path: &str) -> Found {
        let mut files = Vec::new();
        let mut visit = |path: &Path, _: &Statx| files.push(path.to_str().unwrap().to_owned());
        let resolution = resolve_below(policies, &self.root, Limits::default(), Path::new(path), &mut visit);
        Found { resolution, files, fs: self.root.fs.clone() }
    }
}

impl Found {
    fn anchor(&self, path: &str) -> Option<&Anchor> {
        let path = self.fs.join(path.trim_start_matches('/'));
        self.resolution.anchors.iter().find(|anchor| anchor.path == path)
    }

    /// Levels of reads and changes.
    fn levels(&self, path: &str) -> (u8, u8) {
        self.anchor(path).map_or((0, 0), |anchor| (anchor.reads, anchor.writes))
    }

    fn mark(&self, path: &str) -> Option<&Mark> {
        let path = self.fs.join(path.trim_start_matches('/'));
        self.resolution.marks.iter().find(|mark| mark.path == path)
    }

    /// `c`, `r`, `e` for what a mark is for; nothing if there is none.
    fn marked(&self, path: &str) -> String {
        self.mark(path).map_or_else(String::new, |mark| {
            [(mark.changes, 'c'), (mark.reads, 'r'), (mark.entries, 'e')]
                .into_iter()
                .filter_map(|(is, letter)| is.then_some(letter))
                .collect()
        })
    }

    fn why(&self, path: &str) -> &str {
        let skipped = self.resolution.skipped.iter().find(|skipped| skipped.path == path);
        skipped.map_or("", |skipped| &skipped.why)
    }
}

fn spec(paths: &[&str]) -> PolicySpec {
    PolicySpec {
        name: paths.concat(),
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        ..PolicySpec::default()
    }
}

fn recursive(paths: &[&str]) -> PolicySpec {
    PolicySpec { recursive: true, ..spec(paths) }
}

fn with(operations: &[&str], spec: PolicySpec) -> PolicySpec {
    PolicySpec { operations: operations.iter().map(|&word| word.to_owned()).collect(), ..spec }
}

fn policies<const N: usize>(specs: [PolicySpec; N]) -> Policies {
    Policies::compile(specs.into()).unwrap()
}

#[test]
fn a_recursive_directory_is_one_anchor_and_every_directory_a_mark() {
    let host = Host::new().with(&["/etc/a/b/c", "/etc/d", "/other/x"]);
    let found = host.find(&policies([recursive(&["/etc"])]));
    assert_eq!(found.levels("/etc"), (0, 255));
    assert_eq!(found.levels("/etc/a"), (0, 0));
    for directory in ["/etc", "/etc/a", "/etc/a/b"] {
        assert_eq!(found.marked(directory), "ce", "{directory}");
    }
    assert_eq!(found.marked("/other"), "");
    // That it is moved away is seen by its own inode; that something moves above it, by the root's.
    assert_eq!(found.levels("/"), (0, 1));
    assert_eq!(found.files, ["/etc/d", "/etc/a/b/c"]);
    assert_eq!(found.resolution.files, 2);
    assert!(!found.resolution.truncated && found.resolution.skipped.is_empty());
}

#[test]
fn reading_has_levels_of_its_own() {
    let host = Host::new().with(&["/keys/a"]);
    let found = host.find(&policies([with(&["read"], recursive(&["/keys"]))]));
    assert_eq!(found.levels("/keys"), (255, 0));
    assert_eq!(found.marked("/keys"), "re");
}

#[test]
fn a_file_is_watched_in_its_directory_so_that_its_replacement_is_seen() {
    let host = Host::new().with(&["/etc/shadow", "/etc/passwd"]);
    let found = host.find(&policies([with(&["read", "change"], spec(&["/etc/shadow"]))]));
    let anchor = found.anchor("/etc").unwrap();
    assert_eq!((anchor.reads, anchor.writes), (0, 2));
    assert_eq!(anchor.read_names, [Box::from(*b"shadow")]);
    assert_eq!(found.marked("/etc"), "ce");
    // Marking the directory would tell of all that is opened there.
    assert_eq!(found.marked("/etc/shadow"), "cr");
    assert!(!found.mark("/etc/shadow").unwrap().is_directory);
    assert_eq!(found.files, ["/etc/shadow"]);
}

#[test]
fn names_with_globs_count_for_all_reads_of_the_directory() {
    let host = Host::new().with(&["/root/.ssh/id_rsa", "/root/.ssh/known_hosts"]);
    let found = host.find(&policies([with(&["read"], spec(&["/root/.ssh/id_*"]))]));
    assert_eq!(found.levels("/root/.ssh"), (2, 2));
    assert_eq!(found.marked("/root/.ssh"), "re");
    assert_eq!(found.files, ["/root/.ssh/id_rsa"]);
}

#[test]
fn what_is_missing_is_waited_for_at_the_nearest_directory() {
    let host = Host::new().with(&["/var/"]);
    let found = host.find(&policies([spec(&["/var/a/b/c"])]));
    assert_eq!(found.levels("/var"), (0, 4));
    assert_eq!(found.marked("/var"), "e");
    let found = host.find(&policies([recursive(&["/var/www"])]));
    assert_eq!(found.levels("/var"), (0, 3));
    let all = Limits { waiting: 255, ahead: 255, ..Limits::default() };
    assert_eq!(host.find_within(&policies([recursive(&["/var/www"])]), all).levels("/var"), (0, 255));
}

#[test]
fn what_is_far_away_is_waited_for_step_by_step() {
    let host = Host::new().with(&["/var/"]);
    let policies = policies([recursive(&["/var/a/b/c/d/e"])]);
    assert_eq!(host.find(&policies).levels("/var"), (0, 4));
    for step in ["/var/a", "/var/a/b", "/var/a/b/c"] {
        host.make(&format!("{step}/"));
        let found = host.find_below(&policies, step);
        assert_eq!(found.levels(step), (0, 4), "{step}");
        assert_eq!(found.marked(step), "e", "{step}");
    }
}

#[test]
fn what_was_missing_is_found_when_it_appears() {
    let host = Host::new().with(&["/var/"]);
    let policies = policies([with(&["read", "change"], recursive(&["/var/www/*/html"]))]);
    assert!(host.find(&policies).anchor("/var/www").is_none());
    host.make("/var/www/");
    let found = host.find_below(&policies, "/var/www");
    assert_eq!(found.levels("/var/www"), (0, 4));
    host.make("/var/www/a/html/x/index");
    let found = host.find_below(&policies, "/var/www/a");
    assert_eq!(found.levels("/var/www/a/html"), (255, 255));
    assert_eq!(found.marked("/var/www/a/html/x"), "cre");
    assert_eq!(found.files, ["/var/www/a/html/x/index"]);
}

#[test]
fn a_new_directory_in_a_tree_needs_marks_and_no_anchor() {
    let host = Host::new().with(&["/etc/new/sub/file"]);
    let found = host.find_below(&policies([recursive(&["/etc"])]), "/etc/new");
    assert_eq!(found.resolution.anchors, []);
    assert_eq!(found.marked("/etc/new"), "ce");
    assert_eq!(found.marked("/etc/new/sub"), "ce");
    assert_eq!(found.marked("/etc"), "");
    assert_eq!(found.files, ["/etc/new/sub/file"]);
}

#[test]
fn what_is_of_no_concern_is_not_looked_at() {
    let host = Host::new().with(&["/srv/a/b", "/proc/1/mem"]);
    let policies = policies([recursive(&["/etc", "/proc/*/mem"])]);
    for path in ["/srv/a", "/missing", "/proc/1", "/srv/a/b"] {
        let found = host.find_below(&policies, path).resolution;
        assert!(found.anchors.is_empty() && found.marks.is_empty() && found.directories == 0, "{path}");
    }
}

#[test]
fn a_file_that_was_replaced_is_marked_anew() {
    let host = Host::new().with(&["/etc/shadow", "/etc/x"]);
    let found = host.find_below(&policies([with(&["read"], spec(&["/etc/shadow"]))]), "/etc/shadow");
    assert_eq!(found.marked("/etc/shadow"), "r");
    assert_eq!(found.marked("/etc"), "e");
    assert_eq!(found.files, ["/etc/shadow"]);
}

#[test]
fn globs_in_the_middle_wait_for_others_that_fit() {
    let host = Host::new().with(&["/home/alice/.ssh/id", "/home/bob/"]);
    let found = host.find(&policies([spec(&["/home/*/.ssh"])]));
    assert_eq!(found.levels("/home"), (0, 3));
    assert_eq!(found.marked("/home"), "e");
    assert_eq!(found.marked("/home/bob"), "e");
    assert_eq!(found.levels("/home/bob"), (0, 0));
    assert_eq!(found.levels("/home/alice/.ssh"), (0, 2));
    assert_eq!(found.files, ["/home/alice/.ssh/id"]);
}

#[test]
fn two_stars_are_a_tree() {
    let host = Host::new().with(&["/pki/a/b/c.key", "/pki/a/b/c.crt", "/pki/d.key"]);
    let found = host.find(&policies([with(&["read"], spec(&["/pki/**/*.key"]))]));
    assert_eq!(found.levels("/pki"), (255, 0));
    assert_eq!(found.marked("/pki/a/b"), "re");
    assert_eq!(found.files, ["/pki/d.key", "/pki/a/b/c.key"]);
}

#[test]
fn links_that_a_policy_names_are_followed() {
    let host = Host::new().with(&["/usr/bin/ls"]).link("/bin", "usr/bin").link("/sbin", "/usr/../usr/bin/.");
    let found = host.find(&policies([recursive(&["/bin"])]));
    let anchor = found.anchor("/usr/bin").unwrap();
    assert_eq!((anchor.canonical.as_path(), anchor.writes), (Path::new("/bin"), 255));
    assert_eq!(found.mark("/usr/bin").unwrap().canonical, Path::new("/bin"));
    assert_eq!(found.files, ["/bin/ls"]);
    // The link can be replaced.
    assert_eq!(found.levels("/"), (0, 2));
    assert_eq!(host.find(&policies([recursive(&["/sbin"])])).files, ["/sbin/ls"]);
}

#[test]
fn a_directory_with_several_paths_has_those_by_which_more_is_covered() {
    let host = Host::new().with(&["/usr/bin/ls"]).link("/bin", "usr/bin");
    let found = host.find(&policies([recursive(&["/bin", "/usr/bin"])]));
    let anchor = found.anchor("/usr/bin").unwrap();
    assert_eq!((anchor.canonical.as_path(), anchor.aliases.len()), (Path::new("/usr/bin"), 0));
    assert_eq!(found.files, ["/usr/bin/ls"]);

    let found = host.find(&policies([recursive(&["/usr/bin"]), with(&["read"], recursive(&["/bin"]))]));
    let anchor = found.anchor("/usr/bin").unwrap();
    assert_eq!(anchor.canonical, Path::new("/usr/bin"));
    assert_eq!(anchor.aliases, [Path::new("/bin")]);
    assert_eq!((anchor.reads, anchor.writes), (255, 255));
    assert_eq!(found.files, ["/usr/bin/ls", "/bin/ls"]);
}

#[test]
fn links_in_a_tree_are_not_followed() {
    let host = Host::new().with(&["/srv/a", "/other/b"]).link("/srv/link", "/other");
    let found = host.find(&policies([recursive(&["/srv"])]));
    assert_eq!(found.files, ["/srv/a"]);
    assert_eq!(found.marked("/other"), "");
}

#[test]
fn a_link_to_a_file_makes_the_file_an_anchor() {
    let host = Host::new().with(&["/run/real"]).link("/etc/conf", "../run/real");
    let found = host.find(&policies([with(&["read", "change"], spec(&["/etc/conf"]))]));
    assert_eq!(found.levels("/run/real"), (1, 1));
    assert_eq!(found.anchor("/run/real").unwrap().canonical, Path::new("/etc/conf"));
    assert_eq!(found.levels("/etc"), (0, 2));
    assert_eq!(found.files, ["/etc/conf"]);
}

#[test]
fn links_stay_below_the_root() {
    let host = Host::new().with(&["/data/x"]).link("/a", "../../../../data").link("/b", "/data");
    let found = host.find(&policies([spec(&["/a"]), spec(&["/b"])]));
    assert_eq!(found.files, ["/a/x", "/b/x"]);
}

#[test]
fn links_in_a_circle_are_told() {
    let host = Host::new().link("/a", "b").link("/b", "a").link("/c", "nowhere");
    let found = host.find(&policies([spec(&["/a"]), spec(&["/c"])]));
    assert!(found.why("/a").contains("more than 40 symbolic links"), "{}", found.why("/a"));
    assert_eq!(found.why("/c"), "");
    assert_eq!(found.levels("/"), (0, 2));
}

#[test]
fn nobody_has_what_is_not_theirs_watched() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new().with(&["/etc/x", "/home/eve/own/x", "/home/bob/"]);
    let host = host.link("/home/eve/.ssh", "/etc").link("/home/bob/.ssh", "../eve/own");
    for path in ["/home/eve/.ssh", "/home/eve/own", "/home/bob/.ssh"] {
        lchown(host.path(path), Some(1000), None).unwrap();
    }
    let found = host.find(&policies([recursive(&["/home/*/.ssh"])]));
    assert_eq!(found.files, ["/home/bob/.ssh/x"]);
    assert!(found.why("/home/eve/.ssh").contains("of user 1000 and leads to what belongs to user 0"));
}

#[test]
fn a_file_with_several_names_is_an_anchor() {
    let host = Host::new().with(&["/etc/passwd", "/tmp/"]);
    fs::hard_link(host.path("/etc/passwd"), host.path("/tmp/x")).unwrap();
    let found = host.find(&policies([recursive(&["/etc"])]));
    assert_eq!(found.levels("/etc/passwd"), (0, 1));
    assert_eq!(found.anchor("/etc/passwd").unwrap().canonical, Path::new("/etc/passwd"));
    let few = Limits { hard_links: 0, ..Limits::default() };
    let found = host.find_within(&policies([recursive(&["/etc"])]), few);
    assert!(found.anchor("/etc/passwd").is_none() && found.resolution.truncated);
    assert!(found.why("/etc/passwd").contains("more than 0 files with several names"));
}

#[test]
fn neither_fifos_nor_devices_are_opened() {
    let host = Host::new().with(&["/srv/a", "/dev/"]);
    for path in ["/srv/fifo", "/dev/mem"] {
        mknodat(CWD, host.path(path), FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
    let found = host.find(&policies([recursive(&["/srv"]), with(&["read"], spec(&["/dev/mem"]))]));
    assert_eq!(found.files, ["/srv/a"]);
    assert_eq!(found.levels("/dev/mem"), (1, 0));
}

#[test]
fn a_directory_that_cannot_be_read_is_an_anchor_all_the_same() {
    let host = Host::new().with(&["/srv/closed/x/y", "/srv/open/z"]);
    fs::set_permissions(host.path("/srv/closed"), Permissions::from_mode(0o000)).unwrap();
    let found = thread::scope(|scope| {
        let without_rights = || {
            let mut sets = capabilities(None).unwrap();
            sets.effective &= !(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).unwrap();
            host.find(&policies([recursive(&["/srv"]), recursive(&["/srv/closed"])]))
        };
        scope.spawn(without_rights).join().unwrap()
    });
    fs::set_permissions(host.path("/srv/closed"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(found.levels("/srv"), (0, 255));
    assert_eq!(found.marked("/srv/closed"), "ce");
    assert!(found.why("/srv/closed").starts_with("cannot be listed: Permission denied"));
    assert_eq!(found.files, ["/srv/open/z"]);
}

#[test]
fn names_need_not_be_text() {
    let host = Host::new().with(&["/srv/"]);
    let odd = host.path("/srv").join(OsStr::from_bytes(b"\xff\xfe"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("x"), "").unwrap();
    let mut files = Vec::new();
    let mut visit = |path: &Path, _: &Statx| files.push(path.to_owned());
    let policies = policies([recursive(&["/srv"])]);
    let resolution = resolve(&policies, &host.root, Limits::default(), &mut visit);
    assert_eq!(files, [Path::new(OsStr::from_bytes(b"/srv/\xff\xfe/x"))]);
    assert!(resolution.marks.iter().any(|mark| mark.path == odd));
}

#[test]
fn trees_that_are_ignored_are_not_walked() {
    let host = Host::new().with(&["/etc/.git/objects/x", "/etc/a.swp", "/etc/b"]);
    let ignore = vec!["/etc/.git/**".to_owned(), "*.swp".to_owned()];
    let found = host.find(&policies([PolicySpec { ignore, ..recursive(&["/etc"]) }]));
    assert_eq!(found.files, ["/etc/b"]);
    assert_eq!(found.marked("/etc/.git"), "");
}

#[test]
fn names_in_proc_are_given_and_not_looked_for() {
    let host = Host::new().with(&["/proc/1/mem", "/proc/kcore"]);
    let found = host.find(&policies([with(&["read"], spec(&["/proc/*/mem", "/proc/kcore"]))]));
    assert_eq!(found.resolution.proc_names, [b"kcore".to_vec(), b"mem".to_vec()]);
    assert!(found.anchor("/proc").is_none() && found.files.is_empty());
}

#[test]
fn only_policies_for_containers_count_in_one() {
    let mut host = Host::new().with(&["/etc/a", "/srv/b"]);
    host.root.containers_only = true;
    host.root.prefix = "container 0123: ".to_owned();
    let inside = PolicySpec { containers: true, ..recursive(&["/srv"]) };
    let specs = || [recursive(&["/etc"]), inside.clone()];
    assert_eq!(host.find(&policies(specs())).files, ["/srv/b"]);
    host.root.fs = host.path("/missing");
    let found = host.find(&policies(specs()));
    let message = found.resolution.skipped[0].to_string();
    assert!(message.starts_with("container 0123: /: cannot be opened at "), "{message}");
}

#[test]
fn file_systems_of_the_kernel_are_entered_by_name_only() {
    let root = Root { fs: "/".into(), prefix: String::new(), containers_only: false };
    let find = |path: &str| {
        let policies = policies([spec(&[path])]);
        resolve(&policies, &root, Limits::default(), &mut |_, _| {})
    };
    let is_anchor =
        |found: &Resolution, path: &str| found.anchors.iter().any(|anchor| anchor.path == Path::new(path));
    assert!(is_anchor(&find("/sys/kernel"), "/sys/kernel"));
    let found = find("/s?s/kernel");
    assert!(!is_anchor(&found, "/sys/kernel"));
    let skipped = found.skipped.iter().find(|skipped| skipped.path == "/sys").unwrap();
    assert!(skipped.why.contains("a file system of type sysfs"), "{}", skipped.why);
}

#[test]
fn what_is_mounted_in_a_tree_is_an_anchor() {
    use std::os::unix::fs::MetadataExt as _;

    let device = |path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    if device("/dev/shm").is_none() || device("/dev/shm") == device("/dev") {
        return;
    }
    let root = Root { fs: "/".into(), prefix: String::new(), containers_only: false };
    let policies = policies([with(&["read", "change"], recursive(&["/dev"]))]);
    let found = resolve(&policies, &root, Limits::default(), &mut |_, _| {});
    let mounted = found.anchors.iter().find(|anchor| anchor.path == Path::new("/dev/shm")).unwrap();
    assert_eq!((mounted.reads, mounted.writes), (255, 255));
    assert!(!found.anchors.iter().any(|anchor| anchor.path.starts_with("/dev/pts")));
}

#[test]
fn no_more_directories_are_walked_than_may_be() {
    let host = Host::new().with(&["/small/a/b", "/big/"]);
    for n in 0..300 {
        fs::create_dir(host.path(&format!("/big/{n}"))).unwrap();
    }
    let policies = policies([recursive(&["/big"]), recursive(&["/small"])]);
    let limits = Limits { directories: 100, ..Limits::default() };
    let found = host.find_within(&policies, limits);
    assert!(found.resolution.truncated);
    assert!(found.resolution.directories <= 100);
    assert!(found.why("/big").contains("more directories than the 100"));
    // Its share is left, and the anchors say it all.
    assert_eq!(found.marked("/small/a"), "ce");
    assert_eq!((found.levels("/big"), found.levels("/small")), ((0, 255), (0, 255)));
}

#[test]
fn no_more_files_are_visited_than_may_be() {
    let host = Host::new();
    for n in 0..30 {
        host.make(&format!("/srv/{n}"));
    }
    let limits = Limits { files: 10, ..Limits::default() };
    let found = host.find_within(&policies([recursive(&["/srv"])]), limits);
    assert_eq!((found.files.len(), found.resolution.truncated), (10, true));
    assert_eq!(found.resolution.skipped.len(), 1);
}

#[test]
fn depth_has_an_end() {
    let host = Host::new().with(&[&format!("/srv{}", "/d".repeat(40))]);
    let limits = Limits { depth: 20, ..Limits::default() };
    let found = host.find_within(&policies([recursive(&["/srv"])]), limits);
    assert!(found.resolution.truncated);
    assert!(found.resolution.skipped[0].why.contains("deeper than 20"));
}

#[test]
fn messages_have_an_end() {
    let host = Host::new();
    for n in 0..200 {
        symlink(format!("l{n}"), host.path(&format!("l{n}"))).unwrap();
    }
    let found = host.find(&policies([spec(&["/l*"])]));
    assert_eq!(found.resolution.skipped.len(), MAX_SKIPPED + 1);
    assert_eq!(found.resolution.skipped[MAX_SKIPPED].to_string(), "/: 100 more paths were passed over");
}

#[test]
fn the_defaults_resolve_on_this_host() {
    let root = Root { fs: "/".into(), prefix: String::new(), containers_only: false };
    let policies = Policies::compile(defaults()).unwrap();
    let found = resolve(&policies, &root, Limits::default(), &mut |_, _| {});
    assert!(found.anchors.iter().any(|anchor| anchor.path == Path::new("/etc") && anchor.writes == 255));
    assert!(found.files > 0);
}

/// A measurement, for `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn many_files_take_little_time() {
    let host = Host::new();
    for n in 0..100 {
        for m in 0..100 {
            let directory = host.path(&format!("/srv/directory-{n}/some-directory-{m}"));
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory).unwrap();
            for k in 0..10 {
                fs::write(directory.join(format!("file-{k}")), "").unwrap();
            }
        }
    }
    let policies = policies([recursive(&["/srv"]), spec(&["/etc/passwd"])]);
    let memory = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned()
    };
    println!("before {}", memory());
    let start = Instant::now();
    let found = resolve(&policies, &host.root, Limits::default(), &mut |_, _| {});
    println!("{:?} for {} files, {} marks", start.elapsed(), found.files, found.marks.len());
    println!("after {}", memory());

    let root = Root { fs: "/".into(), prefix: String::new(), containers_only: false };
    let defaults = Policies::compile(defaults()).unwrap();
    let start = Instant::now();
    let found = resolve(&defaults, &root, Limits::default(), &mut |_, _| {});
    println!(
        "defaults: {:?} for {} files, {} marks, {} anchors",
        start.elapsed(),
        found.files,
        found.marks.len(),
        found.anchors.len()
    );
    for anchor in &found.anchors {
        println!("{anchor:?}");
    }
    for skipped in &found.skipped {
        println!("{skipped}");
    }
}

// --- What the kernel relies on.

/// Whether the kernel lets through what is done to something.
fn admits(found: &Resolution, fs: &Path, path: &Path, operation: Operation) -> bool {
    let real = fs.join(path.strip_prefix("/").unwrap());
    let operations = Operations::of(&[operation]);
    found.anchors.iter().any(|anchor| {
        let Ok(below) = real.strip_prefix(&anchor.path) else { return false };
        let level = below.iter().count() + 1;
        let reaches = |levels: u8| levels == u8::MAX || level <= usize::from(levels);
        let has_name =
            || level == 2 && anchor.read_names.iter().any(|name| **name == *below.as_os_str().as_bytes());
        let is_read = !operations.intersects(Operations::BY_READERS) || reaches(anchor.reads) || has_name();
        let is_written = !operations.intersects(Operations::BY_WRITERS) || reaches(anchor.writes);
        let is_named =
            [&anchor.canonical].into_iter().chain(&anchor.aliases).any(|name| name.join(below) == path)
                || anchor.canonical == path;
        is_read && is_written && is_named
    })
}

fn each_path(directory: &Path, fs: &Path, found: &mut Vec<(PathBuf, bool)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            continue;
        }
        let path = Path::new("/").join(entry.path().strip_prefix(fs).unwrap());
        found.push((path, kind.is_dir()));
        if kind.is_dir() {
            each_path(&entry.path(), fs, found);
        }
    }
}

const NAMES: [&str; 4] = ["a", "b", "ab", "c.k"];

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(NAMES.to_vec());
    prop::collection::vec(name, 1..6).prop_map(|names| format!("/{}", names.join("/")))
}

fn pattern() -> impl Strategy<Value = String> {
    let component = prop::sample::select(vec!["a", "b", "ab", "c.k", "*", "**", "a*", "?", "[!a]", "*.k"]);
    prop::collection::vec(component, 1..5).prop_map(|names| format!("/{}", names.join("/")))
}

fn policy() -> impl Strategy<Value = PolicySpec> {
    let operations = prop::collection::vec(prop::sample::select(Operation::ALL.to_vec()), 0..3);
    let ignore = prop::collection::vec(prop_oneof![pattern(), Just("*b".to_owned())], 0..2);
    (prop::collection::vec(pattern(), 1..4), any::<bool>(), operations, ignore).prop_map(
        |(paths, recursive, operations, ignore)| PolicySpec {
            paths,
            recursive,
            ignore,
            operations: operations.iter().map(|operation| operation.name().to_owned()).collect(),
            ..PolicySpec::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_matches_is_let_through_by_an_anchor_and_visited(
        files in prop::collection::vec((path(), any::<bool>()), 1..12),
        links in prop::collection::vec((path(), path()), 0..3),
        specs in prop::collection::vec(policy(), 1..4),
    ) {
        let host = Host::new();
        let at = |path: &str| host.path(path);
        for (path, is_directory) in &files {
            // Some of them are in the way of others.
            let _ = fs::create_dir_all(at(path).parent().unwrap());
            let _ = if *is_directory { fs::create_dir(at(path)) } else { fs::write(at(path), "") };
        }
        for (path, target) in &links {
            let _ = symlink(target, at(path));
        }
        let specs: Vec<PolicySpec> = specs
            .into_iter()
            .enumerate()
            .map(|(index, spec)| PolicySpec { name: index.to_string(), ..spec })
            .collect();
        let policies = Policies::compile(specs).unwrap();
        let found = host.find(&policies);
        prop_assert!(!found.resolution.truncated);
        let visited: BTreeSet<&str> = found.files.iter().map(String::as_str).collect();

        let mut paths = Vec::new();
        each_path(host.directory.path(), host.directory.path(), &mut paths);
        for (path, is_directory) in paths {
            let bytes = path.as_os_str().as_bytes();
            for operation in Operation::ALL {
                if policies.matching(bytes, operation, is_directory).is_none() {
                    continue;
                }
                // Directories are opened by none that matters; their entries are.
                if is_directory && Operations::of(&[operation]).intersects(Operations::BY_READERS) {
                    continue;
                }
                prop_assert!(
                    admits(&found.resolution, host.directory.path(), &path, operation),
                    "{operation:?} of {path:?}: {:#?}", found.resolution.anchors,
                );
                if !is_directory {
                    prop_assert!(visited.contains(path.to_str().unwrap()), "{path:?} is not visited");
                }
                let parent = host.path(path.parent().unwrap().to_str().unwrap());
                let parent = parent.to_str().unwrap().trim_end_matches('/');
                let is_marked = |mark: &&Mark| {
                    let of_parent = mark.is_directory && mark.path == Path::new(parent);
                    of_parent || mark.path == host.path(path.to_str().unwrap())
                };
                prop_assert!(found.resolution.marks.iter().any(|mark| is_marked(&mark)), "{path:?} is not marked");
            }
        }
        for file in &found.files {
            prop_assert!(policies.any_covering(file.as_bytes()), "{file} is visited");
        }
    }

    #[test]
    fn what_appears_is_found_as_if_it_had_been_there(
        before in prop::collection::vec(path(), 0..5),
        after in prop::collection::vec(path(), 1..5),
        specs in prop::collection::vec(policy(), 1..3),
    ) {
        let host = Host::new();
        let make = |path: &String| {
            let _ = fs::create_dir_all(host.path(path).parent().unwrap());
            let _ = fs::write(host.path(path), "");
        };
        before.iter().for_each(make);
        let specs = specs.into_iter().enumerate();
        let specs = specs.map(|(index, spec)| PolicySpec { name: index.to_string(), ..spec }).collect();
        let policies = Policies::compile(specs).unwrap();
        let mut found = host.find(&policies).resolution;
        let mut is_known = Vec::new();
        each_path(host.directory.path(), host.directory.path(), &mut is_known);
        after.iter().for_each(make);
        let mut paths = Vec::new();
        each_path(host.directory.path(), host.directory.path(), &mut paths);
        let is_known: BTreeSet<&Path> = is_known.iter().map(|(path, _)| path.as_path()).collect();
        for (path, is_directory) in &paths {
            let parent = path.parent().unwrap();
            let is_in_known = parent == Path::new("/") || is_known.contains(parent);
            if is_known.contains(path.as_path()) || !is_in_known {
                continue;
            }
            // The agent knows of it only if the kernel lets it through.
            if *is_directory && admits(&found, host.directory.path(), path, Operation::Mkdir) {
                let more = host.find_below(&policies, path.to_str().unwrap()).resolution;
                found.anchors.extend(more.anchors);
            }
        }
        for (path, is_directory) in paths {
            for operation in [Operation::Read, Operation::Modify] {
                if !is_directory && policies.matching(path.as_os_str().as_bytes(), operation, false).is_some() {
                    prop_assert!(
                        admits(&found, host.directory.path(), &path, operation),
                        "{operation:?} of {path:?}: {:#?}", found.anchors,
                    );
                }
            }
        }
    }
}
