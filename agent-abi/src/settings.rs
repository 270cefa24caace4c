//! What can be changed while the kernel programs run: the agent writes it into maps.

/// Most environment variables that are asked for by name.
pub const ENVIRONMENT_NAMES: usize = 8;

/// Longest value of an environment variable that is taken, with its name and its terminating zero; longer
/// ones are cut.
pub const ENVIRONMENT_VALUE_MAX: usize = 1024;

/// Most bytes of environment variables that are taken from one exec.
pub const ENVIRONMENT_MAX: usize = 4096;

/// Most environment variables (an excessively long one counts as several) that are looked at.
pub const ENVIRONMENT_LOOKS: u32 = 512;

/// The value of the map `SETTINGS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many names there are.
    pub names: u64,
    /// The first eight bytes of `NAME=`, in the machine's order; more is not compared in the kernel. All ones where
    /// there is no name.
    pub heads: [u64; ENVIRONMENT_NAMES],
    /// Which of these eight bytes there are; all ones where there is no name.
    pub masks: [u64; ENVIRONMENT_NAMES],
    /// Whether `FILTERED_CGROUPS` has to be looked at; 0 or 1.
    pub filters_cgroups: u64,
}

/// A key of the map `FILTERED_CGROUPS`; its value says what to leave out of it: [`leave_out`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CgroupKey {
    /// Number of the cgroup.
    pub id: u64,
    /// Whether it is of a version 1 hierarchy; 0 or 1.
    pub is_v1: u64,
}

/// Records that are not made for tasks of a cgroup.
pub mod leave_out {
    /// `process.exec`
    pub const EXEC: u64 = 1;
    /// `process.exec_failed`
    pub const EXEC_FAILED: u64 = 2;
    /// `process.credentials`
    pub const CREDENTIALS: u64 = 4;
    /// `file.*`
    pub const FILES: u64 = 8;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: 0,
            heads: [u64::MAX; ENVIRONMENT_NAMES],
            masks: [u64::MAX; ENVIRONMENT_NAMES],
            filters_cgroups: 0,
        }
    }
}

impl Settings {
    /// Numbers that settings consist of.
    pub const WORDS: usize = 2 + 2 * ENVIRONMENT_NAMES;

    /// Environment variables to take. Of more than [`ENVIRONMENT_NAMES`] only the first are.
    #[must_use]
    pub fn environment<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self = Self { filters_cgroups: self.filters_cgroups, ..Self::default() };
        for ((name, head), mask) in names.into_iter().zip(&mut self.heads).zip(&mut self.masks) {
            let (mut bytes, mut there) = ([0; 8], [0; 8]);
            for ((byte, there), of_name) in bytes.iter_mut().zip(&mut there).zip(name.bytes().chain([b'='])) {
                (*byte, *there) = (of_name, u8::MAX);
            }
            (*head, *mask) = (u64::from_ne_bytes(bytes), u64::from_ne_bytes(there));
            self.names += 1;
        }
        self
    }

    /// The numbers that settings consist of, in the order of the fields.
    #[must_use]
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let fields =
            [&self.names].into_iter().chain(&self.heads).chain(&self.masks).chain([&self.filters_cgroups]);
        for (word, field) in words.iter_mut().zip(fields) {
            *word = *field;
        }
        words
    }
}

const _: () = assert!(size_of::<Settings>() == Settings::WORDS * size_of::<u64>());

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(settings: &Settings, variable: [u8; 8]) -> bool {
        let head = u64::from_ne_bytes(variable);
        (0..ENVIRONMENT_NAMES).any(|n| (head ^ settings.heads[n]) & settings.masks[n] == 0)
    }

    #[test]
    fn variables_are_known_by_their_first_eight_bytes() {
        let settings = Settings::default().environment(["LD_PRELOAD", "A"]);
        assert!(fits(&settings, *b"LD_PRELO"));
        assert!(fits(&settings, *b"A=1\0xxxx") && fits(&settings, *b"A=\0xxxxx"));
        assert!(
            !fits(&settings, *b"AB=1\0xxx")
                && !fits(&settings, *b"LD_PREL\0")
                && !fits(&settings, *b"\0LD_PREL")
        );
        assert!(!fits(&Settings::default(), [0; 8]), "no name fits nothing");
    }

    #[test]
    fn more_names_than_there_is_room_for_are_left_out() {
        let names = [["A"; ENVIRONMENT_NAMES].as_slice(), &["B"]].concat();
        let settings = Settings::default().environment(names);
        assert!(fits(&settings, *b"A=xxxxxx") && !fits(&settings, *b"B=xxxxxx"));
    }
}
