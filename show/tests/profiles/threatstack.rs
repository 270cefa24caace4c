//! Events of the profile `threatstack` against a definition of the shape that the Threat Stack agent wrote:
//! threatstack.json, a JSON Schema.

use nightjar_proto::v1::{Event, Process};
use nightjar_show::profile::Profile;
use serde_json::{Value, json};

use super::{all_events, typical, value};

fn shown(kind: &str) -> Value {
    let event = typical::typical().into_iter().find(|event| event.kind == kind).unwrap();
    value(Profile::Threatstack, &event)
}

#[test]
fn every_event_has_the_shape_of_the_envelope() {
    let schema = serde_json::from_str(include_str!("threatstack.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for event in all_events() {
        let shown = value(Profile::Threatstack, &event);
        let errors: Vec<String> =
            validator.iter_errors(&shown).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(errors, Vec::<String>::new(), "{shown:#}");
    }
}

#[test]
fn kinds_with_a_counterpart_have_its_type_and_others_their_own() {
    for (kind, event_type, name) in [
        ("process.exec", "audit", "start"),
        ("process.exit", "audit", "exit"),
        ("process.fork", "audit", "process.fork"),
        ("process.exec_failed", "audit", "process.exec_failed"),
        ("network.connect", "audit", "connect"),
        ("network.accept", "audit", "accept"),
        ("network.close", "audit", "network.close"),
        ("file.open", "file", "OPEN"),
        ("file.create", "file", "CREATE"),
        ("file.modify", "file", "MODIFY"),
        ("file.close", "file", "CLOSE"),
        ("file.delete", "file", "DELETE"),
        ("file.rename", "file", "file.rename"),
        ("telemetry.loss", "audit", "telemetry.loss"),
    ] {
        let shown = shown(kind);
        assert_eq!((&shown["event_type"], &shown["type"]), (&json!(event_type), &json!(name)), "{kind}");
    }
}

#[test]
fn an_exec_reads_as_the_start_of_a_process() {
    let shown = shown("process.exec");
    for (key, expected) in [
        ("timestamp", json!(1_787_306_400_124_u64)),
        ("event_time", json!(1_787_306_400_124_u64)),
        ("header", json!({"timestamp": 1_787_306_400, "milliseconds": 124})),
        ("syscall", json!("execve")),
        ("success", json!(true)),
        ("exit", json!("0")),
        ("exe", json!("/usr/bin/sudo")),
        ("command", json!("sudo")),
        ("args", json!(["sudo", "id"])),
        ("arguments", json!("sudo id")),
        ("path", json!(["/usr/bin/sudo"])),
        ("user", json!("alice")),
        ("auid", json!(1000)),
        ("session", json!(7)),
        ("tty", json!("pts0")),
    ] {
        assert_eq!(shown[key], expected, "{key}");
    }
}

#[test]
fn what_failed_has_the_name_of_the_error_as_exit() {
    let shown = shown("process.exec_failed");
    assert_eq!((&shown["success"], &shown["exit"]), (&json!(false), &json!("ENOENT")));
}

#[test]
fn an_unset_login_user_and_session_are_the_number_that_stands_for_unset() {
    let event = Event { process: Some(Process::default()), ..Event::default() };
    let shown = value(Profile::Threatstack, &event);
    assert_eq!((&shown["auid"], &shown["session"]), (&json!(4_294_967_295_u32), &json!(4_294_967_295_u32)));
}

#[test]
fn a_connection_has_its_ends_and_the_other_side_as_its_address() {
    for (kind, other) in [("network.connect", "dst_addr"), ("network.accept", "src_addr")] {
        let shown = shown(kind);
        let connection = &shown["connection"];
        assert!(connection["addr"].is_string(), "{shown:#}");
        assert_eq!(connection["addr"], connection[other], "{kind}");
        assert!(shown["dst_port"].is_u64() && connection["src_port"].is_u64(), "{shown:#}");
        assert_eq!(shown["protocol"], "tcp");
    }
}
