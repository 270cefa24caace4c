//! Cgroups: which one a task is in, and new ones.

use aya_ebpf::{
    helpers::bpf_get_current_task, helpers::generated::bpf_probe_read_kernel, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{Kind, NewCgroup, Span, task_flags},
};

use crate::{
    kernel::{Access, Probed, Ptr, bound, has, number},
    path,
    send::{Claim, Count, Scratch},
};

/// The cgroup that says most of where a task runs, and whether it is of version 1: that of a version 1
/// controller where such a hierarchy is in use and the task is not at its root (docker on a hybrid host),
/// else that of version 2.
#[inline(always)]
pub fn of<A: Access>(task: Ptr<Task, A>) -> Option<(Ptr<KernfsNode, A>, bool)> {
    let set = task.follow(TASK_CGROUPS)?;
    let default = set.follow(CSS_SET_DEFAULT)?;
    if let Some(node) = version1(set, default).and_then(|v1| v1.follow(CGROUP_KERNFS))
        && node.follow(KERNFS_PARENT).is_some()
    {
        return Some((node, true));
    }
    Some((default.follow(CGROUP_KERNFS)?, false))
}

/// The cgroup of version 1 that is looked at.
#[inline(always)]
fn version1<A: Access>(set: Ptr<CssSet, A>, default: Ptr<Cgroup, A>) -> Option<Ptr<Cgroup, A>> {
    let default_root = default.follow(CGROUP_ROOT)?.address();
    subsystem(set, SUBSYS_MEMORY, default_root)
        .or_else(|| subsystem(set, SUBSYS_PIDS, default_root))
        .or_else(|| subsystem(set, SUBSYS_CPU, default_root))
}

/// The cgroup of a controller that is not on the default hierarchy.
#[inline(always)]
fn subsystem<A: Access>(
    set: Ptr<CssSet, A>,
    controller: Field<(), Number>,
    default_root: u64,
) -> Option<Ptr<Cgroup, A>> {
    if !has(controller) {
        return None;
    }
    // An element of an array of pointers, at a place that is constant to the verifier.
    let cgroup = set.follow_element(CSS_SET_SUBSYS, number(controller))?.follow(CSS_CGROUP)?;
    (cgroup.follow(CGROUP_ROOT)?.address() != default_root).then_some(cgroup)
}

/// `TP_PROTO(struct cgroup *cgrp, const char *path)`, called by whoever makes the directory.
///
/// Records of an exec carry the path of their cgroup, others only its ID: what a process does between being
/// put into a container's cgroup and its first exec there is known to be of that container by this.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/cgroup/cgroup.c#L5846>
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn new_cgroup(ctx: BtfTracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::NewCgroup) else { return 0 };
    let Some(claim) = Claim::take() else {
        count.dropped(DropReason::Nested);
        return 0;
    };
    match Ptr::<Cgroup, Probed>::new(ctx.arg::<*const u8>(0)).and_then(|new| made(count, claim.get(), new)) {
        Some(0) => count.filtered(),
        Some(len) => count.output(claim.get(), len),
        None => count.dropped(DropReason::ReadFault),
    }
    claim.release();
    0
}

/// Builds the record; gives its length, zero for a cgroup of another hierarchy than those looked at.
#[inline(always)]
fn made(count: Count, scratch: *mut Scratch, new: Ptr<Cgroup, Probed>) -> Option<u64> {
    const START: usize = size_of::<NewCgroup>();
    // SAFETY: no preconditions.
    let task = Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8)?;
    let set = task.follow(TASK_CGROUPS)?;
    let default = set.follow(CSS_SET_DEFAULT)?;
    let root = new.follow(CGROUP_ROOT)?.address();
    let is_v1 = root != default.follow(CGROUP_ROOT)?.address();
    if is_v1 && version1(set, default)?.follow(CGROUP_ROOT)?.address() != root {
        return Some(0);
    }
    let node = new.follow(CGROUP_KERNFS)?;
    let path = path::write_cgroup(scratch, node);
    let len = bound::<0x7FF>(path.len);
    // SAFETY: the record is our own memory, and has room for the body and a path behind it.
    unsafe {
        let record: *mut NewCgroup = (&raw mut (*scratch).record).cast();
        let place = (&raw mut (*scratch).record).cast::<u8>().add(START);
        bpf_probe_read_kernel(place.cast(), len as u32, path::bytes(scratch, &path).cast());
        (*record).id = node.get(KERNFS_ID);
        (*record).flags = if is_v1 { task_flags::CGROUP_V1 } else { 0 };
        (*record).reserved = 0;
        (*record).path = Span { start: START as u16, len: len as u16, flags: path.flags };
        (*record).header = count.header(Kind::NewCgroup, START as u64 + len);
    }
    Some(START as u64 + len)
}
