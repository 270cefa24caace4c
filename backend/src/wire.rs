//! Protobuf as it lies in memory: the fields of a message, without decoding it.
//!
//! The backend keeps events as it got them, those of newer agents too, whose fields it does not know. All that it
//! needs of an event it takes by the number of a field. The encoding: <https://protobuf.dev/programming-guides/encoding/>

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Number of the field in its message.
    pub number: u32,
    /// What is in it.
    pub value: Value<'a>,
    /// Tag, length and value, as they are in the message.
    pub raw: &'a [u8],
}

/// What is in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Integers, booleans and enums.
    Number(u64),
    /// Text, bytes and messages.
    Bytes(&'a [u8]),
    /// Eight or four bytes, which no field here has.
    Fixed,
}

/// These bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message")]
pub struct Malformed;

/// The fields of a message, in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

/// Takes a varint from the beginning of `bytes`.
#[must_use]
pub fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

/// Appends a varint.
pub fn put_varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(low(value) | 0x80);
        value >>= 7;
    }
    to.push(low(value));
}

/// The last seven bits.
fn low(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or_default()
}

/// Appends a field of bytes, unless it is empty, which proto3 leaves out.
pub fn put_bytes(number: u32, value: &[u8], to: &mut Vec<u8>) {
    if !value.is_empty() {
        put_varint(u64::from(number) << 3 | 2, to);
        put_varint(value.len() as u64, to);
        to.extend_from_slice(value);
    }
}

/// Appends a field with a number, unless it is 0, which proto3 leaves out.
pub fn put_number(number: u32, value: u64, to: &mut Vec<u8>) {
    if value != 0 {
        put_varint(u64::from(number) << 3, to);
        put_varint(value, to);
    }
}

/// Messages one after another, each after its length as a varint.
pub struct Delimited<'a>(pub &'a [u8]);

impl<'a> Iterator for Delimited<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message =
            varint(self.0).and_then(|(length, rest)| rest.split_at_checked(usize::try_from(length).ok()?));
        let Some((message, rest)) = message else {
            self.0 = &[];
            return Some(Err(Malformed));
        };
        self.0 = rest;
        Some(Ok(message))
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Of an encoded message.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take(&mut self) -> Option<Field<'a>> {
        let all = self.0;
        let (tag, rest) = varint(all)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let (value, rest) = match tag & 7 {
            0 => varint(rest).map(|(value, rest)| (Value::Number(value), rest))?,
            1 => (Value::Fixed, rest.get(8..)?),
            5 => (Value::Fixed, rest.get(4..)?),
            2 => {
                let (length, rest) = varint(rest)?;
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Value::Bytes(value), rest)
            }
            _ => return None,
        };
        self.0 = rest;
        Some(Field { number, value, raw: &all[..all.len() - rest.len()] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.take();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    /// Bytes; of a number none.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// A number of 32 bits; `None` of anything else.
    #[must_use]
    pub fn number32(self) -> Option<u32> {
        match self {
            Self::Number(number) => u32::try_from(number).ok(),
            _ => None,
        }
    }

    /// Text; empty where it is none.
    #[must_use]
    pub fn text(self) -> &'a str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn the_fields_of_what_prost_wrote_are_found() {
        let message = Timestamp { seconds: 300, nanos: 7 }.encode_to_vec();
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!((fields[0].number, fields[0].value), (1, Value::Number(300)));
        assert_eq!((fields[1].number, fields[1].value), (2, Value::Number(7)));
        assert_eq!([fields[0].raw, fields[1].raw].concat(), message);
    }

    #[test]
    fn bytes_that_are_no_message_end_in_an_error_and_not_in_a_panic() {
        for length in 0..64 {
            let _no_panic = Fields::of(&vec![0xff; length]).count();
            let _no_panic = Delimited(&vec![0xff; length]).count();
        }
        assert_eq!(Fields::of(&[0x0a, 5, 1]).next(), Some(Err(Malformed)));
        assert_eq!(Delimited(&[5, 1]).next(), Some(Err(Malformed)));
    }
}
