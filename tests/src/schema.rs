//! The published schema of events, held against what the program prints.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static EVENTS: LazyLock<Validator> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(nightjar_proto::EVENT_SCHEMA).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is one")
});

/// What is wrong with a line that should be an event.
pub fn wrong_with(line: &str) -> Option<String> {
    let event: Value = match serde_json::from_str(line) {
        Ok(event) => event,
        Err(error) => return Some(format!("{error} in {line:?}")),
    };
    if EVENTS.is_valid(&event) {
        return None;
    }
    let errors: Vec<_> =
        EVENTS.iter_errors(&event).map(|error| format!("{}: {error}", error.instance_path())).collect();
    Some(format!("not as the schema says: {} in {line}", errors.join("; ")))
}

/// Every line is an event as the schema says; a test fails where one is not.
pub fn expect_events(lines: &str) {
    for line in lines.lines() {
        assert_eq!(wrong_with(line), None);
    }
}
