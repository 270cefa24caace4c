//! docs/profiles.md: its table is made from the tables of the profiles, its samples from the golden files.

use std::{fmt::Write as _, fs, path::PathBuf};

use nightjar_show::profile::{Place, Profile, Row};
use protox::prost_reflect::{Kind, MessageDescriptor};

use super::{
    golden::{assert_looks_like, pretty},
    line, reflect, typical,
};

/// In the order of the columns.
const PROFILES: [Profile; 3] = [Profile::Threatstack, Profile::Ocsf, Profile::Ecs];

/// Kinds that are shown, one of each family.
const SAMPLES: &[&str] = &["process.exec", "file.rename", "network.connect", "telemetry.loss"];

#[test]
fn the_page_has_the_tables_and_the_samples_that_are_made_from_the_code() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/profiles.md"));
    let mut page = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    replace(&mut page, "versions", &versions());
    replace(&mut page, "fields", &fields());
    for profile in PROFILES {
        replace(&mut page, &format!("samples {profile}"), &samples(profile));
    }
    assert_looks_like(&path, &page);
}

/// Puts `text` between the two comments that name a part of the page.
fn replace(page: &mut String, part: &str, text: &str) {
    let (begin, end) = (format!("<!-- made: {part} -->\n"), "<!-- end -->");
    let start = page.find(&begin).unwrap_or_else(|| panic!("the page has no part {part}")) + begin.len();
    let length = page[start..].find(end).unwrap_or_else(|| panic!("part {part} has no end"));
    page.replace_range(start..start + length, &format!("\n{text}\n"));
}

fn versions() -> String {
    let mut table = String::from("| profile | version | the rest is in |\n|---|---|---|\n");
    for profile in Profile::ALL {
        let rest = profile.rest_key().map_or_else(String::new, |key| format!("`{key}`"));
        writeln!(table, "| `{profile}` | {} | {rest} |", profile.version()).unwrap();
    }
    table
}

fn fields() -> String {
    let mut table = String::from("| native | threatstack | ocsf | ecs |\n|---|---|---|---|\n");
    add_fields(&mut table, "", &reflect::event_descriptor(), PROFILES.map(Profile::rows));
    table
}

/// A line for each field that has a place in one of the profiles.
fn add_fields(table: &mut String, prefix: &str, message: &MessageDescriptor, rows: [&[Row]; 3]) {
    for field in message.fields() {
        let name = format!("{prefix}{}", field.name());
        let places =
            rows.map(|rows| rows.iter().find(|(row, _)| *row == field.name()).map(|(_, place)| *place));
        let parts = places.map(|place| match place {
            Some(Place::Parts(parts)) => parts,
            _ => &[],
        });
        match field.kind() {
            Kind::Message(inner) if parts.iter().any(|parts| !parts.is_empty()) => {
                add_fields(table, &format!("{name}."), &inner, parts);
            }
            _ if places.iter().any(Option::is_some) => {
                let [threatstack, ocsf, ecs] = places.map(shown);
                writeln!(table, "| `{name}` | {threatstack} | {ocsf} | {ecs} |").unwrap();
            }
            _ => {}
        }
    }
}

fn shown(place: Option<Place>) -> String {
    let quoted =
        |target: &str| target.split(", ").map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match place {
        None | Some(Place::Parts(_)) => String::new(),
        Some(Place::To(target)) => quoted(target),
        Some(Place::Less(target)) => format!("{} ~", quoted(target)),
        Some(Place::When(_, target)) => format!("{} ?", quoted(target)),
    }
}

fn samples(profile: Profile) -> String {
    let events = typical::typical();
    let mut text = String::new();
    for kind in SAMPLES {
        let event = events.iter().find(|event| event.kind == *kind).unwrap();
        let shown = pretty(&line(profile, event), 0);
        writeln!(
            text,
            "<details><summary><code>{kind}</code></summary>\n\n```json\n{shown}\n```\n\n</details>\n"
        )
        .unwrap();
    }
    text.trim_end().to_owned() + "\n"
}
