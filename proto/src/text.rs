//! The one rule for bytes of the kernel that need not be UTF-8: paths, arguments, names of threads.
//!
//! - A byte that is not part of valid UTF-8 is written `\xHH`, two lower-case hex digits.
//! - A backslash directly before an `x` is written `\x5c`.
//! - Nothing else is changed: other backslashes, control characters and zeros stay.
//!
//! So text that is UTF-8 and has no `\x` in it, which is nearly all there is, stays as it is.
//!
//! It can be read back without doubt, as the two signs `\x` stand in the result where an escape begins and
//! nowhere else. A backslash that was kept has after it what was after it in the bytes, and that is no `x`, or
//! the backslash of an escape; the last sign of an escape is a digit.
//!
//! | bytes       | text         |
//! |-------------|--------------|
//! | `\n`        | `\n`         |
//! | `\x41`      | `\x5cx41`    |
//! | `\\x`       | `\\x5cx`     |
//! | FF          | `\xff`       |
//! | `\` FF      | `\\xff`      |
//! | C3 A9       | `é`          |
//! | C3 `x`      | `\xc3x`      |

/// Text of `bytes`, from which [`to_bytes`] makes the same bytes again.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> String {
    if let Ok(text) = str::from_utf8(bytes)
        && !text.contains(r"\x")
    {
        return text.to_owned();
    }
    // Room for two escapes; whatever has more of them is rare.
    let mut text = String::with_capacity(bytes.len() + 6);
    // A backslash and an `x` that follow each other are never in different chunks: between two chunks is a
    // byte that is neither.
    for chunk in bytes.utf8_chunks() {
        let mut parts = chunk.valid().split(r"\x");
        text.extend(parts.next());
        for part in parts {
            text.push_str(r"\x5cx");
            text.push_str(part);
        }
        for &byte in chunk.invalid() {
            push_escape(&mut text, byte);
        }
    }
    text
}

fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push_str(r"\x");
    text.push(DIGITS[usize::from(byte >> 4)].into());
    text.push(DIGITS[usize::from(byte & 15)].into());
}

/// The bytes that [`from_bytes`] was given.
///
/// In text that does not come from there, every `\xHH` with lower-case digits becomes its byte, and a `\x`
/// before anything else is kept.
#[must_use]
pub fn to_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if let [b'\\', b'x', high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            bytes.push(high << 4 | low);
            rest = after;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    bytes
}

fn digit(sign: u8) -> Option<u8> {
    match sign {
        b'0'..=b'9' => Some(sign - b'0'),
        b'a'..=b'f' => Some(sign - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Everything that an escape is made of, and bytes that are UTF-8 only side by side.
    const ALPHABET: [u8; 8] = [b'\\', b'x', b'5', b'c', b'f', 0xff, 0xc3, 0xa9];

    #[test]
    fn bytes_and_their_text() {
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"/bin/true", "/bin/true"),
            ("/srv/caf\u{e9} \u{1f980}".as_bytes(), "/srv/caf\u{e9} \u{1f980}"),
            (b"zero\0tab\t", "zero\0tab\t"),
            // Backslashes.
            (br"\", r"\"),
            (br"\\", r"\\"),
            (br"\n\X41", r"\n\X41"),
            (br"\x", r"\x5cx"),
            (br"\x41", r"\x5cx41"),
            (br"\x5c", r"\x5cx5c"),
            (br"\\x", r"\\x5cx"),
            (br"\x\x", r"\x5cx\x5cx"),
            // Bytes that never are in UTF-8.
            (b"\xff", r"\xff"),
            (b"\\\xff", r"\\xff"),
            (b"\\x\xff", r"\x5cx\xff"),
            (b"\xff\\", r"\xff\"),
            (b"\xffx", r"\xffx"),
            // Cut short, at the end and before another sign.
            (b"a\xc3", r"a\xc3"),
            (b"\xc3x", r"\xc3x"),
            (b"\xf0\x9f\xa6", r"\xf0\x9f\xa6"),
            (b"\xe2\x82\\x", r"\xe2\x82\x5cx"),
            // A byte of continuation alone.
            (b"\xa9", r"\xa9"),
            // Surrogates, overlong forms, beyond U+10FFFF.
            (b"\xed\xa0\x80", r"\xed\xa0\x80"),
            (b"\xc0\xaf", r"\xc0\xaf"),
            (b"\xe0\x80\xaf", r"\xe0\x80\xaf"),
            (b"\xc1\x9cx", r"\xc1\x9cx"),
            (b"\xf4\x90\x80\x80", r"\xf4\x90\x80\x80"),
        ];
        for (bytes, text) in table {
            assert_eq!(from_bytes(bytes), *text);
            assert_eq!(to_bytes(text), *bytes, "{text}");
        }
    }

    #[test]
    fn text_from_elsewhere_keeps_what_is_no_escape() {
        for text in [r"\x", r"\x5", r"\x5g", r"\x5C", r"\xFF", r"\x\n", "\\x\u{e9}"] {
            assert_eq!(to_bytes(text), text.as_bytes());
        }
        assert_eq!(to_bytes(r"\x\x41"), br"\xA");
    }

    /// All strings of up to six signs, a third of a million.
    #[test]
    fn every_short_string_comes_back() {
        let mut bytes = Vec::new();
        for length in 0..=6 {
            for number in 0..ALPHABET.len().pow(length) {
                bytes.clear();
                bytes.extend((0..length).map(|place| ALPHABET[number >> (3 * place) & 7]));
                let text = from_bytes(&bytes);
                assert_eq!(to_bytes(&text), bytes, "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(to_bytes(&from_bytes(&bytes)), bytes);
        }

        #[test]
        fn bytes_that_look_like_escapes_come_back(bytes in vec(select(&ALPHABET[..]), 0..=8)) {
            prop_assert_eq!(to_bytes(&from_bytes(&bytes)), bytes);
        }

        #[test]
        fn escapes_begin_where_the_text_has_a_backslash_before_an_x(bytes in vec(select(&ALPHABET[..]), 0..=8)) {
            for escape in from_bytes(&bytes).split(r"\x").skip(1) {
                let byte = escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                prop_assert!(byte.is_some_and(|byte| byte == b'\\' || byte >= 0x80), "{}", escape);
            }
        }

        #[test]
        fn text_without_the_escape_stays(text in "\\PC*") {
            prop_assume!(!text.contains(r"\x"));
            prop_assert_eq!(from_bytes(text.as_bytes()), text);
        }
    }
}
