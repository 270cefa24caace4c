//! Checks of one file, or one flag, against the schema, and what is said about it.

use std::{collections::BTreeMap, sync::Arc};

use jsonschema::{Draft, Keyword, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use super::{
    schema::{is_section, kind_of_value, schema, settings, shape_at, words},
    shape::{self, Host, TEXTS},
    text::{nearest, quoted, shortened},
    units::{Period, Size},
    yaml,
};

/// Something wrong with a tree of settings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Where, as a JSON pointer.
    pub pointer: String,
    /// The name of the setting is wrong, not its value.
    pub about_name: bool,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Checks trees of settings.
pub(super) struct Checker {
    pub schema: Value,
    validator: Validator,
    /// Paths of all settings, for those that stand in the wrong place.
    paths: Vec<String>,
}

// === impl Checker ===

impl Checker {
    pub(super) fn new(host: Host) -> Self {
        let schema = schema();
        let host = Arc::new(host);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_keyword("x-check", move |parent, name, _| Ok(Box::new(Check::new(parent, name, &host))))
            .build(&schema)
            .expect("the schema made from the types is valid");
        let leaves = settings(&schema).into_iter().filter(|setting| !setting.is_section);
        let paths = leaves.map(|setting| setting.path).collect();
        Self { schema, validator, paths }
    }

    /// All that is wrong; `raw` has the text of a number or the like as it was written.
    pub(super) fn findings<'a>(&self, tree: &Value, raw: impl Fn(&str) -> Option<&'a str>) -> Vec<Finding> {
        let mut unknown = Vec::new();
        // The same value may break several keywords; what our own check says is said best.
        let mut by_value: BTreeMap<String, (bool, String)> = BTreeMap::new();
        for error in self.validator.iter_errors(tree) {
            let pointer = error.instance_path().as_str().to_owned();
            let shape = shape_at(&self.schema, &pointer);
            if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
                unknown.extend(unexpected.iter().map(|name| Finding {
                    pointer: format!("{pointer}/{}", escaped(name)),
                    about_name: true,
                    message: self.unknown(name, &pointer, shape),
                }));
                continue;
            }
            let exact = matches!(error.kind(), ValidationErrorKind::Custom { .. });
            if by_value.get(&pointer).is_some_and(|(was_exact, _)| *was_exact || !exact) {
                continue;
            }
            let found = tree.pointer(&pointer).unwrap_or(&Value::Null);
            let message = in_what(tree, &pointer) + &explain(error.kind(), found, raw(&pointer), shape);
            by_value.insert(pointer, (exact, message));
        }
        let about_values = by_value.into_iter().map(|(pointer, (_, message))| Finding {
            pointer,
            about_name: false,
            message,
        });
        unknown.into_iter().chain(about_values).collect()
    }

    fn unknown(&self, name: &str, above: &str, shape: &Value) -> String {
        let here: Vec<&str> = names(shape).collect();
        let is_setting = above.is_empty() || is_section(shape);
        let what = if is_setting && above.matches('/').count() < 2 { "setting" } else { "name" };
        let unknown = format!("unknown {what} {}", quoted(name));
        if let Some(path) = self.paths.iter().find(|path| *path == name) {
            let (section, rest) = path.split_once('.').unwrap_or(("", path));
            return format!("{unknown}; write \"{section}:\" and, indented below it, \"{rest}: …\"");
        }
        if let Some(name) = nearest(name, here.iter().copied()) {
            return format!("{unknown}; did you mean {}?", quoted(name));
        }
        let elsewhere = self.paths.iter().find(|path| path.rsplit('.').next() == Some(name));
        if let Some((section, _)) =
            elsewhere.and_then(|path| path.split_once('.')).filter(|_| what == "setting")
        {
            return format!("{unknown} in this place; it belongs below \"{section}:\"");
        }
        format!("{unknown}; write one of {}", here.join(", "))
    }
}

fn names(shape: &Value) -> impl Iterator<Item = &str> {
    shape["properties"].as_object().into_iter().flat_map(|all| all.keys().map(String::as_str))
}

/// A part of a JSON pointer (RFC 6901).
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A JSON pointer as messages write it: `filters[2].drop.exe`.
pub(super) fn readable(pointer: &str) -> String {
    let mut path = String::new();
    for name in pointer.split('/').skip(1) {
        let name = shortened(&name.replace("~1", "/").replace("~0", "~"), 80);
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            path = format!("{path}[{name}]");
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(&name);
        }
    }
    path
}

/// The part of a list that a value belongs to, where it has a name.
fn in_what(tree: &Value, pointer: &str) -> String {
    let above = pointer.match_indices('/').map(|(end, _)| &pointer[..end]);
    let mut parts = above.filter(|above| above.ends_with(|c: char| c.is_ascii_digit()));
    let name = parts.find_map(|part| tree.pointer(part)?["name"].as_str());
    let name = name.filter(|_| !pointer.ends_with("/name"));
    name.map_or_else(String::new, |name| format!("in {}: ", quoted(name)))
}

fn explain(error: &ValidationErrorKind, found: &Value, raw: Option<&str>, shape: &Value) -> String {
    let plural =
        |number: u64, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let entries = found.as_array().map_or(0, Vec::len) as u64;
    match error {
        ValidationErrorKind::Custom { message, .. } => message.clone(),
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let example = example(&shape["properties"][name])
                .map_or_else(String::new, |text| format!(", such as {name}: {text}"));
            format!("{} is missing; add it{example}", quoted(name))
        }
        ValidationErrorKind::MinItems { .. } => {
            format!(
                "the list is empty; write at least one part, such as {}",
                example(shape).unwrap_or_default()
            )
        }
        ValidationErrorKind::MaxItems { limit } => {
            format!("{} are too many; at most {limit} are taken", plural(entries, "part", "parts"))
        }
        ValidationErrorKind::UniqueItems => {
            let twice = twice(found).map_or_else(String::new, |text| format!("{text} "));
            format!("{twice}is there more than once; remove the others")
        }
        ValidationErrorKind::MinProperties { .. } | ValidationErrorKind::MaxProperties { .. } => {
            let names: Vec<_> = names(shape).collect();
            format!(
                "a rule is one of {}; write each as a part of the list with its own \"-\"",
                names.join(", ")
            )
        }
        ValidationErrorKind::Minimum { limit } if found.is_number() => {
            format!("{found} is too small; write at least {limit}")
        }
        ValidationErrorKind::Maximum { limit } if found.is_number() => {
            format!("{found} is too large; write at most {limit}")
        }
        _ => format!("found {}; {}", describe(found, raw), instead(found, raw, shape)),
    }
}

fn twice(list: &Value) -> Option<String> {
    let parts = list.as_array()?;
    let again = parts.iter().enumerate().find(|(index, part)| parts[..*index].contains(part));
    again.map(|(_, part)| describe(part, None))
}

fn describe(found: &Value, raw: Option<&str>) -> String {
    match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => raw.map_or_else(|| found.to_string(), |raw| shortened(raw, 80)),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// What to write instead.
fn instead(found: &Value, raw: Option<&str>, shape: &Value) -> String {
    let takes = |name: &str| match &shape["type"] {
        Value::Array(types) => types.iter().any(|one| one == name),
        one => one == name,
    };
    let is_whole = |value: &Value| value.is_number() && takes("integer");
    if let Some(text) = found.as_str() {
        let words: Vec<_> = words(shape).into_iter().map(|(word, _)| word).collect();
        if let Some(word) = nearest(text, words.iter().copied()) {
            return format!("did you mean {word}? Write {}", kind_of_value(shape));
        }
        if takes("array") {
            return format!("write a list: {}", yaml::inline(&Value::from(vec![text])));
        }
        let truth = ["yes", "on", "no", "off"].iter().position(|word| text.eq_ignore_ascii_case(word));
        if let (true, Some(index)) = (takes("boolean"), truth) {
            return format!("write {}", index < 2);
        }
        if takes("integer")
            && !takes("string")
            && let Ok(number) = text.trim().parse::<i64>()
        {
            return format!("write {number}, without quotes");
        }
    }
    if (found.is_boolean() || found.is_number()) && takes("string") && !is_whole(found) {
        let text = raw.map_or_else(|| found.to_string(), str::to_owned);
        if shape["x-check"] != "size" && shape["x-check"] != "period" {
            return format!(
                "write {}, put in quotes where it is meant so: {}",
                kind_of_value(shape),
                quoted(&text)
            );
        }
    }
    if is_section(shape) || takes("object") {
        let names: Vec<_> = names(shape).collect();
        let empty = if found.is_null() { ", or {} for none" } else { "" };
        return format!("write its settings indented below it: {}{empty}", names.join(", "));
    }
    let example = example(shape).map_or_else(String::new, |text| format!(", such as {text}"));
    let leave = if found.is_null() { ", or remove the line" } else { "" };
    format!("write {}{example}{leave}", kind_of_value(shape))
}

fn example(shape: &Value) -> Option<String> {
    let of_default = || shape.get("default").filter(|default| !default.is_null());
    let given = shape["examples"].get(0).or_else(of_default)?;
    // What is said to be one of a few words needs no example.
    (words(shape).is_empty() && !given.is_boolean()).then(|| yaml::inline(given))
}

// === checks of values ===

/// The keyword `x-check`: what a schema cannot say, or not so that somebody understands it.
enum Check {
    Text { row: &'static shape::Text, host: Arc<Host> },
    Quantity { of: Quantity, range: Range },
}

#[derive(Clone, Copy)]
enum Quantity {
    Size,
    Period,
}

/// The keyword `x-range`.
#[derive(Default)]
struct Range {
    least: Option<u64>,
    most: Option<u64>,
    zero: bool,
    power_of_two: bool,
}

impl Check {
    fn new(parent: &Map<String, Value>, name: &Value, host: &Arc<Host>) -> Self {
        let of = match name.as_str() {
            Some("size") => Quantity::Size,
            Some("period") => Quantity::Period,
            name => {
                let row = TEXTS.iter().find(|row| Some(row.check) == name).expect("every check has a row");
                return Self::Text { row, host: Arc::clone(host) };
            }
        };
        let range = parent.get("x-range").map_or_else(Range::default, |range| {
            let limit =
                |name: &str| range.get(name).map(|limit| of.read(limit).expect("ranges are written well"));
            let is = |name: &str| range.get(name) == Some(&Value::Bool(true));
            Range {
                least: limit("least"),
                most: limit("most"),
                zero: is("zero"),
                power_of_two: is("power_of_two"),
            }
        });
        Self::Quantity { of, range }
    }

    fn fault(&self, value: &Value) -> Option<String> {
        match self {
            Self::Text { row, host } => shape::fault(row, value.as_str()?, host),
            Self::Quantity { .. } if !value.is_string() && !value.is_number() => None,
            Self::Quantity { of, range } => match of.read(value) {
                Ok(number) => range.fault(*of, number),
                Err(message) => Some(message),
            },
        }
    }
}

impl<'i> Keyword<'i> for Check {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        self.fault(value).map_or(Ok(()), |message| Err(ValidationError::custom(message)))
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        self.fault(value).is_none()
    }
}

impl Quantity {
    fn read(self, value: &Value) -> Result<u64, String> {
        if let Some(number) = value.as_number().filter(|number| !number.is_u64()) {
            let is = match self {
                Self::Size => "size",
                Self::Period => "span of time",
            };
            return Err(format!(
                "{number} is no {is}; write a whole number and a unit, such as {}",
                self.example()
            ));
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self {
            Self::Size => text.parse().map(Size::bytes).map_err(|error| error.to_string()),
            Self::Period => text.parse().map(Period::millis).map_err(|error| error.to_string()),
        }
    }

    fn show(self, number: u64) -> String {
        match self {
            Self::Size => Size::from_bytes(number).to_string(),
            Self::Period => Period::from_millis(number).to_string(),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Size => "4MiB",
            Self::Period => "30s",
        }
    }
}

impl Range {
    fn fault(&self, of: Quantity, number: u64) -> Option<String> {
        if number == 0 && self.zero {
            return None;
        }
        let shown = of.show(number);
        let or_zero = if self.zero { ", or 0" } else { "" };
        if let Some(least) = self.least.filter(|least| number < *least) {
            return Some(format!("{shown} is too small; write at least {}{or_zero}", of.show(least)));
        }
        if let Some(most) = self.most.filter(|most| number > *most) {
            return Some(format!("{shown} is too large; write at most {}{or_zero}", of.show(most)));
        }
        if !self.power_of_two || number.is_power_of_two() {
            return None;
        }
        let above = number.checked_next_power_of_two().unwrap_or(1 << 63);
        Some(format!("{shown} is not a power of two; write {} or {}", of.show(above / 2), of.show(above)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::shape::tests::host, *};

    /// What is said of a file, each as `setting: message`.
    fn findings(text: &str) -> Vec<String> {
        let tree = yaml::parse(text).unwrap().map_or(Value::Null, |node| node.value());
        let findings = Checker::new(host()).findings(&tree, |_| None);
        let line = |finding: Finding| format!("{}: {}", readable(&finding.pointer), finding.message);
        findings.into_iter().map(line).collect()
    }

    #[test]
    fn what_is_right_is_taken() {
        for text in [
            "{}",
            "json:",
            "json: {file: null, keep: 0, rotate_age: 0, rotate_size: 0, compress: zstd}",
            "filters: [{drop: {}}, {keep: {user: [0, root], container: '*', kind: [process.exit]}}]",
            "history: 4096",
            "tables: {keep_ended: 0}",
            "redact: {enabled: false, flags: [--pin], names: ['*PIN'], patterns: [{name: a, regex: b}]}",
            "files: {fold: 0, watch: [{name: a, paths: [/]}]}",
            "files: {watch: [{name: a, paths: ['/**/b'], ignore: [c], operations: [read, rename], containers: true}]}",
        ] {
            assert_eq!(findings(text), [""; 0], "{text}");
        }
    }

    /// Mistakes, and what is said of each.
    const MISTAKES: &[(&str, &str)] = &[
        // names
        ("kind: []", r#"kind: unknown setting "kind"; did you mean "kinds"?"#),
        (
            "json: {rotate_siez: 1MiB}",
            r#"json.rotate_siez: unknown setting "rotate_siez"; did you mean "rotate_size"?"#,
        ),
        (
            "json: {xyz: 1}",
            r#"json.xyz: unknown setting "xyz"; write one of compress, file, keep, profile, rotate_age, rotate_size"#,
        ),
        (
            "rotate_size: 1MiB",
            r#"rotate_size: unknown setting "rotate_size" in this place; it belongs below "json:""#,
        ),
        (
            "json.keep: 3",
            r#"json.keep: unknown setting "json.keep"; write "json:" and, indented below it, "keep: …""#,
        ),
        (
            "filters: [{drop: {exec: /a}}]",
            r#"filters[0].drop.exec: unknown name "exec"; did you mean "exe"?"#,
        ),
        ("filters: [{allow: {}}]", r#"filters[0].allow: unknown name "allow"; write one of drop, keep"#),
        (
            "<<: {}",
            r#"<<: unknown setting "<<"; write one of backend, environment, files, filters, history, instance, json, kernel, kinds, log, metrics, network, privileges, redact, socket, state, tables"#,
        ),
        (
            "redact: {patterns: [{regex: a}]}",
            r#"redact.patterns[0]: "name" is missing; add it, such as name: "employee token""#,
        ),
        // kinds of values
        (
            "[a]",
            ": found a list; write its settings indented below it: backend, environment, files, filters, history, instance, json, kernel, kinds, log, metrics, network, privileges, redact, socket, state, tables",
        ),
        ("kinds: process.exec", r#"kinds: found "process.exec"; write a list: [process.exec]"#),
        (
            "kinds: {}",
            r#"kinds: found a mapping; write a list of at most 100, each part a glob over kinds, behind "!" where it takes away, such as ["process.*", "!process.fork"]"#,
        ),
        (
            "kinds:",
            r#"kinds: found nothing; write a list of at most 100, each part a glob over kinds, behind "!" where it takes away, such as ["process.*", "!process.fork"], or remove the line"#,
        ),
        (
            "kinds: [1]",
            r#"kinds[0]: found 1; write a glob over kinds, behind "!" where it takes away, put in quotes where it is meant so: "1""#,
        ),
        (
            "kinds: []",
            r#"kinds: the list is empty; write at least one part, such as ["process.*", "!process.fork"]"#,
        ),
        (
            "json: /var/log/x",
            r#"json: found "/var/log/x"; write its settings indented below it: compress, file, keep, profile, rotate_age, rotate_size"#,
        ),
        ("json: {keep: ten}", r#"json.keep: found "ten"; write a whole number from 0 to 10000, such as 10"#),
        ("json: {keep: '10'}", r#"json.keep: found "10"; write 10, without quotes"#),
        ("json: {keep: 1.5}", "json.keep: found 1.5; write a whole number from 0 to 10000, such as 10"),
        ("json: {keep: -1}", "json.keep: -1 is too small; write at least 0"),
        ("json: {keep: 10001}", "json.keep: 10001 is too large; write at most 10000"),
        (
            "json: {file: true}",
            r#"json.file: found true; write an absolute path or "-", put in quotes where it is meant so: "true""#,
        ),
        (
            "json: {file: [a]}",
            r#"json.file: found a list; write an absolute path or "-", such as /var/log/nightjar/events.json"#,
        ),
        ("redact: {enabled: yes}", r#"redact.enabled: found "yes"; write true"#),
        ("redact: {enabled: OFF}", r#"redact.enabled: found "OFF"; write false"#),
        ("redact: {enabled: 1}", "redact.enabled: found 1; write true or false"),
        ("redact: {enabled: }", "redact.enabled: found nothing; write true or false, or remove the line"),
        // words
        ("log: loud", r#"log: found "loud"; write one of off, error, warn, info, debug, trace"#),
        (
            "log: warning",
            r#"log: found "warning"; did you mean warn? Write one of off, error, warn, info, debug, trace"#,
        ),
        ("log: true", "log: found true; write one of off, error, warn, info, debug, trace"),
        (
            "json: {compress: gz}",
            r#"json.compress: found "gz"; did you mean gzip? Write one of none, gzip, zstd"#,
        ),
        // quantities
        ("history: many", r#"history: "many" is no size; write a number and a unit, such as 100MiB"#),
        ("history: -1", "history: -1 is no size; write a whole number and a unit, such as 4MiB"),
        ("history: 1.5", "history: 1.5 is no size; write a whole number and a unit, such as 4MiB"),
        ("history: 1e300", "history: 1e+300 is no size; write a whole number and a unit, such as 4MiB"),
        ("history: [1]", "history: found a list; write a size up to 1GiB, or 0, such as 100MiB"),
        ("history: true", "history: found true; write a size up to 1GiB, or 0, such as 100MiB"),
        ("history: 2GiB", "history: 2GiB is too large; write at most 1GiB, or 0"),
        ("json: {rotate_size: 100M}", r#"json.rotate_size: "100M" has no unit that is known; write 100MiB"#),
        ("json: {rotate_size: 1KiB}", "json.rotate_size: 1KiB is too small; write at least 1MiB, or 0"),
        ("json: {rotate_age: 30}", "json.rotate_age: 30 has no unit; write a unit: 30s"),
        ("json: {rotate_age: 1s}", "json.rotate_age: 1s is too small; write at least 1m, or 0"),
        ("kernel: {ring_size: 3MiB}", "kernel.ring_size: 3MiB is not a power of two; write 2MiB or 4MiB"),
        (
            "kernel: {ring_size: 3000000}",
            "kernel.ring_size: 3000000 is not a power of two; write 2MiB or 4MiB",
        ),
        ("kernel: {ring_size: 0}", "kernel.ring_size: 0 is too small; write at least 1MiB"),
        // lists
        ("environment: [A, B, A]", r#"environment: "A" is there more than once; remove the others"#),
        (
            "environment: [a-b]",
            r#"environment[0]: "a-b" is no name of a variable; write letters, digits and "_", no digit first"#,
        ),
        // rules
        (
            "filters: [{drop: {}, keep: {}}]",
            "filters[0]: a rule is one of drop, keep; write each as a part of the list with its own \"-\"",
        ),
        (
            "filters: [{}]",
            "filters[0]: a rule is one of drop, keep; write each as a part of the list with its own \"-\"",
        ),
        ("filters: [drop]", r#"filters[0]: found "drop"; write its settings indented below it: drop, keep"#),
        (
            "filters: [drop: ]",
            "filters[0].drop: found nothing; write its settings indented below it: cgroup, container, exe, kind, user, or {} for none",
        ),
        (
            "filters: [drop: {exe: }]",
            "filters[0].drop.exe: found nothing; write a path or a glob over paths, or a list of such, such as /usr/bin/true, or remove the line",
        ),
        (
            "filters: [drop: {exe: []}]",
            "filters[0].drop.exe: the list is empty; write at least one part, such as /usr/bin/true",
        ),
        (
            "filters: [drop: {exe: [/a, b]}]",
            r#"filters[0].drop.exe[1]: "b" fits nothing, as a program is known by its whole path; write that, or "*/b""#,
        ),
        ("filters: [drop: {user: -1}]", "filters[0].drop.user: -1 is too small; write at least 0"),
        (
            "filters: [drop: {user: 4294967295}]",
            "filters[0].drop.user: 4294967295 is too large; write at most 4294967294",
        ),
        (
            "filters: [drop: {user: 0.5}]",
            "filters[0].drop.user: found 0.5; write a user's name or number, or a glob over names, or a list of such, such as www-data",
        ),
        (
            "filters: [drop: {container: 12345}]",
            r#"filters[0].drop.container: found 12345; write the ID of a container or its beginning, or "*", or a list of such, put in quotes where it is meant so: "12345""#,
        ),
        // patterns
        (
            "redact: {patterns: [{name: pin, regex: 'a('}]}",
            r#"redact.patterns[0].regex: in "pin": the regular expression is wrong from "(" on (character 2): unclosed group; put "\" before a character that stands for itself"#,
        ),
        (
            "redact: {patterns: [a]}",
            r#"redact.patterns[0]: found "a"; write its settings indented below it: name, regex"#,
        ),
        // policies
        ("watch: []", r#"watch: unknown setting "watch" in this place; it belongs below "files:""#),
        (
            "files: {watch: [{name: a, paths: [/a], recursiv: true}]}",
            r#"files.watch[0].recursiv: unknown name "recursiv"; did you mean "recursive"?"#,
        ),
        (
            "files: {watch: [{name: a}]}",
            r#"files.watch[0]: "paths" is missing; add it, such as paths: [/etc/nginx]"#,
        ),
        (
            "files: {watch: [{name: a, paths: []}]}",
            r#"files.watch[0].paths: in "a": the list is empty; write at least one part, such as [/etc/nginx]"#,
        ),
        (
            "files: {watch: [{name: a, paths: /a}]}",
            r#"files.watch[0].paths: in "a": found "/a"; write a list: [/a]"#,
        ),
        (
            "files: {watch: [{name: web, paths: [/a, '~/b']}]}",
            r#"files.watch[0].paths[1]: in "web": "~/b": "~" is the home of nobody here; write /root, or /home/* for all users"#,
        ),
        (
            "files: {watch: [{name: web, paths: [/a], ignore: ['[^b]']}]}",
            r#"files.watch[0].ignore[0]: in "web": "[^b]": a set of what must not be there begins with "!"; write "[!" instead of "[^""#,
        ),
        (
            "files: {watch: [{name: web, paths: [/a], operations: [attr]}]}",
            r#"files.watch[0].operations[0]: in "web": found "attr"; did you mean attributes? Write one of change, all, open, read, create, modify, close, delete, rename, link, attributes, truncate, copy, mkdir, rmdir"#,
        ),
        (
            "files: {watch: [{name: web, paths: [/a], operations: [read, read]}]}",
            r#"files.watch[0].operations: in "web": "read" is there more than once; remove the others"#,
        ),
        ("files: {fold: 2m}", "files.fold: 2m is too large; write at most 1m, or 0"),
        ("files: {directories: 1}", "files.directories: 1 is too small; write at least 16"),
        (
            "kernel: {bulk_ring_size: 12MiB}",
            "kernel.bulk_ring_size: 12MiB is not a power of two; write 8MiB or 16MiB",
        ),
    ];

    #[test]
    fn every_mistake_is_told_with_what_to_write_instead() {
        for (text, expected) in MISTAKES {
            assert_eq!(findings(text), [*expected], "{text}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_told() {
        let many: Vec<_> = (0..17).map(|i| format!("A{i}")).collect();
        let said = findings(&format!("environment: [{}]", many.join(", ")));
        assert_eq!(said, ["environment: 17 parts are too many; at most 8 are taken"]);
    }

    #[test]
    fn all_mistakes_are_told() {
        let text = "kind: 1\nlog: 2\nfilters: [{drop: {exe: a, user: ''}}, {keep: {kind: b, cgroup: c}}]";
        assert_eq!(findings(text).len(), 6);
    }

    #[test]
    fn numbers_are_repeated_as_they_are_written() {
        let tree = yaml::parse("filters: [drop: {container: 1e5}]").unwrap().unwrap().value();
        let findings = Checker::new(host()).findings(&tree, |_| Some("1e5"));
        assert!(findings[0].message.ends_with("\"1e5\""), "{findings:?}");
    }

    #[test]
    fn what_files_say_cannot_play_tricks_with_pointers_or_terminals() {
        assert_eq!(readable("/a~1b/0/c~0d/\u{1b}[1m"), "a/b[0].c~d.\\u{1b}[1m");
        assert_eq!(findings("'a/b~': 1").len(), 1);
        assert_eq!(findings("\"0\": 1").len(), 1);
    }
}
