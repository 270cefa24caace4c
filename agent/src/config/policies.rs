//! Watch policies in the configuration: what their words mean, how they are checked, the page about them.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    model::Files,
    text::{quoted, shortened},
    yaml,
};
use crate::files::policy::{
    self, MAX_POLICIES, Operation, Operations, Policies, PolicyError, PolicySpec, Problem,
};

/// Words for operations, each with what it means.
pub(super) const OPERATIONS: &[(&str, &str)] = &[
    ("change", "All after which something is not as it was."),
    ("all", "All there are."),
    ("open", "A file is opened, for whatever."),
    ("read", "A file is opened such that it can be read."),
    ("create", "A file comes to be."),
    ("modify", "The content of a file is written."),
    ("close", "A file is closed."),
    ("delete", "A name of a file is removed."),
    ("rename", "The name of a file or directory is changed, from a path or to it."),
    ("link", "A file gets one more name."),
    ("attributes", "Mode, owner, times, extended attributes or flags are changed."),
    ("truncate", "The size of a file is set."),
    ("copy", "Content is copied within the kernel, from a path or to it."),
    ("mkdir", "A directory comes to be."),
    ("rmdir", "A directory is removed."),
];

// === checks ===

/// What is wrong with a path to watch.
pub(super) fn path_fault(glob: &str) -> Option<String> {
    fault_of(glob, PolicySpec { paths: vec![glob.to_owned()], ..sound() })
}

/// What is wrong with a glob of what to ignore.
pub(super) fn ignore_fault(glob: &str) -> Option<String> {
    fault_of(glob, PolicySpec { ignore: vec![glob.to_owned()], ..sound() })
}

/// A policy that nothing is wrong with, to which a text is added that is to be checked.
fn sound() -> PolicySpec {
    PolicySpec { name: "sound".to_owned(), paths: vec!["/".to_owned()], ..PolicySpec::default() }
}

fn fault_of(text: &str, spec: PolicySpec) -> Option<String> {
    let problem = Policies::compile(vec![spec]).err()?.problem.to_string();
    // It may repeat the text, and that may be anything.
    let problem = shortened(&problem, 400);
    Some(match problem.strip_prefix("it ") {
        Some(problem) => format!("{} {problem}", quoted(text)),
        None => format!("{}: {problem}", quoted(text)),
    })
}

/// What is wrong with policies that are each in order, and which part of the list it is.
pub(super) fn policies_fault(files: &Files) -> Option<(String, String)> {
    let PolicyError { policy, name, item, problem, .. } = Policies::compile(files.policies()).err()?;
    let part = match item {
        Some((list, index)) => format!("/{policy}/{}/{index}", list.name()),
        None => format!("/{policy}"),
    };
    Some(match problem {
        // Those of the configuration come first, and no other has a name of theirs.
        Problem::Duplicate(first) => (
            format!("{part}/name"),
            format!(
                "files.watch[{first}] has the name {} already; give each a name of its own",
                quoted(&name)
            ),
        ),
        Problem::TooMany => (
            String::new(),
            format!(
                "with those that the agent comes with there are more than {MAX_POLICIES} policies; put paths \
                 that are watched alike into one, or write defaults: false"
            ),
        ),
        problem => (part, shortened(&problem.to_string(), 400)),
    })
}

// === the page ===

/// The page about watch policies, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let changes: Vec<_> = Operations::CHANGE.iter().map(Operation::name).collect();
    let mut text = INTRODUCTION.to_owned();
    for (word, means) in OPERATIONS {
        let more = if *word == "change" { format!(" That is {}.", code(&changes)) } else { String::new() };
        push(&mut text, format_args!("| `{word}` | {means}{more} |\n"));
    }
    text.push_str(SHIPPED);
    let yes = |is: bool| if is { "yes" } else { "" };
    for (policy, link) in policy::defaults().iter().zip(links()) {
        let (below, containers) = (yes(policy.recursive), yes(policy.containers));
        push(&mut text, format_args!("| {link} | {} | {below} | {containers} |\n", code(&policy.operations)));
    }
    for policy in policy::defaults() {
        push(&mut text, format_args!("\n### `{}`\n\n```yaml\n{}```\n", policy.name, entry(&policy)));
    }
    text
}

const INTRODUCTION: &str = "# Watch policies

<!-- Written by the agent from its policies: change them there. -->

A policy says which paths are watched and which operations on them are recorded. Those of
[`files.watch`](configuration.md#fileswatch) come first, in their order; then, unless
[`files.defaults`](configuration.md#filesdefaults) is off, those below, in theirs. The first that covers the
path, has the operation and does not ignore the file names the event.

To change one of those below, copy it to `files.watch` and change it there: a policy with its name replaces
it. As it then comes first, it also names what others of these cover.

## Operations

What stands in `operations`. Which kinds of events are recorded at all is up to
[`kinds`](configuration.md#kinds).

| word | meaning |
|---|---|
";

const SHIPPED: &str = "
## What the agent comes with

| policy | operations | all below directories | in containers too |
|---|---|---|---|
";

/// Of each policy that the agent comes with, its name as a link to where it stands on the page.
pub(super) fn links() -> Vec<String> {
    let link = |PolicySpec { name, .. }| format!("[`{name}`](watch-policies.md#{name})");
    policy::defaults().into_iter().map(link).collect()
}

fn code(words: &[impl AsRef<str>]) -> String {
    words.iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A policy as a part of `files.watch`. What is not said of it is as without it.
fn entry(policy: &PolicySpec) -> String {
    let inline = |texts: &[String]| yaml::inline(&Value::from(texts));
    let mut text = format!("- name: {}\n  paths:\n", yaml::inline(&Value::from(policy.name.as_str())));
    for path in &policy.paths {
        push(&mut text, format_args!("    - {}\n", yaml::inline(&Value::from(path.as_str()))));
    }
    if policy.recursive {
        text.push_str("  recursive: true\n");
    }
    if !policy.ignore.is_empty() {
        push(&mut text, format_args!("  ignore: {}\n", inline(&policy.ignore)));
    }
    push(&mut text, format_args!("  operations: {}\n", inline(&policy.operations)));
    if policy.containers {
        text.push_str("  containers: true\n");
    }
    text
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{load::load_text, schema::schema, shape::tests::host},
        *,
    };

    fn load(text: &str) -> Files {
        load_text(Path::new("/a.yaml"), text, host()).unwrap().config.files
    }

    fn indented<'a>(lines: impl Iterator<Item = &'a str>) -> String {
        lines.map(|line| ["  ", line, "\n"].concat()).collect()
    }

    #[test]
    fn the_words_for_operations_are_those_that_policies_take() {
        let words: Vec<_> = OPERATIONS.iter().map(|(word, _)| *word).collect();
        let operations = Operation::ALL.map(Operation::name);
        assert_eq!(words, [&["change", "all"][..], &operations].concat());
        for word in words {
            Policies::compile(vec![PolicySpec { operations: vec![word.to_owned()], ..sound() }]).unwrap();
        }
    }

    #[test]
    fn what_the_page_says_of_each_policy_may_stand_in_the_configuration() {
        let page = markdown();
        let blocks = page.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
        let files = load(&format!("files:\n  watch:\n{}", indented(blocks.flat_map(str::lines))));
        assert_eq!(files.watch.iter().map(PolicySpec::from).collect::<Vec<_>>(), policy::defaults());
        assert_eq!(files.policies(), policy::defaults(), "each replaces the one that it is a copy of");
    }

    #[test]
    fn what_the_documentation_gives_as_example_may_stand_in_the_configuration() {
        let schema = schema();
        let doc = schema["properties"]["files"]["properties"]["watch"]["description"].as_str().unwrap();
        let block = doc.split("```").nth(1).unwrap().strip_prefix("yaml\n").unwrap();
        assert_eq!(load(&format!("files:\n{}", indented(block.lines()))).watch.len(), 2);
    }

    #[test]
    fn the_page_links_to_what_it_has() {
        let page = markdown();
        for PolicySpec { name, .. } in policy::defaults() {
            assert_eq!(page.matches(&format!("](watch-policies.md#{name})")).count(), 1, "{name}");
            assert_eq!(page.matches(&format!("\n### `{name}`\n")).count(), 1, "{name}");
        }
        assert!(page.contains("is not as it was. That is `create`, `modify`, "), "{page}");
    }
}
