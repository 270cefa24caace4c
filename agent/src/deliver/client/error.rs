//! Why a session ends, and how long to wait then.

use std::time::Duration;

use nightjar_proto::v1::{self as wire, Refusal};

use crate::deliver::{
    channel::{ConnectError, Explained},
    tls::TlsError,
};

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No configuration for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended, or the backend ended the call.
    #[error("the backend ended the session: {}", Explained(.0))]
    Ended(tonic::Status),
    /// The backend closed the stream without a reason.
    #[error("the backend closed the stream; its log has the reason")]
    Closed,
    /// A step took too long.
    #[error("the backend does not answer: no {awaited} within {} s; check that it is not stopped or overloaded", .after.as_secs_f32())]
    Hung {
        /// What did not come.
        awaited: &'static str,
        /// In this time.
        after: Duration,
    },
    /// The backend refused.
    #[error("the backend refused ({}): {detail}; {}", .reason.as_str_name(), mend(*.reason))]
    Refused {
        /// Why.
        reason: Refusal,
        /// In words.
        detail: String,
        /// Not before.
        retry_after: Duration,
    },
    /// The backend has numbers that were not given here. The next session has others.
    #[error(
        "the backend has batches of this agent that its spool knows nothing of: this host was set back, as to a snapshot, or is the copy of another that runs; what waits is sent under new numbers, and some events may be stored twice"
    )]
    SetBack,
    /// Certificates were replaced: the next session uses them.
    #[error("the certificates were replaced")]
    Renewed,
}

// === impl SessionError ===

impl SessionError {
    /// It will not be better until somebody does something.
    pub(super) fn is_lasting(&self) -> bool {
        use Refusal::{Revoked, Schema, UnknownAgent};
        matches!(self, Self::Refused { reason: Revoked | UnknownAgent | Schema, .. })
    }
}

impl From<&wire::Refused> for SessionError {
    fn from(refused: &wire::Refused) -> Self {
        Self::Refused {
            reason: refused.reason(),
            detail: refused.detail.clone(),
            retry_after: Duration::from_nanos(refused.retry_after),
        }
    }
}

fn mend(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Revoked => {
            "if it is to come back, make a token by `nightjar-backend token` and run `nightjar enrol --force` with it"
        }
        Refusal::UnknownAgent => "make a token by `nightjar-backend token` and run `nightjar enrol` with it",
        Refusal::Schema => "update the agent or the backend, whichever is older",
        Refusal::StoreFull => {
            "give the backend's disk more room; events wait in the spool as long as that has some"
        }
        Refusal::Busy => "it is tried again",
        Refusal::Replaced => {
            "if this host did not do that, another one has a copy of its certificate: enrol one of them again by `nightjar enrol --force`"
        }
        Refusal::Unspecified | Refusal::Protocol | Refusal::Batch => {
            "agent and backend do not understand each other; check that both are of known versions"
        }
    }
}
