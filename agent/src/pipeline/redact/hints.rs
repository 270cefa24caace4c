//! Finds the places of a text that are worth a look, at about one step a byte: nearly all command lines
//! have no secret, and this is all that they cost.
//!
//! The last three bytes, five bits of each, are a number that is kept up to date from byte to byte; a table
//! of bits tells whether any of the words begins like that. Five bits are the same for large and small
//! letters. What else is the same by chance is told when the word is compared.

use super::{mask::Span, names, shapes};

/// Bits of a byte that count.
const BITS: u32 = 5;
/// Those of three bytes.
const MASK: u16 = (1 << (3 * BITS)) - 1;

/// What a place may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before the authority of an address: `://`.
    Address,
    /// Between user and host in the data source names of Go: `@tcp(`.
    DataSource,
    /// The begin of a private key or a certificate.
    Pem,
    /// The begin of a JSON Web Token.
    Jwt,
    /// The begin of a token, by its row.
    Token(usize),
    /// Within a name.
    Name,
}

/// Before the authority of an address.
pub const ADDRESS: &str = "://";
/// Begins a private key or a certificate.
pub const PEM: &str = "-----BEGIN ";

/// A word that is looked for.
struct Word {
    text: Box<[u8]>,
    place: Place,
}

/// The words, by how they begin.
pub struct Hints {
    begins: Box<[u64]>,
    /// In the order of the numbers.
    words: Vec<(u16, Word)>,
}

impl Hints {
    /// What is always looked for, and these names.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let fixed = [
            (ADDRESS, Place::Address),
            ("@tcp(", Place::DataSource),
            ("@unix(", Place::DataSource),
            (PEM, Place::Pem),
            (shapes::JWT, Place::Jwt),
        ];
        let tokens = shapes::prefixes().enumerate().map(|(row, prefix)| (prefix, Place::Token(row)));
        let names = names::HINTS.iter().copied().chain(names).map(|name| (name, Place::Name));
        let mut begins = vec![0; usize::from(MASK) / 64 + 1].into_boxed_slice();
        let mut words = Vec::new();
        for (text, place) in fixed.into_iter().chain(tokens).chain(names) {
            for key in keys(text.as_bytes(), place) {
                begins[usize::from(key) / 64] |= 1 << (key % 64);
                words.push((key, Word { text: text.as_bytes().into(), place }));
            }
        }
        words.sort_by_key(|(key, _)| *key);
        Self { begins, words }
    }

    /// Calls back for each word that is found, in order.
    pub fn find(&self, text: &[u8], mut found: impl FnMut(Span, Place)) {
        let mut key = 0;
        // Two more, for words that end with the text.
        for (end, byte) in text.iter().copied().chain([0, 0]).enumerate() {
            key = next(key, byte);
            if self.begins[usize::from(key) / 64] >> (key % 64) & 1 == 0 {
                continue;
            }
            let Some(start) = end.checked_sub(2) else { continue };
            let first = self.words.partition_point(|(other, _)| *other < key);
            for (_, word) in self.words[first..].iter().take_while(|(other, _)| *other == key) {
                if word.begins(&text[start..]) {
                    found(Span::new(start, start + word.text.len()), word.place);
                }
            }
        }
    }
}

impl Word {
    fn begins(&self, text: &[u8]) -> bool {
        let Some(text) = text.get(..self.text.len()) else { return false };
        if self.place == Place::Name { names::is_same(text, &self.text) } else { *text == *self.text }
    }
}

const fn next(key: u16, byte: u8) -> u16 {
    (key << BITS | (byte & ((1 << BITS) - 1)) as u16) & MASK
}

/// What the number may be where the word begins.
fn keys(word: &[u8], place: Place) -> Vec<u16> {
    let mut keys = vec![0];
    for at in 0..3 {
        let bytes = match word.get(at) {
            Some(b'-' | b'_') if place == Place::Name => b"-_".to_vec(),
            Some(&byte) => vec![byte],
            None => (0..1 << BITS).collect(),
        };
        keys = keys.iter().flat_map(|&key| bytes.iter().map(move |&byte| next(key, byte))).collect();
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, Place)> {
        let mut places = Vec::new();
        Hints::new(["card_no", "id"].into_iter())
            .find(text.as_bytes(), |span, place| places.push((span.start, place)));
        places
    }

    #[test]
    fn words_are_found_wherever_they_are() {
        assert_eq!(found("password"), [(0, Place::Name)]);
        assert_eq!(found("a://-KEY"), [(1, Place::Address), (5, Place::Name)]);
        assert_eq!(found("Card-No id"), [(0, Place::Name), (8, Place::Name)]);
        assert_eq!(found("id"), [(0, Place::Name)]);
        assert_eq!(found("x eyJ EYJ"), [(2, Place::Jwt)]);
    }

    #[test]
    fn nothing_is_found_in_ordinary_text() {
        assert_eq!(found(""), []);
        assert_eq!(found("x"), []);
        assert_eq!(found("gcc -O2 -c /home/bob/src/button.c -o build/button.o"), []);
    }

    #[test]
    fn every_word_is_found_by_itself() {
        let hints = Hints::new(std::iter::empty());
        for (_, word) in &hints.words {
            let mut places = Vec::new();
            hints.find(&word.text, |_, place| places.push(place));
            assert!(places.contains(&word.place), "{}", String::from_utf8_lossy(&word.text));
        }
    }
}
