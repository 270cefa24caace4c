//! What `rawfile` says is what has happened.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

const VIAS: [&str; 5] = ["plain", "int80", "uring", "uring-poll", "x32"];
const SKIPPED: i32 = 77;

/// A folder, and `rawfile` in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        fs::write(self.path(name), name).unwrap();
        self.path(name)
    }

    fn inode(&self, name: &str) -> u64 {
        fs::symlink_metadata(self.path(name)).unwrap().ino()
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rawfile"));
        command.args(words.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn output(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// The lines of a run that succeeds.
    fn lines(&self, words: &str) -> Vec<Value> {
        let output = self.output(words);
        assert!(output.status.success(), "{words}: {output:?}");
        lines_of(&output)
    }

    /// As [`Self::lines`], or nothing where the kernel lacks what it needs.
    fn lines_unless_skipped(&self, words: &str) -> Option<Vec<Value>> {
        let output = self.output(words);
        if output.status.code() == Some(SKIPPED) {
            assert!(lines_of(&output).last().unwrap()["skipped"].is_string(), "{output:?}");
            return None;
        }
        assert!(output.status.success(), "{words}: {output:?}");
        Some(lines_of(&output))
    }

    /// The only line of a run.
    fn line(&self, words: &str) -> Value {
        let lines = self.lines(words);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.into_iter().next().unwrap()
    }

    fn is_there(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }
}

fn lines_of(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn acts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["act"].as_str().unwrap()).collect()
}

fn path(line: &Value) -> &Path {
    Path::new(line["path"].as_str().unwrap())
}

#[test]
fn each_act_happens_by_each_way_that_has_it() {
    for via in VIAS {
        let folder = Folder::new();
        let run = |words: &str| folder.lines_unless_skipped(&format!("{words} --via {via}"));
        let Some(made) = run("creat a") else {
            assert_eq!(via, "x32");
            continue;
        };
        assert_eq!(path(&made[0]), folder.path("a"));
        assert_eq!((&made[0]["inode"], &made[0]["created"]), (&folder.inode("a").into(), &true.into()));
        let written = run("write a hello").unwrap();
        assert_eq!(acts(&written), ["open", "write", "close"]);
        assert_eq!(fs::read(folder.path("a")).unwrap(), b"hello");
        let opened = run("open a --flags rdwr,append").unwrap();
        assert_eq!(opened[0]["fd_flags"].as_i64().unwrap() & 0o2003, 0o2002);
        if let Some(cut) = run("truncate a 3") {
            assert_eq!(cut.iter().find(|line| line["act"] == "truncate").unwrap()["size"], 3);
        }
        run("fallocate a 9000").unwrap();
        assert_eq!(folder.path("a").metadata().unwrap().len(), 9000);
        run("mkdir d --mode 700").unwrap();
        assert_eq!(folder.path("d").metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let linked = run("link a b").unwrap();
        assert_eq!((path(&linked[0]), folder.inode("b")), (folder.path("a").as_path(), folder.inode("a")));
        run("symlink a s").unwrap();
        assert_eq!(fs::read_link(folder.path("s")).unwrap(), Path::new("a"));
        folder.file("e");
        let (a, e) = (folder.inode("a"), folder.inode("e"));
        run("exchange a e").unwrap();
        assert_eq!((folder.inode("a"), folder.inode("e")), (e, a));
        let renamed = run("rename a e").unwrap();
        assert_eq!((&renamed[0]["inode"], &renamed[0]["replaced"]["inode"]), (&e.into(), &a.into()));
        assert!(!folder.is_there("a"));
        let unlinked = run("unlink e").unwrap();
        assert_eq!(unlinked[0]["inode"], e);
        run("unlink s").unwrap();
        run("rmdir d").unwrap();
        assert!(!folder.is_there("e") && !folder.is_there("s") && !folder.is_there("d"));
        run("unlink e --expect ENOENT").unwrap();
    }
}

#[test]
fn acts_that_io_uring_lacks_happen_by_the_other_ways() {
    for via in ["plain", "int80"] {
        let folder = Folder::new();
        folder.file("f");
        let run = |words: &str| folder.lines(&format!("{words} --via {via}"));
        assert_eq!(run("chmod f 600")[0]["mode"], "0600");
        assert_eq!(run("fchmod f 604")[1]["mode"], "0604");
        run("mknod p fifo");
        assert_eq!(folder.line("open p --flags path")["kind"], "fifo");
        assert_eq!(run("utimens f")[0]["act"], "utimens");
    }
    let folder = Folder::new();
    folder.file("f");
    assert_eq!(folder.output("chmod f 600 --via uring").status.code(), Some(SKIPPED));
}

#[test]
fn owners_devices_and_whiteouts_are_for_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    folder.file("f");
    for (words, owner) in [
        ("chown f 1 2", (1, 2)),
        ("chown f 3 4 --via int80", (3, 4)),
        ("chown f 5 70000 --via int80 --call chown32", (5, 70000)),
        ("chown f 6 7 --call fchownat", (6, 7)),
        ("fchown f 8 9", (8, 9)),
    ] {
        folder.lines(words);
        let metadata = folder.path("f").metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{words}");
    }
    folder.line("mknod n char --major 1 --minor 3");
    assert_eq!(folder.path("n").metadata().unwrap().rdev(), libc::makedev(1, 3));
    assert_eq!(folder.line("whiteout f g")["flags"], 4);
    assert_eq!(folder.path("f").metadata().unwrap().rdev(), 0);
}

#[test]
fn a_call_is_made_by_the_name_it_is_asked_for() {
    let folder = Folder::new();
    folder.file("f");
    for via in ["plain", "int80"] {
        for call in ["open", "openat", "openat2", "creat"] {
            let line = folder.line(&format!("open f --via {via} --call {call}"));
            assert_eq!((&line["call"], &line["inode"]), (&call.into(), &folder.inode("f").into()));
        }
        for call in ["truncate", "ftruncate"] {
            let lines = folder.lines(&format!("truncate f 7 --via {via} --call {call}"));
            assert!(lines.iter().any(|line| line["call"] == call && line["size"] == 7), "{lines:?}");
        }
        for call in ["rename", "renameat", "renameat2"] {
            assert_eq!(folder.line(&format!("rename f g --via {via} --call {call}"))["call"], call);
            fs::rename(folder.path("g"), folder.path("f")).unwrap();
        }
    }
    let lines = folder.lines("truncate f 4294967299 --via int80 --call truncate64");
    assert_eq!(lines[0]["size"], 4_294_967_299_u64);
    assert!(!folder.output("unlink f --call open").status.success());
}

#[test]
fn a_file_handle_opens_the_file_without_a_path() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    folder.file("f");
    let Some(lines) = folder.lines_unless_skipped("open f --call open_by_handle_at") else { return };
    assert_eq!(lines[0]["preparation"], true);
    assert_eq!(path(&lines[1]), folder.path("f"));
}

#[test]
fn a_folder_can_be_given_for_relative_paths() {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    let lines = folder.lines("mkdir x --at d --call mkdirat");
    assert_eq!(path(&lines[1]), folder.path("d/x"));
    folder.lines("rename x y --at d --call renameat2 --via uring");
    assert!(folder.is_there("d/y"));
}

#[test]
fn attributes_are_set_and_removed() {
    let folder = Folder::new();
    folder.file("f");
    for via in ["plain", "int80", "uring", "uring-poll"] {
        for call in ["setxattr", "fsetxattr"] {
            let words = format!("setxattr f user.a value --via {via} --call {call}");
            if folder.lines_unless_skipped(&words).is_some() {
                folder.line("removexattr f user.a");
            }
        }
    }
}

#[test]
fn a_path_is_not_present_until_the_call_reads_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    folder.file("f");
    for via in ["plain", "int80", "uring"] {
        for words in ["paged-out f --verify", "open f --straddling --verify"] {
            let line = folder.line(&format!("{words} --via {via}"));
            assert_eq!(line["present_before"], serde_json::json!([false]), "{words} {via}");
            assert_eq!(line["present_after"], serde_json::json!([true]), "{words} {via}");
            assert_eq!(path(&line), folder.path("f"));
        }
    }
    folder.line("unlink f --paged-out");
    assert!(!folder.is_there("f"));
}

#[test]
fn a_failure_that_was_not_asked_for_is_one() {
    let folder = Folder::new();
    let output = folder.output("unlink nothing");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines_of(&output)[0]["error"], "ENOENT");
    folder.line("unlink nothing --expect ENOENT");
    folder.file("f");
    assert_eq!(folder.output("unlink f --expect ENOENT").status.code(), Some(1));
    assert!(!folder.is_there("f"));
}

#[test]
fn a_name_that_is_not_utf_8_is_told_by_its_bytes() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let folder = Folder::new();
    let output = folder.command("creat").arg(OsStr::from_bytes(b"\xff")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(lines_of(&output)[0]["path_hex"].as_str().unwrap().ends_with("2fff"));
}

#[test]
fn a_link_is_not_followed_by_acts_on_names_and_is_by_others() {
    let folder = Folder::new();
    folder.file("f");
    symlink("f", folder.path("s")).unwrap();
    assert_eq!(path(&folder.line("open s")), folder.path("f"));
    assert_eq!(path(&folder.line("chmod s 600")), folder.path("f"));
    assert_eq!(path(&folder.line("open s --flags path,nofollow")), folder.path("s"));
    assert_eq!(path(&folder.line("unlink s")), folder.path("s"));
    assert!(folder.is_there("f"));
}

#[test]
fn odd_paths_lead_to_the_file() {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    folder.file("d/f");
    for command in ["open-path", "open-relative", "open-symlinked-dir"] {
        let lines = folder.lines(&format!("{command} d/f"));
        let opened = lines.iter().filter(|line| line["act"] == "open" && path(line) == folder.path("d/f"));
        assert!(opened.clone().count() >= 1, "{lines:?}");
        assert!(opened.clone().all(|line| line["inode"] == folder.inode("d/f")));
    }
    assert_eq!(folder.0.path().read_dir().unwrap().count(), 1);
}

#[test]
fn other_roots_and_mounts_lead_to_the_file() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    for name in ["d", "m"] {
        fs::create_dir(folder.path(name)).unwrap();
    }
    folder.file("d/f");
    let chrooted = folder.line("open-chroot d /f");
    assert_eq!(path(&chrooted), folder.path("d/f"));
    assert_eq!(chrooted["inode"], folder.inode("d/f"));
    assert_ne!(chrooted["pid"], folder.line("open d/f")["pid"]);
    let rooted = folder.lines("open-procroot d/f");
    assert_eq!(path(&rooted[0]), folder.path("d/f"));

    let mounted = folder.lines("open-mount-namespace d m f");
    assert_eq!(acts(&mounted), ["unshare", "mount-bind", "open", "close"]);
    assert_eq!(
        (path(&mounted[2]), &mounted[2]["inode"]),
        (&*folder.path("m/f"), &folder.inode("d/f").into())
    );
    assert!(!folder.is_there("m/f"));
    let bound = folder.lines("open-bind d m f");
    assert_eq!(acts(&bound), ["mount-bind", "open", "close", "umount"]);
    assert!(!folder.is_there("m/f"));
}

#[test]
fn mounts_of_an_own_namespace_are_made_and_used_there() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    for name in ["d", "m"] {
        fs::create_dir(folder.path(name)).unwrap();
    }
    folder.file("d/f");
    for command in
        ["mount-bind d m", "move-mount d m", "move-mount d m --new-api", "new-mount-api m --source d"]
    {
        let lines = folder.lines(&format!("{command} --unshare --then-open m/f"));
        let opened = lines.iter().find(|line| line["act"] == "open").unwrap();
        assert_eq!(opened["inode"], folder.inode("d/f"), "{command}");
        assert_eq!(path(opened), folder.path("m/f"), "{command}");
    }
    for command in ["mount-tmpfs m", "new-mount-api m"] {
        let lines = folder.lines(&format!("{command} --unshare --then-open m"));
        let opened = lines.iter().find(|line| line["act"] == "open").unwrap();
        assert_ne!(opened["inode"], folder.inode("m"), "{command}");
    }
    let pivoted = folder.lines("pivot-root d --unshare --then-open /f");
    assert_eq!(pivoted.last().unwrap()["inode"], folder.inode("d/f"));
    assert!(!folder.output("pivot-root d").status.success());
    assert!(!folder.is_there("m/f"));
    folder.lines("mount-bind d m");
    assert!(folder.is_there("m/f"));
    folder.lines("umount m");
    assert!(!folder.is_there("m/f"));
}

#[test]
fn a_race_tells_which_file_it_really_was() {
    for via in ["plain", "int80", "uring"] {
        for act in ["OPEN", "UNLINK", "RENAME"] {
            let folder = Folder::new();
            let lines = folder.lines(&format!("race {act} name-a name-b --rounds 200 --via {via}"));
            let (summary, rounds) = lines.split_last().unwrap();
            assert_eq!(rounds.len(), 200);
            let of = |name| rounds.iter().filter(|line| path(line) == folder.path(name)).count();
            assert_eq!(
                (summary["a"].as_u64(), summary["b"].as_u64()),
                (Some(of("name-a") as u64), Some(of("name-b") as u64))
            );
            assert_eq!(of("name-a") + of("name-b"), 200);
        }
    }
}

#[test]
fn a_passed_descriptor_is_written_by_another_process() {
    let folder = Folder::new();
    let lines = folder.lines("passed-descriptor f");
    assert_eq!(acts(&lines), ["open", "pass", "close", "write", "close"]);
    let (parent, child) = (&lines[0]["pid"], &lines[1]["receiver"]);
    let pids: Vec<_> = lines.iter().map(|line| &line["pid"]).collect();
    assert_eq!(pids, [parent, parent, parent, child, child]);
    assert_ne!(parent, child);
    assert_eq!(fs::read(folder.path("f")).unwrap(), b"written\n");
}

#[test]
fn a_held_descriptor_waits_for_a_line_before_each_act() {
    let folder = Folder::new();
    let mut child =
        folder.command("held-descriptor f").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut lines = output.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["act"], "open");
    assert_eq!(lines.next().unwrap()["ready"], true);
    assert_eq!(folder.path("f").metadata().unwrap().len(), 0);
    for act in ["write", "close"] {
        input.write_all(b"\n").unwrap();
        assert_eq!(lines.next().unwrap()["act"], act);
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn files_are_written_without_write() {
    let folder = Folder::new();
    folder.file("source");
    for command in ["copy-file-range", "sendfile", "splice", "ficlone", "read-write-copy"] {
        let Some(lines) = folder.lines_unless_skipped(&format!("{command} source {command}")) else {
            assert_eq!(command, "ficlone");
            continue;
        };
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[2]["source_file"]["inode"], folder.inode("source"));
        assert_eq!(lines[2]["steps"], 1, "{command}");
        assert_eq!(fs::read(folder.path(command)).unwrap(), b"source");
    }
    let lines = folder.lines("mmap-write source");
    assert_eq!(acts(&lines), ["open", "mmap", "mmap-write", "munmap", "close"]);
    assert_eq!(fs::read(folder.path("source")).unwrap(), b"Mource");
}

#[test]
fn a_storm_counts_what_all_threads_did() {
    let folder = Folder::new();
    let line = folder.line("storm . --threads 4 --rounds 25");
    for count in ["created", "opened", "written", "renamed", "unlinked"] {
        assert_eq!(line["counts"][count], 100);
    }
    assert_eq!(line["tids"].as_array().unwrap().len(), 4);
    assert_eq!(folder.0.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_random_history_is_the_same_for_the_same_seed() {
    let history = |seed| {
        let folder = Folder::new();
        let lines = folder.lines(&format!("random . --seed {seed} --steps 400"));
        let root = folder.path("");
        lines
            .iter()
            .map(|line| (line["act"].clone(), path(line).strip_prefix(&root).unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}

/// Plays back what was said of names: what is left must be what is there.
#[test]
fn a_random_history_tells_all_that_became_of_names() {
    for seed in 0..10 {
        let folder = Folder::new();
        let mut names = std::collections::BTreeMap::new();
        for line in folder.lines(&format!("random . --seed {seed} --steps 500")) {
            let of = |key: &str| PathBuf::from(line[key].as_str().unwrap());
            let inode = line["inode"].as_u64();
            match line["act"].as_str().unwrap() {
                "open" | "mkdir" | "symlink" => drop(names.insert(of("path"), inode)),
                "link" => drop(names.insert(of("new_path"), inode)),
                "unlink" | "rmdir" => assert_eq!(names.remove(&of("path")), Some(inode)),
                "rename" if line["replaced"]["inode"] == line["inode"] => {}
                "rename" => {
                    let (old, new) = (of("path"), of("new_path"));
                    for (path, inode) in
                        names.extract_if(.., |path, _| path.starts_with(&old)).collect::<Vec<_>>()
                    {
                        let path = new.join(path.strip_prefix(&old).unwrap());
                        names.insert(path.components().collect(), inode);
                    }
                }
                _ => {}
            }
        }
        let mut there = std::collections::BTreeMap::new();
        let mut left = vec![folder.path("").components().collect::<PathBuf>()];
        while let Some(parent) = left.pop() {
            for entry in parent.read_dir().unwrap() {
                let entry = entry.unwrap();
                there.insert(entry.path(), Some(entry.metadata().unwrap().ino()));
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
        assert_eq!(names, there, "seed {seed}");
    }
}

#[test]
fn loops_tell_what_one_open_takes() {
    let folder = Folder::new();
    folder.file("f");
    for words in [
        "open-loop f --count 1000",
        "open-loop f --count 1000 --write",
        "open-loop-distinct . --count 100",
        "open-loop-distinct . --count 100 --write",
    ] {
        let line = folder.line(words);
        assert!(line["elapsed_ns_per_open"].as_u64().unwrap() > 0, "{line}");
        assert!(line["cpu_ns"].is_u64(), "{line}");
    }
    assert!(folder.is_there("file-99"));
}
