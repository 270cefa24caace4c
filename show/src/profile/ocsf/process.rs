//! Who did it, where: objects `process`, `user`, `group`, `session`, `container` and `device`.

use nightjar_proto::v1;
use serde::{Serialize, Serializer};

use super::target::ProgramFile;
use crate::profile::object::{Text, command_line, millis, object, program_name};

/// A process in full.
pub(super) struct FullProcess<'a> {
    pub event: &'a v1::Event,
    pub process: &'a v1::Process,
}

impl Serialize for FullProcess<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { event, process } = self;
        let ended = matches!(event.body, Some(v1::event::Body::Exit(_)));
        object!(serializer, {
            "pid": Some(process.pid),
            "tid": process.tid,
            "uid": &process.id,
            "name": program_name(process.exe.as_ref(), &process.comm),
            "cmd_line": command_line(&process.args),
            "created_time": process.start_time.as_ref().map(millis),
            "terminated_time": event.time.as_ref().filter(|_| ended).map(millis),
            "working_directory": &process.cwd,
            "file": process.exe.as_ref().map(ProgramFile),
            "user": User::of(process.uid, &process.user),
            "group": User::of(process.gid, &process.group),
            "euid": process.euid,
            "egid": process.egid,
            "auid": process.loginuid,
            "session": Session::of(process),
            "container": process.container.as_ref().map(Container),
            "namespace_pid": process.ns_pid,
            "environment_variables": &*environment(event),
            "parent_process": event.parent.as_ref().map(Parent),
        })
    }
}

/// A process that is in full elsewhere in the event, or not known.
pub(super) struct Reference<'a> {
    pid: u32,
    id: &'a str,
}

impl<'a> Reference<'a> {
    pub(super) fn to(process: &'a v1::Process) -> Self {
        Self { pid: process.pid, id: &process.id }
    }

    pub(super) fn to_parent(parent: &'a v1::Parent) -> Self {
        Self { pid: parent.pid, id: &parent.id }
    }
}

impl Serialize for Reference<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "pid": Some(self.pid), "uid": self.id, })
    }
}

struct Parent<'a>(&'a v1::Parent);

impl Serialize for Parent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parent = self.0;
        object!(serializer, {
            "pid": Some(parent.pid),
            "uid": &parent.id,
            "name": program_name(parent.exe.as_ref(), &parent.comm),
            "cmd_line": command_line(&parent.args),
            "file": parent.exe.as_ref().map(ProgramFile),
            "user": User::of(parent.uid, &parent.user),
        })
    }
}

/// A user or a group: they look the same.
pub(super) struct User<'a> {
    id: Option<u32>,
    name: &'a str,
}

impl<'a> User<'a> {
    /// None where neither number nor name is known.
    pub(super) fn of(id: Option<u32>, name: &'a str) -> Option<Self> {
        (id.is_some() || !name.is_empty()).then_some(Self { id, name })
    }
}

impl Serialize for User<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "uid": self.id.map(Text), "name": self.name, })
    }
}

struct Session<'a>(&'a v1::Process);

impl<'a> Session<'a> {
    fn of(process: &'a v1::Process) -> Option<Self> {
        (process.audit_session.is_some() || !process.tty.is_empty()).then_some(Self(process))
    }
}

impl Serialize for Session<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "uid": self.0.audit_session.map(Text), "terminal": &self.0.tty, })
    }
}

struct Container<'a>(&'a v1::Container);

impl Serialize for Container<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let container = self.0;
        object!(serializer, {
            "uid": Some(&container.id),
            "runtime": &container.runtime,
            "pod_uuid": is_uuid(&container.pod_uid).then_some(&container.pod_uid),
        })
    }
}

/// Pods of the kubelet itself have a name that is no UUID, and the schema wants one.
pub(super) fn is_uuid(text: &str) -> bool {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if HYPHENS.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

/// `NAME=value`.
struct Variable<'a>(&'a str, &'a str);

impl Serialize for Variable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "name": Some(self.0), "value": Some(self.1), })
    }
}

fn environment(event: &v1::Event) -> Vec<Variable<'_>> {
    let Some(v1::event::Body::Exec(exec)) = &event.body else { return Vec::new() };
    let split = |text| str::split_once(text, '=').unwrap_or((text, ""));
    exec.environment.iter().map(|text| split(text)).map(|(name, value)| Variable(name, value)).collect()
}

/// The host.
pub(super) struct Device<'a>(pub &'a str);

impl Serialize for Device<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whether it is a server, or what else, is not known.
        object!(serializer, { "hostname": Some(self.0), "type_id": Some(0), })
    }
}
