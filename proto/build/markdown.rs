//! Writes the documentation of events.

use std::fmt::Write as _;

use crate::model::{Field, Kind, Message, Model, Shape, Vocabulary, Word};

/// What no declaration can say; the tables follow it.
const INTRODUCTION: &str = include_str!("introduction.md");

/// The page.
///
/// `vocabularies` are those of options.proto with their headings; `example` gives an event of a kind as indented
/// JSON.
///
/// # Errors
///
/// Those of `example`.
pub fn events(
    model: &Model,
    root: &str,
    vocabularies: &[(&str, Vocabulary)],
    example: impl Fn(&str) -> Result<String, String>,
) -> Result<String, String> {
    let mut page = INTRODUCTION.to_owned();
    for (heading, vocabulary) in vocabularies {
        let _ = write!(page, "\n## {heading}\n\n| word | meaning |\n|---|---|\n");
        let is_used = |word: &&Word| {
            model
                .reachable(root)
                .iter()
                .flat_map(|message| &message.fields)
                .any(|field| uses(field, vocabulary, &word.name))
        };
        for word in vocabulary.words.iter().filter(is_used) {
            let _ = writeln!(page, "| `{}` | {} |", word.name, cell(&word.text));
        }
    }

    page += "\n## Kinds\n\n| kind | when | exported | body |\n|---|---|---|---|\n";
    for (body, kind) in model.kinds(root) {
        let name = &kind.name;
        let _ = writeln!(
            page,
            "| [`{name}`](#{}) | {} | {} | `{}` |",
            anchor(name),
            cell(&kind.text),
            exported(kind),
            body.name
        );
    }

    let message = model.message(root);
    page += "\n## Every event\n\n";
    table(&mut page, model, message.fields.iter().filter(|field| field.kinds.is_empty()));

    for (index, (body, kind)) in model.kinds(root).enumerate() {
        let name = &kind.name;
        let _ = write!(page, "\n## `{name}`\n\n{}\n", kind.text);
        let body_message = model.message(body.object().unwrap_or_default());
        if is_shared(body) {
            let object = &body_message.name;
            let _ = write!(
                page,
                "\nBody: `{}`, which other kinds have too: [{object}](#{}). Exported: {}.\n",
                body.name,
                object_anchor(model, object),
                exported(kind)
            );
        } else {
            for paragraph in paragraphs(body_message, body) {
                let _ = write!(page, "\n{paragraph}\n");
            }
            let _ = write!(page, "\nBody: `{}`. Exported: {}.\n\n", body.name, exported(kind));
            table(&mut page, model, &body_message.fields);
        }
        // The first event shows what all have.
        let json =
            if index == 0 { example(name)? } else { shortened(&example(name)?, &["process", "parent"]) };
        let language = if json.contains('…') { "jsonc" } else { "json" };
        let _ = write!(page, "\n```{language}\n{}\n```\n", json.trim_end());
    }

    page += "\n## Objects\n";
    let places = places(model, message);
    for object in model.reachable(root) {
        let body = message
            .fields
            .iter()
            .find(|field| !field.kinds.is_empty() && field.object().is_some_and(|name| name == object.name));
        if object.name == root || body.is_some_and(|body| !is_shared(body)) {
            continue;
        }
        let _ = write!(page, "\n### {}\n\n", object.name);
        let text = body.map_or_else(|| object.text.iter().collect(), |body| paragraphs(object, body));
        for paragraph in text {
            let _ = write!(page, "{paragraph}\n\n");
        }
        let at =
            places.iter().filter(|(name, _)| *name == object.name).map(|(_, place)| format!("`{place}`"));
        let _ = write!(page, "Found at {}.\n\n", at.collect::<Vec<_>>().join(", "));
        table(&mut page, model, &object.fields);
    }
    Ok(page)
}

/// Several kinds have it: it is described once, as an object.
fn is_shared(body: &Field) -> bool {
    body.kinds.len() > 1
}

/// What the comment of a body says of all its kinds.
fn paragraphs<'a>(message: &'a Message, body: &Field) -> Vec<&'a String> {
    let is_of_a_kind = |text: &str| body.kinds.iter().any(|kind| text.starts_with(&kind.beginning()));
    message.text.iter().filter(|text| !is_of_a_kind(text)).collect()
}

fn uses(field: &Field, vocabulary: &Vocabulary, word: &str) -> bool {
    match &*vocabulary.name {
        "Unit" => field.unit.as_deref() == Some(word),
        "Source" => field.sources.iter().any(|source| source == word),
        _ => field.trust.as_deref() == Some(word),
    }
}

fn exported(kind: &Kind) -> &'static str {
    if kind.by_default { "by default" } else { "when asked for" }
}

fn table<'a>(page: &mut String, model: &Model, fields: impl IntoIterator<Item = &'a Field>) {
    *page += "| field | type | unit | source | trust | meaning |\n|---|---|---|---|---|---|\n";
    for field in fields {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            field.name,
            type_of(model, field),
            field.unit.as_deref().unwrap_or_default(),
            field.sources.join(", "),
            field.trust.as_deref().unwrap_or_default(),
            cell(&meaning(model, field)),
        );
    }
}

fn type_of(model: &Model, field: &Field) -> String {
    let one = match &field.shape {
        Shape::Bool => "`true`".to_owned(),
        Shape::Number { .. } => "number".to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Time => "time".to_owned(),
        Shape::Word(_) => "word".to_owned(),
        Shape::Object(name) => format!("[{name}](#{})", object_anchor(model, name)),
    };
    if field.repeated { format!("list of {one}") } else { one }
}

fn meaning(model: &Model, field: &Field) -> String {
    let mut meaning = field.text.join(" ");
    if let (true, Some(object)) = (meaning.is_empty(), field.object()) {
        meaning = model.message(object).text.join(" ");
    }
    if let Some(constant) = field.constant {
        let _ = write!(meaning, " Now {constant}.");
    }
    if let Shape::Word(name) = &field.shape {
        for word in &model.vocabulary(name).words {
            let _ = write!(meaning, " `{}`: {}", word.name, word.text);
        }
    }
    if field.always {
        meaning += " Always there.";
    }
    meaning
}

/// Where each message is found below `root`: its name, and the keys that lead there.
fn places<'a>(model: &'a Model, root: &'a Message) -> Vec<(&'a str, String)> {
    let mut found = Vec::new();
    descend(model, root, "", &mut vec![&root.name], &mut found);
    found
}

fn descend<'a>(
    model: &'a Model,
    message: &'a Message,
    path: &str,
    above: &mut Vec<&'a str>,
    found: &mut Vec<(&'a str, String)>,
) {
    for field in &message.fields {
        let Some(name) = field.object() else { continue };
        let dot = if path.is_empty() { "" } else { "." };
        let list = if field.repeated { "[]" } else { "" };
        let place = format!("{path}{dot}{}{list}", field.name);
        found.push((name, place.clone()));
        if !above.contains(&name) {
            above.push(name);
            descend(model, model.message(name), &place, above, found);
            above.pop();
        }
    }
}

/// Indented JSON, with what is in the objects `keys` of its first level left out.
fn shortened(json: &str, keys: &[&str]) -> String {
    let mut short = String::new();
    let mut is_inside = false;
    for line in json.lines() {
        if is_inside {
            is_inside = !line.starts_with("  }");
            continue;
        }
        let key = line.strip_prefix("  \"").and_then(|rest| rest.strip_suffix("\": {"));
        match key.filter(|key| keys.contains(key)) {
            Some(key) => {
                is_inside = true;
                let _ = writeln!(short, "  \"{key}\": {{ … }},");
            }
            None => {
                let _ = writeln!(short, "{line}");
            }
        }
    }
    short
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Where a heading is found: the rule of GitHub and others, as far as our names need it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, '_' | '-'));
    kept.flat_map(char::to_lowercase).collect()
}

/// Where the heading of a message is found: that of `FileAttributes` comes after `file.attributes`, which has the
/// anchor already.
fn object_anchor(model: &Model, name: &str) -> String {
    let wanted = anchor(name);
    let mut kinds = model.messages.iter().flat_map(|message| &message.fields).flat_map(|field| &field.kinds);
    if kinds.any(|kind| anchor(&kind.name) == wanted) { format!("{wanted}-1") } else { wanted }
}
