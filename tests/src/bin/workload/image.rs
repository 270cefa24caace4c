//! Ways to run a program.

use std::{
    env,
    ffi::{CString, c_char},
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd},
    path::Path,
    ptr, thread,
};

use serde_json::json;

use crate::call::{c_string, checked, exec, fork, syscall, thread_id, wait};

pub(crate) fn run(name: &str, rest: &[&str]) -> bool {
    match (name, rest) {
        ("exec", program) => exec(program),
        ("exec-from-thread", program) => {
            let program: Vec<String> = program.iter().map(|word| (*word).to_owned()).collect();
            let thread = thread::spawn(move || {
                println!("{}", json!({"tid": thread_id()}));
                exec(&program.iter().map(String::as_str).collect::<Vec<_>>());
            });
            let _never = thread.join();
        }
        ("exec-without-arguments", [program]) => exec_without_arguments(program),
        ("exec-memfd", [file, name, args @ ..]) => exec_memfd(file, name, args),
        ("exec-at", [folder, name, args @ ..]) => {
            let folder = File::open(folder).expect("a folder");
            println!("{}", json!({"dirfd": folder.as_raw_fd()}));
            exec_at(&folder, name, args, 0);
            panic!("execveat: {}", io::Error::last_os_error());
        }
        // The file that runs is removed, then run again by the link that the kernel keeps to it.
        ("exec-deleted", args) => {
            fs::remove_file(env::current_exe().expect("a path")).expect("our own file");
            exec(&[&["/proc/self/exe"], args].concat());
        }
        ("fail-exec", [path]) => {
            let path = c_string(path);
            let argv = [path.as_ptr(), ptr::null()];
            // SAFETY: a string and a list of strings that ends in null.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), argv[1..].as_ptr().cast()) };
            say_error();
        }
        ("fail-exec-at", [folder, name]) => {
            let folder = File::open(folder).expect("a folder");
            exec_at(&folder, name, &[], 0);
            let errno = io::Error::last_os_error().raw_os_error();
            println!("{}", json!({"errno": errno, "dirfd": folder.as_raw_fd()}));
        }
        // A path that is not in the memory of the process.
        ("fail-exec-bad-address", []) => {
            syscall_that_fails(8);
            say_error();
        }
        ("in-pid-namespace", program) => {
            syscall!(SYS_unshare, libc::CLONE_NEWPID);
            let child = fork(|| exec(program));
            wait(child);
            println!("{}", json!({"child": child}));
        }
        ("in-namespaces", program) => {
            let all = libc::CLONE_NEWNS
                | libc::CLONE_NEWCGROUP
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWNET;
            syscall!(SYS_unshare, all);
            exec(program);
        }
        ("on-tmpfs", [place, program @ ..]) => in_mount_namespace(program, |program| {
            mount(Some("tmpfs"), place, Some("tmpfs"), 0, None);
            let there = Path::new(place).join("program");
            fs::copy(program, &there).expect("room on the tmpfs");
            there
        }),
        ("bind-mounted", [from, to, program @ ..]) => in_mount_namespace(program, |program| {
            mount(Some(from), to, None, libc::MS_BIND, None);
            Path::new(to).join(Path::new(program).file_name().expect("a file"))
        }),
        ("on-overlay", [lower, upper, work, merged, program @ ..]) => {
            in_mount_namespace(program, |program| {
                let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
                mount(Some("overlay"), merged, Some("overlay"), 0, Some(&options));
                Path::new(merged).join(Path::new(program).file_name().expect("a file"))
            });
        }
        ("on-terminal", program) => on_terminal(program),
        _ => return false,
    }
    true
}

fn say_error() {
    println!("{}", json!({"errno": io::Error::last_os_error().raw_os_error()}));
}

/// With an argument list that is empty. What the new program reads is how the kernel shows that list.
fn exec_without_arguments(program: &str) {
    let shown = File::open("/proc/self/cmdline").expect("/proc");
    syscall!(SYS_dup2, shown.as_raw_fd(), 0);
    let (path, nothing) = (c_string(program), [ptr::null::<c_char>()]);
    // SAFETY: a string and a list of strings that ends in null.
    unsafe { libc::execve(path.as_ptr(), nothing.as_ptr(), nothing.as_ptr()) };
    panic!("execve: {}", io::Error::last_os_error());
}

fn exec_memfd(file: &str, name: &str, args: &[&str]) {
    let name = c_string(name);
    let descriptor = syscall!(SYS_memfd_create, name.as_ptr(), libc::MFD_CLOEXEC);
    // SAFETY: just opened, and nobody else has it.
    let mut memory = unsafe { File::from_raw_fd(descriptor) };
    io::copy(&mut File::open(file).expect("a program"), &mut memory).expect("room in memory");
    exec_at(&memory, "", args, libc::AT_EMPTY_PATH);
    panic!("execveat: {}", io::Error::last_os_error());
}

fn exec_at(folder: &File, name: &str, words: &[&str], flags: i32) {
    let path = c_string(name);
    let words: Vec<CString> = words.iter().map(|word| CString::new(*word).expect("no zero inside")).collect();
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(ptr::null());
    let nothing = [ptr::null::<c_char>()];
    // SAFETY: a string, two lists of strings that end in null, and an open descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            folder.as_raw_fd(),
            path.as_ptr(),
            pointers.as_ptr(),
            nothing.as_ptr(),
            flags,
        )
    };
}

fn syscall_that_fails(address: usize) {
    let nothing = [ptr::null::<c_char>()];
    // SAFETY: the kernel refuses the path, and the lists end in null.
    unsafe { libc::syscall(libc::SYS_execve, address, nothing.as_ptr(), nothing.as_ptr()) };
}

/// In mounts of its own, made by `prepare`, which tells where the program is then.
fn in_mount_namespace(program: &[&str], prepare: impl FnOnce(&str) -> std::path::PathBuf) {
    let (path, args) = program.split_first().expect("a program");
    syscall!(SYS_unshare, libc::CLONE_NEWNS);
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None);
    let path = prepare(path);
    exec(&[&[path.to_str().expect("a path in UTF-8")], args].concat());
}

fn mount(source: Option<&str>, target: &str, kind: Option<&str>, flags: u64, options: Option<&str>) {
    let (source, target) = (source.map(c_string), c_string(target));
    let (kind, options) = (kind.map(c_string), options.map(c_string));
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: strings, or null where the call allows it.
    let result = unsafe {
        libc::mount(pointer(&source), target.as_ptr(), pointer(&kind), flags, pointer(&options).cast())
    };
    checked("mount", result.into());
}

/// In a session of its own with a new pseudo-terminal as its controlling one.
fn on_terminal(program: &[&str]) {
    let (mut controller, mut terminal) = (0, 0);
    let (null, unset, default) = (ptr::null_mut(), ptr::null(), ptr::null());
    // SAFETY: two places for descriptors, and nothing else.
    let result = unsafe { libc::openpty(&raw mut controller, &raw mut terminal, null, unset, default) };
    checked("openpty", result.into());
    let name = fs::read_link(format!("/proc/self/fd/{terminal}")).expect("/proc");
    let child = fork(|| {
        syscall!(SYS_setsid);
        // SAFETY: takes a number.
        checked("ioctl", unsafe { libc::ioctl(terminal, libc::TIOCSCTTY, 0) }.into());
        exec(program);
    });
    let status = wait(child);
    println!("{}", json!({"child": child, "terminal": name, "status": status}));
}
