//! `--where`: which events to show, as an expression of [CEL](https://cel.dev) over the fields of an event.
//!
//! ```text
//! process.uid == 0 && process.exe.path.matches("^/tmp/")
//! ```
//!
//! Names are those of the JSON form. JSON leaves out what is not there, so these rules say what a field means
//! that an event does not have:
//!
//! 1. A part of the event that it does not have (`exec` of an exit, `process` of a loss, `parent` where it is
//!    not known): what is said of it does not fit, whatever it is, unless the other side of `||` does.
//! 2. A number for which 0 means something else than absence (`process.loginuid`, `exit.code`) is unset: equal
//!    to no number, neither smaller nor greater than one.
//! 3. Everything else is empty text, 0, false or an empty list, also where the object around it is absent.
//!
//! `has(process.container)` and `process.container != null` ask whether something is there. An element of a
//! list that is not there, as `process.args[1]` of one argument, does not fit either.
//!
//! All names and types are checked when the expression is compiled. Compiling also gives each field that is
//! referred to a number, and each regular expression: of an event only these fields are converted, each when
//! it is first asked for.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, OnceLock},
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, ParseErrors, Value,
    common::{
        ast::{
            CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo, operators,
        },
        types::{self, CelBool, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
        value::{CowVal, StaticVal, Val},
    },
    context::VariableResolver,
};
use nightjar_proto::{EVENT_SCHEMA, v1::Event};
use regex::Regex;
use serde::ser::{self, Impossible, Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

/// Longest expression, in bytes, and most brackets within one another: unoptimised, the parser takes 200 KiB of
/// the stack for each bracket, and what goes through the result goes as deep as that is nested.
const LONGEST: usize = 2048;
const DEEPEST: usize = 16;

/// Which events fit. See the head of this module.
pub struct Expression {
    root: IdedExpr,
    places: Vec<Place>,
    functions: Context<'static, 'static>,
    first_error: OnceLock<String>,
}

impl Expression {
    /// Checks an expression and prepares it.
    ///
    /// # Errors
    ///
    /// When it is no CEL, names what is not there, compares what cannot be equal, or is not true or false.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > LONGEST {
            return Err(ExpressionError::TooLong);
        }
        if depth(text) > DEEPEST {
            return Err(ExpressionError::TooDeep);
        }
        let program = ENVIRONMENT.compile(text).map_err(|errors| syntax(text, &errors))?;
        let mut checker = Checker { source: program.source_info(), places: Vec::new(), scope: Vec::new() };
        let mut root = program.expression().clone();
        let name = name(&root);
        let result = checker.value(&mut root)?;
        if !matches!(result, Type::Flag | Type::Any) {
            return Err(ExpressionError::NotACondition { name, is: result.word() });
        }
        Ok(Self {
            root,
            places: checker.places,
            functions: Context::with_env(Arc::clone(&ENVIRONMENT)),
            first_error: OnceLock::new(),
        })
    }

    /// Whether the expression is true of `event`. It is not where it cannot be worked out.
    #[must_use]
    pub fn fits(&self, event: &Event) -> bool {
        let values = Values {
            event,
            places: &self.places,
            found: self.places.iter().map(|_| OnceLock::new()).collect(),
        };
        let mut context = self.functions.new_inner_scope();
        context.set_variable_resolver(&values);
        let error = match Value::resolve_val(&self.root, &context) {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(fits) => return *fits.inner(),
                None => format!("it is of type {}, not true or false", value.get_type().name()),
            },
            Err(error) if absence(&error) || values.unset() => return false,
            Err(error) => told(&error),
        };
        self.first_error.get_or_init(|| error);
        false
    }

    /// Why the expression could not be worked out for an event, the first time that this was so. Absent fields
    /// are no such reason.
    #[must_use]
    pub fn first_error(&self) -> Option<&str> {
        self.first_error.get().map(String::as_str)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Expression").field("places", &self.places).finish_non_exhaustive()
    }
}

/// Why an expression is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Longer than is sensible for something typed.
    #[error("the expression has more than {LONGEST} bytes; let a program such as jq filter the JSON instead")]
    TooLong,
    /// More nested than is sensible.
    #[error("more than {DEEPEST} brackets are open at once")]
    TooDeep,
    /// It is not CEL.
    #[error("{at}: {what}")]
    Syntax {
        /// Where reading failed.
        at: Position,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// No event has such a field.
    #[error("no field {name:?}{hint}")]
    NoField {
        /// As written.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// There is no such function.
    #[error("no function {name:?}{hint}")]
    NoFunction {
        /// As written.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// Things are put together that do not go together.
    #[error("{at}: {what}")]
    Mismatch {
        /// Where.
        at: Position,
        /// What does not go together.
        what: String,
    },
    /// Its value says nothing about whether an event fits.
    #[error(
        "{name} is {is}, which says nothing about whether an event fits; compare it with something, as in {name} == …"
    )]
    NotACondition {
        /// What the expression is.
        name: String,
        /// Of which type.
        is: &'static str,
    },
}

/// Where in the text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(formatter, "line {}, ", self.line)?;
        }
        write!(formatter, "column {}", self.column)
    }
}

// === Evaluation ===

/// CEL with its standard functions, and one that the checker puts in place of `matches`.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib().with_optional_support(false);
    environment
        .add_overload(MATCHES, MATCHES, vec![types::STRING_TYPE, PATTERN.to_owned()], |arguments| {
            let pattern = arguments[1].downcast_ref::<Pattern>();
            let text = arguments[0].downcast_ref::<CelString>();
            let (Some(pattern), Some(text)) = (pattern, text) else {
                return Err(ExecutionError::missing_argument_or_target());
            };
            Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text.inner()))))
        })
        .expect("no other function has a name that begins with @");
    Arc::new(environment)
});

/// `matches` of CEL would compile its pattern for every event. Nobody can write this name.
const MATCHES: &str = "@matches";

/// A compiled regular expression, as a value of CEL.
#[derive(Debug, Clone)]
struct Pattern(Regex);

static PATTERN: types::Type = types::Type::new_unspecified_type("pattern");

impl Val for Pattern {
    fn get_type(&self) -> &types::Type {
        &PATTERN
    }

    fn cel_type() -> &'static types::Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// What a variable of a compiled expression stands for. `@2` is the third.
#[derive(Debug)]
enum Place {
    /// A field: its path, and what it is.
    Field(Vec<String>, &'static Field),
    /// Whether something is at a path.
    Presence(Vec<String>),
    Pattern(Pattern),
}

/// The variables of an expression, for one event.
struct Values<'e> {
    event: &'e Event,
    places: &'e [Place],
    /// None: the event does not have that part.
    found: Vec<OnceLock<Option<Box<dyn Val>>>>,
}

impl Values<'_> {
    /// Whether a number was asked for that is unset, which explains why it could not be worked with.
    fn unset(&self) -> bool {
        self.found
            .iter()
            .filter_map(OnceLock::get)
            .flatten()
            .any(|value| *value.get_type() == types::NULL_TYPE)
    }
}

impl VariableResolver for Values<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let number: usize = variable.strip_prefix('@')?.parse().ok()?;
        let place = self.places.get(number)?;
        if let Place::Pattern(pattern) = place {
            return Some(CowVal::Borrowed(pattern));
        }
        let value = self.found.get(number)?.get_or_init(|| match place {
            Place::Field(path, field) => match find(self.event, path, false) {
                Found::Value(json) => Some(field.value(Some(json))),
                Found::Nothing => Some(field.value(None)),
                Found::NoSuchPart => None,
            },
            Place::Presence(path) => {
                Some(Box::new(CelBool::from(matches!(find(self.event, path, true), Found::Value(_)))))
            }
            Place::Pattern(_) => None,
        });
        value.as_deref().map(CowVal::Borrowed)
    }
}

/// An event does not have what was asked for; that is no defect of the expression.
fn absence(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::UndeclaredReference(_)
            | ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::NoSuchKey(_)
    )
}

/// What went wrong, in words. It may quote an event.
fn told(error: &ExecutionError) -> String {
    let text = match error {
        ExecutionError::NoSuchOverload(overload) => {
            let operator = overload.function().trim_matches(['_', '@']).replace("[_]", "[]");
            format!("{operator} does not work on {}", overload.argument_types().join(" and "))
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("{operator} does not work on {} and {}", left.type_of(), right.type_of())
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "the result is too large for a number of 64 bits".to_owned(),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        other => other.to_string(),
    };
    text.chars().fold(String::new(), |mut text, c| {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
        text
    })
}

// === Fields ===

/// All fields, by the name of their object; those of the event itself are under [`EVENT`].
///
/// Taken from the JSON Schema, which is generated from the same messages as the JSON form.
static FIELDS: LazyLock<HashMap<String, Vec<Field>>> = LazyLock::new(|| {
    let schema: Json = serde_json::from_str(EVENT_SCHEMA).expect("the schema of events is JSON");
    let definitions = schema["$defs"].as_object().expect("the schema of events has definitions");
    let objects = definitions.iter().filter(|(_, definition)| definition["type"] == "object");
    objects
        .map(|(name, definition)| (name.clone(), fields_of(definition, &schema)))
        .chain([(EVENT.to_owned(), fields_of(&schema, &schema))])
        .collect()
});

const EVENT: &str = "";

fn fields_of(object: &Json, schema: &Json) -> Vec<Field> {
    let properties = object["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| Field {
            name: name.clone(),
            shape: Shape::of(property, schema),
            unset: has_default(property) && property.get("const").is_none(),
        })
        .collect()
}

/// The schema allows the value that would be left out if absence stood for it: so absence is something else.
fn has_default(property: &Json) -> bool {
    match property["type"].as_str() {
        Some("integer") => {
            property["minimum"].as_i64().is_some_and(|least| least <= 0) && property.get("not").is_none()
        }
        Some("boolean" | "number") => true,
        Some("string") => property.get("minLength").is_none() && property.get("enum").is_none(),
        _ => false,
    }
}

#[derive(Debug)]
struct Field {
    name: String,
    shape: Shape,
    /// Where it is absent it has no value, rather than that which is left out.
    unset: bool,
}

#[derive(Debug)]
enum Shape {
    Flag,
    Number,
    Text,
    /// One of these words.
    Word(Vec<String>),
    List(Box<Shape>),
    /// By name.
    Object(String),
}

impl Shape {
    fn of(property: &Json, schema: &Json) -> Self {
        if let Some(name) = property["$ref"].as_str().and_then(|to| to.strip_prefix("#/$defs/")) {
            let definition = &schema["$defs"][name];
            let object = definition["type"] == "object";
            return if object { Self::Object(name.to_owned()) } else { Self::of(definition, schema) };
        }
        if let Some(choices) = property["anyOf"].as_array() {
            // An enum. A number that has no word is written as it is.
            return Self::Word(words(choices.iter().filter_map(|choice| choice.get("const"))));
        }
        if let Some(choices) = property["enum"].as_array() {
            return Self::Word(words(choices));
        }
        match (&property["const"], property["type"].as_str()) {
            (Json::Bool(_), _) | (_, Some("boolean")) => Self::Flag,
            (Json::Number(_), _) | (_, Some("integer" | "number")) => Self::Number,
            (_, Some("array")) => Self::List(Box::new(Self::of(&property["items"], schema))),
            _ => Self::Text,
        }
    }

    /// The value that `json` is; None: the default.
    fn value(&self, json: Option<Json>) -> Box<dyn Val> {
        match (self, json) {
            (Self::Flag, json) => Box::new(CelBool::from(json == Some(Json::Bool(true)))),
            (Self::Number, Some(Json::Number(number))) => match (number.as_i64(), number.as_u64()) {
                // Literals are signed: the same type on both sides can be reckoned with.
                (Some(number), _) => Box::new(CelInt::from(number)),
                (None, Some(number)) => Box::new(CelUInt::from(number)),
                (None, None) => Box::new(CelNull),
            },
            (Self::Number, _) => Box::new(CelInt::from(0)),
            (Self::Text | Self::Word(_), Some(Json::String(text))) => Box::new(CelString::from(text)),
            (Self::Text | Self::Word(_), Some(Json::Number(number))) => {
                Box::new(CelString::from(number.to_string()))
            }
            (Self::Text | Self::Word(_), _) => Box::new(CelString::from(String::new())),
            (Self::List(element), Some(Json::Array(list))) => {
                let elements: Vec<Box<dyn Val>> =
                    list.into_iter().map(|json| element.value(Some(json))).collect();
                Box::new(CelList::from(elements))
            }
            (Self::List(_), _) => Box::new(CelList::from(Vec::<Box<dyn Val>>::new())),
            (Self::Object(name), json) => {
                let Some(Json::Object(mut json)) = json else { return Box::new(CelMap::default()) };
                let fields = FIELDS.get(name).map_or(&[][..], Vec::as_slice);
                let mut map: HashMap<CelMapKey, Box<dyn Val>> = HashMap::with_capacity(2 * fields.len());
                for field in fields {
                    let json = json.remove(&field.name);
                    let there = CelBool::from(json.is_some());
                    map.insert(CelMapKey::from(presence_key(&field.name)), Box::new(there));
                    map.insert(CelMapKey::from(field.name.clone()), field.value(json));
                }
                Box::new(CelMap::from(map))
            }
        }
    }
}

fn words<'j>(choices: impl IntoIterator<Item = &'j Json>) -> Vec<String> {
    choices.into_iter().filter_map(Json::as_str).map(str::to_owned).collect()
}

impl Field {
    fn value(&self, json: Option<Json>) -> Box<dyn Val> {
        if self.unset && json.is_none() { Box::new(CelNull) } else { self.shape.value(json) }
    }
}

/// Where an object in a list, whose fields are filled with defaults, tells whether it has the field.
fn presence_key(field: &str) -> String {
    format!("has {field}")
}

// === Looking a field up ===

enum Found {
    Value(Json),
    /// The part of the event is there, the field is not.
    Nothing,
    /// The event does not have the first name of the path.
    NoSuchPart,
}

/// What is at `path` of the JSON form of `event`. With `presence` only whether anything is.
fn find(event: &Event, path: &[String], presence: bool) -> Found {
    match event.serialize(Finder { path, presence }) {
        Err(Stop::At(json)) => Found::Value(json),
        // The event itself always has its own fields, even if they are at their default.
        Ok(_) if path.len() > 1 => Found::NoSuchPart,
        Ok(_) | Err(Stop::Without) => Found::Nothing,
    }
}

/// Walks along a path through an object in the making, and stops where it ends.
///
/// It is handed keys, of which it says whether they are the first of the path, and objects.
#[derive(Clone, Copy)]
struct Finder<'p> {
    path: &'p [String],
    presence: bool,
}

/// The end of the walk.
#[derive(Debug)]
enum Stop {
    At(Json),
    Without,
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("stopped")
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Without
    }
}

/// An object, whose keys come one by one.
struct Keys<'p> {
    finder: Finder<'p>,
    /// The key that came last is the first of the path.
    here: bool,
}

impl SerializeMap for Keys<'_> {
    type Ok = bool;
    type Error = Stop;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Stop> {
        self.here = key.serialize(self.finder)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
        if !self.here {
            return Ok(());
        }
        let rest = self.finder.path.get(1..).unwrap_or_default();
        if !rest.is_empty() {
            value.serialize(Finder { path: rest, ..self.finder })?;
            return Err(Stop::Without);
        }
        if self.finder.presence {
            return Err(Stop::At(Json::Bool(true)));
        }
        Err(serde_json::to_value(value).map_or(Stop::Without, Stop::At))
    }

    fn end(self) -> Result<bool, Stop> {
        Ok(false)
    }
}

/// Methods for what is neither a key nor an object: no path leads through it.
macro_rules! no_path_leads_through {
    ($($method:ident($($argument:ty),*)),* $(,)?) => {
        $(fn $method(self, $(_: $argument),*) -> Result<Self::Ok, Self::Error> { Err(Stop::Without) })*
    };
}

impl<'p> Serializer for Finder<'p> {
    type Ok = bool;
    type Error = Stop;
    type SerializeSeq = Impossible<bool, Stop>;
    type SerializeTuple = Impossible<bool, Stop>;
    type SerializeTupleStruct = Impossible<bool, Stop>;
    type SerializeTupleVariant = Impossible<bool, Stop>;
    type SerializeMap = Keys<'p>;
    type SerializeStruct = Impossible<bool, Stop>;
    type SerializeStructVariant = Impossible<bool, Stop>;

    fn serialize_str(self, key: &str) -> Result<bool, Stop> {
        Ok(self.path.first().is_some_and(|first| first == key))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Keys<'p>, Stop> {
        Ok(Keys { finder: self, here: false })
    }

    no_path_leads_through! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_f32(f32),
        serialize_f64(f64), serialize_char(char), serialize_bytes(&[u8]), serialize_none(), serialize_unit(),
        serialize_unit_struct(&'static str), serialize_unit_variant(&'static str, u32, &'static str),
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<bool, Stop> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<bool, Stop> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<bool, Stop> {
        Err(Stop::Without)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Stop> {
        Err(Stop::Without)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Stop> {
        Err(Stop::Without)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Stop> {
        Err(Stop::Without)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Stop> {
        Err(Stop::Without)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Stop> {
        Err(Stop::Without)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Stop> {
        Err(Stop::Without)
    }
}

// === Checking ===

/// What is known of a value before there is one.
#[derive(Debug, Clone)]
enum Type {
    /// Nothing.
    Any,
    Null,
    Flag,
    Number,
    Text,
    Word(&'static [String]),
    Bytes,
    List(Box<Type>),
    /// Made by the expression itself.
    Map,
    Object(Object),
}

/// An object of the event.
#[derive(Debug, Clone)]
struct Object {
    /// As written.
    name: String,
    fields: &'static [Field],
    /// None: an element of a list.
    path: Option<Vec<String>>,
}

impl Type {
    /// In a sentence after "is".
    fn word(&self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Null => "null",
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::Text | Self::Word(_) => "text",
            Self::Bytes => "bytes",
            Self::List(_) => "a list",
            Self::Map => "a map",
            Self::Object(_) => "an object",
        }
    }

    /// Values of the two can be equal.
    fn goes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any | Self::Null, _) | (_, Self::Any | Self::Null) => true,
            (Self::List(left), Self::List(right)) => left.goes_with(right),
            (left, right) => left.word() == right.word(),
        }
    }

    fn of(shape: &'static Shape, name: &str, path: Option<&[String]>) -> Self {
        match shape {
            Shape::Flag => Self::Flag,
            Shape::Number => Self::Number,
            Shape::Text => Self::Text,
            Shape::Word(words) => Self::Word(words),
            Shape::List(element) => Self::List(Box::new(Self::of(element, name, None))),
            Shape::Object(object) => Self::Object(Object {
                name: name.to_owned(),
                fields: FIELDS.get(object).map_or(&[][..], Vec::as_slice),
                path: path.map(<[String]>::to_vec),
            }),
        }
    }
}

/// How a function is written.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `f(x)`
    Plain,
    /// `x.f()`
    On,
    Both,
}

/// What a function wants.
#[derive(Clone, Copy)]
enum Take {
    Text,
    Sized,
    Scalar,
}

impl Take {
    fn takes(self, is: &Type) -> bool {
        match (self, is) {
            (_, Type::Any | Type::Text | Type::Word(_))
            | (Self::Sized, Type::List(_) | Type::Map | Type::Bytes)
            | (Self::Scalar, Type::Number | Type::Flag | Type::Bytes) => true,
            (Self::Text | Self::Sized | Self::Scalar, _) => false,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Sized => "text or a list",
            Self::Scalar => "text or a number",
        }
    }
}

/// The functions of CEL that have a use here: name, form, what they take (first what they are called on) and
/// what they give.
const FUNCTIONS: &[(&str, Form, &[Take], Type)] = &[
    ("size", Form::Both, &[Take::Sized], Type::Number),
    ("contains", Form::On, &[Take::Text, Take::Text], Type::Flag),
    ("startsWith", Form::On, &[Take::Text, Take::Text], Type::Flag),
    ("endsWith", Form::On, &[Take::Text, Take::Text], Type::Flag),
    ("matches", Form::Both, &[Take::Text, Take::Text], Type::Flag),
    ("string", Form::Plain, &[Take::Scalar], Type::Text),
    ("int", Form::Plain, &[Take::Scalar], Type::Number),
    ("uint", Form::Plain, &[Take::Scalar], Type::Number),
    ("double", Form::Plain, &[Take::Scalar], Type::Number),
    ("bool", Form::Plain, &[Take::Scalar], Type::Flag),
];

/// Macros: they are calls still only where they were not written as they must be.
const MACROS: &[(&str, &str)] = &[
    ("has", "has(process.container)"),
    ("exists", "list.exists(x, condition on x)"),
    ("all", "list.all(x, condition on x)"),
    ("exists_one", "list.exists_one(x, condition on x)"),
    ("existsOne", "list.existsOne(x, condition on x)"),
    ("filter", "list.filter(x, condition on x)"),
    ("map", "list.map(x, what to make of x)"),
];

/// Goes through an expression, finds the type of each part, and puts variables in place of fields.
struct Checker<'s> {
    source: &'s SourceInfo,
    places: Vec<Place>,
    /// Names that macros introduce, the innermost last.
    scope: Vec<(String, Type)>,
}

impl Checker<'_> {
    /// Checks what must be a value, which an object is not.
    fn value(&mut self, expression: &mut IdedExpr) -> Result<Type, ExpressionError> {
        match self.part(expression)? {
            Type::Object(object) => {
                let fields: Vec<&str> = object.fields.iter().map(|field| field.name.as_str()).collect();
                let what = format!(
                    "{} is an object; name one of its fields ({}), or ask whether it is there: {} != null",
                    object.name,
                    fields.join(", "),
                    object.name,
                );
                Err(self.mismatch(expression.id, what))
            }
            other => Ok(other),
        }
    }

    fn part(&mut self, expression: &mut IdedExpr) -> Result<Type, ExpressionError> {
        let id = expression.id;
        match &mut expression.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Type::Flag,
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Type::Number,
                LiteralValue::String(_) => Type::Text,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Null => Type::Null,
            }),
            Expr::Ident(name) => {
                let name = name.clone();
                if let Some((_, known)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
                    return Ok(known.clone());
                }
                let event = Object { name: String::new(), fields: &FIELDS[EVENT], path: Some(Vec::new()) };
                if name == EVENT {
                    return Ok(Type::Object(event));
                }
                self.field(expression, &event, name.trim_start_matches('.'))
            }
            Expr::Select(select) if select.test => {
                let SelectExpr { operand, field, .. } = std::mem::take(select);
                self.presence(expression, *operand, &field)
            }
            Expr::Select(select) => {
                let written = name(&select.operand);
                match self.part(&mut select.operand)? {
                    Type::Object(object) => {
                        let field = select.field.clone();
                        self.field(expression, &object, &field)
                    }
                    Type::Any | Type::Map => Ok(Type::Any),
                    other => {
                        let what =
                            format!("{written} is {} and has no field {:?}", other.word(), select.field);
                        Err(self.mismatch(id, what))
                    }
                }
            }
            Expr::Call(call) => {
                let call = std::mem::take(call);
                self.call(expression, call)
            }
            Expr::List(list) => {
                let types = list.elements.iter_mut().map(|element| self.value(element));
                let types: Vec<Type> = types.collect::<Result<_, _>>()?;
                let first = types.first().cloned().unwrap_or(Type::Any);
                let same = types.iter().all(|other| other.word() == first.word());
                Ok(Type::List(Box::new(if same { first } else { Type::Any })))
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.value(&mut entry.key)?;
                        self.value(&mut entry.value)?;
                    }
                }
                Ok(Type::Map)
            }
            Expr::Comprehension(comprehension) => self.comprehension(id, comprehension),
            Expr::Struct(_) | Expr::Unspecified => {
                Err(self.mismatch(id, "an object cannot be made here".to_owned()))
            }
        }
    }

    /// A field of an object, which is written in `expression`.
    fn field(
        &mut self,
        expression: &mut IdedExpr,
        object: &Object,
        field: &str,
    ) -> Result<Type, ExpressionError> {
        let written = joined(&object.name, field);
        let Some(known) = object.fields.iter().find(|known| known.name == field) else {
            let hint = if object.path.is_some() { similar_path(&written) } else { None };
            let hint = hint
                .or_else(|| {
                    let names = object.fields.iter().map(|known| known.name.as_str());
                    similar(field, names).map(|name| joined(&object.name, name))
                })
                .map(|meant| format!("; did you mean {meant:?}?"));
            let hint = hint.unwrap_or_else(|| {
                let names: Vec<&str> = object.fields.iter().map(|known| known.name.as_str()).collect();
                let of = if object.name.is_empty() { "an event" } else { &object.name };
                format!("; {of} has {}", names.join(", "))
            });
            return Err(ExpressionError::NoField { name: written, hint });
        };
        let path = object.path.as_ref().map(|path| [path.as_slice(), &[field.to_owned()]].concat());
        let is = Type::of(&known.shape, &written, path.as_deref());
        if let (Some(path), false) = (path, matches!(is, Type::Object(_))) {
            let same = |place: &Place| matches!(place, Place::Field(other, _) if *other == path);
            expression.expr = match self.places.iter().position(same) {
                Some(number) => variable(number),
                None => self.place(Place::Field(path, known)),
            };
        }
        Ok(is)
    }

    /// `has(operand.field)`
    fn presence(
        &mut self,
        expression: &mut IdedExpr,
        mut operand: IdedExpr,
        field: &str,
    ) -> Result<Type, ExpressionError> {
        match self.part(&mut operand)? {
            Type::Object(object) => {
                // The field must exist; what it is does not matter.
                let mut unused = IdedExpr::default();
                let before = self.places.len();
                self.field(&mut unused, &object, field)?;
                self.places.truncate(before);
                expression.expr = match object.path {
                    Some(mut path) => {
                        path.push(field.to_owned());
                        self.place(Place::Presence(path))
                    }
                    None => Expr::Select(SelectExpr {
                        operand: Box::new(operand),
                        field: presence_key(field),
                        test: false,
                    }),
                };
            }
            Type::Any | Type::Map => {
                expression.expr = Expr::Select(SelectExpr {
                    operand: Box::new(operand),
                    field: field.to_owned(),
                    test: true,
                });
            }
            other => {
                let what = format!("{} has no fields, so none can be there", other.word());
                return Err(self.mismatch(expression.id, what));
            }
        }
        Ok(Type::Flag)
    }

    fn call(&mut self, expression: &mut IdedExpr, call: CallExpr) -> Result<Type, ExpressionError> {
        match (&call.target, call.func_name.as_str(), call.args.as_slice()) {
            (None, operators::EQUALS | operators::NOT_EQUALS, [_, _]) => self.equality(expression, call),
            (None, operators::INDEX, [_, _]) => self.index(expression, call),
            (None, operator, [_, ..]) if operator.starts_with(['_', '@', '!', '-']) => {
                self.operator(expression, call)
            }
            _ => self.function(expression, call),
        }
    }

    /// `==` and `!=`
    fn equality(&mut self, expression: &mut IdedExpr, mut call: CallExpr) -> Result<Type, ExpressionError> {
        let null = |side: &IdedExpr| matches!(side.expr, Expr::Literal(LiteralValue::Null));
        let equal = call.func_name == operators::EQUALS;
        if let Some(side) = call.args.iter().position(null) {
            let other = call.args[1 - side].clone();
            if let Some((operand, field)) = self.owner(&other) {
                self.presence(expression, operand, &field)?;
                if equal {
                    let there = std::mem::take(expression);
                    let id = there.id;
                    let not = CallExpr {
                        func_name: operators::LOGICAL_NOT.to_owned(),
                        target: None,
                        args: vec![there],
                    };
                    *expression = IdedExpr { id, expr: Expr::Call(not) };
                }
                return Ok(Type::Flag);
            }
        }
        let names = [name(&call.args[0]), name(&call.args[1])];
        let texts = [literal(&call.args[0]), literal(&call.args[1])];
        let types = [self.value(&mut call.args[0])?, self.value(&mut call.args[1])?];
        if !types[0].goes_with(&types[1]) {
            let what = format!(
                "{} is {} and {} is {}: they are never equal",
                names[0],
                types[0].word(),
                names[1],
                types[1].word()
            );
            return Err(self.mismatch(expression.id, what));
        }
        for (side, other) in [(0, 1), (1, 0)] {
            if let (Type::Word(words), Some(text)) = (&types[side], &texts[other]) {
                self.one_of(expression.id, &names[side], words, text)?;
            }
        }
        expression.expr = Expr::Call(call);
        Ok(Type::Flag)
    }

    /// The object and the field of it that an expression is, if it is one. Nobody can write the name of the
    /// event itself, which is empty.
    fn owner(&self, expression: &IdedExpr) -> Option<(IdedExpr, String)> {
        match &expression.expr {
            Expr::Select(select) if !select.test => Some(((*select.operand).clone(), select.field.clone())),
            Expr::Ident(name) if !self.scope.iter().any(|(known, _)| known == name) => {
                Some((IdedExpr { id: expression.id, expr: Expr::Ident(EVENT.to_owned()) }, name.clone()))
            }
            _ => None,
        }
    }

    /// A field that has one of a few words is compared with text.
    fn one_of(&self, id: u64, name: &str, words: &[String], text: &str) -> Result<(), ExpressionError> {
        // A number that has no word is written as it is; an absent one is empty.
        if words.iter().any(|word| word == text) || text.is_empty() || text.parse::<i32>().is_ok() {
            return Ok(());
        }
        let ending = words.iter().find(|word| word.ends_with(&format!(".{text}")));
        let meant = ending.map(String::as_str).or_else(|| similar(text, words.iter().map(String::as_str)));
        let hint = match meant {
            Some(word) => format!("did you mean {word:?}?"),
            None => format!("it is one of {}", words.join(", ")),
        };
        Err(self.mismatch(id, format!("{name} is never {text:?}; {hint}")))
    }

    /// `list[0]`, `map[key]`, and `object["field"]`, which is `object.field`.
    fn index(&mut self, expression: &mut IdedExpr, mut call: CallExpr) -> Result<Type, ExpressionError> {
        let names = [name(&call.args[0]), name(&call.args[1])];
        let of = self.part(&mut call.args[0])?;
        if let (Type::Object(object), Some(field)) = (&of, literal(&call.args[1])) {
            let operand = Box::new(call.args.swap_remove(0));
            expression.expr = Expr::Select(SelectExpr { operand, field: field.clone(), test: false });
            return self.field(expression, object, &field);
        }
        let index = self.value(&mut call.args[1])?;
        let what = match of {
            Type::List(element) if index.goes_with(&Type::Number) => {
                expression.expr = Expr::Call(call);
                return Ok(*element);
            }
            Type::Any | Type::Map => {
                expression.expr = Expr::Call(call);
                return Ok(Type::Any);
            }
            Type::List(_) => {
                format!("elements of a list are numbered from 0; {} is {}", names[1], index.word())
            }
            of => format!("{} is {} and has no elements", names[0], of.word()),
        };
        Err(self.mismatch(expression.id, what))
    }

    fn operator(&mut self, expression: &mut IdedExpr, mut call: CallExpr) -> Result<Type, ExpressionError> {
        let id = expression.id;
        let names: Vec<String> = call.args.iter().map(name).collect();
        let listed = call.args.get(1).map(literals).unwrap_or_default();
        let mut types = Vec::with_capacity(call.args.len());
        for argument in &mut call.args {
            types.push(self.value(argument)?);
        }
        let operator = call.func_name.trim_matches(['_', '@']).to_owned();
        let wrong = |argument: usize, wanted: &str| {
            format!("{operator} wants {wanted}; {} is {}", names[argument], types[argument].word())
        };
        let apart = || {
            format!(
                "{operator} does not go with {} and {}: {} and {}",
                types[0].word(),
                types[1].word(),
                names[0],
                names[1]
            )
        };
        let result = match (call.func_name.as_str(), types.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, types) => {
                match types.iter().position(|is| !matches!(is, Type::Flag | Type::Any)) {
                    Some(argument) => Err(wrong(argument, "conditions")),
                    None => Ok(Type::Flag),
                }
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                if !matches!(condition, Type::Flag | Type::Any) {
                    Err(format!("? wants a condition before it; {} is {}", names[0], condition.word()))
                } else if yes.word() == no.word() {
                    Ok(yes.clone())
                } else {
                    Ok(Type::Any)
                }
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [left, right],
            ) => {
                let ordered = |is: &Type| {
                    matches!(
                        is,
                        Type::Any | Type::Number | Type::Text | Type::Word(_) | Type::Flag | Type::Bytes
                    )
                };
                if ordered(left) && ordered(right) && left.goes_with(right) {
                    Ok(Type::Flag)
                } else {
                    Err(apart())
                }
            }
            (operators::IN, [left, right]) => match right {
                Type::List(element) if left.goes_with(element) => {
                    if let Type::Word(words) = left {
                        for text in &listed {
                            self.one_of(id, &names[0], words, text)?;
                        }
                    }
                    Ok(Type::Flag)
                }
                Type::List(element) => Err(format!(
                    "{} is {}, {} is a list of which each is {}: it is never in it",
                    names[0],
                    left.word(),
                    names[1],
                    element.word()
                )),
                Type::Map | Type::Any => Ok(Type::Flag),
                Type::Text | Type::Word(_) => {
                    Err(format!("in looks into lists; of text write {}.contains({})", names[1], names[0]))
                }
                _ => Err(wrong(1, "a list on its right")),
            },
            (operators::ADD, [left, right]) => match (left, right) {
                (Type::List(left), Type::List(right)) => {
                    let known = if matches!(**left, Type::Any) { right } else { left };
                    Ok(Type::List(known.clone()))
                }
                (Type::Any, other) | (other, Type::Any) => Ok(other.clone()),
                (Type::Text | Type::Word(_), Type::Text | Type::Word(_)) => Ok(Type::Text),
                (Type::Number, Type::Number) => Ok(Type::Number),
                (Type::Bytes, Type::Bytes) => Ok(Type::Bytes),
                _ => Err(apart()),
            },
            (operators::NOT_STRICTLY_FALSE, _) => Ok(Type::Flag),
            (_, types) => match types.iter().position(|is| !matches!(is, Type::Number | Type::Any)) {
                Some(argument) => Err(wrong(argument, "numbers")),
                None => Ok(Type::Number),
            },
        };
        match result {
            Ok(is) => {
                expression.expr = Expr::Call(call);
                Ok(is)
            }
            Err(what) => Err(self.mismatch(id, what)),
        }
    }

    fn function(&mut self, expression: &mut IdedExpr, mut call: CallExpr) -> Result<Type, ExpressionError> {
        let id = expression.id;
        let name_of = call.func_name.clone();
        if let Some((_, usage)) = MACROS.iter().find(|(known, _)| *known == name_of) {
            return Err(self.mismatch(id, format!("{name_of} is written {usage}")));
        }
        let Some((_, form, takes, gives)) = FUNCTIONS.iter().find(|(known, ..)| *known == name_of) else {
            let names =
                FUNCTIONS.iter().map(|(known, ..)| *known).chain(MACROS.iter().map(|(known, _)| *known));
            let hint = match similar(&name_of, names.clone()) {
                Some(meant) => format!("; did you mean {meant:?}?"),
                None => format!("; there are {}", names.collect::<Vec<_>>().join(", ")),
            };
            return Err(ExpressionError::NoFunction { name: name_of, hint });
        };
        let on = call.target.is_some();
        let mut arguments: Vec<&mut IdedExpr> =
            call.target.as_deref_mut().into_iter().chain(&mut call.args).collect();
        if arguments.len() != takes.len() || (on && *form == Form::Plain) || (!on && *form == Form::On) {
            let words: Vec<&str> = takes.iter().map(|take| take.word()).collect();
            let usage = match (form, words.as_slice()) {
                (Form::On, [first, rest @ ..]) => format!("({first}).{name_of}({})", rest.join(", ")),
                _ => format!("{name_of}({})", words.join(", ")),
            };
            return Err(self.mismatch(id, format!("{name_of} is written {usage}")));
        }
        for (argument, take) in arguments.iter_mut().zip(*takes) {
            let written = name(argument);
            let is = self.value(argument)?;
            if !take.takes(&is) {
                let what = format!("{name_of} wants {}; {written} is {}", take.word(), is.word());
                return Err(self.mismatch(id, what));
            }
        }
        if name_of == "matches"
            && let [text, pattern] = arguments.as_mut_slice()
            && let Some(written) = literal(pattern)
        {
            let regex = Regex::new(&written).map_err(|error| {
                let error = error.to_string();
                let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                self.mismatch(id, format!("{written:?} is no regular expression: {why}"))
            })?;
            let pattern = IdedExpr { id: pattern.id, expr: self.place(Place::Pattern(Pattern(regex))) };
            let text = std::mem::take(*text);
            call = CallExpr { func_name: MATCHES.to_owned(), target: None, args: vec![text, pattern] };
        }
        expression.expr = Expr::Call(call);
        Ok(gives.clone())
    }

    /// What `exists` and the like are made to.
    fn comprehension(&mut self, id: u64, made: &mut ComprehensionExpr) -> Result<Type, ExpressionError> {
        let written = name(&made.iter_range);
        let element = match self.value(&mut made.iter_range)? {
            Type::List(element) => *element,
            Type::Map | Type::Any => Type::Any,
            other => {
                return Err(
                    self.mismatch(id, format!("{written} is {}, not a list to go through", other.word()))
                );
            }
        };
        let element = match element {
            Type::Object(object) => Type::Object(Object { name: made.iter_var.clone(), ..object }),
            other => other,
        };
        let start = self.value(&mut made.accu_init)?;
        let before = self.scope.len();
        self.scope.push((made.iter_var.clone(), element));
        if let Some(second) = &made.iter_var2 {
            self.scope.push((second.clone(), Type::Any));
        }
        self.scope.push((made.accu_var.clone(), start));
        self.value(&mut made.loop_cond)?;
        let step = self.value(&mut made.loop_step)?;
        // A list that is gathered begins empty: only the step says of what it is.
        if let Some((_, accumulated)) = self.scope.last_mut() {
            *accumulated = step;
        }
        let result = self.value(&mut made.result);
        self.scope.truncate(before);
        result
    }

    fn place(&mut self, place: Place) -> Expr {
        self.places.push(place);
        variable(self.places.len() - 1)
    }

    fn mismatch(&self, id: u64, what: String) -> ExpressionError {
        let text = &self.source.source;
        let start = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        let before: String = text.chars().take(start).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        ExpressionError::Mismatch { at: Position { line, column }, what }
    }
}

fn variable(number: usize) -> Expr {
    Expr::Ident(format!("@{number}"))
}

fn joined(object: &str, field: &str) -> String {
    if object.is_empty() { field.to_owned() } else { format!("{object}.{field}") }
}

/// What was written, as far as it is short.
fn name(expression: &IdedExpr) -> String {
    match &expression.expr {
        Expr::Ident(name) => name.clone(),
        Expr::Select(select) if !select.test => joined(&name(&select.operand), &select.field),
        Expr::Literal(LiteralValue::String(text)) => format!("{:?}", text.inner()),
        Expr::Literal(LiteralValue::Int(number)) => number.inner().to_string(),
        Expr::Literal(LiteralValue::UInt(number)) => number.inner().to_string(),
        Expr::Literal(LiteralValue::Double(number)) => number.inner().to_string(),
        Expr::Literal(LiteralValue::Boolean(flag)) => flag.inner().to_string(),
        Expr::Call(call) if !call.func_name.starts_with(['_', '@', '!', '-']) => match &call.target {
            Some(target) => format!("{}.{}(…)", name(target), call.func_name),
            None => format!("{}(…)", call.func_name),
        },
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [of, index] => format!("{}[{}]", name(of), name(index)),
            _ => "(…)".to_owned(),
        },
        Expr::List(_) => "[…]".to_owned(),
        _ => "(…)".to_owned(),
    }
}

fn literal(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

fn literals(list: &IdedExpr) -> Vec<String> {
    match &list.expr {
        Expr::List(list) => list.elements.iter().filter_map(literal).collect(),
        _ => Vec::new(),
    }
}

/// The path of a field that ends as `written` does: `exe.path` is short for `process.exe.path`.
fn similar_path(written: &str) -> Option<String> {
    // Nearly everybody means the process.
    let (first, others): (Vec<_>, Vec<_>) = FIELDS[EVENT].iter().partition(|part| part.name == "process");
    first.into_iter().chain(others).find_map(|part| {
        let Shape::Object(object) = &part.shape else { return None };
        let path = format!("{}.{written}", part.name);
        let mut fields = FIELDS.get(object)?;
        let mut names = written.split('.').peekable();
        while let Some(name) = names.next() {
            let field = fields.iter().find(|field| field.name == name)?;
            match &field.shape {
                Shape::Object(object) => fields = FIELDS.get(object)?,
                _ if names.peek().is_some() => return None,
                _ => {}
            }
        }
        Some(path)
    })
}

/// The name that is nearest to `written`, if one is near.
fn similar<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    /// A slip of a finger or two, or one word of two left out or spelled out.
    const NEAR: f64 = 0.84;
    let near = |name: &'n str| (strsim::jaro_winkler(&written.to_lowercase(), &name.to_lowercase()), name);
    let (nearness, name) = names.map(near).max_by(|left, right| left.0.total_cmp(&right.0))?;
    (nearness >= NEAR).then_some(name)
}

// === Syntax ===

/// The most brackets that are open at once, those in text left out.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut quote, mut escaped) = (0_usize, 0, None, false);
    for c in text.chars() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (Some(_) | None, _) => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The first thing that the parser did not understand, in words. What it says after that follows from it.
fn syntax(text: &str, errors: &ParseErrors) -> ExpressionError {
    let syntax = |error: &&cel::ParseError| error.msg.starts_with("Syntax error");
    let Some(error) = errors.errors.iter().find(syntax).or(errors.errors.first()) else {
        return ExpressionError::Syntax {
            at: Position { line: 1, column: 1 },
            what: "not understood".to_owned(),
        };
    };
    let at = Position {
        line: usize::try_from(error.pos.0).unwrap_or(1).max(1),
        column: usize::try_from(error.pos.1).unwrap_or(1).max(1),
    };
    let line = text.split('\n').nth(at.line - 1).unwrap_or_default();
    let split = line.char_indices().nth(at.column - 1).map_or(line.len(), |(split, _)| split);
    let (before, rest) = line.split_at(split);
    ExpressionError::Syntax { at, what: in_words(&error.msg, before.trim_end(), rest) }
}

/// Operators of other languages, and what to write instead. Longer ones come before what they begin with.
const FOREIGN: &[(&str, &str)] = &[
    ("=~", "text.matches(\"…\")"),
    ("=", "=="),
    ("&", "&&"),
    ("|", "||"),
    ("and ", "&&"),
    ("or ", "||"),
    ("is ", "=="),
    ("like ", "text.matches(\"…\")"),
    ("~", "text.matches(\"…\")"),
    ("<>", "!="),
];

fn in_words(message: &str, before: &str, rest: &str) -> String {
    const VALUE: &str = "a value (a field, a number, \"text\" or something in parentheses)";
    let next: String = rest.chars().take(12).collect();
    let quoted = rest.starts_with(['"', '\'']);
    if let Some(word) = message.strip_prefix("reserved identifier: ") {
        return format!("{word:?} is a word that CEL keeps for itself");
    }
    if message.contains("has() macro") {
        return "has wants a field of an object, as in has(process.container); of a part of the event write \
                exec != null"
            .to_owned();
    }
    if message.contains("must be a simple name") {
        return "first a name for the element is wanted, as in list.exists(x, condition on x)".to_owned();
    }
    if message.starts_with("invalid") {
        return format!("{next:?} is no number of 64 bits");
    }
    if message.contains("token recognition") && quoted {
        let quote = &rest[..1];
        return if rest[1..].contains(quote) && rest.contains('\\') {
            format!("a backslash in text is written \\\\, or put an r before it: r{quote}…{quote}")
        } else {
            format!("the text that begins with {quote} has no end")
        };
    }
    if let Some((foreign, own)) = FOREIGN.iter().find(|(foreign, _)| rest.starts_with(foreign)) {
        return format!("{:?} is no operator of CEL; write {own}", foreign.trim_end());
    }
    if before == "not" || before.ends_with(" not") {
        return "\"not\" is no operator of CEL; write !".to_owned();
    }
    if rest.starts_with('.') && message.contains("no viable alternative") {
        return "after the dot the name of a field is wanted".to_owned();
    }
    if message.contains("token recognition") || message.contains("unsupported syntax") {
        return format!("{:?} means nothing here", rest.chars().next().unwrap_or_default());
    }
    let wanted = match message.split_once("missing '").and_then(|(_, after)| after.split_once('\'')) {
        Some((token, _)) => format!("{token:?}"),
        None if message.contains("IDENTIFIER") => VALUE.to_owned(),
        None if message.contains("':'") && before.contains('?') => {
            "\":\" and what it is otherwise".to_owned()
        }
        None if message.contains("':'") => "\":\" and the value of the key".to_owned(),
        None if message.contains("{']', ','}") => "\"]\"".to_owned(),
        None if message.contains("<EOF>") => "an operator such as == or &&, or the end,".to_owned(),
        None => "something else".to_owned(),
    };
    if rest.is_empty() {
        format!("the expression ends where {wanted} is wanted")
    } else if rest.starts_with([')', ']', '}']) && message.contains("extraneous") {
        format!("this {:?} closes nothing", &rest[..1])
    } else {
        format!("{wanted} is wanted before {next:?}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nightjar_proto::v1::{
        Cgroup, Container, Exec, Exit, File, Loss, Parent, Process, Source, Telemetry, event::Body,
    };
    use prost_types::Timestamp;

    use super::*;

    fn process() -> Process {
        Process {
            pid: 4242,
            comm: "ls".to_owned(),
            exe: Some(File { path: "/tmp/ls".to_owned(), inode: 7, ..File::default() }),
            args: ["ls", "--privileged=yes", "/"].map(str::to_owned).to_vec(),
            uid: Some(0),
            euid: Some(0),
            cgroup: Some(Cgroup { id: u64::MAX, ..Cgroup::default() }),
            source: Source::Kernel.into(),
            ..Process::default()
        }
    }

    fn exec() -> Event {
        Event {
            time: Some(Timestamp { seconds: 1_787_220_000, nanos: 5 }),
            kind: "process.exec".to_owned(),
            host: "db1".to_owned(),
            process: Some(process()),
            parent: Some(Parent { comm: "bash".to_owned(), uid: Some(1000), ..Parent::default() }),
            body: Some(Body::Exec(Exec { privileges_gained: vec!["setuid".to_owned()], ..Exec::default() })),
            ..Event::default()
        }
    }

    fn exit(exit: Exit) -> Event {
        Event { kind: "process.exit".to_owned(), parent: None, body: Some(Body::Exit(exit)), ..exec() }
    }

    fn loss() -> Event {
        let losses = vec![
            Loss { hook: "exec".to_owned(), reason: "ring_full".to_owned(), count: 17, ..Loss::default() },
            Loss { hook: "exit".to_owned(), reason: "too_big".to_owned(), count: 2, ..Loss::default() },
        ];
        Event {
            kind: "telemetry.loss".to_owned(),
            process: None,
            parent: None,
            body: Some(Body::Telemetry(Telemetry { losses, ..Telemetry::default() })),
            ..exec()
        }
    }

    #[track_caller]
    fn fits(text: &str, event: &Event) -> bool {
        let expression = Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let fits = expression.fits(event);
        assert_eq!(expression.first_error(), None, "{text}");
        fits
    }

    #[track_caller]
    fn refusal(text: &str) -> String {
        Expression::compile(text).expect_err(text).to_string()
    }

    #[test]
    fn fields_have_the_names_and_values_of_the_json() {
        for text in [
            r#"kind == "process.exec""#,
            r#"host == "db1" && time.startsWith("2026-08-") && schema == 0"#,
            "process.pid == 4242 && process.pid > 4241 && process.pid < 5e3",
            r#"process.exe.path.matches("^/tmp/") && matches(process.comm, "^l.$")"#,
            r#"process.exe.path == "/tmp/" + process.comm"#,
            r#"process.args.exists(a, a.startsWith("--privileged"))"#,
            r#"size(process.args) == 3 && process.args.size() > 2 && process.args[2] == "/""#,
            r#""setuid" in exec.privileges_gained"#,
            r#"process.comm in ["cat", "ls"]"#,
            r#"process["exe"].path == "/tmp/ls" && process["exe"]["path"] == process.exe.path"#,
            r#"parent.comm == "bash" ? parent.uid == 1000 : false"#,
            r#"process.source == "kernel""#,
            r#"process.args.filter(a, a != "/").map(a, a.size()).exists(n, n == 2)"#,
            "process.args.all(a, a != process.exe.path)",
            "process.cgroup.id == 18446744073709551615u && process.cgroup.id > 5",
            "process.exe.inode + 1 == 8 && -process.pid < 0 && process.pid % 2 == 0",
            "!process.no_new_privs && string(process.pid) == \"4242\"",
        ] {
            assert!(fits(text, &exec()), "{text}");
        }
        assert!(!fits(r#"process.comm == "cat""#, &exec()));
        assert!(!fits(r#"process.exe.path.matches("^/usr/")"#, &exec()));
    }

    #[test]
    fn what_is_left_out_of_the_json_is_empty_zero_false_or_an_empty_list() {
        for text in [
            r#"process.tty == "" && process.cwd.size() == 0"#,
            "process.securebits == 0 && !process.kernel_thread",
            "process.capabilities.effective.size() == 0",
            r#"process.container.id == "" && process.container.id != "x""#,
            r#"!process.container.id.startsWith("x")"#,
            "parent.args == [] && exec.argc == 0 && exec.script.path == \"\"",
        ] {
            assert!(fits(text, &exec()), "{text}");
        }
        assert!(!fits(r#"process.container.id == "x""#, &exec()));
    }

    #[test]
    fn what_is_said_of_a_part_that_the_event_does_not_have_does_not_fit() {
        let exit = exit(Exit { code: Some(0), ..Exit::default() });
        for text in [
            r#""setuid" in exec.privileges_gained"#,
            r#"!("setuid" in exec.privileges_gained)"#,
            "exec.argc == 0",
            "parent.uid == 0",
            "parent.uid != 0",
            r#"telemetry.losses.exists(l, l.reason == "ring_full")"#,
            "telemetry.losses.all(l, false)",
        ] {
            assert!(!fits(text, &exit), "{text}");
        }
        for text in [
            "exec.argc == 0 || exit.code == 0",
            "exit.code == 0 || exec.argc == 0",
            r#"kind != "process.exec" || exec.argc == 0"#,
            "exec == null && exit != null && parent == null",
            "!has(exec.script)",
        ] {
            assert!(fits(text, &exit), "{text}");
        }
        assert!(!fits("exit.code == 0", &exec()), "an exec has no exit code");
        assert!(!fits("process.uid == 0", &loss()), "nobody did it");
    }

    #[test]
    fn a_number_that_is_unset_is_no_number() {
        let killed = exit(Exit { signal: "SIGKILL".to_owned(), ..Exit::default() });
        for (text, expected) in [
            ("exit.code != 0", true),
            ("exit.code == 0", false),
            ("exit.code >= 0", false),
            ("0 <= exit.code", false),
            ("exit.code + 1 > 0", false),
            ("exit.code in [0, 1]", false),
            ("exit.code == null", true),
            ("has(exit.code)", false),
            ("process.loginuid == 0", false),
            ("process.uid == 0 && process.loginuid >= 1000", false),
            ("process.uid == 0", true),
        ] {
            assert_eq!(fits(text, &killed), expected, "{text}");
        }
        assert!(fits("exit.code == 0 && has(exit.code)", &exit(Exit { code: Some(0), ..Exit::default() })));
        let mut sudo = exec();
        sudo.process.as_mut().unwrap().loginuid = Some(1000);
        assert!(fits("process.uid == 0 && process.loginuid >= 1000", &sudo));
    }

    #[test]
    fn whether_something_is_there_can_be_asked() {
        let mut contained = exec();
        contained.process.as_mut().unwrap().container =
            Some(Container { id: "x".to_owned(), ..Container::default() });
        for (text, there) in [
            ("has(process.container)", true),
            ("process.container != null", true),
            ("process.container == null", false),
            ("null != process.container.id", true),
            ("has(process.container.runtime)", false),
            (r#"has(process["container"].id)"#, true),
        ] {
            assert_eq!(fits(text, &contained), there, "{text}");
        }
        assert!(!fits("has(process.container)", &exec()));
        assert!(fits("process.container == null && exec != null", &exec()));
    }

    #[test]
    fn elements_of_lists_of_objects_have_their_fields_and_defaults() {
        for text in [
            r#"telemetry.losses.exists(l, l.reason == "ring_full" && l.count > 16)"#,
            r#"telemetry.losses[0].count == 17 && telemetry.losses[1]["count"] == 2"#,
            "telemetry.losses.all(l, l.kinds.size() == 0)",
            "telemetry.losses.all(l, has(l.hook) && !has(l.kinds) && l.kinds == null)",
            r#"telemetry.losses.map(l, l.hook) == ["exec", "exit"]"#,
            "telemetry.losses.exists_one(l, l.count == 2)",
        ] {
            assert!(fits(text, &loss()), "{text}");
        }
        assert!(!fits("telemetry.losses[2].count == 0", &loss()), "there are two");
    }

    #[test]
    fn syntax_errors_say_where_and_what_is_wanted() {
        for (text, expected) in [
            (
                "process.pid ==",
                "column 15: the expression ends where a value (a field, a number, \"text\" or something in \
                 parentheses) is wanted",
            ),
            ("process.pid = 1", "column 13: \"=\" is no operator of CEL; write =="),
            ("process.pid == 1 & true", "column 18: \"&\" is no operator of CEL; write &&"),
            ("process.pid == 1 and true", "column 18: \"and\" is no operator of CEL; write &&"),
            ("not process.memfd", "column 5: \"not\" is no operator of CEL; write !"),
            ("(process.pid == 1", "column 18: the expression ends where \")\" is wanted"),
            ("process.pid == 1)", "column 17: this \")\" closes nothing"),
            ("process.comm == \"abc", "column 17: the text that begins with \" has no end"),
            (
                r#"process.comm.matches("\.sh$")"#,
                "column 22: a backslash in text is written \\\\, or put an r before it: r\"…\"",
            ),
            ("process..pid", "column 9: after the dot the name of a field is wanted"),
            ("process.pid # 1", "column 13: '#' means nothing here"),
            ("'é' == process.comm $", "column 21: '$' means nothing here"),
            ("true &&\n process.pid = 1", "line 2, column 14: \"=\" is no operator of CEL; write =="),
            (
                "process.comm == 'a' 'b'",
                "column 21: an operator such as == or &&, or the end, is wanted before \"'b'\"",
            ),
            ("99999999999999999999 == 1", "column 1: \"999999999999\" is no number of 64 bits"),
            ("true ? 1", "column 9: the expression ends where \":\" and what it is otherwise is wanted"),
        ] {
            assert_eq!(refusal(text), expected, "{text}");
        }
        assert!(refusal("has(exec)").contains("exec != null"));
        assert!(refusal("").contains("the expression ends where a value"));
    }

    #[test]
    fn a_field_that_no_event_has_is_refused_wherever_it_stands() {
        for (text, expected) in [
            ("process.exee == 1", r#"no field "process.exee"; did you mean "process.exe"?"#),
            ("proces.exe == null", r#"no field "proces"; did you mean "process"?"#),
            ("exe.path == ''", r#"no field "exe"; did you mean "process.exe"?"#),
            ("pid == 1", r#"no field "pid"; did you mean "process.pid"?"#),
            ("path == ''", r#"no field "path"; did you mean "file.path"?"#),
            ("process.container.image == ''", "has id, pod_uid, runtime"),
            ("has(process.containers)", r#"did you mean "process.container"?"#),
            (
                "telemetry.losses.exists(l, l.reasons == '')",
                r#"no field "l.reasons"; did you mean "l.reason"?"#,
            ),
            ("true || process.exe.paht == ''", r#"did you mean "process.exe.path"?"#),
            ("process.args.exists(a, b == a)", "no field \"b\""),
            ("{'a': process.nothing} == null", "no field \"process.nothing\""),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_function_that_is_not_there_or_is_written_otherwise_is_refused() {
        for (text, expected) in [
            ("process.comm.startswith('a')", r#"no function "startswith"; did you mean "startsWith"?"#),
            ("process.comm.frobnicate()", "no function \"frobnicate\"; there are size, contains"),
            ("startsWith(process.comm, 'a')", "startsWith is written (text).startsWith(text)"),
            ("process.args.exists(a)", "exists is written list.exists(x, condition on x)"),
            ("process.comm.matches('(')", "\"(\" is no regular expression: unclosed group"),
            ("process.pid.startsWith('a')", "startsWith wants text; process.pid is a number"),
            ("size(process.pid) > 1", "size wants text or a list; process.pid is a number"),
            ("optional.of(process.pid) == 1", "no function \"of\""),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    #[test]
    fn what_can_never_fit_is_refused() {
        for (text, expected) in [
            ("process.pid", "process.pid is a number, which says nothing about whether an event fits"),
            ("'a'", "\"a\" is text"),
            ("process", "column 1: process is an object; name one of its fields (args, args_from_proc,"),
            (
                "process.pid == '1'",
                "column 13: process.pid is a number and \"1\" is text: they are never equal",
            ),
            ("process.uid && true", "&& wants conditions; process.uid is a number"),
            ("process.comm > 1", "> does not go with text and a number: process.comm and 1"),
            ("1 in process.args", "it is never in it"),
            ("'a' in process.comm", "of text write process.comm.contains(\"a\")"),
            ("kind == 'exec'", r#"kind is never "exec"; did you mean "process.exec"?"#),
            ("kind in ['process.exec', 'process.exti']", r#"did you mean "process.exit"?"#),
            ("process.source != 'kernal'", r#"did you mean "kernel"?"#),
            ("process.comm.exists(c, true)", "process.comm is text, not a list to go through"),
            ("process.pid[0] == 1", "process.pid is a number and has no elements"),
            ("process.args['a'] == ''", "elements of a list are numbered from 0"),
            ("telemetry.losses.exists(l, l)", "l is an object"),
            ("process.args + 'a' == []", "+ does not go with a list and text"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    #[test]
    fn what_cannot_be_worked_out_does_not_fit_and_is_told_once() {
        let expression = Expression::compile("1 / (process.pid - 4242) == 0").unwrap();
        assert_eq!(expression.first_error(), None);
        assert!(!expression.fits(&exec()));
        assert_eq!(expression.first_error(), Some("division by zero"));
        let expression = Expression::compile("[1, '\\u001b'][process.pid - 4241]").unwrap();
        assert!(!expression.fits(&exec()));
        assert_eq!(expression.first_error(), Some("it is of type string, not true or false"));
        let expression = Expression::compile("process.comm.matches(process.cwd)").unwrap();
        let mut hostile = exec();
        hostile.process.as_mut().unwrap().cwd = "(\u{1B}[2J".to_owned();
        assert!(!expression.fits(&hostile));
        assert!(expression.first_error().is_some_and(|error| !error.contains('\u{1B}')));
    }

    #[test]
    fn an_index_beyond_the_end_of_a_list_does_not_fit() {
        assert!(!fits("process.args[17] == ''", &exec()));
        assert!(fits("process.args[17] == '' || process.pid == 4242", &exec()));
    }

    /// With the stack of a main thread; tests have a smaller one.
    #[test]
    fn no_expression_makes_it_panic_or_overflow_the_stack() {
        let thread = std::thread::Builder::new().stack_size(8 << 20);
        thread.spawn(compile_hostile_expressions).unwrap().join().unwrap();
    }

    fn compile_hostile_expressions() {
        let nests =
            ["(", "[", "!", "-", "{", "process.", "a.b(", "1+", "true?", "has(", "'", "\\", "\u{0}", "é"];
        for part in nests {
            for times in [1, DEEPEST, 90, 300] {
                let text = part.repeat(times);
                assert!(Expression::compile(&text).is_err(), "{text}");
            }
        }
        assert_eq!(Expression::compile(&"(".repeat(DEEPEST + 1)).unwrap_err(), ExpressionError::TooDeep);
        assert_eq!(Expression::compile(&"a".repeat(LONGEST + 1)).unwrap_err(), ExpressionError::TooLong);
        let long = format!("{}true", "false || ".repeat(200));
        assert!(fits(&long, &exec()));
        let deep = format!("{}process.pid{}", "(".repeat(DEEPEST), ")".repeat(DEEPEST));
        assert!(fits(&format!("{deep} == 4242"), &exec()));
        assert!(!fits(&format!("process.comm == \"{}\\\"((\"", "(".repeat(100)), &exec()));
    }

    #[test]
    fn every_field_of_the_schema_is_of_a_type_that_the_rules_know() {
        let samples =
            [exec(), exit(Exit { code: Some(1), signal: "x".to_owned(), ..Exit::default() }), loss()];
        let mut seen = 0;
        for (object, fields) in FIELDS.iter() {
            assert!(!fields.is_empty(), "{object}");
            for field in fields {
                seen += 1;
                let value = field.value(None);
                assert_eq!(*value.get_type() == types::NULL_TYPE, field.unset, "{object}.{}", field.name);
            }
        }
        assert!(seen > 100, "{seen}");
        // What an event has as JSON is what an expression sees.
        for event in &samples {
            let mut line = Vec::new();
            nightjar_proto::to_json(event, &mut line);
            let json: Json = serde_json::from_slice(&line).unwrap();
            let mut leaves = Vec::new();
            flatten("", &json, &mut leaves);
            for (path, leaf) in leaves {
                let text = match leaf {
                    Json::Number(number) if number.as_i64().is_none() => format!("{path} == {number}u"),
                    leaf => format!("{path} == {leaf}"),
                };
                assert!(fits(&text, event), "{text}");
            }
        }
    }

    fn flatten<'j>(path: &str, json: &'j Json, leaves: &mut Vec<(String, &'j Json)>) {
        match json {
            Json::Object(object) => {
                for (name, value) in object {
                    flatten(&joined(path, name), value, leaves);
                }
            }
            Json::Array(list) if list.iter().any(Json::is_object) => {
                for (number, element) in list.iter().enumerate() {
                    flatten(&format!("{path}[{number}]"), element, leaves);
                }
            }
            leaf => leaves.push((path.to_owned(), leaf)),
        }
    }

    #[test]
    #[ignore = "measures: cargo test --release -- --ignored --nocapture what_it_costs"]
    fn what_it_costs() {
        for text in [
            r#"kind == "process.exit""#,
            "process.uid == 0",
            r#"process.exe.path.matches("^/tmp/")"#,
            r#"process.args.exists(a, a.startsWith("--privileged"))"#,
            r#"kind == "process.exec" && process.uid == 0 && process.comm != "sshd""#,
        ] {
            let expression = Expression::compile(text).unwrap();
            let event = exec();
            let start = Instant::now();
            let fitting = (0..1_000_000).filter(|_| expression.fits(std::hint::black_box(&event))).count();
            println!("{:>6} ns  {text}  ({fitting})", start.elapsed().as_nanos() / 1_000_000);
        }
    }
}
