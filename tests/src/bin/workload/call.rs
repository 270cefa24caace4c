//! System calls, checked.

use std::{
    ffi::{CString, c_long},
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Makes a system call; gives its result or the end of the program.
macro_rules! syscall {
    ($number:ident $(, $argument:expr)* $(,)?) => {
        $crate::call::checked(stringify!($number), {
            // SAFETY: every use passes what the call takes; pointers are to live values.
            unsafe { libc::syscall(libc::$number $(, $argument)*) }
        })
    };
}
pub(crate) use syscall;

/// The result of a call that succeeded.
pub(crate) fn checked(name: &str, result: c_long) -> i32 {
    assert!(result >= 0, "{name}: {}", io::Error::last_os_error());
    i32::try_from(result).expect("calls used here give small numbers")
}

/// As the system takes it.
pub(crate) fn c_string(text: impl AsRef<Path>) -> CString {
    CString::new(text.as_ref().as_os_str().as_bytes()).expect("no zero inside")
}

/// A number in an argument.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

/// Forks. Only used where no other thread runs.
pub(crate) fn fork(child: impl FnOnce()) -> i32 {
    clone_with(0, child)
}

/// Makes a child by `clone` with these flags, on a copy of this stack.
pub(crate) fn clone_with(flags: i32, child: impl FnOnce()) -> i32 {
    let pid = syscall!(SYS_clone, c_long::from(flags | libc::SIGCHLD), 0, 0, 0, 0);
    if pid == 0 {
        child();
        std::process::exit(0);
    }
    pid
}

/// Waits for a child; gives its status.
pub(crate) fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the pointer is to a number of ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", io::Error::last_os_error());
    status
}

/// Replaces this program by another.
pub(crate) fn exec(words: &[&str]) -> ! {
    let path = c_string(words.first().expect("a program to go on with"));
    let words: Vec<CString> = words.iter().map(|word| CString::new(*word).expect("no zero inside")).collect();
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: strings and a list of them that ends in null.
    unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
    panic!("execv {path:?}: {}", io::Error::last_os_error());
}

/// Number of this thread.
pub(crate) fn thread_id() -> i32 {
    syscall!(SYS_gettid)
}

/// Waits until somebody closes or writes to standard input.
pub(crate) fn await_input() {
    let mut byte = [0];
    let _closed = io::Read::read(&mut io::stdin(), &mut byte);
}
