//! Events from records and what is known of their processes.

use nightjar_abi::record::{
    Credentials, Creds, Exec, ExecFailed, Exit, FileInfo, Fork, TaskInfo, file_flags, task_flags,
};
use nightjar_proto::{
    text,
    v1::{self, event::Body},
};

use super::{
    clock::Clock,
    names::{self, CapabilityNames},
};
use crate::{
    decode::{ExecRecord, Text, padded},
    enrich::{cgroups::Cgroups, users::Users},
    kernel::call_name,
    process::{Identity, Image, Lineage, Process},
};

/// Not set, of user and session numbers.
const UNSET: u32 = u32::MAX;
/// `MNT_INTERNAL`: a mount that is in no directory tree, as of memfds.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/mount.h#L56>
const MNT_INTERNAL: u32 = 0x4000;
const AT_FDCWD: i32 = -100;
/// Inode number of the first user namespace (`PROC_USER_INIT_INO`).
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/proc_ns.h#L45>
pub(super) const INITIAL_USER_NS: u32 = 0xEFFF_FFFD;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const PERMISSION_BITS: u32 = 0o7777;
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/kdev_t.h#L7-L12>
const MINOR_BITS: u32 = 20;

/// What events need beside their record.
pub(super) struct Context<'a> {
    pub(super) identity: Identity,
    pub(super) users: &'a mut Users,
    pub(super) cgroups: &'a mut Cgroups,
    pub(super) capabilities: CapabilityNames,
    pub(super) page_size: u64,
    pub(super) clock: Clock,
}

impl Context<'_> {
    /// The acting process.
    pub(super) fn process(&mut self, info: &TaskInfo, known: &Process) -> v1::Process {
        let TaskInfo { task, creds, namespaces, .. } = info;
        let image = &known.image;
        let cgroup = self.cgroups.of(info);
        let container = cgroup.as_ref().and_then(|cgroup| cgroup.container.as_ref());
        let differs = |effective: u32, real: u32| (effective != real).then_some(effective);
        v1::Process {
            id: hex(self.identity.process(task)),
            exec_id: hex(self.identity.image(task)),
            pid: task.pid,
            tid: task.tid,
            ppid: info.parent.pid,
            start_time: Some(self.clock.wall(task.start)),
            comm: text::from_bytes(padded(&info.comm)),
            exe: image.exe.clone(),
            args: arguments(&image.args),
            args_truncated: image.args_truncated,
            args_from_proc: image.args_from_proc,
            args_redacted: image.args_redacted,
            cwd: image.cwd.clone(),
            cwd_truncated: image.cwd_truncated,
            cwd_unreachable: image.cwd_unreachable,
            uid: Some(creds.uid),
            euid: Some(creds.euid),
            suid: Some(creds.suid),
            fsuid: Some(creds.fsuid),
            gid: Some(creds.gid),
            egid: Some(creds.egid),
            sgid: Some(creds.sgid),
            fsgid: Some(creds.fsgid),
            user: self.user(Some(creds.uid)),
            group: self.group(Some(creds.gid)),
            euser: self.user(differs(creds.euid, creds.uid)),
            egroup: self.group(differs(creds.egid, creds.gid)),
            loginuid: set(info.loginuid),
            login_user: self.user(set(info.loginuid)),
            audit_session: set(info.session),
            tty: tty(&info.tty),
            capabilities: Some(self.capabilities(creds)),
            securebits: creds.securebits,
            no_new_privs: info.flags & task_flags::NO_NEW_PRIVS != 0,
            namespaces: Some(v1::Namespaces {
                cgroup: namespaces.cgroup,
                ipc: namespaces.ipc,
                mnt: namespaces.mnt,
                net: namespaces.net,
                pid: namespaces.pid,
                pid_for_children: namespaces.pid_for_children,
                time: namespaces.time,
                user: creds.user_ns,
                uts: namespaces.uts,
            }),
            cgroup: Some(v1::Cgroup {
                id: info.cgroup_id,
                path: cgroup.as_ref().map_or_else(String::new, |cgroup| cgroup.path.clone()),
                path_truncated: cgroup.as_ref().is_some_and(|cgroup| cgroup.truncated),
            }),
            container: container.map(|container| v1::Container {
                id: container.id.clone(),
                runtime: container.runtime.map_or_else(String::new, |runtime| runtime.to_string()),
                pod_uid: container.pod_uid.clone().unwrap_or_default(),
            }),
            ns_pid: if info.ns_pid == task.pid { 0 } else { info.ns_pid },
            kernel_thread: info.flags & task_flags::KERNEL_THREAD != 0,
            source: known.source.into(),
        }
    }

    /// Who forked it.
    pub(super) fn parent(&mut self, lineage: &Lineage) -> v1::Parent {
        let image = lineage.image.as_deref();
        v1::Parent {
            id: hex(self.identity.process(&lineage.task)),
            exec_id: hex(self.identity.image(&lineage.task)),
            pid: lineage.task.pid,
            comm: lineage.comm.clone(),
            exe: image.and_then(|image| image.exe.clone()),
            args: image.map_or_else(Vec::new, |image| arguments(&image.args)),
            args_truncated: image.is_some_and(|image| image.args_truncated),
            args_from_proc: image.is_some_and(|image| image.args_from_proc),
            args_redacted: image.is_some_and(|image| image.args_redacted),
            uid: lineage.uid,
            user: self.user(lineage.uid),
        }
    }

    pub(super) fn exec(record: &ExecRecord<'_>, environment: Vec<String>) -> v1::Exec {
        let Exec { info, before, file, .. } = &record.body;
        let (after, mut gained) = (&info.creds, Vec::new());
        if after.euid != before.euid && file.mode & S_ISUID != 0 {
            gained.push("setuid".to_owned());
        }
        if after.egid != before.egid && file.mode & S_ISGID != 0 {
            gained.push("setgid".to_owned());
        }
        // Root is given all that the bounding set has for being root, and ambient capabilities need no file.
        // Who is root in another user namespace than the first is not told, but for that.
        let for_being_root = if after.user_ns == INITIAL_USER_NS {
            after.euid == 0 || after.uid == 0
        } else {
            after.permitted == after.bounding | after.inheritable
        };
        if !for_being_root && after.permitted & !before.permitted & !after.ambient != 0 {
            gained.push("file_capabilities".to_owned());
        }
        let is_script = !record.interp.bytes.is_empty();
        v1::Exec {
            filename: text::from_bytes(record.filename.bytes),
            argc: record.body.argc,
            args_size: record.body.args_size,
            script: is_script.then(|| v1::Script {
                path: text::from_bytes(record.filename.bytes),
                interpreter: text::from_bytes(record.interp.bytes),
            }),
            privileges_gained: gained,
            thread_became_leader: if record.body.old_tid == info.task.pid { 0 } else { record.body.old_tid },
            environment,
            environment_truncated: record.environment.truncated || record.environment.unreadable,
        }
    }

    pub(super) fn exec_failed(record: &ExecFailed, filename: &Text<'_>) -> v1::ExecFailed {
        v1::ExecFailed {
            filename: text::from_bytes(filename.bytes),
            errno: names::errno(record.errno),
            call: call_name(record.call).unwrap_or_default().to_owned(),
            dirfd: (record.dirfd != AT_FDCWD).then_some(record.dirfd),
            source: "user_memory".to_owned(),
            filename_truncated: filename.truncated,
            filename_unreadable: filename.unreadable,
        }
    }

    pub(super) fn fork(&mut self, record: &Fork, creator: Option<&Lineage>) -> v1::Fork {
        v1::Fork {
            clone_flags: names::clone_flags(record.clone_flags),
            creator: creator.map(|creator| self.parent(creator)),
        }
    }

    pub(super) fn exit(&self, record: &Exit) -> v1::Exit {
        /// As `wait` packs it: the signal in the lowest seven bits, else the code in the second byte.
        const SIGNAL: u32 = 0x7F;
        const CORE_DUMPED: u32 = 0x80;
        let signal = record.status & SIGNAL;
        // Ticks only tell the proportion of user and system time.
        let ticks = u128::from(record.utime) + u128::from(record.stime);
        let share = |part: u64| {
            let share = u128::from(part) * u128::from(record.runtime) / ticks.max(1);
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        v1::Exit {
            code: (signal == 0).then_some(record.status >> 8 & 0xFF),
            signal: if signal == 0 { String::new() } else { names::signal(signal) },
            core_dumped: record.status & CORE_DUMPED != 0,
            run_time_ns: record.header.time.saturating_sub(record.info.task.start),
            cpu_time_ns: record.runtime,
            user_time_ns: share(record.utime),
            system_time_ns: share(record.stime),
            peak_resident_bytes: record.maxrss.saturating_mul(self.page_size),
        }
    }

    pub(super) fn credentials(&mut self, record: &Credentials) -> v1::Credentials {
        let (before, after) = (&record.before, &record.info.creds);
        let any = |creds: &Creds| creds.effective | creds.permitted;
        v1::Credentials {
            call: call_name(record.call).unwrap_or_default().to_owned(),
            capabilities_gained: self.capabilities.difference(any(after), any(before)),
            capabilities_lost: self.capabilities.difference(any(before), any(after)),
            before: Some(self.credential_set(before)),
            after: Some(self.credential_set(after)),
        }
    }

    /// What was done with a file, with the names of its owners.
    pub(super) fn file(&mut self, mut activity: v1::FileActivity) -> Body {
        activity.user = self.user(activity.uid);
        activity.group = self.group(activity.gid);
        Body::File(activity)
    }

    fn credential_set(&mut self, creds: &Creds) -> v1::CredentialSet {
        v1::CredentialSet {
            uid: Some(creds.uid),
            euid: Some(creds.euid),
            suid: Some(creds.suid),
            fsuid: Some(creds.fsuid),
            gid: Some(creds.gid),
            egid: Some(creds.egid),
            sgid: Some(creds.sgid),
            fsgid: Some(creds.fsgid),
            user: self.user(Some(creds.uid)),
            euser: self.user(Some(creds.euid)),
            group: self.group(Some(creds.gid)),
            egroup: self.group(Some(creds.egid)),
            capabilities: Some(self.capabilities(creds)),
            securebits: creds.securebits,
            user_namespace: creds.user_ns,
        }
    }

    fn capabilities(&self, creds: &Creds) -> v1::Capabilities {
        v1::Capabilities {
            effective: self.capabilities.of(creds.effective),
            permitted: self.capabilities.of(creds.permitted),
            inheritable: self.capabilities.of(creds.inheritable),
            bounding: self.capabilities.of(creds.bounding),
            ambient: self.capabilities.of(creds.ambient),
        }
    }

    fn user(&mut self, uid: Option<u32>) -> String {
        uid.and_then(|uid| self.users.user(uid)).map_or_else(String::new, |name| name.to_string())
    }

    fn group(&mut self, gid: Option<u32>) -> String {
        gid.and_then(|gid| self.users.group(gid)).map_or_else(String::new, |name| name.to_string())
    }
}

/// The image that an exec starts.
pub(super) fn image(record: &ExecRecord<'_>) -> Image {
    Image {
        exe: Some(file(&record.body.file, &record.exe)),
        args: record.args.bytes.into(),
        args_truncated: record.args.truncated || record.args.unreadable,
        args_from_proc: false,
        args_redacted: false,
        cwd: text::from_bytes(record.cwd.bytes),
        cwd_truncated: record.cwd.truncated,
        cwd_unreachable: record.cwd.unreachable,
    }
}

/// Arguments from their bytes, each ended by a zero; the last one may have lost its end.
fn arguments(args: &[u8]) -> Vec<String> {
    if args.is_empty() {
        return Vec::new();
    }
    let bytes = args.strip_suffix(&[0]).unwrap_or(args);
    bytes.split(|byte| *byte == 0).map(text::from_bytes).collect()
}

pub(super) fn file(info: &FileInfo, path: &Text<'_>) -> v1::File {
    let memfd = info.links == 0 && info.mount_flags & MNT_INTERNAL != 0 && path.bytes.starts_with(b"/memfd:");
    v1::File {
        path: text::from_bytes(path.bytes),
        inode: info.inode,
        device: format!("{}:{}", info.device >> MINOR_BITS, info.device & ((1 << MINOR_BITS) - 1)),
        links: Some(info.links),
        mode: format!("{:04o}", info.mode & PERMISSION_BITS),
        uid: Some(info.uid),
        gid: Some(info.gid),
        deleted: (info.links == 0 || info.flags & file_flags::UNLINKED != 0) && !memfd,
        memfd,
        path_truncated: path.truncated,
        path_unreachable: path.unreachable,
    }
}

/// `pts0` of the kernel's driver is `/dev/pts/0`.
fn tty(name: &[u8]) -> String {
    let name = text::from_bytes(padded(name));
    match name.strip_prefix("pts") {
        Some(number) if number.bytes().all(|digit| digit.is_ascii_digit()) => format!("pts/{number}"),
        _ => name,
    }
}

fn set(number: u32) -> Option<u32> {
    (number != UNSET).then_some(number)
}

/// A name of 64 bits, as it is written.
pub(super) fn hex(name: u64) -> String {
    format!("{name:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(bytes: &[u8]) -> Text<'_> {
        Text { bytes, truncated: false, unreachable: false, unreadable: false }
    }

    #[test]
    fn arguments_keep_empty_ones_wherever_they_stand() {
        assert_eq!(arguments(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(arguments(b"a\0\0"), ["a", ""]);
        assert_eq!(arguments(b"\0"), [""]);
        assert_eq!(arguments(b""), Vec::<String>::new());
    }

    #[test]
    fn an_argument_that_was_cut_is_kept() {
        assert_eq!(arguments(b"a\0bc"), ["a", "bc"]);
    }

    #[test]
    fn a_file_without_links_is_deleted_unless_it_is_a_memfd() {
        let info = FileInfo {
            inode: 7,
            device: 8 << 20 | 1,
            links: 0,
            mode: 0o100_755,
            uid: 0,
            gid: 0,
            mount_flags: 0,
            flags: 0,
            reserved: 0,
        };
        let deleted = file(&info, &text_of(b"/tmp/x"));
        assert!(deleted.deleted && !deleted.memfd);
        assert_eq!((deleted.device.as_str(), deleted.mode.as_str()), ("8:1", "0755"));

        let internal = FileInfo { mount_flags: MNT_INTERNAL, ..info };
        assert!(file(&internal, &text_of(b"/memfd:x")).memfd);
        // One of several names of a file is gone.
        let unlinked = FileInfo { links: 1, flags: file_flags::UNLINKED, ..info };
        assert!(file(&unlinked, &text_of(b"/tmp/x")).deleted);
        // A file of that name is no memfd.
        assert!(!file(&info, &text_of(b"/memfd:x")).memfd);
    }

    #[test]
    fn terminals_have_the_names_that_ps_prints() {
        assert_eq!(tty(b"pts12\0\0"), "pts/12");
        assert_eq!(tty(b"tty1\0"), "tty1");
        assert_eq!(tty(b"ttyS0"), "ttyS0");
        assert_eq!(tty(b"\0\0"), "");
    }
}
