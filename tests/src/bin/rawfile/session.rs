//! One run of acts by one way into the kernel.

use std::{
    ffi::OsStr,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use rustix::{
    fs::{CWD, Mode, OFlags, fcntl_getfl, openat},
    io::Errno,
};

use crate::{
    call::Call,
    entry::{Done, Entry, Via},
    memory::{Memory, Strings},
    said::{FailedAsExpected, Line, Skipped, errno_of, is_lacking, name_of},
    truth::{File, Name, path_of},
    uring,
};

/// How acts are made.
#[derive(Debug, Clone, Args)]
pub struct How {
    /// Way into the kernel
    #[arg(long, value_enum, default_value = "plain")]
    pub via: Via,
    /// System call, where there are several for the act
    #[arg(long, value_enum)]
    pub call: Option<Call>,
    /// Folder that paths are relative to, for calls that take one
    #[arg(long, value_name = "DIR")]
    pub at: Option<PathBuf>,
    /// Keep paths in pages that are not present when the call is made
    #[arg(long)]
    pub paged_out: bool,
    /// As --paged-out, but the first bytes are present
    #[arg(long, conflicts_with = "paged_out")]
    pub straddling: bool,
    /// Name of the error that a call must end with, such as ENOENT
    #[arg(long, value_parser = errno_of, value_name = "ERROR")]
    pub expect: Option<Errno>,
    /// Tell threads of `io_uring` and pages that were absent, which opens files in /proc
    #[arg(long)]
    pub verify: bool,
}

/// A way that is open, and memory for what is passed.
#[derive(Debug)]
pub struct Session {
    how: How,
    entry: Entry,
    pub memory: Memory,
    at: Option<(OwnedFd, PathBuf)>,
}

/// A descriptor that a session opened, and the path that it is of.
#[derive(Debug)]
pub struct Descriptor {
    number: i32,
    path: PathBuf,
}

// === impl How ===

impl How {
    /// By this call, unless another is asked for.
    pub fn by(&self, call: Call) -> Self {
        Self { call: self.call.or(Some(call)), ..self.clone() }
    }
}

// === impl Session ===

impl Session {
    /// Opens the way. The folder of `--at` is opened by a call of its own, with a line of its own.
    ///
    /// # Errors
    /// `Skipped` where the kernel does not have it.
    pub fn start(how: &How) -> Result<Self> {
        let strings = match (how.paged_out, how.straddling) {
            (true, _) => Strings::PagedOut,
            (_, true) => Strings::Straddling,
            _ => Strings::Present,
        };
        let entry = Entry::new(how.via)?;
        let at = how.at.as_deref().map(|path| open_folder(path, OFlags::PATH)).transpose()?;
        Ok(Self { how: how.clone(), entry, memory: Memory::new(strings)?, at })
    }

    /// The call to make: that which is asked for, or the first of these that there is.
    ///
    /// # Errors
    /// `Skipped` when there is none; else when one is asked for that does not do the act.
    pub fn choose(&self, calls: &[Call]) -> Result<Call> {
        let names = || calls.iter().map(|call| call.name()).collect::<Vec<_>>().join(", ");
        match self.how.call {
            Some(call) => {
                ensure!(calls.contains(&call), "{} does not do that; use one of {}", call.name(), names());
                if self.entry.has(call) { Ok(call) } else { Err(self.lacks(call.name())) }
            }
            None => {
                calls.iter().copied().find(|call| self.entry.has(*call)).ok_or_else(|| self.lacks(&names()))
            }
        }
    }

    fn lacks(&self, what: &str) -> anyhow::Error {
        Skipped(format!("there is no {what} via {}", self.how.via.name())).into()
    }

    /// Whether numbers are of 32 bits.
    pub fn is_narrow(&self) -> bool {
        self.entry.is_narrow()
    }

    /// The folder that paths are relative to, as an argument.
    pub fn folder(&self) -> usize {
        argument(self.at.as_ref().map_or(libc::AT_FDCWD, |(fd, _)| fd.as_raw_fd()))
    }

    fn base(&self) -> Option<&Path> {
        self.at.as_ref().map(|(_, path)| path.as_path())
    }

    /// A name that is not followed.
    pub fn name(&self, path: &Path) -> Name {
        Name::of(self.base(), path)
    }

    /// A name that is followed.
    pub fn followed(&self, path: &Path) -> Name {
        Name::followed(self.base(), path)
    }

    /// Keeps a string as an argument.
    pub fn string(&mut self, string: impl AsRef<OsStr>) -> Result<usize> {
        self.memory.string(string)
    }

    /// Makes a call without a word about it.
    pub fn call(&mut self, call: Call, arguments: &[usize]) -> Result<Done> {
        self.entry.call(call, arguments)
    }

    /// Makes a call; `tell` makes the line about what it gave, which is then said.
    ///
    /// # Errors
    /// When it did not end as it should; with [`FailedAsExpected`] when it should fail and did.
    pub fn act(
        &mut self,
        call: Call,
        arguments: &[usize],
        tell: impl FnOnce(Option<usize>) -> Result<Line>,
    ) -> Result<usize> {
        let absent_before = if self.how.verify { self.memory.present()? } else { Vec::new() };
        let done = self.call(call, arguments)?;
        let mut line = tell(done.ok())?.with("call", call.name()).with("via", self.how.via.name());
        if self.how.verify {
            line = line.with("present_before", absent_before).with("present_after", self.memory.present()?);
            line = line.with("threads", uring::workers()?);
        }
        if let Err(errno) = done {
            line = line.errno(errno);
        }
        line.say()?;
        match (done, self.how.expect) {
            (Ok(value), _) => Ok(value),
            (Err(errno), Some(expected)) if errno == expected => Err(FailedAsExpected.into()),
            (Err(errno), None) if is_lacking(errno) => Err(Skipped(name_of(errno)).into()),
            (Err(errno), _) => bail!("{}: {}", call.name(), std::io::Error::from(errno)),
        }
    }

    /// Opens a file by the plainest call of this way, for what is to be done with it.
    pub fn open(&mut self, path: &Path, flags: i32) -> Result<Descriptor> {
        let name = self.followed(path);
        let text = self.string(path)?;
        let flags = flags | libc::O_CLOEXEC;
        let (call, arguments) =
            if self.entry.has(Call::Openat) && (self.at.is_some() || !self.entry.has(Call::Open)) {
                (Call::Openat, vec![self.folder(), text, argument(flags), 0o644])
            } else {
                (Call::Open, vec![text, argument(flags), 0o644])
            };
        let number = self.act(call, &arguments, |fd| tell_open(&name, flags, fd))?;
        let number = i32::try_from(number).context("a descriptor")?;
        Ok(Descriptor { number, path: path_of(borrow(number))? })
    }

    /// Does something with an open file.
    pub fn act_on(
        &mut self,
        descriptor: &Descriptor,
        act: &str,
        call: Call,
        arguments: &[usize],
    ) -> Result<usize> {
        let all: Vec<usize> = [&[argument(descriptor.number)], arguments].concat();
        self.act(call, &all, |result| {
            let file = File::of(borrow(descriptor.number))?;
            Ok(Line::new(act).path("path", &descriptor.path).file(Some(&file)).with("result", result))
        })
    }

    /// Closes it.
    pub fn close(&mut self, descriptor: &Descriptor) -> Result<()> {
        let file = File::of(borrow(descriptor.number))?;
        let line = Line::new("close").path("path", &descriptor.path).file(Some(&file));
        self.act(Call::Close, &[argument(descriptor.number)], |_| Ok(line))?;
        Ok(())
    }

    /// To be called after the last act.
    ///
    /// # Errors
    /// When one should have failed.
    pub fn end(self) -> Result<()> {
        match self.how.expect {
            Some(errno) => bail!("nothing failed; {} was expected", name_of(errno)),
            None => Ok(()),
        }
    }
}

/// The line about an open: of the file it led to, if it did.
pub fn tell_open(name: &Name, flags: i32, fd: Option<usize>) -> Result<Line> {
    let line = Line::new("open").with("flags", flags);
    let Some(fd) = fd else {
        return Ok(line.path("path", &name.path).file(name.file.as_ref()));
    };
    let fd = borrow(i32::try_from(fd).context("a descriptor")?);
    Ok(line
        .path("path", path_of(fd)?)
        .file(Some(&File::of(fd)?))
        .with("created", name.file.is_none())
        .with("fd", fd.as_raw_fd())
        .with("fd_flags", fcntl_getfl(fd)?.bits()))
}

/// A descriptor that is open until the process ends, or until its one owner closes it.
pub fn borrow(number: i32) -> BorrowedFd<'static> {
    // SAFETY: callers have just got it from the kernel, and close it after its last use if at all.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// A number as the register it is passed in.
#[expect(clippy::cast_sign_loss, reason = "the kernel takes it back as a signed number")]
pub fn argument(number: i32) -> usize {
    number as usize
}

/// Opens a folder that a call needs, by the C library's own call; gives its path too.
pub fn open_folder(path: &Path, flags: OFlags) -> Result<(OwnedFd, PathBuf)> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd =
        openat(CWD, path, flags, Mode::empty()).with_context(|| format!("cannot open {}", path.display()))?;
    let path = path_of(&fd)?;
    let line = Line::new("open").path("path", &path).file(Some(&File::of(&fd)?)).with("preparation", true);
    line.with("fd", fd.as_raw_fd()).with("fd_flags", fcntl_getfl(&fd)?.bits()).say()?;
    Ok((fd, path))
}
