//! What the program knows of a file by itself.
//!
//! Nothing here opens a file, so that no open is added to those that a test counts: names are resolved by
//! `readlink` and files looked at by `stat`.

use std::{
    fs::{self, Metadata},
    io,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Stat, fstat};
use serde_json::{Map, Value, json};

/// A file, whatever its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub inode: u64,
    /// `major:minor` as in `/proc/self/mountinfo` of most file systems.
    pub device: String,
    kind: &'static str,
    links: u64,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// A name for a file, and what it leads to.
#[derive(Debug, Clone)]
pub struct Name {
    /// Absolute; folders on the way are resolved.
    pub path: PathBuf,
    pub file: Option<File>,
}

/// The path of an open file, as the kernel shows it to this process.
pub fn path_of(fd: impl AsFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

// === impl File ===

impl File {
    /// What a descriptor is of.
    #[allow(clippy::useless_conversion, reason = "a count of links has 32 bits on aarch64")]
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat: Stat = fstat(fd)?;
        Ok(Self::new(
            stat.st_dev,
            stat.st_ino,
            stat.st_mode,
            stat.st_nlink.into(),
            stat.st_size.unsigned_abs(),
            [stat.st_uid, stat.st_gid],
        ))
    }

    /// What is at this path; a symbolic link there is the file itself.
    pub fn at(path: impl AsRef<Path>) -> Option<Self> {
        fs::symlink_metadata(path).ok().map(|metadata| Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        Self::new(
            metadata.dev(),
            metadata.ino(),
            metadata.mode(),
            metadata.nlink(),
            metadata.size(),
            [metadata.uid(), metadata.gid()],
        )
    }

    fn new(device: u64, inode: u64, mode: u32, links: u64, size: u64, [uid, gid]: [u32; 2]) -> Self {
        Self {
            inode,
            device: format!("{}:{}", libc::major(device), libc::minor(device)),
            kind: kind_of(mode),
            links,
            size,
            mode: mode & 0o7777,
            uid,
            gid,
        }
    }

    /// As in a line: `inode` and `links` are numbers, `mode` is octal digits, `size` is in bytes.
    pub fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("inode".into(), json!(self.inode));
        fields.insert("device".into(), json!(self.device));
        fields.insert("kind".into(), json!(self.kind));
        fields.insert("links".into(), json!(self.links));
        fields.insert("size".into(), json!(self.size));
        fields.insert("mode".into(), json!(format!("{:04o}", self.mode)));
        fields.insert("uid".into(), json!(self.uid));
        fields.insert("gid".into(), json!(self.gid));
        fields
    }
}

/// The type bits of a mode, as a word.
fn kind_of(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "symlink",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        libc::S_IFCHR => "character device",
        libc::S_IFBLK => "block device",
        _ => "unknown",
    }
}

// === impl Name ===

impl Name {
    /// A name as it stands: a symbolic link at its end is not followed.
    pub fn of(base: Option<&Path>, path: &Path) -> Self {
        let given = base.map_or_else(|| path.to_owned(), |base| base.join(path));
        let parent =
            given.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let absolute = match (parent, given.file_name()) {
            (Some(parent), Some(name)) => parent.canonicalize().map(|parent| parent.join(name)),
            // `/`, `..` and the like.
            _ => given.canonicalize(),
        };
        // Where there is no such folder, the path can be made absolute by its letters only.
        let path = absolute.or_else(|_| std::path::absolute(&given)).unwrap_or(given);
        Self { file: File::at(&path), path }
    }

    /// A name as most calls take it: a symbolic link at its end is followed, if it leads anywhere.
    pub fn followed(base: Option<&Path>, path: &Path) -> Self {
        let name = Self::of(base, path);
        match name.path.canonicalize() {
            Ok(path) => Self { file: File::at(&path), path },
            Err(_) => name,
        }
    }

    /// As it is now.
    pub fn again(&self) -> Option<File> {
        File::at(&self.path)
    }
}
