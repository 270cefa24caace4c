//! The agent's configuration: YAML, drop-ins and flags, checked as a whole before anything starts.
//!
//! [`Config`] is what there is to set; its doc comments are the documentation, from which [`schema()`],
//! [`example`] and [`markdown`] are made. [`load()`] reads files and flags, says all that is wrong with them,
//! and keeps where each setting comes from, for [`show`].

mod check;
mod error;
mod load;
mod model;
mod policies;
mod render;
mod schema;
mod shape;
mod text;
mod units;
mod yaml;

pub use error::{Errors, Problem};
pub use load::{DEFAULT_FILE, Flag, LARGEST_FILE, Loaded, Location, Origin, load};
pub use model::{
    Backend, Compress, Config, Files, Json, Kernel, Level, Match, Metrics, Network, OneOrMany, Pattern,
    Privileges, Profile, Redact, Rule, Socket, Tables, TextOrNumber, Watch,
};
pub use policies::markdown as policies_markdown;
pub use render::{example, markdown, needs_restart, show};
pub use schema::schema;

pub use units::{Period, Size, UnitError};

/// What is in a text of YAML; null where nothing is.
///
/// # Errors
/// The first thing that is wrong with it, with its place.
pub fn value_of(text: &str) -> Result<serde_json::Value, String> {
    match yaml::parse(text) {
        Ok(root) => Ok(root.map_or(serde_json::Value::Null, |root| root.value())),
        Err(faults) => {
            let fault = faults.into_iter().next();
            Err(fault.map_or_else(String::new, |fault| {
                format!("line {}, column {}: {}", fault.at.line, fault.at.column, fault.message)
            }))
        }
    }
}
