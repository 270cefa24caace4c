//! The pages that are to be copied and pasted do what they say, as they are written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nightjar_tests::{backend_path, nightjar_path, skip_without_kernel};

/// Directories that the pages use, each of which is another one in a test.
const DIRECTORIES: [&str; 5] =
    ["/etc/nightjar", "/run/nightjar", "/var/lib/nightjar", "/var/lib/nightjar-backend", "/var/log/nightjar"];

/// Both agents of the pages are called `default`.
static ONE: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that a page says to type, but how to build and install.
fn commands(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("docs").join(page);
    let text = fs::read_to_string(path).expect("a page");
    let mut commands = String::new();
    for block in text.split("```sh\n").skip(1) {
        let (block, _) = block.split_once("```").expect("blocks end");
        if !block.starts_with("cargo xtask") {
            commands += block;
        }
    }
    commands
}

/// Runs a page in a mount and a network namespace of its own, with what it types echoed.
fn run_page(page: &str) -> Output {
    let work = tempfile::tempdir().expect("a folder");
    let mut script = String::from("set -e -m\n");
    for directory in DIRECTORIES {
        fs::create_dir_all(directory).expect("root may");
        script.extend(["mount -t tmpfs -o mode=700 nightjar-test ", directory, "\n"]);
    }
    // Nothing stays behind, wherever it ended.
    script += "ip link set lo up\ntrap 'kill -9 $(jobs -p) 2> /dev/null || true' EXIT\nset -x\n";
    script += &commands(page);
    let file = work.path().join("page.sh");
    fs::write(&file, script).expect("a script");
    let folders: Vec<PathBuf> = [nightjar_path(), backend_path()]
        .iter()
        .map(|path| path.parent().expect("a folder").to_owned())
        .collect();
    let path = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=10",
        "180",
        "unshare",
        "--mount",
        "--net",
        "--propagation",
        "private",
        "bash",
    ]);
    command.arg(&file).env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin")).stdin(Stdio::null());
    command.current_dir(work.path()).output().expect("a shell")
}

/// Runs a page to its end. What it printed.
#[track_caller]
fn expect_page(page: &str) -> String {
    let output = run_page(page);
    let (said, steps) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page} ended with {}\n{said}\n{steps}", output.status);
    println!("{said}");
    said.into_owned()
}

#[test]
fn the_agent_by_itself_does_as_its_page_says() {
    skip_without_kernel!();
    let _one = one_at_a_time();
    let said = expect_page("run-alone.md");
    assert!(said.contains(r#""kind":"process.exec""#), "an event in the file: {said}");
    assert!(said.contains("all is well"), "the status: {said}");
    assert!(
        said.contains(r#""ecs":{"version":"#) || said.contains(r#""ecs.version""#),
        "an event in another form: {said}"
    );
    assert!(
        said.lines().filter(|line| line.contains("  exec    ")).count() >= 3,
        "three lines of tail: {said}"
    );
}

#[test]
fn agent_and_backend_do_as_their_page_says() {
    skip_without_kernel!();
    let _one = one_at_a_time();
    let said = expect_page("run-with-backend.md");
    assert!(said.contains("/usr/bin/id"), "an event from the store: {said}");
    assert!(said.contains("connected to https://127.0.0.1:4317"), "the delivery after the outage: {said}");
    let of_the_outage = said.lines().filter(|line| line.contains("/usr/bin/id -un")).count();
    assert_eq!(of_the_outage, 1, "an event of the outage, once: {said}");
    let is_gap = |line: &&str| line.split_whitespace().any(|word| word == "critical" || word == "bulk");
    assert_eq!(said.lines().find(is_gap), None, "a gap: {said}");
    assert!(said.contains("applied"), "the answer to a configuration: {said}");
    assert!(said.contains("revoked"), "the end of the agent: {said}");
}
