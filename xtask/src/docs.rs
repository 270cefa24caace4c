//! `cargo xtask docs`

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{
    build,
    workspace::{Workspace, execute},
};

/// Where the program writes; what is in these folders and is not written is not its own.
const FOLDERS: [&str; 4] = ["docs", "docs/man", "deploy", "deploy/completions"];

/// Writes what is checked in and made from the program's own text; with `check`, only compares.
///
/// # Errors
///
/// When a file cannot be written, or is not what the program would write.
pub fn run(workspace: &Workspace, check: bool) -> anyhow::Result<()> {
    // Both, as tests want them: of one alone cargo makes another build.
    let program = build::both(workspace)?.agent;
    if !check {
        return write(&program, &workspace.root);
    }
    let fresh = workspace.target_dir.join("docs-check");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    write(&program, &fresh)?;
    let stale = stale(&workspace.root, &fresh)?;
    if !stale.is_empty() {
        bail!(
            "not what the program says: {}; run `cargo xtask docs` and commit what it writes",
            stale.join(", ")
        );
    }
    Ok(())
}

fn write(program: &Path, root: &Path) -> anyhow::Result<()> {
    execute(Command::new(program).arg("docs").arg(root))
}

/// Files that differ from those that were freshly written, or are not there; manual pages that no command has any
/// more.
fn stale(root: &Path, fresh: &Path) -> anyhow::Result<Vec<String>> {
    let mut stale = Vec::new();
    for folder in FOLDERS {
        for name in files(&fresh.join(folder))? {
            let same =
                fs::read(root.join(folder).join(&name)).ok() == fs::read(fresh.join(folder).join(&name)).ok();
            if !same {
                stale.push(format!("{folder}/{}", name.display()));
            }
        }
    }
    for page in files(&root.join("docs/man"))? {
        if !fresh.join("docs/man").join(&page).exists() {
            stale.push(format!("docs/man/{}", page.display()));
        }
    }
    Ok(stale)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        if entry.path().is_file() {
            files.push(entry.file_name().into());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_or_is_missing_or_is_left_over_is_named() {
        let dir = std::env::temp_dir().join(format!("xtask-docs-{}", std::process::id()));
        let (root, fresh) = (dir.join("root"), dir.join("fresh"));
        let put = |at: &Path, name: &str, text: &str| {
            fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
            fs::write(at.join(name), text).unwrap();
        };
        put(&fresh, "docs/events.md", "new");
        put(&fresh, "docs/man/nightjar.1", "same");
        put(&fresh, "deploy/nightjar.yaml", "there");
        put(&root, "docs/events.md", "old");
        put(&root, "docs/architecture.md", "written by hand");
        put(&root, "docs/man/nightjar.1", "same");
        put(&root, "docs/man/nightjar-gone.1", "of a command that was");
        let stale = stale(&root, &fresh);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(stale.unwrap(), ["docs/events.md", "deploy/nightjar.yaml", "docs/man/nightjar-gone.1"]);
    }
}
