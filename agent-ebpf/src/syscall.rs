//! What programs on `syscalls:sys_exit_*` tracepoints are told.
//!
//! Format of their context: `events/syscalls/sys_exit_execve/format`.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::TracePointContext,
};
use nightjar_abi::fields::*;

use crate::{
    globals,
    kernel::{Probed, Ptr, number},
};

/// Bytes of a kernel stack on x86-64, without KASAN. Only used before 5.15, where the kernel does not
/// tell where the registers are.
/// <https://github.com/torvalds/linux/blob/v5.10/arch/x86/include/asm/page_64_types.h#L16>
const STACK_SIZE: u64 = 16384;

/// Number of the call, as the machine counts.
#[inline(always)]
pub fn number_of(ctx: &TracePointContext) -> u32 {
    /// After the eight bytes that every tracepoint begins with.
    const PLACE: usize = 8;
    // SAFETY: inside the context; the verifier holds it against its size.
    unsafe { ctx.as_ptr().cast::<u8>().add(PLACE).cast::<u32>().read_volatile() }
}

/// What the call returns.
#[inline(always)]
pub fn result(ctx: &TracePointContext) -> i64 {
    /// After the number and padding.
    const PLACE: usize = 16;
    // SAFETY: inside the context; the verifier holds it against its size.
    unsafe { ctx.as_ptr().cast::<u8>().add(PLACE).cast::<i64>().read_volatile() }
}

/// Registers at the entry of the call: the call leaves those of its arguments as they were, unless it is an
/// exec that succeeds.
#[inline(always)]
pub fn registers(task: Ptr<Task, Probed>) -> Option<Ptr<Registers, Probed>> {
    let address = if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    } else {
        let stack = task.follow(TASK_STACK)?.address();
        stack.wrapping_add(STACK_SIZE).wrapping_sub(u64::from(number(REGISTERS_SIZE)))
    };
    Ptr::new(address as *const u8)
}
