//! The configuration as text: an example, its documentation, what counts and why.

use std::{fmt::Write as _, path::Path};

use serde_json::{Map, Value, json};

use super::{
    error::Errors,
    load::{DEFAULT_FILE, Loaded, Origin, load_text},
    model::Config,
    policies,
    schema::{Setting, kind_of_value, ordered, schema, settings, words},
    shape::Host,
    yaml::{self, Data, Node},
};

/// The column up to which the example is wrapped.
const WIDTH: usize = 100;

/// A file with every setting in a comment, set to its default, below what it does.
#[must_use]
pub fn example() -> String {
    let schema = schema();
    let mut text = comment(
        "",
        &format!(
            "{DEFAULT_FILE}: settings of nightjar.\n\nEvery setting stands here with its default, in a line \
             that begins with `#` and no space: take the `#` away to set it. `nightjar config check` says what \
             is wrong, `nightjar config show` what counts.",
        ),
    );
    for setting in settings(&schema) {
        let (indent, name) = match setting.path.split_once('.') {
            Some((_, name)) => ("  ", name),
            None => ("", setting.path.as_str()),
        };
        text.push('\n');
        text.push_str(&comment(indent, &documentation(&setting, false)));
        if setting.is_section {
            push(&mut text, format_args!("{name}:\n"));
        } else if setting.default.is_null() {
            push(&mut text, format_args!("{indent}#{name}:\n"));
        } else {
            push(&mut text, format_args!("{indent}#{name}: {}\n", yaml::inline(&setting.default)));
        }
    }
    text
}

/// What of a setting is to be read, in paragraphs.
fn documentation(setting: &Setting, is_markdown: bool) -> String {
    let shape = &setting.shape;
    let mut text = shape["description"].as_str().unwrap_or_default().to_owned();
    let parts = parts(shape);
    if !parts.is_empty() {
        text.push('\n');
    }
    for (name, description) in parts {
        push(&mut text, format_args!("\n- `{name}`: {description}"));
    }
    if setting.is_section || is_markdown {
        return text;
    }
    let is = capitalised(&kind_of_value(shape));
    let example =
        shape["examples"].get(0).filter(|_| setting.default.is_null() || setting.default == json!([]));
    let example = example.map_or_else(String::new, |example| format!(", such as {}", yaml::inline(example)));
    push(&mut text, format_args!("\n\n{is}{example}."));
    text.push_str(if setting.restart { " Counts from the next start on." } else { "" });
    text
}

/// Words that a setting takes and parts that its value has, each with its meaning.
fn parts(shape: &Value) -> Vec<(String, String)> {
    let mut parts: Vec<_> =
        words(shape).into_iter().map(|(word, means)| (word.to_owned(), means.to_owned())).collect();
    properties(&mut parts, &shape["items"]);
    parts
}

fn properties(parts: &mut Vec<(String, String)>, shape: &Value) {
    let all = || shape["properties"].as_object().into_iter().flatten();
    for (name, shape) in all() {
        // `drop` and `keep` have the same.
        if !parts.iter().any(|(known, _)| known == name) {
            parts.push((name.clone(), shape["description"].as_str().unwrap_or_default().to_owned()));
        }
    }
    for (_, shape) in all() {
        properties(parts, shape);
    }
}

/// Paragraphs as a comment. Blocks of code are indented instead of fenced.
fn comment(indent: &str, text: &str) -> String {
    let mut comment = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if is_code {
            push(&mut comment, format_args!("{indent}#     {line}\n"));
        } else if line.is_empty() {
            push(&mut comment, format_args!("{indent}#\n"));
        } else {
            let hanging = if line.starts_with("- ") { "  " } else { "" };
            let wrapped = wrap(line, WIDTH - indent.len() - 2 - hanging.len());
            for (index, line) in wrapped.iter().enumerate() {
                let hanging = if index == 0 { "" } else { hanging };
                push(&mut comment, format_args!("{indent}# {hanging}{line}\n"));
            }
        }
    }
    comment
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string cannot fail");
}

/// The page about the configuration, in Markdown.
///
/// `known_kinds` are those that the agent can record.
#[must_use]
pub fn markdown(known_kinds: &[&str]) -> String {
    let schema = schema();
    let settings = settings(&schema);
    let mut text = INTRODUCTION
        .replace("FILE", DEFAULT_FILE)
        .replace("SHOWN", &shown_example(known_kinds))
        .replace("ERRORS", &error_example(known_kinds));
    text.push_str("\n## All settings\n\n| setting | default | next start |\n|---|---|---|\n");
    for Setting { path, default, restart, .. } in settings.iter().filter(|setting| !setting.is_section) {
        let anchor: String = path.chars().filter(|c| *c != '.').collect();
        let restart = if *restart { "yes" } else { "" };
        push(&mut text, format_args!("| [`{path}`](#{anchor}) | {} | {restart} |\n", shown_default(default)));
    }
    for setting in &settings {
        let Setting { path, default, restart, is_section, shape } = setting;
        let heading = if *is_section || !path.contains('.') { "##" } else { "###" };
        push(&mut text, format_args!("\n{heading} `{path}`\n\n"));
        if !is_section {
            let is = capitalised(&kind_of_value(shape).replace('*', "\\*"));
            push(&mut text, format_args!("{is}; default: {}.", shown_default(default)));
            text.push_str(if *restart { " Counts from the next start on.\n\n" } else { "\n\n" });
        }
        text.push_str(&documentation(setting, true));
        text.push('\n');
        if path == "kinds" {
            let kinds: Vec<_> = known_kinds.iter().map(|kind| format!("`{kind}`")).collect();
            push(&mut text, format_args!("\nKinds: {}.\n", kinds.join(", ")));
        }
        if path == "files.defaults" {
            push(&mut text, format_args!("\nPolicies: {}.\n", policies::links().join(", ")));
        }
    }
    text
}

const INTRODUCTION: &str = r"# Configuration

<!-- Written by the agent from its settings: change them there. -->

Nightjar runs without any configuration. What is to be different stands in `FILE`, or in the file that
`--config` names; that one must be there. `nightjar config example` prints a file with every setting in a
comment, `nightjar config schema` a JSON Schema, from which editors complete and check.

## What counts

In this order, later ones over earlier ones:

1. the defaults below;
2. `FILE`;
3. drop-ins: files `*.yaml` in the folder beside it that is called the same, with `.d` for `.yaml`
   (`/etc/nightjar/nightjar.d/`), in the order of the bytes of their names. Hidden files are passed over;
4. flags of the command line.

Mappings are merged setting by setting; everything else, lists too, is replaced as a whole. A section with
nothing below it sets nothing. `nightjar config show` prints what counts, each line with the place where it
was set:

SHOWN

The files are YAML 1.2: one document, text of no more than 1 MiB, each name once, no tags; `yes`, `no`, `on`
and `off` are text. Text that begins with `*`, `!`, `&`, `%`, `@` or a backtick needs quotes, so globs often
do.
Where the agent runs as root, nobody but the owner of a file or of the drop-in folder may be able to write to
it.

## Changes

On SIGHUP (`systemctl reload`) the files are read again. What is wrong leaves the running configuration as it
is. Settings that are marked so count from the next start on.

## Mistakes

All mistakes are told, not just the first, each with its place and what to write instead.
`nightjar config check` does only that. This

ERRORS
";

/// A section as `show` prints it.
fn shown_example(known_kinds: &[&str]) -> String {
    let shown = load_example("kernel:\n  ring_size: 8MiB\n", known_kinds).map(|loaded| show(&loaded, false));
    let shown = shown.unwrap_or_default();
    let is_in_section = |line: &&str| *line == "kernel:" || line.starts_with(' ');
    let section: Vec<_> =
        shown.lines().skip_while(|line| *line != "kernel:").take_while(is_in_section).collect();
    format!("```yaml\n{}\n```", section.join("\n"))
}

/// Mistakes, and what is said about them.
fn error_example(known_kinds: &[&str]) -> String {
    const MISTAKES: &str =
        "kind: [process.exec]\njson:\n  rotate_size: 100M\n  compress: zip\nkernel:\n  ring_size: 3MiB\n";
    let said =
        load_example(MISTAKES, known_kinds).map_or_else(|errors| errors.to_string(), |_| String::new());
    format!("```yaml\n{MISTAKES}```\n\nis answered by\n\n```text\n{said}\n```")
}

fn load_example(text: &str, known_kinds: &[&str]) -> Result<Loaded, Errors> {
    let host = Host {
        known_kinds: known_kinds.iter().map(|&kind| kind.to_owned()).collect(),
        group_file: "/etc/group".into(),
        is_root: false,
    };
    load_text(Path::new(DEFAULT_FILE), text, host)
}

fn shown_default(default: &Value) -> String {
    if default.is_null() { "none".to_owned() } else { format!("`{}`", yaml::inline(default)) }
}

/// The configuration that counts, each line with where it comes from: as YAML, or as JSON by setting.
#[must_use]
pub fn show(loaded: &Loaded, as_json: bool) -> String {
    let schema = schema();
    let config = ordered(&loaded.config);
    let mut lines: Vec<(String, Option<&Origin>)> = Vec::new();
    let mut object = Map::new();
    for Setting { path, is_section, .. } in settings(&schema) {
        let (indent, name) = path.split_once('.').map_or(("", path.as_str()), |(_, name)| ("  ", name));
        if is_section {
            lines.push((format!("{name}:"), None));
            continue;
        }
        let node = find(&config, &path);
        let origin = loaded.origin(&path);
        let value = node.map(Node::value).unwrap_or_default();
        match node.map(|node| &node.data) {
            Some(Data::List(parts)) if !parts.is_empty() => {
                lines.push((format!("{indent}{name}:"), Some(origin)));
                for (index, part) in parts.iter().enumerate() {
                    let own = Some(loaded.origin(&format!("{path}.{index}")))
                        .filter(|own| **own != Origin::Default);
                    lines.push((format!("{indent}  - {}", list_part(&part.value())), own));
                }
            }
            _ if value.is_null() => lines.push((format!("{indent}{name}:"), Some(origin))),
            _ => lines.push((format!("{indent}{name}: {}", yaml::inline(&value)), Some(origin))),
        }
        object.insert(path, json!({"value": value, "origin": origin}));
    }
    if as_json {
        return format!("{:#}\n", Value::Object(object));
    }
    let line = |(line, origin): (String, Option<&Origin>)| match origin {
        Some(origin) => format!("{line:<48} # {origin}\n"),
        None => format!("{line}\n"),
    };
    lines.into_iter().map(line).collect()
}

/// A rule reads better as `drop: {…}` than in one more pair of braces.
fn list_part(value: &Value) -> String {
    match value.as_object().map(|entries| entries.iter().collect::<Vec<_>>()).as_deref() {
        Some([(name, value)]) => format!("{name}: {}", yaml::inline(value)),
        _ => yaml::inline(value),
    }
}

fn find<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(root, |node, name| match &node.data {
        Data::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node),
        _ => None,
    })
}

/// Settings that changed and count from the next start on.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (ordered(old), ordered(new));
    let value = |root: &Node, path: &str| find(root, path).map(Node::value);
    let settings = settings(&schema()).into_iter().filter(|setting| setting.restart && !setting.is_section);
    settings.map(|setting| setting.path).filter(|path| value(&old, path) != value(&new, path)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::shape::tests::host, *};

    const KINDS: [&str; 3] = ["process.exec", "process.exit", "process.fork"];

    fn loaded(text: &str) -> Loaded {
        load_text(Path::new("/a.yaml"), text, host()).unwrap()
    }

    /// Lines of the example that set something.
    fn is_setting(line: &str) -> bool {
        line.trim_start()
            .strip_prefix('#')
            .is_some_and(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
    }

    #[test]
    fn the_example_says_nothing_and_each_of_its_lines_may() {
        assert_eq!(loaded(&example()).config, Config::default());
        let lines = example().lines().filter(|line| is_setting(line)).count();
        assert_eq!(lines, settings(&schema()).iter().filter(|setting| !setting.is_section).count());
        for chosen in 0..lines {
            let mut index = 0;
            let uncomment = |line: &str| {
                index += usize::from(is_setting(line));
                let is_chosen = is_setting(line) && index == chosen + 1;
                if is_chosen { line.replacen('#', "", 1) } else { line.to_owned() }
            };
            let text: Vec<_> = example().lines().map(uncomment).collect();
            assert_eq!(loaded(&text.join("\n")).config, Config::default(), "setting {chosen}");
        }
    }

    #[test]
    fn the_example_with_all_settings_is_the_default() {
        let uncomment =
            |line: &str| if is_setting(line) { line.replacen('#', "", 1) } else { line.to_owned() };
        let text: Vec<_> = example().lines().map(uncomment).collect();
        let loaded = loaded(&text.join("\n"));
        assert_eq!(loaded.config, Config::default());
        for setting in settings(&schema()).iter().filter(|setting| !setting.is_section) {
            assert!(matches!(loaded.origin(&setting.path), Origin::File { .. }), "{}", setting.path);
        }
    }

    #[test]
    fn the_example_has_the_documentation_in_lines_of_readable_length() {
        let example = example();
        assert!(example.lines().all(|line| line.chars().count() <= WIDTH), "{example}");
        for part in [
            "# A size from 1MiB to 1GiB, a power of two. Counts from the next start on.",
            "#       - drop: {container: \"*\"}",
            "  # - `gzip`: As `NAME.gz`.",
            "  #rotate_size: 100MiB",
            "  #file:\n",
            "such as /var/log/nightjar/events.json.",
        ] {
            assert!(example.contains(part), "{part}\n{example}");
        }
    }

    #[test]
    fn what_is_shown_says_where_it_comes_from() {
        let text = "kinds:\n  - process.exec\njson:\n  file: /x\nfilters:\n  - drop: {exe: [/a, \"*b\"]}\n";
        let shown = show(&loaded(text), false);
        for line in [
            "kinds:                                           # /a.yaml:1",
            "  - process.exec                                 # /a.yaml:2",
            "  - drop: {exe: [/a, \"*b\"]}                      # /a.yaml:6",
            "json:",
            "  file: /x                                       # /a.yaml:4",
            "  keep: 10                                       # default",
            "  group:                                         # default",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
    }

    #[test]
    fn what_is_shown_can_be_loaded_again() {
        for text in [
            "",
            "redact: {patterns: [{name: \"a: #b\", regex: '\\d{3}\"'}], names: ['*no', 'no']}\nhistory: 1000",
            "filters: [{keep: {user: [0, '0', \"\\u2028é\"], container: '123'}}, {drop: {}}]",
            "json: {file: '-', rotate_size: 0, rotate_age: 0}\nmetrics: {listen: '[::1]:9464'}",
            "files: {watch: [{name: 'a: b', paths: ['/*/[x]', '/\\\\#'], ignore: ['*~']}], fold: 1500ms}",
        ] {
            let first = loaded(text);
            assert_eq!(loaded(&show(&first, false)).config, first.config, "{}", show(&first, false));
        }
    }

    #[test]
    fn the_json_has_value_and_origin_of_every_setting() {
        let shown: Value = serde_json::from_str(&show(&loaded("json:\n  keep: 3\n"), true)).unwrap();
        let origin = json!({"source": "file", "path": "/a.yaml", "line": 2, "column": 3});
        assert_eq!(shown["json.keep"], json!({"value": 3, "origin": origin}));
        assert_eq!(shown["log"], json!({"value": "warn", "origin": {"source": "default"}}));
        assert_eq!(
            shown.as_object().unwrap().len(),
            settings(&schema()).iter().filter(|s| !s.is_section).count()
        );
    }

    #[test]
    fn the_page_has_every_setting_and_what_is_really_said() {
        let page = markdown(&KINDS);
        for setting in settings(&schema()) {
            assert_eq!(page.matches(&format!("# `{}`\n", setting.path)).count(), 1, "{}", setting.path);
        }
        for part in [
            "/etc/nightjar/nightjar.yaml:1:1: unknown setting \"kind\"; did you mean \"kinds\"?\n    kind: [process.exec]\n",
            "/etc/nightjar/nightjar.yaml:6:14: kernel.ring_size: 3MiB is not a power of two; write 2MiB or 4MiB\n",
            "  ring_size: 8MiB                                # /etc/nightjar/nightjar.yaml:2\n  bulk_ring_size: 8MiB ",
            "A size from 1MiB to 1GiB, a power of two; default: `4MiB`. Counts from the next start on.\n",
            "Kinds: `process.exec`, `process.exit`, `process.fork`.",
            "- `exe`: Path of the program",
            "Policies: [`preload`](watch-policies.md#preload), ",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        let anchors: BTreeSet<_> =
            page.lines().filter_map(|line| line.strip_prefix("| [`")?.split_once("](#")).collect();
        assert_eq!(anchors.len(), settings(&schema()).iter().filter(|s| !s.is_section).count());
    }

    #[test]
    fn only_changes_that_need_it_ask_for_a_restart() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(needs_restart(&old, &new), [""; 0]);
        new.json.keep = 3;
        assert_eq!(needs_restart(&old, &new), [""; 0]);
        new.kernel.ring_size = super::super::Size::from_mib(8);
        new.tables.processes = 1000;
        new.instance = "b".to_owned();
        assert_eq!(needs_restart(&old, &new), ["kernel.ring_size", "tables.processes", "instance"]);
    }
}
