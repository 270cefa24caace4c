//! An event in columns, and back.
//!
//! An encoded event is taken apart at its top level: what events repeat (kind, host, process, parent) becomes columns
//! of its own, which a dictionary makes small, and the time and the ID, which count upwards, become numbers. What is
//! left is the body and fields of newer agents. Put together again it is the same bytes; an event of which that is not
//! so is kept whole. So nothing is lost of what this program does not know.

use crate::wire::{self, Field, Fields, Value};

/// Numbers of fields of nightjar.v1.Event.
mod number {
    pub const SCHEMA: u32 = 1;
    pub const ID: u32 = 2;
    pub const TIME: u32 = 3;
    pub const KIND: u32 = 4;
    pub const HOST: u32 = 5;
    pub const PROCESS: u32 = 6;
    pub const PARENT: u32 = 7;
    pub const FILE: u32 = 22;
    pub const NETWORK: u32 = 23;
}

/// The parts that an event is kept in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Version of its schema; 0: it is kept whole, in `rest`.
    pub schema: u32,
    /// Nanoseconds since 1970.
    pub time: i64,
    /// The second half of its ID; the first follows from the time.
    pub id: i64,
    /// `process.exec`
    pub kind: &'a str,
    /// Name of the host.
    pub host: &'a str,
    /// Encoded.
    pub process: &'a [u8],
    /// Encoded.
    pub parent: &'a [u8],
    /// All other fields; of an event that is kept whole, all.
    pub rest: &'a [u8],
}

/// What is searched for in an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Searched<'a> {
    /// Process ID.
    pub pid: Option<u32>,
    /// `process.exec_id`, sixteen hex digits.
    pub exec_id: &'a str,
    /// Path of the program.
    pub exe: &'a str,
    /// Real user.
    pub uid: Option<u32>,
    /// Its name.
    pub user: &'a str,
    /// ID of the container.
    pub container: &'a str,
    /// Path of the file that a file event is about.
    pub path: &'a str,
    /// Address of the other side.
    pub remote_address: &'a str,
    /// Port there.
    pub remote_port: Option<u32>,
}

/// Takes events apart. One is used for many, for the sake of its memory.
#[derive(Debug, Default)]
pub struct Splitter {
    rest: Vec<u8>,
    again: Vec<u8>,
}

// === impl Splitter ===

impl Splitter {
    /// Takes an encoded event apart.
    pub fn split<'a>(&'a mut self, event: &'a [u8]) -> Parts<'a> {
        self.rest.clear();
        let mut parts = Parts::default();
        let whole =
            |parts: Parts<'a>| Parts { schema: 0, id: 0, process: &[], parent: &[], rest: event, ..parts };
        let mut id = None;
        for field in Fields::of(event) {
            let Ok(Field { number, value, raw }) = field else { return whole(parts) };
            match (number, value) {
                (number::SCHEMA, _) => parts.schema = value.number32().unwrap_or_default(),
                (number::ID, _) => id = halves(value.text()),
                (number::TIME, _) => parts.time = nanoseconds(value.bytes()),
                (number::KIND, _) => parts.kind = value.text(),
                (number::HOST, _) => parts.host = value.text(),
                (number::PROCESS, _) => parts.process = value.bytes(),
                (number::PARENT, _) => parts.parent = value.bytes(),
                _ => self.rest.extend_from_slice(raw),
            }
        }
        let Some((first, second)) = id else { return whole(parts) };
        parts.id = second;
        if parts.schema == 0 || first != first_half(parts.time) {
            return whole(parts);
        }
        self.again.clear();
        Parts { rest: &self.rest, ..parts }.join(&mut self.again);
        if self.again != event {
            return whole(parts);
        }
        Parts { rest: &self.rest, ..parts }
    }
}

// === impl Parts ===

impl Parts<'_> {
    /// Appends the encoded event.
    pub fn join(&self, to: &mut Vec<u8>) {
        if self.schema != 0 {
            wire::put_number(number::SCHEMA, self.schema.into(), to);
            put_id(self.time, self.id, to);
            put_time(self.time, to);
            wire::put_bytes(number::KIND, self.kind.as_bytes(), to);
            wire::put_bytes(number::HOST, self.host.as_bytes(), to);
            wire::put_bytes(number::PROCESS, self.process, to);
            wire::put_bytes(number::PARENT, self.parent, to);
        }
        to.extend_from_slice(self.rest);
    }
}

// === impl Searched ===

impl<'a> Searched<'a> {
    /// Of the parts of an event.
    #[must_use]
    pub fn of(parts: &Parts<'a>) -> Self {
        let mut searched = Self::default();
        let mut process = parts.process;
        for field in Fields::of(parts.rest).flatten() {
            let body = field.value.bytes();
            match field.number {
                number::FILE => searched.path = get(body, 1).map_or("", Value::text),
                number::NETWORK => {
                    let remote = get(body, 6).map_or(&[][..], Value::bytes);
                    searched.remote_address = get(remote, 1).map_or("", Value::text);
                    searched.remote_port = get(remote, 2).and_then(Value::number32);
                }
                number::PROCESS => process = body,
                _ => {}
            }
        }
        for Field { number, value, .. } in Fields::of(process).flatten() {
            match number {
                2 => searched.exec_id = value.text(),
                3 => searched.pid = value.number32(),
                8 => searched.exe = get(value.bytes(), 1).map_or("", Value::text),
                12 => searched.uid = value.number32(),
                20 => searched.user = value.text(),
                33 => searched.container = get(value.bytes(), 1).map_or("", Value::text),
                _ => {}
            }
        }
        searched
    }
}

/// What a reader decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// `process.exec`
    pub kind: &'a str,
    /// Name of the host.
    pub host: &'a str,
    /// Nanoseconds since 1970.
    pub time: i64,
}

/// Of an encoded event; `None` where it is no message.
#[must_use]
pub fn head(event: &[u8]) -> Option<Head<'_>> {
    let mut head = Head { kind: "", host: "", time: 0 };
    for field in Fields::of(event) {
        let field = field.ok()?;
        match field.number {
            number::KIND => head.kind = field.value.text(),
            number::HOST => head.host = field.value.text(),
            number::TIME => head.time = nanoseconds(field.value.bytes()),
            // Fields are written in the order of their numbers.
            number if number > number::HOST => break,
            _ => {}
        }
    }
    Some(head)
}

fn get(message: &[u8], number: u32) -> Option<Value<'_>> {
    Fields::of(message).flatten().find(|field| field.number == number).map(|field| field.value)
}

/// Of an encoded Timestamp.
fn nanoseconds(timestamp: &[u8]) -> i64 {
    let number = |number| match get(timestamp, number) {
        Some(Value::Number(value)) => value.cast_signed(),
        _ => 0,
    };
    number(1).saturating_mul(1_000_000_000).saturating_add(number(2))
}

fn put_time(time: i64, to: &mut Vec<u8>) {
    let (seconds, nanos) = (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000));
    // At most 10 bytes of seconds and 5 of nanoseconds, each after its tag.
    let mut timestamp = Vec::with_capacity(17);
    wire::put_number(1, seconds.cast_unsigned(), &mut timestamp);
    wire::put_number(2, nanos.cast_unsigned(), &mut timestamp);
    wire::put_varint(u64::from(number::TIME) << 3 | 2, to);
    wire::put_varint(timestamp.len() as u64, to);
    to.extend_from_slice(&timestamp);
}

/// What the agent makes the first half of a UUID of version 7 of: milliseconds, and what is left of the time in twelve
/// bits.
fn first_half(time: i64) -> u64 {
    let time = time.cast_unsigned();
    let (millis, rest) = (time / 1_000_000, time % 1_000_000);
    millis << 16 | 0x7000 | (rest * 4096 / 1_000_000)
}

/// A UUID in two numbers, if it is written as the agent writes it; that is seen when it is put together again.
fn halves(uuid: &str) -> Option<(u64, i64)> {
    let (mut halves, mut digits) = ([0_u64; 2], 0);
    for digit in uuid.bytes().filter_map(|byte| char::from(byte).to_digit(16)) {
        let half = halves.get_mut(digits / 16)?;
        *half = *half << 4 | u64::from(digit);
        digits += 1;
    }
    (digits == 32).then_some((halves[0], halves[1].cast_signed()))
}

fn put_id(time: i64, second: i64, to: &mut Vec<u8>) {
    // By hand, as it is done for each event: format! takes several times as long.
    let mut text = *b"00000000-0000-0000-0000-000000000000";
    let mut value = u128::from(first_half(time)) << 64 | u128::from(second.cast_unsigned());
    for place in text.iter_mut().rev().filter(|place| **place != b'-') {
        *place = b"0123456789abcdef"[usize::try_from(value & 0xf).unwrap_or_default()];
        value >>= 4;
    }
    wire::put_bytes(number::ID, &text, to);
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::{
        Container, Event, Exec, File, FileActivity, NetworkActivity, NetworkEndpoint, Process, event::Body,
    };
    use prost::Message as _;
    use prost_types::Timestamp;

    use super::*;

    fn event(body: Body) -> Event {
        let time = 1_795_374_000_123_456_789;
        let mut id = Vec::new();
        put_id(time, 0x8123_4567_89ab_cdef_u64.cast_signed(), &mut id);
        Event {
            schema: 1,
            id: String::from_utf8(id[2..].to_vec()).unwrap(),
            time: Some(Timestamp { seconds: time / 1_000_000_000, nanos: 123_456_789 }),
            kind: "process.exec".to_owned(),
            host: "web-1".to_owned(),
            process: Some(Process {
                pid: 42,
                exec_id: "0123456789abcdef".to_owned(),
                uid: Some(0),
                user: "root".to_owned(),
                exe: Some(File { path: "/bin/true".to_owned(), ..File::default() }),
                container: Some(Container { id: "c0ffee".to_owned(), ..Container::default() }),
                ..Process::default()
            }),
            parent: None,
            body: Some(body),
        }
    }

    fn round(event: &[u8]) -> (u32, Vec<u8>) {
        let mut splitter = Splitter::default();
        let parts = splitter.split(event);
        let mut joined = Vec::new();
        parts.join(&mut joined);
        (parts.schema, joined)
    }

    #[test]
    fn an_event_that_was_taken_apart_is_the_same_bytes_again() {
        let bytes = event(Body::Exec(Exec::default())).encode_to_vec();
        assert_eq!(round(&bytes), (1, bytes));
    }

    #[test]
    fn fields_of_a_newer_agent_are_kept() {
        let mut bytes = event(Body::Exec(Exec::default())).encode_to_vec();
        wire::put_bytes(900, b"news", &mut bytes);
        assert_eq!(round(&bytes), (1, bytes));
    }

    #[test]
    fn an_event_that_is_written_in_another_way_is_kept_whole() {
        let good = event(Body::Exec(Exec::default()));
        let with_id = |id: &str| Event { id: id.to_owned(), ..good.clone() }.encode_to_vec();
        let mut other_order = b"\x22\x01k".to_vec();
        other_order.extend(good.encode_to_vec());
        let upper_case = with_id(&good.id.to_uppercase());
        for bytes in [vec![], vec![0xff], with_id(""), with_id("x"), upper_case, other_order] {
            assert_eq!(round(&bytes), (0, bytes));
        }
    }

    #[test]
    fn what_is_searched_for_is_found_wherever_it_is() {
        let endpoint =
            NetworkEndpoint { address: "192.0.2.1".to_owned(), port: Some(443), ..Default::default() };
        let network = NetworkActivity { remote: Some(endpoint), ..NetworkActivity::default() };
        let bytes = event(Body::Network(network)).encode_to_vec();
        let mut splitter = Splitter::default();
        let searched = Searched::of(&splitter.split(&bytes));
        assert_eq!((searched.remote_address, searched.remote_port), ("192.0.2.1", Some(443)));
        assert_eq!((searched.pid, searched.uid, searched.user), (Some(42), Some(0), "root"));
        assert_eq!((searched.exe, searched.container), ("/bin/true", "c0ffee"));
        assert_eq!(searched.exec_id, "0123456789abcdef");
        let file = FileActivity { path: "/etc/passwd".to_owned(), ..FileActivity::default() };
        let whole = Event { id: String::new(), ..event(Body::File(file)) }.encode_to_vec();
        let searched = Searched::of(&splitter.split(&whole));
        assert_eq!((searched.path, searched.pid), ("/etc/passwd", Some(42)));
    }
}
