use std::{hint::black_box, time::Instant};

use super::*;

fn spec(name: &str, paths: &[&str]) -> PolicySpec {
    PolicySpec {
        name: name.to_owned(),
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
        ..PolicySpec::default()
    }
}

fn recursive(name: &str, paths: &[&str]) -> PolicySpec {
    PolicySpec { recursive: true, ..spec(name, paths) }
}

fn ignoring(ignore: &[&str], spec: PolicySpec) -> PolicySpec {
    PolicySpec { ignore: ignore.iter().map(|&glob| glob.to_owned()).collect(), ..spec }
}

fn with(operations: &[&str], spec: PolicySpec) -> PolicySpec {
    PolicySpec { operations: operations.iter().map(|&word| word.to_owned()).collect(), ..spec }
}

fn compile(specs: impl IntoIterator<Item = PolicySpec>) -> Policies {
    Policies::compile(specs.into_iter().collect()).unwrap_or_else(|error| panic!("{error}"))
}

fn changed<'p>(policies: &'p Policies, path: &str) -> Option<&'p str> {
    policies.matching(path.as_bytes(), Operation::Modify, false).map(Policy::name)
}

fn read<'p>(policies: &'p Policies, path: &str) -> Option<&'p str> {
    policies.matching(path.as_bytes(), Operation::Read, false).map(Policy::name)
}

#[test]
fn a_recursive_policy_covers_a_directory_and_all_below() {
    let policies = compile([recursive("etc", &["/etc/"])]);
    for path in ["/etc", "/etc/a", "/etc/a/b", "/etc/a/b/c/d"] {
        assert_eq!(changed(&policies, path), Some("etc"), "{path}");
    }
    for path in ["/", "/etcetera", "/usr/etc", "/et", "", "etc/a", "etc"] {
        assert_eq!(changed(&policies, path), None, "{path}");
    }
}

#[test]
fn another_covers_a_directory_and_its_entries() {
    let policies = compile([spec("etc", &["/etc"])]);
    assert_eq!(changed(&policies, "/etc"), Some("etc"));
    assert_eq!(changed(&policies, "/etc/a"), Some("etc"));
    assert_eq!(changed(&policies, "/etc/a/b"), None);
}

#[test]
fn globs_are_within_a_component_and_two_stars_across() {
    let policies = compile([
        spec("ssh", &["/home/*/.ssh/id_*"]),
        spec("keys", &["/pki/**/*.key"]),
        spec("tree", &["/srv/**"]),
        spec("star", &[r"/a/\*"]),
    ]);
    for (path, name) in [
        ("/home/alice/.ssh/id_rsa", Some("ssh")),
        ("/home/alice/x/.ssh/id_rsa", None),
        ("/home/.ssh/id_rsa", None),
        ("/pki/a.key", Some("keys")),
        ("/pki/a/b/c.key", Some("keys")),
        ("/pki/a/b/c.pem", None),
        ("/srv", Some("tree")),
        ("/srv/a/b", Some("tree")),
        ("/a/*", Some("star")),
        ("/a/b", None),
    ] {
        assert_eq!(changed(&policies, path), name, "{path}");
    }
}

#[test]
fn the_root_is_a_path() {
    let policies = compile([spec("root", &["/"])]);
    assert_eq!(changed(&policies, "/"), Some("root"));
    assert_eq!(changed(&policies, "/etc"), Some("root"));
    assert_eq!(changed(&policies, "/etc/a"), None);
    assert_eq!(changed(&compile([spec("all", &["/**"])]), "/etc/a"), Some("all"));
}

#[test]
fn the_first_that_has_the_operation_decides() {
    let policies = compile([
        with(&["read"], spec("secrets", &["/etc/shadow"])),
        spec("accounts", &["/etc/shadow", "/etc/passwd"]),
        recursive("etc", &["/etc"]),
    ]);
    assert_eq!(read(&policies, "/etc/shadow"), Some("secrets"));
    assert_eq!(changed(&policies, "/etc/shadow"), Some("accounts"));
    assert_eq!(changed(&policies, "/etc/hosts"), Some("etc"));
    assert_eq!(read(&policies, "/etc/passwd"), None);
}

#[test]
fn names_and_whole_paths_are_ignored() {
    let policies = compile([
        ignoring(&["*.swp", "4913", "/etc/cache/**", "/etc/*/tmp"], recursive("etc", &["/etc"])),
        spec("late", &["/etc/x.swp"]),
    ]);
    for path in ["/etc/a.swp", "/etc/a/4913", "/etc/cache", "/etc/cache/a/b", "/etc/a/tmp"] {
        assert_eq!(changed(&policies, path), None, "{path}");
        assert!(!policies.any_covering(path.as_bytes()), "{path}");
    }
    for path in ["/etc/a.swpx", "/etc/cached", "/etc/a/tmp/b", "/etc/tmp"] {
        assert_eq!(changed(&policies, path), Some("etc"), "{path}");
        assert!(policies.any_covering(path.as_bytes()), "{path}");
    }
    assert_eq!(changed(&policies, "/etc/x.swp"), Some("late"));
}

#[test]
fn nothing_is_read_of_a_directory() {
    let policies = compile([with(&["all"], recursive("etc", &["/etc"]))]);
    assert!(policies.matching(b"/etc/ssl", Operation::Read, true).is_none());
    assert!(policies.matching(b"/etc/ssl", Operation::Open, true).is_some());
}

#[test]
fn names_need_not_be_text() {
    let policies = compile([spec("a", &["/a/?x"])]);
    assert!(policies.matching(b"/a/\xffx", Operation::Modify, false).is_some());
}

#[test]
fn some_policies_hold_in_containers_alone() {
    let policies = compile([
        spec("host", &["/etc/passwd"]),
        PolicySpec { containers: true, ..spec("both", &["/etc/passwd"]) },
    ]);
    assert_eq!(changed(&policies, "/etc/passwd"), Some("host"));
    assert_eq!(changed(&policies.in_containers(), "/etc/passwd"), Some("both"));
    assert_eq!(policies.in_containers().iter().map(Policy::name).collect::<Vec<_>>(), ["both"]);
}

#[test]
fn directories_that_lead_to_something_are_known() {
    let policies = compile([spec("ssh", &["/home/*/.ssh"]), spec("file", &["/etc/passwd"])]);
    for (path, does) in [
        ("/", true),
        ("/home", true),
        ("/home/alice", true),
        ("/home/alice/.ssh", true),
        ("/home/alice/doc", false),
        ("/etc", true),
        ("/var", false),
    ] {
        assert_eq!(policies.may_cover_below(path.as_bytes()), does, "{path}");
    }
}

#[test]
fn operations_have_words() {
    let policies = compile([
        spec("default", &["/a"]),
        with(&["open", "rmdir"], spec("two", &["/b"])),
        with(&["all"], spec("all", &["/c"])),
    ]);
    let operations: Vec<_> = policies.iter().map(Policy::operations).collect();
    assert_eq!(operations[0], Operations::CHANGE);
    assert_eq!(operations[1], Operations::of(&[Operation::Open, Operation::Rmdir]));
    assert_eq!(operations[2], Operation::ALL.into_iter().collect());
    assert!(!operations[0].contains(Operation::Copy));
    for operation in Operation::ALL {
        let word = WORDS.iter().find(|(name, _)| *name == operation.name());
        assert_eq!(word.map(|(_, operations)| *operations), Some(Operations::of(&[operation])));
    }
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    let a = || spec("a", &["/a"]);
    let cases = [
        (vec![a(), spec("a", &["/b"])], "policy 1 (\"a\"): policy 0 has this name already"),
        (vec![spec("", &["/a"])], "it has no name"),
        (vec![spec("a", &[])], "policy 0 (\"a\"): it has no paths"),
        (vec![spec("a", &["/b", ""])], "policy 0 (\"a\"), paths[1] \"\": it is empty"),
        (
            vec![spec("a", &["etc/passwd"])],
            "paths[0] \"etc/passwd\": it is not absolute; write it from the root: /etc/passwd",
        ),
        (vec![spec("a", &["~/.ssh"])], "write /root, or /home/*"),
        (vec![spec("a", &["/etc/../root"])], "it has a component \"..\""),
        (vec![spec("a", &["/etc/./root"])], "it has a component \".\""),
        (vec![spec("a", &["/etc/[ab"])], "the \"[\" is not closed"),
        (vec![spec("a", &["/etc/**.key"])], "write \"*\" for a part of a name"),
        (vec![spec("a", &["/proc/*/m*"])], "end the path in a plain name"),
        (vec![spec("a", &["/proc"])], "end the path in a plain name"),
        (vec![spec("a", &["/a\0b"])], "zero byte"),
        (vec![spec("a", &[&format!("/{}", "x".repeat(256))])], "a component has 256 bytes"),
        (vec![spec("a", &[&"/x".repeat(65)])], "it has 65 components"),
        (
            vec![ignoring(&["cache/**"], a())],
            "ignore[0] \"cache/**\": it has a \"/\" but is not absolute; write the whole path, as in /srv/cache/**",
        ),
        (vec![ignoring(&["**"], a())], "\"**\" stands for whole components"),
        (
            vec![with(&["create", "modfy"], a())],
            "operations[1] \"modfy\": there is no such operation; write modify if that is meant; there are change, all, open",
        ),
        (vec![with(&["Attr"], a())], "write attributes if that is meant"),
        (vec![with(&["frobnicate"], a())], "there is no such operation; there are change"),
        (
            (0..65).map(|n| spec(&n.to_string(), &["/a"])).collect(),
            "policy 64 (\"64\"): there are more than 64 policies",
        ),
    ];
    for (specs, message) in cases {
        let error = Policies::compile(specs).unwrap_err().to_string();
        assert!(error.contains(message), "{error}\n{message}");
    }
}

#[test]
fn double_slashes_are_one() {
    assert_eq!(changed(&compile([spec("a", &["//etc//passwd"])]), "/etc/passwd"), Some("a"));
}

#[test]
fn many_patterns_at_one_place_are_all_followed() {
    let paths: Vec<String> = (0..40).map(|n| format!("/{}*/x{n}", "?".repeat(n % 7))).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let any: Vec<String> = (0..40).map(|n| format!("/[a-z]{}*/x{n}", "*?".repeat(n % 20))).collect();
    let any: Vec<&str> = any.iter().map(String::as_str).collect();
    let policies = compile([spec("a", &paths), spec("b", &any)]);
    for n in 0..40 {
        assert!(changed(&policies, &format!("/abcdefghijklmnopqrstuvwxyz/x{n}")).is_some());
    }
}

#[test]
fn the_defaults_name_what_they_cover() {
    let policies = compile(defaults());
    for (path, change, reading) in [
        ("/etc/shadow", Some("accounts"), Some("secrets")),
        ("/etc/passwd", Some("accounts"), None),
        ("/etc/passwd.swp", None, None),
        ("/etc/hosts", Some("etc"), None),
        ("/etc/ld.so.preload", Some("preload"), None),
        ("/etc/ld.so.conf.d/x.conf", Some("preload"), None),
        ("/etc/cron.d/x", Some("cron"), None),
        ("/var/spool/cron/crontabs/root", Some("cron"), None),
        ("/etc/sudoers.d/x", Some("sudoers"), None),
        ("/etc/pam.d/sshd", Some("pam"), None),
        ("/usr/lib/systemd/system/x.service", Some("systemd"), None),
        ("/home/a/.config/systemd/user/x.service", Some("systemd"), None),
        ("/home/a/.ssh/authorized_keys", Some("ssh"), None),
        ("/home/a/.ssh/id_ed25519", Some("ssh"), Some("secrets")),
        ("/home/a/.ssh/id_ed25519.pub", Some("ssh"), None),
        ("/home/a/.bashrc", Some("shell-startup"), None),
        ("/home/a/notes", None, None),
        ("/var/www/html/shell.php", Some("web-roots"), None),
        ("/usr/bin/ls", Some("system-binaries"), None),
        ("/usr/lib/python3/x.pyc", None, None),
        ("/boot/vmlinuz", Some("boot"), None),
        ("/etc/kubernetes/pki/etcd/ca.key", Some("secrets"), Some("secrets")),
        ("/etc/kubernetes/pki/etcd/ca.crt", Some("etc"), None),
        ("/run/secrets/kubernetes.io/serviceaccount/token", Some("secrets"), Some("secrets")),
        (
            "/var/lib/kubelet/pods/1/volumes/kubernetes.io~projected/t/..data/token",
            Some("secrets"),
            Some("secrets"),
        ),
        ("/proc/1/mem", Some("secrets"), Some("secrets")),
        ("/proc/1/maps", None, None),
        ("/dev/null", None, None),
    ] {
        assert_eq!(changed(&policies, path), change, "{path}");
        assert_eq!(read(&policies, path), reading, "{path}");
    }
    assert_eq!(policies.proc_names(), [b"kcore".to_vec(), b"mem".to_vec()]);
}

/// A measurement, for `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn a_path_that_is_not_covered_takes_little_time() {
    let policies = compile(defaults());
    for path in [
        "/var/lib/docker/overlay2/0123456789abcdef/diff/usr/bin/ls",
        "/home/alice/src/project/target/debug/deps/x.o",
        "/home/alice/.config/chromium/Default/Cookies",
        "/tmp/x",
        "/var/lib/kubelet/pods/1/volumes/kubernetes.io~projected/a/b/c/d",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/etc/shadow",
    ] {
        let start = Instant::now();
        let rounds = 1_000_000;
        for _ in 0..rounds {
            black_box(policies.matching(black_box(path.as_bytes()), Operation::Open, false));
        }
        println!("{:>4} ns {path}", start.elapsed().as_nanos() / rounds);
    }
}
