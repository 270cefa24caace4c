//! What the program says: one line of JSON for each act, and why it ended.

use std::{
    fmt,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use anyhow::Context as _;
use rustix::{io::Errno, process::getpid, thread::gettid};
use serde_json::{Map, Value, json};

use crate::truth::File;

/// A line about one act.
#[derive(Debug)]
pub struct Line(Map<String, Value>);

/// The kernel lacks what was asked for; nothing was done.
#[derive(Debug)]
pub struct Skipped(pub String);

/// A call failed as it was told to.
#[derive(Debug)]
pub struct FailedAsExpected;

/// Names of the errors that file system calls give.
const ERRORS: &[(&str, Errno)] = &[
    ("EPERM", Errno::PERM),
    ("ENOENT", Errno::NOENT),
    ("EIO", Errno::IO),
    ("ENXIO", Errno::NXIO),
    ("EBADF", Errno::BADF),
    ("EAGAIN", Errno::AGAIN),
    ("ENOMEM", Errno::NOMEM),
    ("EACCES", Errno::ACCESS),
    ("EFAULT", Errno::FAULT),
    ("EBUSY", Errno::BUSY),
    ("EEXIST", Errno::EXIST),
    ("EXDEV", Errno::XDEV),
    ("ENODEV", Errno::NODEV),
    ("ENOTDIR", Errno::NOTDIR),
    ("EISDIR", Errno::ISDIR),
    ("EINVAL", Errno::INVAL),
    ("EMFILE", Errno::MFILE),
    ("ETXTBSY", Errno::TXTBSY),
    ("EFBIG", Errno::FBIG),
    ("ENOSPC", Errno::NOSPC),
    ("EROFS", Errno::ROFS),
    ("EMLINK", Errno::MLINK),
    ("ENAMETOOLONG", Errno::NAMETOOLONG),
    ("ENOSYS", Errno::NOSYS),
    ("ENOTEMPTY", Errno::NOTEMPTY),
    ("ELOOP", Errno::LOOP),
    ("ENODATA", Errno::NODATA),
    ("EOVERFLOW", Errno::OVERFLOW),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("ESTALE", Errno::STALE),
    ("EDQUOT", Errno::DQUOT),
];

/// The error of this name.
pub fn errno_of(name: &str) -> Result<Errno, String> {
    let row = ERRORS.iter().find(|(known, _)| *known == name);
    row.map(|(_, errno)| *errno)
        .ok_or_else(|| format!("{name} is no error of file system calls; see errno(3)"))
}

/// The name of this error, or its number.
pub fn name_of(errno: Errno) -> String {
    let row = ERRORS.iter().find(|(_, known)| *known == errno);
    row.map_or_else(|| errno.raw_os_error().to_string(), |(name, _)| (*name).to_owned())
}

/// Whether the kernel or the file system has no such call, rather than refusing this one.
pub fn is_lacking(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP)
}

// === impl Line ===

impl Line {
    /// An act of this thread.
    pub fn new(act: &str) -> Self {
        Self(Map::new())
            .with("act", act)
            .with("pid", getpid().as_raw_nonzero().get())
            .with("tid", gettid().as_raw_nonzero().get())
            .with("errno", 0)
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// A path; its bytes too if they are not UTF-8.
    pub fn path(self, key: &str, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let line = self.with(key, path.to_string_lossy());
        if path.to_str().is_some() {
            return line;
        }
        let hex =
            path.as_os_str().as_bytes().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        line.with(&format!("{key}_hex"), hex)
    }

    /// Which file it was; nothing if there is none.
    pub fn file(mut self, file: Option<&File>) -> Self {
        if let Some(file) = file {
            self.0.extend(file.fields());
        }
        self
    }

    /// A file that is not what the act is about.
    pub fn other_file(self, key: &str, file: Option<&File>) -> Self {
        self.with(key, file.map(|file| Value::Object(file.fields())))
    }

    /// How the call ended.
    pub fn errno(self, errno: Errno) -> Self {
        self.with("errno", errno.raw_os_error()).with("error", name_of(errno))
    }

    /// Prints it with how the call ended; gives what the call gave.
    ///
    /// # Errors
    /// When the call failed; `Skipped` where the kernel or the file system has no such call.
    pub fn end<T>(self, done: Result<T, Errno>) -> anyhow::Result<T> {
        match done {
            Ok(value) => {
                self.say()?;
                Ok(value)
            }
            Err(errno) => {
                let act = self.0["act"].clone();
                self.errno(errno).say()?;
                if is_lacking(errno) {
                    return Err(Skipped(name_of(errno)).into());
                }
                Err(io::Error::from(errno)).with_context(|| format!("{act} failed"))
            }
        }
    }

    /// Prints it, at once.
    pub fn say(self) -> io::Result<()> {
        say(&Value::Object(self.0))
    }
}

/// Prints one line at once: whoever reads may wait for it.
pub fn say(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

// === impl Skipped ===

impl Skipped {
    /// Prints it.
    pub fn say(&self) -> io::Result<()> {
        say(&json!({"skipped": self.0}))
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

// === impl FailedAsExpected ===

impl fmt::Display for FailedAsExpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call failed as it should")
    }
}

impl std::error::Error for FailedAsExpected {}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_path_that_is_not_utf_8_has_its_bytes_beside_it() {
        let line = Line::new("open").path("path", OsStr::from_bytes(b"/a\xff"));
        assert_eq!(line.0["path_hex"], "2f61ff");
        assert!(!Line::new("open").path("path", "/a").0.contains_key("path_hex"));
    }

    #[test]
    fn an_error_has_the_name_it_is_found_by() {
        assert_eq!(errno_of("ENOENT"), Ok(Errno::NOENT));
        assert_eq!(name_of(Errno::NOENT), "ENOENT");
        assert!(errno_of("ENONE").is_err());
    }
}
