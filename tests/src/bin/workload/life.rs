//! Births and ends of processes.

use std::{
    ffi::{CString, c_long},
    io::{self, Write},
    os::unix::net::UnixStream,
    ptr, thread,
};

use serde_json::json;

use crate::call::{await_input, c_string, checked, clone_with, exec, fork, number, syscall, thread_id, wait};

pub(crate) fn run(name: &str, rest: &[&str]) -> bool {
    match (name, rest) {
        ("exit", [code]) => std::process::exit(number(code)),
        ("wait", []) => await_input(),
        ("kill-self", [signal]) => {
            // SAFETY: no pointers.
            checked("raise", unsafe { libc::raise(number(signal)) }.into());
        }
        ("abort-with-core", []) => {
            let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: a live value.
            checked("setrlimit", unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const unlimited) }.into());
            std::process::abort();
        }
        ("burn", [millis]) => burn(number::<u64>(millis) * 1_000_000, libc::CLOCK_PROCESS_CPUTIME_ID),
        ("burn-in-threads", [threads, millis]) => {
            let nanos = number::<u64>(millis) * 1_000_000;
            let burning: Vec<_> = (0..number::<u32>(threads))
                .map(|_| thread::spawn(move || burn(nanos, libc::CLOCK_THREAD_CPUTIME_ID)))
                .collect();
            for thread in burning {
                thread.join().expect("it burnt");
            }
        }
        ("touch", [mebibytes]) => {
            let mut memory = vec![0_u8; number::<usize>(mebibytes) << 20];
            for page in memory.chunks_mut(4096) {
                page[0] = 1;
            }
            assert_eq!(std::hint::black_box(&memory)[0], 1);
        }
        ("leader-first", [code]) => {
            let code: i32 = number(code);
            thread::spawn(move || {
                await_zombie_leader();
                std::process::exit(code);
            });
            // Only this thread, not the process.
            syscall!(SYS_exit, 0);
        }
        ("threads", [count]) => {
            let threads: Vec<_> = (0..number::<u32>(count)).map(|_| thread::spawn(thread_id)).collect();
            let ids: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("it ran")).collect();
            println!("{}", json!({"tids": ids}));
        }
        ("fork", []) => {
            let child = fork(|| {});
            wait(child);
            println!("{}", json!({"child": child}));
        }
        ("spawn", program) => {
            let child = spawn(program);
            wait(child);
            println!("{}", json!({"child": child}));
        }
        ("clone", [flags]) => {
            let child = clone3(number(flags));
            wait(child);
            println!("{}", json!({"child": child}));
        }
        ("double-fork", program) => double_fork(program),
        ("clone-parent", []) => clone_parent(),
        ("ask", [socket]) => ask(socket),
        ("spawn-many", [count, program @ ..]) => spawn_many(number(count), program),
        _ => return false,
    }
    true
}

fn clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live value.
    checked("clock_gettime", unsafe { libc::clock_gettime(clock, &raw mut time) }.into());
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn burn(nanos: u64, of: libc::clockid_t) {
    while clock(of) < nanos {
        std::hint::spin_loop();
    }
}

/// Waits until the first thread of this process has ended: then it is a zombie.
fn await_zombie_leader() {
    let path = format!("/proc/self/task/{}/stat", std::process::id());
    let is_zombie = || {
        let text = std::fs::read_to_string(&path).expect("/proc");
        text.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'))
    };
    while !is_zombie() {
        thread::yield_now();
    }
}

/// By `posix_spawn`, which uses `vfork` or its like.
fn spawn(program: &[&str]) -> i32 {
    let words: Vec<CString> = program.iter().map(c_string).collect();
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    argv.push(ptr::null_mut());
    let (mut pid, nothing) = (0, [ptr::null_mut()]);
    // SAFETY: a string, two lists of strings that end in null, no attributes.
    let error = unsafe {
        libc::posix_spawn(&raw mut pid, argv[0], ptr::null(), ptr::null(), argv.as_ptr(), nothing.as_ptr())
    };
    assert_eq!(error, 0, "posix_spawn: {}", io::Error::from_raw_os_error(error));
    pid
}

/// A child that ends at once, by `clone3`, which takes 64 flags.
fn clone3(flags: u64) -> i32 {
    // SAFETY: zeros are a value of it.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    let pid = syscall!(SYS_clone3, &raw const arguments, size_of::<libc::clone_args>());
    if pid == 0 {
        syscall!(SYS_exit_group, 0);
    }
    pid
}

/// A grandchild runs the program after its parent is gone.
fn double_fork(program: &[&str]) {
    let (mut reader, mut writer) = io::pipe().expect("a pipe");
    let child = fork(|| {
        let intermediate = std::os::unix::process::parent_id();
        let middle = std::process::id();
        assert_ne!(intermediate, middle);
        fork(|| {
            while std::os::unix::process::parent_id() == middle {
                thread::yield_now();
            }
            let said = json!({
                "intermediate": middle,
                "grandchild": std::process::id(),
                "adopted_by": std::os::unix::process::parent_id(),
            });
            writeln!(writer, "{said}").expect("a pipe");
            exec(program);
        });
        // Without waiting: the grandchild is an orphan.
        std::process::exit(0);
    });
    drop(writer);
    wait(child);
    // The pipe is closed when the grandchild, the last to have it, runs another program.
    io::copy(&mut reader, &mut io::stdout()).expect("a pipe");
}

/// A child makes another child for us.
fn clone_parent() {
    let (mut reader, mut writer) = io::pipe().expect("a pipe");
    let creator = fork(|| {
        let sibling = clone_with(libc::CLONE_PARENT, || {});
        write!(writer, "{sibling}").expect("a pipe");
    });
    drop(writer);
    let mut sibling = String::new();
    io::Read::read_to_string(&mut reader, &mut sibling).expect("a pipe");
    let sibling: i32 = number(&sibling);
    wait(creator);
    wait(sibling);
    println!("{}", json!({"creator": creator, "sibling": sibling}));
}

/// Runs a program many times, one after another, with its number as one more argument; says the process ID
/// of each.
fn spawn_many(count: u32, program: &[&str]) {
    let pids: Vec<c_long> = (0..count)
        .map(|n| {
            let n = n.to_string();
            let pid = spawn(&[program, &[n.as_str()]].concat());
            assert_eq!(wait(pid), 0, "{program:?} failed");
            pid.into()
        })
        .collect();
    println!("{}", json!({"pids": pids}));
}

/// Sends its input to a unix socket, and prints what comes back until the other side has nothing more to say.
fn ask(socket: &str) {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    io::copy(&mut io::stdin(), &mut stream).expect("it takes the question");
    io::copy(&mut stream, &mut io::stdout()).expect("it answers");
}
