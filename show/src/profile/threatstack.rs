//! Raw events of the Threat Stack agent: the envelope and the types `audit` and `file`.
//!
//! Times are milliseconds since 1970; `auid` and `session` are 4294967295 when unset; `exit` is text; `arguments` are
//! the `args` with spaces between them; `group` and `user` are names of the real ones.

use nightjar_proto::v1::{
    Event, FileActivity, NetworkActivity, NetworkEndpoint, Parent, Process, event::Body,
};
use serde::{Serialize, Serializer};

use super::object::{command_line, error, millis, object, program_name};
use super::rest::{
    Place::{Less, Parts, To, When},
    Row,
};

pub(super) const VERSION: &str = "1";

/// What the audit subsystem says where a login user or a session is unset.
const UNSET: u32 = u32::MAX;

pub(super) const ROWS: &[Row] = &[
    ("id", To("_id")),
    ("time", Less("timestamp")),
    ("host", To("host_metadata.hostname")),
    (
        "process",
        Parts(&[
            ("pid", To("pid")),
            ("ppid", To("ppid")),
            ("exe", Parts(&[("path", To("exe"))])),
            ("args", To("args")),
            ("cwd", To("cwd")),
            ("uid", To("uid")),
            ("gid", To("gid")),
            ("user", To("user")),
            ("group", To("group")),
            ("loginuid", To("auid")),
            ("login_user", To("auser")),
            ("audit_session", To("session")),
            ("tty", Less("tty")),
            ("container", Parts(&[("id", To("containerId"))])),
        ]),
    ),
    (
        "parent",
        Parts(&[("pid", To("parent_metadata.pid")), ("exe", Parts(&[("path", To("parent_metadata.exe"))]))]),
    ),
    ("exec", Parts(&[("script", Parts(&[("path", To("path"))]))])),
    ("exec_failed", Parts(&[("errno", To("exit"))])),
    ("exit", Parts(&[("code", To("exit"))])),
    ("file", Parts(&[("path", To("filename")), ("errno", To("exit"))])),
    (
        "network",
        Parts(&[
            ("protocol", To("protocol")),
            (
                "local",
                Parts(&[
                    ("address", When(has_direction, "connection.src_addr")),
                    ("port", When(has_direction, "connection.src_port")),
                ]),
            ),
            (
                "remote",
                Parts(&[
                    ("address", When(has_direction, "connection.dst_addr")),
                    ("port", When(has_direction, "dst_port")),
                ]),
            ),
            ("error", When(|event| matches!(exit(event), Some(Exit::Error(_))), "exit")),
        ]),
    ),
];

/// Which end is the source is known.
fn has_direction(event: &Event) -> bool {
    matches!(&event.body, Some(Body::Network(network)) if ends(network).is_some())
}

/// Kinds that have a counterpart, one row each: kind, type there. A type of other kinds is the kind.
const TYPES: &[(&str, &str)] = &[
    ("process.exec", "start"),
    ("process.exit", "exit"),
    ("network.connect", "connect"),
    ("network.accept", "accept"),
    ("file.open", "OPEN"),
    ("file.create", "CREATE"),
    ("file.mkdir", "CREATE"),
    ("file.link", "CREATE"),
    ("file.modify", "MODIFY"),
    ("file.truncate", "MODIFY"),
    ("file.close", "CLOSE"),
    ("file.delete", "DELETE"),
    ("file.rmdir", "DELETE"),
];

pub(super) struct Threatstack<'a>(pub &'a Event);

impl Serialize for Threatstack<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let process = event.process.as_ref();
        let exe = process.and_then(|process| process.exe.as_ref());
        let text = |field: fn(&Process) -> &str| process.map_or("", field);
        let number = |field: fn(&Process) -> Option<u32>| process.and_then(field);
        let args = process.map(|process| &*process.args).unwrap_or_default();
        let (file, network) = match &event.body {
            Some(Body::File(file)) => (Some(file), None),
            Some(Body::Network(network)) => (None, Some(network)),
            _ => (None, None),
        };
        let millis = event.time.as_ref().map(millis);
        object!(serializer, {
            "_id": &event.id,
            "timestamp": millis,
            "event_time": millis,
            "event_type": if event.kind.starts_with("file.") { "file" } else { "audit" },
            "type": type_of(event),
            "syscall": syscall(event),
            "success": success(event),
            "exit": exit(event),
            "header": millis.map(Header),
            "agent": &event.host,
            "pid": process.map(|process| process.pid),
            "ppid": process.map(|process| process.ppid),
            "exe": exe.map_or("", |exe| &exe.path),
            "command": process.map_or("", |process| program_name(exe, &process.comm)),
            "args": args,
            "arguments": command_line(args),
            "cwd": text(|process| &process.cwd),
            "path": paths(event).as_deref().unwrap_or_default(),
            "uid": number(|process| process.uid),
            "gid": number(|process| process.gid),
            "user": text(|process| &process.user),
            "group": text(|process| &process.group),
            "auid": number(|process| process.loginuid.or(Some(UNSET))),
            "auser": text(|process| &process.login_user),
            "session": number(|process| process.audit_session.or(Some(UNSET))),
            "tty": tty(text(|process| &process.tty)),
            "containerId": process.and_then(|process| process.container.as_ref()).map_or("", |container| &container.id),
            "filename": file.map_or("", |file| &file.path),
            "connection": network.and_then(ends).map(Connection),
            "dst_port": network.and_then(ends).and_then(|(_, target, _)| target?.port),
            "protocol": network.map_or("", |network| &network.protocol),
            "agent_metadata": Some(AgentMetadata),
            "host_metadata": Some(HostMetadata(&event.host)),
            "alert_metadata": Some(AlertMetadata),
            "parent_metadata": event.parent.as_ref().map(ParentMetadata),
        })
    }
}

fn type_of(event: &Event) -> &str {
    match &event.body {
        // What is no start there has the name of its call.
        Some(Body::Credentials(credentials)) if !credentials.call.is_empty() => &credentials.call,
        _ => TYPES.iter().find(|(kind, _)| *kind == event.kind).map_or(&event.kind, |(_, name)| name),
    }
}

/// The call that did it. Empty where that is not known.
fn syscall(event: &Event) -> &str {
    match &event.body {
        Some(Body::Exec(_)) => "execve",
        Some(Body::ExecFailed(failed)) => &failed.call,
        Some(Body::Fork(_)) => "clone",
        Some(Body::Exit(_)) => "exit_group",
        Some(Body::Credentials(credentials)) => &credentials.call,
        Some(Body::File(FileActivity { call, .. }) | Body::Network(NetworkActivity { call, .. }))
            if !call.is_empty() =>
        {
            call
        }
        Some(Body::Network(_)) => match &*event.kind {
            "network.connect" => "connect",
            "network.accept" => "accept",
            _ => "",
        },
        _ => "",
    }
}

/// None where that is not known, and where there is nothing that could have failed.
fn success(event: &Event) -> Option<bool> {
    match &event.body {
        Some(Body::Telemetry(_)) | None => None,
        Some(Body::Network(network)) if matches!(&*network.outcome, "unknown" | "pending") => None,
        Some(_) => Some(error(event).is_empty()),
    }
}

/// The value that the call returned, of an exit that of the process; the name of the error where it failed.
fn exit(event: &Event) -> Option<Exit<'_>> {
    match &event.body {
        Some(Body::Exit(exit)) => exit.code.map(Exit::Code),
        _ => Some(if success(event)? { Exit::Code(0) } else { Exit::Error(error(event)) }),
    }
}

enum Exit<'a> {
    Code(u32),
    Error(&'a str),
}

impl Serialize for Exit<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Code(code) => serializer.collect_str(code),
            Self::Error(error) => serializer.serialize_str(error),
        }
    }
}

/// The files that an exec looked at: the script, if it is one, and the program.
fn paths(event: &Event) -> Option<Vec<&str>> {
    let Some(Body::Exec(exec)) = &event.body else { return None };
    let script = exec.script.as_ref().map(|script| &*script.path);
    let exe = event.process.as_ref()?.exe.as_ref().map(|exe| &*exe.path);
    Some([script, exe].into_iter().flatten().filter(|path| !path.is_empty()).collect())
}

/// `pts1` of `pts/1`.
fn tty(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.replace('/', ""))
}

/// Milliseconds of the time of an event.
struct Header(i64);

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "timestamp": Some(self.0.div_euclid(1000)),
            "milliseconds": Some(self.0.rem_euclid(1000)),
        })
    }
}

type Ends<'a> = (Option<&'a NetworkEndpoint>, Option<&'a NetworkEndpoint>, Option<&'a NetworkEndpoint>);

/// Source, destination and the other side of a connection; none where there are no two sides.
fn ends(network: &NetworkActivity) -> Option<Ends<'_>> {
    let (local, remote) = (network.local.as_ref(), network.remote.as_ref());
    match &*network.direction {
        "outbound" => Some((local, remote, remote)),
        "inbound" => Some((remote, local, remote)),
        _ => None,
    }
}

fn address(end: Option<&NetworkEndpoint>) -> &str {
    end.map_or("", |end| &end.address)
}

struct Connection<'a>(Ends<'a>);

impl Serialize for Connection<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self((source, target, other)) = self;
        object!(serializer, {
            "addr": address(*other),
            "port": other.and_then(|end| end.port),
            "src_addr": address(*source),
            "src_port": source.and_then(|end| end.port),
            "dst_addr": address(*target),
        })
    }
}

struct AgentMetadata;

impl Serialize for AgentMetadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "deployment_mode": "host",
            "version": env!("CARGO_PKG_VERSION"),
            "profile": "threatstack",
            "profile_version": VERSION,
        })
    }
}

struct HostMetadata<'a>(&'a str);

impl Serialize for HostMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, { "hostname": self.0, })
    }
}

/// No rule has seen it.
struct AlertMetadata;

impl Serialize for AlertMetadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "rule_matches": Some(&[(); 0]),
            "match_state": "UNMATCHED",
            "num_matched": Some(0),
            "num_suppressed": Some(0),
        })
    }
}

struct ParentMetadata<'a>(&'a Parent);

impl Serialize for ParentMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parent = self.0;
        object!(serializer, {
            "exe": parent.exe.as_ref().map_or("", |exe| &exe.path),
            "pid": Some(parent.pid),
        })
    }
}
