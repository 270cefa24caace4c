//! Single acts, each by every call and every way into the kernel that there is for it.

mod contents;
mod inode;
mod names;
mod opening;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::{
    call::Call,
    session::{How, Session},
};

/// Acts that `--via` applies to.
#[derive(Debug, Subcommand)]
pub enum Act {
    /// Open a file; it stays open until the program ends
    Open {
        path: PathBuf,
        #[command(flatten)]
        opening: opening::Opening,
        #[command(flatten)]
        how: How,
    },
    /// Open a file by a path in a page that is not present
    PagedOut {
        path: PathBuf,
        #[command(flatten)]
        opening: opening::Opening,
        #[command(flatten)]
        how: How,
    },
    /// Make or empty a file and open it for writing
    Creat {
        path: PathBuf,
        #[arg(long, value_parser = octal, default_value = "644")]
        mode: u32,
        #[command(flatten)]
        how: How,
    },
    /// Remove a name of a file
    Unlink {
        path: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Remove an empty folder
    Rmdir {
        path: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Make a folder
    Mkdir {
        path: PathBuf,
        #[arg(long, value_parser = octal, default_value = "755")]
        mode: u32,
        #[command(flatten)]
        how: How,
    },
    /// Make a pipe, a socket, a file or a device
    Mknod {
        path: PathBuf,
        #[arg(value_enum)]
        kind: names::Kind,
        #[arg(long, default_value_t = 0)]
        major: u32,
        #[arg(long, default_value_t = 0)]
        minor: u32,
        #[command(flatten)]
        how: How,
    },
    /// Give a file another name
    Rename {
        old: PathBuf,
        new: PathBuf,
        /// What renameat2 does with a file that has the new name
        #[arg(long, value_enum)]
        flag: Option<names::RenameFlag>,
        #[command(flatten)]
        how: How,
    },
    /// Let two files change their names
    Exchange {
        old: PathBuf,
        new: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Rename a file and leave a whiteout, as overlay file systems do
    Whiteout {
        old: PathBuf,
        new: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Give a file one more name
    Link {
        old: PathBuf,
        new: PathBuf,
        /// Follow a symbolic link, or take `/proc/self/fd/N` for the file it is of
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        how: How,
    },
    /// Make a symbolic link
    Symlink {
        target: PathBuf,
        new: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Cut a file, or make it longer
    Truncate {
        path: PathBuf,
        len: u64,
        #[command(flatten)]
        how: How,
    },
    /// Open a file and cut it
    Ftruncate {
        path: PathBuf,
        len: u64,
        #[command(flatten)]
        how: How,
    },
    /// Open a file and reserve room for it
    Fallocate {
        path: PathBuf,
        len: u64,
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// What is done with the room
        #[arg(long, value_enum, default_value = "allocate")]
        mode: contents::Room,
        #[command(flatten)]
        how: How,
    },
    /// Open a file, write to it, close it
    Write {
        path: PathBuf,
        #[arg(default_value = "x")]
        text: String,
        #[command(flatten)]
        opening: opening::Opening,
        #[command(flatten)]
        how: How,
    },
    /// Change the mode of a file
    Chmod {
        path: PathBuf,
        #[arg(value_parser = octal)]
        mode: u32,
        #[command(flatten)]
        how: How,
    },
    /// Open a file and change its mode
    Fchmod {
        path: PathBuf,
        #[arg(value_parser = octal)]
        mode: u32,
        #[command(flatten)]
        how: How,
    },
    /// Change the mode of a file by the newest call for that
    Fchmodat2 {
        path: PathBuf,
        #[arg(value_parser = octal)]
        mode: u32,
        #[command(flatten)]
        how: How,
    },
    /// Change the owner of a file
    Chown {
        path: PathBuf,
        uid: u32,
        gid: u32,
        #[command(flatten)]
        how: How,
    },
    /// Open a file and change its owner
    Fchown {
        path: PathBuf,
        uid: u32,
        gid: u32,
        #[command(flatten)]
        how: How,
    },
    /// Set an extended attribute
    Setxattr {
        path: PathBuf,
        name: String,
        value: String,
        #[command(flatten)]
        how: How,
    },
    /// Remove an extended attribute
    Removexattr {
        path: PathBuf,
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Set the times of a file to now
    Utimens {
        path: PathBuf,
        #[command(flatten)]
        how: How,
    },
}

// === impl Act ===

impl Act {
    pub fn run(&self) -> Result<()> {
        let mut session = Session::start(&self.how())?;
        let s = &mut session;
        match self {
            Self::Open { path, opening, .. } | Self::PagedOut { path, opening, .. } => {
                opening::open(s, path, opening)
            }
            Self::Creat { path, mode, .. } => opening::creat(s, path, *mode),
            Self::Unlink { path, .. } => names::unlink(s, path),
            Self::Rmdir { path, .. } => names::rmdir(s, path),
            Self::Mkdir { path, mode, .. } => names::mkdir(s, path, *mode),
            Self::Mknod { path, kind, major, minor, .. } => names::mknod(s, path, *kind, *major, *minor),
            Self::Rename { old, new, flag, .. } => names::rename(s, old, new, *flag),
            Self::Exchange { old, new, .. } => names::rename(s, old, new, Some(names::RenameFlag::Exchange)),
            Self::Whiteout { old, new, .. } => names::rename(s, old, new, Some(names::RenameFlag::Whiteout)),
            Self::Link { old, new, follow, .. } => names::link(s, old, new, *follow),
            Self::Symlink { target, new, .. } => names::symlink(s, target, new),
            Self::Truncate { path, len, .. } | Self::Ftruncate { path, len, .. } => {
                contents::truncate(s, path, *len)
            }
            Self::Fallocate { path, len, offset, mode, .. } => {
                contents::fallocate(s, path, *mode, *offset, *len)
            }
            Self::Write { path, text, opening, .. } => contents::write(s, path, text, opening),
            Self::Chmod { path, mode, .. }
            | Self::Fchmod { path, mode, .. }
            | Self::Fchmodat2 { path, mode, .. } => inode::chmod(s, path, *mode),
            Self::Chown { path, uid, gid, .. } | Self::Fchown { path, uid, gid, .. } => {
                inode::chown(s, path, *uid, *gid)
            }
            Self::Setxattr { path, name, value, .. } => inode::setxattr(s, path, name, value),
            Self::Removexattr { path, name, .. } => inode::removexattr(s, path, name),
            Self::Utimens { path, .. } => inode::utimens(s, path),
        }?;
        session.end()
    }

    /// How it is made, with what its name says of that.
    fn how(&self) -> How {
        match self {
            Self::PagedOut { how, .. } => How { paged_out: !how.straddling, ..how.clone() },
            Self::Ftruncate { how, .. } => how.by(Call::Ftruncate),
            Self::Fchmod { how, .. } => how.by(Call::Fchmod),
            Self::Fchmodat2 { how, .. } => how.by(Call::Fchmodat2),
            Self::Fchown { how, .. } => how.by(Call::Fchown),
            Self::Open { how, .. }
            | Self::Creat { how, .. }
            | Self::Unlink { how, .. }
            | Self::Rmdir { how, .. }
            | Self::Mkdir { how, .. }
            | Self::Mknod { how, .. }
            | Self::Rename { how, .. }
            | Self::Exchange { how, .. }
            | Self::Whiteout { how, .. }
            | Self::Link { how, .. }
            | Self::Symlink { how, .. }
            | Self::Truncate { how, .. }
            | Self::Fallocate { how, .. }
            | Self::Write { how, .. }
            | Self::Chmod { how, .. }
            | Self::Chown { how, .. }
            | Self::Setxattr { how, .. }
            | Self::Removexattr { how, .. }
            | Self::Utimens { how, .. } => how.clone(),
        }
    }
}

/// Bits of flags that have a name on the command line.
trait Bits: ValueEnum {
    fn bits(self) -> i32;
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|error| format!("{text} is no octal number: {error}"))
}

/// A number of 32 bits as an argument.
fn wide(number: u32) -> usize {
    number as usize
}
