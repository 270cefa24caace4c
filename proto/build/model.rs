//! What a .proto file says of its messages, as plain data: all that the JSON Schema, the documentation and the
//! list of kinds are written from.

use std::collections::BTreeSet;

use protox::prost_reflect::{
    DescriptorPool, EnumDescriptor, EnumValueDescriptor, ExtensionDescriptor, FieldDescriptor,
    FileDescriptor, Kind as Type, MessageDescriptor, Value,
};

use crate::json;

/// Package of nightjar/v1/options.proto.
pub const OPTIONS: &str = "nightjar.v1.options";

/// The messages and enums of a package, in the order of their declaration.
pub struct Model {
    package: String,
    pub messages: Vec<Message>,
    pub enums: Vec<Vocabulary>,
}

pub struct Message {
    /// Without the package: `File`.
    pub name: String,
    /// The comment, a paragraph each.
    pub text: Vec<String>,
    /// By number, as they are written.
    pub fields: Vec<Field>,
}

pub struct Field {
    pub name: String,
    pub text: Vec<String>,
    pub shape: Shape,
    pub repeated: bool,
    /// It can be set to its default value, and is written then.
    pub has_presence: bool,
    /// Options, as options.proto has them.
    pub unit: Option<String>,
    pub sources: Vec<String>,
    pub trust: Option<String>,
    pub always: bool,
    pub pattern: Option<String>,
    pub constant: Option<u64>,
    pub kinds: Vec<Kind>,
    /// The oneof that it is a member of.
    oneof: Option<String>,
}

/// What a value looks like in JSON.
pub enum Shape {
    Bool,
    Number {
        least: i128,
        most: i128,
    },
    Text,
    Time,
    /// By name of the [`Message`].
    Object(String),
    /// By name of the [`Vocabulary`].
    Word(String),
}

/// A kind of events.
pub struct Kind {
    pub name: String,
    pub by_default: bool,
    pub without_process: bool,
    pub process_optional: bool,
    pub text: String,
}

/// An enum: words, and what they mean.
pub struct Vocabulary {
    /// Without the package.
    pub name: String,
    pub text: Vec<String>,
    pub words: Vec<Word>,
}

pub struct Word {
    pub number: i32,
    pub name: String,
    pub text: String,
}

// === impl Model ===

impl Model {
    /// Reads all of `package`.
    ///
    /// # Errors
    ///
    /// Names the first field that has no JSON form, or that has options which fit nothing.
    pub fn read(pool: &DescriptorPool, package: &str) -> Result<Self, String> {
        let messages = pool
            .all_messages()
            .filter(|message| message.package_name() == package)
            .map(|message| read_message(&message))
            .collect::<Result<_, _>>()?;
        let enums = pool
            .all_enums()
            .filter(|enumeration| enumeration.package_name() == package)
            .map(|enumeration| read_enum(&enumeration))
            .collect::<Result<_, _>>()?;
        Ok(Self { package: package.to_owned(), messages, enums })
    }

    /// The message with this name.
    ///
    /// # Panics
    ///
    /// If the package has none.
    pub fn message(&self, name: &str) -> &Message {
        let message = self.messages.iter().find(|message| message.name == name);
        message.unwrap_or_else(|| panic!("{} has no message {name}", self.package))
    }

    /// The enum with this name.
    ///
    /// # Panics
    ///
    /// If the package has none.
    pub fn vocabulary(&self, name: &str) -> &Vocabulary {
        let vocabulary = self.enums.iter().find(|vocabulary| vocabulary.name == name);
        vocabulary.unwrap_or_else(|| panic!("{} has no enum {name}", self.package))
    }

    /// The message `root` and all that it leads to, each once, in the order in which a reader meets them.
    pub fn reachable(&self, root: &str) -> Vec<&Message> {
        let mut found = vec![self.message(root)];
        let mut next = 0;
        while let Some(message) = found.get(next).copied() {
            for name in message.fields.iter().filter_map(Field::object) {
                if !found.iter().any(|known| known.name == name) {
                    found.push(self.message(name));
                }
            }
            next += 1;
        }
        found
    }

    /// The kinds of events that bodies of `root` belong to, in order.
    pub fn kinds<'a>(&'a self, root: &str) -> impl Iterator<Item = (&'a Field, &'a Kind)> {
        self.message(root).fields.iter().flat_map(|field| field.kinds.iter().map(move |kind| (field, kind)))
    }

    /// Checks that all that `root` leads to is documented.
    ///
    /// # Errors
    ///
    /// Names the first field without a comment, and what to write.
    pub fn check_comments(&self, root: &str) -> Result<(), String> {
        for (message, field) in self.fields(root) {
            let has_own = !field.text.is_empty();
            if !has_own && field.object().is_none_or(|object| self.message(object).text.is_empty()) {
                return Err(format!(
                    "{}.{}.{}: no comment; write above it what its value means, for the documentation",
                    self.package, message.name, field.name
                ));
            }
        }
        Ok(())
    }

    /// Checks that of every value which `root` leads to is said where it comes from, and of every body which
    /// kinds have it.
    ///
    /// # Errors
    ///
    /// Names the first field without one of these options, and what to write.
    pub fn check_options(&self, root: &str) -> Result<(), String> {
        let mut kinds = BTreeSet::new();
        for (message, field) in self.fields(root) {
            let missing = if field.oneof.is_some() && field.kinds.is_empty() {
                Some(("kind", r#"{name: "family.what"}"#, "which kinds of events have it"))
            } else if field.object().is_some() {
                None
            } else if field.sources.is_empty() {
                Some(("source", "KERNEL", "where its value is taken from"))
            } else if field.trust.is_none() {
                Some(("trust", "KERNEL", "how far its value can be believed"))
            } else {
                None
            };
            let name = format!("{}.{}.{}", self.package, message.name, field.name);
            if let Some((option, example, what)) = missing {
                return Err(format!(
                    "{name}: no option `{option}`; say {what}, as in `[(options.{option}) = {example}]` (see \
                     nightjar/v1/options.proto)"
                ));
            }
            if let Some(kind) = field.kinds.iter().find(|kind| !kinds.insert(&kind.name)) {
                return Err(format!("{name}: kind {} has another body already", kind.name));
            }
        }
        Ok(())
    }

    fn fields<'a>(&'a self, root: &str) -> impl Iterator<Item = (&'a Message, &'a Field)> {
        let messages = self.reachable(root).into_iter();
        messages.flat_map(|message| message.fields.iter().map(move |field| (message, field)))
    }
}

// === impl Field ===

impl Field {
    /// Name of the message that it holds.
    pub fn object(&self) -> Option<&str> {
        match &self.shape {
            Shape::Object(name) => Some(name),
            _ => None,
        }
    }
}

// === impl Kind ===

impl Kind {
    /// How the paragraph begins that describes it, in the comment of its body.
    pub fn beginning(&self) -> String {
        format!("{}: ", self.name)
    }
}

/// An enum of options.proto, `Source` for instance.
pub fn vocabulary_of_options(pool: &DescriptorPool, name: &str) -> Option<Vocabulary> {
    let enumeration = pool.get_enum_by_name(&format!("{OPTIONS}.{name}.Word"))?;
    let words = enumeration.values().filter(|value| value.number() != 0).map(|value| Word {
        number: value.number(),
        name: value.name().to_lowercase(),
        text: value_text(&value),
    });
    Some(Vocabulary { name: name.to_owned(), text: Vec::new(), words: words.collect() })
}

fn read_message(message: &MessageDescriptor) -> Result<Message, String> {
    let fields = message.fields().map(|field| read_field(&field)).collect::<Result<_, _>>()?;
    Ok(Message {
        name: relative(message.full_name(), message.package_name()),
        text: comment(&message.parent_file(), message.path()),
        fields,
    })
}

fn read_field(field: &FieldDescriptor) -> Result<Field, String> {
    let word = |name| words(field, name).into_iter().next();
    Ok(Field {
        name: field.name().to_owned(),
        text: comment(&field.parent_message().parent_file(), field.path()),
        shape: shape(field)?,
        repeated: field.is_list(),
        has_presence: field.supports_presence(),
        unit: word("unit"),
        sources: words(field, "source"),
        trust: word("trust"),
        always: option(field, "always").is_some_and(|(_, value)| value == Value::Bool(true)),
        pattern: option(field, "pattern").and_then(|(_, value)| Some(value.as_str()?.to_owned())),
        constant: option(field, "constant").and_then(|(_, value)| value.as_u64()),
        kinds: kinds(field)?,
        oneof: field
            .containing_oneof()
            .filter(|oneof| !oneof.is_synthetic())
            .map(|oneof| oneof.name().to_owned()),
    })
}

fn shape(field: &FieldDescriptor) -> Result<Shape, String> {
    let number = |least: i128, most: i128| Ok(Shape::Number { least, most });
    match field.kind() {
        Type::Bool => Ok(Shape::Bool),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => number(i32::MIN.into(), i32::MAX.into()),
        Type::Int64 | Type::Sint64 | Type::Sfixed64 => number(i64::MIN.into(), i64::MAX.into()),
        Type::Uint32 | Type::Fixed32 => number(0, u32::MAX.into()),
        Type::Uint64 | Type::Fixed64 => number(0, u64::MAX.into()),
        Type::String => Ok(Shape::Text),
        Type::Message(message) if message.full_name() == "google.protobuf.Timestamp" => Ok(Shape::Time),
        Type::Message(message) if message.package_name() == field.parent_message().package_name() => {
            Ok(Shape::Object(relative(message.full_name(), message.package_name())))
        }
        Type::Enum(enumeration) => {
            Ok(Shape::Word(relative(enumeration.full_name(), enumeration.package_name())))
        }
        kind => Err(format!("{}: {kind:?} has no JSON form in src/lib.rs", field.full_name())),
    }
}

/// Kinds that have this member of the body, with what the comment of the body says of them.
fn kinds(field: &FieldDescriptor) -> Result<Vec<Kind>, String> {
    let Some((_, Value::List(list))) = option(field, "kind") else { return Ok(Vec::new()) };
    let Type::Message(body) = field.kind() else {
        return Err(format!("{}: the body of a kind is a message", field.full_name()));
    };
    let paragraphs = comment(&body.parent_file(), body.path());
    let read = |value: &Value| {
        let kind = value.as_message()?;
        let name = kind.get_field_by_name("name")?.as_str()?.to_owned();
        let is = |flag| kind.get_field_by_name(flag).is_some_and(|value| value.as_bool() == Some(true));
        Some(Kind {
            name,
            by_default: !is("on_request"),
            without_process: is("without_process"),
            process_optional: is("process_optional"),
            text: String::new(),
        })
    };
    list.iter()
        .filter_map(read)
        .map(|kind| {
            let beginning = kind.beginning();
            let text = paragraphs.iter().find_map(|paragraph| paragraph.strip_prefix(&beginning));
            let text = text.map(capitalised).ok_or_else(|| {
                format!(
                    "{}: the comment of {} does not describe {}; a paragraph has to begin with `{beginning}`",
                    field.full_name(),
                    body.full_name(),
                    kind.name
                )
            })?;
            Ok(Kind { text, ..kind })
        })
        .collect()
}

fn read_enum(enumeration: &EnumDescriptor) -> Result<Vocabulary, String> {
    let words = json::words(enumeration)?.into_iter().map(|(number, name)| {
        let value = enumeration.values().find(|value| value.number() == number);
        Word { number, name, text: value.map_or_else(String::new, |value| value_text(&value)) }
    });
    Ok(Vocabulary {
        name: relative(enumeration.full_name(), enumeration.package_name()),
        text: comment(&enumeration.parent_file(), enumeration.path()),
        words: words.collect(),
    })
}

fn value_text(value: &EnumValueDescriptor) -> String {
    comment(&value.parent_enum().parent_file(), value.path()).join(" ")
}

/// An option of options.proto, if the field has it.
fn option(field: &FieldDescriptor, name: &str) -> Option<(ExtensionDescriptor, Value)> {
    let pool = field.parent_message().parent_pool().clone();
    let extension = pool.get_extension_by_name(&format!("{OPTIONS}.{name}"))?;
    let options = field.options();
    let value = options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())?;
    Some((extension, value))
}

/// The words of an option whose type is an enum.
fn words(field: &FieldDescriptor, name: &str) -> Vec<String> {
    let Some((extension, value)) = option(field, name) else { return Vec::new() };
    let Type::Enum(enumeration) = extension.kind() else { return Vec::new() };
    let values = match value {
        Value::List(values) => values,
        value => vec![value],
    };
    let numbers = values.iter().filter_map(Value::as_enum_number).filter(|number| *number != 0);
    numbers
        .filter_map(|number| enumeration.get_value(number))
        .map(|value| value.name().to_lowercase())
        .collect()
}

/// The comment above a declaration, a paragraph each, without the breaks of its lines.
fn comment(file: &FileDescriptor, path: &[i32]) -> Vec<String> {
    let locations = file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location);
    let text = locations
        .filter(|location| location.path == path)
        .find_map(|location| location.leading_comments.as_deref())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .split(|line| line.is_empty())
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.join(" "))
        .collect()
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn relative(full_name: &str, package: &str) -> String {
    let name = full_name.strip_prefix(package).and_then(|name| name.strip_prefix('.'));
    name.unwrap_or(full_name).to_owned()
}
