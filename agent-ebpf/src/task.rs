//! What every record says of the acting process.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use nightjar_abi::{
    fields::*,
    record::{Creds, FileInfo, Namespaces, TaskInfo, TaskRef, file_flags, task_flags},
};

use crate::{
    cgroup,
    kernel::{Access, Ptr, Typed, has, number},
};

/// `PF_KTHREAD`
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched.h#L1690>
pub const PF_KTHREAD: u32 = 0x0020_0000;
/// Bit of `PFA_NO_NEW_PRIVS` in `task_struct.atomic_flags`.
const NO_NEW_PRIVS: u64 = 1;
/// `AUDIT_SID_UNSET` and the invalid user ID.
const UNSET: u32 = u32::MAX;

/// Fills `info` in place: the record lives in a ring or a map, the stack is too small for it.
#[inline(always)]
pub fn write_info<A: Access>(info: *mut TaskInfo, task: Ptr<Task, A>) -> Option<()> {
    // SAFETY: `info` points into a record of ours.
    unsafe {
        (*info).task = task_ref(task)?;
        (*info).parent = task_ref(task.follow(TASK_REAL_PARENT)?)?;
        write_creds(&raw mut (*info).creds, task.follow(TASK_CRED)?);
        write_namespaces(info, task);
        let (cgroup, is_v1) = match cgroup::of(task) {
            Some((cgroup, is_v1)) => (cgroup.get(KERNFS_ID), is_v1),
            None => (0, false),
        };
        (*info).cgroup_id = cgroup;
        (*info).loginuid = if has(TASK_LOGINUID) { task.get(TASK_LOGINUID) } else { UNSET };
        (*info).session = if has(TASK_SESSIONID) { task.get(TASK_SESSIONID) } else { UNSET };

        let mut flags = 0;
        if task.get(TASK_FLAGS) & PF_KTHREAD != 0 {
            flags |= task_flags::KERNEL_THREAD;
        }
        if task.get(TASK_ATOMIC_FLAGS) & NO_NEW_PRIVS != 0 {
            flags |= task_flags::NO_NEW_PRIVS;
        }
        if is_v1 {
            flags |= task_flags::CGROUP_V1;
        }
        let signal = task.follow(TASK_SIGNAL)?;
        if signal.get(SIGNAL_THREADS) > 1 {
            flags |= task_flags::THREADS;
        }
        (*info).flags = flags;

        let comm = &raw mut (*info).comm;
        bpf_probe_read_kernel(comm.cast(), 16, task.embedded(TASK_COMM)?.address() as *const _);
        let tty = &raw mut (*info).tty;
        match signal.follow(SIGNAL_TTY) {
            Some(named) => {
                bpf_probe_read_kernel(tty.cast(), 32, named.embedded(TTY_NAME)?.address() as *const _);
            }
            None => *tty.cast::<[u64; 4]>() = [0; 4],
        }
    }
    Some(())
}

/// Identity of a task.
#[inline(always)]
pub fn task_ref<A: Access>(task: Ptr<Task, A>) -> Option<TaskRef> {
    Some(TaskRef {
        pid: task.get(TASK_TGID),
        tid: task.get(TASK_PID),
        start: task.follow(TASK_GROUP_LEADER)?.get(TASK_START),
        exec_id: task.get(TASK_EXEC_ID),
    })
}

/// Copies the credentials that a record carries.
#[inline(always)]
pub fn write_creds<A: Access>(to: *mut Creds, cred: Ptr<Cred, A>) {
    // SAFETY: `to` points into a record, a map or the stack of ours.
    unsafe {
        (*to).uid = cred.get(CRED_UID);
        (*to).gid = cred.get(CRED_GID);
        (*to).suid = cred.get(CRED_SUID);
        (*to).sgid = cred.get(CRED_SGID);
        (*to).euid = cred.get(CRED_EUID);
        (*to).egid = cred.get(CRED_EGID);
        (*to).fsuid = cred.get(CRED_FSUID);
        (*to).fsgid = cred.get(CRED_FSGID);
        (*to).securebits = cred.get(CRED_SECUREBITS);
        (*to).user_ns = cred.follow(CRED_USER_NS).map_or(0, |ns| ns.get(USER_NS_INUM));
        (*to).inheritable = cred.get(CRED_INHERITABLE);
        (*to).permitted = cred.get(CRED_PERMITTED);
        (*to).effective = cred.get(CRED_EFFECTIVE);
        (*to).bounding = cred.get(CRED_BOUNDING);
        (*to).ambient = cred.get(CRED_AMBIENT);
    }
}

/// Fills `info.namespaces` and `info.ns_pid`.
#[inline(always)]
unsafe fn write_namespaces<A: Access>(info: *mut TaskInfo, task: Ptr<Task, A>) {
    let mut namespaces =
        Namespaces { cgroup: 0, ipc: 0, mnt: 0, net: 0, pid: 0, pid_for_children: 0, time: 0, uts: 0 };
    // A task that is ending has let go of them.
    if let Some(proxy) = task.follow(TASK_NSPROXY) {
        namespaces.cgroup = proxy.follow(NSPROXY_CGROUP).map_or(0, |ns| ns.get(CGROUP_INUM));
        namespaces.ipc = proxy.follow(NSPROXY_IPC).map_or(0, |ns| ns.get(IPC_INUM));
        namespaces.mnt = proxy.follow(NSPROXY_MNT).map_or(0, |ns| ns.get(MNT_INUM));
        namespaces.net = proxy.follow(NSPROXY_NET).map_or(0, |ns| ns.get(NET_INUM));
        namespaces.pid_for_children = proxy.follow(NSPROXY_PID_FOR_CHILDREN).map_or(0, |ns| ns.get(PID_INUM));
        namespaces.time = proxy.follow(NSPROXY_TIME).map_or(0, |ns| ns.get(TIME_INUM));
        namespaces.uts = proxy.follow(NSPROXY_UTS).map_or(0, |ns| ns.get(UTS_INUM));
    }

    let mut ns_pid = 0;
    if let Some(pid) = task.follow(TASK_GROUP_LEADER).and_then(|leader| leader.follow(TASK_THREAD_PID)) {
        let innermost = u64::from(pid.get(PID_LEVEL)) * u64::from(number(UPID_SIZE));
        let upid = pid.embedded(PID_NUMBERS).and_then(|first| {
            Ptr::<Upid, crate::kernel::Probed>::new((first.address() + innermost) as *const u8)
        });
        if let Some(upid) = upid {
            ns_pid = upid.get(UPID_NR);
            namespaces.pid = upid.follow(UPID_NS).map_or(0, |ns| ns.get(PID_INUM));
        }
    }
    // SAFETY: `info` points into a record of ours.
    unsafe {
        (*info).namespaces = namespaces;
        (*info).ns_pid = ns_pid;
    }
}

/// Root of a task's mount namespace; zero for a task that is ending.
#[inline(always)]
pub fn mount_root<A: Access>(task: Ptr<Task, A>) -> u64 {
    let root = task
        .follow(TASK_NSPROXY)
        .and_then(|proxy| proxy.follow(NSPROXY_MNT))
        .and_then(|namespace| namespace.follow(MNT_NS_ROOT));
    root.map_or(0, Ptr::address)
}

/// Describes the file behind an image.
#[inline(always)]
pub fn write_file(to: *mut FileInfo, file: Ptr<File, Typed>) -> Option<()> {
    let inode = file.follow(FILE_INODE)?;
    let hashed = file.follow(FILE_DENTRY)?.follow(DENTRY_HASHED).is_some();
    // SAFETY: `to` points into a record of ours.
    unsafe {
        *to = FileInfo {
            inode: inode.get(INODE_NUMBER),
            device: inode.follow(INODE_SB)?.get(SB_DEV),
            links: inode.get(INODE_NLINK),
            mode: u32::from(inode.get(INODE_MODE)),
            uid: inode.get(INODE_UID),
            gid: inode.get(INODE_GID),
            mount_flags: file.follow(FILE_MNT)?.get(VFSMOUNT_FLAGS),
            flags: if hashed { 0 } else { file_flags::UNLINKED },
            reserved: 0,
        };
    }
    Some(())
}
