//! `process.credentials`: what changed, against what was known.
//!
//! The credentials of every task are kept from its birth. Calls that can change them are looked at when
//! they return (one tracepoint a call; the entry is not needed, so that other calls pay as little as
//! possible), and every exec and exit looks as well: a change by any other means is found there at the
//! latest.

use aya_ebpf::{
    helpers::bpf_get_current_task,
    macros::{map, tracepoint},
    maps::HashMap,
    programs::TracePointContext,
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{Credentials, Creds, Kind, call},
    settings::leave_out,
};

use crate::{
    kernel::{Access, Probed, Ptr, Typed},
    send::Count,
    settings, syscall, task,
};

/// Credentials of a task as last seen, by the address of its `task_struct`.
#[map]
static TASK_CREDS: HashMap<u64, Known> = HashMap::with_max_entries(1, 0);

/// What is known of a task.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Known {
    /// Address of the `struct cred`: the kernel replaces it at each change.
    address: u64,
    creds: Creds,
}

// Options of `prctl` that replace the caller's credentials.
// <https://github.com/torvalds/linux/blob/v6.12/security/commoncap.c#L1223-L1374>
const PR_SET_KEEPCAPS: u64 = 8;
const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_SECUREBITS: u64 = 28;
const PR_CAP_AMBIENT: u64 = 47;

const WORDS: usize = size_of::<Creds>() / size_of::<u64>();

impl Known {
    #[inline(always)]
    fn of<A: Access>(cred: Ptr<Cred, A>) -> Self {
        let mut known = core::mem::MaybeUninit::<Self>::uninit();
        // SAFETY: all fields are written.
        unsafe {
            (*known.as_mut_ptr()).address = cred.address();
            task::write_creds(&raw mut (*known.as_mut_ptr()).creds, cred);
            known.assume_init()
        }
    }
}

/// Any of the calls that can change credentials returned, `prctl` aside.
#[tracepoint]
pub fn creds_syscall(ctx: TracePointContext) -> i32 {
    returned(&ctx, syscall::result(&ctx) >= 0);
    0
}

/// `prctl` returned: most of its options have nothing to do with credentials.
#[tracepoint]
pub fn creds_prctl(ctx: TracePointContext) -> i32 {
    // SAFETY: no preconditions.
    let task = Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8);
    let option = task.and_then(syscall::registers).map_or(0, |registers| registers.get(REGISTERS_ARG1));
    let can_change = matches!(option, PR_SET_KEEPCAPS | PR_CAPBSET_DROP | PR_SET_SECUREBITS | PR_CAP_AMBIENT);
    returned(&ctx, can_change && syscall::result(&ctx) >= 0);
    0
}

/// Looks at the caller. A change that this call cannot have made is not put down to it.
#[inline(always)]
fn returned(ctx: &TracePointContext, can_have_changed: bool) {
    let call = if can_have_changed { call::SYSCALL + syscall::number_of(ctx) } else { call::UNKNOWN };
    // SAFETY: no preconditions.
    if let Some(task) = Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8) {
        check(task, call);
    }
}

/// Reports a change of a task's credentials since they were last looked at.
#[inline(always)]
pub fn check<A: Access>(task: Ptr<Task, A>, call: u32) {
    let Some(count) = Count::seen(Hook::Credentials) else { return };
    let Some(cred) = task.follow(TASK_CRED) else {
        count.dropped(DropReason::ReadFault);
        return;
    };
    let Some(known) = TASK_CREDS.get_ptr_mut(task.address()) else {
        // There was no room when it was born, which was counted then, or the agent is just starting. There is
        // nothing to compare with; the next look may have.
        match TASK_CREDS.insert(task.address(), Known::of(cred), 0) {
            Ok(()) => count.filtered(),
            Err(_) => count.dropped(DropReason::MapFull),
        }
        return;
    };
    // SAFETY: the map's own memory.
    let (known_at, known_creds) = unsafe { (&raw mut (*known).address, &raw mut (*known).creds) };
    // A call changes credentials by replacing them. At an exec and an exit they are compared in full: the
    // kernel does not write into credentials in use, an exploit does.
    // SAFETY: as above.
    if A::IS_COSTLY && unsafe { *known_at } == cred.address() {
        count.filtered();
        return;
    }
    let now = Known::of(cred);
    // SAFETY: as above.
    if unsafe { same(known_creds, &raw const now.creds) } {
        // SAFETY: as above.
        unsafe { *known_at = now.address };
        count.filtered();
        return;
    }
    report(count, task, known_creds, call);
    // SAFETY: as above.
    unsafe { *known = now };
}

/// A task was born: remembers its credentials, and reports them if they are not those of who made it
/// (`CLONE_NEWUSER`).
#[inline(always)]
pub fn born(child: Ptr<Task, Typed>) {
    let Some(cred) = child.follow(TASK_CRED) else { return };
    let now = Known::of(cred);
    // SAFETY: no preconditions.
    let Some(parent) = Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8) else {
        return;
    };
    // Else a change of the parent's that no hooked call made would be told of the child.
    check(parent, call::UNKNOWN);
    if let Some(parents) = TASK_CREDS.get_ptr_mut(parent.address()) {
        // SAFETY: the map's own memory.
        let creds = unsafe { &raw mut (*parents).creds };
        // SAFETY: as above.
        if !unsafe { same(creds, &raw const now.creds) }
            && let Some(count) = Count::seen(Hook::Credentials)
        {
            report(count, child, creds, call::CLONE);
        }
    }
    if TASK_CREDS.insert(child.address(), now, 0).is_err()
        && let Some(count) = Count::seen(Hook::Credentials)
    {
        // Its changes will not be seen until there is room.
        count.dropped(DropReason::MapFull);
    }
}

/// A task is gone.
#[inline(always)]
pub fn forget(task: Ptr<Task, Typed>) {
    let _not_there = TASK_CREDS.remove(task.address());
}

/// Remembers a task that ran before we did.
#[inline(always)]
pub fn seed(task: Ptr<Task, Typed>) {
    if let Some(cred) = task.follow(TASK_CRED) {
        /// `BPF_NOEXIST`: what a hook has seen since is newer.
        const IF_ABSENT: u64 = 1;
        let _there_or_full = TASK_CREDS.insert(task.address(), Known::of(cred), IF_ABSENT);
    }
}

/// Writes what is known of a task, or what it has now where nothing is.
#[inline(always)]
pub fn write_known(to: *mut Creds, task: Ptr<Task, Typed>) {
    match TASK_CREDS.get_ptr(task.address()) {
        // SAFETY: the map's memory and the caller's.
        Some(known) => unsafe { copy(to, &raw const (*known).creds) },
        None => {
            if let Some(cred) = task.follow(TASK_CRED) {
                task::write_creds(to, cred);
            }
        }
    }
}

#[inline(always)]
fn report<A: Access>(count: Count, task: Ptr<Task, A>, before: *const Creds, call: u32) {
    if settings::leaves_out(task, leave_out::CREDENTIALS) {
        count.filtered();
        return;
    }
    let Some(mut entry) = count.reserve::<Credentials>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is our own memory.
    let filled = unsafe {
        let filled = task::write_info(&raw mut (*record).info, task);
        copy(&raw mut (*record).before, before);
        (*record).call = call;
        (*record).reserved = 0;
        (*record).header = count.header(Kind::Credentials, size_of::<Credentials>() as u64);
        filled
    };
    if filled.is_some() {
        count.submit(entry);
    } else {
        entry.discard(0);
        count.dropped(DropReason::ReadFault);
    }
}

/// # Safety
/// Both must point to credentials.
#[inline(always)]
unsafe fn same(a: *const Creds, b: *const Creds) -> bool {
    let mut differences = 0;
    let mut word = 0;
    while word < WORDS {
        // SAFETY: `Creds` is `WORDS` words long.
        differences |= unsafe { *a.cast::<u64>().add(word) ^ *b.cast::<u64>().add(word) };
        word += 1;
    }
    differences == 0
}

/// # Safety
/// Both must point to credentials.
#[inline(always)]
unsafe fn copy(to: *mut Creds, from: *const Creds) {
    let mut word = 0;
    while word < WORDS {
        // SAFETY: `Creds` is `WORDS` words long.
        unsafe { *to.cast::<u64>().add(word) = *from.cast::<u64>().add(word) };
        word += 1;
    }
}
