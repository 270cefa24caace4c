//! Patterns of one component of a path: `*`, `?`, `[abc]`, `[!a-z]`.
//!
//! Names are bytes. `?` and a set take one character where the bytes are UTF-8, else one byte. Other than in a
//! shell `*` takes names that begin with a dot too: who watches `/home/*` means all of it.

/// One component of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Component {
    /// This name and no other.
    Literal(Box<[u8]>),
    /// Names that fit.
    Glob(Glob),
    /// `**`: any number of components, also none.
    AnyDepth,
}

/// What names have to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(Box<[Token]>);

/// What is wrong with the text of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[abc`
    #[error("the \"[\" is not closed; write \"]\" after it, or \"\\[\" for a name with that character")]
    Unclosed,
    /// `[]` at the end would be a set of nothing.
    #[error("the range {0:?}-{1:?} is the wrong way round; write {1:?}-{0:?}")]
    Range(char, char),
    /// `[^abc]`
    #[error("a set of what must not be there begins with \"!\"; write \"[!\" instead of \"[^\"")]
    Caret,
    /// `a\`
    #[error("nothing comes after the last \"\\\"; write \"\\\\\" for a name with that character")]
    Escape,
    /// `**.key`
    #[error(
        "\"**\" stands for whole components only; write \"*\" for a part of a name, or \"**/*\" for names at any \
         depth"
    )]
    PartlyAnyDepth,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(Box<[u8]>),
    /// `?`
    One,
    /// `*`
    Any,
    Set {
        negated: bool,
        ranges: Box<[(char, char)]>,
    },
}

/// The first character and how many bytes it has; none where the bytes are not UTF-8.
fn first(name: &[u8]) -> (Option<char>, usize) {
    let length = match name.first() {
        None => return (None, 0),
        Some(&ascii @ 0..0x80) => return (Some(char::from(ascii)), 1),
        Some(0xc0..0xe0) => 2,
        Some(0xe0..0xf0) => 3,
        Some(_) => 4,
    };
    let character = name.get(..length).and_then(|bytes| str::from_utf8(bytes).ok()?.chars().next());
    if character.is_some() { (character, length) } else { (None, 1) }
}

// === impl Component ===

impl Component {
    /// Of text without `/`.
    pub(super) fn parse(text: &str) -> Result<Self, GlobError> {
        if text == "**" {
            return Ok(Self::AnyDepth);
        }
        let mut tokens = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let token = match c {
                '*' if rest.as_str().starts_with('*') => return Err(GlobError::PartlyAnyDepth),
                '*' => Token::Any,
                '?' => Token::One,
                '[' => Token::set(&mut rest)?,
                _ => {
                    let c = if c == '\\' { rest.next().ok_or(GlobError::Escape)? } else { c };
                    literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                tokens.push(Token::Literal(std::mem::take(&mut literal).into()));
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Ok(Self::Literal(literal.into()));
        }
        if !literal.is_empty() {
            tokens.push(Token::Literal(literal.into()));
        }
        Ok(Self::Glob(Glob(tokens.into())))
    }

    /// Whether one name fits.
    pub(super) fn fits(&self, name: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => **literal == *name,
            Self::Glob(glob) => glob.fits(name),
            Self::AnyDepth => true,
        }
    }
}

// === impl Glob ===

impl Glob {
    /// Whether a name fits, in time of the product of both lengths at worst.
    pub(super) fn fits(&self, name: &[u8]) -> bool {
        let (mut at, mut rest) = (0, name);
        // The last `*`, and what was left of the name there: it takes more when what comes after does not fit.
        let mut any = None;
        loop {
            match self.0.get(at) {
                Some(Token::Any) => {
                    at += 1;
                    any = Some((at, rest));
                    continue;
                }
                Some(token) => {
                    if let Some(after) = token.take(rest) {
                        (at, rest) = (at + 1, after);
                        continue;
                    }
                }
                None if rest.is_empty() => return true,
                None => {}
            }
            match any {
                Some((after, left)) if !left.is_empty() => {
                    let left = &left[first(left).1..];
                    any = Some((after, left));
                    (at, rest) = (after, left);
                }
                _ => return false,
            }
        }
    }
}

// === impl Token ===

impl Token {
    /// What comes after `[`.
    fn set(rest: &mut std::str::Chars<'_>) -> Result<Self, GlobError> {
        let negated = rest.as_str().starts_with('!');
        if negated {
            rest.next();
        } else if rest.as_str().starts_with('^') {
            return Err(GlobError::Caret);
        }
        let mut ranges = Vec::new();
        loop {
            let start = match rest.next().ok_or(GlobError::Unclosed)? {
                // The first is a member: a set has at least one.
                ']' if !ranges.is_empty() => return Ok(Self::Set { negated, ranges: ranges.into() }),
                '\\' => rest.next().ok_or(GlobError::Unclosed)?,
                c => c,
            };
            let mut ahead = rest.clone();
            let end = match (ahead.next(), ahead.next()) {
                // A `-` before the end is a member.
                (Some('-'), Some(end)) if end != ']' => {
                    let end = if end == '\\' { ahead.next().ok_or(GlobError::Unclosed)? } else { end };
                    *rest = ahead;
                    end
                }
                _ => start,
            };
            if start > end {
                return Err(GlobError::Range(start, end));
            }
            ranges.push((start, end));
        }
    }

    /// What is left of a name after this, which is not [`Token::Any`].
    fn take<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        if let Self::Literal(literal) = self {
            return name.strip_prefix(&**literal);
        }
        if name.is_empty() {
            return None;
        }
        let (character, length) = first(name);
        let takes = match self {
            Self::Set { negated, ranges } => {
                let is_in = |c| ranges.iter().any(|(start, end)| (*start..=*end).contains(&c));
                character.is_some_and(is_in) != *negated
            }
            _ => true,
        };
        takes.then(|| &name[length..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: impl AsRef<[u8]>) -> bool {
        Component::parse(pattern).unwrap().fits(name.as_ref())
    }

    #[test]
    fn names_fit_globs() {
        for (pattern, name, does) in [
            ("shadow", "shadow", true),
            ("shadow", "shadow-", false),
            ("*", "", true),
            ("*", ".hidden", true),
            ("*.swp", ".passwd.swp", true),
            ("*.swp", ".passwd.swpx", false),
            ("ssh_host_*_key", "ssh_host_rsa_key", true),
            ("ssh_host_*_key", "ssh_host_rsa_key.pub", false),
            ("ssh_host_*_key", "ssh_host__key_key", true),
            ("?", "é", true),
            ("*??", "é", false),
            ("??", "é", false),
            ("*??", "€", false),
            ("[abc]x", "bx", true),
            ("[!a-z]x", "bx", false),
            ("[!a-z]x", "Bx", true),
            ("[]]", "]", true),
            ("[a-]", "-", true),
            ("[à-ü]", "é", true),
            ("[\\]]", "]", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            (r"a\[b*", "a[b]", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(fits(pattern, name), does, "{pattern} {name}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_one_each() {
        assert!(fits("a?b", b"a\xffb"));
        assert!(fits("[!a]", b"\xff"));
        assert!(!fits("[a-z]", b"\xff"));
        assert!(fits("*", b"\xff\xfe"));
        assert!(!fits("?", b"\xe2\x82"));
    }

    #[test]
    fn what_is_no_glob_is_named() {
        for (text, error) in [
            ("[abc", GlobError::Unclosed),
            ("[", GlobError::Unclosed),
            ("[]", GlobError::Unclosed),
            ("[!]", GlobError::Unclosed),
            ("[z-a]", GlobError::Range('z', 'a')),
            ("[^a]", GlobError::Caret),
            ("a\\", GlobError::Escape),
            ("**.key", GlobError::PartlyAnyDepth),
            ("a**", GlobError::PartlyAnyDepth),
        ] {
            assert_eq!(Component::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!fits(&"*a".repeat(60), "a".repeat(59)));
        assert!(!fits(&("*a".repeat(20) + "b"), "a".repeat(255)));
    }
}
