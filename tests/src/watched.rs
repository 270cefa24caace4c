//! Folders that an agent watches, what is done in them, and what is told of that.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    agent::{Agent, shared},
    event::{Event, Expect, file, shortened},
    files::folder_for_all,
    os,
    run::{Ran, Run, rawfile_path, run},
    tree::Tree,
};

/// How long an event may take that is expected, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long it takes until an event is told that has no system call of its own, where none can be waited for.
const UNCONFIRMED: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(20);
/// As many folders as tests of one file may take.
const FOLDERS: usize = 96;
/// As `rawfile` ends where the kernel lacks what it needs.
const SKIPPED: i32 = 77;

static ROOT: OnceLock<PathBuf> = OnceLock::new();
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// A folder of a test, below `ROOT/watched`. Since before the agent started there are in it: `file`, with `content` in
/// it, `other`, with `other content`, and `folder` with the file `inside`.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    mark: usize,
}

/// Something that was done, and by whom.
#[derive(Debug)]
pub struct Acted {
    /// What was run.
    pub ran: Ran,
    /// What `rawfile` says was done; of another program nothing.
    pub lines: Vec<Value>,
    mark: usize,
}

/// Events, in the order of their times.
#[derive(Debug)]
pub struct Told(pub Vec<Event>);

/// Starts the agent that all tests of a file share, if it does not run yet. `ROOT` in its configuration stands for
/// a new folder, which is given back; `prepare` fills it before the agent looks at it.
pub fn watch(configuration: &str, prepare: impl FnOnce(&Path)) -> &'static Path {
    ROOT.get_or_init(|| {
        let folder = folder_for_all();
        let root = folder.path();
        // Before the agent is shared: it ends first then.
        os::at_exit(remove_root);
        for number in 0..FOLDERS {
            fill(&root.join(format!("watched/{number:03}"))).expect("our own folder");
        }
        prepare(root);
        let text = root.to_str().expect("a name of ASCII");
        Agent::share_kinds(&configuration.replace("ROOT", text), &["process.exec", "file.*"]);
        folder.keep()
    })
}

fn fill(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder.join("folder"))?;
    fs::write(folder.join("file"), "content")?;
    fs::write(folder.join("other"), "other content")?;
    fs::write(folder.join("folder/inside"), "inside")
}

extern "C" fn remove_root() {
    if let Some(root) = ROOT.get() {
        // Else what is mounted below is removed with it.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(root)) {
            let _left_there = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
        let _left_for_a_look = fs::remove_dir_all(root);
    }
}

/// A kind of event of the file that a line of `rawfile` is about, by its path there.
pub fn truth(kind: &'static str, line: &Value) -> Expect {
    file(kind).with("file.path", line["path"].clone()).of_file("file", line)
}

/// Events of the shared agent that are such, so far.
pub fn events_of_shared(expect: &Expect) -> Vec<Event> {
    let mut events = shared::events_of(expect.kind);
    events.retain(|event| expect.mismatches(event).is_empty());
    events
}

/// Whether a file event is about something in a folder.
fn is_about(event: &Event, folder: &Path) -> bool {
    let paths = ["file.path", "file.target.path", "file.mount.source"];
    paths.iter().filter_map(|path| event.get(path)?.as_str()).any(|path| Path::new(path).starts_with(folder))
}

// === impl Folder ===

impl Folder {
    /// The next that no other test has. [`watch`] comes first.
    #[must_use]
    pub fn take() -> Self {
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(number < FOLDERS, "there are only {FOLDERS} folders");
        let root = ROOT.get().expect("watched before");
        Self::at(root.join(format!("watched/{number:03}")))
    }

    /// Another folder, which may be watched or not.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mark: shared::mark() }
    }

    /// Path of a name in it; its own of an empty name.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }

    /// As [`Self::path`], as in events.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a name of ASCII").to_owned()
    }

    /// A program to be run in it.
    pub fn run(&self, program: impl AsRef<Path>) -> Run {
        run(program.as_ref()).in_folder(&self.path)
    }

    /// Runs `rawfile` with these words, in this folder.
    pub fn rawfile(&self, words: &str) -> Acted {
        self.rawfile_unless_skipped(words).unwrap_or_else(|| panic!("skipped: {words}"))
    }

    /// As [`Self::rawfile`]; nothing where the kernel lacks what it needs.
    pub fn rawfile_unless_skipped(&self, words: &str) -> Option<Acted> {
        self.rawfile_in(&[], words)
    }

    /// Runs `rawfile` by another program, as `unshare`, whose process becomes that of `rawfile`.
    pub fn rawfile_in(&self, before: &[&str], words: &str) -> Option<Acted> {
        let rawfile = rawfile_path();
        let all = before.iter().copied().chain([rawfile.to_str().expect("a name of ASCII")]);
        let all: Vec<&str> = all.chain(words.split_whitespace()).collect();
        let mark = shared::mark();
        let ran = self.run(all[0]).args(&all[1..]).finish();
        if ran.ended.status.code() == Some(SKIPPED) {
            return None;
        }
        assert!(ran.ended.status.success(), "{words}: {}", ran.stderr);
        let text = String::from_utf8(ran.output.clone()).expect("lines of JSON");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        Some(Acted { ran, lines, mark })
    }

    /// Runs another program, which succeeds.
    pub fn acted(&self, program: impl AsRef<Path>, args: &[&str]) -> Acted {
        let mark = shared::mark();
        Acted { ran: self.run(program).args(args).succeed(), lines: Vec::new(), mark }
    }

    /// Waits until what was done so far has been told, with or without a call that was seen.
    ///
    /// What no call is seen of is told last, and in its order: something of that kind is done and waited for.
    pub fn settle(&self) {
        static SETTLED: AtomicUsize = AtomicUsize::new(0);
        let number = SETTLED.fetch_add(1, Ordering::Relaxed);
        let path = ROOT.get().expect("watched before").join(format!("watched/settled-{number}"));
        let path = path.to_str().expect("a name of ASCII");
        let mark = shared::mark();
        let is_done = ["int80", "uring"].iter().any(|via| {
            let mut command = Command::new(rawfile_path());
            command.args(["mkdir", path, "--via", via]).stdout(Stdio::null());
            command.status().expect("it can be run").success()
        });
        let deadline = Instant::now() + if is_done { PATIENCE } else { UNCONFIRMED };
        while shared::file_events(path, mark).is_empty() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        shared::catch_up();
    }

    /// File events about what is in here, but not of what this program itself did.
    pub fn events(&self) -> Vec<Event> {
        self.events_since(self.mark)
    }

    /// File events of what this program itself did in here.
    pub fn events_of_test(&self) -> Vec<Event> {
        self.since(self.mark, |pid| pid == Some(std::process::id().into()))
    }

    /// As [`Self::events`], but for what came before a place in the stream.
    pub fn events_since(&self, mark: usize) -> Vec<Event> {
        self.since(mark, |pid| pid != Some(std::process::id().into()))
    }

    fn since(&self, mark: usize, by: impl Fn(Option<u64>) -> bool) -> Vec<Event> {
        let mut events = shared::file_events(&self.text(""), mark);
        events.retain(|event| is_about(event, &self.path));
        events.retain(|event| by(event.get("process.pid").and_then(Value::as_u64)));
        events.sort_by_key(|event| event.nanos("time"));
        events
    }

    /// What is in it, by what was told of all that anybody did since `before`, when it was as `tree` says.
    pub fn tree_told(&self, tree: Tree, before: usize) -> Tree {
        self.settle();
        tree.after(&self.since(before, |_| true))
    }

    /// A place in the stream: events that come from now on.
    pub fn mark(&self) -> usize {
        shared::mark()
    }

    /// Waits until there are as many events as these kinds since an act, and then no more; they are of these kinds.
    /// Where no close is among them, closes do not count.
    pub fn told(&self, acted: &Acted, kinds: &[&str]) -> Told {
        let deadline = Instant::now() + PATIENCE;
        let closes_count = kinds.contains(&"file.close");
        let events = || {
            let mut events = self.events_since(acted.mark);
            events.retain(|event| closes_count || event.kind() != "file.close");
            events
        };
        while events().len() < kinds.len() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        self.settle();
        let told = Told(events());
        let mut expected = kinds.to_vec();
        expected.sort_unstable();
        assert_eq!(told.kinds(), expected, "after {:?}\ntold: {told}", acted.lines);
        told
    }

    /// As [`Self::told`], and all is told of the one process, and by this policy.
    pub fn told_by(&self, policy: &str, acted: &Acted, kinds: &[&str]) -> Told {
        let told = self.told(acted, kinds);
        for event in &told.0 {
            assert_eq!(event.get("file.policy").and_then(Value::as_str), Some(policy), "{event}");
            assert_eq!(event.number("process.pid"), u64::from(acted.ran.pid), "{event}");
            if !acted.lines.is_empty() {
                assert_eq!(Path::new(event.text("process.exe.path")), rawfile_path(), "{event}");
            }
        }
        told
    }
}

// === impl Acted ===

impl Acted {
    /// The only line about this act.
    pub fn line(&self, act: &str) -> &Value {
        let lines: Vec<_> = self.acts(act).collect();
        assert_eq!(lines.len(), 1, "{act}: {:?}", self.lines);
        lines[0]
    }

    /// Lines about such an act.
    pub fn acts(&self, act: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["act"] == act)
    }

    /// Processes that did something.
    pub fn pids(&self) -> BTreeSet<u64> {
        self.lines.iter().filter_map(|line| line["pid"].as_u64()).chain([self.ran.pid.into()]).collect()
    }
}

// === impl Told ===

impl Told {
    /// Kinds of all, sorted.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<_> = self.0.iter().map(Event::kind).collect();
        kinds.sort_unstable();
        kinds
    }

    /// All of a kind.
    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Event> {
        self.0.iter().filter(move |event| event.kind() == kind)
    }

    /// An event that is such.
    pub fn expect(&self, expect: &Expect) -> &Event {
        let mut of_kind = self.all(expect.kind);
        of_kind.find(|event| expect.mismatches(event).is_empty()).unwrap_or_else(|| {
            let wrong = self.all(expect.kind).map(|event| expect.mismatches(event).join("; "));
            let wrong = wrong.collect::<Vec<_>>().join("\nnor one: ");
            panic!("no such event: {expect}\nnot this one: {wrong}\ntold: {self}")
        })
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 30;
        for event in self.0.iter().take(SHOWN) {
            let body = event.get("file").or_else(|| event.get("network"));
            let body = body.map(ToString::to_string).unwrap_or_default();
            let pid = event.get("process.pid").map_or_else(|| "nobody".to_owned(), ToString::to_string);
            writeln!(f, "\n  {} {} by {pid}: {}", event.text("time"), event.kind(), shortened(&body))?;
        }
        if self.0.len() > SHOWN {
            writeln!(f, "  and {} others", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}
