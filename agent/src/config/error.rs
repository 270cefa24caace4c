//! What is wrong with a configuration, for the one who wrote it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    text::{quoted, shortened},
    yaml::Position,
};

/// The most problems that are shown: who sees these will not miss the others.
const MOST_SHOWN: usize = 50;

/// All that is wrong with a configuration, one line each and, where it helps, the line of the file.
#[derive(Debug, thiserror::Error)]
pub struct Errors(Vec<Problem>);

/// One thing that is wrong.
///
/// Shown as `FILE:LINE:COLUMN: setting: what is wrong; what to write instead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    setting: String,
    message: String,
    source_line: Option<String>,
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file as a whole.
    File(PathBuf),
    /// Somewhere in a file.
    Line(PathBuf, Position),
    /// In the value of a flag.
    Flag(String),
    /// In how settings work together, which are all defaults.
    Nowhere,
}

// === impl Errors ===

impl Errors {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    /// What is wrong: files in the order in which they are read, each from top to bottom, then flags.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(MOST_SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        match self.0.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(place: Place, setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, setting: setting.into(), message: message.into(), source_line: None }
    }

    /// About a file as a whole.
    pub(super) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::new(Place::File(path.to_owned()), "", message)
    }

    /// Shows the line as well, of those that the file has.
    pub(super) fn with_line_of(mut self, lines: &[String]) -> Self {
        if let Place::Line(_, at) = &self.place {
            let line = lines.get(at.line - 1).map(|line| line.trim()).filter(|line| !line.is_empty());
            self.source_line = line.map(|line| shortened(line, 100));
        }
        self
    }

    pub(super) fn position(&self) -> Option<Position> {
        match self.place {
            Place::Line(_, at) => Some(at),
            _ => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "{}: ", shown(path))?,
            Place::Line(path, at) => write!(f, "{}:{}:{}: ", shown(path), at.line, at.column)?,
            Place::Flag(name) => write!(f, "{name}: ")?,
            Place::Nowhere => {}
        }
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        f.write_str(&self.message)?;
        self.source_line.as_ref().map_or(Ok(()), |line| write!(f, "\n    {line}"))
    }
}

/// A path as part of a line: names of files may have anything in them.
pub(super) fn shown(path: &Path) -> String {
    shortened(&path.to_string_lossy(), 4096)
}

/// A path as a shell takes it.
pub(super) fn for_shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-+:@%".contains(c));
    if is_plain { text.into_owned() } else { quoted(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize) -> Problem {
        let at = Position { line, column: 5 };
        Problem::new(Place::Line("/a.yaml".into(), at), "log", "found 1; write 2")
    }

    #[test]
    fn a_problem_names_place_setting_and_mend() {
        assert_eq!(problem(2).to_string(), "/a.yaml:2:5: log: found 1; write 2");
        assert_eq!(
            problem(2).with_line_of(&["a".to_owned(), "  log: \u{1b}1".to_owned()]).to_string(),
            "/a.yaml:2:5: log: found 1; write 2\n    log: \\u{1b}1"
        );
        assert_eq!(
            problem(9).with_line_of(&["a".to_owned()]).to_string(),
            "/a.yaml:9:5: log: found 1; write 2"
        );
        assert_eq!(Problem::file(Path::new("/a\nb"), "is gone").to_string(), "/a\\nb: is gone");
        assert_eq!(Problem::new(Place::Flag("--log".to_owned()), "", "x").to_string(), "--log: x");
        assert_eq!(Problem::new(Place::Nowhere, "log", "x").to_string(), "log: x");
    }

    #[test]
    fn a_flood_of_problems_is_cut() {
        let errors = Errors::new((1..=60).map(problem).collect());
        assert_eq!(errors.to_string().lines().count(), 51);
        assert!(errors.to_string().ends_with("\n… and 10 more"));
        assert_eq!(errors.problems().len(), 60);
    }

    #[test]
    fn paths_are_quoted_for_the_shell_where_need_be() {
        assert_eq!(for_shell(Path::new("/etc/a.yaml")), "/etc/a.yaml");
        assert_eq!(for_shell(Path::new("/etc/a b.yaml")), "\"/etc/a b.yaml\"");
    }
}
