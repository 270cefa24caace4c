//! System calls by the entry for 32-bit programs, which a 64-bit process may use as well.
//!
//! Whoever takes the number of such a call for one of the native table sees another call: 5 is `open` here and
//! `fstat` there. <https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/entry_64_compat.S>

use std::arch::asm;

/// Makes a call of the 32-bit table; gives what the kernel left in `eax`.
///
/// # Safety
/// As the call asks for, of arguments that are cut to 32 bits.
pub unsafe fn call(number: u16, arguments: [usize; 6]) -> i32 {
    let mut registers = [0_u64; 6];
    for (register, argument) in registers.iter_mut().zip(arguments) {
        *register = argument as u64 & u64::from(u32::MAX);
    }
    let mut number = u64::from(number);
    // SAFETY: rbx and rbp, which the compiler keeps for itself, are given back as they were; of the others all are
    // told that change. Kernels before 4.17 do not keep r8 to r11.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbx, [r12]",
            "mov rcx, [r12 + 8]",
            "mov rdx, [r12 + 16]",
            "mov rsi, [r12 + 24]",
            "mov rdi, [r12 + 32]",
            "mov rbp, [r12 + 40]",
            "int 0x80",
            "pop rbp",
            "pop rbx",
            in("r12") registers.as_ptr(),
            inout("rax") number,
            out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    #[expect(clippy::cast_possible_truncation, reason = "a 32-bit call leaves 32 bits")]
    let result = number as u32;
    result.cast_signed()
}

/// Whether the kernel has this entry; without it the trap is a `SIGSEGV`, so it is tried in a child,
/// whose one more fork and exit are not told.
pub fn is_there() -> bool {
    // SAFETY: the child makes one call without pointers and ends; nothing of it needs other threads.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: `getpid` takes nothing; `_exit` ends the child.
        unsafe {
            let pid = call(20, [0; 6]);
            libc::_exit(i32::from(pid != libc::getpid()));
        }
    }
    let mut status = 0;
    // SAFETY: a live number.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    waited == child && status == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_arguments_arrive() {
        if !is_there() {
            return;
        }
        let file = rustix::fs::memfd_create("six", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file).unsigned_abs() as usize;
        // fallocate(fd, mode, offset, its high half, length, its high half).
        // SAFETY: no pointers.
        assert_eq!(unsafe { call(324, [descriptor, 0, 4096, 1, 8192, 0]) }, 0);
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, (1 << 32) + 4096 + 8192);
    }
}
