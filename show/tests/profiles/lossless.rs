//! Nothing that an event says is lost in a profile.

use std::collections::BTreeSet;

use nightjar_show::profile::{Place, Profile, Row};
use serde_json::Value;

use super::{all_events, line, reflect, value};

#[test]
fn two_events_that_differ_in_one_field_differ_in_every_profile() {
    let descriptor = reflect::event_descriptor();
    let mut lost = BTreeSet::new();
    for event in all_events() {
        let lines = Profile::ALL.map(|profile| line(profile, &event));
        for (field, other) in reflect::variations(&descriptor, &event) {
            // What the native form, the first one, does not tell apart is the same event.
            if lines[0] == line(Profile::ALL[0], &other) {
                continue;
            }
            for (profile, shown) in Profile::ALL.into_iter().zip(&lines) {
                if *shown == line(profile, &other) {
                    lost.insert(format!("{profile}: {field} of {}", event.kind));
                }
            }
        }
    }
    assert_eq!(lost, BTreeSet::new());
}

#[test]
fn what_has_a_place_is_not_in_the_rest_as_well() {
    for profile in Profile::ALL {
        let Some(key) = profile.rest_key() else { continue };
        for event in super::typical::typical() {
            if event.kind == "telemetry.loss" {
                continue;
            }
            let shown = value(profile, &event);
            let Some(rest) = shown.get(key) else { continue };
            assert_apart(profile.rows(), rest, &format!("{profile} {}", event.kind));
        }
    }
}

fn assert_apart(rows: &[Row], rest: &Value, context: &str) {
    for (name, place) in rows {
        match (place, rest.get(name)) {
            (_, None) | (Place::Less(_) | Place::When(..), _) => {}
            (Place::Parts(parts), Some(inner)) => assert_apart(parts, inner, &format!("{context} {name}")),
            (Place::To(target), Some(value)) => {
                panic!("{context} {name} is {target} and in the rest: {value}")
            }
        }
    }
}

#[test]
fn every_row_of_the_tables_is_a_field_of_the_schema() {
    let descriptor = reflect::event_descriptor();
    for profile in Profile::ALL {
        assert_fields(profile.rows(), &descriptor);
    }
}

fn assert_fields(rows: &[Row], message: &protox::prost_reflect::MessageDescriptor) {
    for (name, place) in rows {
        let field = message.get_field_by_name(name);
        let field = field.unwrap_or_else(|| panic!("{} has no field {name}", message.full_name()));
        if let Place::Parts(parts) = place {
            assert_fields(parts, field.kind().as_message().unwrap());
        }
    }
}
