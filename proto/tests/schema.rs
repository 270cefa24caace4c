//! The JSON Schema allows what is written and nothing else, and the documentation leaves nothing out.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

use jsonschema::Validator;
use nightjar_proto::{
    EVENT_SCHEMA, EVENTS_MARKDOWN, KINDS, STATUS_SCHEMA, status_to_json, to_json,
    v1::{Event, Status},
};
use proptest::prelude::*;
use prost::Message as _;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value as Field,
};
use serde_json::{Value, json};

static EVENT: LazyLock<Validator> = LazyLock::new(|| validator(EVENT_SCHEMA));
static STATUS: LazyLock<Validator> = LazyLock::new(|| validator(STATUS_SCHEMA));

fn validator(schema: &str) -> Validator {
    jsonschema::draft202012::new(&serde_json::from_str(schema).unwrap()).unwrap()
}

/// All that the validator complains about, with the place of each.
fn complaints(validator: &Validator, value: &Value) -> String {
    let complaints = validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path()));
    complaints.collect::<Vec<_>>().join("\n")
}

/// All golden events: those with every field, one of each body, and the typical ones, one of each kind.
fn golden_events() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let complete = bodies().into_iter().map(|(_, kinds)| kinds[0].clone());
    let names = complete.chain(KINDS.iter().map(|kind| format!("typical/{}", kind.name)));
    names.map(|name| (name.clone(), read(&folder.join(format!("{name}.json"))))).collect()
}

fn golden(name: &str) -> Value {
    golden_events().into_iter().find(|(golden, _)| golden == name).unwrap().1
}

fn golden_status() -> Value {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/status.json"))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

// === What is written is valid ===

#[test]
fn the_schemas_are_schemas() {
    for schema in [EVENT_SCHEMA, STATUS_SCHEMA] {
        let schema = serde_json::from_str(schema).unwrap();
        assert!(jsonschema::draft202012::meta::validate(&schema).is_ok());
    }
}

#[test]
fn every_golden_event_is_valid() {
    for (name, event) in golden_events() {
        assert_eq!(complaints(&EVENT, &event), "", "{name}");
    }
}

#[test]
fn the_golden_status_is_valid() {
    assert_eq!(complaints(&STATUS, &golden_status()), "");
}

#[test]
fn a_source_of_a_newer_agent_is_valid_as_a_number_and_a_known_one_is_not() {
    let mut event = golden("typical/process.exec");
    event["process"]["source"] = json!(99);
    assert_eq!(complaints(&EVENT, &event), "");
    for wrong in [json!(0), json!(1), json!("KERNEL"), json!("")] {
        event["process"]["source"] = wrong;
        assert!(!EVENT.is_valid(&event), "{}", event["process"]["source"]);
    }
}

// === What is not written is not valid ===

/// Each change of a golden event, and where the validator finds fault with it.
#[test]
fn what_the_rules_do_not_write_is_refused() {
    type Change = fn(&mut Value);
    let table: &[(&str, Change, &str)] = &[
        ("an unknown key", |event| event["colour"] = json!("red"), ""),
        ("an unknown key inside", |event| event["process"]["exe"]["colour"] = json!("red"), "/process/exe"),
        ("null", |event| event["parent"] = json!(null), "/parent"),
        ("no id", |event| remove(event, "id"), ""),
        ("no time", |event| remove(event, "time"), ""),
        ("no body", |event| remove(event, "exec"), ""),
        ("no process", |event| remove(event, "process"), ""),
        ("a process without id", |event| remove(&mut event["process"], "id"), "/process"),
        ("two bodies", |event| event["fork"] = json!({}), "/fork"),
        ("another version", |event| event["schema"] = json!(2), "/schema"),
        ("an unknown kind", |event| event["kind"] = json!("process.exce"), "/kind"),
        ("an id that is no UUID", |event| event["id"] = json!("7"), "/id"),
        ("an id of version 4", |event| event["id"] = json!("01987c5e-3a80-4b1f-8c44-5d1f0a6f2b3c"), "/id"),
        (
            "an id with more behind it",
            |event| event["process"]["id"] = json!("8f3c5ad2e4b7901c0"),
            "/process/id",
        ),
        ("a number as text", |event| event["process"]["pid"] = json!("7"), "/process/pid"),
        ("a negative number", |event| event["process"]["uid"] = json!(-1), "/process/uid"),
        ("a fraction", |event| event["process"]["uid"] = json!(0.5), "/process/uid"),
        ("33 bits", |event| event["process"]["uid"] = json!(1_u64 << 32), "/process/uid"),
        ("65 bits", |event| event["exec"]["args_size"] = json!(1.85e19), "/exec/args_size"),
        ("zero that is absent", |event| event["process"]["pid"] = json!(0), "/process/pid"),
        (
            "false that is absent",
            |event| event["process"]["no_new_privs"] = json!(false),
            "/process/no_new_privs",
        ),
        ("empty text that is absent", |event| event["process"]["cwd"] = json!(""), "/process/cwd"),
        ("an empty list that is absent", |event| event["process"]["args"] = json!([]), "/process/args"),
        ("a list of another type", |event| event["process"]["args"] = json!([1]), "/process/args/0"),
        ("a time without fraction", |event| event["time"] = json!("2026-08-21T10:00:00Z"), "/time"),
        ("a time of microseconds", |event| event["time"] = json!("2026-08-21T10:00:00.123456Z"), "/time"),
        ("a time of a zone", |event| event["time"] = json!("2026-08-21T10:00:00.123456789+02:00"), "/time"),
        ("a month 13", |event| event["time"] = json!("2026-13-21T10:00:00.123456789Z"), "/time"),
        ("an hour 24", |event| event["time"] = json!("2026-08-21T24:00:00.123456789Z"), "/time"),
        ("a time as a number", |event| event["time"] = json!(1_787_306_400), "/time"),
        (
            "a mode that is not octal",
            |event| event["process"]["exe"]["mode"] = json!("0888"),
            "/process/exe/mode",
        ),
    ];
    for (what, change, place) in table {
        let mut event = golden("process.exec");
        change(&mut event);
        let complaints = complaints(&EVENT, &event);
        assert!(
            complaints.lines().any(|line| line.starts_with(&format!("{place}: "))),
            "{what} is to be refused at {place:?}; the validator says: {complaints:?}"
        );
    }
}

fn remove(object: &mut Value, key: &str) {
    assert!(object.as_object_mut().unwrap().remove(key).is_some(), "{key}");
}

#[test]
fn a_body_is_only_valid_with_its_own_kinds() {
    for (name, event) in golden_events() {
        let own = body_of(event["kind"].as_str().unwrap());
        for kind in KINDS {
            let mut changed = event.clone();
            changed["kind"] = json!(kind.name);
            assert_eq!(EVENT.is_valid(&changed), body_of(kind.name) == own, "{name} as {}", kind.name);
        }
    }
}

#[test]
fn who_did_it_can_be_unknown_where_others_than_the_actor_tell_of_it() {
    for kind in KINDS {
        let mut event = golden(&format!("typical/{}", kind.name));
        for who in ["process", "parent"] {
            event.as_object_mut().unwrap().remove(who);
        }
        let can_be = match kind.name {
            "file.copy" | "file.mount" | "network.bind" | "network.socket" => false,
            "telemetry.loss" => true,
            name => name.starts_with("file.") || name.starts_with("network."),
        };
        assert_eq!(EVENT.is_valid(&event), can_be, "{}", kind.name);
    }
}

#[test]
fn nobody_did_what_was_lost() {
    let loss = golden("telemetry.loss");
    for who in ["process", "parent"] {
        let mut event = loss.clone();
        event[who] = golden("process.exec")[who].clone();
        assert!(!EVENT.is_valid(&event), "{who}");
    }
}

/// Every value of the golden files, one at a time, is made to what no rule writes.
#[test]
fn a_wrong_value_anywhere_is_refused() {
    let events = golden_events().into_iter().map(|(name, event)| (name, event, &*EVENT));
    for (name, value, validator) in events.chain([("status".to_owned(), golden_status(), &*STATUS)]) {
        let mut pointers = Vec::new();
        note_pointers(&value, "", &mut pointers);
        assert!(pointers.len() > 10, "{name}");
        for pointer in pointers {
            let mut changed = value.clone();
            let place = changed.pointer_mut(&pointer).unwrap();
            let was = place.clone();
            let mut wrong = vec![json!(null), json!(0.5), json!([[]])];
            match &was {
                Value::Object(members) => {
                    let mut more = members.clone();
                    more.insert("x".to_owned(), json!(1));
                    wrong.extend([json!("{}"), json!(1), json!([{}]), Value::Object(more)]);
                }
                Value::Array(_) => wrong.extend([json!({}), json!("x"), json!([])]),
                Value::String(_) => wrong.extend([json!(7), json!(true), json!({}), json!(["x"])]),
                Value::Number(_) => {
                    wrong.extend([json!("7"), json!(true), json!({}), json!([7]), json!(-7e30)]);
                }
                Value::Bool(_) => wrong.extend([json!(false), json!(1), json!("true")]),
                Value::Null => unreachable!("null is never written"),
            }
            for wrong in wrong {
                // The number of a source that has no word yet.
                if was == "kernel" && wrong == 7 {
                    continue;
                }
                *changed.pointer_mut(&pointer).unwrap() = wrong.clone();
                assert!(!validator.is_valid(&changed), "{name}{pointer}: {wrong} instead of {was}");
            }
        }
    }
}

fn note_pointers(value: &Value, at: &str, pointers: &mut Vec<String>) {
    pointers.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| note_pointers(value, &format!("{at}/{key}"), pointers));
        }
        Value::Array(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(n, value)| note_pointers(value, &format!("{at}/{n}"), pointers));
        }
        _ => {}
    }
}

// === Events made of any valid parts ===

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut compiler = protox::Compiler::new([env!("CARGO_MANIFEST_DIR")]).unwrap();
    compiler.open_files(["nightjar/v1/event.proto", "nightjar/v1/status.proto"]).unwrap();
    compiler.descriptor_pool()
});

fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("nightjar.v1.{name}")).unwrap()
}

fn option(field: &FieldDescriptor, name: &str) -> Option<Field> {
    let extension = POOL.get_extension_by_name(&format!("nightjar.v1.options.{name}")).unwrap();
    let options = field.options();
    options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
}

/// The kinds that have this body, as the options say them; none of other fields.
fn kinds(field: &FieldDescriptor) -> Vec<DynamicMessage> {
    let kinds = option(field, "kind");
    let kinds = kinds.iter().flat_map(|kinds| kinds.as_list().unwrap());
    kinds.map(|kind| kind.as_message().unwrap().clone()).collect()
}

/// Bodies of events with the names of their kinds.
fn bodies() -> Vec<(FieldDescriptor, Vec<String>)> {
    let name = |kind: &DynamicMessage| kind.get_field_by_name("name").unwrap().as_str().unwrap().to_owned();
    let event = message("Event");
    let fields = event.fields().filter(|field| option(field, "kind").is_some());
    fields.map(|field| (field.clone(), kinds(&field).iter().map(name).collect())).collect()
}

fn body_of(kind: &str) -> FieldDescriptor {
    bodies().into_iter().find(|(_, kinds)| kinds.iter().any(|name| name == kind)).unwrap().0
}

/// A message with fields left out as the random numbers have it, but for those that are always there.
fn any_message(message: &MessageDescriptor, random: &mut impl Rng) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    for field in
        message.fields().filter(|field| field.containing_oneof().is_none_or(|oneof| oneof.is_synthetic()))
    {
        if option(&field, "always").is_none() && random.next_u32().is_multiple_of(3) {
            continue;
        }
        let value = if field.is_list() {
            Field::List((0..=random.next_u32() % 3).map(|_| any_value(&field, random)).collect())
        } else {
            any_value(&field, random)
        };
        made.set_field(&field, value);
    }
    made
}

fn any_value(field: &FieldDescriptor, random: &mut impl Rng) -> Field {
    /// The least and the greatest, and what is between.
    const NUMBERS: [u64; 5] = [0, 1, 1000, 1 << 53, u64::MAX];
    const TEXTS: [&str; 6] = ["", "a", r"\xff\xfe", "\0\n\"\\", "caf\u{e9}", "\u{1f980}\u{202e}"];
    let pick = random.next_u32() as usize;
    let mut number = NUMBERS[pick % NUMBERS.len()];
    // A number that has no presence would be left out when it is zero, however much it has to be there.
    if option(field, "always").is_some() && !field.supports_presence() {
        number = number.max(1);
    }
    if let Some(constant) = option(field, "constant") {
        number = constant.as_u64().unwrap();
    }
    match field.kind() {
        Kind::Bool => Field::Bool(pick.is_multiple_of(2)),
        Kind::Uint32 => Field::U32(u32::try_from(number).unwrap_or(u32::MAX)),
        Kind::Uint64 => Field::U64(number),
        Kind::Int32 => Field::I32(i32::try_from(number).unwrap_or(i32::MIN)),
        Kind::String => Field::String(match option(field, "pattern") {
            Some(pattern) => {
                let examples = [
                    "01987c5e-3a80-7b1f-8c44-5d1f0a6f2b3c",
                    "8f3c5ad2e4b7901c",
                    "253:1",
                    "4755",
                    "user_memory",
                    "regular",
                    "mount",
                    "stream",
                    "outbound",
                    "established",
                    "closed",
                    "acted",
                ];
                let pattern = jsonschema_pattern(pattern.as_str().unwrap());
                (*examples.iter().find(|example| pattern.is_valid(&json!(example))).unwrap()).to_owned()
            }
            None if option(field, "always").is_some() => TEXTS[1 + pick % (TEXTS.len() - 1)].to_owned(),
            None => TEXTS[pick % TEXTS.len()].to_owned(),
        }),
        Kind::Enum(_) => Field::EnumNumber(1 + (random.next_u32() % 7).cast_signed()),
        Kind::Message(message) if message.name() == "Timestamp" => {
            let mut time = DynamicMessage::new(message);
            let seconds = [0, 1_787_306_400, -62_135_596_800, 253_402_300_799][pick % 4];
            time.set_field_by_name("seconds", Field::I64(seconds));
            time.set_field_by_name("nanos", Field::I32((random.next_u32() % 1_000_000_000).cast_signed()));
            Field::Message(time)
        }
        Kind::Message(message) => Field::Message(any_message(&message, random)),
        kind => panic!("{}: no example of {kind:?}", field.full_name()),
    }
}

fn jsonschema_pattern(pattern: &str) -> Validator {
    jsonschema::draft202012::new(&json!({ "pattern": format!("^({pattern})$") })).unwrap()
}

/// An event of `kind`, with the body that the schema gives it.
fn any_event(kind: &str, random: &mut impl Rng) -> Event {
    let mut event = any_message(&message("Event"), random);
    let body = body_of(kind);
    let kinds = kinds(&body);
    let options =
        kinds.iter().find(|options| options.get_field_by_name("name").unwrap().as_str() == Some(kind));
    let is = |flag| options.unwrap().get_field_by_name(flag).unwrap().as_bool() == Some(true);
    event.set_field(&body, any_value(&body, random));
    event.set_field_by_name("kind", Field::String(kind.to_owned()));
    if is("without_process") {
        event.clear_field_by_name("process");
        event.clear_field_by_name("parent");
    } else if !is("process_optional") {
        event.set_field_by_name("process", Field::Message(any_message(&message("Process"), random)));
    }
    Event::decode(event.encode_to_vec().as_slice()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_event_of_valid_parts_is_valid(kind in 0..KINDS.len(), mut random in any::<u64>().prop_perturb(|_, random| random)) {
        let event = any_event(KINDS[kind].name, &mut random);
        let mut line = Vec::new();
        to_json(&event, &mut line);
        let value: Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(complaints(&EVENT, &value), "", "{:#}", value);
    }

    #[test]
    fn any_status_of_valid_parts_is_valid(mut random in any::<u64>().prop_perturb(|_, random| random)) {
        let status = any_message(&message("Status"), &mut random);
        let status = Status::decode(status.encode_to_vec().as_slice()).unwrap();
        let value: Value = serde_json::from_str(&status_to_json(&status)).unwrap();
        prop_assert_eq!(complaints(&STATUS, &value), "", "{:#}", value);
    }
}

// === What is said of it ===

#[test]
fn the_list_of_kinds_is_that_of_the_bodies_and_only_forks_have_to_be_asked_for() {
    let names: Vec<_> = KINDS.iter().map(|kind| (kind.name, kind.by_default)).collect();
    let expected = [
        ("process.exec", true),
        ("process.exec_failed", true),
        ("process.fork", false),
        ("process.exit", true),
        ("process.credentials", true),
        ("telemetry.loss", true),
        ("file.open", true),
        ("file.create", true),
        ("file.modify", true),
        ("file.close", true),
        ("file.delete", true),
        ("file.rename", true),
        ("file.link", true),
        ("file.attributes", true),
        ("file.truncate", true),
        ("file.copy", true),
        ("file.mkdir", true),
        ("file.rmdir", true),
        ("file.mount", true),
        ("network.connect", true),
        ("network.accept", true),
        ("network.listen", true),
        ("network.bind", true),
        ("network.socket", true),
        ("network.close", true),
        ("network.flow", true),
    ];
    assert_eq!(names, expected);
    for kind in KINDS {
        assert!(
            kind.description.ends_with('.') && !kind.description.contains(kind.name),
            "{}",
            kind.description
        );
    }
}

/// The part of the page below a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let start = EVENTS_MARKDOWN.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let section = &EVENTS_MARKDOWN[start + heading.len() + 2..];
    section.find("\n#").map_or(section, |end| &section[..end])
}

#[test]
fn the_page_names_every_field_under_what_it_belongs_to_with_all_that_is_said_of_it() {
    let mut places = vec![("## Every event".to_owned(), message("Event"))];
    for (field, kinds) in bodies() {
        let Kind::Message(body) = field.kind() else { panic!("{}", field.full_name()) };
        // A body that several kinds share is described once.
        let heading = match &kinds[..] {
            [kind] => format!("## `{kind}`"),
            _ => format!("### {}", body.name()),
        };
        places.push((heading, body));
    }
    let mut next = 0;
    while let Some((heading, message)) = places.get(next).cloned() {
        next += 1;
        for field in message.fields().filter(|field| option(field, "kind").is_none()) {
            let beginning = format!("| `{}` | ", field.name());
            let row = section(&heading).lines().find(|line| line.starts_with(&beginning));
            let row = row.unwrap_or_else(|| panic!("{heading}: no {}", field.name()));
            let cells: Vec<&str> = row.split(" | ").collect();
            assert_eq!(cells.len(), 6, "{row}");
            assert!(cells[5].len() > 5, "{row}");
            match field.kind() {
                Kind::Message(inner) if inner.package_name() == "nightjar.v1" => {
                    let heading = format!("### {}", inner.name());
                    if !places.iter().any(|(_, known)| *known == inner) {
                        places.push((heading, inner));
                    }
                }
                _ => assert!(!cells[3].trim().is_empty() && !cells[4].trim().is_empty(), "{row}"),
            }
        }
    }
    assert!(places.len() > 15, "{places:?}");
}

#[test]
fn the_page_describes_every_kind_and_shows_a_real_event_of_it() {
    for kind in KINDS {
        let name = kind.name;
        assert!(section("## Kinds").contains(&format!("| [`{name}`](#")), "{name}");
        let section = section(&format!("## `{name}`"));
        assert!(section.contains(kind.description), "{name}");
        let (_, example) = section.split_once("```json").unwrap();
        let (example, _) = example.trim_start_matches('c').split_once("```").unwrap();
        // What is left out is what the first one shows.
        let mut event: Value = serde_json::from_str(&example.replace("{ … }", "{}")).unwrap();
        let golden = golden(&format!("typical/{name}"));
        for who in ["process", "parent"] {
            if event.get(who).is_some_and(|who| *who == json!({})) {
                event[who] = golden[who].clone();
            }
        }
        assert_eq!(event, golden, "{name}");
    }
}

#[test]
fn links_within_the_page_lead_to_what_they_name() {
    // By anchor; of headings that have the same, GitHub and others number the second.
    let mut headings = BTreeMap::new();
    for heading in EVENTS_MARKDOWN.lines().filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim();
        let anchor = heading.to_lowercase().replace(['`', '.'], "").replace(' ', "-");
        let anchor = if headings.contains_key(&anchor) { format!("{anchor}-1") } else { anchor };
        assert_eq!(headings.insert(anchor, heading), None);
    }
    let mut links = 0;
    let texts = EVENTS_MARKDOWN.split("](#").map(|before| before.rsplit('[').next().unwrap());
    for (text, link) in texts.zip(EVENTS_MARKDOWN.split("](#").skip(1)) {
        let (target, _) = link.split_once(')').unwrap();
        assert_eq!(headings.get(target), Some(&text), "{target}: {headings:?}");
        links += 1;
    }
    assert!(links > KINDS.len(), "{links}");
}

#[test]
fn the_schema_says_of_every_value_where_it_is_from_and_of_numbers_their_unit() {
    let schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap();
    assert_eq!(schema["$defs"]["ExecFailed"]["properties"]["filename"]["x-source"], json!(["user_memory"]));
    assert_eq!(schema["$defs"]["ExecFailed"]["properties"]["filename"]["x-trust"], "racy");
    assert_eq!(schema["$defs"]["Exit"]["properties"]["run_time_ns"]["x-unit"], "ns");
    assert_eq!(schema["$defs"]["Process"]["properties"]["args"]["x-source"], json!(["kernel", "procfs"]));
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            let is_unit_named = ["_ns", "_bytes"].iter().any(|unit| key.ends_with(unit));
            assert!(!is_unit_named || property.get("x-unit").is_some(), "{name}.{key}");
        }
    }
}
