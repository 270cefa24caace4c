//! A child process that is spoken with by lines.

use std::{
    io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Write as _},
    process::exit,
};

use anyhow::{Context as _, Result, ensure};

/// A child that runs.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    told: Receiver,
    asked: Sender,
}

/// Where lines come from.
#[derive(Debug)]
pub struct Receiver(BufReader<PipeReader>);

/// Where lines go to.
#[derive(Debug)]
pub struct Sender(PipeWriter);

// === impl Child ===

impl Child {
    /// Forks. To be called while no other thread runs.
    pub fn start(work: impl FnOnce(&mut Sender, &mut Receiver) -> Result<()>) -> Result<Self> {
        let (told, teller) = io::pipe()?;
        let (orders, asked) = io::pipe()?;
        // SAFETY: there is one thread, so the child has all of this process.
        let pid = unsafe { libc::fork() };
        ensure!(pid >= 0, "cannot fork: {}", io::Error::last_os_error());
        if pid > 0 {
            return Ok(Self { pid, told: Receiver(BufReader::new(told)), asked: Sender(asked) });
        }
        drop((told, asked));
        let result = work(&mut Sender(teller), &mut Receiver(BufReader::new(orders)));
        if let Err(error) = &result {
            eprintln!("in the child: {error:#}");
        }
        exit(result.is_err().into());
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for a line of the child.
    pub fn line(&mut self) -> Result<String> {
        self.told.line()
    }

    /// Lets the child go on and waits until it ends.
    ///
    /// # Errors
    /// When it failed.
    pub fn end(mut self) -> Result<()> {
        // It may have ended without waiting for this.
        let _ended_already = self.asked.line("");
        let mut status = 0;
        // SAFETY: a live number.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        ensure!(waited == self.pid, "waitpid: {}", io::Error::last_os_error());
        ensure!(status == 0, "the child failed, with status {status}");
        Ok(())
    }
}

// === impl Receiver ===

impl Receiver {
    /// Waits for a line.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let len = self.0.read_line(&mut line)?;
        ensure!(len > 0, "the other process ended without a word");
        Ok(line.trim_end().to_owned())
    }
}

// === impl Sender ===

impl Sender {
    /// Sends a line.
    pub fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.0, "{line}").context("the other process does not listen")
    }
}
