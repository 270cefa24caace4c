//! Cgroups for processes of tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{agent::instance, files::remove_cgroup};

/// A new cgroup, removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    path: String,
    /// Above it, made for it.
    above: Option<PathBuf>,
}

/// The folder of the hierarchy that events tell the cgroup of: that of the memory controller where there is version
/// 1, else that of version 2.
#[must_use]
pub fn cgroup_hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    let find = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let parts: Vec<_> = line.split(' ').collect();
            (parts[2] == kind && parts[3].split(',').any(|word| word == option))
                .then(|| PathBuf::from(parts[1]))
        })
    };
    find("cgroup", "memory").or_else(|| find("cgroup2", "rw"))
}

impl Cgroup {
    /// Makes one below the root of a hierarchy: `label`, and what no other test has behind it.
    pub fn new(hierarchy: &Path, label: &str) -> Self {
        Self::at(hierarchy, &format!("{label}-{}", instance()))
    }

    /// Makes one at this path, of at most two parts.
    pub fn at(hierarchy: &Path, path: &str) -> Self {
        let folder = hierarchy.join(path);
        let above = folder.parent().filter(|above| !above.exists()).map(Path::to_owned);
        fs::create_dir_all(&folder)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
        Self { folder, path: format!("/{path}"), above }
    }

    /// Where it is in the file system.
    pub fn folder(&self) -> &str {
        self.folder.to_str().expect("a path in UTF-8")
    }

    /// As events tell it.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.folder);
        if let Some(above) = &self.above {
            remove_cgroup(above);
        }
    }
}
