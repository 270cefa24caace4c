//! Kinds of text that settings take: what each is called, what it looks like, how it is checked.
//!
//! One row of [`TEXTS`] is all there is of a kind of text: the schema, the docs and the messages are made
//! from it.

use std::{collections::HashSet, fs::File, io::Read, net::SocketAddr, path::PathBuf};

use regex::bytes::RegexBuilder;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use wildmatch::WildMatch;

use super::{
    model::{Match, Pattern, Rule, Watch, without_not},
    policies::{OPERATIONS, ignore_fault, path_fault as watched_path_fault},
    text::{nearest, quoted, shortened},
};
use crate::{deliver::connect::Target, files::policy::MAX_POLICIES};

/// The most bytes of a text: as long as a path may be.
const LONGEST_TEXT: usize = 4096;
/// The most bytes of a path to a socket, `sun_path` without the zero at its end (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;
/// The most bytes that a compiled regular expression may take, as with the one who looks for it.
const LARGEST_REGEX: usize = 256 << 10;
/// The most bytes that are read of `/etc/group`.
const LARGEST_GROUP_FILE: u64 = 16 << 20;

/// What checks need to know of the host and the agent.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub known_kinds: Vec<String>,
    pub group_file: PathBuf,
    /// Whether the agent runs as root, so that whoever writes its files tells root what to do.
    pub is_root: bool,
}

/// A kind of text.
pub(super) struct Text {
    /// As `x-check` has it.
    pub check: &'static str,
    /// What it is, with its article.
    is: &'static str,
    example: &'static str,
    /// For editors, which do not know `x-check`.
    pattern: Option<&'static str>,
    /// What is wrong with one and what to write instead.
    pub fault: fn(&str, &Host) -> Option<String>,
}

pub(super) const TEXTS: &[Text] = &[
    Text {
        check: "kind",
        is: "a kind of event or a glob over kinds",
        example: "process.*",
        pattern: None,
        fault: kind_fault,
    },
    Text {
        check: "kind-or-not",
        is: "a glob over kinds, behind \"!\" where it takes away",
        example: "!process.fork",
        pattern: None,
        fault: |glob, host| kind_fault(without_not(glob), host),
    },
    Text {
        check: "exe",
        is: "a path or a glob over paths",
        example: "/usr/bin/true",
        pattern: Some("^[/*?]"),
        fault: |glob, _| path_glob_fault(glob, "a program is known by its whole path"),
    },
    Text {
        check: "user",
        is: "a user's name or number, or a glob over names",
        example: "www-data",
        pattern: None,
        fault: |glob, _| empty_fault(glob),
    },
    Text {
        check: "container",
        is: "the ID of a container or its beginning, or \"*\"",
        example: "4f79ab21c0de",
        pattern: Some("^(\\*|[^*?]+)$"),
        fault: container_fault,
    },
    Text {
        check: "cgroup",
        is: "the path of a cgroup or a glob over such paths",
        example: "/system.slice/cron.service",
        pattern: Some("^[/*?]"),
        fault: |glob, _| path_glob_fault(glob, "a cgroup is known by its whole path"),
    },
    Text {
        check: "variable",
        is: "the name of an environment variable",
        example: "LD_PRELOAD",
        pattern: Some("^[A-Za-z_][A-Za-z0-9_]{0,63}$"),
        fault: variable_fault,
    },
    Text {
        check: "flag",
        is: "a flag with its dashes",
        example: "--pin",
        pattern: Some("^-+[A-Za-z0-9_.-]{2,}$"),
        fault: flag_fault,
    },
    Text {
        check: "name",
        is: "a name or a glob over names",
        example: "*_PIN",
        pattern: Some("^[A-Za-z0-9_.*?-]{2,}$"),
        fault: name_fault,
    },
    Text {
        check: "pattern-name",
        is: "a name",
        example: "employee token",
        pattern: Some("^\\S"),
        fault: |name, _| empty_fault(name.trim()),
    },
    Text {
        check: "regex",
        is: "a regular expression",
        example: "emp_[0-9a-f]{32}",
        pattern: None,
        // Below the pattern it belongs to, which has the name: see `Pattern`.
        fault: |regex, _| regex_fault(regex),
    },
    Text {
        check: "policy-name",
        is: "a name",
        example: "web server",
        pattern: Some("^\\S"),
        fault: |name, _| empty_fault(name.trim()),
    },
    Text {
        check: "watched-path",
        is: "an absolute path or a glob over paths",
        example: "/etc/nginx",
        pattern: Some("^/"),
        fault: |glob, _| watched_path_fault(glob),
    },
    Text {
        check: "ignored",
        is: "a glob over names of files or over whole paths",
        example: "*.swp",
        pattern: Some("^(/.*|[^/]+)$"),
        fault: |glob, _| ignore_fault(glob),
    },
    Text {
        check: "unix-socket",
        is: "the absolute path of a unix socket, or \"@\" and an abstract name",
        example: "/run/docker.sock",
        pattern: Some("^(/.*[^/]|@.+)$"),
        fault: unix_socket_fault,
    },
    Text {
        check: "json-file",
        is: "an absolute path or \"-\"",
        example: "/var/log/nightjar/events.json",
        pattern: Some("^(-|/.*[^/])$"),
        fault: |path, _| (path != "-").then(|| path_fault(path)).flatten(),
    },
    Text {
        check: "socket-path",
        is: "an absolute path",
        example: "/run/nightjar/default.sock",
        pattern: Some("^/.*[^/]$"),
        fault: socket_path_fault,
    },
    Text { check: "group", is: "the name of a group", example: "adm", pattern: None, fault: group_fault },
    Text {
        check: "address",
        is: "an address with a port",
        example: "127.0.0.1:9464",
        pattern: Some(":[0-9]+$"),
        fault: address_fault,
    },
    Text {
        check: "directory",
        is: "the absolute path of a directory",
        example: "/var/lib/nightjar/default",
        pattern: Some("^/.*[^/]$"),
        fault: |path, _| directory_fault(path),
    },
    Text {
        check: "backend-address",
        is: "the URL of a backend",
        example: "https://nightjar.example.com:4317",
        pattern: Some("^https?://"),
        fault: |address, _| backend_address_fault(address),
    },
    Text {
        check: "server-name",
        is: "a DNS name or an IP address",
        example: "nightjar.example.com",
        pattern: None,
        fault: |name, _| server_name_fault(name),
    },
    Text {
        check: "proxy",
        is: "the URL of an HTTP proxy",
        example: "http://proxy.example.com:3128",
        pattern: Some("^http://"),
        fault: |url, _| proxy_fault(url),
    },
    Text {
        check: "instance",
        is: "a name of lower-case letters, digits and dashes, at most 32",
        example: "default",
        pattern: Some("^[a-z0-9-]{1,32}$"),
        fault: instance_fault,
    },
];

/// What is wrong with a text, whatever it is for.
pub(super) fn fault(check: &Text, text: &str, host: &Host) -> Option<String> {
    if text.len() > LONGEST_TEXT {
        return Some(format!("{} bytes are too long; at most {LONGEST_TEXT} are taken", text.len()));
    }
    if text.contains('\0') {
        return Some("there is a zero byte in it; remove it".to_owned());
    }
    (check.fault)(text, host)
}

// === schemas ===

macro_rules! shapes {
    ($($name:ident = $shape:expr;)*) => {
        $(pub(super) fn $name(generator: &mut SchemaGenerator) -> Schema {
            let shape: fn(&mut SchemaGenerator) -> Schema = $shape;
            shape(generator)
        })*
    };
}

shapes! {
    kinds = |_| {
        let more = json!({"minItems": 1, "maxItems": 100, "examples": [["process.*", "!process.fork"]]});
        list(&text("kind-or-not"), &more)
    };
    filters = |generator| {
        let rule = generator.subschema_for::<Rule>().to_value();
        list(&rule, &json!({"maxItems": 1000, "examples": [[{"drop": {"exe": "/usr/bin/true"}}]]}))
    };
    environment = |_| {
        let more = json!({"maxItems": nightjar_abi::settings::ENVIRONMENT_NAMES, "uniqueItems": true, "examples": [["LD_PRELOAD"]]});
        list(&text("variable"), &more)
    };
    flags = |_| list(&text("flag"), &json!({"maxItems": 1000, "examples": [["--pin"]]}));
    names = |_| list(&text("name"), &json!({"maxItems": 1000, "examples": [["*_PIN"]]}));
    patterns = |generator| {
        let pattern = generator.subschema_for::<Pattern>().to_value();
        let example = json!({"name": "employee token", "regex": "emp_[0-9a-f]{32}"});
        list(&pattern, &json!({"maxItems": 100, "examples": [[example]]}))
    };
    pattern_name = |_| schema(text("pattern-name"));
    regex = |_| schema(text("regex"));
    watch = |generator| {
        let policy = generator.subschema_for::<Watch>().to_value();
        let example = json!({"name": "web server", "paths": ["/etc/nginx"], "recursive": true});
        list(&policy, &json!({"maxItems": MAX_POLICIES, "examples": [[example]]}))
    };
    policy_name = |_| schema(text("policy-name"));
    watch_paths = |_| {
        list(&text("watched-path"), &json!({"minItems": 1, "maxItems": 1000, "examples": [["/etc/nginx"]]}))
    };
    watch_ignore = |_| list(&text("ignored"), &json!({"maxItems": 1000, "examples": [["*.swp"]]}));
    watch_operations = |_| {
        let word = |(word, means): &(&str, &str)| json!({"const": word, "description": means});
        let words: Vec<_> = OPERATIONS.iter().map(word).collect();
        let operation = json!({"type": "string", "title": "an operation", "oneOf": words});
        let most = OPERATIONS.len();
        list(&operation, &json!({"minItems": 1, "maxItems": most, "uniqueItems": true, "examples": [["read", "change"]]}))
    };
    unix_sockets = |_| {
        // Each may have two, and those of container runtimes are not counted.
        let most = nightjar_abi::network::UNIX_SOCKETS / 4;
        list(&text("unix-socket"), &json!({"maxItems": most, "uniqueItems": true, "examples": [["/run/docker.sock"]]}))
    };
    match_kind = |_| one_or_many(text("kind"));
    match_exe = |_| one_or_many(text("exe"));
    match_user = |_| {
        let mut user = text("user");
        user["type"] = json!(["string", "integer"]);
        user["minimum"] = json!(0);
        // The highest number there is means none.
        user["maximum"] = json!(u32::MAX - 1);
        one_or_many(user)
    };
    match_container = |_| one_or_many(text("container"));
    match_cgroup = |_| one_or_many(text("cgroup"));
    json_file = |_| optional(text("json-file"));
    socket_path = |_| optional(text("socket-path"));
    group = |_| optional(text("group"));
    address = |_| optional(text("address"));
    directory = |_| optional(text("directory"));
    backend_address = |_| optional(text("backend-address"));
    server_name = |_| optional(text("server-name"));
    proxy = |_| optional(text("proxy"));
    instance = |_| schema(text("instance"));
}

fn text(check: &str) -> Value {
    let row = TEXTS.iter().find(|row| row.check == check).expect("every shape names a row");
    let mut shape =
        json!({"type": "string", "title": row.is, "examples": [row.example], "x-check": row.check});
    if let Some(pattern) = row.pattern {
        shape["pattern"] = pattern.into();
    }
    shape
}

fn schema(value: Value) -> Schema {
    value.try_into().expect("a shape is an object")
}

fn list(items: &Value, more: &Value) -> Schema {
    let mut list = json_schema!({"type": "array", "title": "a list", "items": items});
    let more = more.as_object().expect("what is added to a list is an object");
    list.ensure_object().extend(more.clone());
    list
}

fn optional(mut shape: Value) -> Schema {
    shape["type"] = json!(["string", "null"]);
    schema(shape)
}

/// One, or a list: keywords for text do not touch lists, and the other way round, so no alternatives are
/// needed, of which a message could only say that none fits.
fn one_or_many(one: Value) -> Schema {
    let mut shape = one.clone();
    let mut types = vec![json!("array")];
    types.extend(one["type"].as_array().cloned().unwrap_or_else(|| vec![one["type"].clone()]));
    shape["type"] = types.into();
    shape["items"] = one;
    shape["minItems"] = 1.into();
    shape["maxItems"] = 1000.into();
    schema(shape)
}

// === checks ===

fn empty_fault(text: &str) -> Option<String> {
    text.is_empty().then(|| "the text is empty; write something, or leave the setting out".to_owned())
}

fn kind_fault(glob: &str, host: &Host) -> Option<String> {
    let kinds = || host.known_kinds.iter().map(String::as_str);
    let matcher = WildMatch::new(glob);
    if kinds().any(|kind| matcher.matches(kind)) {
        return None;
    }
    let list = || shortened(&kinds().collect::<Vec<_>>().join(", "), 400);
    let instead = nearest(glob, kinds())
        .map_or_else(|| format!("write one of {}", list()), |kind| format!("did you mean {}?", quoted(kind)));
    Some(format!("{} fits no kind of event; {instead}", quoted(glob)))
}

fn path_glob_fault(glob: &str, why: &str) -> Option<String> {
    if glob.starts_with(['/', '*', '?']) {
        return None;
    }
    let instead = quoted(&format!("*/{glob}"));
    Some(format!("{} fits nothing, as {why}; write that, or {instead}", quoted(glob)))
}

fn container_fault(id: &str, _: &Host) -> Option<String> {
    if id == "*" || !id.contains(['*', '?']) {
        return empty_fault(id);
    }
    let beginning = id.split(['*', '?']).next().unwrap_or_default();
    let instead = if beginning.is_empty() { "*" } else { beginning };
    Some(format!(
        "{} is a glob, which containers do not take; write {}: the beginning of an ID is enough",
        quoted(id),
        quoted(instead)
    ))
}

fn variable_fault(name: &str, _: &Host) -> Option<String> {
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Some(format!(
            "{} is no name of a variable; write letters, digits and \"_\", no digit first",
            quoted(name)
        ));
    }
    (name.len() > 64).then(|| format!("{} is too long; a name has at most 64 bytes", quoted(name)))
}

fn flag_fault(flag: &str, _: &Host) -> Option<String> {
    if flag.contains(|c: char| c == '=' || c.is_whitespace()) {
        return Some(format!(
            "{} has more than a flag in it; write it without \"=\" and value",
            quoted(flag)
        ));
    }
    let bare = flag.trim_start_matches('-');
    let fits = flag.starts_with('-') && bare.len() > 1 && bare.chars().all(is_of_a_name);
    let instead = "write it with its dashes and at least two letters, such as --pin";
    (!fits).then(|| format!("{} is no flag that can be masked; {instead}", quoted(flag)))
}

fn name_fault(glob: &str, _: &Host) -> Option<String> {
    if glob.contains(|c: char| c == '=' || c.is_whitespace()) {
        return Some(format!(
            "{} has more than a name in it; write it without \"=\" and value",
            quoted(glob)
        ));
    }
    let parts = || glob.split(['*', '?']);
    let fits = parts().any(|part| part.len() > 1) && parts().all(|part| part.chars().all(is_of_a_name));
    let instead = "write at least two letters of the name in a row, such as *_PIN";
    (!fits).then(|| format!("{} does not tell which names to mask; {instead}", quoted(glob)))
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn regex_fault(regex: &str) -> Option<String> {
    match RegexBuilder::new(regex).unicode(false).size_limit(LARGEST_REGEX).build() {
        Ok(compiled) if compiled.is_match(b"") => Some(
            "the regular expression fits no text at all, so it fits everywhere; write \"+\" for \"*\""
                .to_owned(),
        ),
        Ok(_) => None,
        Err(regex::Error::CompiledTooBig(_)) => {
            Some("the regular expression is too large; write smaller numbers in its {}".to_owned())
        }
        Err(error) => {
            let (place, reason) = regex_error(&error.to_string());
            Some(format!(
                "the regular expression is wrong{place}: {reason}; put \"\\\" before a character that stands \
                 for itself"
            ))
        }
    }
}

/// Where a regular expression is wrong, and why. The crate shows both in lines for a terminal: the
/// expression, a line with `^` below what is wrong, and the reason behind `error: `.
fn regex_error(shown: &str) -> (String, String) {
    let lines: Vec<&str> = shown.lines().collect();
    let reason = lines.iter().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it cannot be read");
    let mark = lines.iter().position(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty());
    let place = mark.and_then(|mark| {
        let column = lines[mark].find('^')?;
        // The expression stands four columns to the right.
        let rest: String = lines.get(mark.checked_sub(1)?)?.chars().skip(column).collect();
        let number = column.checked_sub(4)? + 1;
        let at = if rest.is_empty() {
            " at its end".to_owned()
        } else {
            format!(" from {} on", quoted(&shortened(&rest, 20)))
        };
        Some(format!("{at} (character {number})"))
    });
    (place.unwrap_or_default(), shortened(reason, 200))
}

fn path_fault(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        let instead = quoted(&format!("/var/log/nightjar/{}", path.trim_start_matches("./")));
        return Some(format!("{} is no absolute path; write one, such as {instead}", quoted(path)));
    }
    path.ends_with('/').then(|| format!("{} is a folder; write the path of a file in it", quoted(path)))
}

fn socket_path_fault(path: &str, _: &Host) -> Option<String> {
    if !path.starts_with('/') {
        let instead = quoted(&format!("/run/nightjar/{}", path.trim_start_matches("./")));
        return Some(format!("{} is no absolute path; write one, such as {instead}", quoted(path)));
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return Some(format!(
            "{} bytes are too long for a socket; write a path of at most {LONGEST_SOCKET_PATH}",
            path.len()
        ));
    }
    path_fault(path)
}

fn unix_socket_fault(name: &str, host: &Host) -> Option<String> {
    match name.strip_prefix('@') {
        Some("") => Some("a name is missing behind \"@\"".to_owned()),
        Some(name) if name.len() > LONGEST_SOCKET_PATH => Some(format!(
            "{} bytes are too long for a socket; write a name of at most {LONGEST_SOCKET_PATH}",
            name.len()
        )),
        Some(_) => None,
        None => socket_path_fault(name, host),
    }
}

fn group_fault(group: &str, host: &Host) -> Option<String> {
    let file = host.group_file.display();
    let mut content = Vec::new();
    let read = File::open(&host.group_file)
        .and_then(|opened| opened.take(LARGEST_GROUP_FILE).read_to_end(&mut content));
    if let Err(error) = read {
        return Some(format!(
            "{file} cannot be read to look for the group {} ({error}); leave the setting out",
            quoted(group)
        ));
    }
    // Lines of `+` and `-` belong to NIS.
    let names: HashSet<&str> = content
        .split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':').map(|(name, _)| name))
        .filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))
        .collect();
    if names.contains(group) {
        return None;
    }
    let instead = nearest(group, names.iter().copied().collect::<std::collections::BTreeSet<_>>())
        .map_or_else(
            || "write one that is there, or add it with groupadd".to_owned(),
            |name| format!("did you mean {}?", quoted(name)),
        );
    Some(format!("there is no group {} in {file}; {instead}", quoted(group)))
}

fn address_fault(address: &str, _: &Host) -> Option<String> {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Some("port 0 is another port with each start; write a port, such as 9464".to_owned())
        }
        Ok(_) => None,
        Err(_) => Some(format!(
            "{} is no address with a port; write numbers, such as 127.0.0.1:9464 or [::1]:9464",
            quoted(address)
        )),
    }
}

fn directory_fault(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("{} is no absolute path; write it from the root", quoted(path)));
    }
    path.ends_with('/').then(|| format!("{} ends with \"/\"; leave that out", quoted(path)))
}

fn backend_address_fault(address: &str) -> Option<String> {
    // Whether plaintext is allowed is another setting.
    Target::parse(address, None, None, true).err().map(|error| error.to_string())
}

fn server_name_fault(name: &str) -> Option<String> {
    Target::parse("https://backend:4317", Some(name), None, false).err().map(|error| error.to_string())
}

fn proxy_fault(url: &str) -> Option<String> {
    // It may have a password in it, which must not be shown.
    Target::parse("https://backend:4317", None, Some(url), false).err().map(|error| error.to_string())
}

fn instance_fault(name: &str, _: &Host) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=32).contains(&name.len()) && name.chars().all(allowed);
    (!fits).then(|| {
        format!(
            "{} is no name of an instance; write 1 to 32 lower-case letters, digits and dashes",
            quoted(name)
        )
    })
}

/// Whether a rule decides on every event.
pub(super) fn fits_everything(conditions: &Match) -> bool {
    *conditions == Match::default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host that knows little.
    pub(in crate::config) fn host() -> Host {
        Host {
            known_kinds: ["process.exec", "process.exec_failed", "process.exit", "process.fork"]
                .map(String::from)
                .to_vec(),
            group_file: "/nonexistent/group".into(),
            is_root: false,
        }
    }

    fn fault_of(check: &str, text: &str, host: &Host) -> Option<String> {
        fault(TEXTS.iter().find(|row| row.check == check).unwrap(), text, host)
    }

    #[test]
    fn what_the_rows_give_as_example_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let group_file = folder.path().join("group");
        std::fs::write(&group_file, "root:x:0:\nadm:x:4:syslog\n").unwrap();
        let host = Host { group_file, ..host() };
        for row in TEXTS {
            assert_eq!(fault(row, row.example, &host), None, "{}", row.check);
            if let Some(pattern) = row.pattern {
                assert!(regex::Regex::new(pattern).unwrap().is_match(row.example), "{}", row.check);
            }
        }
    }

    #[test]
    fn what_is_right_is_taken() {
        for (check, text) in [
            ("kind", "*"),
            ("kind", "process.exec*"),
            ("kind-or-not", "!process.e?it"),
            ("exe", "*/kubelet"),
            ("user", "0"),
            ("container", "*"),
            ("cgroup", "/system.slice/*"),
            ("variable", "_"),
            ("flag", "-pin"),
            ("name", "PIN_*"),
            ("watched-path", "/home/*/.ssh/**"),
            ("ignored", "*~"),
            ("ignored", "/**/cache/**"),
            ("json-file", "-"),
            ("regex", "(?i)token-[a-z]+"),
            ("address", "[::1]:9464"),
            ("instance", "0-a"),
        ] {
            assert_eq!(fault_of(check, text, &host()), None, "{check} {text}");
        }
    }

    /// Kinds of text, wrong ones, and what is said of each.
    const MISTAKES: &[(&str, &str, &str)] = &[
        ("kind", "process.exce", r#""process.exce" fits no kind of event; did you mean "process.exec"?"#),
        (
            "kind",
            "file.*",
            r#""file.*" fits no kind of event; write one of process.exec, process.exec_failed, process.exit, process.fork"#,
        ),
        (
            "kind-or-not",
            "!process.frok",
            r#""process.frok" fits no kind of event; did you mean "process.fork"?"#,
        ),
        (
            "kind-or-not",
            "",
            r#""" fits no kind of event; write one of process.exec, process.exec_failed, process.exit, process.fork"#,
        ),
        (
            "exe",
            "kubelet",
            r#""kubelet" fits nothing, as a program is known by its whole path; write that, or "*/kubelet""#,
        ),
        (
            "cgroup",
            "a.slice",
            r#""a.slice" fits nothing, as a cgroup is known by its whole path; write that, or "*/a.slice""#,
        ),
        ("user", "", "the text is empty; write something, or leave the setting out"),
        ("container", "", "the text is empty; write something, or leave the setting out"),
        (
            "container",
            "4f79*",
            r#""4f79*" is a glob, which containers do not take; write "4f79": the beginning of an ID is enough"#,
        ),
        (
            "container",
            "*f",
            r#""*f" is a glob, which containers do not take; write "*": the beginning of an ID is enough"#,
        ),
        ("variable", "1A", r#""1A" is no name of a variable; write letters, digits and "_", no digit first"#),
        (
            "variable",
            "A=b",
            r#""A=b" is no name of a variable; write letters, digits and "_", no digit first"#,
        ),
        (
            "flag",
            "pin",
            r#""pin" is no flag that can be masked; write it with its dashes and at least two letters, such as --pin"#,
        ),
        (
            "flag",
            "-p",
            r#""-p" is no flag that can be masked; write it with its dashes and at least two letters, such as --pin"#,
        ),
        (
            "flag",
            "--",
            r#""--" is no flag that can be masked; write it with its dashes and at least two letters, such as --pin"#,
        ),
        ("flag", "--pin=1", r#""--pin=1" has more than a flag in it; write it without "=" and value"#),
        ("name", "PIN=", r#""PIN=" has more than a name in it; write it without "=" and value"#),
        (
            "name",
            "",
            r#""" does not tell which names to mask; write at least two letters of the name in a row, such as *_PIN"#,
        ),
        (
            "name",
            "*N*",
            r#""*N*" does not tell which names to mask; write at least two letters of the name in a row, such as *_PIN"#,
        ),
        ("pattern-name", " ", "the text is empty; write something, or leave the setting out"),
        (
            "regex",
            "a(b",
            "the regular expression is wrong from \"(b\" on (character 2): unclosed group; put \"\\\" before a character that stands for itself",
        ),
        (
            "regex",
            "a[",
            "the regular expression is wrong from \"[\" on (character 2): unclosed character class; put \"\\\" before a character that stands for itself",
        ),
        (
            "regex",
            "(?<=a)b",
            "the regular expression is wrong from \"(?<=a)b\" on (character 1): look-around, including look-ahead and look-behind, is not supported; put \"\\\" before a character that stands for itself",
        ),
        (
            "regex",
            "a*",
            "the regular expression fits no text at all, so it fits everywhere; write \"+\" for \"*\"",
        ),
        ("regex", "(a{1000}){1000}", "the regular expression is too large; write smaller numbers in its {}"),
        ("policy-name", " ", "the text is empty; write something, or leave the setting out"),
        ("watched-path", "etc/nginx", r#""etc/nginx" is not absolute; write it from the root: /etc/nginx"#),
        ("watched-path", "", r#""" is empty; write an absolute path, or leave it out"#),
        (
            "watched-path",
            "/srv/**.key",
            r#""/srv/**.key": "**" stands for whole components only; write "*" for a part of a name, or "**/*" for names at any depth"#,
        ),
        (
            "watched-path",
            "/srv/[a",
            r#""/srv/[a": the "[" is not closed; write "]" after it, or "\[" for a name with that character"#,
        ),
        ("watched-path", "\u{1b}", r#""\u{1b}" is not absolute; write it from the root: /\u{1b}"#),
        (
            "ignored",
            "cache/x",
            r#""cache/x" has a "/" but is not absolute; write the whole path, as in /srv/cache/x or /**/cache/x, or a file name alone"#,
        ),
        (
            "json-file",
            "events.json",
            r#""events.json" is no absolute path; write one, such as "/var/log/nightjar/events.json""#,
        ),
        ("json-file", "/var/log/", r#""/var/log/" is a folder; write the path of a file in it"#),
        (
            "socket-path",
            "./a.sock",
            r#""./a.sock" is no absolute path; write one, such as "/run/nightjar/a.sock""#,
        ),
        (
            "address",
            "localhost:9464",
            r#""localhost:9464" is no address with a port; write numbers, such as 127.0.0.1:9464 or [::1]:9464"#,
        ),
        ("address", "127.0.0.1:0", "port 0 is another port with each start; write a port, such as 9464"),
        (
            "instance",
            "Blue",
            r#""Blue" is no name of an instance; write 1 to 32 lower-case letters, digits and dashes"#,
        ),
        ("exe", "/a\0", "there is a zero byte in it; remove it"),
    ];

    #[test]
    fn what_is_wrong_is_told_with_what_to_write_instead() {
        for (check, text, expected) in MISTAKES {
            assert_eq!(fault_of(check, text, &host()).as_deref(), Some(*expected), "{check} {text}");
        }
    }

    #[test]
    fn what_is_too_long_is_told_with_how_long_it_may_be() {
        let name = "A".repeat(65);
        for (check, text, expected) in [
            ("user", "a".repeat(4097), "4097 bytes are too long; at most 4096 are taken".to_owned()),
            (
                "socket-path",
                format!("/{}", "a".repeat(107)),
                "108 bytes are too long for a socket; write a path of at most 107".to_owned(),
            ),
            ("variable", name.clone(), format!("\"{name}\" is too long; a name has at most 64 bytes")),
        ] {
            assert_eq!(fault_of(check, &text, &host()), Some(expected));
        }
    }

    #[test]
    fn a_group_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let group_file = folder.path().join("group");
        std::fs::write(&group_file, b"root:x:0:\n\xff:x:1:\n+nis\n+x:::\nsecurity:x:4:alice\n").unwrap();
        let shown = group_file.display().to_string();
        let host = Host { group_file, ..host() };
        assert_eq!(fault_of("group", "security", &host), None);
        for (group, expected) in [
            ("securty", format!(r#"there is no group "securty" in {shown}; did you mean "security"?"#)),
            (
                "alice",
                format!(
                    r#"there is no group "alice" in {shown}; write one that is there, or add it with groupadd"#
                ),
            ),
            (
                "+x",
                format!(
                    r#"there is no group "+x" in {shown}; write one that is there, or add it with groupadd"#
                ),
            ),
        ] {
            assert_eq!(fault_of("group", group, &host), Some(expected));
        }
        let nowhere = Host { group_file: "/nonexistent/group".into(), ..host };
        assert!(fault_of("group", "adm", &nowhere).unwrap().contains("/nonexistent/group cannot be read"));
    }
}
