//! The kernel-field table: every field of a kernel structure that Nightjar reads.
//!
//! Rust emits no CO-RE relocations, so offsets are looked up in the running kernel's BTF when the
//! agent starts, by the names in this table, and handed to the kernel programs as one frozen array.
//! The verifier folds a frozen value to a constant: a read costs what a compiled-in offset costs, and
//! code behind a missing field is dead code.
//!
//! A row is `NAME: Struct => Type = ["spelling", "older spelling"], required|optional;`. A spelling is
//! one of
//!
//! * `structure.member.member`: the byte offset of a member; anonymous structures and unions are
//!   looked through, members that are pointers are not followed;
//! * `sizeof(structure)`: its size in bytes;
//! * `enum(name.ENUMERATOR)`: the value of an enumerator;
//! * `args(typedef)`: how many parameters a function pointer typedef takes.

use core::marker::PhantomData;

/// Offset of a field that the running kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// A field of kernel structure `S` that holds a `T`.
pub struct Field<S, T> {
    row: usize,
    types: PhantomData<fn(S) -> T>,
}

impl<S, T> Field<S, T> {
    const fn new(row: Row) -> Self {
        Self { row: row as usize, types: PhantomData }
    }

    /// Index into the frozen array of offsets.
    #[must_use]
    pub const fn row(&self) -> usize {
        self.row
    }
}

impl<S, T> Clone for Field<S, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, T> Copy for Field<S, T> {}

/// A field that is a pointer to an `S`.
#[repr(transparent)]
pub struct To<S>(u64, PhantomData<S>);

/// A structure or an array embedded in another, of which only the place is wanted.
pub struct Embedded<S>(PhantomData<S>);

/// Bytes without further structure.
pub enum Bytes {}

/// A number that is no offset: a size, an enumerator, a count.
pub enum Number {}

/// What BTF must say about a field for a row to fit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An integer, enumeration or structure of this many bytes.
    Scalar(u32),
    /// A pointer.
    Pointer,
    /// Anything: only the place is used.
    Place,
    /// Not a field: `sizeof`, `enum` or `args`.
    Number,
}

/// Gives the [`Shape`] of each type that a row may have.
pub trait HasShape {
    /// Shape of a field of this type.
    const SHAPE: Shape;
}

macro_rules! scalar_shapes {
    ($($type:ty),*) => { $(impl HasShape for $type {
        #[expect(clippy::cast_possible_truncation, reason = "no scalar is longer than 8 bytes")]
        const SHAPE: Shape = Shape::Scalar(size_of::<$type>() as u32);
    })* };
}
scalar_shapes!(u8, u16, u32, i32, u64);

impl<S> HasShape for To<S> {
    const SHAPE: Shape = Shape::Pointer;
}
impl<S> HasShape for Embedded<S> {
    const SHAPE: Shape = Shape::Place;
}
impl HasShape for Number {
    const SHAPE: Shape = Shape::Number;
}

/// One row of the table, as the resolver needs it.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    /// Name of the row, for messages.
    pub name: &'static str,
    /// Spellings, the newest kernel's first; the first that resolves is taken.
    pub spellings: &'static [&'static str],
    /// What BTF must say about it.
    pub shape: Shape,
    /// Whether the agent can work without it.
    pub required: bool,
}

macro_rules! kernel_fields {
    ($($(#[$doc:meta])* $name:ident: $structure:ty => $type:ty = [$first:literal $(, $older:literal)*], $need:ident;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms,
                reason = "rows are named like the constants made from them")]
        #[derive(Clone, Copy)]
        enum Row { $($name,)* }

        $(
            #[doc = concat!("`", $first, "`")]
            ///
            $(#[$doc])*
            pub const $name: Field<$structure, $type> = Field::new(Row::$name);
        )*

        /// The table, in the order of [`Field::row`].
        pub const TABLE: &[FieldSpec] = &[$(FieldSpec {
            name: stringify!($name),
            spellings: &[$first $(, $older)*],
            shape: <$type as HasShape>::SHAPE,
            required: kernel_fields!(@$need),
        },)*];

        /// Number of rows.
        pub const COUNT: usize = TABLE.len();
    };
    (@required) => { true };
    (@optional) => { false };
}

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $($(#[$doc])* pub enum $name {})* };
}

structures! {
    /// `struct task_struct`
    Task,
    /// `struct linux_binprm`
    Binprm,
    /// `struct signal_struct`
    Signal,
    /// `struct cred`
    Cred,
    /// `struct user_namespace`
    UserNs,
    /// `struct nsproxy`
    NsProxy,
    /// Any `struct *_namespace` (or `struct net`) found in `nsproxy`.
    AnyNs,
    /// `struct pid`
    Pid,
    /// `struct upid`
    Upid,
    /// `struct tty_struct`
    Tty,
    /// `struct mm_struct`
    Mm,
    /// `struct files_struct`
    Files,
    /// `struct fdtable`
    FdTable,
    /// `struct file`
    File,
    /// `struct inode`
    Inode,
    /// `struct super_block`
    SuperBlock,
    /// `struct dentry`
    Dentry,
    /// `struct vfsmount`
    VfsMount,
    /// `struct mount`
    Mount,
    /// `struct fs_struct`
    FsStruct,
    /// `struct css_set`
    CssSet,
    /// `struct cgroup_subsys_state`
    Css,
    /// `struct cgroup`
    Cgroup,
    /// `struct kernfs_node`
    KernfsNode,
    /// `struct pt_regs`
    Registers,
    /// `struct sock`, which `struct sock_common` begins.
    Sock,
    /// `struct tcp_sock`
    TcpSock,
    /// `struct socket`
    Socket,
    /// `struct unix_sock`, which a [`Sock`] of that family is the beginning of.
    UnixSock,
    /// `struct unix_address`
    UnixAddress,
    /// `struct dst_entry`
    Route,
    /// `struct net_device`
    NetDevice,
    /// `struct sk_buff`
    Packet,
    /// `struct io_kiocb`
    UringRequest,
}

kernel_fields! {
    TASK_PID: Task => u32 = ["task_struct.pid"], required;
    TASK_TGID: Task => u32 = ["task_struct.tgid"], required;
    TASK_FLAGS: Task => u32 = ["task_struct.flags"], required;
    TASK_COMM: Task => Embedded<Bytes> = ["task_struct.comm"], required;
    TASK_START: Task => u64 = ["task_struct.start_boottime", "task_struct.real_start_time"], required;
    TASK_EXEC_ID: Task => u64 = ["task_struct.self_exec_id"], required;
    TASK_EXIT_CODE: Task => u32 = ["task_struct.exit_code"], required;
    TASK_REAL_PARENT: Task => To<Task> = ["task_struct.real_parent"], required;
    TASK_GROUP_LEADER: Task => To<Task> = ["task_struct.group_leader"], required;
    TASK_SIGNAL: Task => To<Signal> = ["task_struct.signal"], required;
    TASK_CRED: Task => To<Cred> = ["task_struct.cred"], required;
    TASK_MM: Task => To<Mm> = ["task_struct.mm"], required;
    TASK_FS: Task => To<FsStruct> = ["task_struct.fs"], required;
    TASK_FILES: Task => To<Files> = ["task_struct.files"], required;
    TASK_NSPROXY: Task => To<NsProxy> = ["task_struct.nsproxy"], required;
    TASK_CGROUPS: Task => To<CssSet> = ["task_struct.cgroups"], optional;
    TASK_THREAD_PID: Task => To<Pid> = ["task_struct.thread_pid"], required;
    TASK_STACK: Task => To<Bytes> = ["task_struct.stack"], required;
    /// Bit 0 is `PFA_NO_NEW_PRIVS`.
    TASK_ATOMIC_FLAGS: Task => u64 = ["task_struct.atomic_flags"], required;
    TASK_UTIME: Task => u64 = ["task_struct.utime"], required;
    TASK_STIME: Task => u64 = ["task_struct.stime"], required;
    TASK_RUNTIME: Task => u64 = ["task_struct.se.sum_exec_runtime"], required;
    /// Absent without `CONFIG_AUDIT`.
    TASK_LOGINUID: Task => u32 = ["task_struct.loginuid"], optional;
    TASK_SESSIONID: Task => u32 = ["task_struct.sessionid"], optional;

    SIGNAL_THREADS: Signal => u32 = ["signal_struct.nr_threads"], required;
    SIGNAL_LIVE: Signal => u32 = ["signal_struct.live"], required;
    SIGNAL_FLAGS: Signal => u32 = ["signal_struct.flags"], required;
    SIGNAL_GROUP_EXIT_CODE: Signal => u32 = ["signal_struct.group_exit_code"], required;
    SIGNAL_TTY: Signal => To<Tty> = ["signal_struct.tty"], required;
    SIGNAL_UTIME: Signal => u64 = ["signal_struct.utime"], required;
    SIGNAL_STIME: Signal => u64 = ["signal_struct.stime"], required;
    SIGNAL_RUNTIME: Signal => u64 = ["signal_struct.sum_sched_runtime"], required;
    /// Pages.
    SIGNAL_MAXRSS: Signal => u64 = ["signal_struct.maxrss"], required;

    TTY_NAME: Tty => Embedded<Bytes> = ["tty_struct.name"], required;

    CRED_UID: Cred => u32 = ["cred.uid"], required;
    CRED_GID: Cred => u32 = ["cred.gid"], required;
    CRED_SUID: Cred => u32 = ["cred.suid"], required;
    CRED_SGID: Cred => u32 = ["cred.sgid"], required;
    CRED_EUID: Cred => u32 = ["cred.euid"], required;
    CRED_EGID: Cred => u32 = ["cred.egid"], required;
    CRED_FSUID: Cred => u32 = ["cred.fsuid"], required;
    CRED_FSGID: Cred => u32 = ["cred.fsgid"], required;
    CRED_SECUREBITS: Cred => u32 = ["cred.securebits"], required;
    /// A `kernel_cap_t`: one 64-bit number since 6.3, two 32-bit numbers before, the same bytes on
    /// little-endian machines.
    CRED_INHERITABLE: Cred => u64 = ["cred.cap_inheritable"], required;
    CRED_PERMITTED: Cred => u64 = ["cred.cap_permitted"], required;
    CRED_EFFECTIVE: Cred => u64 = ["cred.cap_effective"], required;
    CRED_BOUNDING: Cred => u64 = ["cred.cap_bset"], required;
    CRED_AMBIENT: Cred => u64 = ["cred.cap_ambient"], required;
    CRED_USER_NS: Cred => To<UserNs> = ["cred.user_ns"], required;
    USER_NS_INUM: UserNs => u32 = ["user_namespace.ns.inum"], required;

    NSPROXY_UTS: NsProxy => To<AnyNs> = ["nsproxy.uts_ns"], required;
    NSPROXY_IPC: NsProxy => To<AnyNs> = ["nsproxy.ipc_ns"], required;
    NSPROXY_MNT: NsProxy => To<AnyNs> = ["nsproxy.mnt_ns"], required;
    NSPROXY_PID_FOR_CHILDREN: NsProxy => To<AnyNs> = ["nsproxy.pid_ns_for_children"], required;
    NSPROXY_NET: NsProxy => To<AnyNs> = ["nsproxy.net_ns"], required;
    NSPROXY_TIME: NsProxy => To<AnyNs> = ["nsproxy.time_ns"], optional;
    NSPROXY_CGROUP: NsProxy => To<AnyNs> = ["nsproxy.cgroup_ns"], required;
    UTS_INUM: AnyNs => u32 = ["uts_namespace.ns.inum"], required;
    IPC_INUM: AnyNs => u32 = ["ipc_namespace.ns.inum"], required;
    MNT_INUM: AnyNs => u32 = ["mnt_namespace.ns.inum"], required;
    PID_INUM: AnyNs => u32 = ["pid_namespace.ns.inum"], required;
    NET_INUM: AnyNs => u32 = ["net.ns.inum"], required;
    TIME_INUM: AnyNs => u32 = ["time_namespace.ns.inum"], optional;
    CGROUP_INUM: AnyNs => u32 = ["cgroup_namespace.ns.inum"], required;

    PID_LEVEL: Pid => u32 = ["pid.level"], required;
    PID_NUMBERS: Pid => Embedded<Upid> = ["pid.numbers"], required;
    UPID_SIZE: () => Number = ["sizeof(upid)"], required;
    UPID_NR: Upid => u32 = ["upid.nr"], required;
    UPID_NS: Upid => To<AnyNs> = ["upid.ns"], required;

    BINPRM_FILE: Binprm => To<File> = ["linux_binprm.file"], required;
    BINPRM_ARGC: Binprm => u32 = ["linux_binprm.argc"], required;
    BINPRM_FILENAME: Binprm => To<Bytes> = ["linux_binprm.filename"], required;
    BINPRM_INTERP: Binprm => To<Bytes> = ["linux_binprm.interp"], required;

    MM_ARG_START: Mm => u64 = ["mm_struct.arg_start"], required;
    MM_ARG_END: Mm => u64 = ["mm_struct.arg_end"], required;
    MM_ENV_START: Mm => u64 = ["mm_struct.env_start"], required;
    MM_ENV_END: Mm => u64 = ["mm_struct.env_end"], required;
    MM_EXE_FILE: Mm => To<File> = ["mm_struct.exe_file"], required;

    FILES_TABLE: Files => To<FdTable> = ["files_struct.fdt"], required;
    FDTABLE_FILES: FdTable => To<To<File>> = ["fdtable.fd"], required;
    FDTABLE_MAX: FdTable => u32 = ["fdtable.max_fds"], required;

    FILE_MODE: File => u32 = ["file.f_mode"], required;
    FILE_FLAGS: File => u32 = ["file.f_flags"], required;
    FILE_DENTRY: File => To<Dentry> = ["file.f_path.dentry"], required;
    FILE_MNT: File => To<VfsMount> = ["file.f_path.mnt"], required;
    FILE_INODE: File => To<Inode> = ["file.f_inode"], required;
    /// Of a socket's file; of other files it is something else.
    FILE_SOCKET: File => To<Socket> = ["file.private_data"], required;

    INODE_MODE: Inode => u16 = ["inode.i_mode"], required;
    INODE_UID: Inode => u32 = ["inode.i_uid"], required;
    INODE_GID: Inode => u32 = ["inode.i_gid"], required;
    INODE_NUMBER: Inode => u64 = ["inode.i_ino"], required;
    INODE_NLINK: Inode => u32 = ["inode.i_nlink"], required;
    INODE_SIZE: Inode => u64 = ["inode.i_size"], required;
    INODE_SB: Inode => To<SuperBlock> = ["inode.i_sb"], required;
    SB_DEV: SuperBlock => u32 = ["super_block.s_dev"], required;
    SB_MAGIC: SuperBlock => u64 = ["super_block.s_magic"], required;

    /// Null in a dentry that no name leads to any more (`d_unhashed`).
    DENTRY_HASHED: Dentry => To<Bytes> = ["dentry.d_hash.pprev"], required;
    DENTRY_INODE: Dentry => To<Inode> = ["dentry.d_inode"], required;
    DENTRY_PARENT: Dentry => To<Dentry> = ["dentry.d_parent"], required;
    DENTRY_NAME: Dentry => To<Bytes> = ["dentry.d_name.name"], required;
    DENTRY_NAME_LEN: Dentry => u32 = ["dentry.d_name.len"], required;
    /// The hash of the name below its length.
    DENTRY_NAME_HASH: Dentry => u64 = ["dentry.d_name.hash_len"], required;

    VFSMOUNT_ROOT: VfsMount => To<Dentry> = ["vfsmount.mnt_root"], required;
    VFSMOUNT_FLAGS: VfsMount => u32 = ["vfsmount.mnt_flags"], required;
    MOUNT_VFSMOUNT: Mount => Embedded<VfsMount> = ["mount.mnt"], required;
    MOUNT_PARENT: Mount => To<Mount> = ["mount.mnt_parent"], required;
    MNT_NS_ROOT: AnyNs => To<Mount> = ["mnt_namespace.root"], required;
    MOUNT_MOUNTPOINT: Mount => To<Dentry> = ["mount.mnt_mountpoint"], required;

    FS_PWD_DENTRY: FsStruct => To<Dentry> = ["fs_struct.pwd.dentry"], required;
    FS_PWD_MNT: FsStruct => To<VfsMount> = ["fs_struct.pwd.mnt"], required;
    FS_ROOT_DENTRY: FsStruct => To<Dentry> = ["fs_struct.root.dentry"], required;
    FS_ROOT_MNT: FsStruct => To<VfsMount> = ["fs_struct.root.mnt"], required;

    CSS_SET_DEFAULT: CssSet => To<Cgroup> = ["css_set.dfl_cgrp"], optional;
    CSS_SET_SUBSYS: CssSet => Embedded<To<Css>> = ["css_set.subsys"], optional;
    /// Indices of controllers in `css_set.subsys`; the first that is not on the default hierarchy stands for
    /// those of version 1.
    SUBSYS_MEMORY: () => Number = ["enum(cgroup_subsys_id.memory_cgrp_id)"], optional;
    SUBSYS_PIDS: () => Number = ["enum(cgroup_subsys_id.pids_cgrp_id)"], optional;
    SUBSYS_CPU: () => Number = ["enum(cgroup_subsys_id.cpu_cgrp_id)"], optional;
    CSS_CGROUP: Css => To<Cgroup> = ["cgroup_subsys_state.cgroup"], optional;
    CGROUP_KERNFS: Cgroup => To<KernfsNode> = ["cgroup.kn"], optional;
    CGROUP_ROOT: Cgroup => To<Bytes> = ["cgroup.root"], optional;
    KERNFS_PARENT: KernfsNode => To<KernfsNode> = ["kernfs_node.__parent", "kernfs_node.parent"], optional;
    KERNFS_NAME: KernfsNode => To<Bytes> = ["kernfs_node.name"], optional;
    KERNFS_ID: KernfsNode => u64 = ["kernfs_node.id"], optional;

    REGISTERS_SIZE: () => Number = ["sizeof(pt_regs)"], required;
    REGISTERS_ARG1: Registers => u64 = ["pt_regs.di"], required;
    REGISTERS_ARG2: Registers => u64 = ["pt_regs.si"], required;
    REGISTERS_ARG3: Registers => u64 = ["pt_regs.dx"], required;
    REGISTERS_ARG4: Registers => u64 = ["pt_regs.r10"], required;
    REGISTERS_ARG5: Registers => u64 = ["pt_regs.r8"], required;
    REGISTERS_ARG6: Registers => u64 = ["pt_regs.r9"], required;

    SOCKET_FILE: Socket => To<File> = ["socket.file"], required;
    SOCKET_SOCK: Socket => To<Sock> = ["socket.sk"], required;
    SOCK_FAMILY: Sock => u16 = ["sock.__sk_common.skc_family"], required;
    SOCK_STATE: Sock => u8 = ["sock.__sk_common.skc_state"], required;
    SOCK_BOUND_INTERFACE: Sock => u32 = ["sock.__sk_common.skc_bound_dev_if"], required;
    SOCK_NET: Sock => To<AnyNs> = ["sock.__sk_common.skc_net.net"], required;
    /// Addresses and the remote port in the order of the network, the local port in that of the machine.
    SOCK_REMOTE: Sock => u32 = ["sock.__sk_common.skc_daddr"], required;
    SOCK_LOCAL: Sock => u32 = ["sock.__sk_common.skc_rcv_saddr"], required;
    SOCK_REMOTE_PORT: Sock => u16 = ["sock.__sk_common.skc_dport"], required;
    SOCK_LOCAL_PORT: Sock => u16 = ["sock.__sk_common.skc_num"], required;
    /// Absent without `CONFIG_IPV6`.
    SOCK_REMOTE6: Sock => Embedded<Bytes> = ["sock.__sk_common.skc_v6_daddr"], optional;
    SOCK_LOCAL6: Sock => Embedded<Bytes> = ["sock.__sk_common.skc_v6_rcv_saddr"], optional;
    /// Zero until somebody asked for it.
    SOCK_COOKIE: Sock => u64 = ["sock.__sk_common.skc_cookie"], required;
    SOCK_ERROR: Sock => u32 = ["sock.sk_err"], required;
    SOCK_PROTOCOL: Sock => u16 = ["sock.sk_protocol"], required;
    SOCK_TYPE: Sock => u16 = ["sock.sk_type"], required;
    SOCK_BACKLOG: Sock => u32 = ["sock.sk_max_ack_backlog"], required;
    SOCK_ROUTE: Sock => To<Route> = ["sock.sk_dst_cache"], required;
    /// Bit 1 is `SOCK_DONE`.
    SOCK_FLAGS: Sock => u64 = ["sock.__sk_common.skc_flags"], required;
    SOCK_SOCKET: Sock => To<Socket> = ["sock.sk_socket"], required;
    /// Stays when the port is given back; in the order of the network.
    INET_LOCAL_PORT: Sock => u16 = ["inet_sock.inet_sport"], required;
    PACKET_DEVICE: Packet => To<NetDevice> = ["sk_buff.dev"], required;
    ROUTE_DEVICE: Route => To<NetDevice> = ["dst_entry.dev", "dst_entry.dev_rcu"], required;
    DEVICE_INDEX: NetDevice => u32 = ["net_device.ifindex"], required;
    DEVICE_NAME: NetDevice => Embedded<Bytes> = ["net_device.name"], required;

    TCP_BYTES_SENT: TcpSock => u64 = ["tcp_sock.bytes_sent"], required;
    TCP_BYTES_RETRANSMITTED: TcpSock => u64 = ["tcp_sock.bytes_retrans"], required;
    TCP_BYTES_RECEIVED: TcpSock => u64 = ["tcp_sock.bytes_received"], required;
    TCP_SEGMENTS_SENT: TcpSock => u32 = ["tcp_sock.segs_out"], required;
    TCP_SEGMENTS_RECEIVED: TcpSock => u32 = ["tcp_sock.segs_in"], required;
    TCP_RETRANSMITS: TcpSock => u32 = ["tcp_sock.total_retrans"], required;
    /// Absent before 5.6 and without `CONFIG_MPTCP`.
    TCP_IS_MPTCP: TcpSock => u8 = ["tcp_sock.is_mptcp"], optional;
    /// Eight times as many microseconds.
    TCP_ROUND_TRIP: TcpSock => u32 = ["tcp_sock.srtt_us"], required;

    UNIX_ADDRESS: UnixSock => To<UnixAddress> = ["unix_sock.addr"], optional;
    UNIX_PEER: UnixSock => To<UnixSock> = ["unix_sock.peer"], optional;
    UNIX_ADDRESS_LEN: UnixAddress => u32 = ["unix_address.len"], optional;
    UNIX_ADDRESS_NAME: UnixAddress => Embedded<Bytes> = ["unix_address.name"], optional;

    URING_OPCODE: UringRequest => u8 = ["io_kiocb.opcode"], optional;
    URING_FILE: UringRequest => To<File> = ["io_kiocb.file"], optional;
    /// Since 5.19; by then the tracepoint of completions has the request, which it had not before 5.18.
    URING_RESULT: UringRequest => u32 = ["io_kiocb.cqe.res"], optional;
    /// Three (context, task, `group_dead`) where the kernel itself says which exit is the last.
    EXIT_ARGS: () => Number = ["args(btf_trace_sched_process_exit)"], required;
}
