//! Where secrets are, and what is written in their place.

/// What stands for a secret, by the length of what was there: the class tells a key from a PIN, the exact
/// length would help who guesses. The number is the first length that is too long for the class.
const MARKS: [(usize, &str); 6] = [
    (8, "<redacted:1-7>"),
    (16, "<redacted:8-15>"),
    (32, "<redacted:16-31>"),
    (64, "<redacted:32-63>"),
    (128, "<redacted:64-127>"),
    (usize::MAX, "<redacted:128+>"),
];

/// A part of a text, by its offsets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    pub const fn contains(self, at: usize) -> bool {
        self.start <= at && at < self.end
    }

    /// What is there. Nothing, if the span is not within the text.
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// From this offset on.
    pub fn from(self, start: usize) -> Self {
        Self { start: start.max(self.start).min(self.end), end: self.end }
    }

    /// Without the first bytes.
    pub fn skip(self, count: usize) -> Self {
        self.from(self.start.saturating_add(count))
    }

    /// Without quotes that are around it, or before it where the rest was cut off.
    pub fn unquoted(self, text: &[u8]) -> Self {
        match self.of(text) {
            [first @ (b'"' | b'\''), .., last] if first == last => Self::new(self.start + 1, self.end - 1),
            [b'"' | b'\'', ..] => self.skip(1),
            _ => self,
        }
    }
}

/// The arguments of a block, without the zero bytes that end them.
pub fn arguments(block: &[u8]) -> impl Iterator<Item = Span> {
    let mut rest = Span::new(0, block.len());
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = rest.of(block).iter().position(|&byte| byte == 0).unwrap_or(rest.end - rest.start);
        let argument = Span::new(rest.start, rest.start + length);
        rest = rest.skip(length + 1);
        Some(argument)
    })
}

/// What to mask in a text.
#[derive(Debug, Default)]
pub struct Masks(Vec<Span>);

impl Masks {
    pub fn add(&mut self, span: Span) {
        if !span.is_empty() {
            self.0.push(span);
        }
    }

    /// The text with marks in place of the spans, unless it stays as it is: what is a mark already is left
    /// out of the spans, so that a masked text is not masked again.
    pub fn apply(mut self, text: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        self.merge();
        let mut masked = Vec::with_capacity(text.len());
        let mut copied = 0;
        let mut replace = |secret: Span| {
            if !secret.is_empty() {
                masked.extend_from_slice(&text[copied..secret.start]);
                masked.extend_from_slice(mark(secret.end - secret.start).as_bytes());
                copied = secret.end;
            }
        };
        let mut marks = marks(text).peekable();
        // A mark may reach from one span into the next.
        let mut reached = 0;
        for span in self.0 {
            let mut span = span.from(reached);
            while let Some(mark) = marks.next_if(|mark| mark.start < span.end) {
                replace(Span::new(span.start, mark.start));
                reached = mark.end;
                span = span.from(reached);
            }
            replace(span);
        }
        if copied == 0 {
            return None;
        }
        masked.extend_from_slice(&text[copied..]);
        Some(masked)
    }

    /// In order, with those that touch as one.
    fn merge(&mut self) {
        self.0.sort_unstable_by_key(|span| span.start);
        self.0.dedup_by(|next, span| {
            let touch = next.start <= span.end;
            if touch {
                span.end = span.end.max(next.end);
            }
            touch
        });
    }
}

/// Where the byte is first, marks left out.
pub fn position(text: &[u8], wanted: u8) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == wanted {
            return Some(at);
        }
        at += mark_at(&text[at..]).unwrap_or(1);
    }
    None
}

/// The length of the mark that comes first.
fn mark_at(text: &[u8]) -> Option<usize> {
    let begins = text.first() == Some(&b'<');
    let mark = MARKS.iter().filter(|_| begins).find(|(_, mark)| text.starts_with(mark.as_bytes()));
    mark.map(|(_, mark)| mark.len())
}

/// What stands for so many bytes.
fn mark(length: usize) -> &'static str {
    MARKS.iter().find(|(above, _)| length < *above).map_or(MARKS[MARKS.len() - 1].1, |(_, mark)| mark)
}

/// Marks that are in the text already.
fn marks(text: &[u8]) -> impl Iterator<Item = Span> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += text.get(at..)?.iter().position(|&byte| byte == b'<')?;
            let start = at;
            at += 1;
            if let Some(length) = mark_at(&text[start..]) {
                at = start + length;
                return Some(Span::new(start, at));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str, spans: &[(usize, usize)]) -> Option<String> {
        let mut masks = Masks::default();
        for &(start, end) in spans {
            masks.add(Span::new(start, end));
        }
        masks.apply(text.as_bytes()).map(|text| String::from_utf8(text).expect("cut between characters"))
    }

    #[test]
    fn the_mark_tells_the_class_of_the_length() {
        for (length, expected) in [
            (1, "1-7"),
            (7, "1-7"),
            (8, "8-15"),
            (15, "8-15"),
            (16, "16-31"),
            (31, "16-31"),
            (32, "32-63"),
            (63, "32-63"),
            (64, "64-127"),
            (127, "64-127"),
            (128, "128+"),
            (40_000, "128+"),
        ] {
            assert_eq!(
                masked(&"x".repeat(length), &[(0, length)]),
                Some(format!("<redacted:{expected}>")),
                "{length}"
            );
        }
    }

    #[test]
    fn spans_may_overlap_and_come_in_any_order() {
        assert_eq!(
            masked("0123456789", &[(5, 7), (1, 3), (2, 4)]),
            Some("0<redacted:1-7>4<redacted:1-7>789".into())
        );
        assert_eq!(masked("0123456789", &[(2, 8), (3, 4)]), Some("01<redacted:1-7>89".into()));
    }

    #[test]
    fn marks_are_not_masked_again() {
        let text = "a<redacted:8-15>b<redacted:128+>";
        assert_eq!(masked(text, &[(1, 16)]), None);
        assert_eq!(masked(text, &[(3, 9)]), None);
        assert_eq!(
            masked(text, &[(0, text.len())]),
            Some("<redacted:1-7><redacted:8-15><redacted:1-7><redacted:128+>".into())
        );
        assert_eq!(masked("<redacted:8-15", &[(0, 14)]), Some("<redacted:8-15>".into()), "half a mark");
    }
}
