//! Samples as files to read: tests/golden/PROFILE/KIND.json, the line of a typical event, indented.

use std::{env, fs, path::Path};

use nightjar_show::profile::Profile;

use super::{line, typical};

/// Compares, or writes the file anew if that is asked for.
pub fn assert_looks_like(path: &Path, shown: &str) {
    if env::var_os("NIGHTJAR_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, shown).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let golden = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(
        shown == golden,
        "{} differs; NIGHTJAR_WRITE_GOLDEN=1 writes it anew. It is now:\n{shown}",
        path.display()
    );
}

/// Columns of a line that is not broken.
const WIDTH: usize = 100;

/// JSON for eyes, members in the order of the line. What fits into a line of the page stays in one.
pub fn pretty(json: &str, indent: usize) -> String {
    let spaced = outside_of_text(json, |sign| match sign {
        ',' => ", ",
        ':' => ": ",
        _ => "",
    });
    let inner = json.strip_prefix(['{', '[']).and_then(|rest| rest.strip_suffix(['}', ']']));
    let (Some(inner), false) = (inner, indent + spaced.len() <= WIDTH) else { return spaced };
    let mut depth = 0;
    // Only commas of this level become line feeds, of which JSON in one line has none.
    let lines = outside_of_text(inner, |sign| {
        depth += i32::from(matches!(sign, '{' | '[')) - i32::from(matches!(sign, '}' | ']'));
        if sign == ',' && depth == 0 { "\n" } else { "" }
    });
    let members: Vec<String> = lines
        .lines()
        .map(|member| {
            match member.split_once("\":").filter(|_| member.starts_with('"') && json.starts_with('{')) {
                Some((key, value)) => format!("{:indent$}  {key}\": {}", "", pretty(value, indent + 2)),
                None => format!("{:indent$}  {}", "", pretty(member, indent + 2)),
            }
        })
        .collect();
    format!("{}\n{}\n{:indent$}{}", &json[..1], members.join(",\n"), "", &json[json.len() - 1..])
}

/// Signs of the syntax in other words, where there is one.
fn outside_of_text(json: &str, mut word: impl FnMut(char) -> &'static str) -> String {
    let (mut result, mut in_text, mut escaped) = (String::new(), false, false);
    for sign in json.chars() {
        let instead = if in_text { "" } else { word(sign) };
        if instead.is_empty() {
            result.push(sign);
        } else {
            result.push_str(instead);
        }
        in_text ^= sign == '"' && !escaped;
        escaped = sign == '\\' && !escaped;
    }
    result
}

#[test]
fn every_kind_looks_like_its_golden_file_in_every_profile() {
    // The native form has its own, in the crate that makes it.
    for profile in [Profile::Threatstack, Profile::Ocsf, Profile::Ecs] {
        for event in typical::typical() {
            let name = format!("tests/golden/{profile}/{}.json", event.kind);
            let shown = pretty(&line(profile, &event), 0) + "\n";
            assert_looks_like(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name), &shown);
        }
    }
}
