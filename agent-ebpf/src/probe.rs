//! Tiny programs, one of each kind that a hook may need: the agent loads and attaches them to learn
//! whether the host lets it. Asking the kernel's feature queries is not enough: they say yes where a
//! policy says no.

use aya_ebpf::{
    cty::c_void,
    macros::{btf_tracepoint, cgroup_sock, tracepoint},
    programs::{BtfTracePointContext, SockContext, TracePointContext},
};

/// For hooks on tracepoints with typed arguments.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn probe_tp_btf(_: BtfTracePointContext) -> i32 {
    0
}

/// For hooks on `syscalls:` tracepoints.
#[tracepoint]
pub fn probe_syscall(_: TracePointContext) -> i32 {
    0
}

/// For task iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn probe_iter(_: *mut c_void) -> i32 {
    0
}

/// For programs on cgroups.
#[cgroup_sock(sock_release)]
pub fn probe_cgroup(_: SockContext) -> i32 {
    1
}
