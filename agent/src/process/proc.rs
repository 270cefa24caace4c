//! What only `/proc` tells, of processes that ran before the agent.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nightjar_abi::record::{ARGS_MAX, Creds, Namespaces, TaskInfo, TaskRef};
use nightjar_proto::text;
use procfs::process::all_processes;
use tracing::{debug, warn};

use super::{
    Image, Table,
    table::{FileFacts, TICK},
};

/// How long all of `/proc` may take. A process can make reading its arguments wait, by putting them where a
/// file system of its own serves them.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of processes that ran before the agent and still run, by process ID: the bytes, and whether there
/// were more.
#[must_use]
pub fn arguments_from_proc(tasks: Vec<TaskRef>) -> HashMap<u32, (Box<[u8]>, bool)> {
    let (found, arguments) = mpsc::channel();
    // Left alone if it waits for somebody who does not answer.
    let reader = thread::Builder::new().name("proc".to_owned()).spawn(move || {
        for task in tasks {
            if let Some(arguments) = arguments_of(&task)
                && found.send((task.pid, arguments)).is_err()
            {
                return;
            }
        }
    });
    if let Err(error) = reader {
        warn!("cannot read arguments of what ran before: {error}");
    }
    let deadline = Instant::now() + PATIENCE;
    let mut all = HashMap::new();
    loop {
        match arguments.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((pid, arguments)) => all.insert(pid, arguments),
            Err(mpsc::RecvTimeoutError::Disconnected) => return all,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                warn!("/proc does not answer: arguments of some processes that ran before stay unknown");
                return all;
            }
        };
    }
}

fn arguments_of(task: &TaskRef) -> Option<(Box<[u8]>, bool)> {
    let arguments = read_arguments(task.pid)?;
    // If it is still the same process.
    let stat =
        procfs::process::Process::new(task.pid.cast_signed()).and_then(|process| process.stat()).ok()?;
    (stat.starttime == task.start / TICK).then_some(arguments)
}

fn read_arguments(pid: u32) -> Option<(Box<[u8]>, bool)> {
    let mut bytes = Vec::new();
    let most = ARGS_MAX as u64 + 1;
    File::open(format!("/proc/{pid}/cmdline")).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    let more = bytes.len() > ARGS_MAX;
    bytes.truncate(ARGS_MAX);
    Some((bytes.into(), more))
}

/// Fills the table from `/proc`, where the task iterator is refused. `mask` gives arguments without secrets where
/// there are some.
pub fn read_proc(table: &mut Table, mask: impl Fn(&[u8]) -> Option<Box<[u8]>>) {
    let processes = match all_processes() {
        Ok(processes) => processes,
        Err(error) => {
            warn!("cannot list /proc: what ran before the agent stays unknown: {error}");
            return;
        }
    };
    for process in processes {
        // Any of these fails when the process ends meanwhile.
        let read = process.and_then(|process| Ok((process.stat()?, process.status()?, process)));
        let (stat, status, process) = match read {
            Ok(read) => read,
            Err(error) => {
                debug!("a process of /proc is left out: {error}");
                continue;
            }
        };
        let pid = stat.pid.cast_unsigned();
        let exe = process.exe().ok().map(|path| FileFacts {
            path: text::from_bytes(path.as_os_str().as_encoded_bytes()),
            ..FileFacts::default()
        });
        let (args, args_truncated) = read_arguments(pid).unwrap_or_default();
        let masked = mask(&args);
        let args_redacted = masked.is_some();
        let image = Image {
            exe,
            args: masked.unwrap_or(args),
            args_truncated,
            args_from_proc: true,
            args_redacted,
            cwd: process
                .cwd()
                .map_or_else(|_| String::new(), |path| text::from_bytes(path.as_os_str().as_encoded_bytes())),
            ..Image::default()
        };
        let mut comm = [0; 16];
        for (to, from) in comm[..15].iter_mut().zip(stat.comm.bytes()) {
            *to = from;
        }
        let info = TaskInfo {
            task: TaskRef { pid, tid: pid, start: 0, exec_id: 0 },
            parent: TaskRef { pid: stat.ppid.cast_unsigned(), tid: 0, start: 0, exec_id: 0 },
            creds: Creds {
                uid: status.ruid,
                gid: status.rgid,
                suid: status.suid,
                sgid: status.sgid,
                euid: status.euid,
                egid: status.egid,
                fsuid: status.fuid,
                fsgid: status.fgid,
                securebits: 0,
                user_ns: 0,
                inheritable: status.capinh,
                permitted: status.capprm,
                effective: status.capeff,
                bounding: status.capbnd.unwrap_or_default(),
                ambient: status.capamb.unwrap_or_default(),
            },
            namespaces: Namespaces {
                cgroup: 0,
                ipc: 0,
                mnt: 0,
                net: 0,
                pid: 0,
                pid_for_children: 0,
                time: 0,
                uts: 0,
            },
            cgroup_id: 0,
            loginuid: u32::MAX,
            session: u32::MAX,
            ns_pid: pid,
            flags: 0,
            comm,
            tty: [0; 32],
        };
        table.procfs(&info, stat.starttime, image.kept());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Bounds, Identity};

    #[test]
    fn this_process_is_found_in_proc() {
        let mut table = Table::new(Identity::of_this_boot().unwrap(), Bounds::default());
        read_proc(&mut table, |_| None);
        assert!(table.stats().processes > 0);
    }

    #[test]
    fn arguments_of_another_process_of_the_same_number_are_not_taken() {
        let task = TaskRef { pid: std::process::id(), tid: 0, start: 1, exec_id: 0 };
        assert!(arguments_from_proc(vec![task]).is_empty());
    }
}
