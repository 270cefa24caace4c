//! Samples as files to read: tests/golden/PROFILE/KIND.json, the line of a typical event, indented.

use std::{env, fs, path::Path};

use nightjar_show::profile::Profile;

use super::{typical, value};

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

#[test]
fn every_kind_looks_like_its_golden_file_in_every_profile() {
    // The native form has its own, in the crate that makes it.
    for profile in [Profile::Threatstack, Profile::Ocsf, Profile::Ecs] {
        for event in typical::typical() {
            let name = format!("tests/golden/{profile}/{}.json", event.kind);
            let shown = serde_json::to_string_pretty(&value(profile, &event)).unwrap() + "\n";
            assert_looks_like(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name), &shown);
        }
    }
}
