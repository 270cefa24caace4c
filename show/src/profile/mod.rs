//! Forms of an event for programs that do not know ours, each a JSON object on a line: profiles.
//!
//! The native form is the only schema (`nightjar_proto`). The others are projections of it: a table of
//! [`rest::Row`]s says where each field goes, and what the table does not name is kept, in its native form, under one
//! key of the profile. docs/profiles.md is made from these tables.

mod ecs;
mod object;
mod ocsf;
mod rest;
mod threatstack;

use std::{fmt, str::FromStr};

use nightjar_proto::v1::Event;
pub use rest::{Place, Row};
use serde::Serialize;

/// A form that events are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// Nightjar's own, as `nightjar_proto` has it: nothing is lost or renamed.
    #[default]
    Native,
    /// Raw events of the Threat Stack agent, for parsers and rules that were made for those.
    Threatstack,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
}

/// There is no such profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile `{0}` is not known; use `native`, `threatstack`, `ocsf` or `ecs`")]
pub struct UnknownProfile(String);

// === impl Profile ===

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Native, Self::Threatstack, Self::Ocsf, Self::Ecs];

    /// The name by which it is asked for.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Threatstack => "threatstack",
            Self::Ocsf => "ocsf",
            Self::Ecs => "ecs",
        }
    }

    /// Version of the schema that is written: of `ocsf` and `ecs` that of the published schema, of the others a number
    /// that is raised when a field changes its meaning or goes away.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::Native => "1",
            Self::Threatstack => threatstack::VERSION,
            Self::Ocsf => ocsf::VERSION,
            Self::Ecs => ecs::VERSION,
        }
    }

    /// Where the fields of an event go; empty for the native form.
    #[must_use]
    pub const fn rows(self) -> &'static [Row] {
        match self {
            Self::Native => &[],
            Self::Threatstack => threatstack::ROWS,
            Self::Ocsf => ocsf::ROWS,
            Self::Ecs => ecs::ROWS,
        }
    }

    /// The key under which fields are kept that have no other place; none for the native form.
    #[must_use]
    pub const fn rest_key(self) -> Option<&'static str> {
        match self {
            Self::Native => None,
            Self::Threatstack | Self::Ecs => Some("nightjar"),
            Self::Ocsf => Some("unmapped"),
        }
    }

    /// Appends `event` as one JSON object in one line, without the newline.
    pub fn write(self, event: &Event, to: &mut Vec<u8>) {
        match self {
            Self::Native => return nightjar_proto::to_json(event, to),
            Self::Threatstack => append(&threatstack::Threatstack(event), to),
            Self::Ocsf => append(&ocsf::Ocsf(event), to),
            Self::Ecs => append(&ecs::Ecs(event), to),
        }
        if let Some(key) = self.rest_key() {
            // The object is opened again: it is never empty.
            to.pop();
            let rows = if self == Self::Ocsf { ocsf::rows(event) } else { self.rows() };
            rest::append(event, rows, key, to);
            to.push(b'}');
        }
    }
}

fn append(object: &impl Serialize, to: &mut Vec<u8>) {
    serde_json::to_writer(to, object).expect("a Vec takes every write and all keys are strings");
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_asked_for_by_its_name() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
    }

    #[test]
    fn a_profile_that_is_not_known_is_refused_with_those_that_are() {
        let error = "OCSF".parse::<Profile>().unwrap_err().to_string();
        assert_eq!(error, "profile `OCSF` is not known; use `native`, `threatstack`, `ocsf` or `ecs`");
        for profile in Profile::ALL {
            assert!(error.contains(&format!("`{profile}`")), "{error}");
        }
    }
}
