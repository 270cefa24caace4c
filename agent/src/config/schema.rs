//! The JSON Schema of the configuration, and the list of settings that is read from it.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{
    model::Config,
    yaml::{self, Data, Node},
};

/// A setting, or a section of them.
#[derive(Debug)]
pub(super) struct Setting {
    /// As messages name it: `json.rotate_size`.
    pub path: String,
    /// Its part of the schema.
    pub shape: Value,
    pub default: Value,
    /// It counts from the next start on.
    pub restart: bool,
    /// It has settings of its own, which come next.
    pub is_section: bool,
}

/// The JSON Schema (2020-12) of a configuration file, for editors and other programs.
///
/// `x-restart` marks settings that count from the next start on; `x-check` and `x-range` say what the agent
/// checks besides.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    unwrap_descriptions(&mut schema);
    let sections = schema["properties"].as_object_mut().into_iter().flat_map(|all| all.values_mut());
    for section in sections.filter(|shape| is_section(shape)) {
        // The name of a section with nothing below it, as in the example, sets nothing.
        section["type"] = json!(["object", "null"]);
    }
    schema
}

pub(super) fn is_section(shape: &Value) -> bool {
    shape["properties"].is_object()
}

/// All settings, in the order of the types, each section before its settings.
pub(super) fn settings(schema: &Value) -> Vec<Setting> {
    let default = ordered(&Config::default());
    let mut settings = Vec::new();
    list(&mut settings, schema, &default, "", false);
    settings
}

/// A configuration as a tree in the order of the types, which values of `serde_json` do not keep.
pub(super) fn ordered(config: &Config) -> Node {
    let json = serde_json::to_string(config).expect("a configuration can be serialised");
    let root = yaml::parse(&json).expect("JSON is YAML");
    root.expect("a configuration is a mapping")
}

fn list(settings: &mut Vec<Setting>, schema: &Value, defaults: &Node, above: &str, restart: bool) {
    let Data::Map(entries) = &defaults.data else { return };
    for entry in entries {
        let shape = &schema["properties"][&entry.key];
        let path = if above.is_empty() { entry.key.clone() } else { format!("{above}.{}", entry.key) };
        let restart = restart || shape["x-restart"] == true;
        let (default, is_section) = (entry.node.value(), is_section(shape));
        settings.push(Setting { path: path.clone(), shape: shape.clone(), default, restart, is_section });
        if is_section {
            list(settings, shape, &entry.node, &path, restart);
        }
    }
}

/// The part of the schema that is about the value at a JSON pointer.
pub(super) fn shape_at<'a>(schema: &'a Value, pointer: &str) -> &'a Value {
    pointer.split('/').skip(1).fold(schema, |shape, name| {
        let index = name.parse::<usize>().is_ok() && shape["items"].is_object();
        if index { &shape["items"] } else { &shape["properties"][name] }
    })
}

/// The words that a value is one of, each with what it means; none where it may be anything.
pub(super) fn words(shape: &Value) -> Vec<(&str, &str)> {
    let alternatives = shape["oneOf"].as_array().into_iter().flatten();
    alternatives
        .filter_map(|one| Some((one["const"].as_str()?, one["description"].as_str().unwrap_or_default())))
        .collect()
}

/// What a value is, in words.
pub(super) fn kind_of_value(shape: &Value) -> String {
    let words = words(shape);
    let range = || {
        let bound = |word: &str, limit: &Value| match limit {
            Value::Null => String::new(),
            Value::String(text) => format!(" {word} {text}"),
            number => format!(" {word} {number}"),
        };
        let limits = if shape["x-range"].is_object() {
            &shape["x-range"]
        } else {
            &json!({"least": shape["minimum"], "most": shape["maximum"]})
        };
        let most = if limits["least"].is_null() { "up to" } else { "to" };
        let mut range = bound("from", &limits["least"]) + &bound(most, &limits["most"]);
        range.push_str(if limits["power_of_two"] == true { ", a power of two" } else { "" });
        range.push_str(if limits["zero"] == true { ", or 0" } else { "" });
        range
    };
    if !words.is_empty() {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        return format!("one of {}", words.join(", "));
    }
    if shape["type"] == "boolean" {
        return "true or false".to_owned();
    }
    if shape["type"] == "integer" {
        return format!("a whole number{}", range());
    }
    let title = shape["title"].as_str().unwrap_or("a value");
    if shape["type"] == "array" {
        return format!(
            "{title} of at most {}, each part {}",
            shape["maxItems"],
            kind_of_value(&shape["items"])
        );
    }
    let is_quantity = ["size", "period"].iter().any(|check| shape["x-check"] == *check);
    let range = if is_quantity && shape["x-range"].is_object() { range() } else { String::new() };
    let or_list = if shape["items"].is_object() { ", or a list of such" } else { "" };
    format!("{title}{range}{or_list}")
}

/// Puts each paragraph in one line, but for blocks of code: doc comments are wrapped for the source.
fn unwrap_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(text) if key == "description" => *text = unwrap(text),
                    _ => unwrap_descriptions(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}

fn unwrap(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let (mut is_code, mut goes_on) = (false, false);
    for line in text.lines() {
        let is_fence = line.starts_with("```");
        let is_prose = !is_code && !is_fence && !line.is_empty();
        match lines.last_mut().filter(|_| goes_on && is_prose) {
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => lines.push(line.to_owned()),
        }
        is_code ^= is_fence;
        goes_on = is_prose;
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_documented() {
        let schema = schema();
        let settings = settings(&schema);
        for setting in &settings {
            let doc = setting.shape["description"].as_str().unwrap_or_default();
            assert!(doc.ends_with('.') || doc.ends_with("```"), "{}: {doc:?}", setting.path);
            assert!(
                !kind_of_value(&setting.shape).contains("a value") || setting.is_section,
                "{}",
                setting.path
            );
        }
        let paths: Vec<_> = settings.iter().map(|setting| setting.path.as_str()).collect();
        assert_eq!(paths[..4], ["kinds", "filters", "environment", "redact"]);
        assert!(paths.contains(&"json.rotate_size") && paths.contains(&"tables.keep_ended"));
    }

    #[test]
    fn the_schema_states_defaults_titles_and_what_needs_a_restart() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], "Configuration of Nightjar");
        assert_eq!(schema["additionalProperties"], false);
        let ring = shape_at(&schema, "/kernel/ring_size");
        assert_eq!((&ring["default"], &ring["x-restart"]), (&json!("4MiB"), &json!(true)));
        assert!(jsonschema::meta::is_valid(&schema));
        assert!(!schema.to_string().contains("\"$ref\""), "shapes are looked up by path");
        assert!(!schema.to_string().contains("\"anyOf\""), "a message could only say that none fits");
    }

    #[test]
    fn the_defaults_of_the_schema_are_those_of_the_types() {
        let schema = schema();
        for setting in settings(&schema).iter().filter(|setting| !setting.is_section) {
            assert_eq!(setting.shape["default"], setting.default, "{}", setting.path);
        }
    }

    #[test]
    fn restarts_are_needed_for_what_is_made_at_the_start() {
        let schema = schema();
        let restart: Vec<_> = settings(&schema)
            .into_iter()
            .filter(|setting| setting.restart && !setting.is_section)
            .map(|setting| setting.path)
            .collect();
        assert_eq!(
            restart,
            [
                "backend.address",
                "backend.server_name",
                "backend.proxy",
                "backend.plaintext",
                "backend.configure",
                "backend.tail",
                "backend.spool_size",
                "backend.sync",
                "state",
                "socket.enabled",
                "socket.path",
                "socket.group",
                "kernel.ring_size",
                "kernel.bulk_ring_size",
                "kernel.log",
                "tables.processes",
                "tables.process_memory",
                "tables.ended_processes",
                "tables.keep_ended",
                "privileges.drop",
                "instance"
            ]
        );
    }

    #[test]
    fn what_a_value_is_can_be_said_in_words() {
        let schema = schema();
        for (pointer, expected) in [
            ("/kernel/ring_size", "a size from 1MiB to 1GiB, a power of two"),
            ("/json/rotate_age", "a span of time from 1m to 3650d, or 0"),
            ("/history", "a size up to 1GiB, or 0"),
            ("/json/keep", "a whole number from 0 to 10000"),
            ("/json/compress", "one of none, gzip, zstd"),
            ("/redact/enabled", "true or false"),
            ("/filters", "a list of at most 1000, each part a rule"),
            ("/redact/patterns", "a list of at most 100, each part a pattern"),
            ("/filters/0/drop/user", "a user's name or number, or a glob over names, or a list of such"),
            ("/metrics/listen", "an address with a port"),
            ("/files/watch", "a list of at most 64, each part a policy"),
            ("/files/fold", "a span of time up to 1m, or 0"),
        ] {
            assert_eq!(kind_of_value(shape_at(&schema, pointer)), expected, "{pointer}");
        }
    }

    #[test]
    fn paragraphs_become_lines_and_code_stays() {
        let text = "One\ntwo.\n\nThree\nfour.\n\n```yaml\na:\n  b: c\n```\n\nFive.";
        assert_eq!(unwrap(text), "One two.\n\nThree four.\n\n```yaml\na:\n  b: c\n```\n\nFive.");
    }
}
