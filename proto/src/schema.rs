//! What is said of the schema to people and to other programs; build/ writes it from the .proto files.

/// JSON Schema (2020-12) of the line that [`to_json`](crate::to_json) makes of a valid event, as indented JSON.
///
/// It is that of this build: it refuses keys and kinds that this build does not know. Beside the words of the
/// standard it has `x-unit`, `x-source` and `x-trust` of `nightjar/v1/options.proto`.
pub const EVENT_SCHEMA: &str = include_str!(concat!(env!("OUT_DIR"), "/event.schema.json"));

/// JSON Schema (2020-12) of what [`status_to_json`](crate::status_to_json) makes of a status, as indented JSON.
pub const STATUS_SCHEMA: &str = include_str!(concat!(env!("OUT_DIR"), "/status.schema.json"));

/// The documentation of events: what a line is, all kinds and all fields, an example of each kind. Markdown.
pub const EVENTS_MARKDOWN: &str = include_str!(concat!(env!("OUT_DIR"), "/events.md"));

/// A kind of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    /// As in [`Event::kind`](crate::v1::Event::kind): `process.exec`.
    pub name: &'static str,
    /// Exported unless the configuration says otherwise; the others only when asked for.
    pub by_default: bool,
    /// When there is such an event, in a sentence or two.
    pub description: &'static str,
}

/// Every kind of events, in the order of their bodies in the schema.
pub const KINDS: &[Kind] = include!(concat!(env!("OUT_DIR"), "/kinds.rs"));
