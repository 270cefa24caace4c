//! Which events a reader wants, as far as it can be told without decoding them.

use wildmatch::WildMatch;

/// Conditions, all of which must hold. Where a list is empty there is none.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Earliest time, in nanoseconds since 1970.
    pub since: Option<i64>,
    /// Events before this time, in nanoseconds since 1970.
    pub until: Option<i64>,
    /// Globs over kinds.
    pub kinds: Vec<WildMatch>,
    /// Globs over the name of the host.
    pub hosts: Vec<WildMatch>,
    /// Agents, by their IDs.
    pub agents: Vec<String>,
}

// === impl Wanted ===

impl Wanted {
    /// Whether an event can be there among such as are of these times.
    #[must_use]
    pub fn overlaps(&self, first: i64, last: i64) -> bool {
        self.since.is_none_or(|since| last >= since) && self.until.is_none_or(|until| first < until)
    }

    /// Whether events of this agent are wanted.
    #[must_use]
    pub fn agent(&self, agent: &str) -> bool {
        self.agents.is_empty() || self.agents.iter().any(|wanted| wanted == agent)
    }

    /// Whether an event of this kind, host and time is wanted.
    #[must_use]
    pub fn event(&self, kind: &str, host: &str, time: i64) -> bool {
        let fits =
            |globs: &[WildMatch], text| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        self.overlaps(time, time) && fits(&self.kinds, kind) && fits(&self.hosts, host)
    }
}
