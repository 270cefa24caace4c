//! `process.exec_failed`: `execve` and `execveat` that returned an error.

use aya_ebpf::{
    helpers::{bpf_get_current_task, generated::bpf_probe_read_user_str},
    macros::tracepoint,
    programs::TracePointContext,
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{ExecFailed, Kind, PATH_MAX, Span, call, span_flags},
    settings::leave_out,
};

use crate::{
    kernel::{Probed, Ptr, bound},
    send::{Claim, Count, Scratch},
    settings, syscall, task,
};

const AT_FDCWD: i32 = -100;

/// `execve` returned.
#[tracepoint]
pub fn execve_exit(ctx: TracePointContext) -> i32 {
    returned(&ctx, call::EXECVE);
    0
}

/// `execveat` returned.
#[tracepoint]
pub fn execveat_exit(ctx: TracePointContext) -> i32 {
    returned(&ctx, call::EXECVEAT);
    0
}

#[inline(always)]
fn returned(ctx: &TracePointContext, call: u32) {
    let Some(count) = Count::seen(Hook::ExecFailed) else { return };
    let result = syscall::result(ctx);
    if result >= 0 {
        count.filtered();
        return;
    }
    // SAFETY: no preconditions.
    let task = Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8);
    if task.is_some_and(|task| settings::leaves_out(task, leave_out::EXEC_FAILED)) {
        count.filtered();
        return;
    }
    let Some(claim) = Claim::take() else {
        count.dropped(DropReason::Nested);
        return;
    };
    match failed(count, claim.get(), call, result) {
        Some(len) => count.output(claim.get(), len),
        None => count.dropped(DropReason::ReadFault),
    }
    claim.release();
}

/// Builds the record; gives its length.
#[inline(always)]
fn failed(count: Count, scratch: *mut Scratch, call: u32, result: i64) -> Option<u64> {
    const START: usize = size_of::<ExecFailed>();
    // SAFETY: no preconditions.
    let task = Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8)?;
    let registers = syscall::registers(task)?;
    let (dirfd, filename) = if call == call::EXECVEAT {
        (registers.get(REGISTERS_ARG1) as i32, registers.get(REGISTERS_ARG2))
    } else {
        (AT_FDCWD, registers.get(REGISTERS_ARG1))
    };

    // SAFETY: the record begins with room for an `ExecFailed`, at a multiple of eight.
    let record: *mut ExecFailed = unsafe { (&raw mut (*scratch).record).cast() };
    // SAFETY: `PATH_MAX + 1` bytes behind the body are inside the scratch buffer.
    let read = unsafe {
        let place = (&raw mut (*scratch).record).cast::<u8>().add(START);
        bpf_probe_read_user_str(place.cast(), PATH_MAX as u32 + 1, filename as *const _)
    };
    let span = if read <= 0 {
        Span { start: START as u16, len: 0, flags: span_flags::FAULT }
    } else {
        let len = bound::<{ PATH_MAX as u32 }>(read as u64 - 1);
        let flags = if len == PATH_MAX as u64 { span_flags::TRUNCATED } else { 0 };
        Span { start: START as u16, len: len as u16, flags }
    };
    let len = START as u64 + bound::<{ PATH_MAX as u32 }>(u64::from(span.len));
    // SAFETY: `record` is our own memory.
    unsafe {
        task::write_info(&raw mut (*record).info, task)?;
        (*record).errno = result.unsigned_abs() as u32;
        (*record).call = call;
        (*record).dirfd = dirfd;
        (*record).reserved = 0;
        (*record).filename = span;
        (*record).header = count.header(Kind::ExecFailed, len);
    }
    Some(len)
}
