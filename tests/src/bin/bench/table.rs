//! Aligned columns.

use std::fmt::Write as _;

/// Rows of text; the first column is set to the left, the others to the right, the last two (goal and
/// verdict) to the left again.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    pub fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let left = column == 0 || column + 2 >= columns;
                let written =
                    if left { write!(line, " {cell:<width$} ") } else { write!(line, " {cell:>width$} ") };
                written.expect("a string takes all");
            }
            println!("{}", line.trim_end());
        }
    }
}
