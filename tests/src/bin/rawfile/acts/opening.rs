//! `open` and its relatives.

use std::{os::fd::AsRawFd as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use rustix::fs::OFlags;

use super::{Bits, octal, wide};
use crate::{
    call::Call,
    session::{Session, argument, open_folder, tell_open},
    truth::Name,
};

/// How a file is opened.
#[derive(Debug, Clone, Args)]
pub struct Opening {
    /// Flags of the call
    #[arg(long, value_enum, value_delimiter = ',')]
    flags: Vec<Flag>,
    /// Mode of a file that is made
    #[arg(long, value_parser = octal, default_value = "644")]
    mode: u32,
    /// What openat2 does with links on the way
    #[arg(long, value_enum, value_delimiter = ',')]
    resolve: Vec<Resolve>,
}

/// A flag of `open(2)`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Flag {
    Rdonly,
    Wronly,
    Rdwr,
    Creat,
    Excl,
    Trunc,
    Append,
    Nonblock,
    Directory,
    Nofollow,
    Path,
    Tmpfile,
}

/// A flag of `openat2(2)`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Resolve {
    NoXdev,
    NoMagiclinks,
    NoSymlinks,
    Beneath,
    InRoot,
    Cached,
}

const OPEN: &[Call] = &[Call::Open, Call::Openat, Call::Openat2, Call::Creat, Call::OpenByHandleAt];
/// `MAX_HANDLE_SZ` <https://github.com/torvalds/linux/blob/v6.12/include/linux/exportfs.h>
const MAX_HANDLE: u32 = 128;

pub fn open(session: &mut Session, path: &Path, opening: &Opening) -> Result<()> {
    match session.choose(OPEN)? {
        Call::Creat => creat(session, path, opening.mode),
        Call::OpenByHandleAt => open_by_handle(session, path, opening.flags()),
        call => {
            let flags = opening.flags();
            // With these the link itself is opened.
            let name = match flags & libc::O_NOFOLLOW {
                0 => session.followed(path),
                _ => session.name(path),
            };
            let text = session.string(path)?;
            let (folder, bits, mode) = (session.folder(), argument(flags), wide(opening.mode));
            let arguments = match call {
                Call::Open => vec![text, bits, mode],
                Call::Openat => vec![folder, text, bits, mode],
                _ => {
                    let (how, len) = opening.how(session)?;
                    vec![folder, text, how, len]
                }
            };
            session.act(call, &arguments, |fd| tell_open(&name, flags, fd))?;
            Ok(())
        }
    }
}

pub fn creat(session: &mut Session, path: &Path, mode: u32) -> Result<()> {
    const FLAGS: i32 = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    let call = session.choose(&[Call::Creat, Call::Open, Call::Openat])?;
    let name = session.followed(path);
    let text = session.string(path)?;
    let (folder, flags, mode) = (session.folder(), argument(FLAGS), wide(mode));
    let arguments = match call {
        Call::Creat => vec![text, mode],
        Call::Open => vec![text, flags, mode],
        _ => vec![folder, text, flags, mode],
    };
    session.act(call, &arguments, |fd| tell_open(&name, FLAGS, fd))?;
    Ok(())
}

/// Opens a file without any path. The folder it is in is opened before, to tell the file system.
fn open_by_handle(session: &mut Session, path: &Path, flags: i32) -> Result<()> {
    let name = session.followed(path);
    let (handle, len) = handle_of(session, &name)?;
    ensure!(
        len <= MAX_HANDLE as usize,
        "a file handle of {len} bytes; the kernel's are at most {MAX_HANDLE}"
    );
    let folder = name.path.parent().context("the root folder has no other to open it from")?.to_owned();
    let (mount, _) = open_folder(&folder, OFlags::RDONLY)?;
    let arguments = [argument(mount.as_raw_fd()), handle, argument(flags)];
    session.act(Call::OpenByHandleAt, &arguments, |fd| tell_open(&name, flags, fd))?;
    Ok(())
}

/// The kernel's handle of a file, in the session's memory, and its length.
fn handle_of(session: &mut Session, name: &Name) -> Result<(usize, usize)> {
    // `struct file_handle`: its length, its type, itself.
    let room = [&MAX_HANDLE.to_ne_bytes()[..], &[0; 4 + MAX_HANDLE as usize]].concat();
    let handle = session.memory.bytes(&room)?;
    let mount_id = session.memory.bytes(&[0; 8])?;
    let text = session.string(&name.path)?;
    let arguments = [argument(libc::AT_FDCWD), text, handle, mount_id, 0];
    session
        .call(Call::NameToHandleAt, &arguments)?
        .with_context(|| format!("{} has no handle", name.path.display()))?;
    let len = session.memory.read(handle, 4).try_into().map(u32::from_ne_bytes).expect("four bytes");
    Ok((handle, len as usize))
}

// === impl Opening ===

impl Opening {
    pub fn flags(&self) -> i32 {
        self.flags.iter().fold(0, |bits, flag| bits | flag.bits())
    }

    /// Whether any flag was given.
    pub fn has_flags(&self) -> bool {
        !self.flags.is_empty()
    }

    /// `struct open_how` and its length. The kernel takes no mode where no file is made.
    fn how(&self, session: &mut Session) -> Result<(usize, usize)> {
        let flags = u64::from(self.flags().cast_unsigned());
        let makes = self.flags() & (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) != 0;
        let mode = if makes { self.mode.into() } else { 0 };
        let resolve = self.resolve.iter().fold(0, |bits, flag| bits | flag.bits());
        let how = [flags, mode, u64::from(resolve.cast_unsigned())].map(u64::to_ne_bytes).concat();
        Ok((session.memory.bytes(&how)?, how.len()))
    }
}

// === impl Flag ===

impl Bits for Flag {
    fn bits(self) -> i32 {
        match self {
            Self::Rdonly => libc::O_RDONLY,
            Self::Wronly => libc::O_WRONLY,
            Self::Rdwr => libc::O_RDWR,
            Self::Creat => libc::O_CREAT,
            Self::Excl => libc::O_EXCL,
            Self::Trunc => libc::O_TRUNC,
            Self::Append => libc::O_APPEND,
            Self::Nonblock => libc::O_NONBLOCK,
            Self::Directory => libc::O_DIRECTORY,
            Self::Nofollow => libc::O_NOFOLLOW,
            Self::Path => libc::O_PATH,
            Self::Tmpfile => libc::O_TMPFILE,
        }
    }
}

// === impl Resolve ===

impl Bits for Resolve {
    fn bits(self) -> i32 {
        // <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/openat2.h>
        match self {
            Self::NoXdev => 0x01,
            Self::NoMagiclinks => 0x02,
            Self::NoSymlinks => 0x04,
            Self::Beneath => 0x08,
            Self::InRoot => 0x10,
            Self::Cached => 0x20,
        }
    }
}
