//! Notifications: what the kernel says of directories and names.

use std::{
    mem,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nightjar_proto::v1;
use tracing::debug;

use super::{Act, Actor, MOST_FILES, Monitor, Recent, chain, replaced_of};
use crate::{
    files::{
        describe::{self, NameSource},
        echo::{Class, Echo, parent},
        fanotify::{DirEntry, Event, Mask, Notice},
        paths::{bytes_of, path_from},
        policy::Operation,
        resolve,
        session::Session,
        tree::{self, Known},
    },
    pipeline::since_boot,
};

/// How long after something moved or was mounted everything that is watched is looked for anew.
const SETTLE: Duration = Duration::from_millis(200);
/// How long records are waited for of what was found in a new directory.
const FOUND_PAUSE: Duration = Duration::from_millis(500);
/// How many files that have come to be are remembered before those of long ago are forgotten.
const MOST_RECENT: usize = 4096;

impl Monitor {
    pub(super) fn read(&mut self) {
        let Some(mut buffer) = self.buffer.take() else { return };
        let began = since_boot();
        let mut all = true;
        // What is told of a new directory is that it is to be marked.
        let groups = Arc::clone(&self.groups);
        for group in groups.iter() {
            match group.read(&mut buffer, |notice| self.notice(&notice, since_boot())) {
                Ok(drained) => {
                    all &= !drained.more;
                    if drained.malformed > 0 {
                        *self.lost.entry(("fanotify", "undecodable")).or_default() += drained.malformed;
                    }
                }
                Err(error) => debug!("{}", chain(&error)),
            }
        }
        self.buffer = Some(buffer);
        if all {
            self.last_read = began;
        }
    }

    fn notice(&mut self, notice: &Notice<'_>, time: u64) {
        let event = match notice {
            Notice::Overflow => {
                *self.lost.entry(("fanotify", "queue_overflow")).or_default() += 1;
                // What moved meanwhile is not known.
                self.overflowed = Some(Instant::now());
                self.tree.forget_devices();
                self.resolve_soon();
                return;
            }
            Notice::Event(event) => event,
        };
        let Ok(pid) = u32::try_from(event.pid) else { return };
        if pid == self.own_pid {
            return;
        }
        let mask = event.mask;
        let is_directory = mask.intersects(Mask::ON_DIR);
        if mask.intersects(Mask::RENAME) {
            self.rename_notice(event, pid, is_directory, time);
        }
        let entry = event.dir.as_ref().and_then(|entry| self.path_of(entry));
        // What is watched for itself may be used by a name elsewhere.
        let itself = || self.tree.directory(event.target?)?.names.first().cloned();
        let Some(path) = entry.or_else(itself) else { return };
        let echo = |class| Echo::new(class, pid, path.clone(), is_directory, time);
        let classes = [
            (Mask::CREATE | Mask::MOVED_TO, Class::Create),
            (Mask::OPEN, Class::Open),
            (Mask::ATTRIB, Class::Attributes),
            (Mask::DELETE | Mask::MOVED_FROM, Class::Delete),
        ];
        for (bits, class) in classes {
            // That a directory is opened is no event.
            if mask.intersects(bits) && !(is_directory && class == Class::Open) {
                self.echoes.push(echo(class));
            }
        }
        if mask.intersects(Mask::CREATE | Mask::MOVED_TO) {
            self.appeared(&path, is_directory);
        }
        if is_directory
            && mask.intersects(Mask::DELETE)
            && !mask.intersects(Mask::CREATE)
            && let Some(gone) = event.target
        {
            self.tree.unmark(gone);
        }
        if mask.intersects(Mask::DELETE | Mask::MOVED_FROM) && self.options.policies.may_cover_below(&path) {
            self.resolve_if_anchor(&path);
        }
        if mask.intersects(Mask::MODIFY) && !is_directory {
            self.echoes.push(echo(Class::Modify));
            for early in self.sessions.changed(&path, pid, time) {
                self.written(&early, None, None, true);
            }
        }
        if mask.intersects(Mask::CLOSE_WRITE) && !is_directory {
            let sessions = self.sessions.end(&path, pid);
            let now = event.target.and_then(|file| self.tree.look_at(file));
            if sessions.is_empty() {
                self.written(&Session::of(&path, pid, time), now, Some(pid), false);
            }
            for (n, session) in sessions.iter().enumerate() {
                self.written(session, now, (n == 0).then_some(pid), false);
            }
        }
    }

    fn rename_notice(&mut self, event: &Event<'_>, pid: u32, is_directory: bool, time: u64) {
        let old = event.old.as_ref().and_then(|entry| self.path_of(entry)).unwrap_or_default();
        let new = event.new.as_ref().and_then(|entry| self.path_of(entry)).unwrap_or_default();
        if old.is_empty() && new.is_empty() {
            return;
        }
        let echo = Echo::of_two(Class::Rename, pid, (old, new), is_directory, time);
        self.renamed(&echo);
        self.echoes.push(echo);
    }

    /// Path of an entry of a marked directory, as policies see it.
    fn path_of(&self, entry: &DirEntry<'_>) -> Option<Vec<u8>> {
        let marked = self.tree.directory(entry.dir)?;
        let directory = marked.names.first()?;
        if entry.is_itself() {
            return Some(directory.clone());
        }
        let slash: &[u8] = if directory.as_slice() == b"/" { b"" } else { b"/" };
        Some([directory, slash, entry.name].concat())
    }

    /// A file has come to be.
    pub(super) fn created(&mut self, path: &[u8], pid: u32) {
        self.recent.insert(
            tree::hash(path),
            Recent { when: Instant::now(), pid, changed: false, open_follows: false },
        );
    }

    /// Tells what was read of writers until then.
    pub(super) fn tell_writings(&mut self, until: Instant) {
        while let Some((_, act)) = self.writings.pop_front_if(|(read, _)| *read <= until) {
            self.acts.push(act);
        }
    }

    /// Tells of files that were made, or written, in a directory before that could be watched.
    pub(super) fn tell_found(&mut self, now: Instant) {
        while self.found.front().is_some_and(|(when, _)| now.saturating_duration_since(*when) >= FOUND_PAUSE)
        {
            let Some((_, path)) = self.found.pop_front() else { break };
            self.found_paths.remove(&tree::hash(&path));
            let Some(file) = tree::look(path_from(&path)) else { continue };
            self.tree.learn(&path, file);
            let recent = self.recent.get(&tree::hash(&path));
            let is_directory = describe::kind(file.mode) == "directory";
            let (kind, operation, actor) = match recent {
                None if is_directory => ("file.mkdir", Operation::Mkdir, Actor::Unknown),
                None => ("file.create", Operation::Create, Actor::Unknown),
                Some(recent) if !is_directory && !recent.changed && file.size > 0 => {
                    ("file.modify", Operation::Modify, Actor::Pid(recent.pid))
                }
                Some(_) => continue,
            };
            let Some(policy) = self.options.policies.matching(&path, operation, is_directory) else {
                continue;
            };
            let mut body = describe::of_known(Some(file), self.tree.device_of(&path));
            body.path = describe::path(&path);
            body.source = NameSource::Scan.name();
            policy.name().clone_into(&mut body.policy);
            if kind == "file.modify" {
                body.after = Some(describe::content(file));
            }
            self.acts.push(Act { kind, time: since_boot(), last: None, actor, body });
        }
        if self.recent.len() > MOST_RECENT {
            self.recent.retain(|_, recent| now.saturating_duration_since(recent.when) < 4 * FOUND_PAUSE);
        }
    }

    /// Something has come to be: a directory is watched from now on, and what is pending may be there.
    fn appeared(&mut self, path: &[u8], is_directory: bool) {
        if is_directory && self.options.policies.may_cover_below(path) {
            self.resolve_below(path, true);
        } else if self.options.policies.any_covering(path) && Self::is_linked(path) {
            self.resolve_below(path, false);
        }
    }

    /// Whether a file has names elsewhere: then its inode is watched.
    fn is_linked(path: &[u8]) -> bool {
        tree::look(path_from(path)).is_some_and(|file| file.links > 1)
    }

    /// Watches what is to be watched below a path. `is_new`: what is in there has come to be there.
    pub(super) fn resolve_below(&mut self, path: &[u8], is_new: bool) {
        // What comes between the walk and the marks is found by a second walk.
        let walks = if is_new { 2 } else { 1 };
        for _ in 0..walks {
            let root = resolve::Root { fs: "/".into(), prefix: String::new(), containers_only: false };
            let policies = self.options.policies.clone();
            let mut visited = Vec::new();
            let mut visit = |path: &Path, stat: &rustix::fs::Statx| {
                if visited.len() < MOST_FILES {
                    visited.push((bytes_of(path), Known::of(stat)));
                }
            };
            let found = resolve::resolve_below(&policies, &root, self.limits(), path_from(path), &mut visit);
            let directories = found.marks.iter().filter(|mark| is_new && mark.is_directory);
            let mut new: Vec<_> = directories.map(|mark| bytes_of(&mark.canonical)).collect();
            self.install(found);
            for (path, known) in visited {
                if self.tree.known(&path).is_none() {
                    self.tree.learn(&path, known);
                }
                if is_new {
                    new.push(path);
                }
            }
            for path in new {
                if self.found.len() < MOST_FILES && self.found_paths.insert(tree::hash(&path)) {
                    self.found.push_back((Instant::now(), path));
                }
            }
        }
        self.forget_verdicts();
    }

    pub(super) fn resolve_soon(&mut self) {
        // Who makes this happen again and again must not keep everything else waiting.
        let pause = SETTLE.max(10 * self.took);
        self.resolve_at.get_or_insert_with(|| Instant::now() + pause);
    }

    /// Something that others are found by may be gone or another.
    fn resolve_if_anchor(&mut self, path: &[u8]) {
        if self.tree.is_anchor(path) {
            self.resolve_soon();
        }
    }

    /// Names have changed.
    fn renamed(&mut self, echo: &Echo) {
        let (old, new) = (&echo.path, &echo.target);
        if echo.is_directory {
            if !old.is_empty() && !new.is_empty() {
                self.tree.moved(old, new);
            }
            for path in [old, new].into_iter().filter(|path| !path.is_empty()) {
                self.resolve_if_anchor(path);
            }
            if !new.is_empty() && self.options.policies.may_cover_below(new) {
                self.resolve_below(new, false);
            } else if !old.is_empty() {
                // It has left what is watched.
                self.resolve_soon();
            }
        } else if !new.is_empty() {
            self.sessions.renamed(old, new);
            if self.tree.is_anchor(new) || Self::is_linked(new) {
                self.resolve_below(new, false);
            }
        }
    }

    /// A notification that no record came for.
    pub(super) fn unconfirmed(&mut self, echo: &Echo) {
        let policies = self.options.policies.clone();
        let find = |path: &[u8], operation| policies.matching(path, operation, echo.is_directory);
        let now = tree::look(path_from(&echo.path));
        let Some((kind, operation)) = event_of(echo, now) else { return };
        let read = if echo.class == Class::Open { find(&echo.path, Operation::Read) } else { None };
        let policy = find(&echo.path, operation).or(read).or_else(|| find(&echo.target, operation));
        let before = match echo.class {
            Class::Delete | Class::Rename => self.tree.forget(&echo.path),
            _ => self.tree.known(&echo.path),
        };
        let now =
            if echo.class == Class::Rename { tree::look(path_from(&echo.target)).or(before) } else { now };
        let replaced = if echo.class == Class::Rename && !echo.target.is_empty() {
            now.and_then(|now| self.tree.learn(&echo.target, now))
                .filter(|replaced| now.is_none_or(|now| now.inode != replaced.inode))
        } else {
            None
        };
        match (echo.class, now) {
            (Class::Create, Some(now)) => {
                self.tree.learn(&echo.path, now);
            }
            (Class::Attributes, Some(now)) => {
                // What is in it is told by other events, which may yet come.
                let Known { size, modified, .. } = before.unwrap_or(now);
                self.tree.learn(&echo.path, Known { size, modified, ..now });
            }
            _ => {}
        }
        if echo.class == Class::Create {
            self.created(&echo.path, echo.pid);
            if kind == "file.create"
                && let Some(recent) = self.recent.get_mut(&tree::hash(&echo.path))
            {
                recent.open_follows = true;
            }
        }
        if echo.class == Class::Open
            && let Some(recent) = self.recent.get_mut(&tree::hash(&echo.path))
            && recent.pid == echo.pid
            && mem::take(&mut recent.open_follows)
        {
            return;
        }
        let Some(policy) = policy else { return };
        let state = if echo.class == Class::Delete { before } else { now };
        let mut body = describe::of_known(state, self.device_of(echo));
        if echo.class == Class::Delete && !echo.is_directory {
            body.links = before.map(|before| before.links.saturating_sub(1));
        }
        if echo.is_directory {
            "directory".clone_into(&mut body.r#type);
        }
        policy.name().clone_into(&mut body.policy);
        body.source = NameSource::Fanotify.name();
        body.path = describe::path(&echo.path);
        if echo.class == Class::Rename {
            body.target = (!echo.target.is_empty())
                .then(|| v1::FileTarget { path: describe::path(&echo.target), ..v1::FileTarget::default() });
            body.replaced = replaced.map(replaced_of);
            if echo.path.is_empty() {
                // It came from where nothing is watched.
                body.path = String::new();
            }
        }
        if echo.class == Class::Attributes {
            // Of a file that is gone other events tell.
            if now.is_none() {
                return;
            }
            let (was, is, changed) = describe::differences(before, now);
            let has_names = |known: Option<Known>| known.is_some_and(|known| known.links > 1);
            if changed.is_empty() && (has_names(before) || has_names(now)) {
                // It has got or lost a name, of which another event tells. Whatever is done by a new one counts too.
                if before.is_some_and(|before| now.is_some_and(|now| now.links > before.links)) {
                    self.resolve_below(&echo.path, false);
                }
                return;
            }
            (body.before, body.after, body.changed) = (was, is, changed);
        }
        if kind == "file.link" {
            body.symbolic = body.r#type == "symlink";
            let to = if body.symbolic { std::fs::read_link(path_from(&echo.path)).ok() } else { None };
            body.target = to.map(|to| v1::FileTarget {
                path: describe::path(to.as_os_str().as_bytes()),
                ..v1::FileTarget::default()
            });
        }
        self.acts.push(Act { kind, time: echo.time, last: None, actor: Actor::Pid(echo.pid), body });
    }

    fn device_of(&mut self, echo: &Echo) -> String {
        let path = if echo.target.is_empty() { &echo.path } else { &echo.target };
        self.tree.device_of(parent(path))
    }

    /// A file was written, and closed or is still open.
    pub(super) fn written(
        &mut self,
        session: &Session,
        now: Option<Known>,
        closer: Option<u32>,
        ongoing: bool,
    ) {
        let path = &session.path;
        let policies = self.options.policies.clone();
        let before = self.tree.known(path);
        let now = now.or_else(|| tree::look(path_from(path)));
        if let Some(now) = now {
            // Who owns it and who may what with it is told by other events, which may yet come.
            let Known { mode, uid, gid, .. } = before.unwrap_or(now);
            self.tree.learn(path, Known { mode, uid, gid, ..now });
        }
        let was_touched = match (before, now) {
            (Some(before), Some(now)) => {
                // Of a file that is just being made the time is not known.
                let is_later = before.modified != 0 && before.modified != now.modified;
                session.is_change() || before.size != now.size || before.inode != now.inode || is_later
            }
            // It has another name by now, or was not known: somebody wrote.
            _ => session.is_change(),
        };
        if was_touched && let Some(recent) = self.recent.get_mut(&tree::hash(path)) {
            recent.changed = true;
        }
        let policy = policies.matching(path, Operation::Modify, false);
        if was_touched && let Some(policy) = policy {
            let mut body = describe::of_known(now.or(before), self.tree.device_of(parent(path)));
            body.path = describe::path(path);
            body.source = NameSource::Fanotify.name();
            policy.name().clone_into(&mut body.policy);
            body.before = before.map(describe::content);
            body.after = now.map(describe::content);
            body.ongoing = ongoing;
            body.deleted = now.is_none_or(|now| now.links == 0);
            let actor = Actor::Pid(session.pid);
            let act = Act { kind: "file.modify", time: session.time, last: None, actor, body };
            self.writings.push_back((Instant::now(), act));
        }
        if let Some(pid) = closer
            && let Some(policy) = policies.matching(path, Operation::Close, false)
        {
            let mut body = describe::of_known(now.or(before), self.tree.device_of(parent(path)));
            body.path = describe::path(path);
            body.source = NameSource::Fanotify.name();
            policy.name().clone_into(&mut body.policy);
            body.deleted = now.is_none_or(|now| now.links == 0);
            let actor = Actor::Pid(pid);
            let act = Act { kind: "file.close", time: since_boot(), last: None, actor, body };
            self.writings.push_back((Instant::now(), act));
        }
    }
}

/// The event that a notification is by itself, and what was done by the word of policies; `None`: what it tells is told
/// at the close, or as what is written for long.
fn event_of(echo: &Echo, now: Option<Known>) -> Option<(&'static str, Operation)> {
    Some(match echo.class {
        Class::Open => ("file.open", Operation::Open),
        Class::Create if echo.is_directory => ("file.mkdir", Operation::Mkdir),
        Class::Create => match now {
            Some(now) if describe::kind(now.mode) == "symlink" || now.links > 1 => {
                ("file.link", Operation::Link)
            }
            _ => ("file.create", Operation::Create),
        },
        Class::Delete if echo.is_directory => ("file.rmdir", Operation::Rmdir),
        Class::Delete => ("file.delete", Operation::Delete),
        Class::Rename => ("file.rename", Operation::Rename),
        Class::Attributes => ("file.attributes", Operation::Attributes),
        Class::Modify => return None,
    })
}
