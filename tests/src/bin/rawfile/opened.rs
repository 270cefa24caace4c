//! Files that are opened to do something with them, by the C library's own calls.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::Result;
use rustix::{
    fs::{CWD, Mode, OFlags, fcntl_getfl, openat},
    io::Errno,
};

use crate::{
    said::Line,
    truth::{File, Name, path_of},
};

/// An open file.
#[derive(Debug)]
pub struct Opened {
    fd: OwnedFd,
    pub path: PathBuf,
}

// === impl Opened ===

impl Opened {
    /// Opens a file and says so.
    pub fn new(path: &Path, flags: OFlags) -> Result<Self> {
        Self::at(CWD, path, flags)
    }

    /// Opens a file by a path that is relative to a folder, and says so.
    pub fn at(folder: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<Self> {
        let base = (folder.as_raw_fd() != libc::AT_FDCWD).then(|| path_of(folder)).transpose()?;
        let name = Name::followed(base.as_deref(), path);
        let opened = openat(folder, path, flags | OFlags::CLOEXEC, Mode::from(0o644));
        let line = Line::new("open").path("given", path).with("call", "openat").with("flags", flags.bits());
        let Ok(fd) = opened else {
            return line.path("path", &name.path).end(opened).map(|fd| Self { fd, path: name.path });
        };
        let opened = Self { path: path_of(&fd)?, fd };
        opened.about(line)?.with("created", name.file.is_none()).say()?;
        Ok(opened)
    }

    /// One that another process opened.
    pub fn received(fd: OwnedFd) -> Result<Self> {
        Ok(Self { path: path_of(&fd)?, fd })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A line about an act on it, with the file as it is now.
    pub fn tell(&self, act: &str) -> Result<Line> {
        self.about(Line::new(act))
    }

    fn about(&self, line: Line) -> Result<Line> {
        let line = line.path("path", &self.path).file(Some(&File::of(&self.fd)?));
        Ok(line.with("fd", self.fd.as_raw_fd()).with("fd_flags", fcntl_getfl(&self.fd)?.bits()))
    }

    /// Writes to it and says so.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let written = rustix::io::write(&self.fd, bytes);
        self.tell("write")?.with("result", written.ok()).end(written)?;
        Ok(())
    }

    /// Closes it and says so.
    pub fn close(self) -> Result<()> {
        let line = self.tell("close")?;
        // SAFETY: it is given up here, so nobody else closes it.
        let result = unsafe { libc::close(self.fd.into_raw_fd()) };
        let errno = || Errno::from_io_error(&std::io::Error::last_os_error()).expect("the error of a call");
        line.end(if result == 0 { Ok(()) } else { Err(errno()) })
    }
}
