//! File events in the words of the schema.

use nightjar_abi::record::{FileInfo, file_flags, open_facts};
use nightjar_proto::{text, v1};
use rustix::fs::FileType;

use super::tree::Known;

/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/kdev_t.h#L7-L12>
const MINOR_BITS: u32 = 20;
const PERMISSION_BITS: u32 = 0o7777;

/// How the name of a file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameSource {
    Kernel,
    Fanotify,
    UserMemory,
    Scan,
}

impl NameSource {
    pub(super) fn name(self) -> String {
        match self {
            Self::Kernel => "kernel",
            Self::Fanotify => "fanotify",
            Self::UserMemory => "user_memory",
            Self::Scan => "scan",
        }
        .to_owned()
    }
}

/// Flags of an open, as names: <https://github.com/torvalds/linux/blob/v6.12/include/uapi/asm-generic/fcntl.h>.
const OPEN_FLAGS: &[(u32, &str)] = &[
    (libc::O_APPEND as u32, "append"),
    (libc::O_CREAT as u32, "create"),
    (libc::O_EXCL as u32, "excl"),
    (libc::O_TRUNC as u32, "trunc"),
    (libc::O_PATH as u32, "path"),
    (libc::O_DIRECTORY as u32, "directory"),
    (libc::O_NOFOLLOW as u32, "nofollow"),
    (libc::O_SYNC as u32, "sync"),
    (libc::O_DIRECT as u32, "direct"),
];

/// Flags of `mount`: <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/mount.h#L13-L46>.
const MOUNT_FLAGS: &[(u64, &str)] = &[
    (libc::MS_RDONLY, "ro"),
    (libc::MS_NOSUID, "nosuid"),
    (libc::MS_NODEV, "nodev"),
    (libc::MS_NOEXEC, "noexec"),
    (libc::MS_SYNCHRONOUS, "sync"),
    (libc::MS_NOATIME, "noatime"),
    (libc::MS_NODIRATIME, "nodiratime"),
    (libc::MS_REC, "rec"),
    (libc::MS_UNBINDABLE, "unbindable"),
    (libc::MS_PRIVATE, "private"),
    (libc::MS_SLAVE, "slave"),
    (libc::MS_SHARED, "shared"),
    (libc::MS_RELATIME, "relatime"),
    (libc::MS_STRICTATIME, "strictatime"),
];

pub(super) fn open_flags(flags: u32, facts: u32) -> Vec<String> {
    let mut names = Vec::new();
    let of = |fact, name| if facts & fact != 0 { Some(name) } else { None };
    names.extend(of(open_facts::READ, "read"));
    names.extend(of(open_facts::WRITE, "write"));
    let tmpfile = flags & libc::O_TMPFILE as u32 == libc::O_TMPFILE as u32;
    let is = |(flag, name): &(u32, &'static str)| {
        (flags & flag == *flag && !(tmpfile && *name == "directory")).then_some(*name)
    };
    names.extend(OPEN_FLAGS.iter().filter_map(is));
    names.extend(tmpfile.then_some("tmpfile"));
    names.into_iter().map(str::to_owned).collect()
}

/// As of an open that failed, which has no file: by its flags alone.
pub(super) fn asked_facts(flags: u32) -> u32 {
    match flags.cast_signed() & libc::O_ACCMODE {
        libc::O_RDONLY => open_facts::READ,
        libc::O_WRONLY => open_facts::WRITE,
        _ => open_facts::READ | open_facts::WRITE,
    }
}

pub(super) fn mount_flags(flags: u64) -> Vec<String> {
    MOUNT_FLAGS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| (*name).to_owned()).collect()
}

pub(super) fn umount_flags(flags: u64) -> Vec<String> {
    let names = [(1, "force"), (2, "detach"), (4, "expire"), (8, "nofollow")];
    names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| (*name).to_owned()).collect()
}

pub(super) fn device(device: u32) -> String {
    format!("{}:{}", device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1))
}

pub(super) fn mode(mode: u32) -> String {
    format!("{:04o}", mode & PERMISSION_BITS)
}

pub(super) fn kind(mode: u32) -> String {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => "regular",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "char_device",
        FileType::BlockDevice => "block_device",
        FileType::Unknown => "",
    }
    .to_owned()
}

pub(super) fn time(nanoseconds: i64) -> prost_types::Timestamp {
    const SECOND: i64 = 1_000_000_000;
    prost_types::Timestamp {
        seconds: nanoseconds.div_euclid(SECOND),
        nanos: i32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or_default(),
    }
}

/// A file as the kernel has it.
pub(super) fn of_info(info: &FileInfo, size: u64) -> v1::FileActivity {
    v1::FileActivity {
        inode: info.inode,
        device: device(info.device),
        r#type: kind(info.mode),
        mode: mode(info.mode),
        uid: Some(info.uid),
        gid: Some(info.gid),
        size: Some(size),
        links: Some(info.links),
        deleted: info.links == 0 || info.flags & file_flags::UNLINKED != 0,
        ..v1::FileActivity::default()
    }
}

/// A file as it was found.
pub(super) fn of_known(known: Option<Known>, device: String) -> v1::FileActivity {
    let Some(known) = known else { return v1::FileActivity::default() };
    v1::FileActivity {
        inode: known.inode,
        device,
        r#type: kind(known.mode),
        mode: mode(known.mode),
        uid: Some(known.uid),
        gid: Some(known.gid),
        size: Some(known.size),
        links: Some(known.links),
        ..v1::FileActivity::default()
    }
}

/// What differs between two states of a file, as both were.
pub(super) fn differences(
    before: Option<Known>,
    after: Option<Known>,
) -> (Option<v1::FileAttributes>, Option<v1::FileAttributes>, Vec<String>) {
    let (Some(before), Some(after)) = (before, after) else {
        return (before.map(attributes), after.map(attributes), Vec::new());
    };
    let mut changed = Vec::new();
    let [mut was, mut is] = [v1::FileAttributes::default(), v1::FileAttributes::default()];
    if before.mode & PERMISSION_BITS != after.mode & PERMISSION_BITS {
        (was.mode, is.mode) = (mode(before.mode), mode(after.mode));
        changed.push("mode".to_owned());
    }
    if before.uid != after.uid {
        (was.uid, is.uid) = (Some(before.uid), Some(after.uid));
        changed.push("owner".to_owned());
    }
    if before.gid != after.gid {
        (was.gid, is.gid) = (Some(before.gid), Some(after.gid));
        changed.push("group".to_owned());
    }
    if before.modified != after.modified && before.modified != 0 {
        (was.modified, is.modified) = (Some(time(before.modified)), Some(time(after.modified)));
        changed.push("times".to_owned());
    }
    (Some(was), Some(is), changed)
}

/// Size and time of a file.
pub(super) fn content(known: Known) -> v1::FileAttributes {
    v1::FileAttributes {
        size: Some(known.size),
        // Of a file that is just being made it is not known.
        modified: (known.modified != 0).then(|| time(known.modified)),
        ..v1::FileAttributes::default()
    }
}

fn attributes(known: Known) -> v1::FileAttributes {
    v1::FileAttributes {
        mode: mode(known.mode),
        uid: Some(known.uid),
        gid: Some(known.gid),
        modified: Some(time(known.modified)),
        ..v1::FileAttributes::default()
    }
}

pub(super) fn path(bytes: &[u8]) -> String {
    text::from_bytes(bytes)
}
