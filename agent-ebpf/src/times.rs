//! Processor time of processes with more than one thread.
//!
//! The kernel adds a thread's times to its process when the thread is reaped, which may be after the last
//! thread passed the hook. So each thread that passes it before the last leaves its times here.

use aya_ebpf::{macros::map, maps::HashMap};
use nightjar_abi::fields::*;

use crate::kernel::{self, Ptr, Typed};

/// Times of threads that ended, by the address of their process's `signal_struct`. When it is full the
/// kernel's own sum serves.
#[map]
static ENDED_THREADS: HashMap<u64, Times> = HashMap::with_max_entries(4096, 0);

/// Processor time in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Times {
    /// In user mode, by ticks.
    pub utime: u64,
    /// In the kernel, by ticks.
    pub stime: u64,
    /// In all, by the scheduler.
    pub runtime: u64,
}

/// Keeps the times of a thread that ends.
#[inline(always)]
pub fn add(task: Ptr<Task, Typed>) {
    /// `BPF_NOEXIST`: another thread of the process may be doing the same.
    const IF_ABSENT: u64 = 1;
    let Some(signal) = task.follow(TASK_SIGNAL) else { return };
    if ENDED_THREADS.get_ptr_mut(signal.address()).is_none() {
        let none = Times { utime: 0, stime: 0, runtime: 0 };
        let _there_or_full = ENDED_THREADS.insert(signal.address(), none, IF_ABSENT);
    }
    if let Some(sum) = ENDED_THREADS.get_ptr_mut(signal.address()) {
        // SAFETY: the map's own memory.
        unsafe {
            kernel::add(&raw mut (*sum).utime, task.get(TASK_UTIME));
            kernel::add(&raw mut (*sum).stime, task.get(TASK_STIME));
            kernel::add(&raw mut (*sum).runtime, task.get(TASK_RUNTIME));
        }
    }
}

/// Times of a process whose last thread this is.
#[inline(always)]
pub fn take(last: Ptr<Task, Typed>) -> Option<Times> {
    let signal = last.follow(TASK_SIGNAL)?;
    let leader = last.follow(TASK_GROUP_LEADER)?;
    let mut times = of(last);
    // The kernel's sum: threads that were reaped, the leader, which is not reaped before its parent asks, and
    // the last one.
    let mut reaped = Times {
        utime: times.utime.wrapping_add(signal.get(SIGNAL_UTIME)),
        stime: times.stime.wrapping_add(signal.get(SIGNAL_STIME)),
        runtime: times.runtime.wrapping_add(signal.get(SIGNAL_RUNTIME)),
    };
    if leader.address() != last.address() {
        reaped.utime = reaped.utime.wrapping_add(leader.get(TASK_UTIME));
        reaped.stime = reaped.stime.wrapping_add(leader.get(TASK_STIME));
        reaped.runtime = reaped.runtime.wrapping_add(leader.get(TASK_RUNTIME));
    }
    if let Some(sum) = ENDED_THREADS.get_ptr(signal.address()) {
        // SAFETY: the map's own memory.
        unsafe {
            times.utime = times.utime.wrapping_add((*sum).utime);
            times.stime = times.stime.wrapping_add((*sum).stime);
            times.runtime = times.runtime.wrapping_add((*sum).runtime);
        }
        let _not_there = ENDED_THREADS.remove(signal.address());
    }
    // Ours lacks threads that ended before us, the kernel's those that it has not reaped yet.
    Some(if times.runtime > reaped.runtime { times } else { reaped })
}

#[inline(always)]
fn of(task: Ptr<Task, Typed>) -> Times {
    Times { utime: task.get(TASK_UTIME), stime: task.get(TASK_STIME), runtime: task.get(TASK_RUNTIME) }
}
