//! Writes the JSON Schema (2020-12) of a message, by the rules at the head of src/lib.rs.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::{Field, Kind, Message, Model, Shape, Vocabulary};

/// What [`crate::model::Kind`] says of: the key that has the kind's name, and those of who did it.
const KIND: &str = "kind";
const WHO: [&str; 2] = ["process", "parent"];

/// RFC 3339 in UTC with nine digits of nanoseconds.
const TIME: &str = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{9}Z$";
/// Where [`TIME`] is defined: messages and enums, which are defined beside it, have a capital.
const TIME_NAME: &str = "time";

/// The schema of the message `root`, as indented text.
///
/// # Errors
///
/// When it cannot be put into text.
pub fn schema(model: &Model, root: &str, id: &str) -> Result<String, serde_json::Error> {
    let writer = Writer { model, root };
    let message = model.message(root);
    let mut schema = object([
        ("$schema", text("https://json-schema.org/draft/2020-12/schema")),
        ("$id", text(id)),
        ("title", text(root)),
    ]);
    schema.extend(writer.message(message));
    let conditions: Vec<Json> =
        model.kinds(root).map(|(body, kind)| condition(message, body, kind)).collect();
    if !conditions.is_empty() {
        schema.push("allOf", Json::List(conditions));
    }
    schema.push("$defs", Json::Object(writer.definitions()));
    Ok(serde_json::to_string_pretty(&Json::Object(schema))? + "\n")
}

struct Writer<'a> {
    model: &'a Model,
    root: &'a str,
}

impl Writer<'_> {
    fn definitions(&self) -> Object {
        let reachable = self.model.reachable(self.root);
        let mut definitions = object([(
            TIME_NAME,
            Json::Object(object([
                ("type", text("string")),
                ("format", text("date-time")),
                ("pattern", text(TIME)),
            ])),
        )]);
        for message in reachable.iter().filter(|message| message.name != self.root) {
            definitions.push(&message.name, Json::Object(self.message(message)));
        }
        for vocabulary in &self.model.enums {
            let is_used =
                |field: &Field| matches!(&field.shape, Shape::Word(name) if *name == vocabulary.name);
            if reachable.iter().any(|message| message.fields.iter().any(is_used)) {
                definitions.push(&vocabulary.name, Json::Object(words(vocabulary)));
            }
        }
        definitions
    }

    fn message(&self, message: &Message) -> Object {
        let mut schema = Object::default();
        describe(&mut schema, &message.text);
        schema.push("type", text("object"));
        let mut properties = Object::default();
        for field in &message.fields {
            properties.push(&field.name, Json::Object(self.field(message, field)));
        }
        schema.push("properties", Json::Object(properties));
        let required: Vec<Json> =
            message.fields.iter().filter(|field| field.always).map(|field| text(&field.name)).collect();
        if !required.is_empty() {
            schema.push("required", Json::List(required));
        }
        schema.push("additionalProperties", Json::Bool(false));
        schema
    }

    fn field(&self, message: &Message, field: &Field) -> Object {
        let mut schema = Object::default();
        describe(&mut schema, &field.text);
        if field.repeated {
            schema.push("type", text("array"));
            // Elements that have no form are left out of a list that is not empty.
            if !matches!(field.shape, Shape::Time | Shape::Word(_)) {
                schema.push("minItems", Json::Number(1));
            }
            schema.push("items", Json::Object(self.value(field)));
        } else {
            schema.extend(self.value(field));
            if message.name == self.root && field.name == KIND {
                let kinds: Vec<Json> =
                    self.model.kinds(self.root).map(|(_, kind)| text(&kind.name)).collect();
                schema.push("enum", Json::List(kinds));
            }
        }
        if let Some(unit) = &field.unit {
            schema.push("x-unit", text(unit));
        }
        if !field.sources.is_empty() {
            let sources = field.sources.iter().map(|source| text(source)).collect();
            schema.push("x-source", Json::List(sources));
        }
        if let Some(trust) = &field.trust {
            schema.push("x-trust", text(trust));
        }
        schema
    }

    /// A single value. Where the default value is absent it is not allowed.
    fn value(&self, field: &Field) -> Object {
        if let Some(constant) = field.constant {
            return object([("const", Json::Number(constant.into()))]);
        }
        let is_absent_by_default = !field.repeated && !field.has_presence;
        let mut schema = match &field.shape {
            Shape::Bool if is_absent_by_default => object([("const", Json::Bool(true))]),
            Shape::Bool => object([("type", text("boolean"))]),
            Shape::Number { least, most } => {
                let zero = is_absent_by_default && *least == 0;
                let mut schema = object([
                    ("type", text("integer")),
                    ("minimum", Json::Number(if zero { 1 } else { *least })),
                    ("maximum", Json::Number(*most)),
                ]);
                if is_absent_by_default && !zero {
                    schema.push("not", Json::Object(object([("const", Json::Number(0))])));
                }
                schema
            }
            Shape::Text if is_absent_by_default => {
                object([("type", text("string")), ("minLength", Json::Number(1))])
            }
            Shape::Text => object([("type", text("string"))]),
            Shape::Time => reference(TIME_NAME),
            Shape::Object(name) if name == self.root => object([("$ref", text("#"))]),
            Shape::Object(name) | Shape::Word(name) => reference(name),
        };
        if let Some(pattern) = &field.pattern {
            schema.push("pattern", text(&format!("^({pattern})$")));
        }
        schema
    }
}

/// Events of `kind` have the body that belongs to it and no other one.
fn condition(message: &Message, body: &Field, kind: &Kind) -> Json {
    let is_kind = object([
        ("properties", Json::Object(object([(KIND, Json::Object(object([("const", text(&kind.name))])))]))),
        ("required", Json::List(vec![text(KIND)])),
    ]);
    let others = message.fields.iter().filter(|field| !field.kinds.is_empty() && field.name != body.name);
    let mut forbidden: Vec<&str> = others.map(|field| &*field.name).collect();
    let mut required = vec![text(&body.name)];
    if kind.without_process {
        forbidden.extend(WHO);
    } else if !kind.process_optional {
        required.insert(0, text(WHO[0]));
    }
    let mut properties = Object::default();
    for name in forbidden {
        properties.push(name, Json::Bool(false));
    }
    let then = object([("required", Json::List(required)), ("properties", Json::Object(properties))]);
    Json::Object(object([("if", Json::Object(is_kind)), ("then", Json::Object(then))]))
}

/// One of the words, or a number that has no word here.
fn words(vocabulary: &Vocabulary) -> Object {
    let mut choices: Vec<Json> = Vec::new();
    for word in &vocabulary.words {
        let mut choice = object([("const", text(&word.name))]);
        describe(&mut choice, std::slice::from_ref(&word.text));
        choices.push(Json::Object(choice));
    }
    let known = vocabulary.words.iter().map(|word| word.number).chain([0]);
    let known = known.map(|number| Json::Number(number.into())).collect();
    choices.push(Json::Object(object([
        ("type", text("integer")),
        ("minimum", Json::Number(i32::MIN.into())),
        ("maximum", Json::Number(i32::MAX.into())),
        ("not", Json::Object(object([("enum", Json::List(known))]))),
        ("description", text("A value that is newer than this schema.")),
    ])));
    let mut schema = Object::default();
    describe(&mut schema, &vocabulary.text);
    schema.push("anyOf", Json::List(choices));
    schema
}

fn describe(schema: &mut Object, paragraphs: &[String]) {
    let description = paragraphs.join("\n\n");
    if !description.is_empty() {
        schema.push("description", Json::Text(description));
    }
}

fn reference(name: &str) -> Object {
    object([("$ref", text(&format!("#/$defs/{name}")))])
}

// === JSON whose keys stay in order ===

enum Json {
    Bool(bool),
    Number(i128),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

#[derive(Default)]
struct Object(Vec<(String, Json)>);

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

fn object<const LENGTH: usize>(members: [(&str, Json); LENGTH]) -> Object {
    Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

impl Object {
    fn push(&mut self, key: &str, value: Json) {
        self.0.push((key.to_owned(), value));
    }

    fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_i128(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => serializer.collect_seq(values),
            Self::Object(Object(members)) => {
                let mut object = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    object.serialize_entry(key, value)?;
                }
                object.end()
            }
        }
    }
}
