//! Text that goes into messages.

/// The most characters of somebody's text that a message repeats.
const LONGEST: usize = 80;

/// In quotes, on one line, not too long: what a file says may be anything.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text, LONGEST).replace('"', "\\\""))
}

/// The beginning of a text, with what a terminal might act on escaped.
pub(super) fn shortened(text: &str, longest: usize) -> String {
    let mut short: String = text.chars().take(longest).flat_map(harmless).collect();
    if text.chars().nth(longest).is_some() {
        short.push('…');
    }
    short
}

fn harmless(c: char) -> impl Iterator<Item = char> {
    // Controls, and marks that turn the direction of what follows.
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let harmful = c.is_control() || turns || c == '\u{feff}';
    let escaped = harmful.then(|| c.escape_default());
    escaped.into_iter().flatten().chain((!harmful).then_some(c))
}

/// Of the names, the one that somebody probably meant.
pub(super) fn nearest<'a>(meant: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer ones are nobody's slip of the finger, and comparing takes the square of the time.
    if meant.len() > 64 {
        return None;
    }
    let lower = meant.to_lowercase();
    let likely = |name: &&str| strsim::jaro_winkler(&lower, name) > 0.85;
    let by_distance = |name: &&str| strsim::damerau_levenshtein(&lower, name);
    names.into_iter().filter(likely).min_by_key(by_distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_to_a_terminal() {
        assert_eq!(quoted("a\"b\n\x1b[31m\u{202e}c"), r#""a\"b\n\u{1b}[31m\u{202e}c""#);
        assert_eq!(shortened(&"é".repeat(9), 3), "ééé…");
        assert_eq!(shortened("ééé", 3), "ééé");
    }

    #[test]
    fn slips_of_the_finger_are_recognised() {
        let names = ["kinds", "filters", "rotate_size", "rotate_age"];
        for (meant, name) in [
            ("kind", Some("kinds")),
            ("Filter", Some("filters")),
            ("rotate_siez", Some("rotate_size")),
            ("xyz", None),
        ] {
            assert_eq!(nearest(meant, names), name, "{meant}");
        }
        assert_eq!(nearest(&"k".repeat(1 << 20), names), None);
    }
}
