//! What a process does so that events come of it, and how these look.
//!
//! The process is this program once more. It has a name that nobody else has, which its arguments, the path of its
//! failed exec and the folder of its files carry: so its events are told from those of a process that merely gets
//! the same process ID. It talks to nobody but itself.

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nightjar_proto::v1::{CredentialSet, Event, FileActivity, NetworkActivity, NetworkEndpoint, event::Body};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::UnshareFlags,
};

/// There is nothing in `/proc` that could have such a name.
const NOWHERE: &str = "/proc/nightjar-doctor-";
/// What a folder is called, before the name of the process.
const FOLDER: &str = "nightjar-doctor-";
/// `SECBIT_KEEP_CAPS`
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/securebits.h>
const KEEP_CAPS: u32 = 1 << 4;

// What is in the folder. Each has few things happen to it: notifications of the same file become one before they
// are read.
const FILE: &str = "file";
const COPY: &str = "copy";
const LINK: &str = "link";
const RENAMED: &str = "renamed";
const DIRECTORY: &str = "directory";
const MOUNT: &str = "mount";

/// Both ends of its connections.
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// How long a connection to itself may take: where a firewall swallows it, other deeds are to come after it all the
/// same.
const LONGEST_CONNECT: Duration = Duration::from_secs(1);
/// Connections to the same port: the first is told by itself, two others are the least that is told as several.
const REPEATED: usize = 3;

/// One thing that is done, and how that looks.
pub(super) struct Deed {
    pub(super) kind: &'static str,
    act: Act,
    sign: Sign,
}

enum Act {
    /// Being there is enough.
    Nothing,
    /// By any process.
    Plain(fn() -> io::Result<()>),
    /// By the process with this name.
    Named(fn(&str) -> io::Result<()>),
    /// In a folder of its own.
    In(fn(&Path) -> io::Result<()>),
}

/// By what an event of the kind is known.
enum Sign {
    /// Whether it is of the process with this name.
    Of(fn(&Event, &str) -> bool),
    /// Its file, in the folder.
    At(&'static str),
    /// Whether it is of a socket like its own.
    With(fn(&NetworkActivity) -> bool),
}

/// A deed that could not be done: there is no event to be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// Kind of the event.
    pub kind: &'static str,
    /// Why.
    pub reason: String,
}

/// In the order in which they are done. A new user namespace takes credentials back to what they are at first, so the
/// change of these comes after the mount and the packet socket: where nothing sees it when it is made, it is what is
/// left at the end. A new network namespace has no loopback interface that is up, so connections come before.
pub(super) const DEEDS: &[Deed] = &[
    Deed {
        kind: "process.fork",
        act: Act::Nothing,
        sign: Sign::Of(|event, _| matches!(event.body, Some(Body::Fork(_)))),
    },
    Deed {
        kind: "process.exec",
        act: Act::Nothing,
        sign: Sign::Of(|event, name| {
            event.process.iter().any(|process| process.args.iter().any(|arg| arg == name))
        }),
    },
    Deed {
        kind: "process.exec_failed",
        // It only comes back because it fails, which is what is wanted.
        act: Act::Named(|name| {
            let _not_there = Command::new(format!("{NOWHERE}{name}")).exec();
            Ok(())
        }),
        sign: Sign::Of(|event, name| match &event.body {
            Some(Body::ExecFailed(exec)) => exec.filename.strip_prefix(NOWHERE) == Some(name),
            _ => false,
        }),
    },
    Deed {
        kind: "file.create",
        act: Act::In(|folder| File::create_new(folder.join(FILE)).map(drop)),
        sign: Sign::At(FILE),
    },
    Deed {
        kind: "file.modify",
        act: Act::In(|folder| {
            OpenOptions::new().append(true).open(folder.join(FILE))?.write_all(b"a proof by events\n")
        }),
        sign: Sign::At(FILE),
    },
    Deed {
        kind: "file.close",
        act: Act::In(|folder| OpenOptions::new().append(true).open(folder.join(FILE)).map(drop)),
        sign: Sign::At(FILE),
    },
    Deed { kind: "file.copy", act: Act::In(copy), sign: Sign::At(FILE) },
    Deed {
        kind: "file.open",
        act: Act::In(|folder| File::open(folder.join(FILE)).map(drop)),
        sign: Sign::At(FILE),
    },
    Deed {
        kind: "file.truncate",
        act: Act::In(|folder| OpenOptions::new().write(true).open(folder.join(COPY))?.set_len(1)),
        sign: Sign::At(COPY),
    },
    Deed {
        kind: "file.attributes",
        act: Act::In(|folder| fs::set_permissions(folder.join(COPY), Permissions::from_mode(0o400))),
        sign: Sign::At(COPY),
    },
    Deed {
        kind: "file.link",
        act: Act::In(|folder| fs::hard_link(folder.join(COPY), folder.join(LINK))),
        sign: Sign::At(LINK),
    },
    Deed {
        kind: "file.rename",
        act: Act::In(|folder| fs::rename(folder.join(LINK), folder.join(RENAMED))),
        sign: Sign::At(LINK),
    },
    Deed {
        kind: "file.delete",
        act: Act::In(|folder| fs::remove_file(folder.join(RENAMED))),
        sign: Sign::At(RENAMED),
    },
    Deed {
        kind: "file.mkdir",
        act: Act::In(|folder| fs::create_dir(folder.join(DIRECTORY))),
        sign: Sign::At(DIRECTORY),
    },
    Deed {
        kind: "file.rmdir",
        act: Act::In(|folder| fs::remove_dir(folder.join(DIRECTORY))),
        sign: Sign::At(DIRECTORY),
    },
    Deed { kind: "file.mount", act: Act::In(mount_privately), sign: Sign::At(MOUNT) },
    Deed {
        kind: "network.bind",
        act: Act::Plain(|| UdpSocket::bind((HERE, 0)).map(drop)),
        sign: Sign::With(|socket| is_here(socket, "udp") && socket.error.is_empty()),
    },
    Deed {
        kind: "network.listen",
        act: Act::Plain(|| TcpListener::bind((HERE, 0)).map(drop)),
        sign: Sign::With(|socket| is_here(socket, "tcp")),
    },
    Deed {
        kind: "network.connect",
        act: Act::Plain(|| converse(1)),
        sign: Sign::With(|socket| is_here(socket, "tcp") && socket.outcome == "established"),
    },
    Deed {
        kind: "network.accept",
        act: Act::Plain(|| converse(1)),
        sign: Sign::With(|socket| is_here(socket, "tcp")),
    },
    Deed {
        kind: "network.close",
        act: Act::Plain(|| converse(1)),
        // Listeners end too.
        sign: Sign::With(|socket| is_here(socket, "tcp") && socket.remote.is_some()),
    },
    Deed {
        kind: "network.flow",
        act: Act::Plain(|| converse(REPEATED)),
        sign: Sign::With(|socket| is_here(socket, "tcp") && socket.count > 1),
    },
    Deed {
        kind: "network.socket",
        act: Act::Plain(open_packet_socket),
        sign: Sign::With(|socket| socket.family == "packet"),
    },
    Deed {
        kind: "process.credentials",
        // The one change that asks for no right. It ends with the process.
        act: Act::Plain(|| Ok(rustix::thread::set_keep_capabilities(true)?)),
        sign: Sign::Of(|event, _| match &event.body {
            Some(Body::Credentials(change)) => {
                let kept = |set: &CredentialSet| set.securebits & KEEP_CAPS != 0;
                !change.before.as_ref().is_some_and(kept) && change.after.as_ref().is_some_and(kept)
            }
            _ => false,
        }),
    },
    Deed {
        kind: "process.exit",
        act: Act::Nothing,
        sign: Sign::Of(|event, _| matches!(&event.body, Some(Body::Exit(exit)) if exit.code == Some(0))),
    },
];

/// What the process with this name does, once it runs: it has been forked, and has called exec. Its exit is the
/// caller's. Without a folder it leaves files alone.
#[must_use]
pub fn act(name: &str, folder: Option<&Path>) -> Vec<Undone> {
    let done = |deed: &Deed| match (&deed.act, folder) {
        (Act::Plain(act), _) => act(),
        (Act::Named(act), _) => act(name),
        (Act::In(act), Some(folder)) => act(folder),
        (Act::Nothing, _) | (Act::In(_), None) => Ok(()),
    };
    let undone = |deed: &Deed| {
        let reason = done(deed).err()?.to_string();
        Some(Undone { kind: deed.kind, reason })
    };
    DEEDS.iter().filter_map(undone).collect()
}

/// Folder in `place` for what the process with this name does with files.
#[must_use]
pub fn folder(place: &Path, name: &str) -> PathBuf {
    place.join(format!("{FOLDER}{name}"))
}

/// All that is done in a folder, where there is none.
#[must_use]
pub fn without_folder(reason: &str) -> Vec<Undone> {
    let in_folder = DEEDS.iter().filter(|deed| deed.kind.starts_with("file."));
    in_folder.map(|deed| Undone { kind: deed.kind, reason: reason.to_owned() }).collect()
}

fn copy(folder: &Path) -> io::Result<()> {
    let (mut from, mut to) = (File::open(folder.join(FILE))?, File::create_new(folder.join(COPY))?);
    // Within the kernel, as both are files.
    io::copy(&mut from, &mut to).map(drop)
}

/// Nobody else sees it, and it goes with the process.
fn mount_privately(folder: &Path) -> io::Result<()> {
    let place = folder.join(MOUNT);
    fs::create_dir(&place)?;
    // The agent has given up its rights, and whoever it starts has none: but in a user namespace.
    let alone = unshare(UnshareFlags::NEWNS);
    alone.or_else(|_| unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUSER))?;
    // Else the mount below would appear on the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None)?)
}

/// Connects to itself so many times, one after the other, and says nothing.
fn converse(times: usize) -> io::Result<()> {
    let listener = TcpListener::bind((HERE, 0))?;
    let address = listener.local_addr()?;
    for _ in 0..times {
        let (_there, _here) = (TcpStream::connect_timeout(&address, LONGEST_CONNECT)?, listener.accept()?);
    }
    Ok(())
}

/// It sees no packet: it asks for those of no protocol.
fn open_packet_socket() -> io::Result<()> {
    let open = || socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None).map(drop);
    if open().is_ok() {
        return Ok(());
    }
    // As with the mount.
    let alone = unshare(UnshareFlags::NEWNET);
    alone.or_else(|_| unshare(UnshareFlags::NEWNET | UnshareFlags::NEWUSER))?;
    Ok(open()?)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    #[expect(deprecated, reason = "it became unsafe for the sake of CLONE_FILES, which is not asked for")]
    Ok(rustix::thread::unshare(flags)?)
}

/// Whether it is of this file in the folder of that process. Where the folder lies is another matter in a chroot.
fn is_at(event: &Event, name: &str, file: &str) -> bool {
    let is_it = |body: &FileActivity| Path::new(&body.path).ends_with(folder(Path::new(""), name).join(file));
    matches!(&event.body, Some(Body::File(body)) if is_it(body))
}

/// Whether an end of it is where the process talks to itself: an event of several connections has but one.
fn is_here(socket: &NetworkActivity, protocol: &str) -> bool {
    let is_loopback = |end: &NetworkEndpoint| end.address.parse() == Ok(HERE);
    socket.protocol == protocol && [&socket.local, &socket.remote].into_iter().flatten().any(is_loopback)
}

// === impl Deed ===

impl Deed {
    /// Whether an event of this kind is of it, done by the process with this name.
    pub(super) fn is_told(&self, event: &Event, name: &str) -> bool {
        match self.sign {
            Sign::Of(is_of) => is_of(event, name),
            Sign::At(file) => is_at(event, name, file),
            Sign::With(is_like) => matches!(&event.body, Some(Body::Network(socket)) if is_like(socket)),
        }
    }
}

// === impl Undone ===

impl Undone {
    /// From a line that [`Self`] is written as.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, reason) = line.split_once(": ")?;
        let kind = DEEDS.iter().find(|deed| deed.kind == kind)?.kind;
        Some(Self { kind, reason: reason.to_owned() })
    }
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.reason)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use nightjar_proto::v1::{Credentials, Exec, ExecFailed, Exit, Fork};

    use super::*;

    /// Kind and body of an event of each deed.
    pub(in crate::doctor) fn bodies(name: &str) -> Vec<(&'static str, Body)> {
        let kept = CredentialSet { securebits: KEEP_CAPS, ..CredentialSet::default() };
        let credentials = Credentials {
            before: Some(CredentialSet::default()),
            after: Some(kept),
            ..Credentials::default()
        };
        let failed = ExecFailed { filename: format!("{NOWHERE}{name}"), ..ExecFailed::default() };
        let body = |deed: &Deed| match (deed.kind, &deed.sign) {
            (_, Sign::At(file)) => {
                let path = folder(Path::new("/run"), name).join(file).display().to_string();
                Body::File(FileActivity { path, ..FileActivity::default() })
            }
            ("network.socket", _) => Body::Network(socket("all", "packet")),
            ("network.bind", _) => Body::Network(socket("udp", "ipv4")),
            (_, Sign::With(_)) => Body::Network(NetworkActivity {
                remote: Some(here()),
                outcome: "established".to_owned(),
                count: 2,
                ..socket("tcp", "ipv4")
            }),
            ("process.fork", _) => Body::Fork(Fork::default()),
            ("process.exec", _) => Body::Exec(Exec::default()),
            ("process.exec_failed", _) => Body::ExecFailed(failed.clone()),
            ("process.credentials", _) => Body::Credentials(credentials.clone()),
            ("process.exit", _) => Body::Exit(Exit { code: Some(0), ..Exit::default() }),
            (other, _) => panic!("{other} has no body here"),
        };
        DEEDS.iter().map(|deed| (deed.kind, body(deed))).collect()
    }

    /// An end of a connection of the process with itself.
    pub(super) fn here() -> NetworkEndpoint {
        NetworkEndpoint { address: HERE.to_string(), port: Some(41_000), ..NetworkEndpoint::default() }
    }

    /// A socket that is bound to the loopback address.
    pub(super) fn socket(protocol: &str, family: &str) -> NetworkActivity {
        NetworkActivity {
            protocol: protocol.to_owned(),
            family: family.to_owned(),
            local: Some(here()),
            ..NetworkActivity::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::KINDS;

    use super::{
        testing::{here, socket},
        *,
    };

    #[test]
    fn there_is_a_deed_for_every_kind() {
        for kind in KINDS.iter().filter(|kind| !kind.name.starts_with("telemetry.")) {
            assert_eq!(DEEDS.iter().filter(|deed| deed.kind == kind.name).count(), 1, "{}", kind.name);
        }
    }

    #[test]
    fn what_is_done_with_files_can_be_done_and_stays_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for deed in DEEDS.iter().filter(|deed| deed.kind != "file.mount") {
            if let Act::In(act) = deed.act {
                act(folder.path()).unwrap_or_else(|error| panic!("{}: {error}", deed.kind));
            }
        }
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [COPY, FILE]);
        assert_eq!(fs::metadata(folder.path().join(COPY)).unwrap().len(), 1);
    }

    #[test]
    fn what_is_done_with_sockets_can_be_done() {
        // A packet socket may move the process, of which this test is but a thread, to another namespace.
        for deed in
            DEEDS.iter().filter(|deed| deed.kind.starts_with("network.") && deed.kind != "network.socket")
        {
            let Act::Plain(act) = deed.act else { panic!("{} is not done", deed.kind) };
            act().unwrap_or_else(|error| panic!("{}: {error}", deed.kind));
        }
    }

    #[test]
    fn sockets_of_another_sort_prove_nothing() {
        let is_told = |kind: &str, body: NetworkActivity| {
            let event = Event { kind: kind.to_owned(), body: Some(Body::Network(body)), ..Event::default() };
            DEEDS.iter().find(|deed| deed.kind == kind).unwrap().is_told(&event, "ab")
        };
        let tcp = NetworkActivity { remote: Some(here()), ..socket("tcp", "ipv4") };
        let established = NetworkActivity { outcome: "established".to_owned(), ..tcp.clone() };
        assert!(is_told("network.connect", established.clone()));
        let elsewhere = Some(NetworkEndpoint { address: "192.0.2.7".to_owned(), ..here() });
        let table = [
            ("network.connect", NetworkActivity { outcome: "failed".to_owned(), ..tcp.clone() }),
            (
                "network.connect",
                NetworkActivity { local: elsewhere.clone(), remote: elsewhere, ..established.clone() },
            ),
            ("network.connect", NetworkActivity { protocol: "udp".to_owned(), ..established }),
            ("network.bind", NetworkActivity { error: "EACCES".to_owned(), ..socket("udp", "ipv4") }),
            ("network.close", NetworkActivity { remote: None, ..tcp.clone() }),
            ("network.flow", tcp.clone()),
            ("network.socket", tcp),
        ];
        for (kind, body) in table {
            assert!(!is_told(kind, body.clone()), "{kind}: {body:?}");
        }
    }

    #[test]
    fn a_flow_has_but_one_end_and_proves_enough() {
        let inbound = NetworkActivity { count: 2, ..socket("tcp", "ipv4") };
        let outbound = NetworkActivity { local: None, remote: Some(here()), ..inbound.clone() };
        let flow = DEEDS.iter().find(|deed| deed.kind == "network.flow").unwrap();
        for body in [inbound, outbound] {
            assert!(flow.is_told(&Event { body: Some(Body::Network(body)), ..Event::default() }, "ab"));
        }
    }

    #[test]
    fn what_could_not_be_done_is_told_from_process_to_process() {
        let folder = tempfile::tempdir().unwrap();
        let act = |deed: &Deed| match deed.act {
            Act::In(act) => act(&folder.path().join("none")).err(),
            _ => None,
        };
        for deed in DEEDS {
            let Some(error) = act(deed) else { continue };
            let undone = Undone { kind: deed.kind, reason: error.to_string() };
            assert_eq!(Undone::parse(&undone.to_string()), Some(undone));
        }
        for odd in ["", "file.open", "file.burn: no fire", ": ", "file.open:x"] {
            assert_eq!(Undone::parse(odd), None);
        }
    }

    #[test]
    fn without_a_folder_no_file_is_touched() {
        let undone = without_folder("no room");
        let kinds: Vec<_> = undone.iter().map(|undone| undone.kind).collect();
        let files = KINDS.iter().filter(|kind| kind.name.starts_with("file.")).count();
        assert_eq!(kinds.len(), files, "{kinds:?}");
        assert!(undone.iter().all(|undone| undone.reason == "no room"));
    }

    #[test]
    fn files_of_others_prove_nothing() {
        let event = |path: &str| Event {
            body: Some(Body::File(FileActivity { path: path.to_owned(), ..FileActivity::default() })),
            ..Event::default()
        };
        assert!(is_at(&event("/run/nightjar-doctor-ab/file"), "ab", FILE));
        assert!(is_at(&event("/chroot/run/nightjar-doctor-ab/file"), "ab", FILE));
        for other in
            ["/run/nightjar-doctor-cd/file", "/run/nightjar-doctor-ab/copy", "/run/nightjar-doctor-ab", ""]
        {
            assert!(!is_at(&event(other), "ab", FILE), "{other}");
        }
    }
}
