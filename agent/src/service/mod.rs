//! What makes the agent a good service of its host: one of a name ([`Lock`]), with no more rights than it needs
//! ([`drop_unneeded`]), and on speaking terms with systemd ([`Notifier`]).

mod lock;
mod notify;
mod privileges;
#[cfg(test)]
mod testing;

pub use lock::{Holder, Lock, LockError};
pub use notify::Notifier;
pub use privileges::{
    Capability, Dropped, Held, KEPT, Missing, NEEDS, Need, PrivilegeError, drop_unneeded, missing,
};
