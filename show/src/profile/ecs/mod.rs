//! Elastic Common Schema.
//!
//! Identifiers are text there, numbers of things are numbers. `user` and `group` are the real ones; `process.user` and
//! `process.group` the effective, as with Elastic's own agent. `source` is who began, as in the schema.

mod rows;
mod target;

use nightjar_proto::v1::{self, Event, event::Body};
use serde::{Serialize, Serializer};

pub(super) use self::rows::ROWS;
use self::target::{Ends, File, Network};
use super::object::{
    Present, Text, command_line, effective_group, effective_user, error, object, program_name,
};

/// Of the published schema.
pub(super) const VERSION: &str = "9.4.0";

/// `event.category` and `event.type` of each kind, one row each. Kinds without a row, such as those of telemetry, have
/// no category.
const CATEGORIES: &[(&str, &[&str], &[&str])] = &[
    ("process.exec", &["process"], &["start"]),
    ("process.exec_failed", &["process"], &["start"]),
    ("process.fork", &["process"], &["start"]),
    ("process.exit", &["process"], &["end"]),
    ("process.credentials", &["process"], &["change"]),
    ("file.open", &["file"], &["access"]),
    ("file.create", &["file"], &["creation"]),
    ("file.modify", &["file"], &["change"]),
    ("file.close", &["file"], &["info"]),
    ("file.delete", &["file"], &["deletion"]),
    ("file.rename", &["file"], &["change"]),
    ("file.link", &["file"], &["creation"]),
    ("file.attributes", &["file"], &["change"]),
    ("file.truncate", &["file"], &["change"]),
    ("file.copy", &["file"], &["access", "change"]),
    ("file.mkdir", &["file"], &["creation"]),
    ("file.rmdir", &["file"], &["deletion"]),
    ("file.mount", &["file"], &["change"]),
    ("network.connect", &["network"], &["connection", "start"]),
    ("network.accept", &["network"], &["connection", "start"]),
    ("network.listen", &["network"], &["info"]),
    ("network.bind", &["network"], &["info"]),
    ("network.socket", &["network"], &["info"]),
    ("network.close", &["network"], &["connection", "end"]),
    ("network.flow", &["network"], &["connection", "start", "end"]),
];

pub(super) struct Ecs<'a>(pub &'a Event);

impl Serialize for Ecs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let process = event.process.as_ref();
        let container = process.and_then(|process| process.container.as_ref());
        let (mut file, mut network) = (None, None);
        match &event.body {
            Some(Body::File(body)) => file = Some(File { kind: &event.kind, file: body }),
            Some(Body::Network(body)) => network = Some(body),
            _ => {}
        }
        let ends = network.map(|network| Ends::of(&event.kind, network));
        object!(serializer, {
            "@timestamp": event.time.as_ref().and_then(nightjar_proto::time),
            "ecs": Some(Version),
            "event": Some(Facts(event)),
            "agent": Some(Agent),
            "host": (!event.host.is_empty()).then_some(Host(&event.host)),
            "process": process.map(|process| Process { event, process }),
            "user": process.and_then(|process| User::of(process.uid, &process.user)),
            "group": process.and_then(|process| User::of(process.gid, &process.group)),
            "container": container.map(Container),
            "orchestrator": container.filter(|container| !container.pod_uid.is_empty()).map(Pod),
            "file": file,
            "source": ends.as_ref().and_then(|ends| ends.source.as_ref()),
            "destination": ends.as_ref().and_then(|ends| ends.destination.as_ref()),
            "network": network.map(Network),
        })
    }
}

struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "version": VERSION, })
    }
}

/// What kind of thing happened.
struct Facts<'a>(&'a Event);

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let row = CATEGORIES.iter().find(|(kind, ..)| *kind == event.kind);
        let loss = matches!(event.body, Some(Body::Telemetry(_)));
        let (start, end) = match &event.body {
            Some(Body::Telemetry(telemetry)) => (&telemetry.since, &telemetry.until),
            Some(Body::File(file)) => (&file.first_time, &file.last_time),
            Some(Body::Network(network)) => (&network.first_time, &network.last_time),
            _ => (&None, &None),
        };
        let network = match &event.body {
            Some(Body::Network(network)) => Some(network),
            _ => None,
        };
        object!(serializer, {
            "kind": if loss { "pipeline_error" } else { "event" },
            "category": row.map_or(&[][..], |(_, category, _)| category),
            "type": row.map_or(if loss { &["error"][..] } else { &["info"] }, |(.., kind)| kind),
            "action": &event.kind,
            "outcome": outcome(event),
            // All that the schema has a place for.
            "code": error(event),
            "reason": network.map_or("", |network| &network.reason),
            "id": &event.id,
            "module": "nightjar",
            "dataset": dataset(&event.kind).map(Text),
            "start": start.as_ref().and_then(nightjar_proto::time),
            "end": end.as_ref().and_then(nightjar_proto::time),
            "duration": network.map_or(0, |network| network.duration),
        })
    }
}

/// Absent where there is nothing that can fail.
fn outcome(event: &Event) -> &'static str {
    match &event.body {
        None | Some(Body::Telemetry(_)) => "",
        Some(Body::Network(network)) if matches!(&*network.outcome, "unknown" | "pending") => "unknown",
        Some(_) => {
            if error(event).is_empty() {
                "success"
            } else {
                "failure"
            }
        }
    }
}

/// `nightjar.process` of `process.exec`.
fn dataset(kind: &str) -> Option<String> {
    kind.split_once('.').map(|(family, _)| format!("nightjar.{family}"))
}

struct Agent;

impl Serialize for Agent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "type": "nightjar", "version": env!("CARGO_PKG_VERSION"), })
    }
}

struct Host<'a>(&'a str);

impl Serialize for Host<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "hostname": self.0, "name": self.0, })
    }
}

struct Process<'a> {
    event: &'a Event,
    process: &'a v1::Process,
}

impl Serialize for Process<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { event, process } = self;
        let ended = matches!(event.body, Some(Body::Exit(_)));
        let (exit_code, environment) = match &event.body {
            Some(Body::Exit(exit)) => (exit.code, &[][..]),
            Some(Body::Exec(exec)) => (None, &*exec.environment),
            _ => (None, &[][..]),
        };
        object!(serializer, {
            "pid": Some(process.pid),
            "vpid": process.ns_pid,
            "entity_id": &process.id,
            "name": program_name(process.exe.as_ref(), &process.comm),
            "executable": process.exe.as_ref().map_or("", |exe| &exe.path),
            "args": &process.args,
            "args_count": process.args.len() as u64,
            "command_line": command_line(&process.args),
            "working_directory": &process.cwd,
            "start": process.start_time.as_ref().and_then(nightjar_proto::time),
            "end": event.time.as_ref().filter(|_| ended).and_then(nightjar_proto::time),
            "exit_code": exit_code,
            "env_vars": environment,
            "thread": Some(Thread { id: process.tid, name: &process.comm }).filter(Present::is_present),
            "user": User::of(process.euid, effective_user(process)),
            "saved_user": User::of(process.suid, ""),
            "group": User::of(process.egid, effective_group(process)),
            "saved_group": User::of(process.sgid, ""),
            "parent": event.parent.as_ref().map(Parent),
        })
    }
}

struct Thread<'a> {
    id: u32,
    name: &'a str,
}

impl Present for Thread<'_> {
    fn is_present(&self) -> bool {
        self.id != 0 || !self.name.is_empty()
    }
}

impl Serialize for Thread<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "id": self.id, "name": self.name, })
    }
}

struct Parent<'a>(&'a v1::Parent);

impl Serialize for Parent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parent = self.0;
        object!(serializer, {
            "pid": Some(parent.pid),
            "entity_id": &parent.id,
            "name": program_name(parent.exe.as_ref(), &parent.comm),
            "executable": parent.exe.as_ref().map_or("", |exe| &exe.path),
            "args": &parent.args,
            "args_count": parent.args.len() as u64,
            "command_line": command_line(&parent.args),
            "thread": Some(Thread { id: 0, name: &parent.comm }).filter(Present::is_present),
            "real_user": User::of(parent.uid, &parent.user),
        })
    }
}

/// A user or a group: they look the same.
struct User<'a> {
    id: Option<u32>,
    name: &'a str,
}

impl<'a> User<'a> {
    /// None where neither number nor name is known.
    fn of(id: Option<u32>, name: &'a str) -> Option<Self> {
        (id.is_some() || !name.is_empty()).then_some(Self { id, name })
    }
}

impl Serialize for User<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "id": self.id.map(Text), "name": self.name, })
    }
}

struct Container<'a>(&'a v1::Container);

impl Serialize for Container<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "id": &self.0.id, "runtime": &self.0.runtime, })
    }
}

/// The pod that the container is of.
struct Pod<'a>(&'a v1::Container);

impl Serialize for Pod<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "type": "kubernetes", "resource": Some(Resource(&self.0.pod_uid)), })
    }
}

struct Resource<'a>(&'a str);

impl Serialize for Resource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "type": "pod", "id": self.0, })
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::KINDS;

    use super::*;

    #[test]
    fn every_kind_but_those_of_telemetry_has_a_category() {
        let without: Vec<&str> = KINDS
            .iter()
            .map(|kind| kind.name)
            .filter(|name| CATEGORIES.iter().all(|(kind, ..)| kind != name))
            .collect();
        assert_eq!(without, ["telemetry.loss"]);
    }
}
