//! The words of a shell command, as far as masking needs them. Substitutions are taken as commands of
//! their own; nothing is resolved.

use super::mask::Span;

/// What a command line is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Without the quotes around it; those within are left in.
    Word(Span),
    /// What follows is another command.
    Break,
    /// What follows is another command, which reads what the one before writes.
    Pipe,
}

/// Splits a text.
#[derive(Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    rest: Span,
}

impl<'a> Tokens<'a> {
    pub const fn new(text: &'a [u8], span: Span) -> Self {
        Self { text, rest: span }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let length = match self.rest.of(self.text) {
                [] => return None,
                [b'<' | b'>', b'&', ..] | [b'&', b'>', ..] => 2,
                [b' ' | b'\t' | b'\r' | b'<' | b'>', ..] => 1,
                [b'$', b'(', ..] | [b'|', b'|', ..] => {
                    self.rest = self.rest.skip(2);
                    return Some(Token::Break);
                }
                [b'|', ..] => {
                    self.rest = self.rest.skip(1);
                    return Some(Token::Pipe);
                }
                [byte, ..] if ends_command(*byte) => {
                    self.rest = self.rest.skip(1);
                    return Some(Token::Break);
                }
                [b'#', rest @ ..] => 1 + rest.iter().take_while(|&&byte| byte != b'\n').count(),
                _ => {
                    let word = Span::new(self.rest.start, word_end(self.text, self.rest));
                    self.rest = self.rest.from(word.end);
                    return Some(Token::Word(bare(self.text, word)));
                }
            };
            self.rest = self.rest.skip(length);
        }
    }
}

const fn ends_command(byte: u8) -> bool {
    matches!(byte, b'\n' | b';' | b'|' | b'&' | b'(' | b')' | b'`')
}

/// Where the word ends that starts with the span.
pub fn word_end(text: &[u8], span: Span) -> usize {
    let mut at = span;
    loop {
        at = match at.of(text) {
            [] | [b' ' | b'\t' | b'\r' | b'<' | b'>', ..] | [b'$', b'(', ..] => return at.start,
            [byte, ..] if ends_command(*byte) => return at.start,
            [b'\\', ..] => at.skip(2),
            [quote @ (b'"' | b'\''), ..] => at.from(quote_end(text, at.skip(1), *quote)).skip(1),
            _ => at.skip(1),
        };
    }
}

/// Where the quoted text ends that starts with the span: at the quote, or with the span.
pub fn quote_end(text: &[u8], span: Span, quote: u8) -> usize {
    let mut at = span;
    loop {
        at = match at.of(text) {
            [] => return span.end,
            [byte, ..] if *byte == quote => return at.start,
            // Within single quotes a shell takes a backslash as it is; other languages do not.
            [b'\\', ..] if quote == b'"' => at.skip(2),
            _ => at.skip(1),
        };
    }
}

/// The word without quotes, where they are around all of it.
fn bare(text: &[u8], word: Span) -> Span {
    match word.of(text) {
        [quote @ (b'"' | b'\''), ..] => {
            let end = quote_end(text, word.skip(1), *quote);
            if end + 1 >= word.end { Span::new(word.start + 1, end) } else { word }
        }
        _ => word,
    }
}

/// Follows whether a place in a text is within quotes. Places have to be asked for in order.
#[derive(Debug, Default)]
pub struct Quotes {
    at: usize,
    quote: Option<u8>,
}

impl Quotes {
    /// The quote that is open there, with quotes counted from the start of the span.
    pub fn open(&mut self, text: &[u8], span: Span, place: usize) -> Option<u8> {
        if self.at < span.start {
            *self = Self { at: span.start, quote: None };
        }
        while self.at < place {
            match (text.get(self.at), self.quote) {
                (Some(b'\\'), None | Some(b'"')) => self.at += 1,
                (Some(&byte), Some(open)) if byte == open => self.quote = None,
                (Some(&byte @ (b'"' | b'\'')), None) => self.quote = Some(byte),
                _ => {}
            }
            self.at += 1;
        }
        self.quote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        Tokens::new(text.as_bytes(), Span::new(0, text.len()))
            .map(|token| match token {
                Token::Word(span) => text[span.start..span.end].to_owned(),
                Token::Break => ";".to_owned(),
                Token::Pipe => "|".to_owned(),
            })
            .collect()
    }

    #[test]
    fn words_come_without_the_quotes_around_them() {
        assert_eq!(tokens(r#"a 'b c' "d \" e" f"g h"i"#), ["a", "b c", r#"d \" e"#, r#"f"g h"i"#]);
        assert_eq!(tokens("a 'b c"), ["a", "b c"], "the end was cut off");
        assert_eq!(tokens(r#""a"'b'"#), [r#""a"'b'"#], "two quoted parts are one word");
    }

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(tokens("a&&b|c;d"), ["a", ";", ";", "b", "|", "c", ";", "d"]);
        assert_eq!(tokens("a || b"), ["a", ";", "b"]);
        assert_eq!(tokens("X=$(a b) c"), ["X=", ";", "a", "b", ";", "c"]);
        assert_eq!(tokens("a 2>&1 >f # b"), ["a", "2", "1", "f"]);
    }

    #[test]
    fn open_quotes_are_followed() {
        let text = br#"a 'b "c' "d\"e" f"#;
        let mut quotes = Quotes::default();
        let span = Span::new(0, text.len());
        let open = [0, 3, 6, 9, 13, 16].map(|place| quotes.open(text, span, place));
        assert_eq!(open, [None, Some(b'\''), Some(b'\''), None, Some(b'"'), None]);
    }
}
