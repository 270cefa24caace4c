//! What the kernel programs and the agent agree on about sockets.

/// A key of the map `FLOWS`: a socket, whoever sends by it, and whom it talks to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Cookie of the socket.
    pub socket: u64,
    /// Address there: of IPv4 in the first four bytes.
    pub remote: [u8; 16],
    /// [`sender`]; zero of what is received.
    pub sender: u32,
    /// Port there; zero where the protocol has none.
    pub remote_port: u16,
    /// `IPPROTO_*`
    pub protocol: u8,
    /// IP version: 4 or 6.
    pub version: u8,
}

/// Who sends, in 32 bits: the process ID, which has 22 at most, and the lowest bits of `task_struct.self_exec_id`, so that
/// another program in the same process is another sender.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/threads.h#L31-L35>
#[must_use]
#[inline(always)]
pub const fn sender(pid: u32, exec_id: u64) -> u32 {
    pid | ((exec_id & 0x3FF) as u32) << 22
}

/// A value of the map `FLOWS`: what went one way since the flow began.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Packets.
    pub packets: u64,
    /// Bytes of content: without the headers of IP and UDP.
    pub bytes: u64,
}

/// Most keys of flows that are counted at once, unless the agent wants another number: one for what is sent and one for
/// what is received.
pub const FLOWS: u32 = 131_072;

/// The value of the map `NETWORK_SETTINGS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Whether names of unix sockets have to be looked for; 0 or 1.
    pub unix: u64,
    /// Whether `bind` is told by the call, as no other hook tells of it; 0 or 1.
    pub bind_by_call: u64,
}

impl NetworkSettings {
    /// Numbers that settings consist of.
    pub const WORDS: usize = 2;

    /// The numbers that settings consist of, in the order of the fields.
    #[must_use]
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        [self.unix, self.bind_by_call]
    }
}

const _: () = assert!(size_of::<NetworkSettings>() == NetworkSettings::WORDS * size_of::<u64>());

/// A key of the map `UNIX_NAMES`: the name of a unix socket, padded with zeros.
pub type UnixName = [u64; 14];

/// Most names of unix sockets that are watched.
pub const UNIX_SOCKETS: u32 = 128;

/// Longest name of a unix socket, in bytes; it fits a [`UnixName`].
pub const UNIX_PATH_MAX: usize = 108;
