//! Records of calls that change files.

use std::time::{Duration, Instant};

use nightjar_abi::{
    files::{Act as CallAct, CALLS, Call},
    record::{FileCall, Operand, operand, task_flags},
};
use nightjar_proto::v1::{self, FileActivity};

use super::{Act, Actor, Monitor, mounts, replaced_of};
use crate::{
    decode::{FileCallRecord, OperandTexts, Text},
    files::{
        describe::{self, NameSource},
        echo::{Class, Confirmed, file_name, parent},
        fanotify::Mask,
        paths::{bytes_of, normal, path_from},
        policy::Operation,
        tree::{self, Known, Tree},
    },
    pipeline::Discard,
};

/// How long after notifications were lost what was not told is believed.
const OVERFLOW_PAST: Duration = Duration::from_secs(10);

/// What a call does.
struct Change {
    kind: &'static str,
    act: CallAct,
    operation: Operation,
    class: Class,
    is_directory: bool,
    /// Two names change places.
    exchanges: bool,
}

/// Where something is; empty where that is not to be found out.
#[derive(Default)]
struct Place {
    /// As policies see it.
    canonical: Vec<u8>,
    /// Where the agent finds it.
    path: Vec<u8>,
}

/// Whether a process was told to have written a file.
enum Written {
    No,
    /// And what was known of it before.
    From(Option<v1::FileAttributes>),
}

impl Monitor {
    /// A call that changes files succeeded.
    ///
    /// # Errors
    /// Why that is no event.
    pub fn called(&mut self, record: &FileCallRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let FileCallRecord { body, .. } = record;
        let Some(call) = CALLS.iter().find(|call| call.number == body.call) else {
            return Err(Discard::NoEvent);
        };
        match call.act {
            CallAct::Mount
            | CallAct::Umount
            | CallAct::MoveMount
            | CallAct::PivotRoot
            | CallAct::MountSetattr
            | CallAct::DetachedMount => {
                // It may be seen in other namespaces too.
                self.tree.forget_devices();
                // In a mount namespace of one's own one mounts what one likes.
                if u64::from(body.info.namespaces.mnt) == self.mount_namespace {
                    self.resolve_soon();
                }
                Ok(("file.mount", mounts::of(call, record)))
            }
            CallAct::Copy => self.copied(call, record),
            _ => {
                self.last_read_until(body.header.time);
                self.changed(call, record)
            }
        }
    }

    fn changed(
        &mut self,
        call: &Call,
        record: &FileCallRecord<'_>,
    ) -> Result<(&'static str, FileActivity), Discard> {
        let FileCallRecord { body, text, .. } = record;
        let change = Change::of(call, body);
        let mut first = self.named(&body.first, &record.first, body);
        let mut second =
            (body.second.what != operand::NONE).then(|| self.named(&body.second, &record.second, body));
        if !self.correct(&change, body, &mut first, &mut second) {
            // The kernel would have told of this name. What it did instead it tells by itself.
            return Err(Discard::NotWatched);
        }
        if call.act == CallAct::Link && u64::from(body.info.namespaces.mnt) == self.mount_namespace {
            first.follow_links();
        }

        let policies = self.options.policies.clone();
        let find = |named: &Named| {
            let names = named.names.iter();
            names.into_iter().find_map(|name| policies.matching(name, change.operation, change.is_directory))
        };
        let policy = find(&first).or_else(|| second.as_ref().and_then(find));
        if policy.is_none() && !self.options.all {
            return Err(Discard::NotWatched);
        }
        if call.act == CallAct::Link
            && let Some(linked) = first.names.iter().find(|name| policies.any_covering(name))
        {
            // From now on what is done by any of its names counts.
            self.resolve_below(&linked.clone(), false);
        }
        // A hard link: the new name is what came into being.
        let (of, other) = match (call.act, second) {
            (CallAct::Link, Some(second)) => (second, Some(first)),
            (_, second) => (first, second),
        };
        let place = self.place_of(&of, body);
        let mut activity = match call.act {
            CallAct::Delete | CallAct::Rmdir => self.removed(&place, change.is_directory),
            CallAct::Rename => self.moved(&place, other.as_ref(), body, change.exchanges),
            CallAct::Truncate => self.truncated(&place, body),
            CallAct::Link | CallAct::Symlink | CallAct::Mkdir | CallAct::Mknod => {
                self.made(&place, call.act, self.pids.of(&body.info))
            }
            _ => self.set(&place, call.act, body, text),
        };
        activity.path = describe::path(&of.path);
        activity.path_truncated = of.truncated;
        activity.path_unreadable = of.unreadable;
        activity.path_unreachable = of.unreachable;
        activity.source = of.source.name();
        activity.policy = policy.map_or_else(String::new, |policy| policy.name().to_owned());
        call.name.clone_into(&mut activity.call);
        activity.target = if call.act == CallAct::Symlink {
            Some(v1::FileTarget { path: describe::path(text.bytes), ..v1::FileTarget::default() })
        } else {
            other.map(|other| v1::FileTarget {
                path: describe::path(&other.path),
                source: if other.source == of.source { String::new() } else { other.source.name() },
                ..v1::FileTarget::default()
            })
        };
        Ok((change.kind, activity))
    }

    /// Takes the names that the kernel tells of instead of those in the memory of the process, where there is no
    /// doubt that they are of this call. Whether the names can be what they are said to be.
    fn correct(
        &mut self,
        change: &Change,
        body: &FileCall,
        first: &mut Named,
        second: &mut Option<Named>,
    ) -> bool {
        let (pid, time, act) = (self.pids.of(&body.info), body.header.time, change.act);
        let (path, target) = match (act, &second) {
            (CallAct::Link, Some(second)) => (second.lexical(), Vec::new()),
            (CallAct::Rename, Some(second)) => (first.lexical(), second.lexical()),
            _ => (first.lexical(), Vec::new()),
        };
        if change.exchanges
            && let Some(second) = second
        {
            if self.echoes.confirm_exchange(pid, &path, &target, time) {
                first.is_truly(&path);
                second.is_truly(&target);
            }
            return true;
        }
        if act == CallAct::Rename && self.groups.iter().any(|group| !group.features().rename) {
            // Two notifications without a tie between them.
            self.echoes.confirm(Class::Delete, pid, &path, &[], time);
            self.echoes.confirm(Class::Create, pid, &target, &[], time);
            return true;
        }
        let class = change.class;
        let is_named = body.first.what == operand::NAME;
        let confirmed = self.echoes.confirm(class, pid, &path, &target, time).or_else(|| {
            if !is_named {
                return None;
            }
            let at = if target.is_empty() { &path } else { &target };
            if !self.tree.is_told_of(parent(at), change.mask(), time) {
                // Over symbolic links: the directory tells.
                let is_same = |told: &[u8]| is_same_directory(parent(at), parent(told));
                return self.echoes.confirm_by_name(class, pid, (&path, &target), time, is_same);
            }
            // Had this been the name the kernel would have told of it, and it takes another thread to change it.
            if body.info.flags & task_flags::THREADS == 0 {
                return None;
            }
            self.echoes.confirm_next(class, pid, change.is_directory, time)
        });
        // Threads may have changed each other's names: then only what leaves no choice is certain.
        let has_threads = body.info.flags & task_flags::THREADS != 0;
        let certain = confirmed
            .as_ref()
            .filter(|found| is_named && found.is_certain && (found.is_only || !has_threads));
        let Some(Confirmed { echo, .. }) = certain else {
            let at = if target.is_empty() { &path } else { &target };
            let is_lost = self.overflowed.is_some_and(|when| when.elapsed() < OVERFLOW_PAST);
            let is_denied = is_named && !is_lost && self.tree.is_told_of(parent(at), change.mask(), time);
            // What is done to a directory itself is told by that, not by the one it is in.
            let is_directory =
                || tree::look(path_from(at)).is_some_and(|now| describe::kind(now.mode) == "directory");
            let is_denied = is_denied && !(change.class == Class::Attributes && is_directory());
            return confirmed.is_some() || !is_denied;
        };
        match (act, second) {
            (CallAct::Link, Some(second)) => second.is_truly(&echo.path),
            (CallAct::Rename, Some(second)) => {
                first.is_truly(&echo.path);
                second.is_truly(&echo.target);
            }
            _ => first.is_truly(&echo.path),
        }
        true
    }

    /// Where something is.
    fn place_of(&self, named: &Named, body: &FileCall) -> Place {
        // What is known is known of the host's files alone.
        let is_elsewhere = self.roots.contains_key(&body.info.namespaces.mnt);
        let is_ours = u64::from(body.info.namespaces.mnt) == self.mount_namespace;
        let canonical = named.names.first().filter(|_| !is_elsewhere).cloned().unwrap_or_default();
        let path = if named.names.is_empty() && is_ours { named.path.clone() } else { canonical.clone() };
        Place { canonical, path }
    }

    fn removed(&mut self, place: &Place, is_directory: bool) -> FileActivity {
        let before = self.tree.forget(&place.canonical);
        let device = before.map_or_else(String::new, |_| self.tree.device_of(parent(&place.path)));
        let mut activity = describe::of_known(before, device);
        activity.links = before.filter(|_| !is_directory).map(|before| before.links.saturating_sub(1));
        if is_directory {
            "directory".clone_into(&mut activity.r#type);
        }
        activity
    }

    fn moved(&mut self, from: &Place, to: Option<&Named>, body: &FileCall, exchanges: bool) -> FileActivity {
        let to = to.map(|to| self.place_of(to, body)).unwrap_or_default();
        let moved = self.tree.forget(&from.canonical);
        let replaced = self.tree.forget(&to.canonical);
        let now = moved.or_else(|| to.look());
        let at = if to.canonical.is_empty() { &from.path } else { &to.canonical };
        let mut activity = describe::of_known(now, self.tree.device_of(parent(at)));
        if let Some(now) = now {
            self.tree.learn(&to.canonical, now);
        }
        if exchanges && let Some(replaced) = replaced {
            self.tree.learn(&from.canonical, replaced);
        }
        // What is there now may have been seen there already.
        let inode = now.map(|now| now.inode);
        activity.replaced = replaced.filter(|replaced| Some(replaced.inode) != inode).map(replaced_of);
        activity.exchanged = exchanges;
        self.sessions.renamed(&from.canonical, &to.canonical);
        self.created(&to.canonical, self.pids.of(&body.info));
        activity
    }

    fn truncated(&mut self, place: &Place, body: &FileCall) -> FileActivity {
        let size = body.args[1];
        let (canonical, pid) = (&place.canonical, self.pids.of(&body.info));
        // The kernel's word of the same may have come first.
        let before = match self.take_written(canonical, pid, size) {
            Written::No => self.tree.known(canonical).map(describe::content),
            Written::From(before) => before,
        };
        let now = place.look();
        let mut activity = if body.first.what == operand::FILE {
            describe::of_info(&body.first.file, size)
        } else {
            describe::of_known(now, place.device(now, &mut self.tree))
        };
        activity.size = Some(size);
        if let Some(known) = self.tree.known(canonical).or(now) {
            let modified = now.map_or(known.modified, |now| now.modified);
            self.tree.learn(canonical, Known { size, modified, ..known });
        }
        activity.before = before;
        activity.after = Some(v1::FileAttributes { size: Some(size), ..v1::FileAttributes::default() });
        // Not to be told again at the close, unless more is written.
        self.sessions.end(canonical, pid);
        activity
    }

    fn made(&mut self, place: &Place, act: CallAct, pid: u32) -> FileActivity {
        let now = place.look();
        if let Some(now) = now {
            self.tree.learn(&place.canonical, now);
        }
        self.created(&place.canonical, pid);
        let mut activity = describe::of_known(now, place.device(now, &mut self.tree));
        activity.symbolic = act == CallAct::Symlink;
        if act == CallAct::Mkdir {
            "directory".clone_into(&mut activity.r#type);
        }
        activity
    }

    fn set(&mut self, place: &Place, act: CallAct, body: &FileCall, text: &Text<'_>) -> FileActivity {
        let before = self.tree.known(&place.canonical);
        let now = place.look();
        let after = after_call(act, body, before, now);
        let mut activity = if body.first.what == operand::FILE {
            describe::of_info(&body.first.file, body.first.size)
        } else {
            describe::of_known(after.or(now), place.device(now, &mut self.tree))
        };
        if let Some(after) = after {
            self.tree.learn(&place.canonical, after);
        }
        let (was, is, found) = describe::differences(before, after);
        (activity.before, activity.after) = (was, is);
        activity.changed = changed_by(act, body, text, found);
        if matches!(act, CallAct::SetXattr | CallAct::RemoveXattr) {
            activity.xattr = describe::path(text.bytes);
        }
        activity
    }

    /// Takes back that a process has written a file if all it did was to give it this size: what it was before.
    fn take_written(&mut self, path: &[u8], pid: u32, size: u64) -> Written {
        let path = describe::path(path);
        let is_it = |(_, act): &(Instant, Act)| {
            act.kind == "file.modify"
                && matches!(act.actor, Actor::Pid(of) if of == pid)
                && act.body.path == path
                && act.body.after.as_ref().is_some_and(|after| after.size == Some(size))
        };
        match self.writings.iter().position(is_it).and_then(|at| self.writings.remove(at)) {
            Some((_, act)) => Written::From(act.body.before),
            None => Written::No,
        }
    }

    /// What is known of something that a call acted on.
    fn named(&self, operand: &Operand, texts: &OperandTexts<'_>, body: &FileCall) -> Named {
        let base = self.names(&operand.anchor, &texts.path, &texts.volume);
        let has_anchor = operand.anchor.device != 0;
        if operand.what == operand::FILE {
            return Named {
                path: texts.path.bytes.to_vec(),
                names: base,
                source: NameSource::Kernel,
                truncated: texts.path.truncated,
                unreadable: false,
                unreachable: texts.path.unreachable,
            };
        }
        let is_absolute = texts.name.bytes.starts_with(b"/");
        let join = |directory: &[u8]| normal(&[directory, b"/", texts.name.bytes].concat());
        let path = join(texts.path.bytes);
        let is_ours = u64::from(body.info.namespaces.mnt) == self.mount_namespace;
        let mut names: Vec<_> = if has_anchor && !is_absolute {
            base.iter().map(|directory| join(directory)).collect()
        } else {
            Vec::new()
        };
        let is_known = is_ours || self.roots.contains_key(&body.info.namespaces.mnt);
        if is_known && !texts.path.unreachable && !names.contains(&path) {
            names.push(path.clone());
        }
        Named {
            path,
            names,
            source: NameSource::UserMemory,
            truncated: texts.name.truncated,
            unreadable: texts.name.unreadable,
            unreachable: texts.path.unreachable,
        }
    }
}

/// A name that a call was given, and what is known of it.
struct Named {
    /// To be told.
    path: Vec<u8>,
    /// As policies may see it; none if there is no saying.
    names: Vec<Vec<u8>>,
    source: NameSource,
    truncated: bool,
    unreadable: bool,
    unreachable: bool,
}

// === impl Change ===

impl Change {
    fn of(call: &Call, body: &FileCall) -> Self {
        /// The flag of `unlinkat`.
        const AT_REMOVEDIR: u64 = 0x200;
        /// The flag of `renameat2`.
        const RENAME_EXCHANGE: u64 = 2;
        let removes_directory =
            call.act == CallAct::Rmdir || call.name == "unlinkat" && body.args[2] & AT_REMOVEDIR != 0;
        let (kind, operation, class) = match call.act {
            CallAct::Delete | CallAct::Rmdir if removes_directory => {
                ("file.rmdir", Operation::Rmdir, Class::Delete)
            }
            CallAct::Delete | CallAct::Rmdir => ("file.delete", Operation::Delete, Class::Delete),
            CallAct::Rename => ("file.rename", Operation::Rename, Class::Rename),
            CallAct::Link | CallAct::Symlink => ("file.link", Operation::Link, Class::Create),
            CallAct::Mkdir => ("file.mkdir", Operation::Mkdir, Class::Create),
            CallAct::Mknod => ("file.create", Operation::Create, Class::Create),
            CallAct::Truncate => ("file.truncate", Operation::Truncate, Class::Modify),
            _ => ("file.attributes", Operation::Attributes, Class::Attributes),
        };
        let exchanges = call.name == "renameat2" && body.args[4] & RENAME_EXCHANGE != 0;
        let is_directory = matches!(kind, "file.mkdir" | "file.rmdir");
        Self { kind, act: call.act, operation, class, is_directory, exchanges }
    }
}

impl Change {
    /// What the kernel tells of it.
    fn mask(&self) -> Mask {
        match self.class {
            Class::Create => Mask::CREATE,
            Class::Delete => Mask::DELETE,
            Class::Rename => Mask::RENAME,
            Class::Attributes => Mask::ATTRIB,
            Class::Modify => Mask::MODIFY,
            Class::Open => Mask::OPEN,
        }
    }
}

// === impl Place ===

impl Place {
    fn look(&self) -> Option<Known> {
        if self.path.is_empty() { None } else { tree::look(path_from(&self.path)) }
    }

    /// Device of what was found there.
    fn device(&self, found: Option<Known>, tree: &mut Tree) -> String {
        found.map_or_else(String::new, |_| tree.device_of(&self.path))
    }
}

// === impl Named ===

impl Named {
    /// As policies see it, as far as can be told.
    fn lexical(&self) -> Vec<u8> {
        self.names.first().unwrap_or(&self.path).clone()
    }

    /// Adds what the path is without symbolic links.
    fn follow_links(&mut self) {
        let Ok(directory) = std::fs::canonicalize(path_from(parent(&self.path))) else { return };
        let real = normal(&[&bytes_of(&directory), b"/".as_slice(), file_name(&self.path)].concat());
        if !self.names.contains(&real) {
            self.names.push(real);
        }
    }

    /// The kernel says what it was.
    fn is_truly(&mut self, path: &[u8]) {
        if path.is_empty() {
            return;
        }
        self.path = path.to_vec();
        self.names = vec![path.to_vec()];
        self.source = NameSource::Fanotify;
        (self.truncated, self.unreadable, self.unreachable) = (false, false, false);
    }
}

/// Attributes after a call: what it set, and else what is there now.
fn after_call(act: CallAct, body: &FileCall, before: Option<Known>, now: Option<Known>) -> Option<Known> {
    const PERMISSION_BITS: u32 = 0o7777;
    let mut after = now.or(before)?;
    if body.first.what == operand::FILE {
        let file = &body.first.file;
        (after.mode, after.uid, after.gid) = (file.mode, file.uid, file.gid);
        return Some(after);
    }
    // What a later call set is not of this one.
    if let Some(before) = before {
        (after.mode, after.uid, after.gid) = (before.mode, before.uid, before.gid);
    }
    let name_first = |at: usize, plain: usize| if is_at(body.call) { at } else { plain };
    let argument = |n: usize| u32::try_from(body.args[n] & u64::from(u32::MAX)).unwrap_or_default();
    match act {
        CallAct::Mode => {
            after.mode = after.mode & !PERMISSION_BITS | argument(name_first(2, 1)) & PERMISSION_BITS;
        }
        CallAct::Owner => {
            let (uid, gid) = (argument(name_first(2, 1)), argument(name_first(3, 2)));
            if uid != u32::MAX {
                after.uid = uid;
            }
            if gid != u32::MAX {
                after.gid = gid;
            }
            // The kernel may have taken privileges away from it.
            if let Some(now) = now {
                after.mode = now.mode;
            }
        }
        _ => {}
    }
    Some(after)
}

/// What a call set, by its own word.
fn changed_by(act: CallAct, body: &FileCall, text: &Text<'_>, found: Vec<String>) -> Vec<String> {
    let one = |what: &str| vec![what.to_owned()];
    match act {
        CallAct::Mode => one("mode"),
        CallAct::Times => one("times"),
        CallAct::SetXattr | CallAct::RemoveXattr if text.bytes.starts_with(b"system.posix_acl_") => {
            one("acl")
        }
        CallAct::SetXattr | CallAct::RemoveXattr => one("xattr"),
        CallAct::Owner => {
            let at = if is_at(body.call) { 2 } else { 1 };
            let is_set = |n: usize| body.args[n] & u64::from(u32::MAX) != u64::from(u32::MAX);
            let mut set = Vec::new();
            if is_set(at) {
                set.push("owner".to_owned());
            }
            if is_set(at + 1) {
                set.push("group".to_owned());
            }
            set
        }
        _ => found,
    }
}

/// Whether two paths lead to the same directory, over links or by mounts.
fn is_same_directory(one: &[u8], other: &[u8]) -> bool {
    let identity = |path: &[u8]| {
        let path = path_from(if path.is_empty() { b"/" } else { path });
        rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino))
    };
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

/// Whether a call begins with a directory to start from: `fchownat`, `fchmodat`, `fchmodat2`.
fn is_at(call: u32) -> bool {
    matches!(call, 260 | 268 | 452)
}
