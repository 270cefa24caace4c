//! What a process can find out about itself, independently of the agent.

use std::{env, fs, os::unix::fs::MetadataExt, path::Path};

use serde_json::{Map, Value, json};

use crate::call::{checked, exec, thread_id};

pub(crate) fn run(name: &str, rest: &[&str]) -> bool {
    match (name, rest) {
        ("facts", _) => println!("{}", facts()),
        ("in-folder", [folder, program @ ..]) => {
            env::set_current_dir(folder).expect("a folder");
            exec(program);
        }
        ("loginuid", [uid, program @ ..]) => {
            fs::write("/proc/self/loginuid", uid).expect("an unset login user");
            exec(program);
        }
        ("in-cgroup", [folder, program @ ..]) => {
            fs::write(Path::new(folder).join("cgroup.procs"), "0").expect("a cgroup");
            exec(program);
        }
        _ => return false,
    }
    true
}

/// All there is in `/proc/self`, in words that tests can compare with an event.
pub(crate) fn facts() -> Value {
    let link =
        |path: &str| fs::read_link(path).map(|to| to.to_string_lossy().into_owned()).unwrap_or_default();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    // The running file itself, whatever its name leads to.
    let exe = fs::metadata("/proc/self/exe").expect("our own program");
    // SAFETY: no pointers.
    let securebits = checked("prctl", unsafe { libc::prctl(libc::PR_GET_SECUREBITS) }.into());
    json!({
        "pid": std::process::id(),
        "tid": thread_id(),
        "ppid": std::os::unix::process::parent_id(),
        "exe": {
            "path": link("/proc/self/exe"),
            "inode": exe.ino(),
            "device": format!("{}:{}", libc::major(exe.dev()), libc::minor(exe.dev())),
            "links": exe.nlink(),
            "mode": format!("{:04o}", exe.mode() & 0o7777),
            "uid": exe.uid(),
            "gid": exe.gid(),
        },
        "cwd": link("/proc/self/cwd"),
        "comm": text("/proc/self/comm"),
        "loginuid": text("/proc/self/loginuid"),
        "sessionid": text("/proc/self/sessionid"),
        "cgroup": text("/proc/self/cgroup").lines().map(str::to_owned).collect::<Vec<_>>(),
        "securebits": securebits,
        "namespaces": namespaces(),
        "status": status(),
    })
}

/// Numbers in `ipc:[4026531839]`.
fn namespaces() -> Value {
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        let number: u32 = target.split_once('[')?.1.strip_suffix(']')?.parse().ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), json!(number)))
    };
    // A process that gained something by its exec may not look there.
    let entries = fs::read_dir("/proc/self/ns").into_iter().flatten().filter_map(Result::ok);
    Value::Object(entries.filter_map(inode).collect::<Map<_, _>>())
}

/// Lines of `/proc/self/status` as lists of words.
fn status() -> Value {
    let text = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = |line: &str| {
        let (name, values) = line.split_once(':')?;
        Some((name.to_owned(), values.split_whitespace().map(|word| json!(word)).collect()))
    };
    Value::Object(text.lines().filter_map(line).collect::<Map<_, _>>())
}
