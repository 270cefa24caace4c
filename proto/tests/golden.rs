//! The JSON form of every kind of event and of the status, as files to read: tests/golden/KIND.json, the line that
//! [`nightjar_proto::to_json`] makes, indented, with every field set; tests/golden/typical/KIND.json, an event as a
//! host has it, for the documentation; tests/golden/status.json.
//!
//! `NIGHTJAR_WRITE_GOLDEN=1 cargo test -p nightjar-proto --test golden` writes the files anew; the difference
//! in the commit is then what readers of the events will see.

mod samples;
#[path = "samples/status.rs"]
mod status;
#[path = "samples/typical.rs"]
mod typical;

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use nightjar_proto::{
    KINDS, status_to_json, to_json,
    v1::{Event, Exit, Process, Status, event::Body},
};
use prost::Message;
use protox::prost_reflect::{Kind, MessageDescriptor};
use serde_json::Value;

fn line(event: &Event) -> String {
    let mut line = Vec::new();
    to_json(event, &mut line);
    String::from_utf8(line).expect("JSON is UTF-8")
}

fn golden_path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", &format!("{name}.json")].iter().collect()
}

/// Compares, or writes the file anew if that is asked for.
fn assert_looks_like_golden(name: &str, shown: &str) {
    let path = golden_path(name);
    if env::var_os("NIGHTJAR_WRITE_GOLDEN").is_some() {
        fs::write(&path, shown).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(
        shown == golden,
        "{} differs; NIGHTJAR_WRITE_GOLDEN=1 writes it anew. It is now:\n{shown}",
        path.display()
    );
}

#[test]
fn every_kind_of_event_looks_like_its_golden_file() {
    for (name, event) in samples::complete() {
        assert_looks_like_golden(name, &(serde_json::to_string_pretty(&event).unwrap() + "\n"));
    }
}

#[test]
fn typical_events_look_like_their_golden_files_and_there_is_one_of_each_kind() {
    let events = typical::typical();
    for event in &events {
        let shown = serde_json::to_string_pretty(event).unwrap() + "\n";
        assert_looks_like_golden(&format!("typical/{}", event.kind), &shown);
    }
    let shown: BTreeSet<&str> = events.iter().map(|event| &*event.kind).collect();
    assert_eq!(shown, KINDS.iter().map(|kind| kind.name).collect());
}

#[test]
fn a_status_looks_like_its_golden_file() {
    assert_looks_like_golden("status", &(status_to_json(&status::complete()) + "\n"));
}

#[test]
fn a_status_of_nothing_is_an_empty_object() {
    assert_eq!(status_to_json(&Status::default()), "{}");
}

#[test]
fn the_golden_files_show_every_field_of_the_schema() {
    let pool = protox::Compiler::new([env!("CARGO_MANIFEST_DIR")])
        .unwrap()
        .open_files(["nightjar/v1/event.proto", "nightjar/v1/status.proto"])
        .unwrap()
        .descriptor_pool();
    let mut shown = BTreeSet::new();
    let events = samples::complete().into_iter().map(|(name, _)| (name, "nightjar.v1.Event"));
    for (name, root) in events.chain([("status", "nightjar.v1.Status")]) {
        let golden = fs::read_to_string(golden_path(name)).unwrap();
        let root = pool.get_message_by_name(root).unwrap();
        note_fields(&serde_json::from_str(&golden).unwrap(), &root, &mut shown);
    }
    let all: BTreeSet<String> = pool
        .all_messages()
        .filter(|message| message.package_name() == "nightjar.v1")
        .flat_map(|message| message.fields().map(|field| field.full_name().to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(all.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "not in any golden file");
}

/// Notes the full names of all fields that `value` has, and asserts that it has no key that is not a field.
fn note_fields(value: &Value, message: &MessageDescriptor, shown: &mut BTreeSet<String>) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| note_fields(element, message, shown)),
        Value::Object(members) => {
            for (key, value) in members {
                let field = message
                    .get_field_by_name(key)
                    .unwrap_or_else(|| panic!("{} has no field {key}", message.full_name()));
                shown.insert(field.full_name().to_owned());
                if let Kind::Message(inner) = field.kind() {
                    note_fields(value, &inner, shown);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn an_event_is_one_line_without_newline_appended_to_what_is_there() {
    let mut out = b"before\n".to_vec();
    let process = Process { pid: 7, uid: Some(0), args: vec!["a\nb".into()], ..Process::default() };
    let exit = Exit { code: Some(0), ..Exit::default() };
    let event = Event {
        kind: "process.exit".into(),
        process: Some(process),
        body: Some(Body::Exit(exit)),
        ..Event::default()
    };
    to_json(&event, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "before\n{\"kind\":\"process.exit\",\"process\":{\"pid\":7,\"args\":[\"a\\nb\"],\"uid\":0},\"exit\":{\"code\":0}}"
    );
}

#[test]
fn zero_is_absent_unless_it_was_set() {
    let with = |process| line(&Event { process: Some(process), ..Event::default() });
    assert_eq!(with(Process::default()), r#"{"process":{}}"#);
    assert_eq!(with(Process { loginuid: Some(0), ..Process::default() }), r#"{"process":{"loginuid":0}}"#);
    assert_eq!(line(&Event::default()), "{}");
}

#[test]
fn a_source_of_a_newer_agent_is_its_number() {
    let with =
        |source| line(&Event { process: Some(Process { source, ..Process::default() }), ..Event::default() });
    assert_eq!(with(2), r#"{"process":{"source":"snapshot"}}"#);
    assert_eq!(with(99), r#"{"process":{"source":99}}"#);
}

#[test]
fn protobuf_brings_every_event_back() {
    for (name, event) in samples::complete() {
        assert_eq!(Event::decode(event.encode_to_vec().as_slice()).as_ref(), Ok(&event), "{name}");
    }
}

#[test]
fn an_older_reader_ignores_fields_that_it_does_not_know() {
    /// A field that the schema does not have.
    #[derive(Clone, PartialEq, Message)]
    struct Newer {
        #[prost(string, tag = "100000")]
        novelty: String,
        #[prost(message, optional, tag = "100001")]
        inner: Option<Box<Newer>>,
    }

    let inner = Some(Box::new(Newer { novelty: "inside".into(), inner: None }));
    let novelty = Newer { novelty: "new".into(), inner }.encode_to_vec();
    for (name, event) in samples::complete() {
        let bytes = [&novelty[..], &event.encode_to_vec(), &novelty].concat();
        assert_eq!(Event::decode(bytes.as_slice()).as_ref(), Ok(&event), "{name}");
    }
}
