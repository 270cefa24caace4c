//! What the client tells of itself.

use std::time::{Duration, SystemTime};

use crate::deliver::spool::{Lane, Position};

/// Where the client has got to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    /// It reaches for the backend.
    #[default]
    Connecting,
    /// A session is open: the backend has welcomed it.
    Connected,
    /// It failed, and waits before it tries again.
    Waiting,
    /// The backend does not let it in, and it waits before it tries again.
    Refused,
    /// It was told to stop.
    Stopped,
}

/// How the client is. Counters are since it was made. Times are for people: nothing depends on them.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientStatus {
    /// Where it has got to.
    pub state: State,
    /// When it came to that.
    pub since: SystemTime,
    /// Address of the backend, without what is secret.
    pub backend: String,
    /// Why the last session ended or could not be opened, and what to do. It stays when a session is open again.
    pub last_error: Option<String>,
    /// How often it reached for the backend.
    pub attempts: u64,
    /// How often a session was opened.
    pub sessions: u64,
    /// Batches that were sent, also those that were sent again.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of these, compressed.
    pub bytes: u64,
    /// Loss records that were sent, also again.
    pub losses_told: u64,
    /// Batches that the backend will never accept, or is not sent because they are too large for it.
    pub refused: u64,
    /// The last position that is acknowledged, by lane in the order of [`Lane::ALL`].
    pub acknowledged: [Position; Lane::ALL.len()],
    /// From when a batch was sent to when it was acknowledged, of the last one.
    pub round_trip: Option<Duration>,
}

// === impl ClientStatus ===

impl ClientStatus {
    pub(super) fn new(backend: String) -> Self {
        Self {
            state: State::Connecting,
            since: SystemTime::now(),
            backend,
            last_error: None,
            attempts: 0,
            sessions: 0,
            batches: 0,
            events: 0,
            bytes: 0,
            losses_told: 0,
            refused: 0,
            acknowledged: Default::default(),
            round_trip: None,
        }
    }

    pub(super) fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.since = SystemTime::now();
        }
    }
}
