//! Paths and what is at them.

use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, openat},
};

/// A path without `.`, `..` and empty components, by its letters alone.
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in &parts {
        normal.push(b'/');
        normal.extend_from_slice(part);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

/// Opens something for nothing but to have it.
pub(super) fn hold(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn path_from(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

pub(super) fn bytes_of(path: &Path) -> Vec<u8> {
    PathBuf::from(path).into_os_string().into_vec()
}

/// Device of the file system of a directory, as `stat` has it: major and minor.
pub(super) fn device_at(path: &Path) -> Option<(u32, u32)> {
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let stat = rustix::fs::lstat(path).ok()?;
    Some((rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_leads_nowhere() {
        assert_eq!(normal(b"/etc/../etc//./passwd"), b"/etc/passwd");
        assert_eq!(normal(b"/../.."), b"/");
        assert_eq!(normal(b"/a/b/.."), b"/a");
    }
}
