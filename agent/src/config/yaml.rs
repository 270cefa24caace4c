//! YAML as a tree that knows where each part of it stands, and writing of single values.
//!
//! The parser's events are taken one by one, not by its own loader: that one calls itself for each level,
//! so that a file of nothing but dashes would overflow the stack, and it ends at the first mistake.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};
use serde_json::{Number, Value};

use super::text::{quoted, shortened};

/// The most nodes of a file, those that aliases repeat included.
const MAX_NODES: usize = 10_000;
/// The most levels. The configuration has six.
const MAX_DEPTH: usize = 32;
/// Floats below have all digits of whole numbers, which `1e3` then is.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A place in a text, as editors count: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub line: usize,
    pub column: usize,
}

/// A part of a file.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub at: Position,
    pub data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Scalar {
        value: Value,
        /// As it is written, without quotes.
        raw: String,
    },
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Position,
    pub node: Node,
}

/// What is wrong at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: Position,
    pub message: String,
}

/// Reads a file's one document; `None` where it has nothing but comments.
///
/// # Errors
/// All faults up to the first after which the rest cannot be understood.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Vec<Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let taken = match event {
            Ok((event, span)) => reader.take(event, position(span.start)),
            Err(error) => Err(syntax_fault(&error, text)),
        };
        if let Err(fault) = taken {
            reader.faults.push(fault);
            break;
        }
    }
    if reader.faults.is_empty() { Ok(reader.root) } else { Err(reader.faults) }
}

/// A value in one line.
pub(super) fn inline(value: &Value) -> String {
    let mut text = String::new();
    write_inline(&mut text, value);
    text
}

#[derive(Default)]
struct Reader {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    faults: Vec<Fault>,
}

/// A list or mapping whose end has not come.
struct Open {
    at: Position,
    anchor: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, key: Option<Key> },
}

/// What the next node of a mapping belongs to.
enum Key {
    Text(String, Position),
    /// Was complained of; its value is of no use.
    Bad,
}

// === impl Reader ===

impl Reader {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fault(
                        at,
                        "a second document begins here; a file has one: put all above this line, or in a file of \
                         its own",
                    );
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                let value = if style == ScalarStyle::Plain { resolve(&text) } else { Value::from(&*text) };
                let data = Data::Scalar { value, raw: text.into_owned() };
                self.count(1, at)?;
                self.add(Node { at, data }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.begin(at, anchor, Parts::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.begin(at, anchor, Parts::Map { entries: Vec::new(), seen: HashSet::new(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { at, anchor, parts }) = self.open.pop() {
                    let data = match parts {
                        Parts::List(nodes) => Data::List(nodes),
                        Parts::Map { entries, .. } => Data::Map(entries),
                    };
                    self.add(Node { at, data }, anchor);
                }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return fault(at, "this alias stands within what it repeats; write it out");
                };
                // Counted before it is copied: aliases of aliases grow without bounds.
                let node = node.clone();
                self.count(nodes(&node), at)?;
                self.add(node, 0);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return fault(
                at,
                format!("there are more than {MAX_NODES} values up to here; say it in fewer, with globs"),
            );
        }
        Ok(())
    }

    fn begin(&mut self, at: Position, anchor: usize, parts: Parts) -> Result<(), Fault> {
        if self.open.len() == MAX_DEPTH {
            return fault(at, format!("this is more than {MAX_DEPTH} levels deep; no setting is"));
        }
        self.count(1, at)?;
        self.open.push(Open { at, anchor, parts });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.parts) {
            None => self.root = Some(node).filter(|node| !node.is_null()),
            Some(Parts::List(nodes)) => nodes.push(node),
            Some(Parts::Map { entries, seen, key }) => match key.take() {
                Some(Key::Text(key, key_at)) => entries.push(Entry { key, key_at, node }),
                Some(Key::Bad) => {}
                None => {
                    let at = node.at;
                    *key = Some(key_of(node, seen).unwrap_or_else(|message| {
                        self.faults.push(Fault { at, message });
                        Key::Bad
                    }));
                }
            },
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Position) {
        // A lone `!` only says that what follows is text.
        let Some(tag) = tag.filter(|tag| !tag.suffix.is_empty() && tag.suffix != "!") else { return };
        let tag =
            if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { format!("!{}", tag.suffix) };
        let tag = quoted(&tag);
        let message = format!(
            "{tag} without quotes is a YAML tag, and none has a meaning here; write {tag} in quotes, or leave \
             it out"
        );
        self.faults.push(Fault { at, message });
    }
}

fn fault(at: Position, message: impl Into<String>) -> Result<(), Fault> {
    Err(Fault { at, message: message.into() })
}

/// The key that a node is, if it is text and new.
fn key_of(node: Node, seen: &mut HashSet<String>) -> Result<Key, String> {
    let Data::Scalar { value, raw } = node.data else {
        return Err("a list or mapping cannot be the name of a setting; write a name".to_owned());
    };
    if !value.is_string() {
        let raw = shortened(&raw, 40);
        return Err(format!(
            "the name of a setting is text, and {raw:?} is none; write a name, or put it in quotes"
        ));
    }
    if !seen.insert(raw.clone()) {
        return Err(format!("{} is set a second time in the same place; keep one of both", quoted(&raw)));
    }
    Ok(Key::Text(raw, node.at))
}

fn nodes(node: &Node) -> usize {
    1 + match &node.data {
        Data::Scalar { .. } => 0,
        Data::List(parts) => parts.iter().map(nodes).sum(),
        Data::Map(entries) => entries.iter().map(|entry| nodes(&entry.node)).sum(),
    }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

// === impl Node ===

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { value: Value::Null, .. })
    }

    /// What it says, without where.
    pub(super) fn value(&self) -> Value {
        match &self.data {
            Data::Scalar { value, .. } => value.clone(),
            Data::List(nodes) => nodes.iter().map(Self::value).collect(),
            Data::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.node.value())).collect()
            }
        }
    }
}

/// What plain text stands for, by the core schema of YAML 1.2: `yes`, `no`, `on` and `off` are text.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::from(text), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix).filter(|digits| !digits.starts_with('+')) {
            return u64::from_str_radix(digits, radix).ok().map(Number::from);
        }
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let whole = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = whole.parse::<u64>() {
        return Some(number.into());
    }
    if let Ok(number) = whole.parse::<i64>() {
        return Some(number.into());
    }
    // The core schema's floats are those of Rust, but for infinities and the like, which are no use here.
    let float: f64 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and i64 has room for it")]
    match float {
        _ if float.fract() == 0.0 && float.abs() < LARGEST_WHOLE => Some((float as i64).into()),
        _ => Number::from_f64(float),
    }
}

/// What people get wrong most: what the parser says, and what it means.
const SYNTAX: &[(&str, &str)] = &[
    ("tabs disallowed", "there is a tab; indent with spaces"),
    ("tab cannot", "there is a tab; indent with spaces"),
    ("a tab", "there is a tab; indent with spaces"),
    (
        "mapping values are not allowed",
        "a second \":\" in one line; put text that has \": \" in it in quotes, and check the indentation",
    ),
    ("simple key expect", "this line is no \"name: value\"; write it so, and check the indentation"),
    ("did not find expected key", "this line does not fit in with those above; check the indentation"),
    (
        "did not find expected '-' indicator",
        "this line does not fit in with the list above; check the indentation",
    ),
    (
        "sequence entries are not allowed",
        "a list cannot begin here; put its first \"-\" on a line of its own",
    ),
    (
        "expected ',' or ']'",
        "a list that begins with \"[\" does not end; write \"]\" behind it, and \",\" between its parts",
    ),
    (
        "expected ',' or '}'",
        "a mapping that begins with \"{\" does not end; write \"}\" behind it, and \",\" between its parts",
    ),
    ("misplaced bracket", "a bracket closes here that was not opened; remove it"),
    (
        "found unexpected end of stream",
        "a quote is opened and not closed; write the same quote at the end of the text",
    ),
    (
        "unexpected document indicator",
        "a quote is opened and not closed; write the same quote at the end of the text",
    ),
    (
        "escape character",
        "no such \"\\\" escape; write \"\\\\\" for \"\\\", or use single quotes, which have no escapes",
    ),
    (
        "hexadecimal number",
        "no such \"\\\" escape; write \"\\\\\" for \"\\\", or use single quotes, which have no escapes",
    ),
    (
        "character escape code",
        "no such \"\\\" escape; write \"\\\\\" for \"\\\", or use single quotes, which have no escapes",
    ),
    (
        "trailing content after double-quoted",
        "text goes on behind the closing quote; put all of it in the quotes",
    ),
    ("indentation", "this line is not indented like its neighbours; check the indentation"),
    ("recursion limit", "this is too many levels deep; no setting is"),
    ("unprintable character", "there is a character that cannot be shown; remove it"),
];

fn syntax_fault(error: &ScanError, text: &str) -> Fault {
    let at = within(text, position(*error.marker()));
    let info = error.info();
    let word = word_at(text, at);
    if let Some(message) = word.as_deref().and_then(|word| needs_quotes(word, info)) {
        return Fault { at, message };
    }
    let known = SYNTAX.iter().find(|(part, _)| info.contains(part));
    let message = known.map_or_else(
        || format!("this is no valid YAML ({info}); check the quotes and the indentation"),
        |(_, meaning)| (*meaning).to_owned(),
    );
    Fault { at, message }
}

/// What is missing is only missed at the end, on a line that is not there: the end of the last one, then.
fn within(text: &str, at: Position) -> Position {
    let written = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    match written.last() {
        Some((index, line)) if at.line > index + 1 => {
            Position { line: index + 1, column: line.trim_end().chars().count() + 1 }
        }
        _ => at,
    }
}

/// The word that the parser stumbled over.
fn word_at(text: &str, at: Position) -> Option<String> {
    let line: Vec<char> = text.lines().nth(at.line - 1)?.chars().collect();
    let ends = |c: &char| c.is_whitespace() || "[]{},".contains(*c);
    let before = line.iter().take(at.column - 1);
    let start = before.len() - before.rev().take_while(|c| !ends(c)).count();
    Some(line.iter().skip(start).take_while(|c| !ends(c)).collect())
}

/// Globs begin with characters that mean something else to YAML.
fn needs_quotes(word: &str, info: &str) -> Option<String> {
    let first = word.chars().next()?;
    let about_it = ["anchor", "tag", "handle", "character: `"].iter().any(|part| info.contains(part));
    if !about_it || !"*!&%@`".contains(first) {
        return None;
    }
    let word = quoted(word);
    Some(format!("text that begins with \"{first}\" needs quotes; write {word}"))
}

fn write_inline(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(_) | Value::Number(_) => {
            write!(text, "{value}").expect("writing to a string cannot fail");
        }
        Value::String(string) => write_string(text, string),
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_inline(text, value);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            text.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_string(text, key);
                text.push_str(": ");
                write_inline(text, value);
            }
            text.push('}');
        }
    }
}

fn write_string(text: &mut String, string: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    let unit = string.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_quantity = !unit.is_empty() && unit.chars().all(|c| c.is_ascii_alphabetic());
    let begins_well = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        || (is_quantity && !string.starts_with('0'));
    // YAML 1.1, which editors may know, takes these for booleans.
    let other = ["yes", "no", "on", "y", "n"].contains(&string.to_ascii_lowercase().as_str());
    if begins_well && !other && string.chars().all(plain) && resolve(string).is_string() {
        text.push_str(string);
        return;
    }
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' | '\u{a1}'..='\u{1fff}' | '\u{2070}'..='\u{d7ff}' => text.push(c),
            _ => write!(text, "\\U{:08x}", u32::from(c)).expect("writing to a string cannot fail"),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        parse(text).unwrap().map_or(Value::Null, |node| node.value())
    }

    /// The faults as `line:column: message`.
    fn faults(text: &str) -> Vec<String> {
        let faults = parse(text).map(|node| node.map(|node| node.value())).unwrap_err();
        faults.iter().map(|Fault { at, message }| format!("{}:{}: {message}", at.line, at.column)).collect()
    }

    #[track_caller]
    fn assert_fault(text: &str, expected: &str) {
        assert_eq!(faults(text), [expected], "{text:?}");
    }

    #[test]
    fn plain_text_is_read_by_the_core_schema() {
        for (text, expected) in [
            ("", Value::Null),
            ("# nothing", Value::Null),
            ("~", Value::Null),
            ("true", json!(true)),
            ("off", json!("off")),
            ("yes", json!("yes")),
            ("0", json!(0)),
            ("-3", json!(-3)),
            ("+3", json!(3)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("1e300", json!(1e300)),
            (".inf", json!(".inf")),
            ("inf", json!("inf")),
            ("nan", json!("nan")),
            ("1e999", json!("1e999")),
            ("-", json!([null])),
            ("127.0.0.1:80", json!("127.0.0.1:80")),
            ("100MiB", json!("100MiB")),
            ("'0'", json!("0")),
            ("\u{feff}a: b", json!({"a": "b"})),
            ("a: [b, {c: d}]", json!({"a": ["b", {"c": "d"}]})),
            ("! 5", json!(5)),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_part_has_its_place() {
        let root = parse("a:\n  - b\n  - c: 1\n").unwrap().unwrap();
        let Data::Map(entries) = root.data else { panic!("no mapping") };
        let Data::List(items) = &entries[0].node.data else { panic!("no list") };
        assert_eq!(entries[0].key_at, Position { line: 1, column: 1 });
        assert_eq!(items[0].at, Position { line: 2, column: 5 });
        assert_eq!(items[1].at, Position { line: 3, column: 5 });
    }

    #[test]
    fn what_is_no_plain_tree_is_refused() {
        for (text, expected) in [
            (
                "a: 1\n---\nb: 2",
                "2:1: a second document begins here; a file has one: put all above this line, or in a file of its own",
            ),
            ("a: 1\na: 2", r#"2:1: "a" is set a second time in the same place; keep one of both"#),
            (
                "1: 2",
                r#"1:1: the name of a setting is text, and "1" is none; write a name, or put it in quotes"#,
            ),
            ("[a]: 2", "1:1: a list or mapping cannot be the name of a setting; write a name"),
            ("a: &x [*x]", "1:8: this alias stands within what it repeats; write it out"),
            (
                "a: !!str 1",
                r#"1:4: "!!str" without quotes is a YAML tag, and none has a meaning here; write "!!str" in quotes, or leave it out"#,
            ),
            (
                "- !process.fork",
                r#"1:3: "!process.fork" without quotes is a YAML tag, and none has a meaning here; write "!process.fork" in quotes, or leave it out"#,
            ),
        ] {
            assert_fault(text, expected);
        }
    }

    #[test]
    fn broken_yaml_is_explained() {
        for (text, expected) in [
            ("- *", r#"1:3: text that begins with "*" needs quotes; write "*""#),
            ("- keep: {container: *}", r#"1:21: text that begins with "*" needs quotes; write "*""#),
            ("- [a, *.exec]", r#"1:7: text that begins with "*" needs quotes; write "*.exec""#),
            ("a: @x", r#"1:4: text that begins with "@" needs quotes; write "@x""#),
            ("a: `x`", r#"1:4: text that begins with "`" needs quotes; write "`x`""#),
            (
                "a: b: c",
                "1:5: a second \":\" in one line; put text that has \": \" in it in quotes, and check the indentation",
            ),
            ("a:\n\tb: c", "2:2: there is a tab; indent with spaces"),
            ("a: 1\nb", "2:2: this line is no \"name: value\"; write it so, and check the indentation"),
            (
                "a: [b",
                "1:6: a list that begins with \"[\" does not end; write \"]\" behind it, and \",\" between its parts",
            ),
            (
                "a: {b: c",
                "1:9: a mapping that begins with \"{\" does not end; write \"}\" behind it, and \",\" between its parts",
            ),
            ("a: ]", "1:4: a bracket closes here that was not opened; remove it"),
            ("a: 'b", "1:4: a quote is opened and not closed; write the same quote at the end of the text"),
            (
                r#"a: "\d""#,
                r#"1:4: no such "\" escape; write "\\" for "\", or use single quotes, which have no escapes"#,
            ),
            (r#"a: "b" c"#, "1:8: text goes on behind the closing quote; put all of it in the quotes"),
            (
                "a: 1\n  b: 2",
                "2:4: a second \":\" in one line; put text that has \": \" in it in quotes, and check the indentation",
            ),
            ("a:\n  b: 1\n c: 2", "3:2: this line does not fit in with those above; check the indentation"),
            ("a: - b", "1:4: a list cannot begin here; put its first \"-\" on a line of its own"),
            ("a: \u{0}", "1:4: there is a character that cannot be shown; remove it"),
        ] {
            assert_fault(text, expected);
        }
    }

    #[test]
    fn all_faults_of_a_file_are_told() {
        assert_eq!(faults("a: !x 1\na: 2\n3: 4\nb: *").len(), 4);
    }

    #[test]
    fn aliases_repeat_what_they_name() {
        assert_eq!(value("a: &x [1, {b: 2}]\nc: *x"), json!({"a": [1, {"b": 2}], "c": [1, {"b": 2}]}));
        assert_fault("a: *x", r#"1:4: text that begins with "*" needs quotes; write "*x""#);
    }

    #[test]
    fn nothing_grows_without_bounds() {
        let mut laughs = String::from("a0: &a0 [x]\n");
        for i in 1..20 {
            let nine = vec![format!("*a{}", i - 1); 9].join(", ");
            writeln!(laughs, "a{i}: &a{i} [{nine}]").unwrap();
        }
        assert!(faults(&laughs)[0].contains("more than 10000 values"));
        assert!(faults(&"- a\n".repeat(20_000))[0].contains("more than 10000 values"));
        assert!(faults(&"- ".repeat(500_000))[0].contains("levels deep; no setting is"));
        assert!(faults(&"[".repeat(500_000))[0].contains("levels deep; no setting is"));
        assert!(faults(&"? ".repeat(500_000))[0].contains("levels deep; no setting is"));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[-~!*&a-z0-9.:# ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[a-z *:]{1,4}", inner, 0..5)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(expected in any_value()) {
            prop_assert_eq!(value(&format!("a: {}", inline(&expected)))["a"].clone(), expected);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-a1:{}\\[\\],&*!|>'\"%@`#?~ \n\t\u{0}é\u{85}]{0,40}", any in ".{0,20}") {
            let _ = (parse(&text), parse(&any));
        }
    }
}
