//! The table itself.
//!
//! Records come in the order in which they were put into the ring, which is that of the hooks but for
//! what runs at the very same time on other CPUs; and any record may have been lost. So each step makes
//! do with what there is: a fork that comes late only adds the parent, an exec or an exit of somebody
//! unknown makes an entry from what the record itself says, and a record of another program image than the
//! one that is known (its exec was lost) does away with that.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use nightjar_abi::record::{TaskInfo, TaskRef};
pub use nightjar_proto::v1::{File as FileFacts, Source};

use super::{Identity, Pids};
use crate::decode::padded;

/// Nanoseconds of a tick of `/proc/PID/stat`: a hundredth of a second on every Linux that the agent runs
/// on.
pub(super) const TICK: u64 = 10_000_000;

/// A process ID where there is none.
const NOBODY: u32 = 0;

/// Bytes of arguments that are kept of a process after its exec.
const KEPT_ARGS: usize = 4096;

/// What a program image is, from its exec on.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each says how far one field can be believed")]
pub struct Image {
    /// File that runs; none for kernel threads and where it is not known.
    pub exe: Option<FileFacts>,
    /// Arguments, each ended by a zero byte.
    pub args: Box<[u8]>,
    /// Not all arguments are here.
    pub args_truncated: bool,
    /// The arguments were read from `/proc`.
    pub args_from_proc: bool,
    /// Parts of the arguments were masked, as they look like secrets.
    pub args_redacted: bool,
    /// Working directory at the exec.
    pub cwd: String,
    /// Its beginning is missing.
    pub cwd_truncated: bool,
    /// It does not lead to the root of the mount namespace.
    pub cwd_unreachable: bool,
}

/// What is kept of the process that forked another.
#[derive(Debug, Clone, PartialEq)]
pub struct Lineage {
    /// The parent, at the fork.
    pub task: TaskRef,
    /// What it ran then; `None` where that is not known.
    pub image: Option<Arc<Image>>,
    /// Its thread name then.
    pub comm: String,
    /// Its real user then.
    pub uid: Option<u32>,
}

/// A process.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// As last seen: its `exec_id` is that of `image`.
    pub task: TaskRef,
    /// What it runs.
    pub image: Arc<Image>,
    /// Who forked it; `None` for the first process, and where it is not known.
    pub parent: Option<Lineage>,
    /// How it came to be known.
    pub source: Source,
    /// Thread name as last seen.
    pub comm: String,
    /// Real user as last seen.
    pub uid: u32,
    /// Whether its end was seen.
    pub exited: bool,
    /// What was said of it last.
    pub info: TaskInfo,
}

/// How much the table may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Processes in all.
    pub processes: usize,
    /// Bytes that they may take: whoever starts processes chooses how long their arguments and paths are.
    pub bytes: usize,
    /// Ended processes, kept for those that refer to them.
    pub exited: usize,
    /// How long an ended process is kept.
    pub keep_exited: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        // Most processes take less than 1 KiB; all together stay within the agent's 40 MiB.
        Self { processes: 16384, bytes: 14 << 20, exited: 4096, keep_exited: Duration::from_secs(30) }
    }
}

/// What the table did that somebody should know of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries.
    pub processes: usize,
    /// Bytes that they take, about.
    pub bytes: usize,
    /// Of these, ended.
    pub exited: usize,
    /// Running processes that had to go because the table was full.
    pub evicted: u64,
    /// Processes whose start was never seen.
    pub partial: u64,
}

/// Processes by their [`Identity`].
pub struct Table {
    identity: Identity,
    bounds: Bounds,
    processes: LruCache<u64, Process>,
    pids: Pids,
    /// Names of those that have a process ID, or had it last, by that ID as `pids` has it.
    by_pid: HashMap<u32, u64>,
    /// Sum of the [`weight`]s of `processes`.
    bytes: usize,
    /// Ended processes, the earliest end first: nanoseconds since boot and name.
    exited: VecDeque<(u64, u64)>,
    /// Read from `/proc`, where the start time is too coarse for a name, by process ID: start in ticks.
    /// Moved to `processes` when a record tells the true time.
    nameless: HashMap<u32, (u64, Process)>,
    evicted: u64,
    partial: u64,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(identity: Identity, bounds: Bounds) -> Self {
        Self {
            identity,
            bounds,
            processes: LruCache::unbounded(),
            pids: Pids::default(),
            by_pid: HashMap::new(),
            bytes: 0,
            exited: VecDeque::new(),
            nameless: HashMap::new(),
            evicted: 0,
            partial: 0,
        }
    }

    /// This, where [`Self::latest`] is asked for by such process IDs.
    #[must_use]
    pub fn with_pids(self, pids: Pids) -> Self {
        Self { pids, ..self }
    }

    /// A process was made by `creator` at `now` (nanoseconds since boot).
    pub fn fork(&mut self, info: &TaskInfo, creator: &TaskRef, now: u64) -> &Process {
        let name = self.identity.process(&info.task);
        let mut parent = self.lineage(&info.parent);
        if self.processes.contains(&name) {
            // Something else of it came first, or it is in the snapshot as well.
            return self.update(name, |process| process.parent = Some(parent));
        }
        if creator.pid == info.parent.pid {
            // What the child has it has from its parent, just now.
            (parent.comm, parent.uid) = (comm(info), Some(info.creds.uid));
        }
        let image = parent.image.clone();
        let source = if image.is_some() { Source::Kernel } else { Source::Partial };
        let image = image.unwrap_or_default();
        self.insert(name, Process { image, parent: Some(parent), ..entry(info, source) }, now)
    }

    /// A process runs another program since `now`.
    pub fn exec(&mut self, info: &TaskInfo, image: Image, now: u64) -> &Process {
        let name = self.ensure(info, now);
        self.update(name, |process| {
            process.task = info.task;
            process.image = Arc::new(image);
            if process.source == Source::Partial && process.parent.is_some() {
                // All that is said of it is of this exec.
                process.source = Source::Kernel;
            }
            note(process, info);
        });
        self.make_room(now, name);
        self.update(name, |_| {})
    }

    /// A process ended at `now`. `None` when that was known already.
    pub fn exit(&mut self, info: &TaskInfo, now: u64) -> Option<&Process> {
        let name = self.ensure(info, now);
        if self.processes.peek(&name)?.exited {
            return None;
        }
        self.exited.push_back((now, name));
        Some(self.update(name, |process| {
            process.exited = true;
            note(process, info);
        }))
    }

    /// A process did something else at `now`.
    pub fn act(&mut self, info: &TaskInfo, now: u64) -> &Process {
        let name = self.ensure(info, now);
        self.update(name, |process| note(process, info))
    }

    /// A process was there before the agent. What hooks have said of it since goes before.
    pub fn snapshot(&mut self, info: &TaskInfo, image: Image) {
        let name = self.identity.process(&info.task);
        if self.processes.contains(&name) {
            return;
        }
        let parent = (info.parent.pid != 0).then(|| self.lineage(&info.parent));
        let process = Process { image: Arc::new(image), parent, ..entry(info, Source::Snapshot) };
        self.insert(name, process, 0);
    }

    /// To be called once the whole snapshot is in: parents may come after their children in it.
    pub fn complete_snapshot(&mut self) {
        let unknown: Vec<(u64, TaskRef)> = self
            .processes
            .iter()
            .filter_map(|(name, process)| Some((*name, process.parent.as_ref()?)))
            .filter(|(_, parent)| parent.image.is_none())
            .map(|(name, parent)| (name, parent.task))
            .collect();
        for (name, parent) in unknown {
            let lineage = self.lineage(&parent);
            self.update(name, |process| process.parent = Some(lineage));
        }
    }

    /// A process was found in `/proc`, started `ticks` after boot.
    pub fn procfs(&mut self, info: &TaskInfo, ticks: u64, image: Image) {
        let process = Process { image: Arc::new(image), ..entry(info, Source::Procfs) };
        if self.nameless.len() < self.bounds.processes {
            self.nameless.insert(info.task.pid, (ticks, process));
        } else {
            self.evicted += 1;
        }
    }

    /// What the table holds and had to do.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            processes: self.processes.len() + self.nameless.len(),
            bytes: self.bytes,
            exited: self.exited.len(),
            evicted: self.evicted,
            partial: self.partial,
        }
    }

    /// A process that is known.
    #[must_use]
    pub fn get(&self, task: &TaskRef) -> Option<&Process> {
        self.processes.peek(&self.identity.process(task))
    }

    /// A process that is known, also if it was only read from `/proc`: now it gets its name.
    pub fn found(&mut self, task: &TaskRef, now: u64) -> Option<&Process> {
        let name = self.identity.process(task);
        if !self.processes.contains(&name)
            && let Some(process) = self.take_nameless(task)
        {
            self.insert(name, Process { task: *task, ..process }, now);
        }
        self.processes.peek(&name)
    }

    /// The process that has this process ID, or had it last: for what tells nothing but that number.
    #[must_use]
    pub fn latest(&self, pid: u32) -> Option<&Process> {
        let name = self.by_pid.get(&pid).filter(|_| pid != NOBODY)?;
        self.processes.peek(name)
    }

    /// Names of the processes that have one of these process IDs and have not ended, and of all that descend from
    /// them, as far as they are known.
    #[must_use]
    pub fn tree(&self, pids: &[u32]) -> HashSet<u64> {
        let roots =
            self.processes.iter().filter(|(_, process)| pids.contains(&process.task.pid) && !process.exited);
        let mut tree: HashSet<u64> = roots.map(|(name, _)| *name).collect();
        let parent =
            |process: &Process| process.parent.as_ref().map(|parent| self.identity.process(&parent.task));
        let mut children: HashMap<u64, Vec<u64>> = HashMap::new();
        for (name, process) in &self.processes {
            if let Some(parent) = parent(process) {
                children.entry(parent).or_default().push(*name);
            }
        }
        let mut new: Vec<u64> = tree.iter().copied().collect();
        while let Some(parent) = new.pop() {
            let born = children.remove(&parent).unwrap_or_default();
            new.extend(born.into_iter().filter(|child| tree.insert(*child)));
        }
        tree
    }

    /// Makes sure that there is an entry; gives its name.
    fn ensure(&mut self, info: &TaskInfo, now: u64) -> u64 {
        let name = self.identity.process(&info.task);
        if let Some(known) = self.processes.peek(&name) {
            let image_unknown = known.task.exec_id != info.task.exec_id;
            let parent_unknown = known.parent.is_none() && info.parent.pid != 0;
            if image_unknown {
                self.partial += 1;
            }
            let parent = parent_unknown.then(|| self.lineage(&info.parent));
            if image_unknown || parent_unknown {
                self.update(name, |process| {
                    if image_unknown {
                        // An exec was lost: what ran before says nothing of what runs now.
                        process.task = info.task;
                        process.image = Arc::default();
                        process.source = Source::Partial;
                    }
                    process.parent = parent.or(process.parent.take());
                });
            }
            return name;
        }
        let process = if let Some(mut process) = self.take_nameless(&info.task) {
            process.task = info.task;
            process.parent = Some(self.lineage(&info.parent));
            process
        } else {
            self.partial += 1;
            Process { parent: Some(self.lineage(&info.parent)), ..entry(info, Source::Partial) }
        };
        self.insert(name, process, now);
        name
    }

    /// The process that was read from `/proc` under this process ID, if it is the same.
    fn take_nameless(&mut self, task: &TaskRef) -> Option<Process> {
        let (ticks, process) = self.nameless.remove(&task.pid)?;
        // Else it is another one of that number, and the one that was read is gone.
        (ticks == task.start / TICK).then_some(process)
    }

    /// What is known of a process that made another.
    pub fn lineage(&mut self, task: &TaskRef) -> Lineage {
        let name = self.identity.process(task);
        if !self.processes.contains(&name)
            && let Some(mut process) = self.take_nameless(task)
        {
            process.task = *task;
            self.insert(name, process, 0);
        }
        match self.processes.get(&name) {
            Some(parent) => Lineage {
                task: *task,
                image: (parent.task.exec_id == task.exec_id && parent.source != Source::Partial)
                    .then(|| Arc::clone(&parent.image)),
                comm: parent.comm.clone(),
                uid: Some(parent.uid),
            },
            None => Lineage { task: *task, image: None, comm: String::new(), uid: None },
        }
    }

    fn insert(&mut self, name: u64, process: Process, now: u64) -> &Process {
        self.bytes += weight(&process);
        self.by_pid.insert(self.pids.of(&process.info), name);
        self.processes.put(name, process);
        self.make_room(now, name);
        self.update(name, |_| {})
    }

    fn update(&mut self, name: u64, change: impl FnOnce(&mut Process)) -> &Process {
        let process = self.processes.get_mut(&name).expect("ensured by every caller");
        let before = weight(process);
        change(process);
        self.bytes = self.bytes + weight(process) - before;
        process
    }

    fn is_full(&self) -> bool {
        self.processes.len() > self.bounds.processes || self.bytes > self.bounds.bytes
    }

    /// Lets go of whoever the bounds have no place for, the one just put in (`spared`) excepted.
    fn make_room(&mut self, now: u64, spared: u64) {
        let keep = u64::try_from(self.bounds.keep_exited.as_nanos()).unwrap_or(u64::MAX);
        while let Some((ended, name)) = self.exited.front().copied() {
            let crowded = self.is_full() || self.exited.len() > self.bounds.exited;
            if !crowded && now.saturating_sub(ended) < keep {
                break;
            }
            self.exited.pop_front();
            if name != spared
                && let Some(process) = self.processes.pop(&name)
            {
                self.let_go(name, &process);
            }
        }
        while self.is_full() && self.processes.len() > 1 {
            // All that is left is running: the one that did nothing for longest goes. The one just put in is
            // the last that would.
            if let Some((name, process)) = self.processes.pop_lru() {
                self.let_go(name, &process);
                self.evicted += 1;
            }
        }
    }

    fn let_go(&mut self, name: u64, process: &Process) {
        self.bytes -= weight(process);
        // Another may have its number by now.
        let pid = self.pids.of(&process.info);
        if self.by_pid.get(&pid) == Some(&name) {
            self.by_pid.remove(&pid);
        }
    }
}

/// Bytes that an entry takes, about. An image that several share counts for each of them, since it lives as
/// long as any.
fn weight(process: &Process) -> usize {
    let parent = process.parent.as_ref().and_then(|parent| parent.image.as_ref());
    size_of::<Process>() + process.image.weight() + parent.map_or(0, |image| image.weight())
}

// === impl Image ===

impl Image {
    /// The image as it is kept for later events: without the tail of very long arguments.
    #[must_use]
    pub fn kept(mut self) -> Self {
        if let Some(first) = self.args.get(..KEPT_ARGS) {
            self.args = first.into();
            self.args_truncated = true;
        }
        self
    }

    fn weight(&self) -> usize {
        let exe = self.exe.as_ref().map_or(0, |exe| exe.path.len() + exe.device.len() + exe.mode.len());
        size_of::<Self>() + self.args.len() + self.cwd.len() + exe
    }
}

/// An entry from what every record says.
fn entry(info: &TaskInfo, source: Source) -> Process {
    Process {
        task: info.task,
        image: Arc::default(),
        parent: None,
        source,
        comm: comm(info),
        uid: info.creds.uid,
        exited: false,
        info: *info,
    }
}

fn note(process: &mut Process, info: &TaskInfo) {
    process.uid = info.creds.uid;
    process.info = *info;
    let now = padded(&info.comm);
    if process.comm.as_bytes() != now {
        process.comm = nightjar_proto::text::from_bytes(now);
    }
}

fn comm(info: &TaskInfo) -> String {
    nightjar_proto::text::from_bytes(padded(&info.comm))
}

#[cfg(test)]
mod tests {
    use nightjar_abi::record::{Creds, Namespaces};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn table(bounds: Bounds) -> Table {
        Table::new(Identity::of_boot("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0").unwrap(), bounds)
    }

    fn task(pid: u32, start: u64, exec_id: u64) -> TaskRef {
        TaskRef { pid, tid: pid, start, exec_id }
    }

    fn info(task: TaskRef, parent: TaskRef) -> TaskInfo {
        let creds = Creds {
            uid: 7,
            gid: 7,
            suid: 7,
            sgid: 7,
            euid: 7,
            egid: 7,
            fsuid: 7,
            fsgid: 7,
            securebits: 0,
            user_ns: 1,
            inheritable: 0,
            permitted: 0,
            effective: 0,
            bounding: 0,
            ambient: 0,
        };
        let namespaces =
            Namespaces { cgroup: 0, ipc: 0, mnt: 0, net: 0, pid: 0, pid_for_children: 0, time: 0, uts: 0 };
        TaskInfo {
            task,
            parent,
            creds,
            namespaces,
            cgroup_id: 1,
            loginuid: u32::MAX,
            session: u32::MAX,
            ns_pid: task.pid,
            flags: 0,
            comm: *b"name\0\0\0\0\0\0\0\0\0\0\0\0",
            tty: [0; 32],
        }
    }

    fn image(path: &str) -> Image {
        Image { exe: Some(FileFacts { path: path.to_owned(), ..FileFacts::default() }), ..Image::default() }
    }

    fn path(image: &Image) -> &str {
        image.exe.as_ref().map_or("", |exe| &exe.path)
    }

    const INIT: TaskRef = TaskRef { pid: 1, tid: 1, start: 5, exec_id: 1 };

    #[test]
    fn who_has_a_number_in_the_namespace_of_the_agent_is_found_by_it() {
        let own = 4_026_532_178;
        let mut within = table(Bounds::default()).with_pids(Pids { within: Some(own) });
        let mut child = info(task(4242, 200, 3), INIT);
        (child.ns_pid, child.namespaces.pid) = (42, own);
        within.exec(&child, image("/bin/ls"), 300);
        within.exec(&info(task(43, 100, 2), INIT), image("/bin/sh"), 150);
        assert_eq!(path(&within.latest(42).unwrap().image), "/bin/ls");
        assert!([0, 43, 4242].iter().all(|pid| within.latest(*pid).is_none()), "they are elsewhere");

        let mut first = table(Bounds::default());
        first.exec(&child, image("/bin/ls"), 300);
        assert!(first.latest(4242).is_some() && first.latest(42).is_none());
    }

    #[test]
    fn a_child_runs_what_its_parent_ran_until_it_execs() {
        let mut table = table(Bounds::default());
        let (parent, child) = (task(10, 100, 2), task(11, 200, 2));
        table.exec(&info(parent, INIT), image("/bin/sh"), 150);

        assert_eq!(path(&table.fork(&info(child, parent), &parent, 200).image), "/bin/sh");
        let after = table.exec(&info(task(11, 200, 3), parent), image("/bin/ls"), 300);
        assert_eq!(path(&after.image), "/bin/ls");
        assert_eq!(path(after.parent.as_ref().unwrap().image.as_ref().unwrap()), "/bin/sh");
    }

    #[test]
    fn the_parent_is_as_it_was_at_the_fork() {
        let mut table = table(Bounds::default());
        let (parent, child) = (task(10, 100, 2), task(11, 200, 2));
        table.exec(&info(parent, INIT), image("/bin/sh"), 150);
        table.fork(&info(child, parent), &parent, 200);
        // It goes on to another program and ends; the child is adopted by init.
        table.exec(&info(task(10, 100, 3), INIT), image("/bin/true"), 210);
        table.exit(&info(task(10, 100, 3), INIT), 220);

        let process = table.exec(&info(task(11, 200, 3), INIT), image("/bin/ls"), 300);
        let lineage = process.parent.as_ref().unwrap();
        assert_eq!(lineage.task, parent);
        assert_eq!(path(lineage.image.as_ref().unwrap()), "/bin/sh");
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_process() {
        let mut table = table(Bounds::default());
        table.exec(&info(task(10, 100, 2), INIT), image("/bin/old"), 100);
        table.exit(&info(task(10, 100, 2), INIT), 150);

        let process = table.fork(&info(task(10, 200, 2), INIT), &INIT, 200);
        assert_eq!(path(&process.image), "");
        assert!(!process.exited);
        assert!(table.get(&task(10, 100, 2)).unwrap().exited);
    }

    #[test]
    fn an_exit_that_overtakes_its_fork_is_kept_and_the_fork_adds_the_parent() {
        let mut table = table(Bounds::default());
        let (parent, child) = (task(10, 100, 2), task(11, 200, 2));
        table.exec(&info(parent, INIT), image("/bin/sh"), 150);

        assert_eq!(table.exit(&info(child, INIT), 210).unwrap().source, Source::Partial);
        let process = table.fork(&info(child, parent), &parent, 200);
        assert!(process.exited, "a late fork does not bring it back");
        assert_eq!(process.parent.as_ref().unwrap().task, parent);
    }

    #[test]
    fn an_end_that_is_told_twice_counts_once() {
        let mut table = table(Bounds::default());
        assert!(table.exit(&info(task(10, 100, 2), INIT), 150).is_some());
        assert!(table.exit(&info(task(10, 100, 2), INIT), 151).is_none());
    }

    #[test]
    fn a_lost_start_is_marked_and_counted() {
        let mut table = table(Bounds::default());
        assert_eq!(table.act(&info(task(10, 100, 2), INIT), 150).source, Source::Partial);
        assert_eq!(table.stats().partial, 1);
    }

    #[test]
    fn after_a_lost_exec_the_image_from_before_is_not_believed() {
        let mut table = table(Bounds::default());
        let parent = task(10, 100, 2);
        table.exec(&info(parent, INIT), image("/bin/sh"), 150);

        let later = task(10, 100, 3);
        let child = table.fork(&info(task(11, 200, 3), later), &later, 200);
        assert_eq!(child.parent.as_ref().unwrap().image, None);
        assert_eq!((path(&child.image), child.source), ("", Source::Partial));

        let process = table.exit(&info(later, INIT), 300).unwrap();
        assert_eq!((path(&process.image), process.source), ("", Source::Partial));
    }

    #[test]
    fn a_childs_parent_is_as_its_own_record_says() {
        let mut table = table(Bounds::default());
        let parent = task(10, 100, 2);
        table.exec(&info(parent, INIT), image("/bin/sh"), 150);
        // It became another user meanwhile, which nobody told the table.
        let mut child = info(task(11, 200, 2), parent);
        child.creds.uid = 65534;
        assert_eq!(table.fork(&child, &parent, 200).parent.as_ref().unwrap().uid, Some(65534));
    }

    #[test]
    fn long_arguments_do_not_make_the_table_grow_beyond_its_bytes() {
        let bounds = Bounds { bytes: 1 << 20, ..Bounds::default() };
        let mut table = table(bounds);
        for pid in 0..5000 {
            let long = Image { args: vec![0; 32767].into(), ..image("/bin/true") }.kept();
            let process = info(task(pid + 10, 100, 2), INIT);
            table.exec(&process, long, u64::from(pid));
            if pid % 2 == 0 {
                table.exit(&process, u64::from(pid));
            }
        }
        assert!(table.bytes <= bounds.bytes);
        let counted: usize = table.processes.iter().map(|(_, process)| weight(process)).sum();
        assert_eq!(table.bytes, counted);
        assert!(table.stats().evicted > 0);
    }

    #[test]
    fn the_snapshot_does_not_overwrite_what_hooks_saw() {
        let mut table = table(Bounds::default());
        table.exec(&info(task(10, 100, 3), INIT), image("/bin/new"), 150);
        table.snapshot(&info(task(10, 100, 2), INIT), image("/bin/old"));
        assert_eq!(path(&table.get(&task(10, 100, 3)).unwrap().image), "/bin/new");
    }

    #[test]
    fn a_parent_that_comes_later_in_the_snapshot_is_found() {
        let mut table = table(Bounds::default());
        let parent = task(10, 100, 2);
        table.snapshot(&info(task(11, 200, 2), parent), image("/bin/ls"));
        table.snapshot(&info(parent, INIT), image("/bin/sh"));
        table.complete_snapshot();

        let lineage = table.get(&task(11, 200, 2)).unwrap().parent.clone().unwrap();
        assert_eq!(path(&lineage.image.unwrap()), "/bin/sh");
    }

    #[test]
    fn a_process_from_proc_gets_its_name_from_the_first_record_of_the_same_start() {
        let mut table = table(Bounds::default());
        let start = 12_345_678_901;
        table.procfs(&info(task(10, 0, 0), INIT), start / 10_000_000, image("/bin/sh"));

        let process = table.act(&info(task(10, start, 2), INIT), start + 5);
        assert_eq!((path(&process.image), process.source), ("/bin/sh", Source::Procfs));
        assert_eq!(table.stats().partial, 0);
    }

    #[test]
    fn a_process_from_proc_is_forgotten_when_its_number_is_used_again() {
        let mut table = table(Bounds::default());
        table.procfs(&info(task(10, 0, 0), INIT), 1234, image("/bin/sh"));
        let process = table.act(&info(task(10, 99 * SECOND, 2), INIT), 99 * SECOND);
        assert_eq!(process.source, Source::Partial);
    }

    #[test]
    fn a_tree_has_all_that_descend_from_its_root_and_nobody_else() {
        let mut table = table(Bounds::default());
        let (root, child, grandchild) = (task(10, 100, 2), task(11, 200, 2), task(12, 300, 2));
        table.fork(&info(root, INIT), &INIT, 100);
        table.fork(&info(child, root), &root, 200);
        table.fork(&info(grandchild, child), &child, 300);
        table.fork(&info(task(13, 400, 2), INIT), &INIT, 400);
        let names = |tasks: &[TaskRef]| tasks.iter().map(|task| table.identity.process(task)).collect();
        assert_eq!(table.tree(&[10]), names(&[root, child, grandchild]));
        assert_eq!(table.tree(&[11, 12]), names(&[child, grandchild]));
        assert!(table.tree(&[99]).is_empty());
    }

    #[test]
    fn ended_processes_are_kept_for_a_while_and_then_go() {
        let mut table = table(Bounds::default());
        table.exec(&info(task(10, 100, 2), INIT), image("/bin/sh"), 100);
        table.exit(&info(task(10, 100, 2), INIT), 200);

        table.fork(&info(task(11, 300, 2), INIT), &INIT, 10 * SECOND);
        assert!(table.get(&task(10, 100, 2)).is_some());
        table.fork(&info(task(12, 400, 2), INIT), &INIT, 31 * SECOND);
        assert!(table.get(&task(10, 100, 2)).is_none());
    }

    #[test]
    fn a_full_table_lets_ended_processes_go_first_and_counts_running_ones() {
        let mut table = table(Bounds { processes: 3, ..Bounds::default() });
        table.fork(&info(task(10, 100, 2), INIT), &INIT, 100);
        table.fork(&info(task(11, 101, 2), INIT), &INIT, 101);
        table.exit(&info(task(11, 101, 2), INIT), 102);
        table.fork(&info(task(12, 103, 2), INIT), &INIT, 103);
        table.fork(&info(task(13, 104, 2), INIT), &INIT, 104);
        assert!(table.get(&task(11, 101, 2)).is_none(), "the ended one went");
        assert_eq!(table.stats().evicted, 0);

        table.act(&info(task(10, 100, 2), INIT), 105);
        table.fork(&info(task(14, 106, 2), INIT), &INIT, 106);
        assert_eq!(table.stats().evicted, 1);
        assert!(table.get(&task(10, 100, 2)).is_some(), "the one that acted stays");
        assert!(table.get(&task(12, 103, 2)).is_none());
    }
}
