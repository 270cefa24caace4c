//! Memory for what system calls are told, below 4 GiB, so that the 32-bit entry can be told the same addresses.

use std::{io, ptr};

use anyhow::{Result, ensure};

/// Where arguments of one call are kept.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    used: usize,
}

const SIZE: usize = 1 << 18;
#[cfg(target_arch = "x86_64")]
const LOW: i32 = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const LOW: i32 = 0;

// === impl Memory ===

impl Memory {
    pub fn new() -> Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS | libc::MAP_PRIVATE);
        // SAFETY: a new mapping touches nothing that is there.
        let place = unsafe { libc::mmap(ptr::null_mut(), SIZE, access, flags | LOW, -1, 0) };
        ensure!(
            place != libc::MAP_FAILED,
            "cannot map {SIZE} bytes below 4 GiB: {}",
            io::Error::last_os_error()
        );
        Ok(Self { base: place.cast(), used: 0 })
    }

    /// Keeps some bytes until [`Self::clear`]; gives their address, a multiple of 8.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<usize> {
        let start = self.used.next_multiple_of(8);
        ensure!(start + bytes.len() <= SIZE, "more than {SIZE} bytes of arguments; send fewer at once");
        // SAFETY: the mapping has room for them after `start`, and nothing else is there.
        let place = unsafe {
            let place = self.base.add(start);
            ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            place
        };
        self.used = start + bytes.len();
        Ok(place.addr())
    }

    /// Forgets what was kept.
    pub fn clear(&mut self) {
        self.used = 0;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and whoever was told an address of it has come back.
        unsafe { libc::munmap(self.base.cast(), SIZE) };
    }
}
