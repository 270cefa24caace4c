//! What the client is told.

use std::time::Duration;

use crate::deliver::backoff::Backoff;

/// Who publishes, and how long it waits.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Name of the agent for a connection without TLS. With TLS it is the one in the certificate.
    pub agent_id: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Name of the host.
    pub host: String,
    /// Longest time for a connection to be made, through TLS and `Welcome`.
    pub connect_timeout: Duration,
    /// How often a ping is sent, and how long its answer may take.
    pub ping_every: Duration,
    /// Longest time without an acknowledgement while something is under way.
    pub stalled_after: Duration,
    /// Most bytes under way, whatever credit the backend gives: as much memory is used here.
    pub most_under_way: u64,
    /// Waits between sessions. A backend that does not let this agent in is asked again after the longest one.
    pub backoff: Backoff,
}

// === impl ClientConfig ===

impl ClientConfig {
    /// With waits that fit most networks: 10 s to connect, a ping every 10 s, 30 s for an acknowledgement, and 4 MiB under
    /// way.
    #[must_use]
    pub fn new(agent_id: String, agent_version: String, host: String) -> Self {
        Self {
            agent_id,
            agent_version,
            host,
            connect_timeout: Duration::from_secs(10),
            ping_every: Duration::from_secs(10),
            stalled_after: Duration::from_secs(30),
            most_under_way: 4 << 20,
            backoff: Backoff::default(),
        }
    }
}
