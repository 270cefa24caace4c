//! Whatever an event holds, it is one line of JSON in every profile.

use nightjar_proto::v1::{Event, Process, event::Body};
use nightjar_show::profile::Profile;
use proptest::prelude::*;
use serde_json::Value;

use super::{all_events, line, reflect, samples, value};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_event_is_one_line_with_one_json_object(seed in 1_u64..) {
        let event = reflect::any_event(&DESCRIPTOR.with(Clone::clone), &mut reflect::Numbers(seed));
        for profile in Profile::ALL {
            let line = line(profile, &event);
            prop_assert!(!line.contains('\n'));
            let object: Value = serde_json::from_str(&line)?;
            prop_assert!(object.is_object());
            // No key is there twice, which JSON readers settle in different ways.
            prop_assert_eq!(line.len(), serde_json::to_string(&object)?.len());
        }
    }
}

thread_local! {
    static DESCRIPTOR: protox::prost_reflect::MessageDescriptor = reflect::event_descriptor();
}

#[test]
fn an_event_of_nothing_is_an_object() {
    for profile in Profile::ALL {
        assert!(value(profile, &Event::default()).is_object());
        let event = Event { process: Some(Process::default()), ..Event::default() };
        assert!(value(profile, &event).is_object());
    }
}

#[test]
fn events_without_a_process_or_without_a_body_are_objects() {
    for event in all_events() {
        for profile in Profile::ALL {
            assert!(value(profile, &Event { process: None, ..event.clone() }).is_object());
            assert!(value(profile, &Event { body: None, ..event.clone() }).is_object());
        }
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_written_as_in_the_native_form() {
    let (_, event) = samples::complete().into_iter().find(|(kind, _)| *kind == "file.open").unwrap();
    let Some(Body::File(file)) = &event.body else { panic!("{event:?}") };
    assert_eq!(file.path, r"/etc/caf\xe9");
    for (profile, pointer) in
        [(Profile::Threatstack, "/filename"), (Profile::Ocsf, "/file/path"), (Profile::Ecs, "/file/path")]
    {
        assert_eq!(value(profile, &event).pointer(pointer).unwrap(), r"/etc/caf\xe9");
    }
}

#[test]
fn two_megabytes_of_arguments_are_kept() {
    let process = Process { args: vec!["a b".repeat(1000); 700], ..Process::default() };
    let event = Event { kind: "process.exit".to_owned(), process: Some(process), ..Event::default() };
    for (profile, pointer) in [
        (Profile::Threatstack, "/args"),
        (Profile::Ocsf, "/unmapped/process/args"),
        (Profile::Ecs, "/process/args"),
    ] {
        let args = value(profile, &event).pointer(pointer).unwrap().as_array().unwrap().len();
        assert_eq!(args, 700, "{profile}");
    }
}
