//! Mounts, by the old calls and by the new.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use rustix::{
    fs::{AtFlags, CWD, OFlags, StatxAttributes, StatxFlags, statx},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
        OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_bind, mount_change,
        mount_move, move_mount, open_tree,
    },
    process::pivot_root,
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::{opened::Opened, said::Line, truth::File};

/// Acts on mounts.
#[derive(Debug, Subcommand)]
pub enum Mount {
    /// Mount a folder or file at another place too
    #[command(name = "mount-bind")]
    Bind {
        source: PathBuf,
        target: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Mount an empty file system in memory
    #[command(name = "mount-tmpfs")]
    Tmpfs {
        target: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Take a mount away
    Umount {
        target: PathBuf,
        /// At once, even if it is used
        #[arg(long)]
        lazy: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Move a mount; what is none is mounted on itself before
    #[command(name = "move-mount")]
    Move {
        source: PathBuf,
        target: PathBuf,
        /// By `move_mount` instead of `mount`
        #[arg(long)]
        new_api: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Mount without `mount`
    #[command(name = "new-mount-api")]
    NewApi {
        target: PathBuf,
        /// What is mounted there too, by open_tree; else an empty file system in memory, by fsopen
        #[expect(clippy::doc_markdown, reason = "shown on a terminal")]
        #[arg(long)]
        source: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Make a folder the root of a mount namespace, and let go of the old root
    PivotRoot {
        root: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

/// Where it is done, and what then.
#[derive(Debug, Args)]
pub struct Place {
    /// In a mount namespace of its own
    #[arg(long)]
    unshare: bool,
    /// Open a file after that, for reading
    #[arg(long, value_name = "PATH")]
    then_open: Option<PathBuf>,
}

// === impl Mount ===

impl Mount {
    pub fn run(&self) -> Result<()> {
        let place = self.place();
        ensure!(place.unshare || !matches!(self, Self::PivotRoot { .. }), "pivot-root needs --unshare");
        if place.unshare {
            unshare()?;
        }
        match self {
            Self::Bind { source, target, .. } => bind(source, target),
            Self::Tmpfs { target, .. } => {
                let done = mount("tmpfs", target, "tmpfs", MountFlags::empty(), None);
                tell("mount-tmpfs", target).end(done)
            }
            Self::Umount { target, lazy, .. } => unmount(target, *lazy),
            Self::Move { source, target, new_api, .. } => relocate(source, target, *new_api),
            Self::NewApi { source: Some(source), target, .. } => attach_tree(source, target),
            Self::NewApi { source: None, target, .. } => attach_new(target),
            Self::PivotRoot { root, .. } => pivot(root),
        }?;
        match &place.then_open {
            Some(path) if matches!(self, Self::PivotRoot { .. }) => open_without_proc(path),
            Some(path) => Opened::new(path, OFlags::RDONLY)?.close(),
            None => Ok(()),
        }
    }

    fn place(&self) -> &Place {
        match self {
            Self::Bind { place, .. }
            | Self::Tmpfs { place, .. }
            | Self::Umount { place, .. }
            | Self::Move { place, .. }
            | Self::NewApi { place, .. }
            | Self::PivotRoot { place, .. } => place,
        }
    }
}

/// Goes to a mount namespace of its own, of which nothing gets out.
pub fn unshare() -> Result<()> {
    // SAFETY: descriptors stay shared.
    Line::new("unshare").end(unsafe { unshare_unsafe(UnshareFlags::NEWNS) })?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).context("cannot make mounts private")
}

/// Mounts a folder or file at another place too.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    let source = real(source)?;
    let done = mount_bind(&source, target);
    tell("mount-bind", target).path("source", source).end(done)
}

/// Takes a mount away.
pub fn unmount(target: &Path, lazy: bool) -> Result<()> {
    let line = tell("umount", target);
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    line.end(rustix::mount::unmount(target, flags))
}

fn relocate(source: &Path, target: &Path, new_api: bool) -> Result<()> {
    let source = real(source)?;
    if !is_mount(&source)? {
        bind(&source, &source)?;
    }
    let done = if new_api {
        move_mount(CWD, &source, CWD, target, MoveMountFlags::empty())
    } else {
        mount_move(&source, target)
    };
    let call = if new_api { "move_mount" } else { "mount" };
    tell("move-mount", target).path("source", source).with("call", call).end(done)
}

fn attach_tree(source: &Path, target: &Path) -> Result<()> {
    let source = real(source)?;
    let tree = open_tree(CWD, &source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    let line = Line::new("open-tree").path("path", &source).file(File::at(&source).as_ref());
    let tree = line.end(tree)?;
    attach(&tree, target)
}

fn attach_new(target: &Path) -> Result<()> {
    let context = Line::new("fsopen").end(fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC))?;
    Line::new("fsconfig").end(fsconfig_create(&context))?;
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    let made = Line::new("fsmount").end(made)?;
    attach(&made, target)
}

fn attach(tree: &impl std::os::fd::AsFd, target: &Path) -> Result<()> {
    let done = move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    tell("move-mount", target).with("call", "move_mount").end(done)
}

/// The old root is put on the new and taken away from there, as `pivot_root(2)` says under "NOTES".
fn pivot(root: &Path) -> Result<()> {
    let root = real(root)?;
    if !is_mount(&root)? {
        bind(&root, &root)?;
    }
    std::env::set_current_dir(&root)?;
    let line = tell("pivot-root", &root);
    line.end(pivot_root(".", "."))?;
    let done = rustix::mount::unmount(".", UnmountFlags::DETACH);
    Line::new("umount").with("path", "/").with("old_root", true).end(done)?;
    std::env::set_current_dir("/").context("the new root is a folder")
}

/// Opens where there may be no `/proc` to ask for the path.
fn open_without_proc(path: &Path) -> Result<()> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let shown = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Line::new("open").path("path", &shown).file(File::at(&shown).as_ref()).end(opened)?;
    Ok(())
}

/// A line about a mount point, with the file that it shows now and the number of its mount.
fn tell(act: &str, target: &Path) -> Line {
    let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    let mount = statx(CWD, &target, AtFlags::empty(), StatxFlags::MNT_ID).map(|stat| stat.stx_mnt_id).ok();
    Line::new(act).path("path", &target).file(File::at(&target).as_ref()).with("mount_id", mount)
}

fn is_mount(path: &Path) -> Result<bool> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn real(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("no file {}", path.display()))
}
