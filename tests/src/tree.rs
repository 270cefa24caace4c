//! What is in a folder: as it is, and as it should be by what was told of it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::event::Event;

/// Everything below a folder, by its path there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
    nodes: BTreeMap<PathBuf, Node>,
    /// Sizes of regular files by their inode numbers, as far as they are known.
    sizes: BTreeMap<u64, u64>,
    /// What was told and cannot be.
    odd: Vec<String>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    /// As `file.type`.
    kind: String,
    inode: Option<u64>,
    /// Text of a symbolic link.
    text: Option<String>,
}

// === impl Tree ===

impl Tree {
    /// As it is.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let mut tree = Self::empty(root);
        let mut left = vec![root.to_owned()];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(&folder).expect("a folder that stays") {
                let path = entry.expect("a folder that stays").path();
                let metadata = path.symlink_metadata().expect("a file that stays");
                if metadata.is_dir() {
                    left.push(path.clone());
                }
                if metadata.is_file() {
                    tree.sizes.insert(metadata.ino(), metadata.len());
                }
                let text = fs::read_link(&path).ok().map(|text| text.to_string_lossy().into_owned());
                let node = Node { kind: kind_of(&metadata).to_owned(), inode: Some(metadata.ino()), text };
                tree.nodes.insert(path, node);
            }
        }
        tree
    }

    /// With nothing in it.
    #[must_use]
    pub fn empty(root: &Path) -> Self {
        Self { root: root.to_owned(), nodes: BTreeMap::new(), sizes: BTreeMap::new(), odd: Vec::new() }
    }

    /// As it is after what these tell, in their order.
    #[must_use]
    pub fn after<'a>(mut self, events: impl IntoIterator<Item = &'a Event>) -> Self {
        for event in events {
            self.apply(event);
        }
        self
    }

    fn apply(&mut self, event: &Event) {
        let Some(path) = event.get("file.path").and_then(Value::as_str).map(PathBuf::from) else { return };
        let target = event.get("file.target.path").and_then(Value::as_str).map(PathBuf::from);
        let number = |path: &str| event.get(path).and_then(Value::as_u64);
        let inode = number("file.inode");
        let is_inside = |path: &Path| path.starts_with(&self.root) && path != self.root;
        match event.kind() {
            "file.create" | "file.mkdir" | "file.link" if is_inside(&path) => {
                let kind = event.get("file.type").and_then(Value::as_str);
                let is_symbolic = event.get("file.symbolic").is_some();
                let text = target.filter(|_| is_symbolic).map(|text| text.to_string_lossy().into_owned());
                let was_there = event.kind() == "file.link" && !is_symbolic;
                if let (Some(inode), Some(0), false) = (inode, number("file.size"), was_there) {
                    self.sizes.insert(inode, 0);
                }
                let before =
                    self.nodes.insert(path, Node { kind: kind.unwrap_or("?").to_owned(), inode, text });
                self.expect(before.is_none(), "it was there", event);
            }
            "file.delete" | "file.rmdir" if is_inside(&path) => {
                let gone = self.nodes.remove(&path);
                self.expect(gone.is_some(), "it was not there", event);
            }
            "file.rename" => {
                let Some(target) = target else { return self.expect(false, "no target", event) };
                self.rename(event, inode, &path, &target);
            }
            "file.modify" | "file.truncate" => {
                if let (Some(inode), Some(size)) = (inode, number("file.after.size")) {
                    self.sizes.insert(inode, size);
                }
            }
            _ => {}
        }
    }

    fn rename(&mut self, event: &Event, inode: Option<u64>, old: &Path, new: &Path) {
        let replaced = event.get("file.replaced.inode").and_then(Value::as_u64);
        let exchanged = event.get("file.exchanged").is_some();
        // Two names of one file: rename(2) does nothing then.
        if replaced.is_some() && replaced == inode {
            return;
        }
        let moved = self.take(old);
        let replaced = self.take(new);
        self.expect(!moved.is_empty() || !old.starts_with(&self.root), "it was not there", event);
        if exchanged {
            self.put(old, replaced);
        }
        self.put(new, moved);
    }

    /// What is at a path and below.
    fn take(&mut self, path: &Path) -> Vec<(PathBuf, Node)> {
        let below = |other: &PathBuf, _: &mut Node| other.starts_with(path);
        let taken = self.nodes.extract_if(.., below).collect::<Vec<_>>();
        let relative = |other: PathBuf| other.strip_prefix(path).expect("it starts with it").to_owned();
        taken.into_iter().map(|(other, node)| (relative(other), node)).collect()
    }

    fn put(&mut self, path: &Path, nodes: Vec<(PathBuf, Node)>) {
        if path.starts_with(&self.root) {
            // A join with nothing would end in a slash.
            let place = |below: PathBuf| {
                if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
            };
            self.nodes.extend(nodes.into_iter().map(|(below, node)| (place(below), node)));
        }
    }

    fn expect(&mut self, fits: bool, what: &str, event: &Event) {
        if !fits {
            let body = event.get("file").map(ToString::to_string).unwrap_or_default();
            self.odd.push(format!("{what}: {} {body}", event.kind()));
        }
    }

    /// What is other in this one, which was told, than in that, which is there: nothing, if all is well. Sizes count
    /// where they were told.
    #[must_use]
    pub fn differences(&self, real: &Self) -> Vec<String> {
        let mut differences = self.odd.clone();
        for (path, node) in &real.nodes {
            let shown = path.display();
            match self.nodes.get(path) {
                None => differences.push(format!("{shown} ({}) was not told", node.kind)),
                Some(told) if told.kind != node.kind || told.text != node.text => {
                    differences.push(format!("{shown} was told as {told:?} and is {node:?}"));
                }
                Some(told) if told.inode.is_some() && told.inode != node.inode => {
                    differences.push(format!("{shown} was told as {told:?} and is {node:?}"));
                }
                Some(told) => {
                    let sizes = [self, real].map(|tree| tree.sizes.get(&told.inode.unwrap_or(0)));
                    if let [Some(told), Some(size)] = sizes
                        && told != size
                    {
                        differences.push(format!("{shown} was told to have {told} bytes and has {size}"));
                    }
                }
            }
        }
        let gone = self.nodes.keys().filter(|path| !real.nodes.contains_key(*path));
        differences.extend(gone.map(|path| format!("{} was told and is not there", path.display())));
        differences
    }

    /// Whether the size of each regular file is known.
    #[must_use]
    pub fn knows_sizes(&self) -> bool {
        let files = self.nodes.values().filter(|node| node.kind == "regular");
        files.filter_map(|node| node.inode).all(|inode| self.sizes.contains_key(&inode))
    }
}

fn kind_of(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    match kind {
        _ if kind.is_file() => "regular",
        _ if kind.is_dir() => "directory",
        _ if kind.is_symlink() => "symlink",
        _ if kind.is_fifo() => "fifo",
        _ if kind.is_socket() => "socket",
        _ if kind.is_char_device() => "char_device",
        _ => "block_device",
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn event(kind: &str, fields: &str) -> Event {
        Event::parse(&format!(r#"{{"kind":"{kind}","file":{{{fields}}}}}"#), SystemTime::now(), 0)
    }

    #[test]
    fn what_is_told_makes_a_tree() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let tree = Tree::empty(folder.path()).after(&[
            event("file.mkdir", &format!(r#""path":"{root}/a","type":"directory""#)),
            event("file.create", &format!(r#""path":"{root}/a/b","type":"regular""#)),
            event("file.rename", &format!(r#""path":"{root}/a","target":{{"path":"{root}/c"}}"#)),
        ]);
        fs::create_dir(folder.path().join("c")).unwrap();
        fs::write(folder.path().join("c/b"), "text").unwrap();
        assert_eq!(tree.differences(&Tree::of(folder.path())), Vec::<String>::new());
        fs::remove_file(folder.path().join("c/b")).unwrap();
        let differences = tree.differences(&Tree::of(folder.path()));
        assert_eq!(differences, [format!("{root}/c/b was told and is not there")]);
    }
}
