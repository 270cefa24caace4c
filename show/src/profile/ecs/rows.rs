//! Where each field goes.

use nightjar_proto::v1::{Event, FileActivity, NetworkActivity, NetworkEndpoint, event::Body};

use super::target::{renamed, type_of};
use crate::profile::{
    object::error,
    rest::{
        Place::{Parts, To, When},
        Row,
    },
};

pub(in crate::profile) const ROWS: &[Row] = &[
    ("id", To("event.id")),
    ("time", To("@timestamp")),
    ("kind", To("event.action")),
    ("host", To("host.hostname, host.name")),
    (
        "process",
        Parts(&[
            ("id", To("process.entity_id")),
            ("pid", To("process.pid")),
            ("tid", To("process.thread.id")),
            ("start_time", To("process.start")),
            ("comm", To("process.thread.name")),
            ("exe", Parts(&[("path", To("process.executable"))])),
            ("args", To("process.args")),
            ("cwd", To("process.working_directory")),
            ("uid", To("user.id")),
            ("euid", To("process.user.id")),
            ("suid", To("process.saved_user.id")),
            ("gid", To("group.id")),
            ("egid", To("process.group.id")),
            ("sgid", To("process.saved_group.id")),
            ("user", To("user.name")),
            ("group", To("group.name")),
            ("euser", To("process.user.name")),
            ("egroup", To("process.group.name")),
            (
                "container",
                Parts(&[
                    ("id", To("container.id")),
                    ("runtime", To("container.runtime")),
                    ("pod_uid", To("orchestrator.resource.id")),
                ]),
            ),
            ("ns_pid", To("process.vpid")),
        ]),
    ),
    (
        "parent",
        Parts(&[
            ("id", When(has_process, "process.parent.entity_id")),
            ("pid", When(has_process, "process.parent.pid")),
            ("comm", When(has_process, "process.parent.thread.name")),
            ("exe", Parts(&[("path", When(has_process, "process.parent.executable"))])),
            ("args", When(has_process, "process.parent.args")),
            ("uid", When(has_process, "process.parent.real_user.id")),
            ("user", When(has_process, "process.parent.real_user.name")),
        ]),
    ),
    ("exec", Parts(&[("environment", When(has_process, "process.env_vars"))])),
    ("exec_failed", Parts(&[("errno", To("event.code"))])),
    ("exit", Parts(&[("code", When(has_process, "process.exit_code"))])),
    ("telemetry", Parts(&[("since", To("event.start")), ("until", To("event.end"))])),
    (
        "file",
        Parts(&[
            ("path", When(has_its_name, "file.path")),
            ("inode", To("file.inode")),
            ("device", To("file.device")),
            ("type", When(has_known_type, "file.type")),
            ("mode", To("file.mode")),
            ("uid", To("file.uid")),
            ("gid", To("file.gid")),
            ("user", To("file.owner")),
            ("group", To("file.group")),
            ("size", To("file.size")),
            ("errno", To("event.code")),
            ("target", Parts(&[("path", When(has_target, "file.path, file.target_path"))])),
            ("first_time", To("event.start")),
            ("last_time", To("event.end")),
        ]),
    ),
    (
        "network",
        Parts(&[
            ("protocol", To("network.transport")),
            ("family", To("network.type")),
            ("direction", When(has_direction, "network.direction")),
            (
                "local",
                Parts(&[
                    ("address", To("source.ip, source.address")),
                    ("port", To("source.port")),
                    ("path", When(|event| is_path(event, |network| &network.local), "source.address")),
                ]),
            ),
            (
                "remote",
                Parts(&[
                    ("address", To("destination.ip, destination.address")),
                    ("port", To("destination.port")),
                    ("path", When(|event| is_path(event, |network| &network.remote), "destination.address")),
                ]),
            ),
            ("error", When(|event| !error(event).is_empty(), "event.code")),
            ("duration", To("event.duration")),
            ("bytes_sent", To("source.bytes")),
            ("bytes_received", To("destination.bytes")),
            ("packets_sent", To("source.packets")),
            ("packets_received", To("destination.packets")),
            ("reason", To("event.reason")),
            ("first_time", To("event.start")),
            ("last_time", To("event.end")),
        ]),
    ),
];

fn has_process(event: &Event) -> bool {
    event.process.is_some()
}

fn file(event: &Event) -> Option<&FileActivity> {
    match &event.body {
        Some(Body::File(file)) => Some(file),
        _ => None,
    }
}

fn has_its_name(event: &Event) -> bool {
    file(event).is_some_and(|file| renamed(&event.kind, file).is_none())
}

fn has_known_type(event: &Event) -> bool {
    file(event).is_some_and(|file| !type_of(file).is_empty())
}

fn has_target(event: &Event) -> bool {
    file(event).is_some_and(|file| file.symbolic || renamed(&event.kind, file).is_some())
}

fn network(event: &Event) -> Option<&NetworkActivity> {
    match &event.body {
        Some(Body::Network(network)) => Some(network),
        _ => None,
    }
}

fn has_direction(event: &Event) -> bool {
    network(event).is_some_and(|network| matches!(&*network.direction, "inbound" | "outbound"))
}

/// The end has a path and no address.
fn is_path(event: &Event, end: fn(&NetworkActivity) -> &Option<NetworkEndpoint>) -> bool {
    network(event).and_then(|network| end(network).as_ref()).is_some_and(|end| end.address.is_empty())
}
