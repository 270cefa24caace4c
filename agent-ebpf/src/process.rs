//! `process.exec`, `process.fork`, `process.exit`.

use aya_ebpf::{
    helpers::{bpf_get_current_task, generated::bpf_probe_read_user_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::{debug, trace};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{Exec, Exit, Fork, Kind, PATH_MAX, PATHS_MAX, Span, call, span_flags},
    settings::{
        ENVIRONMENT_LOOKS, ENVIRONMENT_MAX, ENVIRONMENT_NAMES, ENVIRONMENT_VALUE_MAX, Settings, leave_out,
    },
};

use crate::{
    cgroup, credentials,
    kernel::{Ptr, Typed, bound, number, opaque, volatile},
    path,
    send::{Claim, Count, Environment, Scratch},
    settings,
    tail::Tail,
    task, times,
};

const CLONE_THREAD: u64 = 0x0001_0000;
/// `SIGNAL_GROUP_EXIT`
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched/signal.h#L253>
const SIGNAL_GROUP_EXIT: u32 = 4;
/// Where the tail of an exec's record begins.
const EXEC: usize = size_of::<Exec>();
/// What is before its arguments stays below this, as each part is bounded.
const BEFORE_ARGS: u32 = PATHS_MAX as u32 - 1;
/// Most bytes of an interpreter's name: a script's is at most 255 long, that of `binfmt_misc` may be longer.
const INTERP_MAX: u32 = 1023;

/// The task at argument `n`.
#[inline(always)]
fn argument<S>(ctx: &BtfTracePointContext, n: usize) -> Option<Ptr<S, Typed>> {
    Ptr::new(ctx.arg::<*const u8>(n))
}

// ---- exec

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, called in the new image.
/// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/sched.h#L399-L423>
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::Exec) else { return 0 };
    let Some(task) = argument::<Task>(&ctx, 0) else {
        count.dropped(DropReason::ReadFault);
        return 0;
    };
    if settings::leaves_out(task, leave_out::EXEC) {
        count.filtered();
    } else {
        send_exec(&ctx, count);
    }
    credentials::check(task, call::EXEC);
    0
}

#[inline(always)]
fn send_exec(ctx: &BtfTracePointContext, count: Count) {
    let Some(claim) = Claim::take() else {
        count.dropped(DropReason::Nested);
        return;
    };
    match exec(ctx, count, claim.get()) {
        Some(len) => count.output(claim.get(), len),
        None => count.dropped(DropReason::ReadFault),
    }
    claim.release();
}

/// Builds the record; gives its length.
#[inline(always)]
fn exec(ctx: &BtfTracePointContext, count: Count, scratch: *mut Scratch) -> Option<u64> {
    let task: Ptr<Task, Typed> = argument(ctx, 0)?;
    let old_tid: u32 = ctx.arg(1);
    let binprm: Ptr<Binprm, Typed> = argument(ctx, 2)?;
    let mm = task.follow(TASK_MM)?;
    let file = binprm.follow(BINPRM_FILE)?;
    // SAFETY: the record begins with room for an `Exec`, at a multiple of eight.
    let record: *mut Exec = unsafe { (&raw mut (*scratch).record).cast() };

    // SAFETY: `record` is our own memory.
    unsafe {
        task::write_info(&raw mut (*record).info, task)?;
        task::write_file(&raw mut (*record).file, file)?;
        credentials::write_known(&raw mut (*record).before, task);
        (*record).old_tid = old_tid;
        (*record).argc = binprm.get(BINPRM_ARGC);
    }

    let mut tail = Tail::<EXEC, BEFORE_ARGS>::new(scratch);
    let root = task::mount_root(task);
    let exe = path::write(scratch, file.follow(FILE_DENTRY)?, file.follow(FILE_MNT)?, root);
    let exe = tail.path(&exe);
    let fs = task.follow(TASK_FS)?;
    let cwd = path::write(scratch, fs.follow(FS_PWD_DENTRY)?, fs.follow(FS_PWD_MNT)?, root);
    let cwd = tail.path(&cwd);
    let filename = tail.text::<{ PATH_MAX as u32 }>(binprm.follow(BINPRM_FILENAME)?.address());
    // The kernel lets both point to the same text until an interpreter is named.
    let interp = match binprm.follow(BINPRM_INTERP)?.address() {
        interp if interp != binprm.follow(BINPRM_FILENAME)?.address() => tail.text::<INTERP_MAX>(interp),
        _ => tail.nothing(),
    };
    let cgroup_path = match cgroup::of(task) {
        Some((node, _)) => tail.path(&path::write_cgroup(scratch, node)),
        None => tail.nothing(),
    };
    if exe.flags & span_flags::TRUNCATED != 0 {
        debug!(
            ctx,
            "the path that process {} runs is longer than the record has room for",
            task.get(TASK_TGID)
        );
    }
    let args_size = mm.get(MM_ARG_END).wrapping_sub(mm.get(MM_ARG_START));
    let args = tail.user(mm.get(MM_ARG_START), args_size);
    if args.flags & span_flags::FAULT != 0 {
        debug!(ctx, "arguments of process {} could not be read", task.get(TASK_TGID));
    }

    // Written before the look through the environment: values that are known by then would be so many states in
    // which verifiers before 6.12 go through all of that.
    // SAFETY: as above.
    unsafe {
        (*record).exe = exe;
        (*record).cwd = cwd;
        (*record).filename = filename;
        (*record).interp = interp;
        (*record).cgroup_path = cgroup_path;
        (*record).args = args;
        (*record).args_size = args_size;
    }
    let environment = tail.environment(mm.get(MM_ENV_START), mm.get(MM_ENV_END));

    let len = size_of::<Exec>() as u64 + bound::<{ u16::MAX as u32 }>(tail.len());
    trace!(ctx, "exec by process {}, record of {} bytes", task.get(TASK_TGID), len);
    // SAFETY: as above.
    unsafe {
        (*record).environment = environment;
        (*record).args_size = args_size;
        (*record).header = count.header(Kind::Exec, len);
    }
    Some(len)
}

// ---- environment

impl Tail<EXEC, BEFORE_ARGS> {
    /// Variables of the environment whose names may be among those that are asked for. Each is read as a whole
    /// into the place of the one before, if that was not wanted: nothing else of the environment is sent.
    #[inline(always)]
    fn environment(&mut self, start: u64, end: u64) -> Span {
        // SAFETY: the map's own memory; volatile for the reason that `Walk` gives.
        let look = unsafe { &mut (*self.scratch).environment };
        volatile::set(&raw mut look.address, start);
        volatile::set(&raw mut look.inside, 0);
        volatile::set(&raw mut look.taken, 0);
        volatile::set(&raw mut look.flags, 0);
        let Some(settings) = settings::get() else { return self.nothing() };
        if settings.names == 0 {
            return self.nothing();
        }
        let mut looks = 0;
        while looks < ENVIRONMENT_LOOKS {
            if !self.next_variable(settings, look, end) {
                break;
            }
            looks += 1;
        }
        let mut flags = volatile::get(&raw const look.flags) as u32;
        if looks == ENVIRONMENT_LOOKS {
            flags |= span_flags::TRUNCATED;
        }
        self.span(volatile::get(&raw const look.taken), flags)
    }

    /// Takes the next variable if it is wanted; whether there may be more.
    #[inline(always)]
    fn next_variable(&self, settings: &Settings, look: *mut Environment, end: u64) -> bool {
        const CHUNK: u64 = ENVIRONMENT_VALUE_MAX as u64;
        // SAFETY: members of the map's own memory.
        let (address, inside, taken, flags) = unsafe {
            (
                &raw mut (*look).address,
                &raw mut (*look).inside,
                &raw mut (*look).taken,
                &raw mut (*look).flags,
            )
        };
        if volatile::get(address) >= end {
            return false;
        }
        let before = volatile::get(taken);
        let offset = bound::<{ u16::MAX as u32 }>(self.len() + before);
        // SAFETY: `CHUNK` bytes from there on are inside the scratch buffer, whatever the bound lets through.
        let place = unsafe { (&raw mut (*self.scratch).record).cast::<u8>().add(EXEC + offset as usize) };
        // SAFETY: as above.
        let read = unsafe {
            bpf_probe_read_user_str(place.cast(), CHUNK as u32, volatile::get(address) as *const _)
        };
        if read <= 0 {
            volatile::set(flags, volatile::get(flags) | u64::from(span_flags::FAULT));
            return false;
        }
        // From here on numbers instead of branches: the verifier goes through every way of every look.
        let read = bound::<{ 2 * CHUNK as u32 - 1 }>(read as u64);
        // A chunk without an end: the next look goes on inside of the variable, which is not the start of one.
        let is_cut = opaque(read / CHUNK);
        // SAFETY: eight bytes of the same place; beyond the text's end there is whatever was there before.
        let wanted =
            is_named(settings, unsafe { place.cast::<u64>().read_volatile() }) & !volatile::get(inside);
        let after = before + wanted * read;
        if after > ENVIRONMENT_MAX as u64 {
            volatile::set(flags, u64::from(span_flags::TRUNCATED));
            return false;
        }
        volatile::set(taken, after);
        volatile::set(flags, volatile::get(flags) | (u64::from(span_flags::TRUNCATED) * (is_cut & wanted)));
        volatile::set(address, volatile::get(address) + read - is_cut);
        volatile::set(inside, is_cut);
        true
    }
}

/// 1 if a variable that begins with these eight bytes may be one of those that are asked for, else 0.
#[inline(always)]
fn is_named(settings: &Settings, head: u64) -> u64 {
    let mut differs = 1;
    let mut n = 0;
    while n < ENVIRONMENT_NAMES {
        let difference = (head ^ settings.heads[n]) & settings.masks[n];
        differs &= opaque(difference | difference.wrapping_neg()) >> 63;
        n += 1;
    }
    opaque(differs ^ 1)
}

// ---- fork

/// `TP_PROTO(struct task_struct *task, unsigned long clone_flags)`, called in the parent before the child
/// can run.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/fork.c#L2621>
#[btf_tracepoint(function = "task_newtask")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::Fork) else { return 0 };
    let clone_flags: u64 = ctx.arg(1);
    let Some(child) = argument::<Task>(&ctx, 0) else {
        count.dropped(DropReason::ReadFault);
        return 0;
    };
    if clone_flags & CLONE_THREAD == 0 {
        fork(count, child, clone_flags);
    } else {
        count.filtered();
    }
    credentials::born(child);
    0
}

#[inline(always)]
fn fork(count: Count, child: Ptr<Task, Typed>, clone_flags: u64) {
    let Some(mut entry) = count.reserve::<Fork>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: no preconditions.
    let creator = Ptr::<Task, crate::kernel::Probed>::new(unsafe { bpf_get_current_task() } as *const u8)
        .and_then(task::task_ref);
    // SAFETY: the reserved record is our own memory.
    let filled = unsafe {
        match (task::write_info(&raw mut (*record).info, child), creator) {
            (Some(()), Some(creator)) => {
                (*record).creator = creator;
                (*record).clone_flags = clone_flags;
                (*record).header = count.header(Kind::Fork, size_of::<Fork>() as u64);
                true
            }
            _ => false,
        }
    };
    if filled {
        count.submit(entry);
    } else {
        entry.discard(0);
        count.dropped(DropReason::ReadFault);
    }
}

// ---- exit

/// `TP_PROTO(struct task_struct *p, bool group_dead)`; without `group_dead` before 6.16. Called for each
/// thread; the last one speaks for the process.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/exit.c#L957>
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::Exit) else { return 0 };
    let Some(task) = argument::<Task>(&ctx, 0) else {
        count.dropped(DropReason::ReadFault);
        return 0;
    };
    // Before the exit, so that the change comes before the end.
    credentials::check(task, call::UNKNOWN);
    credentials::forget(task);
    let last = is_last(&ctx, task);
    if !last {
        times::add(task);
    }
    if last {
        trace!(&ctx, "end of process {}", task.get(TASK_TGID));
        exit(count, task);
    } else {
        count.filtered();
    }
    0
}

#[inline(always)]
fn is_last(ctx: &BtfTracePointContext, task: Ptr<Task, Typed>) -> bool {
    /// Parameters of the tracepoint, its context included, where the kernel says it itself.
    const WITH_GROUP_DEAD: u32 = 3;
    if number(EXIT_ARGS) >= WITH_GROUP_DEAD {
        return ctx.arg::<u64>(1) & 1 != 0;
    }
    // `live` was counted down on the way here. Two threads that end at once may both find it at zero: the
    // agent keeps the first.
    task.follow(TASK_SIGNAL).is_some_and(|signal| signal.get(SIGNAL_LIVE) == 0)
}

#[inline(always)]
fn exit(count: Count, task: Ptr<Task, Typed>) {
    let Some(mut entry) = count.reserve::<Exit>() else { return };
    // SAFETY: the reserved record is our own memory.
    if unsafe { write_exit(entry.as_mut_ptr(), task) }.is_none() {
        entry.discard(0);
        count.dropped(DropReason::ReadFault);
        return;
    }
    // SAFETY: as above.
    unsafe { (*entry.as_mut_ptr()).header = count.header(Kind::Exit, size_of::<Exit>() as u64) };
    count.submit(entry);
}

#[inline(always)]
unsafe fn write_exit(record: *mut Exit, task: Ptr<Task, Typed>) -> Option<()> {
    let signal = task.follow(TASK_SIGNAL)?;
    let leader = task.follow(TASK_GROUP_LEADER)?;
    let times = times::take(task)?;
    // As `wait` takes it: <https://github.com/torvalds/linux/blob/v6.12/kernel/exit.c#L1163-L1164>
    let status = if signal.get(SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
        signal.get(SIGNAL_GROUP_EXIT_CODE)
    } else {
        leader.get(TASK_EXIT_CODE)
    };
    // SAFETY: `record` is the caller's own memory.
    unsafe {
        task::write_info(&raw mut (*record).info, task)?;
        (*record).status = status;
        (*record).reserved = 0;
        (*record).utime = times.utime;
        (*record).stime = times.stime;
        (*record).runtime = times.runtime;
        (*record).maxrss = signal.get(SIGNAL_MAXRSS);
    }
    Some(())
}
