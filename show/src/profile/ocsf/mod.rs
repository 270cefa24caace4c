//! Open Cybersecurity Schema Framework: an event of the class that fits its kind.
//!
//! Class and activity of each kind are rows of a table in class.rs; what fits no class is a base event. Of the schema's
//! own profiles, `host`, `container` and `linux/linux_users` are used. Every process is in full in one place of the
//! event; `actor.process` of process activity, which would say the same again, has its numbers alone.

mod class;
mod process;
mod rows;
mod target;

use nightjar_proto::v1::{Event, Process, event::Body};
use serde::{Serialize, Serializer};

use self::{
    class::{BASE, Class, PROCESS},
    process::{Device, FullProcess, Reference, User},
    target::{Connection, Endpoint, File, FileResult, Here, Traffic, is_destination},
};
use super::{
    object::{Text, error, millis, object},
    rest::Row,
};

/// Of the published schema.
pub(super) const VERSION: &str = "1.7.0";

/// Profiles of the schema whose attributes may be there.
const PROFILES: &[&str] = &["host", "container", "linux/linux_users"];

const NANOS_PER_MILLI: u64 = 1_000_000;

pub(super) use rows::ROWS;

/// Where the fields of this event go.
pub(super) fn rows(event: &Event) -> &'static [Row] {
    if Class::of(event).number == BASE { rows::BASE_ROWS } else { ROWS }
}

pub(super) struct Ocsf<'a>(pub &'a Event);

impl Serialize for Ocsf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let class = Class::of(event);
        let is_classed = class.number != BASE;
        let subject = event.process.as_ref().filter(|_| class.number == PROCESS);
        let (mut file, mut network) = (None, None);
        match &event.body {
            Some(Body::File(body)) if is_classed => file = Some(body),
            Some(Body::Network(body)) if is_classed => network = Some(body),
            _ => {}
        }
        let here = || Here { host: &event.host, interface: network.map_or("", |network| &network.interface) };
        let (mut source, mut destination) = (None, None);
        if let Some(network) = network {
            source = Some(Endpoint { end: network.local.as_ref(), here: Some(here()) });
            destination = network.remote.as_ref().map(|end| Endpoint { end: Some(end), here: None });
            if is_destination(&event.kind, network) {
                std::mem::swap(&mut source, &mut destination);
            }
        }
        let (start, end) = span(event);
        let error = error(event);
        object!(serializer, {
            "metadata": Some(Metadata { event, profiles: if is_classed { PROFILES } else { &[] } }),
            "time": Some(event.time.as_ref().map_or(0, millis)),
            "category_uid": Some(class.category()),
            "class_uid": Some(class.number),
            "activity_id": Some(class.activity),
            "activity_name": class.activity_name,
            "type_uid": Some(class.kind()),
            "severity_id": Some(class.severity),
            "status_id": status(event),
            "status_code": error,
            "status_detail": network.map_or("", |network| &network.reason),
            "count": file.map(|file| file.count).or(network.map(|network| network.count)).unwrap_or(0),
            "start_time": start,
            "end_time": end,
            "duration": network.map_or(0, |network| network.duration / NANOS_PER_MILLI),
            "device": is_classed.then_some(Device(&event.host)),
            "actor": is_classed.then(|| Actor::of(event, class)).flatten(),
            "process": subject.map(|process| FullProcess { event, process }),
            "exit_code": exit_code(event),
            "launch_type_id": launch_type(event),
            "file": file.map(File),
            "file_result": file.and_then(|file| FileResult::of(&event.kind, file)),
            "src_endpoint": source,
            "dst_endpoint": destination,
            "connection_info": network.map(Connection),
            "traffic": network.and_then(|network| Traffic::of(&event.kind, network)),
        })
    }
}

/// 1: it came about, 2: it failed. None where that is not known, or where there is nothing that can fail.
fn status(event: &Event) -> Option<u32> {
    match &event.body {
        None | Some(Body::Telemetry(_)) => None,
        Some(Body::Network(network)) if matches!(&*network.outcome, "unknown" | "pending") => None,
        Some(_) => Some(if error(event).is_empty() { 1 } else { 2 }),
    }
}

fn exit_code(event: &Event) -> Option<u32> {
    match &event.body {
        Some(Body::Exit(exit)) => exit.code,
        _ => None,
    }
}

/// 2: a copy of the process that launched it; 3: another program in the same process.
fn launch_type(event: &Event) -> u32 {
    match &event.body {
        Some(Body::Fork(_)) => 2,
        Some(Body::Exec(_) | Body::ExecFailed(_)) => 3,
        _ => 0,
    }
}

/// When it began and ended, of what did not happen in a moment.
fn span(event: &Event) -> (Option<i64>, Option<i64>) {
    let (start, end) = match &event.body {
        Some(Body::Telemetry(telemetry)) => (&telemetry.since, &telemetry.until),
        Some(Body::File(file)) => (&file.first_time, &file.last_time),
        Some(Body::Network(network)) => (&network.first_time, &network.last_time),
        _ => (&None, &None),
    };
    (start.as_ref().map(millis), end.as_ref().map(millis))
}

struct Metadata<'a> {
    event: &'a Event,
    profiles: &'a [&'a str],
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { event, profiles } = *self;
        object!(serializer, {
            "version": VERSION,
            "product": Some(Product),
            "profiles": profiles,
            "uid": &event.id,
            "event_code": &event.kind,
            "log_name": "nightjar",
            "log_version": (event.schema != 0).then_some(Text(event.schema)),
            "original_time": event.time.as_ref().and_then(nightjar_proto::time),
        })
    }
}

struct Product;

impl Serialize for Product {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        object!(serializer, {
            "name": "Nightjar",
            "vendor_name": "Nightjar",
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Who did it.
enum Actor<'a> {
    /// The process that is in full elsewhere did it to itself, or its parent launched it.
    Reference(Reference<'a>, Option<User<'a>>),
    Process(FullProcess<'a>, Option<User<'a>>),
    /// The schema wants somebody.
    Unknown,
}

impl<'a> Actor<'a> {
    /// None of classes that require no actor, where nobody is known.
    fn of(event: &'a Event, class: Class) -> Option<Self> {
        let user = |process: &'a Process| User::of(process.uid, &process.user);
        match (&event.process, &event.parent) {
            (Some(_), Some(parent)) if matches!(event.body, Some(Body::Exec(_) | Body::Fork(_))) => {
                Some(Self::Reference(Reference::to_parent(parent), User::of(parent.uid, &parent.user)))
            }
            (Some(process), _) if class.number == PROCESS => {
                Some(Self::Reference(Reference::to(process), user(process)))
            }
            (Some(process), _) => Some(Self::Process(FullProcess { event, process }, user(process))),
            (None, _) => (class.number == class::FILE).then_some(Self::Unknown),
        }
    }
}

impl Serialize for Actor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Reference(process, user) => object!(serializer, {
                "process": Some(process),
                "user": user.as_ref(),
            }),
            Self::Process(process, user) => object!(serializer, {
                "process": Some(process),
                "user": user.as_ref(),
            }),
            Self::Unknown => object!(serializer, { "app_name": "unknown", }),
        }
    }
}
