//! The reader's end of the ring buffers.
//!
//! There are two lanes: one for processes, credentials and the like, and one for files, which come in floods that
//! must not drown the former. They are read together, in the order of their times.
//!
//! Records do not wake the reader while it is busy: it empties the ring, naps, and comes again. When
//! nothing came for a few naps it goes to sleep and tells so in the map `READER`, and the next record
//! wakes it. A busy host pays no wake-ups, an idle one none either, and an event on a quiet host is read
//! at once.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use aya::maps::{Array, MapData, MapError, RingBuf};
use nightjar_abi::reader;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    thread::{MembarrierCommand, membarrier},
};

use crate::decode;

/// Between two looks while records come. The default ring holds what a machine makes in many of these.
const NAP: Duration = Duration::from_millis(10);
/// Naps without a record before going to sleep.
const NAPS_BEFORE_SLEEP: u32 = 5;

/// Why the ring could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel did not take the reader's state.
    #[error("cannot tell the kernel programs whether to wake the reader")]
    State(#[source] MapError),
    /// Waiting failed.
    #[error("cannot wait for the ring buffer")]
    Wait(#[source] io::Error),
}

/// The ring buffers and the state of their reader.
pub struct Ring {
    critical: RingBuf<MapData>,
    bulk: RingBuf<MapData>,
    /// A record of the critical lane that is next: a copy, as its time must be known before it is its turn.
    head: Vec<u8>,
    state: Array<MapData, u32>,
    bytes: u64,
    doorbell: Arc<OwnedFd>,
    empty_looks: u32,
}

/// Wakes the reader of a ring for something else than records.
#[derive(Debug, Clone)]
pub struct Doorbell(Arc<OwnedFd>);

impl Ring {
    pub(super) fn new(
        critical: RingBuf<MapData>,
        bulk: RingBuf<MapData>,
        state: Array<MapData, u32>,
        bytes: u64,
    ) -> io::Result<Self> {
        let doorbell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { critical, bulk, head: Vec::new(), state, bytes, doorbell, empty_looks: 0 })
    }

    /// Bytes that the rings hold.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What wakes whoever waits here.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        Doorbell(Arc::clone(&self.doorbell))
    }

    /// Hands records to `take`, oldest first, until there are none or `take` says that it wants no more for
    /// now; whether there may be more.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> bool {
        let Self { critical, bulk, head, .. } = self;
        let (mut any, mut more) = (false, true);
        while more && let Some(record) = bulk.next() {
            any = true;
            let time = time_of(&record);
            while has_head(critical, head) && time_of(head) <= time {
                more &= take(head);
                head.clear();
            }
            more &= take(&record);
        }
        while more && has_head(critical, head) {
            any = true;
            more = take(head);
            head.clear();
        }
        self.empty_looks = if any { 0 } else { self.empty_looks.saturating_add(1) };
        !more
    }

    /// Tells the programs that nobody reads any more. When this comes back none of them counts or sends anything, so
    /// that what is in the rings is all there will be.
    ///
    /// # Errors
    /// When the kernel refuses what a running agent may always do.
    pub fn leave(&mut self) -> Result<(), RingError> {
        // A program that was about to say that it woke the reader says so over this.
        for _ in 0..2 {
            self.state.set(0, reader::LEFT, 0).map_err(RingError::State)?;
            // Until all that run now have come to their end. Kernels that cannot tell are given time for it.
            if membarrier(MembarrierCommand::Global).is_err() {
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }

    /// Waits until it is worth looking again: a nap, or until a record comes, the doorbell rings, one of `also`
    /// has something or `longest` is over.
    ///
    /// # Errors
    /// When the kernel refuses what a running agent may always do; there is no going on then.
    pub fn wait(&mut self, longest: Duration, also: &[impl AsFd]) -> Result<(), RingError> {
        if self.empty_looks < NAPS_BEFORE_SLEEP {
            std::thread::sleep(NAP.min(longest));
            return Ok(());
        }
        self.state.set(0, reader::SLEEPS, 0).map_err(RingError::State)?;
        // A program that looked at the state just before may put its record in just after: by the end of another
        // nap it has, and poll sees it.
        std::thread::sleep(NAP);
        let timeout = Timespec::try_from(longest).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let own = [self.critical.as_fd(), self.bulk.as_fd(), self.doorbell.as_fd()];
        let all = own.into_iter().chain(also.iter().map(AsFd::as_fd));
        let mut waited_for: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut waited_for, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(RingError::Wait(error.into())),
        }
        // Empty where nobody rang.
        let _nobody_rang = rustix::io::read(&*self.doorbell, &mut [0; 8]);
        self.state.set(0, reader::AWAKE, 0).map_err(RingError::State)
    }
}

/// Makes sure that there is a next record if there is one at all.
fn has_head(lane: &mut RingBuf<MapData>, head: &mut Vec<u8>) -> bool {
    if head.is_empty()
        && let Some(record) = lane.next()
    {
        head.extend_from_slice(&record);
    }
    !head.is_empty()
}

/// What is no record comes first, to be refused.
fn time_of(record: &[u8]) -> u64 {
    decode::time_of(record).unwrap_or(0)
}

impl Doorbell {
    /// Wakes the reader if it waits. It comes by within milliseconds if it does not.
    pub fn ring(&self) {
        // Only a number that does not fit could be refused, and then it has rung often enough.
        let _rings = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}
