//! Events by the fields of the schema rather than by name: all that there are, those to come included.

use nightjar_proto::v1::Event;
use prost::Message as _;
use protox::prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// The message `Event` of the schema.
pub fn event_descriptor() -> MessageDescriptor {
    protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/../proto")])
        .unwrap()
        .open_files(["nightjar/v1/event.proto"])
        .unwrap()
        .descriptor_pool()
        .get_message_by_name("nightjar.v1.Event")
        .unwrap()
}

/// Events that differ from `event` in one field each, which is the first of the pair: another value, or no value.
pub fn variations(descriptor: &MessageDescriptor, event: &Event) -> Vec<(String, Event)> {
    let message = DynamicMessage::decode(descriptor.clone(), event.encode_to_vec().as_slice()).unwrap();
    let as_event = |message: DynamicMessage| Event::decode(message.encode_to_vec().as_slice()).unwrap();
    varied(&message).into_iter().map(|(field, message)| (field, as_event(message))).collect()
}

fn varied(message: &DynamicMessage) -> Vec<(String, DynamicMessage)> {
    let mut all = Vec::new();
    for (field, value) in message.fields() {
        let mut add = |what: String, value: Option<Value>| {
            let mut message = message.clone();
            match value {
                Some(value) => message.set_field(&field, value),
                None => message.clear_field(&field),
            }
            all.push((what, message));
        };
        match value {
            Value::Message(inner) => {
                for (name, inner) in varied(inner) {
                    add(format!("{}.{name}", field.name()), Some(Value::Message(inner)));
                }
            }
            value => add(field.name().to_owned(), Some(other(value))),
        }
        add(format!("{} cleared", field.name()), None);
    }
    all
}

/// A value that is not `value`.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(value) => Value::Bool(!value),
        Value::I32(value) => Value::I32(value.wrapping_add(1)),
        Value::I64(value) => Value::I64(value.wrapping_add(1)),
        Value::U32(value) => Value::U32(value.wrapping_add(1)),
        Value::U64(value) => Value::U64(value.wrapping_add(1)),
        Value::EnumNumber(value) => Value::EnumNumber(value + 1),
        Value::String(value) => Value::String(format!("{value}x")),
        Value::List(values) => Value::List(values.iter().chain(values.last()).cloned().collect()),
        value => unreachable!("events have no {value:?}"),
    }
}

/// Numbers without end, from a seed (xorshift64*).
pub struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap() % limit
    }
}

/// Any event: fields are there or not, with values that no agent would write.
pub fn any_event(descriptor: &MessageDescriptor, numbers: &mut Numbers) -> Event {
    let mut message = any_message(descriptor, numbers);
    // Most should get as far as the tables of the kinds.
    if numbers.below(4) != 0 {
        let kind = nightjar_proto::KINDS[numbers.below(nightjar_proto::KINDS.len())].name;
        message.set_field_by_name("kind", Value::String(kind.to_owned()));
    }
    Event::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn any_message(descriptor: &MessageDescriptor, numbers: &mut Numbers) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if numbers.below(3) == 0 {
            continue;
        }
        let value = if field.is_list() {
            let length = numbers.below(4);
            Value::List((0..length).map(|_| any_value(&field, numbers)).collect())
        } else {
            any_value(&field, numbers)
        };
        message.set_field(&field, value);
    }
    message
}

fn any_value(field: &FieldDescriptor, numbers: &mut Numbers) -> Value {
    const TEXTS: &[&str] = &[
        "",
        " ",
        "/",
        "//",
        "a/",
        "\0",
        "\u{7f}\u{9b}",
        r"\xff\xfe",
        "\"}\n{\"",
        "\u{2028}",
        "\u{1f600}",
        "=",
        "inbound",
        "outbound",
        "ipv4",
        "reset",
        "failed",
        "umount",
        "regular",
        "::1",
        "1.2.3.4%eth0",
        "file.rename",
        "ENOENT",
    ];
    const NUMBERS: &[u64] = &[0, 1, 4096, 65_535, 65_536, 1 << 31, (1 << 32) - 1, 1 << 53, u64::MAX];
    let number = NUMBERS[numbers.below(NUMBERS.len())];
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any number will do")]
    match field.kind() {
        Kind::Message(inner) => Value::Message(any_message(&inner, numbers)),
        Kind::String => match numbers.below(200) {
            0 => Value::String("x".repeat(2_000)),
            _ => Value::String(TEXTS[numbers.below(TEXTS.len())].to_owned()),
        },
        Kind::Bool => Value::Bool(number.is_multiple_of(2)),
        Kind::Uint32 => Value::U32(number as u32),
        Kind::Uint64 => Value::U64(number),
        Kind::Int32 => Value::I32(number as i32),
        Kind::Int64 => Value::I64(number as i64),
        Kind::Enum(_) => Value::EnumNumber(number as i32),
        kind => unreachable!("events have no {kind:?}"),
    }
}
