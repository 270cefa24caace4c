//! What is told to the kernel programs about sockets, and asked of them.

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use nightjar_abi::network::{Flow, FlowKey, NetworkSettings, UNIX_PATH_MAX, UnixName};

use super::load::KernelError;

/// Numbers that a [`FlowKey`] consists of.
const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();

/// The agent's end of the maps that are about sockets.
pub struct NetworkControls {
    settings: Array<MapData, [u64; NetworkSettings::WORDS]>,
    names: HashMap<MapData, UnixName, u64>,
    flows: HashMap<MapData, [u64; KEY_WORDS], [u64; 2]>,
    now: NetworkSettings,
}

pub(super) fn network_controls(ebpf: &mut Ebpf) -> Result<NetworkControls, KernelError> {
    fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError> {
        let map = ebpf.take_map(name).ok_or(KernelError::Object(name))?;
        T::try_from(map).map_err(|error| KernelError::Map(name, error))
    }
    Ok(NetworkControls {
        settings: map(ebpf, "NETWORK_SETTINGS")?,
        names: map(ebpf, "UNIX_NAMES")?,
        flows: map(ebpf, "FLOWS")?,
        now: NetworkSettings::default(),
    })
}

impl NetworkControls {
    pub(super) fn bind_by_call(&mut self, by_call: bool) -> Result<(), MapError> {
        self.now.bind_by_call = u64::from(by_call);
        self.settings.set(0, self.now.to_words(), 0)
    }

    /// Tells which unix sockets are watched: paths, or `@` and an abstract name.
    ///
    /// # Errors
    /// When there are more than there is room for, or the kernel refuses what a running agent may always do.
    pub fn watch_unix<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> Result<(), MapError> {
        let before: Vec<_> = self.names.keys().filter_map(Result::ok).collect();
        let wanted: Vec<_> = names.into_iter().flat_map(unix_names).collect();
        for name in before.iter().filter(|name| !wanted.contains(name)) {
            self.names.remove(name)?;
        }
        for name in &wanted {
            self.names.insert(name, 1, 0)?;
        }
        self.now.unix = u64::from(!wanted.is_empty());
        self.settings.set(0, self.now.to_words(), 0)
    }

    /// What went by in a flow.
    #[must_use]
    pub fn flow(&self, key: &FlowKey) -> Option<Flow> {
        let [packets, bytes] = self.flows.get(&words(key), 0).ok()?;
        Some(Flow { packets, bytes })
    }

    /// Counts a flow no more: its next packet begins another one.
    pub fn forget(&mut self, key: &FlowKey) {
        // Its packet may not have found room.
        let _not_there = self.flows.remove(&words(key));
    }
}

/// A name as the kernel has it, and as it may have it too: what is bound to `/var/run` or `/run` is the same.
fn unix_names(name: &str) -> Vec<UnixName> {
    let other = name.strip_prefix("/run/").map(|rest| format!("/var/run/{rest}"));
    let other = other.or_else(|| name.strip_prefix("/var/run/").map(|rest| format!("/run/{rest}")));
    [Some(name.to_owned()), other].into_iter().flatten().filter_map(|name| unix_name(&name)).collect()
}

fn unix_name(name: &str) -> Option<UnixName> {
    let mut bytes = [0; size_of::<UnixName>()];
    let name = name.as_bytes();
    if name.len() > UNIX_PATH_MAX {
        return None;
    }
    bytes[..name.len()].copy_from_slice(name);
    if bytes[0] == b'@' {
        bytes[0] = 0;
    }
    let mut words = UnixName::default();
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(size_of::<u64>())) {
        *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    }
    Some(words)
}

/// A key as it lies in memory.
fn words(key: &FlowKey) -> [u64; KEY_WORDS] {
    let (low, high) = key.remote.split_at(8);
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    let mut last = [0; 8];
    last[..4].copy_from_slice(&key.sender.to_ne_bytes());
    last[4..6].copy_from_slice(&key.remote_port.to_ne_bytes());
    last[6..].copy_from_slice(&[key.protocol, key.version]);
    [key.socket, word(low), word(high), u64::from_ne_bytes(last)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lies_in_memory_as_the_programs_have_it() {
        let key = FlowKey { socket: 1, remote: [2; 16], sender: 3, remote_port: 4, protocol: 5, version: 6 };
        let last = u64::from_ne_bytes([3, 0, 0, 0, 4, 0, 5, 6]);
        assert_eq!(words(&key), [1, 0x0202_0202_0202_0202, 0x0202_0202_0202_0202, last]);
    }

    #[test]
    fn a_unix_socket_below_run_is_watched_by_both_of_its_names() {
        assert_eq!(unix_names("/run/docker.sock").len(), 2);
        assert_eq!(unix_names("/run/docker.sock")[1], unix_names("/var/run/docker.sock")[0]);
        assert_eq!(unix_names("/tmp/x").len(), 1);
        assert_eq!(unix_names("@x")[0][0], u64::from_ne_bytes([0, b'x', 0, 0, 0, 0, 0, 0]));
        assert!(unix_names(&"x".repeat(109)).is_empty(), "longer than any can be");
    }
}
