//! What ran before we did, from the kernel's own list of tasks.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_seq_write},
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{FileInfo, Kind, Snapshot, Span, task_flags},
};

use crate::{
    cgroup, credentials,
    kernel::{Ptr, Typed, bound},
    path::{self, Path},
    send::{Claim, Count, Scratch, header},
    task,
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
        (*record).file = FileInfo {
            inode: 0,
            device: 0,
            links: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mount_flags: 0,
            flags: 0,
            reserved: 0,
        };
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
