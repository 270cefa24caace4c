//! Events of the profile `ecs` against the fields of the schema, version 9.4.0: names and types (ecs/fields.json), the
//! values that categories allow, and the types that are expected of each.

use std::{collections::BTreeMap, net::IpAddr};

use nightjar_show::profile::Profile;
use serde_json::{Value, json};

use super::{all_events, typical, value};

const KINDS: &[&str] =
    &["alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"];

const OUTCOMES: &[&str] = &["failure", "success", "unknown"];

/// Types that the schema expects of a category, one row each.
const TYPES: &[(&str, &[&str])] = &[
    ("file", &["access", "change", "creation", "deletion", "info"]),
    ("network", &["access", "allowed", "connection", "denied", "end", "info", "protocol", "start"]),
    ("process", &["access", "change", "end", "info", "start"]),
];

/// Types that are allowed where there is no category.
const TYPES_WITHOUT_CATEGORY: &[&str] = &["error", "info"];

fn assert_fields(fields: &BTreeMap<String, String>, name: &str, shown: &Value) {
    if let Some(kind) = fields.get(name) {
        assert!(is(kind, shown), "{name} is {shown}, and not {kind}");
    } else {
        let members =
            shown.as_object().unwrap_or_else(|| panic!("{name} is no field of the schema: {shown}"));
        for (key, value) in members {
            assert_fields(fields, &format!("{name}.{key}"), value);
        }
    }
}

fn is(kind: &str, shown: &Value) -> bool {
    match (kind.strip_suffix("[]"), shown) {
        (Some(kind), Value::Array(values)) => values.iter().all(|value| is(kind, value)),
        (None, Value::String(text)) => match kind {
            "keyword" => true,
            "ip" => text.parse::<IpAddr>().is_ok(),
            "date" => text.len() == 30 && text.ends_with('Z'),
            _ => false,
        },
        (None, Value::Number(number)) => kind == "long" && (number.is_u64() || number.is_i64()),
        (None, Value::Bool(_)) => kind == "boolean",
        _ => false,
    }
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_field_is_one_of_the_schema_or_in_our_namespace() {
    let fields: BTreeMap<String, String> = serde_json::from_str(include_str!("ecs/fields.json")).unwrap();
    for event in all_events() {
        let Value::Object(shown) = value(Profile::Ecs, &event) else { panic!("{event:?}") };
        for (name, value) in shown.iter().filter(|(name, _)| *name != "nightjar") {
            assert_fields(&fields, name, value);
        }
        for required in ["@timestamp", "ecs", "event", "agent"] {
            assert!(shown.contains_key(required), "{required}: {shown:?}");
        }
        assert_eq!(shown["ecs"], json!({"version": Profile::Ecs.version()}));
    }
}

#[test]
fn categories_types_and_outcomes_are_those_that_the_schema_allows() {
    for event in all_events() {
        let facts = value(Profile::Ecs, &event)["event"].clone();
        assert!(KINDS.contains(&facts["kind"].as_str().unwrap()), "{facts}");
        if let Some(outcome) = facts.get("outcome") {
            assert!(OUTCOMES.contains(&outcome.as_str().unwrap()), "{facts}");
        }
        let categories = words(&facts["category"]);
        let types = words(&facts["type"]);
        assert!(!types.is_empty(), "{facts}");
        if categories.is_empty() {
            assert!(types.iter().all(|name| TYPES_WITHOUT_CATEGORY.contains(name)), "{facts}");
        }
        for category in categories {
            let (_, expected) = TYPES.iter().find(|(name, _)| *name == category).unwrap();
            assert!(types.iter().all(|name| expected.contains(name)), "{facts}");
        }
    }
}

#[test]
fn a_renamed_file_is_shown_under_the_name_that_it_has_now() {
    let rename = typical::typical().into_iter().find(|event| event.kind == "file.rename").unwrap();
    let native = value(Profile::Native, &rename);
    let shown = value(Profile::Ecs, &rename);
    assert_eq!(shown["file"]["path"], native["file"]["target"]["path"]);
    assert_eq!(shown["nightjar"]["file"]["path"], native["file"]["path"]);
}

#[test]
fn an_error_is_the_code_of_a_failure() {
    let failed = typical::typical().into_iter().find(|event| event.kind == "process.exec_failed").unwrap();
    let shown = value(Profile::Ecs, &failed);
    assert_eq!((&shown["event"]["outcome"], &shown["event"]["code"]), (&json!("failure"), &json!("ENOENT")));
}
