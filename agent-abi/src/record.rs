//! Records: what the kernel programs put in the ring buffers.
//!
//! A record is a fixed body that begins with a [`Header`], then a tail of bytes that [`Span`]s of the
//! body point into. Only used bytes are sent. Numbers are in the machine's order; nothing that Rust
//! gives a restricted set of values (`bool`, `enum`, `char`) crosses, and there is no padding, so any
//! bytes of the right length are a valid value of each body.

/// Raised whenever a layout below changes; a record of another version is refused by name.
pub const ABI_VERSION: u16 = 4;

/// Longest path that is followed, in bytes. Longer ones keep their end and are flagged.
pub const PATH_MAX: usize = 4095;

/// Most bytes of arguments taken from one `execve`.
pub const ARGS_MAX: usize = 32767;

/// Most bytes of a tail before the arguments: three paths, an interpreter and a cgroup path fit.
pub const PATHS_MAX: usize = 16384;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// [`Exec`]
    Exec = 1,
    /// [`ExecFailed`]
    ExecFailed = 2,
    /// [`Fork`]
    Fork = 3,
    /// [`Exit`]
    Exit = 4,
    /// [`Credentials`]
    Credentials = 5,
    /// [`Snapshot`]
    Snapshot = 6,
    /// [`NewCgroup`]
    NewCgroup = 7,
    /// [`FileOpen`]
    FileOpen = 8,
    /// [`FileCall`]
    FileCall = 9,
    /// [`SocketCall`]
    SocketCall = 10,
    /// [`SocketState`]
    SocketState = 11,
}

impl Kind {
    /// The kind with this number, as found in a [`Header`].
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Exec,
            2 => Self::ExecFailed,
            3 => Self::Fork,
            4 => Self::Exit,
            5 => Self::Credentials,
            6 => Self::Snapshot,
            7 => Self::NewCgroup,
            8 => Self::FileOpen,
            9 => Self::FileCall,
            10 => Self::SocketCall,
            11 => Self::SocketState,
            _ => return None,
        })
    }
}

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

            // No padding, and no change of size without a thought for ABI_VERSION.
            const _: () = assert!(size_of::<$name>() == $size && 0 $(+ size_of::<$type>())* == $size);
        )*
    };
}

layouts! {
    /// Begins every record.
    Header, 24 {
        /// Bytes of the whole record, this header included.
        len: u32,
        /// [`ABI_VERSION`]
        abi: u16,
        /// [`Kind`]
        kind: u16,
        /// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
        time: u64,
        /// Processor it was made on.
        cpu: u32,
        /// [`crate::hook::Hook`]
        hook: u16,
        /// Zero.
        reserved: u16,
    }

    /// A range of the record's tail.
    Span, 8 {
        /// Offset of the first byte from the beginning of the record.
        start: u16,
        /// Number of bytes.
        len: u16,
        /// [`span_flags`]
        flags: u32,
    }

    /// A process, or one thread of it, at a moment.
    TaskRef, 24 {
        /// Process ID in the initial PID namespace.
        pid: u32,
        /// Thread ID in the initial PID namespace.
        tid: u32,
        /// When the process started: `CLOCK_BOOTTIME` nanoseconds of its leader.
        start: u64,
        /// `task_struct.self_exec_id`: raised by the kernel at every exec, inherited at fork.
        exec_id: u64,
    }

    /// `struct cred`: IDs as the initial user namespace sees them, capabilities as bit sets.
    Creds, 80 {
        /// Real user.
        uid: u32,
        /// Real group.
        gid: u32,
        /// Saved user.
        suid: u32,
        /// Saved group.
        sgid: u32,
        /// Effective user.
        euid: u32,
        /// Effective group.
        egid: u32,
        /// User for file access.
        fsuid: u32,
        /// Group for file access.
        fsgid: u32,
        /// `SECBIT_*`
        securebits: u32,
        /// Inode number of the user namespace.
        user_ns: u32,
        /// Inheritable capabilities.
        inheritable: u64,
        /// Permitted capabilities.
        permitted: u64,
        /// Effective capabilities.
        effective: u64,
        /// Bounding set.
        bounding: u64,
        /// Ambient capabilities.
        ambient: u64,
    }

    /// Inode numbers of a task's namespaces; zero where the kernel has none. The user namespace is in
    /// [`Creds`].
    Namespaces, 32 {
        /// Cgroup namespace.
        cgroup: u32,
        /// IPC namespace.
        ipc: u32,
        /// Mount namespace.
        mnt: u32,
        /// Network namespace.
        net: u32,
        /// PID namespace that the task is in.
        pid: u32,
        /// PID namespace that its children will be in.
        pid_for_children: u32,
        /// Time namespace.
        time: u32,
        /// UTS (host name) namespace.
        uts: u32,
    }

    /// What is said of the acting process in every record.
    TaskInfo, 232 {
        /// The acting task.
        task: TaskRef,
        /// Its parent in the kernel at this moment (`real_parent`); `tid` is the thread that is meant.
        parent: TaskRef,
        /// Credentials now.
        creds: Creds,
        /// Namespaces now.
        namespaces: Namespaces,
        /// ID of the cgroup, see `cgroup_path` of the records that have one.
        cgroup_id: u64,
        /// Audit login user; `u32::MAX` when unset.
        loginuid: u32,
        /// Audit session; `u32::MAX` when unset.
        session: u32,
        /// Process ID in the innermost PID namespace.
        ns_pid: u32,
        /// [`task_flags`]
        flags: u32,
        /// Thread name, padded with zeros.
        comm: [u8; 16],
        /// Name of the controlling terminal as its driver gives it (`pts0`), padded with zeros.
        tty: [u8; 32],
    }

    /// The file behind a process image.
    FileInfo, 40 {
        /// Inode number.
        inode: u64,
        /// Device in the kernel's own form: `major << 20 | minor`.
        device: u32,
        /// Hard links; 0 when deleted.
        links: u32,
        /// Type and permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Owning group.
        gid: u32,
        /// `MNT_*` flags of the mount it was reached through.
        mount_flags: u32,
        /// [`file_flags`]
        flags: u32,
        /// Zero.
        reserved: u32,
    }

    /// [`Kind::Exec`]
    Exec, 448 {
        /// Begins every record.
        header: Header,
        /// The process, already in its new image.
        info: TaskInfo,
        /// File that runs now: for a script, its interpreter.
        file: FileInfo,
        /// Bytes that all arguments take in the process, their terminating zeros included.
        args_size: u64,
        /// Number of arguments.
        argc: u32,
        /// Thread ID that called exec: not `info.task.pid` when a thread became leader.
        old_tid: u32,
        /// Path of `file`.
        exe: Span,
        /// Working directory.
        cwd: Span,
        /// Path given to the call, as copied by the kernel: for a script, the script.
        filename: Span,
        /// Path of the interpreter as the script (or `binfmt_misc`) names it; empty where the file itself
        /// runs.
        interp: Span,
        /// Path of the cgroup.
        cgroup_path: Span,
        /// Arguments, each ended by a zero byte.
        args: Span,
        /// Environment variables that may be among those asked for (`NAME=value`), each ended by a zero byte.
        environment: Span,
        /// Credentials before the exec.
        before: Creds,
    }

    /// [`Kind::ExecFailed`]
    ExecFailed, 280 {
        /// Begins every record.
        header: Header,
        /// The process that tried.
        info: TaskInfo,
        /// Positive error number.
        errno: u32,
        /// [`call`]
        call: u32,
        /// Descriptor that a relative path starts from (`AT_FDCWD` is -100).
        dirfd: i32,
        /// Zero.
        reserved: u32,
        /// Path asked for, read from the process's memory.
        filename: Span,
    }

    /// [`Kind::Fork`]
    Fork, 288 {
        /// Begins every record.
        header: Header,
        /// The new process.
        info: TaskInfo,
        /// Who made it: not `info.parent` for `CLONE_PARENT`.
        creator: TaskRef,
        /// `CLONE_*`
        clone_flags: u64,
    }

    /// [`Kind::Exit`]
    Exit, 296 {
        /// Begins every record.
        header: Header,
        /// The process, with its last thread.
        info: TaskInfo,
        /// Status as `wait` reports it.
        status: u32,
        /// Zero.
        reserved: u32,
        /// User time in nanoseconds, all threads, by the scheduler's ticks.
        utime: u64,
        /// System time in nanoseconds, all threads, by the scheduler's ticks.
        stime: u64,
        /// Time on a processor in nanoseconds, all threads, exact up to the last scheduler update.
        runtime: u64,
        /// Peak resident size in pages.
        maxrss: u64,
    }

    /// [`Kind::Credentials`]
    Credentials, 344 {
        /// Begins every record.
        header: Header,
        /// The task, with its credentials after the change.
        info: TaskInfo,
        /// Credentials before the change.
        before: Creds,
        /// [`call`]
        call: u32,
        /// Zero.
        reserved: u32,
    }

    /// [`Kind::Snapshot`]: a process that ran before the agent, read from the task iterator.
    Snapshot, 320 {
        /// Begins every record.
        header: Header,
        /// The process.
        info: TaskInfo,
        /// File that runs; all zero for kernel threads.
        file: FileInfo,
        /// Path of `file`.
        exe: Span,
        /// Working directory.
        cwd: Span,
        /// Path of the cgroup.
        cgroup_path: Span,
    }

    /// The nearest directory above a file, or the file itself, that is watched.
    Anchor, 16 {
        /// Inode number; zero: there is none.
        inode: u64,
        /// Device.
        device: u32,
        /// Levels from it down to the file; 0: it is the file.
        distance: u32,
    }

    /// [`Kind::FileOpen`]: a file was opened, or closed, or could not be opened.
    FileOpen, 376 {
        /// Begins every record.
        header: Header,
        /// The process.
        info: TaskInfo,
        /// The file; all zero where it could not be opened.
        file: FileInfo,
        /// What makes it a watched one.
        anchor: Anchor,
        /// Bytes in the file.
        size: u64,
        /// `O_*` as the open file has them.
        open_flags: u32,
        /// `O_*` as the call was given them.
        asked_flags: u32,
        /// Zero.
        reserved: u32,
        /// [`open_facts`]
        facts: u32,
        /// System call, as the machine counts; zero for a close.
        call: u32,
        /// Positive error number; zero where it was opened.
        errno: u32,
        /// Descriptor that a relative `name` starts from (`AT_FDCWD` is -100).
        dirfd: i32,
        /// Low half of the window in which repeats of it are counted; zero: they are told one by one.
        window: u32,
        /// Path of the file; of a failed call, of the directory that a relative `name` starts from.
        path: Span,
        /// Path asked for, from the memory of the process: of failed calls only.
        name: Span,
        /// Path within the file system, whatever part of it is mounted where: of what has an anchor and was reached
        /// through a mount of a part.
        volume: Span,
    }

    /// Something that a call acts on.
    Operand, 96 {
        /// The open file; of a name, the directory that it starts from.
        file: FileInfo,
        /// What makes it a watched one.
        anchor: Anchor,
        /// Bytes in the open file.
        size: u64,
        /// The descriptor; `AT_FDCWD` (-100) for the working directory.
        fd: i32,
        /// [`operand`]
        what: u32,
        /// Path of `file`.
        path: Span,
        /// The name, from the memory of the process.
        name: Span,
        /// As of [`FileOpen`].
        volume: Span,
    }

    /// [`Kind::FileCall`]: a call that changes files succeeded.
    FileCall, 528 {
        /// Begins every record.
        header: Header,
        /// The process.
        info: TaskInfo,
        /// What the call returned.
        result: i64,
        /// Its arguments.
        args: [u64; 6],
        /// System call, as the machine counts.
        call: u32,
        /// Zero.
        reserved: u32,
        /// The old name, the source.
        first: Operand,
        /// The new name, the destination.
        second: Operand,
        /// What a symbolic link leads to, the name of an attribute, the type of a file system: from the memory of
        /// the process.
        text: Span,
        /// Zero.
        reserved2: u64,
    }

    /// A socket and its two ends.
    SocketInfo, 88 {
        /// Which socket: the address of its `struct sock`, which another may have when it is gone; of a socket that
        /// sends datagrams its cookie, which no other has.
        socket: u64,
        /// Address here: of IPv4 in the first four bytes, of IPv6 as in the packet, of other families zero.
        local: [u8; 16],
        /// Address there, likewise.
        remote: [u8; 16],
        /// Port here; zero where the protocol has none.
        local_port: u16,
        /// Port there.
        remote_port: u16,
        /// `AF_*`
        family: u16,
        /// `IPPROTO_*`, or what the family has instead: the Ethernet type of a packet socket, `NETLINK_*`.
        protocol: u16,
        /// `SOCK_*`
        kind: u16,
        /// `AF_*` of the socket, where that of its packets is another: an IPv6 one may talk IPv4.
        own_family: u16,
        /// Inode number of the network namespace.
        netns: u32,
        /// Index of the interface that it is bound to or that its packets take; zero: not known.
        interface: u32,
        /// Index of the interface that a link-local address is of; zero: none.
        scope: u32,
        /// Name of `interface`, padded with zeros.
        interface_name: [u8; 16],
        /// Zero.
        reserved2: u64,
    }

    /// [`Kind::SocketCall`]: a process did something with a socket, while it ran.
    SocketCall, 384 {
        /// Begins every record.
        header: Header,
        /// The process.
        info: TaskInfo,
        /// The socket.
        socket: SocketInfo,
        /// [`socket_act`]
        act: u32,
        /// Positive error number; zero where it succeeded.
        errno: u32,
        /// System call, as the machine counts; [`socket_call`] where there is none.
        call: u32,
        /// [`socket_flags`]
        flags: u32,
        /// Of a listener the longest queue of connections that nobody accepted yet; of a datagram its length.
        value: u64,
        /// Name of a unix socket: a path, or a zero byte and an abstract name.
        path: Span,
        /// Zero.
        reserved: u64,
    }

    /// [`Kind::SocketState`]: a socket changed by itself, or because of a process that is named and no more.
    SocketState, 184 {
        /// Begins every record.
        header: Header,
        /// The socket.
        socket: SocketInfo,
        /// Who ran: who did it, if [`socket_flags::ACTED`] says so, else nobody in particular.
        task: TaskRef,
        /// Bytes of content sent, those sent again not counted.
        bytes_sent: u64,
        /// Bytes of content received.
        bytes_received: u64,
        /// Packets sent.
        packets_sent: u32,
        /// Packets received.
        packets_received: u32,
        /// Packets sent again.
        retransmits: u32,
        /// Smoothed time of a round trip, microseconds.
        rtt_us: u32,
        /// [`socket_change`]
        change: u32,
        /// Positive error number; zero: none.
        errno: u32,
        /// Before, of [`socket_change::STATE`]: `TCP_*`.
        old: u8,
        /// After.
        new: u8,
        /// Zero.
        reserved: u16,
        /// [`socket_flags`]
        flags: u32,
    }

    /// [`Kind::NewCgroup`]: a cgroup was made.
    NewCgroup, 48 {
        /// Begins every record.
        header: Header,
        /// Its ID.
        id: u64,
        /// `task_flags::CGROUP_V1`, if it is of version 1.
        flags: u32,
        /// Zero.
        reserved: u32,
        /// Path of the cgroup.
        path: Span,
    }
}

impl FileInfo {
    /// No file.
    pub const NONE: Self = Self {
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
}

/// Flags of a [`Span`].
pub mod span_flags {
    /// Bytes are missing: at the front of a path, at the end of anything else.
    pub const TRUNCATED: u32 = 1;
    /// The memory could not be read.
    pub const FAULT: u32 = 2;
    /// A path that does not lead to the root of the process's mount namespace: the mount was detached, or
    /// never attached.
    pub const UNREACHABLE: u32 = 4;
}

/// Flags of a [`FileInfo`].
pub mod file_flags {
    /// The name it was reached by is gone, though others may lead to it.
    pub const UNLINKED: u32 = 1;
}

/// Flags of a [`TaskInfo`].
pub mod task_flags {
    /// A kernel thread.
    pub const KERNEL_THREAD: u32 = 1;
    /// `no_new_privs` is set.
    pub const NO_NEW_PRIVS: u32 = 2;
    /// The cgroup is of a version 1 hierarchy, which numbers its cgroups by itself.
    pub const CGROUP_V1: u32 = 4;
    /// The process that reads this: in a [`Snapshot`](super::Snapshot) only.
    pub const READER: u32 = 8;
    /// It has more than one thread.
    pub const THREADS: u32 = 16;
}

/// Facts of a [`FileOpen`].
pub mod open_facts {
    /// The call made the file.
    pub const CREATED: u32 = 1;
    /// It can read.
    pub const READ: u32 = 2;
    /// It can write.
    pub const WRITE: u32 = 4;
    /// It is a handle on the name alone (`O_PATH`).
    pub const PATH: u32 = 8;
    /// It was closed.
    pub const CLOSED: u32 = 16;
    /// All opens are wanted, this one perhaps for no other reason.
    pub const ALL: u32 = 32;
}

/// What a [`SocketCall`] tells of.
pub mod socket_act {
    /// A connection is about to be made: what comes of it is a [`SocketState`](super::SocketState).
    pub const CONNECT: u32 = 1;
    /// It waits for connections: told when its state changes, at which it may have no port yet and may still be
    /// refused, and once more, with `call`, when the system call returns.
    pub const LISTEN: u32 = 2;
    /// A connection was taken from a listener.
    pub const ACCEPT: u32 = 3;
    /// It has a local address now, or was refused one.
    pub const BIND: u32 = 4;
    /// It was made.
    pub const SOCKET: u32 = 5;
    /// `connect` came back with an error: one that a change of state tells of too, or not.
    pub const CONNECT_FAILED: u32 = 6;
    /// A datagram went to an address that this socket of this process sent nothing to before.
    pub const DATAGRAM: u32 = 7;
    /// It is connected to a unix socket.
    pub const UNIX_CONNECT: u32 = 8;
}

/// How a [`SocketCall`] came about where that is no system call that is seen.
pub mod socket_call {
    /// Not known.
    pub const UNKNOWN: u32 = u32::MAX;
    /// `io_uring`
    pub const IO_URING: u32 = u32::MAX - 1;
}

/// What a [`SocketState`] tells of.
pub mod socket_change {
    /// It went from one state to another.
    pub const STATE: u32 = 1;
    /// A datagram came from an address that this socket received nothing from before.
    pub const DATAGRAM: u32 = 2;
    /// Nobody has it open any more: of sockets that send datagrams.
    pub const RELEASED: u32 = 3;
    /// A process is about to connect it, to the remote address that the kernel was given.
    pub const ATTEMPT: u32 = 4;
    /// It was there before the agent; `new` is its state, `task` has it open.
    pub const SNAPSHOT: u32 = 5;
}

/// Flags of a [`SocketCall`] or [`SocketState`].
pub mod socket_flags {
    /// It was done by the process that ran.
    pub const ACTED: u32 = 1;
    /// The remote address is what the process gave, read from its memory.
    pub const USER_MEMORY: u32 = 2;
    /// The other side said that it sends no more.
    pub const REMOTE_ENDED: u32 = 4;
    /// There was no room to count the flow that begins so.
    pub const UNCOUNTED: u32 = 8;
}

/// What an [`Operand`] is.
pub mod operand {
    /// Not there.
    pub const NONE: u32 = 0;
    /// An open file.
    pub const FILE: u32 = 1;
    /// A name, from a directory.
    pub const NAME: u32 = 2;
}

/// What tried an exec or made a change of credentials.
pub mod call {
    /// Not seen: the change was found in passing, at an exec, a fork or an exit.
    pub const UNKNOWN: u32 = 0;
    /// `execve`
    pub const EXECVE: u32 = 1;
    /// `execveat`
    pub const EXECVEAT: u32 = 2;
    /// An exec of either kind that succeeded.
    pub const EXEC: u32 = 3;
    /// `clone` or a relative: the child was born with other credentials than its parent has.
    pub const CLONE: u32 = 4;
    /// Added to the machine's own number of any other system call.
    pub const SYSCALL: u32 = 1 << 16;
}
