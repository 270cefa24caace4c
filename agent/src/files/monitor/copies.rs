//! Copies, each added up to one event.

use std::time::{Duration, Instant};

use nightjar_abi::{files::Call, record::Operand};
use nightjar_proto::v1::{self, FileActivity};

use super::{Act, Actor, Copying, Monitor};
use crate::{
    decode::{FileCallRecord, OperandTexts},
    files::{
        describe::{self, NameSource},
        policy::Operation,
    },
    pipeline::Discard,
};

/// How long a copy is added up after its last part.
const PAUSE: Duration = Duration::from_millis(500);
/// The most copies that are added up at a time.
const MOST: usize = 4096;

impl Monitor {
    pub(super) fn copied(
        &mut self,
        call: &Call,
        record: &FileCallRecord<'_>,
    ) -> Result<(&'static str, FileActivity), Discard> {
        let FileCallRecord { body, first, second, .. } = record;
        let pid = body.info.task.pid;
        let is_pipe = |operand: &Operand| describe::kind(operand.file.mode) == "fifo";
        let side = |operand: &Operand, texts: &OperandTexts<'_>| FileActivity {
            path: describe::path(texts.path.bytes),
            path_truncated: texts.path.truncated,
            path_unreachable: texts.path.unreachable,
            ..describe::of_info(&operand.file, operand.size)
        };
        let policies = self.options.policies.clone();
        let policy_of = |names: Vec<Vec<u8>>| {
            names
                .iter()
                .find_map(|name| policies.matching(name, Operation::Copy, false))
                .map(|policy| policy.name().to_owned())
        };
        let mut source = side(&body.first, first);
        source.policy =
            policy_of(self.names(&body.first.anchor, &first.path, &first.volume)).unwrap_or_default();
        if is_pipe(&body.second) {
            if self.pipes.len() >= MOST {
                self.pipes.clear();
            }
            self.pipes.insert(body.second.file.inode, source);
            return Err(Discard::Folded);
        }
        if is_pipe(&body.first) {
            match self.pipes.get(&body.first.file.inode) {
                Some(from) => source = from.clone(),
                None => return Err(Discard::NotWatched),
            }
        }
        let target_policy = policy_of(self.names(&body.second.anchor, &second.path, &second.volume));
        if source.policy.is_empty() {
            source.policy = target_policy.unwrap_or_default();
        }
        if source.policy.is_empty() && !self.options.all || body.result == 0 && call.name != "ioctl" {
            return Err(Discard::NotWatched);
        }
        let is_file = |operand: &Operand| {
            matches!(describe::kind(operand.file.mode).as_str(), "regular" | "block_device")
        };
        if !is_file(&body.second) {
            // Sent away, not copied.
            return Err(Discard::NotWatched);
        }
        let bytes = if call.name == "ioctl" { body.first.size } else { body.result.unsigned_abs() };
        let key = (pid, body.info.task.start, source.inode, body.second.file.inode);
        let copying = self.copies.entry(key).or_insert_with(|| {
            let target = side(&body.second, second);
            source.source = NameSource::Kernel.name();
            call.name.clone_into(&mut source.call);
            source.target = Some(v1::FileTarget {
                path: target.path,
                inode: target.inode,
                device: target.device,
                mode: target.mode,
                ..v1::FileTarget::default()
            });
            Copying {
                info: Box::new(body.info),
                body: source,
                time: body.header.time,
                touched: Instant::now(),
            }
        });
        copying.body.bytes += bytes;
        copying.touched = Instant::now();
        if let Some(target) = &mut copying.body.target {
            target.size = Some(body.second.size);
        }
        Err(Discard::Folded)
    }

    pub(super) fn end_copies(&mut self, now: Instant) {
        if self.copies.is_empty() {
            return;
        }
        let crowded = self.copies.len() > MOST;
        let ended = self.copies.extract_if(|_, copy| crowded || now.duration_since(copy.touched) >= PAUSE);
        let ended = ended.map(|(_, copy)| copy).collect::<Vec<_>>();
        for copy in ended {
            let Copying { info, body, time, .. } = copy;
            self.acts.push(Act { kind: "file.copy", time, last: None, actor: Actor::Task(info), body });
        }
    }
}
