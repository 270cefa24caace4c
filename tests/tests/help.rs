//! What the program says of itself, and of command lines that cannot be.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use nightjar_tests::{Session, nightjar, skip};
use serde_json::Value;

/// Lines that are longer wrap on a terminal that is not very wide.
const WIDEST: usize = 100;

/// What it prints where it succeeds, and has nothing to complain of.
fn printed(args: &[&str]) -> String {
    let output = Session::start(nightjar(args)).finish();
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Names of the commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What a command does may go on in the next line, which is indented further.
    let names =
        listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Every way to ask for help of a command, the program itself among them, with what is said.
fn all_helps() -> Vec<(Vec<String>, String)> {
    let (mut helps, mut left) = (Vec::new(), vec![Vec::new()]);
    while let Some(command) = left.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = printed(&words);
        left.extend(commands(&help).into_iter().map(|name| [command.as_slice(), &[name]].concat()));
        helps.push((command, help));
    }
    helps
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// What a program says of what it reads.
fn piped_through(program: &str, args: &[&str], input: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input");
    fs::write(&file, input).unwrap();
    let mut command = Command::new(program);
    let output = command.args(args).stdin(fs::File::open(file).unwrap()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn every_command_helps_within_a_hundred_columns() {
    let helps = all_helps();
    let names: Vec<String> = helps.iter().map(|(command, _)| command.join(" ")).collect();
    for expected in ["", "run", "tail", "status", "config", "config check", "schema", "completions", "man"] {
        assert!(names.iter().any(|name| name == expected), "{expected:?} is not among {names:?}");
    }
    for (command, help) in helps {
        assert!(help.contains("Usage: nightjar"), "{command:?}: {help}");
        for line in help.lines() {
            assert!(line.chars().count() <= WIDEST, "{command:?}: {line:?}");
            assert!(!line.ends_with(char::is_whitespace), "{command:?}: {line:?}");
        }
    }
}

#[test]
fn the_short_help_is_no_longer_than_the_long_one() {
    for (command, long) in all_helps() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["-h"]).collect();
        let short = printed(&words);
        assert!(short.contains("Usage: nightjar") && short.len() <= long.len(), "{command:?}: {short}");
    }
}

#[test]
fn every_option_and_command_says_what_it_does() {
    for (command, help) in all_helps() {
        let lines: Vec<&str> = help.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            if !line.starts_with("  ") || !line.trim_start().starts_with('-') {
                continue;
            }
            // Behind it, or in the next line.
            let behind = line.trim().split_once("  ").map_or("", |(_, text)| text.trim());
            let next = lines.get(n + 1).map_or("", |line| line.trim());
            assert!(!behind.is_empty() || !next.is_empty(), "{command:?} does not explain {line:?}");
        }
    }
}

#[test]
fn exit_codes_that_tell_something_are_named() {
    for (command, code) in [(&["status"][..], "3"), (&["config"], "1"), (&["config", "check"], "1")] {
        let help = printed(&[command, &["--help"]].concat()).to_lowercase();
        assert!(help.contains("exit code") && help.contains(code), "{command:?}: {help}");
    }
}

#[test]
fn commands_that_a_help_advises_are_there() {
    let helps = all_helps();
    let known: Vec<&str> = helps.iter().filter_map(|(command, _)| Some(command.first()?.as_str())).collect();
    for (command, help) in &helps {
        for advised in help.split("`nightjar ").skip(1).chain(help.split("  nightjar ").skip(1)) {
            let name = advised.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap();
            assert!(known.contains(&name), "{command:?} advises `nightjar {name}`, which is not there");
        }
    }
}

#[test]
fn the_version_is_told() {
    let text = printed(&["--version"]);
    assert_eq!(text.trim_end(), format!("nightjar {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_are_programs_of_their_shells() {
    let options: [(&str, &[&str]); 3] = [("bash", &["-n"]), ("zsh", &["-n"]), ("fish", &["--no-execute"])];
    for (shell, check) in options {
        let text = printed(&["completions", shell]);
        for word in ["nightjar", "status", "instance", "ring-size"] {
            assert!(text.contains(word), "{word} is not in what {shell} gets");
        }
        if is_installed(shell) {
            let (is_right, complaints) = piped_through(shell, check, &text);
            assert!(is_right, "{shell}: {complaints}");
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    if !is_installed("bash") {
        return skip("bash is not installed");
    }
    let complete = |words: &str| {
        let script = format!(
            "{}\nCOMP_WORDS=(nightjar {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _nightjar nightjar \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            printed(&["completions", "bash"])
        );
        let (succeeded, text) = piped_through("bash", &["--norc"], &script);
        assert!(succeeded, "{text}");
        text
    };
    assert!(complete("sta").lines().any(|word| word == "status"));
    assert!(complete("tail --sta").lines().any(|word| word == "--standalone"));
}

#[test]
fn the_manual_is_rendered_without_complaints() {
    let page = printed(&["man"]);
    assert!(page.lines().any(|line| line.starts_with(".TH nightjar 1")), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert_eq!(printed(&["man", pages.to_str().unwrap()]), "");
    let names: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    for expected in ["nightjar.1", "nightjar-run.1", "nightjar-status.1", "nightjar-config-check.1"] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not among {names:?}");
    }
    if !is_installed("groff") {
        return;
    }
    for name in names {
        let text = fs::read_to_string(pages.join(&name)).unwrap();
        let (succeeded, rendered) = piped_through("groff", &["-man", "-Tutf8", "-ww", "-P-cbou"], &text);
        assert!(
            succeeded && !rendered.contains("warning") && !rendered.contains("error:"),
            "{name}: {rendered}"
        );
        assert!(rendered.contains("NAME") && rendered.contains("SYNOPSIS"), "{name}: {rendered}");
    }
}

#[test]
fn schemas_are_json_schemas() {
    for args in [&["schema"][..], &["schema", "--status"], &["config", "schema"]] {
        let schema: Value = serde_json::from_str(&printed(args)).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{args:?}: {:?}", jsonschema::meta::validate(&schema));
        assert!(schema["$schema"].is_string() && schema["title"].is_string(), "{args:?}");
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert!(!validator.is_valid(&Value::from(7)), "{args:?} takes anything");
    }
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nightjar.yaml");
    let example = printed(&["config", "example"]);
    fs::write(&file, &example).unwrap();
    printed(&["config", "check", file.to_str().unwrap()]);
}

#[test]
fn what_nobody_reads_is_no_fault() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for args in [&["schema"][..], &["man"], &["completions", "bash"], &["config", "example"]] {
        let output = nightjar(args).stdout(writer.try_clone().unwrap()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

/// Wrong command lines: what is named of each, the thing and the mend.
const WRONG: &[(&[&str], &[&str])] = &[
    (&[], &["Usage: nightjar"]),
    (&["explode"], &["'explode'", "--help"]),
    (&["statsu"], &["'statsu'", "status"]),
    (&["run", "--jsno", "x"], &["'--jsno'", "'--json'"]),
    (&["run", "--json"], &["--json <FILE>"]),
    (&["run", "extra"], &["'extra'", "Usage: nightjar run"]),
    (&["run", "--ring-size", "3MiB"], &["3MiB", "--ring-size", "4MiB"]),
    (&["run", "--ring-size", "many"], &["many", "--ring-size", "MiB"]),
    (&["run", "--duration", "soon"], &["soon", "--duration", "30s"]),
    (&["run", "--kernel-log", "loud"], &["loud", "--kernel-log", "debug"]),
    (&["run", "--kind", "process.exce"], &["process.exce", "process.exec"]),
    (&["run", "--instance", "A/b"], &["A/b", "letters"]),
    (&["run", "--socket", ""], &["--socket"]),
    (&["run", "--config", "/nonexistent/nightjar.yaml"], &["/nonexistent/nightjar.yaml"]),
    (&["tail", "-o", "xml"], &["xml", "compact", "json"]),
    (&["tail", "-n", "many"], &["many", "-n"]),
    (&["tail", "--tree"], &["--pid"]),
    (&["tail", "--kind", "process.exce"], &["--kind", "process.exce", "process.exec"]),
    (&["tail", "--where", "process.uid =="], &["--where"]),
    (&["tail", "--pid", "-1"], &["-1"]),
    (&["tail", "--instance", "nobody"], &["/run/nightjar/nobody.sock"]),
    (&["status", "--watch=never"], &["never", "--watch"]),
    (&["status", "--instance", "nobody"], &["/run/nightjar/nobody.sock"]),
    (&["completions", "tcsh"], &["tcsh", "bash"]),
    (&["config"], &["Usage: nightjar config"]),
    (&["config", "check", "/nonexistent.yaml"], &["/nonexistent.yaml"]),
    (&["man", "/dev/null/pages"], &["/dev/null/pages"]),
];

#[test]
fn a_wrong_command_line_is_told_with_the_thing_and_the_mend() {
    for (args, words) in WRONG {
        let output = Session::start(nightjar(*args)).finish();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{args:?} succeeded");
        assert_eq!(output.status.signal(), None, "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?} prints its complaint where its output goes");
        for word in *words {
            assert!(stderr.contains(word), "{args:?} does not name {word}: {stderr}");
        }
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        assert!(stderr.ends_with('\n'), "{args:?}: {stderr:?}");
    }
}
