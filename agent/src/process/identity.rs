//! 64-bit names of processes.

use std::{fs, hash::Hasher, io};

use nightjar_abi::record::TaskRef;
use siphasher::sip::SipHasher24;

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Folds what identifies a process to 64 bits.
///
/// The fold is SipHash-2-4 with the boot ID as its key (its 16 bytes, as two little-endian numbers) over
/// little-endian numbers: process ID (4 bytes), start time in nanoseconds since boot (8 bytes), and for a
/// program image `self_exec_id` (8 bytes).
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    key: (u64, u64),
}

impl Identity {
    /// For the running boot.
    ///
    /// # Errors
    /// When `/proc` does not tell which boot this is.
    pub fn of_this_boot() -> io::Result<Self> {
        let text = fs::read_to_string(BOOT_ID)?;
        Self::of_boot(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{BOOT_ID} holds no UUID: {text:?}"))
        })
    }

    /// For the boot with this ID, a UUID in text.
    #[must_use]
    pub fn of_boot(boot_id: &str) -> Option<Self> {
        let digits: String = boot_id.trim().chars().filter(|c| *c != '-').collect();
        let (high, low) = (digits.get(..16)?, digits.get(16..)?);
        let half =
            |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        Some(Self { key: (half(high)?.swap_bytes(), half(low)?.swap_bytes()) })
    }

    /// Name of a process.
    #[must_use]
    pub fn process(&self, task: &TaskRef) -> u64 {
        self.fold(task).finish()
    }

    /// Name of the program image that a process runs.
    #[must_use]
    pub fn image(&self, task: &TaskRef) -> u64 {
        let mut fold = self.fold(task);
        fold.write(&task.exec_id.to_le_bytes());
        fold.finish()
    }

    /// Name of a connection: of the socket that the kernel calls so, since `time` in nanoseconds since boot. Never
    /// zero.
    #[must_use]
    pub fn socket(&self, socket: u64, time: u64) -> u64 {
        let mut fold = SipHasher24::new_with_keys(self.key.0, self.key.1);
        fold.write(&socket.to_le_bytes());
        fold.write(&time.to_le_bytes());
        fold.finish().max(1)
    }

    fn fold(&self, task: &TaskRef) -> SipHasher24 {
        let mut fold = SipHasher24::new_with_keys(self.key.0, self.key.1);
        fold.write(&task.pid.to_le_bytes());
        fold.write(&task.start.to_le_bytes());
        fold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskRef = TaskRef { pid: 4242, tid: 4243, start: 123_456_789_012, exec_id: 3 };

    fn boot() -> Identity {
        Identity::of_boot("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n").unwrap()
    }

    #[test]
    fn names_do_not_change_between_versions_of_the_agent() {
        // Computed by an independent implementation: a change here breaks everything that ever stored a name.
        assert_eq!(format!("{:016x}", boot().process(&TASK)), "828674925c734744");
        assert_eq!(format!("{:016x}", boot().image(&TASK)), "b662b3bb193fc736");
    }

    #[test]
    fn threads_of_a_process_have_its_name() {
        let other = TaskRef { tid: 1, ..TASK };
        assert_eq!(boot().process(&TASK), boot().process(&other));
        assert_eq!(boot().image(&TASK), boot().image(&other));
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_process() {
        let later = TaskRef { start: TASK.start + 1, ..TASK };
        assert_ne!(boot().process(&TASK), boot().process(&later));
    }

    #[test]
    fn an_exec_changes_the_image_and_not_the_process() {
        let after = TaskRef { exec_id: TASK.exec_id + 1, ..TASK };
        assert_eq!(boot().process(&TASK), boot().process(&after));
        assert_ne!(boot().image(&TASK), boot().image(&after));
    }

    #[test]
    fn another_boot_gives_other_names() {
        let other = Identity::of_boot("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f1").unwrap();
        assert_ne!(boot().process(&TASK), other.process(&TASK));
    }

    #[test]
    fn text_that_is_no_uuid_is_refused() {
        for text in
            ["", "0f1e2d3c", "zz1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0ff"]
        {
            assert!(Identity::of_boot(text).is_none(), "{text:?}");
        }
    }
}
