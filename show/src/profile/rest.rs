//! What a profile has no place for: the native form of an event without the fields that went elsewhere.
//!
//! A profile says in a table of [`Row`]s where each field goes. What the table does not name is kept in the native
//! form under one key of the profile, so a field that is added to the schema is never lost by forgetting it.

use std::{
    cell::RefCell,
    io::{self, Write},
};

use nightjar_proto::v1::Event;
use serde::Serialize as _;
use serde_json::ser::{Formatter, Serializer};

/// A field by its native name, and where it goes.
pub type Row = (&'static str, Place);

/// Where a profile puts a field.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// To this field of the profile.
    To(&'static str),
    /// As [`Place::To`], where that holds less than the field does, such as milliseconds of a time in nanoseconds:
    /// the field is kept in the rest as well.
    Less(&'static str),
    /// As [`Place::To`], of events for which this is true; of others it is in the rest.
    When(fn(&Event) -> bool, &'static str),
    /// The field is an object, whose fields go to several places.
    Parts(&'static [Row]),
}

/// Appends `,"KEY":{...}` with the rest of `event`, or nothing where all went elsewhere, to an object that lacks its
/// closing brace.
pub(super) fn append(event: &Event, rows: &'static [Row], key: &str, to: &mut Vec<u8>) {
    let start = to.len();
    to.extend_from_slice(b",\"");
    to.extend_from_slice(key.as_bytes());
    to.extend_from_slice(b"\":");
    let empty = to.len() + b"{}".len();

    let shared = RefCell::new(std::mem::take(to));
    let cutter = Cutter { event, to: &shared, rows: Some(rows), objects: Vec::with_capacity(4) };
    let written = event.serialize(&mut Serializer::with_formatter(Shared(&shared), cutter));
    written.expect("a Vec takes every write and all keys are strings");
    *to = shared.into_inner();
    if to.len() == empty {
        to.truncate(start);
    }
}

/// The bytes, which the serializer appends to and the cutter cuts.
struct Shared<'a>(&'a RefCell<Vec<u8>>);

impl Write for Shared<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts off members that went elsewhere as soon as they are written.
struct Cutter<'a> {
    event: &'a Event,
    to: &'a RefCell<Vec<u8>>,
    /// Of the object that comes next; none where all of it is kept.
    rows: Option<&'static [Row]>,
    /// Those that are open, the outermost first.
    objects: Vec<Object>,
}

/// An object that is being written.
struct Object {
    rows: Option<&'static [Row]>,
    /// A member was kept, so the next one needs a comma.
    has_members: bool,
    /// Where the last member begins, its comma included.
    member: usize,
    /// Where its key begins.
    key: usize,
    /// The last member is to go.
    cut: bool,
}

impl Formatter for Cutter<'_> {
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.objects.push(Object { rows: self.rows, has_members: false, member: 0, key: 0, cut: false });
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let ended = self.objects.pop();
        // What held all that is left elsewhere says nothing; an object that was empty by itself does.
        if let (Some(ended), Some(outer)) = (ended, self.objects.last_mut()) {
            outer.cut |= ended.rows.is_some() && !ended.has_members;
        }
        writer.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, _first: bool) -> io::Result<()> {
        let Some(object) = self.objects.last_mut() else { return Ok(()) };
        object.member = self.to.borrow().len();
        object.key = object.member + usize::from(object.has_members);
        if object.has_members { writer.write_all(b",") } else { Ok(()) }
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        let Some(object) = self.objects.last_mut() else { return Ok(()) };
        (object.cut, self.rows) = (false, None);
        let Some(rows) = object.rows else { return Ok(()) };
        let to = self.to.borrow();
        // Without its quotes: names of fields have nothing that JSON escapes.
        let key = &to[object.key + 1..to.len() - 1];
        match rows.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, place)| *place) {
            None | Some(Place::Less(_)) => {}
            Some(Place::To(_)) => object.cut = true,
            Some(Place::When(is, _)) => object.cut = is(self.event),
            Some(Place::Parts(parts)) => self.rows = Some(parts),
        }
        Ok(())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        let Some(object) = self.objects.last_mut() else { return Ok(()) };
        if object.cut {
            self.to.borrow_mut().truncate(object.member);
        } else {
            object.has_members = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::{File, Process, Telemetry, event::Body};

    use super::*;

    fn rest(event: &Event, rows: &'static [Row]) -> String {
        let mut to = b"{".to_vec();
        append(event, rows, "rest", &mut to);
        String::from_utf8(to).unwrap()
    }

    fn event() -> Event {
        let exe = File { path: "/bin/true".to_owned(), inode: 7, ..File::default() };
        let process = Process { pid: 1, comm: "a,\"}".to_owned(), exe: Some(exe), ..Process::default() };
        let body = Some(Body::Telemetry(Telemetry::default()));
        Event { id: "1".to_owned(), process: Some(process), body, ..Event::default() }
    }

    #[test]
    fn without_rows_the_rest_is_the_native_form() {
        let mut native = Vec::new();
        nightjar_proto::to_json(&event(), &mut native);
        assert_eq!(rest(&event(), &[]), format!("{{,\"rest\":{}", String::from_utf8(native).unwrap()));
    }

    #[test]
    fn what_went_elsewhere_is_cut_wherever_it_stands() {
        const EXE: Place = Place::Parts(&[("path", Place::To("exe"))]);
        let first = &[
            ("id", Place::To("uid")),
            ("process", Place::Parts(&[("pid", Place::To("pid")), ("exe", EXE)])),
        ];
        assert_eq!(
            rest(&event(), first),
            r#"{,"rest":{"process":{"comm":"a,\"}","exe":{"inode":7}},"telemetry":{}}"#
        );
        let last =
            &[("process", Place::Parts(&[("exe", Place::To("exe"))])), ("telemetry", Place::To("loss"))];
        assert_eq!(rest(&event(), last), r#"{,"rest":{"id":"1","process":{"pid":1,"comm":"a,\"}"}}"#);
    }

    #[test]
    fn a_row_can_depend_on_the_event_or_keep_what_it_rounds() {
        const ROWS: &[Row] = &[
            ("id", Place::When(|event| event.id == "2", "uid")),
            ("process", Place::Less("pid")),
            ("telemetry", Place::To("loss")),
        ];
        assert!(rest(&event(), ROWS).starts_with(r#"{,"rest":{"id":"1","process":{"pid":1"#));
    }

    #[test]
    fn nothing_is_appended_where_all_went_elsewhere() {
        const FILE: Place = Place::Parts(&[("path", Place::To("exe")), ("inode", Place::To("inode"))]);
        const PROCESS: Place =
            Place::Parts(&[("pid", Place::To("pid")), ("comm", Place::To("name")), ("exe", FILE)]);
        let rows = &[("id", Place::To("uid")), ("process", PROCESS), ("telemetry", Place::To("loss"))];
        assert_eq!(rest(&event(), rows), "{");
    }
}
