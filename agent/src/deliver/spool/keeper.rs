//! The thread that makes durable what was appended.

use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
};

use super::Spool;

/// Calls [`Spool::keep`] as often as the limits say, on a thread of its own, and a last time when it is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

// === impl Keeper ===

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the host has no thread to give.
    pub fn start(spool: Spool) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let every = spool.sync_every();
        let thread = thread::Builder::new().name("spool-sync".to_owned()).spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                spool.keep();
            }
            spool.keep();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        // A panic there has been told by the panic itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
