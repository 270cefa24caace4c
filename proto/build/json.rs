//! Writes `serde::Serialize` for every message of a package; the rules are at the head of src/lib.rs.
//!
//! The code goes into a module directly inside that of the package, so `super` holds the messages. It leaves
//! to `crate::json` what is the same for all messages.

use std::fmt::Write as _;

use protox::prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
};

/// Code for all messages and enums of `package`.
///
/// # Errors
///
/// Names the first field or value that the rules have no form for.
pub fn serialize_impls(pool: &DescriptorPool, package: &str) -> Result<String, String> {
    let mut code = String::new();
    for message in pool.all_messages().filter(|message| message.package_name() == package) {
        // The entries of a map: the field that has the map is refused with a better message.
        if !message.is_map_entry() {
            code += &message_impl(&message)?;
        }
    }
    for enumeration in pool.all_enums().filter(|enumeration| enumeration.package_name() == package) {
        code += &enum_impl(&enumeration)?;
    }
    Ok(code)
}

fn message_impl(message: &MessageDescriptor) -> Result<String, String> {
    // By number, not as declared: prost puts a oneof after all other fields.
    let entries = message.fields().map(|field| entry(&field)).collect::<Result<String, String>>()?;
    Ok(format!(
        "impl ::serde::Serialize for {name} {{
    fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::core::result::Result<S::Ok, S::Error> {{
        use ::serde::ser::SerializeMap as _;
        let mut object = serializer.serialize_map(::core::option::Option::None)?;
{entries}        object.end()
    }}
}}
",
        name = rust_path(message.parent_message(), message.name()),
    ))
}

/// The statement that writes one field, or leaves it out.
fn entry(field: &FieldDescriptor) -> Result<String, String> {
    let key = field.name();
    // A raw identifier, as a field can be called `type`.
    let place = format!("self.r#{key}");
    let convert = conversion(field)?;

    let (condition, value) = if field.is_list() {
        let value = match convert {
            Some(convert) => format!("&crate::json::List(&{place}, {convert})"),
            None => format!("&{place}"),
        };
        (format!("!{place}.is_empty()"), value)
    } else {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let present = match oneof {
            Some(oneof) => Some(format!(
                "let Some({}::{}(value)) = &self.r#{}",
                oneof_path(&oneof),
                upper_camel(key),
                oneof.name()
            )),
            None if field.supports_presence() => Some(format!("let Some(value) = &{place}")),
            None => None,
        };
        match (present, convert) {
            (Some(present), None) => (present, "value".to_owned()),
            (Some(present), Some(convert)) => {
                (format!("{present} && let Some(value) = &{convert}(value)"), "value".to_owned())
            }
            (None, Some(convert)) => (format!("let Some(value) = &{convert}(&{place})"), "value".to_owned()),
            (None, None) => {
                let set = match field.kind() {
                    Kind::Bool => place.clone(),
                    Kind::String => format!("!{place}.is_empty()"),
                    _ => format!("{place} != 0"),
                };
                (set, format!("&{place}"))
            }
        }
    };
    Ok(format!("        if {condition} {{ object.serialize_entry({key:?}, {value})?; }}\n"))
}

/// The function that turns a value of the field into what is written; `None` where it is written as it is.
fn conversion(field: &FieldDescriptor) -> Result<Option<String>, String> {
    let refuse = |what: &str, instead: &str| {
        Err(format!("{}: {what} has no JSON form in src/lib.rs; {instead}", field.full_name()))
    };
    if field.is_map() {
        return refuse("a map", "use a repeated message, which keeps its order");
    }
    match field.kind() {
        Kind::Bytes => refuse("bytes", "use a string and text::from_bytes, or state a rule there first"),
        Kind::Float | Kind::Double => refuse(
            "a floating-point number",
            "use a whole number of a smaller unit, or state a rule there first",
        ),
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
            Ok(Some("crate::json::time".to_owned()))
        }
        Kind::Message(message) if message.package_name() == "google.protobuf" => {
            refuse(message.full_name(), "use an own message, or state a rule there first")
        }
        Kind::Enum(enumeration) if enumeration.package_name() != field.parent_message().package_name() => {
            refuse("an enum of another package", "declare it in the same package")
        }
        Kind::Enum(enumeration) => Ok(Some(format!(
            "crate::json::word::<{}>",
            rust_path(enumeration.parent_message(), enumeration.name())
        ))),
        _ => Ok(None),
    }
}

fn enum_impl(enumeration: &EnumDescriptor) -> Result<String, String> {
    let mut arms = String::new();
    for (number, word) in words(enumeration)? {
        let _ = writeln!(arms, "            {number} => ::core::option::Option::Some({word:?}),");
    }
    Ok(format!(
        "impl crate::json::Words for {name} {{
    fn word(number: i32) -> ::core::option::Option<&'static str> {{
        match number {{
{arms}            _ => ::core::option::Option::None,
        }}
    }}
}}
",
        name = rust_path(enumeration.parent_message(), enumeration.name()),
    ))
}

/// Number and word of every value but `*_UNSPECIFIED`, as declared.
///
/// # Errors
///
/// Names the first value whose name does not follow the rules.
pub fn words(enumeration: &EnumDescriptor) -> Result<Vec<(i32, String)>, String> {
    let prefix = format!("{}_", snake(enumeration.name()));
    let mut words = Vec::new();
    for value in enumeration.values() {
        let name = value.name().to_lowercase();
        let word = name.strip_prefix(&prefix).ok_or_else(|| {
            format!("{}: the name must begin with {}", value.full_name(), prefix.to_uppercase())
        })?;
        match value.number() {
            0 if word == "unspecified" => {}
            0 => {
                return Err(format!(
                    "{}: value 0 must be {}UNSPECIFIED",
                    value.full_name(),
                    prefix.to_uppercase()
                ));
            }
            number => words.push((number, word.to_owned())),
        }
    }
    Ok(words)
}

/// Where prost puts the enum of a oneof.
fn oneof_path(oneof: &OneofDescriptor) -> String {
    rust_path(Some(oneof.parent_message().clone()), &upper_camel(oneof.name()))
}

/// Where prost puts the type `name` that is declared inside `parent`, seen from the module of this code.
fn rust_path(mut parent: Option<MessageDescriptor>, name: &str) -> String {
    let mut path = name.to_owned();
    while let Some(message) = parent {
        path = format!("{}::{path}", snake(message.name()));
        parent = message.parent_message();
    }
    format!("super::{path}")
}

/// `exec_failed` for `ExecFailed`. The names in a .proto file have no runs of capitals; one that had would not
/// be found where prost puts it, and the build would fail.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// `ExecFailed` for `exec_failed`.
fn upper_camel(name: &str) -> String {
    name.split('_')
        .filter_map(|word| word.split_at_checked(1))
        .flat_map(|(first, rest)| [first.to_uppercase(), rest.to_owned()])
        .collect()
}
