//! Hooks and their counters.
//!
//! Every hook counts, per CPU, what it did with each call. Over any interval bounded by two samples
//!
//! ```text
//! seen = filtered + aggregated + submitted + dropped(ring_full, too_big, read_fault, map_full, nested)
//! ```

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A place in the kernel that a program of ours is attached to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Hook {
            $($(#[$doc])* $name,)*
        }

        impl Hook {
            /// Every hook, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name as printed in status, loss events and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

hooks! {
    /// A program image was replaced (`sched:sched_process_exec`).
    Exec = "exec";
    /// A task was created (`task:task_newtask`); threads are counted as filtered.
    Fork = "fork";
    /// A task ended (`sched:sched_process_exit`); all but the last of a process are filtered.
    Exit = "exit";
    /// `execve` or `execveat` returned; successful calls are filtered.
    ExecFailed = "exec_failed";
    /// A call that may change credentials returned, or a task was looked at in passing by one of the
    /// hooks above; looks that found no change are filtered.
    Credentials = "credentials";
    /// A cgroup was made (`cgroup:cgroup_mkdir`); those of hierarchies that are not looked at are filtered.
    NewCgroup = "new_cgroup";
    /// A task of those that ran before the agent; only those that could not be told are counted.
    Snapshot = "snapshot";
    /// A call that opens files returned; what is not watched is filtered.
    FileOpen = "file_open";
    /// `close` was called; what is not watched is filtered.
    FileClose = "file_close";
    /// A call that changes files returned; what failed or cannot concern what is watched is filtered.
    FileCall = "file_call";
    /// A socket of a protocol that has connections changed its state (`sock:inet_sock_set_state`); changes that
    /// tell nothing new are filtered.
    SocketState = "socket_state";
    /// A call that makes, binds, connects or accepts sockets returned; what other hooks tell of is filtered.
    SocketCall = "socket_call";
    /// A request of `io_uring` on a socket was completed; what failed or is usual is filtered, and requests of other
    /// kinds are not counted.
    SocketUring = "socket_uring";
    /// A socket is about to be connected (`cgroup/connect`).
    SocketAttempt = "socket_attempt";
    /// A socket was bound (`cgroup/post_bind`).
    SocketBind = "socket_bind";
    /// A packet of a socket without connections was sent or received (`cgroup_skb`), and is the first of a flow. Those
    /// of flows that are known are counted with these, and those of sockets with connections not at all.
    Datagram = "datagram";
    /// A socket was closed for good (`cgroup/sock_release`); those with connections are filtered.
    SocketRelease = "socket_release";
}

impl Hook {
    /// Whether its records go the way of those that nobody's login or exec must wait for: a flood of files or
    /// packets fills
    /// that ring alone.
    #[must_use]
    #[inline(always)]
    pub const fn is_bulk(self) -> bool {
        !matches!(
            self,
            Self::Exec
                | Self::Fork
                | Self::Exit
                | Self::ExecFailed
                | Self::Credentials
                | Self::NewCgroup
                | Self::Snapshot
        )
    }
}

/// Counters of one hook on one CPU. Kernel programs add to them, the agent sums them over CPUs.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookCounters {
    /// Times the hook was reached.
    pub seen: u64,
    /// Calls that are no event, by design or by a configured filter.
    pub filtered: u64,
    /// Calls folded into an earlier event's count.
    pub aggregated: u64,
    /// Records put in the ring buffer.
    pub submitted: u64,
    /// Records lost, by [`DropReason`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl HookCounters {
    /// Numbers that one set of counters consists of.
    pub const WORDS: usize = 4 + DropReason::ALL.len();

    /// Counters from the numbers that they consist of, in the order of the fields.
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [seen, filtered, aggregated, submitted, dropped @ ..] = words;
        Self { seen, filtered, aggregated, submitted, dropped }
    }

    /// Adds another CPU's counters to these.
    pub fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.filtered += other.filtered;
        self.aggregated += other.aggregated;
        self.submitted += other.submitted;
        for (sum, n) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += n;
        }
    }

    /// Sum of the drops over all reasons.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether every call that was seen is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.seen == self.filtered + self.aggregated + self.submitted + self.dropped_total()
    }
}

/// Why a record was lost in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum DropReason {
    /// The ring buffer had no room: the agent was too slow.
    RingFull,
    /// The record would be longer than the format allows.
    TooBig,
    /// Memory that the record needs could not be read.
    ReadFault,
    /// A map that the record needs was full.
    MapFull,
    /// The program interrupted itself and no scratch buffer was left, or the kernel skipped it.
    Nested,
}

impl DropReason {
    /// Every reason, in the order of [`HookCounters::dropped`].
    pub const ALL: [Self; 5] = [Self::RingFull, Self::TooBig, Self::ReadFault, Self::MapFull, Self::Nested];

    /// Name as printed in status, loss events and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::TooBig => "too_big",
            Self::ReadFault => "read_fault",
            Self::MapFull => "map_full",
            Self::Nested => "nested",
        }
    }
}
