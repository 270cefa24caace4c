//! Events of the profile `ocsf` against definitions of the classes and objects that they are of, version 1.7.0: names,
//! types, requirements and values of the attributes, written as JSON Schemas in ocsf/. Attributes of profiles that are
//! not used are left out. Objects that are not used are objects of any kind.

use jsonschema::Validator;
use nightjar_proto::v1::{Event, event::Body};
use nightjar_show::profile::Profile;
use serde_json::{Value, json};

use super::{all_events, typical, value};

/// Classes by number. Two have no kind yet, and wait for sensors of logins and of kernel modules.
const CLASSES: &[(u64, &str)] = &[
    (0, include_str!("ocsf/base_event.json")),
    (1001, include_str!("ocsf/file_activity.json")),
    (1002, include_str!("ocsf/kernel_extension_activity.json")),
    (1007, include_str!("ocsf/process_activity.json")),
    (3002, include_str!("ocsf/authentication.json")),
    (4001, include_str!("ocsf/network_activity.json")),
];

fn validator(class: u64) -> Validator {
    let (_, definition) =
        CLASSES.iter().find(|(number, _)| *number == class).expect("a class that is defined");
    let mut schema: Value = serde_json::from_str(definition).unwrap();
    let objects: Value = serde_json::from_str(include_str!("ocsf/objects.json")).unwrap();
    schema["$defs"] = objects["$defs"].clone();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn assert_valid(shown: &Value) {
    let class = shown["class_uid"].as_u64().unwrap();
    let errors: Vec<String> =
        validator(class).iter_errors(shown).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new(), "{shown:#}");
    let type_uid = shown["activity_id"].as_u64().unwrap() + class * 100;
    assert_eq!(shown["type_uid"], type_uid);
    assert_eq!(shown["category_uid"], class / 1000);
}

#[test]
fn every_event_keeps_to_the_definition_of_its_class() {
    for event in all_events() {
        assert_valid(&value(Profile::Ocsf, &event));
    }
}

#[test]
fn the_definitions_refuse_what_the_schema_does_not_have() {
    let exec = typical::typical().into_iter().find(|event| event.kind == "process.exec").unwrap();
    let good = value(Profile::Ocsf, &exec);
    let validator = validator(1007);
    assert!(validator.is_valid(&good));
    for (pointer, wrong) in [
        ("", json!({})),
        ("/activity_id", json!(6)),
        ("/time", json!("2026-08-21T10:00:00Z")),
        ("/device", json!({"type_id": 0})),
        ("/process", json!({"name": "sudo"})),
        ("/process/file", json!({"path": "/usr/bin/sudo"})),
        ("/process/user", json!({"uid": 0})),
        ("/metadata", json!({"version": "1.7.0", "product": {"name": "Nightjar"}, "schema": 1})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = wrong;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

#[test]
fn every_event_says_which_version_of_the_schema_and_of_the_original_it_is() {
    for event in all_events() {
        let shown = value(Profile::Ocsf, &event);
        assert_eq!(shown["metadata"]["version"], Profile::Ocsf.version());
        assert_eq!(shown["metadata"]["log_version"], "1");
    }
}

#[test]
fn events_of_each_family_are_of_their_class_and_losses_are_base_events() {
    for event in typical::typical() {
        let expected = match &*event.kind {
            kind if kind.starts_with("process.") => 1007,
            kind if kind.starts_with("file.") => 1001,
            kind if kind.starts_with("network.") => 4001,
            _ => 0,
        };
        assert_eq!(value(Profile::Ocsf, &event)["class_uid"], expected, "{}", event.kind);
    }
}

#[test]
fn a_file_event_of_nobody_known_keeps_to_its_class() {
    for event in typical::typical().into_iter().filter(|event| event.kind.starts_with("file.")) {
        assert_valid(&value(Profile::Ocsf, &Event { process: None, parent: None, ..event }));
    }
}

#[test]
fn who_began_is_the_source_and_sends_out() {
    let accept = typical::typical().into_iter().find(|event| event.kind == "network.accept").unwrap();
    let Some(Body::Network(mut network)) = accept.body.clone() else { panic!("{accept:?}") };
    network.bytes_sent = Some(7);
    let remote = network.remote.clone().unwrap();
    let shown = value(Profile::Ocsf, &Event { body: Some(Body::Network(network)), ..accept });
    assert_eq!(shown["src_endpoint"]["ip"], remote.address);
    assert_eq!(shown["dst_endpoint"]["hostname"], "db1.example.org");
    assert_eq!(shown["traffic"], json!({"bytes_in": 7}));
}

#[test]
fn arguments_with_spaces_are_kept_apart_from_the_command_line() {
    let mut exec = typical::typical().into_iter().find(|event| event.kind == "process.exec").unwrap();
    assert_eq!(value(Profile::Ocsf, &exec)["unmapped"]["process"]["args"], Value::Null);
    exec.process.as_mut().unwrap().args = vec!["sh".to_owned(), "-c".to_owned(), "id; id".to_owned()];
    let shown = value(Profile::Ocsf, &exec);
    assert_eq!(shown["process"]["cmd_line"], "sh -c id; id");
    assert_eq!(shown["unmapped"]["process"]["args"], json!(["sh", "-c", "id; id"]));
}
