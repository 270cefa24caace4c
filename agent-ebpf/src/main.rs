//! The kernel programs of Nightjar.
//!
//! One file a sensor family; what they share is beside them: reading kernel structures ([`kernel`]),
//! building and sending records ([`send`], [`tail`]), what the agent asks for ([`settings`]), which files are
//! watched ([`watch`]), paths ([`path`]) and what is said of every process ([`task`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(unsafe_code, reason = "a kernel program is all raw memory; the verifier proves what unsafe asserts")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_ptr_alignment,
    clippy::cast_sign_loss,
    reason = "addresses and lengths are 64-bit registers here; lengths are bounded before they are cut"
)]
#![allow(
    clippy::inline_always,
    reason = "a call costs the verifier a frame and its knowledge of the arguments"
)]
#![allow(clippy::needless_pass_by_value, reason = "the macros of aya hand contexts over by value")]
#![allow(clippy::wildcard_imports, reason = "rows of the kernel-field table have prefixes of their own")]
#![cfg_attr(not(target_arch = "bpf"), allow(unused, reason = "built for the kernel only"))]

mod cgroup;
mod credentials;
mod datagram;
mod exec_failed;
mod file_call;
mod file_open;
mod globals;
mod kernel;
mod path;
mod probe;
mod process;
mod send;
mod settings;
mod snapshot;
mod socket;
mod socket_call;
mod socket_hooks;
mod socket_state;
mod syscall;
mod tail;
mod task;
mod times;
mod watch;

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
