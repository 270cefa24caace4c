//! Opens by odd paths: through descriptors, links, other roots and mounts.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use rustix::{
    fs::OFlags,
    process::{chroot, getpid},
};

use crate::{
    child::Child,
    mounts,
    opened::Opened,
    said::Line,
    truth::{Name, path_of},
};

/// Opens by odd paths.
#[derive(Debug, Subcommand)]
pub enum Open {
    /// Open with O_PATH, then open that descriptor through /proc/self/fd
    #[expect(clippy::doc_markdown, reason = "shown on a terminal")]
    #[command(name = "open-path")]
    Reopened {
        path: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Open by paths with `..`, relative to the working directory and to a descriptor
    #[command(name = "open-relative")]
    Relative {
        path: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Open through a symbolic link to the folder of the file, made for that beside the folder
    #[command(name = "open-symlinked-dir")]
    SymlinkedDir {
        path: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Open in a child whose root is another folder
    #[command(name = "open-chroot")]
    Chroot {
        root: PathBuf,
        /// As it is called in that root
        path: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Open through /proc/PID/root
    #[command(name = "open-procroot")]
    Procroot {
        path: PathBuf,
        /// Whose root; else that of the program itself
        #[arg(long)]
        pid: Option<i32>,
        #[command(flatten)]
        access: Access,
    },
    /// Open through a bind mount in a mount namespace of its own
    #[command(name = "open-mount-namespace")]
    MountNamespace {
        source: PathBuf,
        target: PathBuf,
        /// As the file is called in the folder
        name: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Open through a bind mount, which is taken away again
    #[command(name = "open-bind")]
    Bind {
        source: PathBuf,
        target: PathBuf,
        /// As the file is called in the folder
        name: PathBuf,
        #[command(flatten)]
        access: Access,
    },
}

/// For what a file is opened.
#[derive(Debug, Clone, Copy, Args)]
pub struct Access {
    /// Open for writing
    #[arg(long)]
    write: bool,
}

// === impl Open ===

impl Open {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Reopened { path, access } => reopen(path, access.flags()),
            Self::Relative { path, access } => relative(path, access.flags()),
            Self::SymlinkedDir { path, access } => symlinked(path, access.flags()),
            Self::Chroot { root, path, access } => in_chroot(root, path, access.flags()),
            Self::Procroot { path, pid, access } => through_root(path, *pid, access.flags()),
            Self::MountNamespace { source, target, name, access } => {
                mounts::unshare()?;
                mounts::bind(source, target)?;
                through_mount(source, target, name, access.flags())
            }
            Self::Bind { source, target, name, access } => {
                mounts::bind(source, target)?;
                let opened = through_mount(source, target, name, access.flags());
                mounts::unmount(target, false)?;
                opened
            }
        }
    }
}

fn reopen(path: &Path, flags: OFlags) -> Result<()> {
    let place = Opened::new(path, OFlags::PATH)?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place.fd()));
    Opened::new(Path::new(&link), flags)?.close()?;
    place.close()
}

fn relative(path: &Path, flags: OFlags) -> Result<()> {
    let (folder, name) = parts(path)?;
    let back = Path::new("..").join(folder.file_name().context("the file must be in a folder under /")?);
    let path = Path::new(".").join(&back).join(name);
    let (before, outcome) = (env::current_dir()?, env::set_current_dir(&folder));
    outcome.with_context(|| format!("cannot go to {}", folder.display()))?;
    Line::new("chdir").path("path", &folder).say()?;
    Opened::new(&path, flags)?.close()?;
    env::set_current_dir(before)?;
    let at = Opened::new(&folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
    Opened::at(at.fd(), &path, flags)?.close()?;
    at.close()
}

fn symlinked(path: &Path, flags: OFlags) -> Result<()> {
    let (folder, name) = parts(path)?;
    let mut link = folder.clone().into_os_string();
    link.push(format!(".link-{}", getpid().as_raw_nonzero()));
    let link = PathBuf::from(link);
    let made = rustix::fs::symlink(&folder, &link);
    let about = |act| Line::new(act).path("path", &link).file(crate::truth::File::at(&link).as_ref());
    about("symlink").path("target", &folder).end(made)?;
    let opened = Opened::new(&link.join(name), flags).and_then(Opened::close);
    let removal = about("unlink");
    removal.end(rustix::fs::unlink(&link))?;
    opened
}

fn in_chroot(root: &Path, path: &Path, flags: OFlags) -> Result<()> {
    let root = root.canonicalize().with_context(|| format!("no folder {}", root.display()))?;
    // The child has no /proc there: its parent, whose root is the whole, looks at its descriptor.
    let mut child = Child::start(|told, asked| {
        chroot(&root)?;
        env::set_current_dir("/")?;
        let fd = rustix::fs::open(path, flags, rustix::fs::Mode::from(0o644))?;
        told.line(&std::os::fd::AsRawFd::as_raw_fd(&fd).to_string())?;
        asked.line()?;
        Ok(())
    })?;
    let fd: i32 =
        child.line()?.parse().with_context(|| format!("no {} in {}", path.display(), root.display()))?;
    let link = PathBuf::from(format!("/proc/{}/fd/{fd}", child.pid()));
    let shown = fs::read_link(&link)?;
    let file = Name::of(None, &shown).file;
    Line::new("open")
        .with("pid", child.pid())
        .with("tid", child.pid())
        .path("path", &shown)
        .path("given", path)
        .path("root", &root)
        .file(file.as_ref())
        .with("flags", flags.bits())
        .with("fd", fd)
        .say()?;
    child.end()
}

fn through_root(path: &Path, pid: Option<i32>, flags: OFlags) -> Result<()> {
    let pid = pid.unwrap_or(getpid().as_raw_nonzero().get());
    let path = std::path::absolute(path)?;
    let under_root = path.strip_prefix("/").context("an absolute path")?;
    let link = Path::new("/proc").join(pid.to_string()).join("root").join(under_root);
    Opened::new(&link, flags)?.close()
}

/// Opens a file where a folder is mounted, and says too where it is in that folder.
fn through_mount(source: &Path, target: &Path, name: &Path, flags: OFlags) -> Result<()> {
    let original = Name::followed(Some(source), name);
    let opened = Opened::new(&target.join(name), flags)?;
    let shown = path_of(opened.fd())?;
    let is_same =
        crate::truth::File::of(opened.fd())? == original.file.context("the file is in the folder")?;
    ensure!(is_same, "{} is not {}", shown.display(), original.path.display());
    opened.close()
}

/// The resolved folder of a file, and its name in there.
fn parts(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let path = path.canonicalize().with_context(|| format!("no file {}", path.display()))?;
    let folder = path.parent().context("/ is no file")?.to_owned();
    let name = path.file_name().context("/ is no file")?.into();
    Ok((folder, name))
}

// === impl Access ===

impl Access {
    fn flags(self) -> OFlags {
        if self.write { OFlags::WRONLY } else { OFlags::RDONLY }
    }
}
