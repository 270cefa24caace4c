//! The host as checks see it: files below a root directory, and facts that are not in files.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::OFlags,
    process::{Resource, getrlimit},
};

use crate::{
    config::Config,
    files::fanotify::{FanotifyError, Features, Group, Queue},
    service::{self, Missing},
};

/// What is read of a file: the longest of those that are looked at, `/proc/self/mounts` of a host with many
/// containers, hardly gets there.
const LONGEST: u64 = 1 << 20;

/// A host, or a folder that looks like one.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    pub(super) facts: Facts,
}

/// What is not in files.
#[derive(Debug)]
pub struct Facts {
    /// Machine that the kernel is for, as in `uname -m`.
    pub machine: String,
    /// What this process cannot do, or why that is not known.
    pub missing: Result<Vec<Missing>, String>,
    /// Most bytes of memory that this process may lock; `None` for no limit.
    pub memlock: Option<u64>,
    /// What the kernel tells of files by fanotify, or why nothing.
    pub fanotify: Result<Features, FanotifyError>,
    /// What the wall clock says.
    pub now: SystemTime,
    /// User that the agent runs as.
    pub user: u32,
    /// The configuration, or what is wrong with it.
    pub configuration: Result<Config, String>,
}

/// A row of the mount table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) place: String,
    pub(super) kind: String,
}

// === impl Host ===

impl Host {
    /// The one that this process runs on.
    #[must_use]
    pub fn running(configuration: Result<Config, String>) -> Self {
        let facts = Facts {
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            missing: service::missing().map_err(|error| error.to_string()),
            memlock: getrlimit(Resource::Memlock).maximum,
            fanotify: Group::open(Queue::Limited).map(|group| group.features()),
            now: SystemTime::now(),
            user: 0,
            configuration,
        };
        Self::new(Path::new("/"), facts)
    }

    /// One whose root directory is `root`.
    #[must_use]
    pub fn new(root: &Path, facts: Facts) -> Self {
        Self { root: root.to_owned(), facts }
    }

    /// Whether this process may load kernel programs at all.
    pub(super) fn may_watch(&self) -> bool {
        let without = service::Capability::Bpf;
        let needed = [without, service::Capability::Perfmon];
        let missing = self.facts.missing.as_ref();
        missing.is_ok_and(|missing| !missing.iter().any(|one| needed.contains(&one.capability)))
    }

    /// Where an absolute path of the host is.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A text file, without space around it. Bytes that are not text are replaced.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = self.bytes(path, LONGEST)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// At most so many bytes of a file. What is there may be a device that waits.
    pub(super) fn bytes(&self, path: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.path(path))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> io::Result<i64> {
        let text = self.read(path)?;
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            io::Error::new(ErrorKind::InvalidData, format!("{path} holds no number: {shown:?}"))
        })
    }

    /// Number of a namespace, as in `/proc/self/ns/pid`.
    pub(super) fn namespace(&self, path: &str) -> io::Result<u64> {
        let link = fs::read_link(self.path(path))?;
        let link = link.to_string_lossy();
        let number = link.split_once(":[").and_then(|(_, rest)| rest.strip_suffix(']')?.parse().ok());
        number.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("{path} is no namespace")))
    }

    pub(super) fn mounts(&self) -> Vec<Mount> {
        let text = self.read("/proc/self/mounts").unwrap_or_default();
        let mount = |line: &str| {
            let mut fields = line.split(' ').skip(1).map(str::to_owned);
            Some(Mount { place: fields.next()?, kind: fields.next()? })
        };
        text.lines().filter_map(mount).collect()
    }

    /// First two numbers of the kernel's release.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let release = self.read("/proc/sys/kernel/osrelease").ok()?;
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    }

    /// Whether this capability is needed here and not there. False where nothing is known.
    pub(super) fn lacks(&self, capability: service::Capability) -> bool {
        let missing = self.facts.missing.as_ref();
        missing.is_ok_and(|missing| missing.iter().any(|one| one.capability == capability))
    }

    /// The configuration, or the defaults where it cannot be read.
    pub(super) fn config(&self) -> Config {
        self.facts.configuration.as_ref().cloned().unwrap_or_default()
    }
}

/// Why a file that is always there on some hosts could not be read.
pub(super) fn unread(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "it is not there",
        ErrorKind::PermissionDenied => "this process may not read it",
        ErrorKind::InvalidData => "it holds something else than expected",
        _ => "it cannot be read",
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::{os::unix::fs::symlink, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::service::{Capability, NEEDS};

    /// A folder with files that a host would have.
    pub(in crate::doctor) struct Fixture {
        folder: TempDir,
        pub(in crate::doctor) host: Host,
    }

    impl Fixture {
        /// One where nothing is but the right to do all.
        pub(in crate::doctor) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let facts = Facts {
                machine: "x86_64".to_owned(),
                missing: Ok(Vec::new()),
                memlock: None,
                fanotify: Ok(Features { target_fid: true, rename: true }),
                // 2026-08-20
                now: SystemTime::UNIX_EPOCH + Duration::from_hours(496_450),
                user: rustix::process::geteuid().as_raw(),
                configuration: Ok(Config::default()),
            };
            Self { host: Host::new(folder.path(), facts), folder }
        }

        pub(in crate::doctor) fn file(self, path: &str, text: impl AsRef<[u8]>) -> Self {
            let path = self.host.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        pub(in crate::doctor) fn folder(self, path: &str) -> Self {
            fs::create_dir_all(self.host.path(path)).unwrap();
            self
        }

        pub(in crate::doctor) fn link(self, path: &str, to: &str) -> Self {
            let path = self.host.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(to, path).unwrap();
            self
        }

        pub(in crate::doctor) fn without(mut self, capability: Capability) -> Self {
            let lost = NEEDS.iter().find(|need| need.capability == capability).unwrap().lost;
            let missing = self.host.facts.missing.as_mut().unwrap();
            missing.push(Missing { capability, lost, of_user_namespace: false });
            self
        }

        pub(in crate::doctor) fn configured(mut self, change: impl FnOnce(&mut Config)) -> Self {
            change(self.host.facts.configuration.as_mut().unwrap());
            self
        }

        pub(in crate::doctor) fn facts(mut self, change: impl FnOnce(&mut Facts)) -> Self {
            change(&mut self.host.facts);
            self
        }

        pub(in crate::doctor) fn root(&self) -> &Path {
            self.folder.path()
        }
    }

    #[test]
    fn a_path_of_the_host_is_below_its_root() {
        let fixture = Fixture::new().file("/proc/version", "6\n");
        assert_eq!(fixture.host.path("/proc/version"), fixture.root().join("proc/version"));
        assert_eq!(fixture.host.number("/proc/version").unwrap(), 6);
    }

    #[test]
    fn odd_content_is_an_error_or_what_can_be_read_of_it() {
        let odd = Fixture::new()
            .file("/number", b"\xff\x00\x1b[2J".repeat(1000))
            .file("/proc/self/mounts", b"\nalone\na b c\n\xff \xfe \xfd\n   \n")
            .file("/proc/sys/kernel/osrelease", "99999999999.x")
            .link("/proc/self/ns/pid", "pid:[abc]")
            .link("/proc/self/ns/user", "nothing")
            .folder("/folder");
        assert!(odd.host.number("/number").is_err());
        assert!(odd.host.number("/folder").is_err());
        assert_eq!(odd.host.version(), None);
        assert!(odd.host.namespace("/proc/self/ns/pid").is_err());
        assert!(odd.host.namespace("/proc/self/ns/user").is_err());
        assert_eq!(odd.host.mounts().len(), 2, "rows that have a place and a kind");
        assert_eq!(odd.host.bytes("/number", 3).unwrap().len(), 3);
    }

    #[test]
    fn nothing_can_be_loaded_without_the_rights_to() {
        assert!(Fixture::new().host.may_watch());
        assert!(Fixture::new().without(Capability::SysPtrace).host.may_watch());
        assert!(!Fixture::new().without(Capability::Bpf).host.may_watch());
        assert!(!Fixture::new().facts(|facts| facts.missing = Err("no".to_owned())).host.may_watch());
    }
}
