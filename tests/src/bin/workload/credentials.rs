//! Changes of users, groups and capabilities.

use std::thread;

use serde_json::json;

use crate::{
    call::{await_input, checked, clone_with, exec, number, syscall, thread_id, wait},
    facts::facts,
};

pub(crate) fn run(name: &str, rest: &[&str]) -> bool {
    match (name, rest) {
        // By the C library, which changes all threads.
        ("setuid", [uid]) => around(|| {
            // SAFETY: no pointers.
            checked("setuid", unsafe { libc::setuid(number(uid)) }.into());
        }),
        ("setuid-with-threads", [uid]) => {
            let sleepers: Vec<_> = (0..2).map(|_| thread::spawn(thread::park)).collect();
            // SAFETY: no pointers.
            checked("setuid", unsafe { libc::setuid(number(uid)) }.into());
            for sleeper in sleepers {
                sleeper.thread().unpark();
                sleeper.join().expect("it slept");
            }
            println!("{}", facts());
        }
        ("setuid-one-thread", [uid]) => {
            let uid: u32 = number(uid);
            let of_thread = thread::spawn(move || {
                syscall!(SYS_setuid, uid);
                thread_id()
            });
            let tid = of_thread.join().expect("the thread changed its user");
            println!("{}", json!({"tid": tid, "leader": facts()}));
        }
        ("setresuid", [real, effective, saved]) => around(|| {
            syscall!(SYS_setresuid, number::<i32>(real), number::<i32>(effective), number::<i32>(saved));
        }),
        ("setgid", [gid]) => around(|| {
            syscall!(SYS_setgid, number::<u32>(gid));
        }),
        ("setfsuid", [uid]) => around(|| {
            syscall!(SYS_setfsuid, number::<u32>(uid));
        }),
        ("capset-without", [capability]) => around(|| drop_capability(number(capability))),
        ("capbset-drop", [capability]) => around(|| prctl(libc::PR_CAPBSET_DROP, number(capability))),
        ("securebits", [bits, program @ ..]) => {
            prctl(libc::PR_SET_SECUREBITS, number(bits));
            go_on(program);
        }
        ("ambient", [capability, program @ ..]) => {
            raise_ambient(number(capability));
            go_on(program);
        }
        ("no-new-privs", program) => {
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
            go_on(program);
        }
        ("unshare-user", []) => around(|| {
            syscall!(SYS_unshare, libc::CLONE_NEWUSER);
        }),
        ("clone-user", []) => {
            let child = clone_with(libc::CLONE_NEWUSER, || {
                println!("{}", facts());
                await_input();
            });
            wait(child);
            println!("{}", json!({"child": child}));
        }
        ("change-nothing", []) => {
            syscall!(SYS_setuid, 0);
            syscall!(SYS_setresuid, -1, -1, -1);
            syscall!(SYS_setfsuid, -1);
            syscall!(SYS_setgid, 0);
            drop_capability(u32::MAX);
            // SAFETY: no pointers.
            checked("prctl", unsafe { libc::prctl(libc::PR_GET_SECUREBITS) }.into());
        }
        ("setuid-32-bit", [uid]) => {
            let result = setuid_32_bit(number(uid));
            assert_eq!(result, 0, "setuid by int 0x80");
            println!("{}", json!({"uid": syscall!(SYS_getuid)}));
        }
        ("setuid-32-bit-and-ask", [uid]) => {
            assert_eq!(setuid_32_bit(number(uid)), 0, "setuid by int 0x80");
            // SAFETY: no pointers.
            checked("prctl", unsafe { libc::prctl(libc::PR_GET_SECUREBITS) }.into());
        }
        _ => return false,
    }
    true
}

/// Says what it was before and what it is after.
fn around(change: impl FnOnce()) {
    let before = facts();
    change();
    println!("{}", json!({"before": before, "after": facts()}));
}

fn go_on(program: &[&str]) {
    if program.is_empty() {
        println!("{}", facts());
    } else {
        exec(program);
    }
}

fn prctl(option: i32, value: u64) {
    // SAFETY: no pointers.
    checked("prctl", unsafe { libc::prctl(option, value, 0, 0, 0) }.into());
}

/// `struct __user_cap_header_struct` of version 3.
const HEADER: [u32; 2] = [0x2008_0522, 0];
/// Effective, permitted and inheritable capabilities, the lower half first.
type Sets = [[u32; 3]; 2];

fn capabilities() -> Sets {
    let mut sets: Sets = [[0; 3]; 2];
    syscall!(SYS_capget, HEADER.as_ptr(), sets.as_mut_ptr());
    sets
}

fn set_capabilities(sets: &Sets) {
    syscall!(SYS_capset, HEADER.as_ptr(), sets.as_ptr());
}

/// Drops one, effective and permitted; sets what there is where there is none of that number.
fn drop_capability(capability: u32) {
    let mut sets = capabilities();
    if let Some(half) = sets.get_mut(capability as usize / 32) {
        let mask = !(1 << (capability % 32));
        half[0] &= mask;
        half[1] &= mask;
    }
    set_capabilities(&sets);
}

fn raise_ambient(capability: u32) {
    let mut sets = capabilities();
    sets[capability as usize / 32][2] |= 1 << (capability % 32);
    set_capabilities(&sets);
    // SAFETY: no pointers.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
    checked("prctl", result.into());
}

/// `setuid` by the gate of 32-bit programs, where tracepoints of 64-bit calls do not look.
#[cfg(target_arch = "x86_64")]
fn setuid_32_bit(uid: u32) -> i32 {
    /// `__NR_setuid32` of 32-bit x86.
    const SETUID32: i32 = 213;
    let result: i32;
    // SAFETY: the call takes one number in ebx and touches no memory; rbx, which the compiler keeps for
    // itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {uid}",
            "int 0x80",
            "xchg rbx, {uid}",
            uid = inout(reg) u64::from(uid) => _,
            inlateout("eax") SETUID32 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}

#[cfg(not(target_arch = "x86_64"))]
fn setuid_32_bit(_uid: u32) -> i32 {
    panic!("only x86-64 has the gate of 32-bit programs");
}
