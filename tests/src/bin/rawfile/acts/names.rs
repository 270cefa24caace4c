//! Acts on names of files.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::{Bits, wide};
use crate::{
    call::Call,
    said::Line,
    session::{Session, argument},
};

/// What `mknod` makes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    File,
    Fifo,
    Socket,
    Char,
    Block,
}

/// A flag of `renameat2(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RenameFlag {
    Noreplace,
    Exchange,
    Whiteout,
}

pub fn unlink(session: &mut Session, path: &Path) -> Result<()> {
    let call = session.choose(&[Call::Unlink, Call::Unlinkat])?;
    remove(session, "unlink", call, path, 0)
}

pub fn rmdir(session: &mut Session, path: &Path) -> Result<()> {
    let call = session.choose(&[Call::Rmdir, Call::Unlinkat])?;
    remove(session, "rmdir", call, path, libc::AT_REMOVEDIR)
}

fn remove(session: &mut Session, act: &str, call: Call, path: &Path, flags: i32) -> Result<()> {
    let name = session.name(path);
    let text = session.string(path)?;
    let folder = session.folder();
    let arguments = if call == Call::Unlinkat { vec![folder, text, argument(flags)] } else { vec![text] };
    // Of the file as it was: it may be no more.
    session
        .act(call, &arguments, |_| Ok(Line::new(act).path("path", &name.path).file(name.file.as_ref())))?;
    Ok(())
}

pub fn mkdir(session: &mut Session, path: &Path, mode: u32) -> Result<()> {
    let call = session.choose(&[Call::Mkdir, Call::Mkdirat])?;
    let text = session.string(path)?;
    let arguments = match call {
        Call::Mkdir => vec![text, wide(mode)],
        _ => vec![session.folder(), text, wide(mode)],
    };
    make(session, "mkdir", call, path, &arguments)
}

pub fn mknod(session: &mut Session, path: &Path, kind: Kind, major: u32, minor: u32) -> Result<()> {
    let call = session.choose(&[Call::Mknod, Call::Mknodat])?;
    // The kernel takes a device in 32 bits, `new_encode_dev`: 12 of its major number between 8 and 12 of its minor.
    // https://github.com/torvalds/linux/blob/v6.12/include/linux/kdev_t.h
    ensure!(major < 1 << 12 && minor < 1 << 20, "there is no device {major}:{minor}; at most 4095:1048575");
    let device = wide(minor & 0xFF | major << 8 | (minor & !0xFF) << 12);
    let text = session.string(path)?;
    let mode = argument(kind.bits() | 0o644);
    let arguments = match call {
        Call::Mknod => vec![text, mode, device],
        _ => vec![session.folder(), text, mode, device],
    };
    make(session, "mknod", call, path, &arguments)
}

pub fn symlink(session: &mut Session, target: &Path, path: &Path) -> Result<()> {
    let call = session.choose(&[Call::Symlink, Call::Symlinkat])?;
    let (to, text) = (session.string(target)?, session.string(path)?);
    let arguments = match call {
        Call::Symlink => vec![to, text],
        _ => vec![to, session.folder(), text],
    };
    let name = session.name(path);
    session.act(call, &arguments, |_| {
        Ok(Line::new("symlink").path("path", &name.path).file(name.again().as_ref()).path("target", target))
    })?;
    Ok(())
}

/// A call after which a name leads to something new.
fn make(session: &mut Session, act: &str, call: Call, path: &Path, arguments: &[usize]) -> Result<()> {
    let name = session.name(path);
    session
        .act(call, arguments, |_| Ok(Line::new(act).path("path", &name.path).file(name.again().as_ref())))?;
    Ok(())
}

pub fn rename(session: &mut Session, old: &Path, new: &Path, flag: Option<RenameFlag>) -> Result<()> {
    let call = session.choose(match flag {
        None => &[Call::Rename, Call::Renameat, Call::Renameat2],
        Some(_) => &[Call::Renameat2],
    })?;
    let (from, to) = (session.name(old), session.name(new));
    let (old, new) = (session.string(old)?, session.string(new)?);
    let folder = session.folder();
    let flags = argument(flag.map_or(0, Bits::bits));
    let arguments = match call {
        Call::Rename => vec![old, new],
        Call::Renameat => vec![folder, old, folder, new],
        _ => vec![folder, old, folder, new, flags],
    };
    session.act(call, &arguments, |_| {
        let line =
            Line::new("rename").path("path", &from.path).path("new_path", &to.path).with("flags", flags);
        Ok(line.file(from.file.as_ref()).other_file("replaced", to.file.as_ref()))
    })?;
    Ok(())
}

pub fn link(session: &mut Session, old: &Path, new: &Path, follow: bool) -> Result<()> {
    let call = session.choose(if follow { &[Call::Linkat] } else { &[Call::Link, Call::Linkat] })?;
    let from = if follow { session.followed(old) } else { session.name(old) };
    let to = session.name(new);
    let (old, new) = (session.string(old)?, session.string(new)?);
    let folder = session.folder();
    let arguments = match call {
        Call::Link => vec![old, new],
        _ => vec![folder, old, folder, new, argument(if follow { libc::AT_SYMLINK_FOLLOW } else { 0 })],
    };
    session.act(call, &arguments, |_| {
        let file = from.again();
        Ok(Line::new("link").path("path", &from.path).path("new_path", &to.path).file(file.as_ref()))
    })?;
    Ok(())
}

// === impl Kind ===

impl Bits for Kind {
    fn bits(self) -> i32 {
        let bits = match self {
            Self::File => libc::S_IFREG,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::Char => libc::S_IFCHR,
            Self::Block => libc::S_IFBLK,
        };
        bits.cast_signed()
    }
}

// === impl RenameFlag ===

impl Bits for RenameFlag {
    fn bits(self) -> i32 {
        // <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/fs.h>
        match self {
            Self::Noreplace => 1,
            Self::Exchange => 2,
            Self::Whiteout => 4,
        }
    }
}
