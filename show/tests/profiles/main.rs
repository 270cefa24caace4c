//! Profiles: what they look like, that they keep to the schemas that they name, and that nothing is lost.
//!
//! `NIGHTJAR_WRITE_GOLDEN=1 cargo test -p nightjar-show --test profiles` writes the samples in tests/golden and the
//! parts of docs/profiles.md that are made from them anew; the difference in the commit is then what readers of the
//! events will see.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

mod docs;
mod ecs;
mod golden;
mod hostile;
mod lossless;
mod ocsf;
mod reflect;
#[path = "../../../proto/tests/samples/mod.rs"]
mod samples;
mod threatstack;
#[path = "../../../proto/tests/samples/typical.rs"]
mod typical;

use nightjar_proto::v1::Event;
use nightjar_show::profile::Profile;
use serde_json::Value;

fn line(profile: Profile, event: &Event) -> String {
    let mut line = Vec::new();
    profile.write(event, &mut line);
    String::from_utf8(line).expect("JSON is UTF-8")
}

fn value(profile: Profile, event: &Event) -> Value {
    let line = line(profile, event);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{profile}: {error}: {line}"))
}

/// Events as hosts have them, and one of each body with every field set.
fn all_events() -> Vec<Event> {
    let complete = samples::complete().into_iter().map(|(_, event)| event);
    typical::typical().into_iter().chain(complete).collect()
}
