//! Records of opens.

use std::time::Instant;

use nightjar_abi::{
    files::FoldKey,
    hook::Hook,
    record::{Anchor, open_facts},
};
use nightjar_proto::v1::FileActivity;

use super::{First, Monitor};
use crate::{
    decode::{FileOpenRecord, Text},
    files::{
        describe::{self, NameSource},
        echo::Class,
        paths::normal,
        policy::Operation,
        tree::Known,
    },
    kernel::{InodeNumber, file_call_name},
    pipeline::Discard,
};

impl Monitor {
    /// A file was opened, or closed, or could not be opened.
    ///
    /// # Errors
    /// Why that is no event.
    pub fn opened(&mut self, record: &FileOpenRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let body = &record.body;
        let result = if body.errno != 0 { self.failed(record) } else { self.open(record) };
        if body.window != 0 {
            let hook = if body.facts & open_facts::CLOSED != 0 { Hook::FileClose } else { Hook::FileOpen };
            let key = FoldKey {
                inode: body.file.inode,
                start: body.info.task.start,
                exec_id: body.info.task.exec_id,
                device: body.file.device,
                pid: body.info.task.pid,
                flags: body.open_flags,
                hook_and_window: (hook as u32) << 1 | (body.window & 1),
            };
            let first = result.as_ref().ok().map(|(kind, activity)| {
                Box::new(First { info: body.info, kind, body: activity.clone(), time: body.header.time })
            });
            self.folds.insert(key, first);
        }
        result
    }

    fn open(&mut self, record: &FileOpenRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let FileOpenRecord { body, path, .. } = record;
        let created = body.facts & open_facts::CREATED != 0;
        let closed = body.facts & open_facts::CLOSED != 0;
        let can_read = body.facts & open_facts::READ != 0;
        let names = self.names(&body.anchor, path, &record.volume);
        let operations: &[Operation] = if closed {
            &[Operation::Close]
        } else if created {
            &[Operation::Create, Operation::Open]
        } else if can_read {
            &[Operation::Open, Operation::Read]
        } else {
            &[Operation::Open]
        };
        let policies = self.options.policies.clone();
        let policy = names.iter().find_map(|name| {
            operations.iter().find_map(|operation| policies.matching(name, *operation, false))
        });
        let is_elsewhere = self.roots.contains_key(&body.info.namespaces.mnt);
        if created && !is_elsewhere {
            for name in &names {
                let known = Known {
                    inode: body.file.inode,
                    size: 0,
                    modified: 0,
                    mode: body.file.mode,
                    uid: body.file.uid,
                    gid: body.file.gid,
                    links: body.file.links,
                };
                if self.tree.known(name).is_none_or(|known| known.inode != body.file.inode) {
                    self.tree.learn(name, known);
                }
                self.created(name, self.pids.of(&body.info));
            }
        }
        if !closed {
            self.last_read_until(body.header.time);
            for name in &names {
                if body.facts & open_facts::PATH == 0 {
                    if body.window != 0 {
                        let until = Instant::now() + 3 * self.options.fold;
                        self.echoes.expect_opens(self.pids.of(&body.info), name, until);
                    }
                    self.echoes.confirm(Class::Open, self.pids.of(&body.info), name, &[], body.header.time);
                }
                if created {
                    self.echoes.confirm(Class::Create, self.pids.of(&body.info), name, &[], body.header.time);
                }
            }
        }
        if policy.is_none() && (body.facts & open_facts::ALL == 0 || !self.options.all) {
            return Err(Discard::NotWatched);
        }
        let mut activity = describe::of_info(&body.file, body.size);
        activity.path = describe::path(path.bytes);
        activity.path_truncated = path.truncated;
        activity.path_unreachable = path.unreachable;
        activity.policy = policy.map_or_else(String::new, |policy| policy.name().to_owned());
        activity.source = NameSource::Kernel.name();
        activity.call = if closed { "close".to_owned() } else { call_name(body.call) };
        activity.flags = describe::open_flags(body.open_flags | body.asked_flags, body.facts);
        let kind = if closed {
            activity.flags.clear();
            "file.close"
        } else if created {
            activity.created = true;
            "file.create"
        } else {
            "file.open"
        };
        Ok((kind, activity))
    }

    fn failed(&mut self, record: &FileOpenRecord<'_>) -> Result<(&'static str, FileActivity), Discard> {
        let FileOpenRecord { body, name, .. } = record;
        if !self.options.failed {
            return Err(Discard::NotWatched);
        }
        let path = normal(&[record.path.bytes, b"/", name.bytes].concat());
        let policies = &self.options.policies;
        let policy = policies
            .matching(&path, Operation::Open, false)
            .or_else(|| policies.matching(&path, Operation::Read, false));
        if policy.is_none() && !self.options.all {
            return Err(Discard::NotWatched);
        }
        let activity = FileActivity {
            path: describe::path(name.bytes),
            path_truncated: name.truncated,
            path_unreadable: name.unreadable,
            policy: policy.map_or_else(String::new, |policy| policy.name().to_owned()),
            source: NameSource::UserMemory.name(),
            call: call_name(body.call),
            flags: describe::open_flags(body.asked_flags, describe::asked_facts(body.asked_flags)),
            errno: crate::pipeline::errno_name(body.errno),
            ..FileActivity::default()
        };
        Ok(("file.open", activity))
    }

    /// Paths by which policies see a file.
    pub(super) fn names(&self, anchor: &Anchor, path: &Text<'_>, volume: &Text<'_>) -> Vec<Vec<u8>> {
        if anchor.device == 0 && anchor.inode == 0 {
            return vec![path.bytes.to_vec()];
        }
        let number = InodeNumber { inode: anchor.inode, device: anchor.device };
        let place = if volume.bytes.is_empty() { path.bytes } else { volume.bytes };
        self.tree.names_below(number, anchor.distance, place)
    }

    /// Makes sure that all notifications of what was done until then are here.
    pub(super) fn last_read_until(&mut self, time: u64) {
        if time >= self.last_read {
            self.read();
        }
    }
}

fn call_name(number: u32) -> String {
    file_call_name(number).unwrap_or_default().to_owned()
}
