//! Cgroups by number.
//!
//! Records of an exec and of a new cgroup carry its path, all records its number; the paths are kept so that
//! the others have them too.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use nightjar_abi::{
    record::{TaskInfo, task_flags},
    settings::CgroupKey,
};

use super::container::{ContainerId, identify};
use crate::decode::Text;

/// Cgroups that are remembered: more than a node has at a time.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// A cgroup and what its path tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupFacts {
    /// From the root of its hierarchy.
    pub path: String,
    /// The beginning of the path is missing.
    pub truncated: bool,
    /// The container that it belongs to.
    pub container: Option<ContainerId>,
}

/// Cgroups that were seen, the longest unused of which is forgotten first.
pub struct Cgroups {
    known: LruCache<CgroupKey, Arc<CgroupFacts>>,
}

impl Default for Cgroups {
    fn default() -> Self {
        Self { known: LruCache::new(REMEMBERED) }
    }
}

impl Cgroups {
    /// A record tells the path of a cgroup; `flags` are [`task_flags`].
    ///
    /// Gives what is new about it, if anything is.
    pub fn learn(&mut self, id: u64, flags: u32, path: &Text<'_>) -> Option<(CgroupKey, Arc<CgroupFacts>)> {
        let text = nightjar_proto::text::from_bytes(path.bytes);
        let known = self.known.get(&key(id, flags));
        if path.unreadable || known.is_some_and(|known| known.path == text) {
            return None;
        }
        let container = identify(&text);
        let facts = CgroupFacts { path: text, truncated: path.truncated, container };
        let (key, facts) = (key(id, flags), Arc::new(facts));
        self.known.put(key, Arc::clone(&facts));
        Some((key, facts))
    }

    /// How many are known, and how many can be.
    #[must_use]
    pub fn known(&self) -> (usize, usize) {
        (self.known.len(), self.known.cap().get())
    }

    /// All that is known.
    pub fn all(&self) -> impl Iterator<Item = (CgroupKey, &CgroupFacts)> {
        self.known.iter().map(|(key, facts)| (*key, &**facts))
    }

    /// What is known of a task's cgroup.
    pub fn of(&mut self, info: &TaskInfo) -> Option<Arc<CgroupFacts>> {
        self.known.get(&key(info.cgroup_id, info.flags)).map(Arc::clone)
    }
}

/// Version 1 hierarchies number their cgroups by themselves.
fn key(id: u64, flags: u32) -> CgroupKey {
    CgroupKey { id, is_v1: u64::from(flags & task_flags::CGROUP_V1 != 0) }
}
