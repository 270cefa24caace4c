//! What ran before we did, from the kernel's own list of tasks.

use aya_ebpf::{
    cty::c_void,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_socket_cookie, bpf_seq_write, bpf_sock_from_file},
    },
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{FileInfo, Kind, Snapshot, SocketState, Span, socket_change, task_flags},
};

use crate::{
    cgroup, credentials, globals,
    kernel::{Probed, Ptr, Typed, bound},
    path::{self, Path},
    send::{Claim, Count, Scratch, header},
    socket, task,
};

/// Hook number of a record that no hook made.
const NO_HOOK: u16 = u16::MAX;

/// Called for each task in turn by whoever reads the iterator, and once more with none.
///
/// Context: `struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; }`.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/task_iter.c#L139-L142>
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn snapshot_tasks(ctx: *mut c_void) -> i32 {
    // SAFETY: the context has two pointers.
    let (meta, task) = unsafe { (*ctx.cast::<*const *mut c_void>(), *ctx.cast::<*const u8>().add(1)) };
    let Some(task) = Ptr::<Task, Typed>::new(task) else { return 0 };
    credentials::seed(task);
    if task.get(TASK_PID) != task.get(TASK_TGID) {
        return 0;
    }
    let Some(claim) = Claim::take() else {
        lost(DropReason::Nested);
        return 0;
    };
    match snapshot(claim.get(), task) {
        // SAFETY: the first member of `bpf_iter_meta` is the `seq_file`; `len` is bounded by its parts. When it
        // is full the kernel calls again for the same task.
        Some(len) => unsafe {
            bpf_seq_write((*meta).cast(), (&raw mut (*claim.get()).record).cast(), len as u32);
        },
        None => lost(DropReason::ReadFault),
    }
    claim.release();
    0
}

fn lost(reason: DropReason) {
    if let Some(count) = Count::seen(Hook::Snapshot) {
        count.dropped(reason);
    }
}

/// Called for each open file of each task in turn.
///
/// Context: `struct bpf_iter__task_file { meta; task; u32 fd; file; }`, each in eight bytes.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/task_iter.c#L385-L390>
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn snapshot_sockets(ctx: *mut c_void) -> i32 {
    // SAFETY: the context has these members.
    let (meta, task, file) = unsafe {
        (*ctx.cast::<*const *mut c_void>(), *ctx.cast::<*const u8>().add(1), *ctx.cast::<*const u8>().add(3))
    };
    let (Some(task), Some(file)) = (Ptr::<Task, Typed>::new(task), Ptr::<File, Typed>::new(file)) else {
        return 0;
    };
    let Some(claim) = Claim::take() else {
        lost(DropReason::Nested);
        return 0;
    };
    if let Some(len) = open_socket(claim.get(), task, file) {
        // SAFETY: as for tasks.
        unsafe {
            bpf_seq_write((*meta).cast(), (&raw mut (*claim.get()).record).cast(), len);
        }
    }
    claim.release();
    0
}

/// The cookie of a socket, which the kernel makes when it is asked for one.
#[inline(always)]
fn cookie(file: Ptr<File, Typed>) -> Option<u64> {
    if globals::HAVE_TASK_PT_REGS.load() == 0 {
        return None;
    }
    // SAFETY: a typed pointer, as the helper wants one; it gives another, or null where that is no socket.
    let socket = unsafe { bpf_sock_from_file(file.address() as *mut _) };
    let sock = Ptr::<Socket, Typed>::new(socket.cast())?.follow(SOCKET_SOCK)?;
    // SAFETY: as above.
    Some(unsafe { bpf_get_socket_cookie(sock.address() as *mut _) })
}

/// Describes the socket that a file is, if it is one of the internet.
#[inline(always)]
fn open_socket(scratch: *mut Scratch, task: Ptr<Task, Typed>, file: Ptr<File, Typed>) -> Option<u32> {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    if file.follow(FILE_INODE)?.get(INODE_MODE) & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket = Ptr::<Socket, Probed>::new(file.address_in(FILE_SOCKET) as *const u8)?;
    let sock = socket.follow(SOCKET_SOCK)?;
    let family = sock.get(SOCK_FAMILY);
    if family != socket::AF_INET && family != socket::AF_INET6 {
        return None;
    }
    let kind = sock.get(SOCK_TYPE);
    let has_connections = kind == socket::SOCK_STREAM || kind == socket::SOCK_SEQPACKET;
    // SAFETY: the record begins with room for a `SocketState`, at a multiple of eight.
    let record: *mut SocketState = unsafe { (&raw mut (*scratch).record).cast() };
    // SAFETY: `record` is our own memory.
    unsafe {
        socket::clear_state(record);
        let name =
            if has_connections { sock.address() } else { cookie(file).unwrap_or(sock.get(SOCK_COOKIE)) };
        socket::write(&raw mut (*record).socket, sock, name);
        (*record).task = task::task_ref(task)?;
        (*record).new = sock.get(SOCK_STATE);
        (*record).change = socket_change::SNAPSHOT;
        (*record).header = header(Kind::SocketState, NO_HOOK, size_of::<SocketState>() as u64);
    }
    Some(size_of::<SocketState>() as u32)
}

#[inline(always)]
fn snapshot(scratch: *mut Scratch, task: Ptr<Task, Typed>) -> Option<u64> {
    // SAFETY: the record begins with room for a `Snapshot`, at a multiple of eight.
    let record: *mut Snapshot = unsafe { (&raw mut (*scratch).record).cast() };
    let mut end = size_of::<Snapshot>() as u64;
    let root = task::mount_root(task);
    let nothing = Span { start: end as u16, len: 0, flags: 0 };
    // SAFETY: `record` is our own memory.
    unsafe {
        task::write_info(&raw mut (*record).info, task)?;
        // SAFETY: no preconditions.
        if (bpf_get_current_pid_tgid() >> 32) as u32 == task.get(TASK_TGID) {
            (*record).info.flags |= task_flags::READER;
        }
        (*record).file = FileInfo::NONE;
        (*record).exe = nothing;
        (*record).cwd = nothing;
        (*record).cgroup_path = nothing;

        if let Some(file) = task.follow(TASK_MM).and_then(|mm| mm.follow(MM_EXE_FILE)) {
            task::write_file(&raw mut (*record).file, file)?;
            let exe = path::write(scratch, file.follow(FILE_DENTRY)?, file.follow(FILE_MNT)?, root);
            (*record).exe = append(scratch, &mut end, &exe);
        }
        if let Some(fs) = task.follow(TASK_FS) {
            let cwd = path::write(scratch, fs.follow(FS_PWD_DENTRY)?, fs.follow(FS_PWD_MNT)?, root);
            (*record).cwd = append(scratch, &mut end, &cwd);
        }
        if let Some((node, _)) = cgroup::of(task) {
            let cgroup = path::write_cgroup(scratch, node);
            (*record).cgroup_path = append(scratch, &mut end, &cgroup);
        }
        let len = bound::<0x3FFF>(end);
        (*record).header = header(Kind::Snapshot, NO_HOOK, len);
        Some(len)
    }
}

#[inline(always)]
fn append(scratch: *mut Scratch, end: &mut u64, path: &Path) -> Span {
    let start = bound::<0x3FFF>(*end);
    let len = bound::<0xFFF>(path.len);
    // SAFETY: both ends are inside the scratch buffer by their bounds.
    unsafe {
        let place = (&raw mut (*scratch).record).cast::<u8>().add(start as usize);
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(
            place.cast(),
            len as u32,
            path::bytes(scratch, path).cast(),
        );
    }
    *end = start + len;
    Span { start: start as u16, len: len as u16, flags: path.flags }
}
