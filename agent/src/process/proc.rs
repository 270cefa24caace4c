//! What only `/proc` tells, of processes that ran before the agent.

use std::fs;

use nightjar_abi::record::{Creds, Namespaces, TaskInfo, TaskRef};
use nightjar_proto::text;
use procfs::process::all_processes;
use tracing::{debug, warn};

use super::{
    Image, Table,
    table::{FileFacts, TICK},
};

/// Arguments of a process that ran before the agent, if it is still the same.
#[must_use]
pub fn arguments_from_proc(task: &TaskRef) -> Image {
    let Ok(bytes) = fs::read(format!("/proc/{}/cmdline", task.pid)) else { return Image::default() };
    let same = procfs::process::Process::new(task.pid.cast_signed())
        .and_then(|process| process.stat())
        .is_ok_and(|stat| stat.starttime == task.start / TICK);
    if same { Image { args: arguments(&bytes), ..Image::default() } } else { Image::default() }
}

/// Fills the table from `/proc`, where the task iterator is refused.
pub fn read_proc(table: &mut Table) {
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
        let image = Image {
            exe,
            args: fs::read(format!("/proc/{pid}/cmdline"))
                .map_or_else(|_| Vec::new(), |bytes| arguments(&bytes)),
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
        table.procfs(&info, stat.starttime, image);
    }
}

/// Arguments as `/proc/PID/cmdline` has them: each ended by a zero byte.
fn arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|byte| *byte == 0).map(text::from_bytes).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Bounds, Identity};

    #[test]
    fn this_process_is_found_in_proc() {
        let mut table = Table::new(Identity::of_this_boot().unwrap(), Bounds::default());
        read_proc(&mut table);
        assert!(table.stats().processes > 0);
    }

    #[test]
    fn arguments_of_another_process_of_the_same_number_are_not_taken() {
        let task = TaskRef { pid: std::process::id(), tid: 0, start: 1, exec_id: 0 };
        assert_eq!(arguments_from_proc(&task), Image::default());
    }
}
