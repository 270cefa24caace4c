//! What is done to mounts.

use nightjar_abi::{
    files::{Act as CallAct, Call},
    record::{Operand, operand},
};
use nightjar_proto::v1::{self, FileActivity};

use crate::{
    decode::{FileCallRecord, OperandTexts},
    files::{
        describe::{self, NameSource},
        paths::normal,
    },
};

/// What a call did to mounts.
pub(super) fn of(call: &Call, record: &FileCallRecord<'_>) -> FileActivity {
    /// The source is a mount that a descriptor holds, attached nowhere yet.
    /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/mount.h#L73>
    const MOVE_MOUNT_F_EMPTY_PATH: u64 = 4;
    const PROPAGATION: u64 = libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;
    let FileCallRecord { body, first, second, text } = record;
    let joined = |operand: &Operand, texts: &OperandTexts<'_>| match operand.what {
        operand::NAME => normal(&[texts.path.bytes, b"/", texts.name.bytes].concat()),
        _ => texts.path.bytes.to_vec(),
    };
    let (one, other) = (joined(&body.first, first), joined(&body.second, second));
    let flags = body.args[3];
    let mut mount = v1::FileMount::default();
    let (mut path, mut texts) = (one.clone(), first);
    let operation = match call.act {
        CallAct::Mount => {
            let raw = describe::path(second.name.bytes);
            mount.flags = describe::mount_flags(flags);
            let operation = if flags & libc::MS_REMOUNT != 0 {
                "remount"
            } else if flags & libc::MS_BIND != 0 {
                "bind"
            } else if flags & libc::MS_MOVE != 0 {
                "move"
            } else if flags & PROPAGATION != 0 {
                "change"
            } else {
                mount.filesystem = describe::path(text.bytes);
                "mount"
            };
            mount.source = match operation {
                "bind" | "move" => describe::path(&other),
                "mount" => raw,
                _ => String::new(),
            };
            operation
        }
        CallAct::Umount => {
            mount.flags = describe::umount_flags(body.args[1]);
            "umount"
        }
        CallAct::MoveMount => {
            mount.source = describe::path(&one);
            (path, texts) = (other, second);
            if body.args[4] & MOVE_MOUNT_F_EMPTY_PATH != 0 { "attach" } else { "move" }
        }
        CallAct::PivotRoot => {
            mount.source = describe::path(&other);
            "pivot_root"
        }
        CallAct::MountSetattr => "change",
        _ => {
            if call.name == "open_tree" {
                "clone"
            } else {
                "mount"
            }
        }
    };
    operation.clone_into(&mut mount.operation);
    let source = if texts.name.bytes.is_empty() { NameSource::Kernel } else { NameSource::UserMemory };
    FileActivity {
        path: describe::path(&path),
        path_truncated: texts.name.truncated,
        path_unreadable: texts.name.unreadable,
        path_unreachable: texts.path.unreachable,
        source: source.name(),
        call: call.name.to_owned(),
        mount: Some(mount),
        ..FileActivity::default()
    }
}
