//! Where each field goes.

use nightjar_proto::v1::{Event, NetworkActivity, NetworkEndpoint, event::Body};

use super::{
    process::is_uuid,
    target::{has_result, is_known_type, port},
};
use crate::profile::{
    object::error,
    rest::{
        Place::{Less, Parts, To, When},
        Row,
    },
};

/// Of events that fit no class.
pub(super) const BASE_ROWS: &[Row] = &[
    ("schema", To("metadata.log_version")),
    ("id", To("metadata.uid")),
    ("time", When(has_time, "metadata.original_time, time")),
    ("kind", To("metadata.event_code")),
    ("telemetry", Parts(TELEMETRY)),
];

const TELEMETRY: &[Row] = &[("since", Less("start_time")), ("until", Less("end_time"))];

/// Of all others. `process` stands for `actor.process` where the class is not process activity.
pub(in crate::profile) const ROWS: &[Row] = &[
    ("schema", To("metadata.log_version")),
    ("id", To("metadata.uid")),
    ("time", When(has_time, "metadata.original_time, time")),
    ("kind", To("metadata.event_code")),
    ("host", To("device.hostname")),
    (
        "process",
        Parts(&[
            ("id", To("process.uid")),
            ("pid", To("process.pid")),
            ("tid", To("process.tid")),
            ("start_time", Less("process.created_time")),
            (
                "exe",
                Parts(&[
                    ("path", To("process.file.path")),
                    ("inode", To("process.file.uid")),
                    ("device", To("process.file.volume")),
                    ("uid", To("process.file.owner.uid")),
                    ("deleted", To("process.file.is_deleted")),
                ]),
            ),
            ("args", When(args_are_words, "process.cmd_line")),
            ("cwd", To("process.working_directory")),
            ("uid", To("process.user.uid, actor.user.uid")),
            ("euid", To("process.euid")),
            ("gid", To("process.group.uid")),
            ("egid", To("process.egid")),
            ("user", To("process.user.name, actor.user.name")),
            ("group", To("process.group.name")),
            ("loginuid", To("process.auid")),
            ("audit_session", To("process.session.uid")),
            ("tty", To("process.session.terminal")),
            (
                "container",
                Parts(&[
                    ("id", To("process.container.uid")),
                    ("runtime", To("process.container.runtime")),
                    ("pod_uid", When(has_pod_uuid, "process.container.pod_uuid")),
                ]),
            ),
            ("ns_pid", To("process.namespace_pid")),
        ]),
    ),
    (
        "parent",
        Parts(&[
            ("id", When(has_process, "process.parent_process.uid")),
            ("pid", When(has_process, "process.parent_process.pid")),
            (
                "exe",
                Parts(&[
                    ("path", When(has_process, "process.parent_process.file.path")),
                    ("inode", When(has_process, "process.parent_process.file.uid")),
                    ("device", When(has_process, "process.parent_process.file.volume")),
                    ("uid", When(has_process, "process.parent_process.file.owner.uid")),
                    ("deleted", When(has_process, "process.parent_process.file.is_deleted")),
                ]),
            ),
            ("args", When(args_of_parent_are_words, "process.parent_process.cmd_line")),
            ("uid", When(has_process, "process.parent_process.user.uid")),
            ("user", When(has_process, "process.parent_process.user.name")),
        ]),
    ),
    ("exec", Parts(&[("environment", When(variables_have_values, "process.environment_variables"))])),
    ("exec_failed", Parts(&[("errno", To("status_code"))])),
    ("exit", Parts(&[("code", To("exit_code"))])),
    ("telemetry", Parts(TELEMETRY)),
    (
        "file",
        Parts(&[
            ("path", To("file.path")),
            ("inode", To("file.uid")),
            ("device", To("file.volume")),
            ("type", When(has_known_type, "file.type_id")),
            ("uid", To("file.owner.uid")),
            ("user", To("file.owner.name")),
            ("size", To("file.size")),
            ("errno", To("status_code")),
            (
                "target",
                Parts(&[
                    ("path", When(has_file_result, "file_result.path")),
                    ("inode", When(has_file_result, "file_result.uid")),
                    ("device", When(has_file_result, "file_result.volume")),
                    ("size", When(has_file_result, "file_result.size")),
                ]),
            ),
            ("count", To("count")),
            ("first_time", Less("start_time")),
            ("last_time", Less("end_time")),
            ("deleted", To("file.is_deleted")),
        ]),
    ),
    (
        "network",
        Parts(&[
            ("protocol", To("connection_info.protocol_name")),
            ("family", When(is_ip, "connection_info.protocol_ver_id")),
            ("direction", When(has_direction, "connection_info.direction_id")),
            (
                "local",
                Parts(&[
                    ("address", To("src_endpoint.ip")),
                    ("port", When(|event| has_port(event, |network| &network.local), "src_endpoint.port")),
                    ("path", To("src_endpoint.name")),
                ]),
            ),
            (
                "remote",
                Parts(&[
                    ("address", To("dst_endpoint.ip")),
                    ("port", When(|event| has_port(event, |network| &network.remote), "dst_endpoint.port")),
                    ("path", To("dst_endpoint.name")),
                ]),
            ),
            ("connection", To("connection_info.uid")),
            ("interface", To("src_endpoint.interface_name")),
            ("loopback", To("connection_info.boundary_id")),
            ("error", When(|event| !error(event).is_empty(), "status_code")),
            ("duration", Less("duration")),
            ("bytes_sent", To("traffic.bytes_out")),
            ("bytes_received", To("traffic.bytes_in")),
            ("packets_sent", To("traffic.packets_out")),
            ("packets_received", To("traffic.packets_in")),
            ("reason", To("status_detail")),
            ("count", To("count")),
            ("first_time", Less("start_time")),
            ("last_time", Less("end_time")),
        ]),
    ),
];

/// The time is one that RFC 3339 can say.
fn has_time(event: &Event) -> bool {
    event.time.as_ref().is_some_and(|time| nightjar_proto::time(time).is_some())
}

fn has_process(event: &Event) -> bool {
    event.process.is_some()
}

/// The arguments can be had back from a command line: none has a space in it, or is empty.
fn are_words(args: &[String]) -> bool {
    args.iter().all(|arg| !arg.is_empty() && !arg.contains(' '))
}

fn args_are_words(event: &Event) -> bool {
    event.process.as_ref().is_some_and(|process| are_words(&process.args))
}

fn args_of_parent_are_words(event: &Event) -> bool {
    has_process(event) && event.parent.as_ref().is_some_and(|parent| are_words(&parent.args))
}

fn has_pod_uuid(event: &Event) -> bool {
    let container = event.process.as_ref().and_then(|process| process.container.as_ref());
    container.is_some_and(|container| is_uuid(&container.pod_uid))
}

fn variables_have_values(event: &Event) -> bool {
    matches!(&event.body, Some(Body::Exec(exec)) if exec.environment.iter().all(|text| text.contains('=')))
}

fn has_known_type(event: &Event) -> bool {
    matches!(&event.body, Some(Body::File(file)) if is_known_type(&file.r#type))
}

fn has_file_result(event: &Event) -> bool {
    has_result(&event.kind)
}

fn network(event: &Event) -> Option<&NetworkActivity> {
    match &event.body {
        Some(Body::Network(network)) => Some(network),
        _ => None,
    }
}

fn is_ip(event: &Event) -> bool {
    network(event).is_some_and(|network| matches!(&*network.family, "ipv4" | "ipv6"))
}

fn has_direction(event: &Event) -> bool {
    network(event).is_some_and(|network| matches!(&*network.direction, "inbound" | "outbound"))
}

fn has_port(event: &Event, end: fn(&NetworkActivity) -> &Option<NetworkEndpoint>) -> bool {
    network(event).and_then(|network| end(network).as_ref()).and_then(port).is_some()
}
