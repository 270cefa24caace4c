//! The published schemas, held against what the program prints.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static EVENTS: LazyLock<Validator> = LazyLock::new(|| validator(nightjar_proto::EVENT_SCHEMA));
static STATUS: LazyLock<Validator> = LazyLock::new(|| validator(nightjar_proto::STATUS_SCHEMA));

fn validator(schema: &str) -> Validator {
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is one")
}

/// What is wrong with a line that should be an event.
pub fn wrong_with(line: &str) -> Option<String> {
    read(line, &EVENTS).err()
}

fn read(text: &str, schema: &Validator) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{error} in {text:?}"))?;
    if schema.is_valid(&value) {
        return Ok(value);
    }
    let errors: Vec<_> =
        schema.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    Err(format!("not as the schema says: {} in {text}", errors.join("; ")))
}

/// Every line is an event as the schema says; a test fails where one is not.
pub fn expect_events(lines: &str) {
    for line in lines.lines() {
        assert_eq!(wrong_with(line), None);
    }
}

/// A status as the schema says; a test fails where it is not.
pub fn expect_status(text: &str) -> Value {
    read(text, &STATUS).unwrap_or_else(|wrong| panic!("{wrong}"))
}
