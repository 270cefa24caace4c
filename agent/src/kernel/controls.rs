//! What can be changed while the kernel programs run.

use std::io;

use aya::maps::{Array, HashMap, MapData, MapError};
use nightjar_abi::settings::{CgroupKey, Settings};

/// The agent's end of the maps that the programs look into.
pub struct Controls {
    settings: Array<MapData, [u64; Settings::WORDS]>,
    cgroups: HashMap<MapData, [u64; 2], u64>,
}

impl Controls {
    pub(super) fn new(
        settings: Array<MapData, [u64; Settings::WORDS]>,
        cgroups: HashMap<MapData, [u64; 2], u64>,
    ) -> Self {
        Self { settings, cgroups }
    }

    /// Puts other settings in force.
    ///
    /// # Errors
    /// When the kernel refuses what a running agent may always do.
    pub fn set(&mut self, settings: &Settings) -> Result<(), MapError> {
        self.settings.set(0, settings.to_words(), 0)
    }

    /// Leaves nothing out any more, of whatever cgroup.
    ///
    /// # Errors
    /// When the kernel refuses what a running agent may always do.
    pub fn forget(&mut self) -> Result<(), MapError> {
        let keys = self.cgroups.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys {
            match self.cgroups.remove(&key) {
                // One that just had to go.
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Leaves records out of what comes from a cgroup: bits of [`nightjar_abi::settings::leave_out`].
    ///
    /// # Errors
    /// When the kernel refuses what a running agent may always do.
    pub fn leave_out(&mut self, cgroup: &CgroupKey, what: u64) -> Result<(), MapError> {
        let key = [cgroup.id, cgroup.is_v1];
        if what != 0 {
            return self.cgroups.insert(key, what, 0);
        }
        match self.cgroups.remove(&key) {
            // Nothing was left out of it before.
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
