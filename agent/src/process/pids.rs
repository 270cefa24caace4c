//! Process IDs as the agent's PID namespace has them.

use nightjar_abi::record::TaskInfo;
use rustix::fs::stat;

/// Inode number of the first PID namespace (`PROC_PID_INIT_INO`).
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/proc_ns.h#L46>
const FIRST: u64 = 0xEFFF_FFFC;

/// By which process IDs the kernel speaks to the agent of others, as in notifications of files. Records have those of
/// the first PID namespace, wherever the agent is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pids {
    /// The agent's PID namespace where it is not the first.
    pub(super) within: Option<u32>,
}

impl Pids {
    /// As this process is told.
    #[must_use]
    pub fn of_this_process() -> Self {
        let own = stat("/proc/self/ns/pid").map_or(FIRST, |stat| stat.st_ino);
        Self { within: u32::try_from(own).ok().filter(|_| own != FIRST) }
    }

    /// The one of a task's process. 0 where it has none, as the kernel has it too, and where it is not known: of what
    /// is in a namespace within the agent's.
    #[must_use]
    pub fn of(self, info: &TaskInfo) -> u32 {
        match self.within {
            None => info.task.pid,
            Some(own) if own == info.namespaces.pid => info.ns_pid,
            Some(_) => 0,
        }
    }
}
