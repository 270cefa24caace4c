//! The agent on this host: its configuration, where it writes to, whether it runs.

use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::Path,
};

use rustix::fs::{StatVfsMountFlags, major, minor, statvfs};

use super::bytes;
use crate::{
    config::{Compress, Config},
    doctor::{
        Finding,
        host::{Host, unread},
    },
};

/// Locks of agents.
const RUN: &str = "/run/nightjar";
const MOST_AGENTS: usize = 100;
/// What compression leaves of a file of events is less than a fifth.
const COMPRESSED: u64 = 5;

/// Whether an agent would start with it.
pub(super) fn configuration(host: &Host) -> Finding {
    match &host.facts.configuration {
        Ok(_) => Finding::ok("valid"),
        // Its own message says where, what and what instead; one line of each.
        Err(why) => Finding::failed(
            why.lines().map(str::trim).collect::<Vec<_>>().join("; "),
            "all: the agent does not start with it",
            "change it as said; `nightjar config check` looks at it again",
        ),
    }
}

/// The file of events: whether it can be written, and for how long.
pub(super) fn output(host: &Host) -> Finding {
    const LOST: &str = "all that is to be written there";
    let config = host.config();
    let file = match &config.json.file {
        None => return Finding::ok("no file (json.file is not set): events go to whoever asks"),
        Some(file) if file == Path::new("-") => return Finding::ok("standard output"),
        Some(file) => file,
    };
    let shown = file.display();
    match fs::metadata(host.path(file)) {
        Ok(found) if found.is_dir() => {
            return Finding::failed(format!("{shown} is a folder"), LOST, "name a file in json.file");
        }
        Ok(found) if found.file_type().is_socket() => {
            return Finding::failed(format!("{shown} is a socket"), LOST, "name a file in json.file");
        }
        Ok(found) if !may_write(host, &config, &found) => {
            return Finding::failed(
                format!("{shown} belongs to user {}", found.uid()),
                LOST,
                format!("`chown root: {shown}`"),
            );
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Finding::unknown(format!("{shown}: {}", unread(&error)));
        }
        Ok(_) | Err(_) => {}
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    let place = folder.display();
    let found = match fs::metadata(host.path(folder)) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => {
            return Finding::failed(format!("{place} is no folder"), LOST, "name another file in json.file");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Finding::failed(format!("{place} is not there"), LOST, format!("`mkdir -m 700 {place}`"));
        }
        Err(error) => return Finding::unknown(format!("{place}: {}", unread(&error))),
    };
    if !may_write(host, &config, &found) {
        return Finding::failed(
            format!(
                "{place} belongs to user {}, and the agent writes as root without the right to write everywhere",
                found.uid()
            ),
            LOST,
            format!("`chown root: {place}`"),
        );
    }
    space(host, folder, &config)
}

/// Whether root without `CAP_DAC_OVERRIDE`, which the agent gives up, may write to it.
fn may_write(host: &Host, config: &Config, found: &Metadata) -> bool {
    const ROOTS_GROUP: u32 = 0;
    let bit = match (found.uid() == host.facts.user, found.gid() == ROOTS_GROUP) {
        (true, _) => 0o200,
        (false, true) => 0o020,
        (false, false) => 0o002,
    };
    !config.privileges.drop || found.mode() & bit != 0
}

fn space(host: &Host, folder: &Path, config: &Config) -> Finding {
    let place = folder.display();
    let system = match statvfs(host.path(folder)) {
        Ok(system) => system,
        Err(error) => return Finding::unknown(format!("{place}: {error}")),
    };
    if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Finding::failed(
            format!("{place} is read-only"),
            "all that is to be written there",
            "name a file elsewhere in json.file, or mount it writable",
        );
    }
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let found = format!("{place}, with {} free", bytes(free));
    let json = &config.json;
    let size = json.rotate_size.bytes();
    let kept = if json.compress == Compress::None { size } else { size / COMPRESSED };
    // The current file, and one that is being compressed.
    let most = size.saturating_mul(2).saturating_add(kept.saturating_mul(json.keep.into()));
    if size == 0 {
        return Finding::ok(format!("{found}; files are not bounded in size (json.rotate_size: 0)"));
    }
    let found = format!("{found}; files take up to about {}", bytes(most));
    if free < most {
        return Finding::limited(
            found,
            "events, once the disk is full",
            "make room, or json.rotate_size or json.keep smaller",
        );
    }
    Finding::ok(found)
}

/// Agents that run already.
pub(super) fn agent(host: &Host) -> Finding {
    let config = host.config();
    let files = match fs::read_dir(host.path(RUN)) {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => return Finding::ok("none runs"),
        Err(error) => return Finding::unknown(format!("{RUN}: {}", unread(&error))),
    };
    let locks = host.read("/proc/locks").unwrap_or_default();
    let mut running: Vec<String> = Vec::new();
    for file in files.flatten().take(MOST_AGENTS) {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(instance) = name.strip_suffix(".lock") else { continue };
        if let Some(pid) = file.metadata().ok().and_then(|found| locked_by(&locks, &found)) {
            running.push(format!("{instance} (process {pid})"));
        }
    }
    running.sort();
    if running.is_empty() {
        return Finding::ok("none runs");
    }
    let list = running.join(", ");
    let socket = config.socket_path();
    // Connecting and hanging up is nothing to it.
    let answers = match UnixStream::connect(host.path(&socket)) {
        Ok(_) => format!("; {} answers", socket.display()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            format!("; {} is closed to this user", socket.display())
        }
        Err(_) => format!("; nobody answers on {}", socket.display()),
    };
    Finding::ok(format!("runs: {list}{answers}"))
}

/// The process that has a file locked for itself (flock), by `/proc/locks`:
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
fn locked_by(locks: &str, found: &Metadata) -> Option<u32> {
    let device = format!("{:02x}:{:02x}:{}", major(found.dev()), minor(found.dev()), found.ino());
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { return None };
        // On btrfs and overlayfs the device is not the one that a process is told.
        let is_it = file == device || file.rsplit(':').next() == device.rsplit(':').next();
        is_it.then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::PathBuf};

    use super::*;
    use crate::{
        config::Size,
        doctor::{Outcome, host::testing::Fixture},
    };

    #[test]
    fn a_configuration_that_is_wrong_is_told_as_a_line() {
        assert_eq!(configuration(&Fixture::new().host), Finding::ok("valid"));
        let wrong = "/etc/n.yaml:1:1: log: found 7\n    log: 7".to_owned();
        let finding = configuration(&Fixture::new().facts(|facts| facts.configuration = Err(wrong)).host);
        assert_eq!(finding.result, Outcome::Failed);
        assert_eq!(finding.found, "/etc/n.yaml:1:1: log: found 7; log: 7");
    }

    fn writing(fixture: Fixture, file: &str) -> Fixture {
        fixture.configured(|config| {
            config.json.file = Some(PathBuf::from(file));
            config.json.rotate_size = Size::from_bytes(1);
        })
    }

    #[test]
    fn without_a_file_there_is_nothing_to_fill_up() {
        assert_eq!(output(&Fixture::new().host).result, Outcome::Ok);
        assert_eq!(output(&writing(Fixture::new(), "-").host), Finding::ok("standard output"));
    }

    #[test]
    fn the_folder_of_the_file_must_be_there() {
        let none = output(&writing(Fixture::new(), "/var/log/nightjar/events.json").host);
        assert_eq!(none.result, Outcome::Failed);
        assert!(none.mend.contains("mkdir"), "{none:?}");
        let there = writing(Fixture::new().folder("/var/log/nightjar"), "/var/log/nightjar/events.json");
        let finding = output(&there.host);
        assert_eq!(finding.result, Outcome::Ok, "{finding:?}");
        assert!(finding.found.starts_with("/var/log/nightjar, with "), "{finding:?}");
        let file = writing(Fixture::new().file("/var/log", "no folder"), "/var/log/events.json");
        assert_eq!(output(&file.host).result, Outcome::Failed);
    }

    #[test]
    fn what_is_no_file_is_no_place_for_events() {
        let folder = writing(Fixture::new().folder("/data"), "/data");
        assert_eq!(output(&folder.host).result, Outcome::Failed);
        let socket = writing(Fixture::new().folder("/data"), "/data/s");
        let _listener = UnixListener::bind(socket.host.path("/data/s")).unwrap();
        assert_eq!(output(&socket.host).result, Outcome::Failed);
    }

    #[test]
    fn root_without_all_rights_does_not_write_to_folders_of_others() {
        let fixture = || writing(Fixture::new().folder("/data"), "/data/events.json");
        let of_another = fixture().facts(|facts| facts.user += 1);
        let finding = output(&of_another.host);
        assert_eq!(finding.result, Outcome::Failed);
        assert!(finding.mend.contains("chown"), "{finding:?}");
        assert_eq!(
            output(&of_another.configured(|config| config.privileges.drop = false).host).result,
            Outcome::Ok
        );
        let file = writing(Fixture::new().file("/data/events.json", ""), "/data/events.json");
        assert_eq!(output(&file.facts(|facts| facts.user += 1).host).result, Outcome::Failed);
    }

    #[test]
    fn a_disk_that_will_be_full_is_told_before() {
        let large = writing(Fixture::new().folder("/data"), "/data/events.json");
        let large = large.configured(|config| config.json.rotate_size = "1TiB".parse().unwrap());
        let finding = output(&large.configured(|config| config.json.keep = 10_000).host);
        assert_eq!(finding.result, Outcome::Limited, "{finding:?}");
        let endless = writing(Fixture::new().folder("/data"), "/data/events.json");
        let endless = endless.configured(|config| config.json.rotate_size = Size::from_bytes(0));
        assert!(output(&endless.host).found.contains("not bounded"));
    }

    #[test]
    fn an_agent_that_runs_is_named() {
        assert_eq!(agent(&Fixture::new().host), Finding::ok("none runs"));
        let left = Fixture::new()
            .file("/run/nightjar/default.lock", "77 2026-01-01T00:00:00Z")
            .file("/run/nightjar/x.sock", "");
        assert_eq!(agent(&left.host), Finding::ok("none runs"), "a file that is left over says nothing");
        let inode = fs::metadata(left.host.path("/run/nightjar/default.lock")).unwrap().ino();
        let locks = format!(
            "1: POSIX  ADVISORY  WRITE 1 00:00:{inode} 0 EOF\n2: FLOCK  ADVISORY  WRITE 77 00:00:{inode} 0 EOF\n"
        );
        let runs = left.file("/proc/locks", locks);
        let finding = agent(&runs.host);
        assert_eq!(finding.found, "runs: default (process 77); nobody answers on /run/nightjar/default.sock");
        let _listener = UnixListener::bind(runs.host.path("/run/nightjar/default.sock")).unwrap();
        assert!(agent(&runs.host).found.ends_with("default.sock answers"));
    }
}
