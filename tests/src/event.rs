//! Events, and what tests expect of them.

use std::{fmt, time::SystemTime};

use serde_json::Value;

/// A line of the agent's JSON.
#[derive(Debug, Clone)]
pub struct Event {
    fields: Value,
    /// When the line was read.
    pub arrived: SystemTime,
    /// Number of the line.
    pub line: usize,
}

/// What can be told of a line before all of it is read, which takes its time.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) kind: String,
    /// Process ID; 0 where nobody did it.
    pub(crate) pid: u32,
}

/// A description of an event: its kind, its process, and values of its fields, which are named by their
/// path: `process.exe.path`.
#[derive(Debug, Clone)]
pub struct Expect {
    pub(crate) kind: &'static str,
    pub(crate) pid: Option<u32>,
    fields: Vec<(String, Expected)>,
}

/// What a field should be.
#[derive(Debug, Clone)]
pub enum Expected {
    /// There, and this.
    Equal(Value),
    /// This, or left out because it is the default of its type.
    EqualOrLeftOut(Value),
    /// Not there.
    Absent,
    /// There, whatever it is.
    Present,
}

/// An exec that succeeded.
#[must_use]
pub fn exec() -> Expect {
    Expect::of("process.exec")
}

/// An exec that failed.
#[must_use]
pub fn exec_failed() -> Expect {
    Expect::of("process.exec_failed")
}

/// A new process.
#[must_use]
pub fn fork() -> Expect {
    Expect::of("process.fork")
}

/// The end of a process.
#[must_use]
pub fn exit() -> Expect {
    Expect::of("process.exit")
}

/// A change of credentials.
#[must_use]
pub fn credentials() -> Expect {
    Expect::of("process.credentials")
}

/// Something that was not seen.
#[must_use]
pub fn loss() -> Expect {
    Expect::of("telemetry.loss")
}

/// Something that was done to a file, as `file.open`.
#[must_use]
pub fn file(kind: &'static str) -> Expect {
    Expect::of(kind)
}

/// Something that was done with a socket, as `network.connect`.
#[must_use]
pub fn network(kind: &'static str) -> Expect {
    Expect::of(kind)
}

/// Whether an event is such, whatever its process where none is named.
#[must_use]
pub fn fits(expect: &Expect, event: &Event) -> bool {
    let is_of_process = expect.pid.is_none_or(|pid| event.get("process.pid") == Some(&pid.into()));
    event.kind() == expect.kind && is_of_process && expect.mismatches(event).is_empty()
}

// === impl Event ===

impl Event {
    pub(crate) fn parse(text: &str, arrived: SystemTime, line: usize) -> Self {
        let fields =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("no line of JSON: {error}: {text}"));
        Self { fields, arrived, line }
    }

    /// The field at a path, if it is there.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.fields, |value, name| value.get(name))
    }

    /// The field at a path.
    #[must_use]
    pub fn field(&self, path: &str) -> &Value {
        self.get(path).unwrap_or_else(|| panic!("there is no {path} in {self}"))
    }

    /// A number.
    #[must_use]
    pub fn number(&self, path: &str) -> u64 {
        self.field(path).as_u64().unwrap_or_else(|| panic!("{path} is no number in {self}"))
    }

    /// A text.
    #[must_use]
    pub fn text(&self, path: &str) -> &str {
        self.field(path).as_str().unwrap_or_else(|| panic!("{path} is no text in {self}"))
    }

    /// The bytes that a text stands for.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        nightjar_proto::text::to_bytes(self.text(path))
    }

    /// The texts of a list; none where it was left out.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<&str> {
        let items = self.get(path).map(|value| value.as_array().expect("a list"));
        items.into_iter().flatten().map(|item| item.as_str().expect("a list of texts")).collect()
    }

    /// Arguments of the process, in bytes.
    #[must_use]
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        self.list("process.args").into_iter().map(nightjar_proto::text::to_bytes).collect()
    }

    /// Nanoseconds since 1970 of a time stamp.
    #[must_use]
    pub fn nanos(&self, path: &str) -> i128 {
        nanos(self.text(path)).unwrap_or_else(|| panic!("{path} is no time in {self}"))
    }

    /// Kind of the event.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("kind")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.fmt(f)
    }
}

/// `2026-08-21T10:00:00.123456789Z`
pub fn nanos(text: &str) -> Option<i128> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.')?;
    let numbers =
        |text: &str, by: char| -> Option<Vec<i64>> { text.split(by).map(|part| part.parse().ok()).collect() };
    let [year, month, day] = numbers(date, '-')?.try_into().ok()?;
    let [hour, minute, second] = numbers(time, ':')?.try_into().ok()?;
    // Days since 1970 in the civil calendar: https://howardhinnant.github.io/date_algorithms.html
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    (fraction.len() == 9).then_some(())?;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(fraction.parse::<u32>().ok()?))
}

// === impl Head ===

impl Head {
    /// Keys come in the order of the schema: the kind is before anything that a process can choose, its
    /// process ID before any of its texts.
    pub(crate) fn of(line: &str) -> Option<Self> {
        if !line.ends_with("}\n") {
            return None;
        }
        let (_, after_kind) = line.split_once(r#""kind":""#)?;
        let (kind, rest) = after_kind.split_once('"')?;
        let pid = rest.split_once(r#""pid":"#).and_then(|(_, digits)| {
            let end = digits.find(|c: char| !c.is_ascii_digit())?;
            digits[..end].parse().ok()
        });
        Some(Self { kind: kind.to_owned(), pid: pid.unwrap_or(0) })
    }
}

// === impl Expect ===

impl Expect {
    fn of(kind: &'static str) -> Self {
        Self { kind, pid: None, fields: Vec::new() }
    }

    fn and(mut self, path: impl Into<String>, expected: Expected) -> Self {
        self.fields.push((path.into(), expected));
        self
    }

    /// Of this process, where it is not the one that was started.
    #[must_use]
    pub fn of_process(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// The field is there and has this value.
    #[must_use]
    pub fn with(self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.and(path, Expected::Equal(value.into()))
    }

    /// The field has this value; it may be left out where that is the default of its type.
    #[must_use]
    pub fn with_or_default(self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.and(path, Expected::EqualOrLeftOut(value.into()))
    }

    /// The field is left out.
    #[must_use]
    pub fn without(self, path: impl Into<String>) -> Self {
        self.and(path, Expected::Absent)
    }

    /// The field is there.
    #[must_use]
    pub fn with_some(self, path: impl Into<String>) -> Self {
        self.and(path, Expected::Present)
    }

    /// Path of the program.
    #[must_use]
    pub fn exe(self, path: impl AsRef<std::path::Path>) -> Self {
        self.with("process.exe.path", path.as_ref().to_str().expect("a path in UTF-8"))
    }

    /// All arguments, the program's name first.
    #[must_use]
    pub fn args(self, args: &[&str]) -> Self {
        self.with("process.args", args)
    }

    /// Value that the process ended with.
    #[must_use]
    pub fn code(self, code: u32) -> Self {
        self.with("exit.code", code).without("exit.signal")
    }

    /// What is at `path` is the file that `rawfile` describes in this line, or in this part of one.
    #[must_use]
    pub fn of_file(self, path: &str, truth: &Value) -> Self {
        let kind = match truth["kind"].as_str() {
            Some("file") => "regular",
            Some("character device") => "char_device",
            Some("block device") => "block_device",
            Some(kind) => kind,
            None => panic!("no file in {truth}"),
        };
        let expect = self.with(format!("{path}.type"), kind);
        let fields = ["inode", "device", "mode", "uid", "gid", "links"];
        let expect = fields
            .iter()
            .fold(expect, |expect, name| expect.with(format!("{path}.{name}"), truth[name].clone()));
        // Of others it is no length.
        if kind == "regular" { expect.with(format!("{path}.size"), truth["size"].clone()) } else { expect }
    }

    /// The socket is the one that `rawnet` describes in this line, and its thread did this.
    #[must_use]
    pub fn of_socket(self, truth: &Value) -> Self {
        self.of_ends(truth).with("process.pid", truth["pid"].clone())
    }

    /// The socket has the ends that `rawnet` describes in this line, whoever did this.
    #[must_use]
    pub fn of_ends(mut self, truth: &Value) -> Self {
        for name in ["protocol", "family", "namespace"] {
            self = self.with(format!("network.{name}"), truth[name].clone());
        }
        for (name, field) in [("loopback", "loopback"), ("mapped", "ipv4_mapped")] {
            self = self.with_or_default(format!("network.{field}"), truth[name].clone());
        }
        for end in ["local", "remote"] {
            self = self.end(&format!("network.{end}"), &truth[end]);
        }
        self
    }

    /// It ends what `rawnet` describes in this line, and so much went both ways.
    #[must_use]
    pub fn of_end(self, truth: &Value) -> Self {
        ["sent", "received"].iter().fold(self.of_socket(truth), |expect, name| {
            expect.with(format!("network.bytes_{name}"), truth[name].clone())
        })
    }

    /// One end of a socket.
    fn end(self, path: &str, truth: &Value) -> Self {
        if truth.is_null() {
            return self.without(path);
        }
        ["address", "port", "scope_id"].iter().fold(self, |expect, name| {
            let path = format!("{path}.{name}");
            truth.get(name).map_or_else(
                || expect.clone().without(&path),
                |value| expect.clone().with(&path, value.clone()),
            )
        })
    }

    /// As it is so far, but for one field, of which this is expected instead.
    #[must_use]
    pub fn but(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.fields.retain(|(field, _)| field != path);
        self.with(path, value)
    }

    /// What is wrong with an event of this kind and process.
    pub(crate) fn mismatches(&self, event: &Event) -> Vec<String> {
        let check = |(path, expected): &(String, Expected)| {
            let found = event.get(path);
            let fits = match expected {
                Expected::Equal(value) => found == Some(value),
                Expected::EqualOrLeftOut(value) => found.map_or(is_default(value), |found| found == value),
                Expected::Absent => found.is_none(),
                Expected::Present => found.is_some(),
            };
            let shown = || found.map_or("absent".to_owned(), |value| shortened(&value.to_string()));
            (!fits).then(|| format!("{path} is {}, expected {expected}", shown()))
        };
        self.fields.iter().filter_map(check).collect()
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    }
}

/// Long arguments help nobody.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 1000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for (path, expected) in &self.fields {
            write!(f, ", {path} {expected}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(value) => f.write_str(&shortened(&value.to_string())),
            Self::EqualOrLeftOut(value) => write!(f, "{} (or left out)", shortened(&value.to_string())),
            Self::Absent => f.write_str("absent"),
            Self::Present => f.write_str("there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(nanos("1970-01-01T00:00:01.000000002Z"), Some(1_000_000_002));
        assert_eq!(nanos("2026-03-01T00:00:00.000000000Z"), Some(1_772_323_200_000_000_000));
        assert_eq!(nanos("2026-03-01T00:00:00Z"), None);
    }

    #[test]
    fn the_head_of_a_line_is_found() {
        let line =
            "{\"schema\":1,\"kind\":\"process.exit\",\"process\":{\"pid\":7},\"parent\":{\"pid\":1}}\n";
        let head = Head::of(line).unwrap();
        assert_eq!((head.kind.as_str(), head.pid), ("process.exit", 7));
        assert!(Head::of(&line[..40]).is_none(), "a line that was cut");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let event = Event::parse(r#"{"kind":"process.exec","process":{"pid":7}}"#, SystemTime::now(), 0);
        let expect =
            exec().with("process.pid", 8).without("process.tty").with_or_default("process.securebits", 0);
        assert_eq!(expect.mismatches(&event), ["process.pid is 7, expected 8"]);
    }
}
