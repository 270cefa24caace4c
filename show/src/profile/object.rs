//! Objects of JSON as tables: a row for each key, left out where there is nothing to say.

use std::fmt;

use nightjar_proto::v1::{Event, Process, event::Body};
use prost_types::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Writes an object to a [`Serializer`]: of each row the key with the value, if [`Present`].
macro_rules! object {
    ($serializer:expr, { $($key:literal: $value:expr,)* }) => {{
        let mut object = ::serde::Serializer::serialize_map($serializer, None)?;
        $($crate::profile::object::put(&mut object, $key, &$value)?;)*
        ::serde::ser::SerializeMap::end(object)
    }};
}
pub(super) use object;

/// Writes a member of an object unless it is absent.
pub(super) fn put<M: SerializeMap>(
    object: &mut M,
    key: &'static str,
    value: &impl Present,
) -> Result<(), M::Error> {
    if value.is_present() { object.serialize_entry(key, value) } else { Ok(()) }
}

/// A value that can be absent, as those of events are: zero, `false`, empty, or none.
pub(super) trait Present: Serialize {
    /// It is to be written.
    fn is_present(&self) -> bool;
}

macro_rules! present {
    ($($type:ty: |$value:ident| $present:expr;)*) => {$(
        impl Present for $type {
            fn is_present(&self) -> bool {
                let $value = self;
                $present
            }
        }
    )*};
}

present! {
    &str: |text| !text.is_empty();
    &String: |text| !text.is_empty();
    bool: |is| *is;
    u32: |number| *number != 0;
    u64: |number| *number != 0;
}

impl<T: Serialize> Present for Option<T> {
    fn is_present(&self) -> bool {
        self.is_some()
    }
}

impl<T: Serialize> Present for &[T] {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

impl<T: Serialize> Present for &Vec<T> {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

/// Something as text that is no text with us, such as a number.
pub(super) struct Text<T>(pub T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A number as text, absent when zero.
pub(super) fn text(number: u64) -> Option<Text<u64>> {
    (number != 0).then_some(Text(number))
}

/// Arguments as one command line, with a space between each two. Nothing is quoted: that is how those who search for
/// command lines know them.
pub(super) struct CommandLine<'a>(&'a [String]);

/// None when there are no arguments.
pub(super) fn command_line(args: &[String]) -> Option<CommandLine<'_>> {
    (!args.is_empty()).then_some(CommandLine(args))
}

impl fmt::Display for CommandLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, arg) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " " })?;
            f.write_str(arg)?;
        }
        Ok(())
    }
}

impl Serialize for CommandLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What follows the last slash of a path, or the path itself where nothing does.
pub(super) fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => path,
        Some(name) => name,
    }
}

/// Name of the program that a process runs: that of its file, or of its thread where the file is not known.
pub(super) fn program_name<'a>(exe: Option<&'a nightjar_proto::v1::File>, comm: &'a str) -> &'a str {
    exe.map_or(comm, |exe| base_name(&exe.path))
}

/// Milliseconds since 1970.
pub(super) fn millis(time: &Timestamp) -> i64 {
    const NANOS_PER_MILLI: i32 = 1_000_000;
    time.seconds.saturating_mul(1000).saturating_add(time.nanos.div_euclid(NANOS_PER_MILLI).into())
}

/// Name of the effective user: absent in an event where that is the real one.
pub(super) fn effective_user(process: &Process) -> &str {
    if process.euid == process.uid && process.euser.is_empty() { &process.user } else { &process.euser }
}

/// Name of the effective group, as [`effective_user`].
pub(super) fn effective_group(process: &Process) -> &str {
    if process.egid == process.gid && process.egroup.is_empty() { &process.group } else { &process.egroup }
}

/// Name of the error because of which nothing came of it; empty where there was none. What broke a connection that is
/// closed now is another matter.
pub(super) fn error(event: &Event) -> &str {
    match &event.body {
        Some(Body::ExecFailed(failed)) => &failed.errno,
        Some(Body::File(file)) => &file.errno,
        Some(Body::Network(network)) if event.kind != "network.close" => &network.error,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_name_is_what_follows_the_last_slash() {
        for (path, name) in
            [("/usr/bin/env", "env"), ("env", "env"), ("/srv/", "srv"), ("/", "/"), ("//", "//"), ("", "")]
        {
            assert_eq!(base_name(path), name, "{path}");
        }
    }

    #[test]
    fn milliseconds_of_any_time_are_rounded_down_and_never_overflow() {
        for (seconds, nanos, expected) in [
            (1_787_306_400, 123_999_999, 1_787_306_400_123),
            (-1, 999_999_999, -1),
            (0, -1, -1),
            (i64::MAX, i32::MAX, i64::MAX),
            (i64::MIN, 0, i64::MIN),
        ] {
            assert_eq!(millis(&Timestamp { seconds, nanos }), expected, "{seconds} {nanos}");
        }
    }
}
