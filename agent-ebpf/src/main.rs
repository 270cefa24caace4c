//! The kernel programs of Nightjar.
//!
//! One file a sensor family; what they share is beside them: reading kernel structures ([`kernel`]),
//! building and sending records ([`send`]), paths ([`path`]) and what is said of every process
//! ([`task`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(unsafe_code, reason = "a kernel program is all raw memory; the verifier proves what unsafe asserts")]
#![cfg_attr(not(target_arch = "bpf"), allow(unused, reason = "built for the kernel only"))]

mod cgroup;
mod credentials;
mod exec_failed;
mod globals;
mod kernel;
mod path;
mod probe;
mod process;
mod send;
mod snapshot;
mod syscall;
mod task;
mod times;

/// The kernel refuses most helpers to programs that are not under a licence compatible with its own.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: nothing here panics, and a program that could would end in a loop that the verifier
/// refuses.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
