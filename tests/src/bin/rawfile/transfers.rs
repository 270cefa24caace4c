//! Ways to write to a file other than `write`.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    ptr,
};

use anyhow::{Result, ensure};
use clap::Subcommand;
use rustix::{
    fs::{OFlags, copy_file_range, ioctl_ficlone, sendfile},
    io::Errno,
};

use crate::{opened::Opened, truth::File};

/// Ways to write to a file. Those of two paths copy the whole file.
#[derive(Debug, Subcommand)]
pub enum Transfer {
    /// Change the first byte of a file through a shared mapping
    MmapWrite { path: PathBuf },
    /// Copy by `copy_file_range`
    CopyFileRange { source: PathBuf, target: PathBuf },
    /// Copy by `sendfile`
    Sendfile { source: PathBuf, target: PathBuf },
    /// Copy by `splice`, through a pipe
    Splice { source: PathBuf, target: PathBuf },
    /// Share the content, on file systems that can
    Ficlone { source: PathBuf, target: PathBuf },
    /// Copy by `read` and `write`
    ReadWriteCopy { source: PathBuf, target: PathBuf },
}

const CHUNK: usize = 1 << 16;

// === impl Transfer ===

impl Transfer {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::MmapWrite { path } => write_mapped(path),
            Self::CopyFileRange { source, target } => copy("copy_file_range", source, target, |from, to| {
                copy_file_range(from.fd(), None, to.fd(), None, CHUNK)
            }),
            Self::Sendfile { source, target } => {
                copy("sendfile", source, target, |from, to| sendfile(to.fd(), from.fd(), None, CHUNK))
            }
            Self::Splice { source, target } => {
                let (reader, writer) = io::pipe()?;
                copy("splice", source, target, |from, to| {
                    let len = splice(from.fd().as_raw_fd(), writer.as_fd().as_raw_fd(), CHUNK)?;
                    let mut left = len;
                    while left > 0 {
                        left -= splice(reader.as_fd().as_raw_fd(), to.fd().as_raw_fd(), left)?;
                    }
                    Ok(len)
                })
            }
            Self::Ficlone { source, target } => {
                let mut is_done = false;
                copy("ficlone", source, target, |from, to| {
                    if !is_done {
                        ioctl_ficlone(to.fd(), from.fd())?;
                        is_done = true;
                        return Ok(usize::MAX);
                    }
                    Ok(0)
                })
            }
            Self::ReadWriteCopy { source, target } => {
                let mut buffer = vec![0; CHUNK];
                copy("read-write-copy", source, target, |from, to| {
                    let len = rustix::io::read(from.fd(), &mut buffer)?;
                    let mut rest = &buffer[..len];
                    while !rest.is_empty() {
                        rest = &rest[rustix::io::write(to.fd(), rest)?..];
                    }
                    Ok(len)
                })
            }
        }
    }
}

/// Calls `step` until it copies nothing more; says how often it copied something, and how much.
fn copy(
    act: &str,
    source: &Path,
    target: &Path,
    mut step: impl FnMut(&Opened, &Opened) -> rustix::io::Result<usize>,
) -> Result<()> {
    let from = Opened::new(source, OFlags::RDONLY)?;
    let to = Opened::new(target, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
    let mut steps = 0;
    let done = loop {
        match step(&from, &to) {
            Ok(0) => break Ok(()),
            Ok(_) => steps += 1,
            Err(errno) => break Err(errno),
        }
    };
    let source = File::of(from.fd())?;
    let line = to.tell(act)?.path("source", &from.path).other_file("source_file", Some(&source));
    line.with("steps", steps).end(done)?;
    from.close()?;
    to.close()
}

/// At the places where both descriptors are; one of them is a pipe.
fn splice(from: i32, to: i32, len: usize) -> rustix::io::Result<usize> {
    // SAFETY: no offsets are passed.
    let len = unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, libc::SPLICE_F_MOVE) };
    usize::try_from(len).map_err(|_| last_error())
}

fn write_mapped(path: &Path) -> Result<()> {
    let file = Opened::new(path, OFlags::RDWR)?;
    ensure!(
        rustix::fs::fstat(file.fd())?.st_size > 0,
        "{} is empty; there is nothing to map",
        path.display()
    );
    let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.fd().as_raw_fd());
    // SAFETY: a new mapping touches nothing that is there.
    let place = unsafe { libc::mmap(ptr::null_mut(), 1, access, libc::MAP_SHARED, fd, 0) };
    let mapped = if place == libc::MAP_FAILED { Err(last_error()) } else { Ok(place.cast::<u8>()) };
    let place = file.tell("mmap")?.end(mapped)?;
    // SAFETY: the mapping has the first byte of the file, which is not cut meanwhile.
    unsafe { place.write_volatile(b'M') };
    file.tell("mmap-write")?.say()?;
    // SAFETY: nothing has a reference into the mapping.
    let unmapped = unsafe { libc::munmap(place.cast(), 1) };
    file.tell("munmap")?.end(if unmapped == 0 { Ok(()) } else { Err(last_error()) })?;
    file.close()
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).expect("the error of a system call")
}
