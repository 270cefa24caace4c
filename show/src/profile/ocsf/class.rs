//! Which class and which activity an event is of.

use nightjar_proto::v1::{Credentials, Event, FileActivity, NetworkActivity, event::Body};

/// Class of events that no class fits.
pub(super) const BASE: u32 = 0;
pub(super) const FILE: u32 = 1001;
pub(super) const PROCESS: u32 = 1007;
pub(super) const NETWORK: u32 = 4001;

/// `activity_id` of what the class has no number for; `activity_name` says it.
const OTHER: u32 = 99;

/// `severity_id` of what is only told.
const INFORMATIONAL: u32 = 1;
/// `severity_id` of what somebody should look at.
const MEDIUM: u32 = 3;

/// Class and activity of an event, by the numbers of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class<'a> {
    pub number: u32,
    pub activity: u32,
    pub activity_name: &'a str,
    pub severity: u32,
}

/// Kinds by their class and activity, one row each. Where an event of the kind can be of several activities,
/// [`refined`] has the others.
const CLASSES: &[(&str, u32, u32, &str)] = &[
    ("process.exec", PROCESS, 1, "Launch"),
    ("process.exec_failed", PROCESS, 1, "Launch"),
    ("process.fork", PROCESS, 1, "Launch"),
    ("process.exit", PROCESS, 2, "Terminate"),
    ("process.credentials", PROCESS, OTHER, "Set Credentials"),
    ("file.open", FILE, 14, "Open"),
    ("file.create", FILE, 1, "Create"),
    ("file.modify", FILE, 3, "Update"),
    ("file.close", FILE, OTHER, "Close"),
    ("file.delete", FILE, 4, "Delete"),
    ("file.rename", FILE, 5, "Rename"),
    ("file.link", FILE, OTHER, "Link"),
    ("file.attributes", FILE, 6, "Set Attributes"),
    ("file.truncate", FILE, 3, "Update"),
    ("file.copy", FILE, OTHER, "Copy"),
    ("file.mkdir", FILE, 1, "Create"),
    ("file.rmdir", FILE, 4, "Delete"),
    ("file.mount", FILE, 12, "Mount"),
    ("network.connect", NETWORK, 1, "Open"),
    ("network.accept", NETWORK, 1, "Open"),
    ("network.listen", NETWORK, 7, "Listen"),
    ("network.bind", NETWORK, OTHER, "Bind"),
    ("network.socket", NETWORK, OTHER, "Socket"),
    ("network.close", NETWORK, 2, "Close"),
    ("network.flow", NETWORK, 6, "Traffic"),
];

// === impl Class ===

impl<'a> Class<'a> {
    /// Of `event`. One that lacks what its class requires, as no agent writes it, is a base event.
    pub(super) fn of(event: &'a Event) -> Self {
        let row = CLASSES.iter().find(|(kind, class, ..)| *kind == event.kind && has_object(event, *class));
        let Some(&(_, class, activity, name)) = row else {
            let loss = matches!(event.body, Some(Body::Telemetry(_)));
            return Self {
                number: BASE,
                activity: OTHER,
                activity_name: &event.kind,
                severity: if loss { MEDIUM } else { INFORMATIONAL },
            };
        };
        let (activity, activity_name) = refined(event).unwrap_or((activity, name));
        Self { number: class, activity, activity_name, severity: INFORMATIONAL }
    }

    pub(super) const fn category(self) -> u32 {
        self.number / 1000
    }

    pub(super) const fn kind(self) -> u32 {
        self.number * 100 + self.activity
    }
}

/// The event has the object that is required of the class.
fn has_object(event: &Event, class: u32) -> bool {
    match class {
        PROCESS => event.process.is_some() && !matches!(event.body, Some(Body::File(_) | Body::Network(_))),
        FILE => matches!(event.body, Some(Body::File(_))),
        NETWORK => matches!(event.body, Some(Body::Network(_))),
        _ => false,
    }
}

/// Another activity than that of the kind, by what the body says.
fn refined(event: &Event) -> Option<(u32, &'static str)> {
    match event.body.as_ref()? {
        Body::Credentials(credentials) if sets_user(credentials) => Some((5, "Set User ID")),
        Body::File(file) if event.kind == "file.attributes" && sets_security(file) => {
            Some((7, "Set Security"))
        }
        Body::File(file) if event.kind == "file.mount" && unmounts(file) => Some((13, "Unmount")),
        Body::Network(network) => connection(&event.kind, network),
        _ => None,
    }
}

fn sets_user(credentials: &Credentials) -> bool {
    let users = |set: &Option<nightjar_proto::v1::CredentialSet>| {
        set.as_ref().map(|set| (set.uid, set.euid, set.suid, set.fsuid))
    };
    users(&credentials.before) != users(&credentials.after)
}

fn sets_security(file: &FileActivity) -> bool {
    file.changed.iter().any(|changed| matches!(&**changed, "mode" | "owner" | "group" | "acl"))
}

fn unmounts(file: &FileActivity) -> bool {
    file.mount.as_ref().is_some_and(|mount| mount.operation == "umount")
}

fn connection(kind: &str, network: &NetworkActivity) -> Option<(u32, &'static str)> {
    match kind {
        "network.connect" if network.error == "ECONNREFUSED" => Some((5, "Refuse")),
        "network.connect" if network.outcome == "failed" => Some((4, "Fail")),
        "network.close" if network.reason.starts_with("reset") => Some((3, "Reset")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::KINDS;

    use super::*;

    #[test]
    fn every_kind_but_those_of_telemetry_has_a_class() {
        let without: Vec<&str> = KINDS
            .iter()
            .map(|kind| kind.name)
            .filter(|name| CLASSES.iter().all(|(kind, ..)| kind != name))
            .collect();
        assert_eq!(without, ["telemetry.loss"]);
    }

    #[test]
    fn an_event_that_lacks_what_its_class_requires_is_a_base_event() {
        for (kind, ..) in CLASSES {
            let event = Event { kind: (*kind).to_owned(), ..Event::default() };
            assert_eq!(Class::of(&event).number, BASE, "{kind}");
        }
    }

    #[test]
    fn a_connection_that_was_refused_failed_or_was_reset_is_another_activity() {
        for (kind, error, outcome, reason, expected) in [
            ("network.connect", "", "established", "", 1),
            ("network.connect", "ECONNREFUSED", "failed", "", 5),
            ("network.connect", "ETIMEDOUT", "failed", "", 4),
            ("network.close", "", "", "closed", 2),
            ("network.close", "ECONNRESET", "", "reset_by_remote", 3),
        ] {
            let network = NetworkActivity {
                error: error.to_owned(),
                outcome: outcome.to_owned(),
                reason: reason.to_owned(),
                ..NetworkActivity::default()
            };
            let event =
                Event { kind: kind.to_owned(), body: Some(Body::Network(network)), ..Event::default() };
            assert_eq!(Class::of(&event).activity, expected, "{event:?}");
        }
    }
}
