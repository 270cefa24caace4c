//! Tables for eyes: columns as wide as what is in them.

use std::fmt::Write as _;

use nightjar_show::compact::shown;

/// On which side a column begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table in the making.
pub struct Table<const N: usize> {
    columns: [(&'static str, Side); N],
    rows: Vec<[String; N]>,
}

// === impl Table ===

impl<const N: usize> Table<N> {
    /// With these headings.
    pub fn new(columns: [(&'static str, Side); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. What could act on a terminal is written as an escape, as agents choose some of the words.
    pub fn row(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| shown(&cell)));
    }

    /// Adds rows.
    pub fn rows(mut self, rows: impl IntoIterator<Item = [String; N]>) -> Self {
        rows.into_iter().for_each(|row| self.row(row));
        self
    }

    /// All of it, a line each.
    pub fn render(&self) -> String {
        let headings = self.columns.map(|(heading, _)| heading.to_owned());
        let all = || std::iter::once(&headings).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let mut text = String::new();
        for row in all() {
            let mut line = String::new();
            for ((cell, width), (_, side)) in row.iter().zip(widths).zip(self.columns) {
                let written = match side {
                    Side::Left => write!(line, "{cell:<width$}  "),
                    Side::Right => write!(line, "{cell:>width$}  "),
                };
                written.expect("text takes anything");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new([("NAME", Side::Left), ("N", Side::Right)]);
        table.row(["a\u{1b}[2J".to_owned(), "7".to_owned()]);
        table.row(["b".to_owned(), "1234".to_owned()]);
        assert_eq!(table.render(), "NAME           N\na\\u{1b}[2J     7\nb           1234\n");
    }
}
