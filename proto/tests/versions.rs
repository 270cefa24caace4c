//! The rules of README.md: an older peer and a newer one understand each other.
//!
//! The newer one is made of the descriptors of today, with a field, a message and a word more.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{collections::BTreeSet, env, fs, path::Path};

use nightjar_proto::v1::{
    Ack, AgentMessage, Batch, Hello, Lane, PublishRequest, PublishResponse, publish_request, publish_response,
};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value,
};

const FILES: [&str; 6] = [
    "nightjar/v1/event.proto",
    "nightjar/v1/status.proto",
    "nightjar/v1/ingest.proto",
    "nightjar/v1/control.proto",
    "nightjar/agent/v1/agent.proto",
    "nightjar/backend/v1/backend.proto",
];

fn today() -> FileDescriptorSet {
    let mut compiler = protox::Compiler::new([env!("CARGO_MANIFEST_DIR")]).unwrap();
    compiler.include_imports(true).open_files(FILES).unwrap();
    FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

fn field(name: &str, kind: Type, of: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(900),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        type_name: Some(of.to_owned()).filter(|of| !of.is_empty()),
        ..FieldDescriptorProto::default()
    }
}

/// What a later version may look like.
fn later() -> DescriptorPool {
    let mut files = today();
    let file = files.file.iter_mut().find(|file| file.name() == "nightjar/v1/ingest.proto").unwrap();
    let news = DescriptorProto {
        name: Some("News".to_owned()),
        field: vec![field("text", Type::String, "")],
        ..DescriptorProto::default()
    };
    file.message_type.push(news);
    for message in &mut file.message_type {
        let added = match message.name() {
            "PublishRequest" | "PublishResponse" => {
                let news = field("news", Type::Message, ".nightjar.v1.News");
                FieldDescriptorProto { oneof_index: Some(0), ..news }
            }
            "Hello" | "Batch" | "Ack" | "Welcome" => field("added", Type::String, ""),
            _ => continue,
        };
        message.field.push(added);
    }
    let lane = file.enum_type.iter_mut().find(|words| words.name() == "Lane").unwrap();
    let word =
        EnumValueDescriptorProto { name: Some("LANE_NEW".to_owned()), number: Some(900), options: None };
    lane.value.push(word);
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

fn message(pool: &DescriptorPool, name: &str) -> MessageDescriptor {
    pool.get_message_by_name(&format!("nightjar.v1.{name}")).unwrap()
}

fn with(pool: &DescriptorPool, name: &str, fields: &[(&str, Value)]) -> DynamicMessage {
    let mut made = DynamicMessage::new(message(pool, name));
    for (name, value) in fields {
        made.set_field_by_name(name, value.clone());
    }
    made
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn an_older_backend_takes_what_a_newer_agent_sends() {
    let later = later();
    let hello =
        with(&later, "Hello", &[("agent_id", text("a")), ("schema", Value::U32(2)), ("added", text("new"))]);
    let first = with(&later, "PublishRequest", &[("hello", Value::Message(hello))]);
    let Some(publish_request::Message::Hello(hello)) = decoded::<PublishRequest>(&first).message else {
        panic!("it is not understood")
    };
    assert_eq!((hello.agent_id.as_str(), hello.schema), ("a", 2));

    let fields = [("sequence", Value::U64(7)), ("lane", Value::EnumNumber(900)), ("added", text("new"))];
    let batch: Batch = decoded(&with(&later, "Batch", &fields));
    assert_eq!((batch.sequence, batch.lane()), (7, Lane::Unspecified));
}

#[test]
fn an_older_agent_understands_a_newer_backend() {
    let later = later();
    let ack = with(&later, "Ack", &[("sequence", Value::U64(7)), ("added", text("new"))]);
    let response = with(&later, "PublishResponse", &[("ack", Value::Message(ack))]);
    let expected = publish_response::Message::Ack(Ack { sequence: 7, ..Ack::default() });
    assert_eq!(decoded::<PublishResponse>(&response).message, Some(expected));
}

#[test]
fn a_message_of_an_unknown_kind_is_one_without_content_and_no_error() {
    let later = later();
    let news = with(&later, "News", &[("text", text("new"))]);
    for name in ["PublishRequest", "PublishResponse"] {
        let bytes = with(&later, name, &[("news", Value::Message(news.clone()))]).encode_to_vec();
        assert!(PublishRequest::decode(bytes.as_slice()).unwrap().message.is_none());
        assert!(PublishResponse::decode(bytes.as_slice()).unwrap().message.is_none());
        assert!(AgentMessage::decode(bytes.as_slice()).unwrap().message.is_none());
    }
}

#[test]
fn a_newer_peer_finds_the_new_fields_of_an_older_one_empty() {
    let later = later();
    let hello = Hello { agent_id: "a".to_owned(), schema: 1, ..Hello::default() };
    let read = DynamicMessage::decode(message(&later, "Hello"), hello.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read.get_field_by_name("agent_id").unwrap().as_str(), Some("a"));
    assert_eq!(read.get_field_by_name("added").unwrap().as_str(), Some(""));
    // Absent: the same as `schema`.
    assert_eq!(read.get_field_by_name("oldest_schema").unwrap().as_u32(), Some(0));
    assert_eq!(read.descriptor().name(), "Hello");
}

#[test]
fn no_number_that_was_given_out_is_taken_back() {
    let files = DescriptorPool::from_file_descriptor_set(today()).unwrap();
    let mut now = BTreeSet::new();
    for message in files.all_messages().filter(|message| message.package_name().starts_with("nightjar.")) {
        for field in message.fields() {
            let many = if field.is_list() { "repeated " } else { "" };
            let (number, name, kind) = (field.number(), field.name(), kind(&field.kind()));
            now.insert(format!("{} {number} = {many}{kind} {name}", message.full_name()));
        }
    }
    for words in files.all_enums().filter(|words| words.package_name().starts_with("nightjar.")) {
        now.extend(
            words.values().map(|word| format!("{} {} = {}", words.full_name(), word.number(), word.name())),
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/numbers.txt");
    if env::var_os("NIGHTJAR_WRITE_GOLDEN").is_some() {
        fs::write(&path, now.iter().map(|line| line.clone() + "\n").collect::<String>()).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    let golden: BTreeSet<String> = golden.lines().map(str::to_owned).collect();
    let gone: Vec<_> = golden.difference(&now).collect();
    assert!(gone.is_empty(), "these are no longer true, which older peers rely on: {gone:#?}");
    let new: Vec<_> = now.difference(&golden).collect();
    assert!(new.is_empty(), "NIGHTJAR_WRITE_GOLDEN=1 adds these: {new:#?}");
}

fn decoded<M: prost::Message + Default>(message: &DynamicMessage) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(words) => words.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}
