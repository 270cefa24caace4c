//! What a service tells systemd: `sd_notify(3)`, over a datagram socket.
//!
//! Without systemd, which is without `NOTIFY_SOCKET`, all of it does nothing. The protocol is small, and the
//! standard library knows abstract sockets, which the `sd-notify` crate does not.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// Longest a message may wait for a systemd that does not read: longer than it is ever busy, and short beside
/// the watchdog's interval.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest status, in bytes: it is shown as one line.
const LONGEST_STATUS: usize = 512;

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    way: Option<Way>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Way {
    socket: UnixDatagram,
    /// Looked up for each message: systemd may make its socket anew when it restarts itself.
    manager: SocketAddr,
}

impl Notifier {
    /// Finds the service manager that started this process, if one did. Where what it said makes no sense there
    /// is a warning, and nothing is told.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let way = variable(NOTIFY_SOCKET).and_then(|name| match Way::to(&name) {
            Ok(way) => Some(way),
            Err(error) => {
                warn!("cannot tell the service manager how the agent is: {NOTIFY_SOCKET}={name:?}: {error}");
                None
            }
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // Else it is meant for the process that started this one.
        let is_ours = variable(WATCHDOG_PID).is_none() || number(WATCHDOG_PID) == Some(process::id().into());
        let watchdog = number(WATCHDOG_USEC).filter(|micros| is_ours && *micros > 0 && way.is_some());
        Self { watchdog: watchdog.map(Duration::from_micros), way }
    }

    /// The agent watches; or it has read its configuration again. Only then systemd takes it for started.
    pub fn ready(&self, status: &str) {
        self.tell(format!("READY=1\n{}", status_line(status)));
    }

    /// The agent begins to read its configuration again; [`ready`](Self::ready) must follow.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        // By the time systemd tells this answer from one to an earlier signal.
        self.tell(format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    /// The agent begins to stop.
    pub fn stopping(&self, status: &str) {
        self.tell(format!("STOPPING=1\n{}", status_line(status)));
    }

    /// How often to [`ping`](Self::ping), if the service manager wants that: twice in the time after which it
    /// takes the agent for hung.
    #[must_use]
    pub fn ping_every(&self) -> Option<Duration> {
        self.watchdog.map(|interval| interval / 2)
    }

    /// The agent is alive.
    pub fn ping(&self) {
        self.tell("WATCHDOG=1\n".to_owned());
    }

    #[expect(clippy::needless_pass_by_value, reason = "made for this call")]
    fn tell(&self, message: String) {
        if let Some(way) = &self.way
            && let Err(error) = way.socket.send_to_addr(message.as_bytes(), &way.manager)
        {
            warn!("the service manager does not take {:?}: {error}", message.trim_end());
        }
    }
}

impl Way {
    fn to(name: &OsStr) -> io::Result<Self> {
        let manager = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name)?,
            // Such as vsock:, which is for virtual machines.
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "neither a path nor an abstract name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, manager })
    }
}

/// One line, whatever is in it: the next line would be another message.
fn status_line(status: &str) -> String {
    let end = status.floor_char_boundary(LONGEST_STATUS);
    let text = status[..end].replace(char::is_control, " ");
    format!("STATUS={text}\n")
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, iter, path::Path};

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::service::testing::{other, said, say};

    /// A service manager: its socket, and what it would say of it.
    struct Manager {
        socket: UnixDatagram,
        name: OsString,
        _folder: Option<TempDir>,
    }

    impl Manager {
        fn at_a_path() -> Self {
            let folder = tempdir().unwrap();
            let path = folder.path().join("notify");
            Self { socket: UnixDatagram::bind(&path).unwrap(), name: path.into(), _folder: Some(folder) }
        }

        fn abstract_one(test: &str) -> Self {
            let name = format!("nightjar-test-{}-{test}", process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let socket = UnixDatagram::bind_addr(&address).unwrap();
            Self { socket, name: format!("@{name}").into(), _folder: None }
        }

        fn notifier(&self) -> Notifier {
            notifier(&[(NOTIFY_SOCKET, self.name.to_str().unwrap())])
        }

        fn next(&self) -> String {
            let mut bytes = [0; 4096];
            self.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let length = self.socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        }

        fn expect_nothing(&self) {
            self.socket.set_nonblocking(true).unwrap();
            assert_eq!(self.socket.recv(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    }

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        Notifier::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        })
    }

    fn tell_all(notifier: &Notifier) {
        notifier.ready("watching");
        notifier.reloading();
        notifier.ready("watching 9 kinds");
        notifier.ping();
        notifier.stopping("writing what is left");
    }

    fn expect_all(manager: &Manager) {
        assert_eq!(manager.next(), "READY=1\nSTATUS=watching\n");
        let reloading = manager.next();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        let now = clock_gettime(ClockId::Monotonic).tv_sec;
        let seconds = micros.parse::<i64>().unwrap() / 1_000_000;
        assert!((now - 60..=now).contains(&seconds), "{seconds} at {now}");
        assert_eq!(manager.next(), "READY=1\nSTATUS=watching 9 kinds\n");
        assert_eq!(manager.next(), "WATCHDOG=1\n");
        assert_eq!(manager.next(), "STOPPING=1\nSTATUS=writing what is left\n");
        manager.expect_nothing();
    }

    #[test]
    fn systemd_is_told_at_a_path() {
        let manager = Manager::at_a_path();
        tell_all(&manager.notifier());
        expect_all(&manager);
    }

    #[test]
    fn systemd_is_told_at_an_abstract_name() {
        let manager = Manager::abstract_one("told");
        tell_all(&manager.notifier());
        expect_all(&manager);
    }

    #[test]
    fn systemd_is_told_again_after_it_made_its_socket_anew() {
        let mut manager = Manager::at_a_path();
        let notifier = manager.notifier();
        notifier.ping();
        assert_eq!(manager.next(), "WATCHDOG=1\n");
        std::fs::remove_file(Path::new(&manager.name)).unwrap();
        notifier.ping();
        manager.socket = UnixDatagram::bind(Path::new(&manager.name)).unwrap();
        notifier.ping();
        assert_eq!(manager.next(), "WATCHDOG=1\n");
        manager.expect_nothing();
    }

    #[test]
    fn without_systemd_nothing_happens() {
        for variables in [
            &[][..],
            &[(NOTIFY_SOCKET, "")],
            &[(NOTIFY_SOCKET, "@")],
            &[(NOTIFY_SOCKET, "relative")],
            &[(NOTIFY_SOCKET, "vsock:2:1234")],
            &[(NOTIFY_SOCKET, "/missing/socket")],
            &[(WATCHDOG_USEC, "30000000")],
        ] {
            let notifier = notifier(variables);
            tell_all(&notifier);
            assert_eq!(notifier.ping_every(), None);
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_by_the_process_that_it_watches() {
        let manager = Manager::abstract_one("watchdog");
        let name = manager.name.to_str().unwrap();
        let own = process::id().to_string();
        let every = |micros: &str, pid: Option<&str>| {
            let mut variables = vec![(NOTIFY_SOCKET, name), (WATCHDOG_USEC, micros)];
            variables.extend(pid.map(|pid| (WATCHDOG_PID, pid)));
            notifier(&variables).ping_every()
        };
        assert_eq!(every("30000000", Some(&own)), Some(Duration::from_secs(15)));
        assert_eq!(every("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(every("30000000", Some("1")), None);
        assert_eq!(every("30000000", Some("one")), None);
        for wrong in ["0", "", "-1", "30s", "99999999999999999999999"] {
            assert_eq!(every(wrong, Some(&own)), None, "{wrong}");
        }
    }

    #[test]
    fn a_status_is_one_line_whatever_is_in_it() {
        let manager = Manager::abstract_one("status");
        manager.notifier().stopping("lost\nMAINPID=1\r\0\x1b[2J");
        assert_eq!(manager.next(), "STOPPING=1\nSTATUS=lost MAINPID=1   [2J\n");
        manager.notifier().stopping(&"ä".repeat(LONGEST_STATUS));
        assert_eq!(manager.next(), format!("STOPPING=1\nSTATUS={}\n", "ä".repeat(LONGEST_STATUS / 2)));
    }

    #[test]
    fn a_systemd_that_hangs_does_not_hang_the_agent() {
        let manager = Manager::abstract_one("hangs");
        let notifier = manager.notifier();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        let address = SocketAddr::from_abstract_name(&manager.name.as_bytes()[1..]).unwrap();
        let sent = iter::from_fn(|| other.send_to_addr(b"full", &address).ok()).count();
        notifier.ping();
        // It came back, and what it had to say is not there.
        for _ in 0..sent {
            assert_eq!(manager.next(), "full");
        }
        manager.expect_nothing();
    }

    /// What another process does: tells all.
    #[test]
    #[ignore = "is the other process of the test below"]
    fn a_service() {
        if env::var_os(NOTIFY_SOCKET).is_none() {
            return;
        }
        let notifier = Notifier::from_environment();
        say(&format!("{:?}", notifier.ping_every()));
        tell_all(&notifier);
    }

    #[test]
    fn a_service_is_told_by_its_environment_whom_to_tell() {
        let manager = Manager::at_a_path();
        let mut service = other(&[], module_path!(), "a_service");
        service.env(NOTIFY_SOCKET, &manager.name).env(WATCHDOG_USEC, "20000000").env_remove(WATCHDOG_PID);
        assert_eq!(said(&mut service), ["Some(10s)"]);
        expect_all(&manager);
    }
}
