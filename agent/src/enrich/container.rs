//! Which container a cgroup belongs to, as its path tells.
//!
//! Runtimes give every container a cgroup and put the container's id in its name. There is no standard
//! for that name: the tables in this file are the conventions of the runtimes, one row each. They are the
//! same with cgroup v1, v2 and both, since a runtime names a cgroup before the hierarchy comes into play;
//! what differs is the cgroup driver, which is why most runtimes have two forms:
//!
//! | driver | form | example |
//! |---|---|---|
//! | cgroupfs | `<parent>/<id>` | `/docker/4f79…`, `/kubepods/burstable/pod<uid>/d166…` |
//! | systemd | `<slice>/<word>-<id>.scope` | `/system.slice/docker-9ec3….scope` |
//! | systemd's form with the cgroupfs driver | `<slice>:<word>:<id>` | `/system.slice:cri-containerd:f659…` |
//!
//! A path is read from its end, so what a container makes below its own cgroup (`init.scope`,
//! `system.slice/nginx.service`) does not matter, and with containers in containers the innermost is
//! found. A process that serves a container from outside is not the container's: `conmon` of CRI-O and
//! Podman, the monitor of LXC, the supervisor of systemd-nspawn, the hypervisor of Kata Containers.
//!
//! Whoever may make cgroups may choose their names: the path says what a cgroup claims to be. A container
//! that was given a writable cgroup tree can look like another container, but not like the host, since what
//! is above its own cgroup stays in the path. (One of systemd-nspawn with cgroup v1 can: there it and its
//! supervisor share a parent.)

use std::borrow::Cow;
use std::fmt;

/// A container, as far as the path of a cgroup tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerId {
    /// The id in full, as the runtime gives it: 64 lower-case hexadecimal digits with OCI runtimes;
    /// `<task>-<number>` with Fargate; 25 lower-case letters and digits with `BuildKit`; a name with LXC,
    /// systemd-nspawn and `ctr`.
    pub id: String,
    /// Absent when the path does not tell, as with `/kubepods/burstable/pod<uid>/<id>`: Docker and
    /// containerd both use it.
    pub runtime: Option<Runtime>,
    /// Of the Kubernetes pod that the container is in, directly or within another container: a UUID with
    /// dashes (as the API server gives it), or 32 hexadecimal digits (a static pod, which the kubelet
    /// names after a hash of its manifest).
    pub pod_uid: Option<String>,
}

/// The program that made a container's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Steps of an image build, by `buildkitd` or the one within Docker.
    Buildkit,
    /// containerd, by way of the CRI, nerdctl or `ctr`.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker, rootless Docker as well.
    Docker,
    /// A task of Amazon ECS or Fargate that has its own cgroup tree.
    Ecs,
    /// LXC, LXD, Incus, Proxmox VE; libvirt's LXC driver.
    Lxc,
    /// systemd-nspawn, containers of `NixOS` as well.
    Nspawn,
    /// Podman, rootful or rootless.
    Podman,
}

impl Runtime {
    /// The word that events have: `buildkit`, `containerd`, `crio`, `docker`, `ecs`, `lxc`, `nspawn`,
    /// `podman`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buildkit => "buildkit",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Docker => "docker",
            Self::Ecs => "ecs",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Podman => "podman",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names the container that processes of a cgroup are in; none for the host's own cgroups.
///
/// `cgroup_path` is the path from the root of the hierarchy, as the third field of `/proc/<pid>/cgroup`
/// has it: it may begin with `/..` where the reader is in a cgroup namespace, and end in ` (deleted)`
/// where the cgroup is gone. The form that events have, in which `\x` is written `\x5cx`, does as well.
///
/// A path component of just 64 hexadecimal digits counts as a container whose runtime is not told:
/// Docker with `--cgroup-parent`, containerd in any namespace and the view from a cgroup namespace
/// (`/../<id>`) leave no more than that, and nothing else is known to use such a name but pods of Podman
/// below `libpod_parent`, which are passed over. With a unit's suffix (`<64 hex>.service`) it is a unit:
/// Podman runs health checks in those, on the host.
///
/// Takes time linear in the length of the path; does not cache.
#[must_use]
pub fn identify(cgroup_path: &str) -> Option<ContainerId> {
    // proc_cgroup_show in https://github.com/torvalds/linux/blob/v6.12/kernel/cgroup/cgroup.c
    let path = cgroup_path.strip_suffix(" (deleted)").unwrap_or(cgroup_path);
    // Kata Containers repeats a sandbox's path there for what runs on the host on its behalf.
    let path = path.rsplit_once("/kata_overhead/").map_or(path, |(above, _)| above);
    let mut outward = path.rsplit('/').filter(|name| !matches!(*name, "" | "." | ".."));
    let mut below = None;
    while let Some(name) = outward.next() {
        let mut ancestors = outward.clone();
        let place = Place { name, parent: ancestors.next(), grandparent: ancestors.next(), below };
        if let Some((id, runtime)) = place.container() {
            let pod_uid = pod_uid(name).or_else(|| outward.find_map(pod_uid));
            return Some(ContainerId { id: id.into_owned(), runtime, pod_uid });
        }
        below = Some(name);
    }
    None
}

/// `<word>-<id>`, `<word>-<id>.scope` and `<slice>:<word>:<id>`, where the id has 64 digits. Conmon's
/// `crio-conmon-<id>` and `libpod-conmon-<id>` are no rows, so they are no containers.
const WORDS: &[(&str, Runtime)] = &[
    // containerd: getCgroupsPath in internal/cri/server/helpers_linux.go.
    ("cri-containerd", Runtime::Containerd),
    // CRI-O: internal/config/cgmgr.
    ("crio", Runtime::Crio),
    // Docker: WithCgroups in daemon/oci_linux.go.
    ("docker", Runtime::Docker),
    // Podman: getOCICgroupPath in libpod.
    ("libpod", Runtime::Podman),
    // The same with `--cgroups=split`, which Quadlet uses.
    ("libpod-payload", Runtime::Podman),
    // nerdctl: pkg/cmd/container/run_cgroup_linux.go.
    ("nerdctl", Runtime::Containerd),
];

/// `<parent>/<id>`: what the parent is called, where it has to be, what its children are called.
const PARENTS: &[(&str, At, Form, Runtime)] = &[
    // BuildKit: executor/oci/spec.go. Within Docker its parent is `docker/buildkit` or `docker`.
    ("buildkit", At::Any, Form::Base36, Runtime::Buildkit),
    // containerd puts a container without a given cgroup below its namespace: `default` is that of `ctr`
    // and nerdctl, `k8s.io` that of the CRI.
    ("default", At::Root, Form::Identifier, Runtime::Containerd),
    ("default", At::Any, Form::Hex64, Runtime::Containerd),
    ("k8s.io", At::Any, Form::Hex64, Runtime::Containerd),
    ("docker", At::Any, Form::Hex64, Runtime::Docker),
    ("docker", At::Any, Form::Base36, Runtime::Buildkit),
    // https://github.com/aws/amazon-ecs-agent/issues/1119: `/ecs/<task>/<id>`.
    ("ecs", At::Grandparent, Form::Hex64, Runtime::Ecs),
    // LXC before 4.0, Proxmox VE.
    ("lxc", At::Any, Form::Name, Runtime::Lxc),
    // LXC 3.1 and 3.2. Elsewhere than at the root `lxc.payload` is itself a container's cgroup:
    // `lxc.cgroup.dir = lxc/%n` makes `lxc/<name>/lxc.payload`.
    ("lxc.payload", At::Root, Form::Name, Runtime::Lxc),
];

/// Units below `machine.slice` that hold a machine: what is before and after the name.
const MACHINES: &[(&str, &str)] = &[
    // systemd-machined: src/machine/machine.c. libvirt as well.
    ("machine-", ".scope"),
    ("systemd-nspawn@", ".service"),
    // NixOS.
    ("container@", ".service"),
];

/// Where the parent of a row has to be.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Directly above the container, anywhere.
    Any,
    /// Two above the container, anywhere.
    Grandparent,
    /// Directly above the container, at the root of the hierarchy.
    Root,
}

/// What an id looks like.
#[derive(Clone, Copy)]
enum Form {
    /// 25 lower-case letters and digits, as `NewID` in `BuildKit`'s `identity/randomid.go` makes them.
    Base36,
    /// 64 lower-case hexadecimal digits.
    Hex64,
    /// containerd's rule, `pkg/identifiers/validate.go`: words of ASCII letters and digits with one `.`,
    /// `_` or `-` between them, 76 bytes at most.
    Identifier,
    /// Anything but a unit of systemd.
    Name,
}

impl Form {
    fn admits(self, id: &str) -> bool {
        match self {
            Self::Base36 => {
                id.len() == 25 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
            }
            Self::Hex64 => is_hex(id, 64),
            Self::Identifier => {
                id.len() <= 76
                    && id
                        .split(['.', '_', '-'])
                        .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric()))
                    && !is_unit(id)
                    // A sandbox of Kata Containers: its hypervisor is in there.
                    && !id.starts_with("kata_")
            }
            Self::Name => !is_unit(id),
        }
    }
}

/// One component of a path, and what is around it.
struct Place<'a> {
    name: &'a str,
    parent: Option<&'a str>,
    grandparent: Option<&'a str>,
    below: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// The id and runtime of the container that this component is the cgroup of.
    fn container(&self) -> Option<(Cow<'a, str>, Option<Runtime>)> {
        self.word()
            .or_else(|| self.child())
            .or_else(|| self.lxc_payload())
            .or_else(|| self.fargate())
            .map(|(id, runtime)| (Cow::Borrowed(id), Some(runtime)))
            .or_else(|| self.machine().map(|(id, runtime)| (id, Some(runtime))))
            .or_else(|| self.bare().map(|id| (Cow::Borrowed(id), None)))
    }

    /// Rows of [`WORDS`].
    fn word(&self) -> Option<(&'a str, Runtime)> {
        if let Some((rest, id)) = self.name.rsplit_once(':') {
            let (_, word) = rest.rsplit_once(':')?;
            // Docker with the systemd driver gives its BuildKit such a parent (newCgroupParent in
            // cmd/dockerd/daemon_unix.go), and BuildKit takes it for a path.
            if word == "docker" && Form::Base36.admits(id) {
                return Some((id, Runtime::Buildkit));
            }
            return runtime_of(word, id);
        }
        let name = self.name.strip_suffix(".scope").unwrap_or(self.name);
        let (word, id) = name.rsplit_once('-')?;
        runtime_of(word, id)
    }

    /// Rows of [`PARENTS`].
    fn child(&self) -> Option<(&'a str, Runtime)> {
        let row = |(parent, at, form, runtime): &(&str, At, Form, Runtime)| {
            let above = match at {
                At::Any => self.parent,
                At::Grandparent => self.grandparent,
                At::Root if self.grandparent.is_none() => self.parent,
                At::Root => None,
            };
            (above == Some(*parent) && form.admits(self.name)).then_some((self.name, *runtime))
        };
        PARENTS.iter().find_map(row)
    }

    /// `lxc.payload.<name>`: LXC since 4.0, LXD, Incus.
    fn lxc_payload(&self) -> Option<(&'a str, Runtime)> {
        let name = self.name.strip_prefix("lxc.payload.")?;
        (!name.is_empty()).then_some((name, Runtime::Lxc))
    }

    /// Rows of [`MACHINES`].
    fn machine(&self) -> Option<(Cow<'a, str>, Runtime)> {
        let slice = self.parent?;
        let is_theirs = |name: &str| name == "machine" || name.starts_with("machine-");
        if !slice.strip_suffix(".slice").is_some_and(is_theirs) {
            return None;
        }
        if self.below == Some("supervisor") {
            return None;
        }
        let unit = |(before, after): &(&str, &str)| self.name.strip_prefix(before)?.strip_suffix(after);
        let escaped = MACHINES.iter().find_map(unit).filter(|name| !name.is_empty())?;
        let name = unescape(escaped);
        // libvirt's machines are named `<driver>-<number>-<domain>`.
        let driver = name.split_once('-').and_then(|(driver, rest)| {
            let (number, _) = rest.split_once('-')?;
            is_decimal(number).then_some(driver)
        });
        match driver {
            // Virtual machines: what is in there has a kernel of its own.
            Some("qemu" | "xen" | "bhyve" | "ch") => None,
            Some("lxc") => Some((name, Runtime::Lxc)),
            _ => Some((name, Runtime::Nspawn)),
        }
    }

    /// `<task>-<number>`, below `/ecs/<task>` if the path goes that far.
    fn fargate(&self) -> Option<(&'a str, Runtime)> {
        let (task, number) = self.name.split_once('-')?;
        let is_id = is_hex(task, 32) && is_decimal(number) && number.len() <= 10;
        is_id.then_some((self.name, Runtime::Ecs))
    }

    /// 64 hexadecimal digits that no runtime lays claim to.
    fn bare(&self) -> Option<&'a str> {
        let is_pod = self.parent == Some("libpod_parent");
        (!is_pod && is_hex(self.name, 64)).then_some(self.name)
    }
}

/// The row of [`WORDS`] for `word`, if `id` is one.
fn runtime_of<'a>(word: &str, id: &'a str) -> Option<(&'a str, Runtime)> {
    let (_, runtime) = WORDS.iter().find(|(name, _)| *name == word)?;
    is_hex(id, 64).then_some((id, *runtime))
}

/// The UID in a pod's cgroup: `pod<uid>`, `[…-]kubepods[-<qos>]-pod<uid>.slice`, and that slice in
/// `<slice>:<word>:<id>`. systemd has slices nest by dashes, so the kubelet writes those of a UUID as
/// underscores.
///
/// Kubernetes: `GetPodContainerName` in `pkg/kubelet/cm/pod_container_manager_linux.go`.
fn pod_uid(name: &str) -> Option<String> {
    let name = name.split_once(':').map_or(name, |(slice, _)| slice);
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => name.strip_prefix("pod")?,
    };
    if is_hex(uid, 32) {
        return Some(uid.to_owned());
    }
    let is_uuid = uid.len() == 36
        && uid.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => matches!(b, b'-' | b'_'),
            _ => is_hex_digit(b),
        });
    is_uuid.then(|| uid.replace('_', "-"))
}

fn is_hex_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(is_hex_digit)
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether systemd would have made a cgroup of that name.
fn is_unit(name: &str) -> bool {
    [".scope", ".service", ".slice", ".mount", ".socket", ".swap"].iter().any(|kind| name.ends_with(kind))
}

/// Undoes systemd's escapes, `\x2d` for a dash (systemd.unit(5)). The name is left as it is where the
/// result would be no text.
fn unescape(name: &str) -> Cow<'_, str> {
    // A machine's name has no backslash, so this one is of the text form of events.
    let name =
        if name.contains(r"\x5cx") { name.replace(r"\x5cx", r"\x").into() } else { Cow::Borrowed(name) };
    if !name.contains(r"\x") {
        return name;
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [b'x', high, low, after @ ..] if *first == b'\\' => {
                hex_value(*high).zip(hex_value(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_or(name, Cow::Owned)
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Runtime::{Buildkit, Containerd, Crio, Docker, Ecs, Lxc, Nspawn, Podman};

    // Containers, `A` the outer one where there are two.
    const A: &str = "fd9d0ea06257a9780827cbc7fd92e3812a54fca26d63e191b73610d5d48b9cbd";
    const B: &str = "99f3a16ea25b7724cb56a4f0c0df1113ad9474fbf5545bead97fd5c7f61c13f4";
    // A pod, as its UID is written in cgroups of the cgroupfs driver and of the systemd driver.
    const POD: &str = "eab5a334-93fe-48a8-b139-9e8079c1f163";
    const POD_: &str = "eab5a334_93fe_48a8_b139_9e8079c1f163";
    const STATIC_POD: &str = "9729a196c4723b60ab401eaff722982d";
    const BUILD: &str = "jvifp9a6b1lxa1kuw8bwfcovf";
    const TASK: &str = "cd189a933e5849daa93386466019ab50-2495160603";

    /// Path (`A`, `B`, `POD_`, `POD`, `STATIC`, `BUILD` and `TASK` in braces stand for the ids above), id,
    /// runtime, pod.
    type Row = (&'static str, &'static str, Option<Runtime>, Option<&'static str>);

    const CONTAINERS: &[Row] = &[
        // Docker.
        ("/docker/{A}", A, Some(Docker), None),
        ("/system.slice/docker-{A}.scope", A, Some(Docker), None),
        ("/system.slice/docker-{A}.scope/init.scope", A, Some(Docker), None),
        ("/system.slice/docker-{A}.scope/system.slice/nginx.service", A, Some(Docker), None),
        ("/docker/{A}/system.slice/docker.service", A, Some(Docker), None),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope", A, Some(Docker), None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/docker/{A}",
            A,
            Some(Docker),
            None,
        ),
        ("/mycgroup.slice/docker-{A}.scope", A, Some(Docker), None),
        ("/docker-ce/docker/{A}", A, Some(Docker), None),
        ("/system.slice/docker-{A}.scope (deleted)", A, Some(Docker), None),
        // Docker in Docker.
        ("/docker/{A}/docker/{B}", B, Some(Docker), None),
        ("/system.slice/docker-{A}.scope/docker/{B}", B, Some(Docker), None),
        // From a cgroup namespace.
        ("/../{A}", A, None, None),
        ("/../../docker/{A}", A, Some(Docker), None),
        ("/../cri-containerd-{A}.scope", A, Some(Containerd), None),
        // Known to be a container, not of whom.
        ("/{A}", A, None, None),
        ("/actions_job/{A}", A, None, None),
        ("/system.slice/{A}/worker", A, None, None),
        // Kubernetes with containerd.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/cri-containerd-{A}.scope",
            A,
            Some(Containerd),
            Some(POD),
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_}.slice/cri-containerd-{A}.scope",
            A,
            Some(Containerd),
            Some(POD),
        ),
        // A pod of class "guaranteed" has no slice of the class.
        ("/kubepods.slice/kubepods-pod{POD_}.slice/cri-containerd-{A}.scope", A, Some(Containerd), Some(POD)),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{A}.scope",
            A,
            Some(Containerd),
            Some(STATIC_POD),
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{A}",
            A,
            Some(Containerd),
            Some(STATIC_POD),
        ),
        (
            "/kubepods.slice/kubepods-pod{POD_}.slice/cri-containerd-{A}.scope/system.slice/sshd.service",
            A,
            Some(Containerd),
            Some(POD),
        ),
        // kubelet with the systemd driver, containerd without: https://github.com/falcosecurity/libs/issues/63
        (
            "/system.slice/containerd.service/kubepods-burstable-pod{POD_}.slice:cri-containerd:{A}",
            A,
            Some(Containerd),
            Some(POD),
        ),
        ("/kubepods-pod{STATIC}.slice:cri-containerd:{A}", A, Some(Containerd), Some(STATIC_POD)),
        ("/system.slice:cri-containerd:{A}", A, Some(Containerd), None),
        ("/k8s.io/{A}", A, Some(Containerd), None),
        // The cgroupfs driver, Docker or containerd.
        ("/kubepods/burstable/pod{POD}/{A}", A, None, Some(POD)),
        ("/kubepods/besteffort/pod{POD}/{A}/kube-proxy", A, None, Some(POD)),
        ("/kubepods/pod{POD}/{A}", A, None, Some(POD)),
        ("/kubepods/burstable/pod{STATIC}/{A}", A, None, Some(STATIC_POD)),
        // Kubernetes with Docker.
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_}.slice/docker-{A}.scope",
            A,
            Some(Docker),
            Some(POD),
        ),
        // Kubernetes with CRI-O.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/crio-{A}.scope",
            A,
            Some(Crio),
            Some(POD),
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice/crio-{A}.scope/container",
            A,
            Some(Crio),
            Some(POD),
        ),
        ("/kubepods/pod{POD}/crio-{A}", A, Some(Crio), Some(POD)),
        // kind, minikube: https://github.com/sustainable-computing-io/kepler/pull/2119
        (
            "/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{POD_}.slice/cri-containerd-{B}.scope",
            B,
            Some(Containerd),
            Some(POD),
        ),
        ("/docker/{A}/kubelet/kubepods/besteffort/pod{POD}/{B}", B, None, Some(POD)),
        ("/docker/{A}/kubelet.slice/kubelet.service", A, Some(Docker), None),
        (
            "/machine.slice/libpod-{A}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD_}.slice/crio-{B}.scope",
            B,
            Some(Crio),
            Some(POD),
        ),
        // Docker in a pod is in the pod.
        ("/kubepods/burstable/pod{POD}/{A}/docker/{B}", B, Some(Docker), Some(POD)),
        // conmon runs beside its container: in the outer one, if there is one.
        ("/docker/{A}/kubepods.slice/kubepods-pod{POD_}.slice/crio-conmon-{B}.scope", A, Some(Docker), None),
        // nerdctl, ctr.
        ("/system.slice/nerdctl-{A}.scope", A, Some(Containerd), None),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{A}.scope",
            A,
            Some(Containerd),
            None,
        ),
        ("/default/{A}", A, Some(Containerd), None),
        ("/default/{A}/init.scope", A, Some(Containerd), None),
        ("/default/redis-1", "redis-1", Some(Containerd), None),
        // Podman.
        ("/machine.slice/libpod-{A}.scope", A, Some(Podman), None),
        ("/machine.slice/libpod-{A}.scope/container", A, Some(Podman), None),
        ("/machine.slice/libpod-{A}.scope/container/system.slice/httpd.service", A, Some(Podman), None),
        ("/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", A, Some(Podman), None),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
            A,
            Some(Podman),
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service/libpod-payload-{A}",
            A,
            Some(Podman),
            None,
        ),
        ("/libpod_parent/libpod-{A}", A, Some(Podman), None),
        ("/libpod_parent/{B}/libpod-{A}", A, Some(Podman), None),
        // LXC, LXD, Incus, Proxmox VE, libvirt.
        ("/lxc/mysql-primary-db", "mysql-primary-db", Some(Lxc), None),
        ("/lxc/101/ns/init.scope", "101", Some(Lxc), None),
        ("/lxc/web/system.slice/ssh.service", "web", Some(Lxc), None),
        ("/user/1000.user/1.session/lxc/web", "web", Some(Lxc), None),
        ("/lxc.payload.snapcraft_some-container", "snapcraft_some-container", Some(Lxc), None),
        ("/lxc.payload.web/system.slice/nginx.service", "web", Some(Lxc), None),
        ("/lxc.payload/web/init.scope", "web", Some(Lxc), None),
        ("/lxc/web/lxc.payload/init.scope", "web", Some(Lxc), None),
        ("/lxc.payload.web/system.slice/docker-{A}.scope", A, Some(Docker), None),
        ("/lxc.payload.web/lxc.monitor.inner", "web", Some(Lxc), None),
        (r"/machine.slice/machine-lxc\x2d3183\x2dweb.scope", "lxc-3183-web", Some(Lxc), None),
        // systemd-nspawn, containers of NixOS.
        ("/machine.slice/machine-debian.scope", "debian", Some(Nspawn), None),
        (r"/machine.slice/machine-debian\x2dsid.scope/payload/init.scope", "debian-sid", Some(Nspawn), None),
        (r"/machine.slice/machine-debian\x5cx2dsid.scope/payload", "debian-sid", Some(Nspawn), None),
        (r"/machine.slice/machine-a\x2.scope", r"a\x2", Some(Nspawn), None),
        (r"/machine.slice/machine-a\xff.scope", r"a\xff", Some(Nspawn), None),
        (
            "/machine.slice/systemd-nspawn@jammy.service/payload/system.slice/cron.service",
            "jammy",
            Some(Nspawn),
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/machine.slice/systemd-nspawn@zurps.service/payload",
            "zurps",
            Some(Nspawn),
            None,
        ),
        (
            "/machine.slice/container@db.service/payload/system.slice/postgresql.service",
            "db",
            Some(Nspawn),
            None,
        ),
        // ECS, Fargate.
        ("/ecs/bf1ddbfbbc8f45c9b1ac4f779368741e/{A}", A, Some(Ecs), None),
        ("/ecs/5a0d5ceddf6c44c1928d367a815d890f/{TASK}", TASK, Some(Ecs), None),
        ("/../{TASK}", TASK, Some(Ecs), None),
        (
            "/ecstasks.slice/ecstasks-e95a40efbde84cbc8600660a109ec194.slice/docker-{A}.scope",
            A,
            Some(Docker),
            None,
        ),
        // BuildKit: buildkitd, within Docker with either driver, in a builder's container.
        ("/buildkit/{BUILD}", BUILD, Some(Buildkit), None),
        ("/docker/buildkit/{BUILD}", BUILD, Some(Buildkit), None),
        ("/docker/{BUILD}", BUILD, Some(Buildkit), None),
        ("/system.slice/system.slice:docker:{BUILD}", BUILD, Some(Buildkit), None),
        ("/system.slice/docker-{A}.scope/buildkit/{BUILD}", BUILD, Some(Buildkit), None),
        // The hypervisor of a container in a container.
        ("/docker/{A}/kata_overhead/{B}", A, Some(Docker), None),
    ];

    const OTHERS: &[&str] = &[
        "",
        "/",
        "//",
        "/..",
        "/init.scope",
        "/init",
        "/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-steam@6ed7ddc9c2bd4bd4a2a4a5a5a5a5a5a5.service",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/system.slice/crio.service",
        "/system.slice/podman.service",
        "/system.slice/docker.socket",
        r"/system.slice/system-serial\x2dgetty.slice/serial-getty@ttyS0.service",
        "/system.slice/snap.docker.dockerd.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/snap.firefox.firefox-1c5d1c5f-3a5c-4c5e-9d5a-5f5c5d5e5a5b.scope",
        "/system.slice/snap.lxd.daemon.service",
        "/podruntime/kubelet",
        "/system.slice/kubelet.service",
        // Podman's health checks, a user's unit.
        "/system.slice/{A}.service",
        "/system.slice/{A}-71b3a1e4c1c2d3e4.service",
        "/system.slice/{A}.scope",
        "/system.slice/foo-{A}.service",
        "/system.slice/unknown-{A}.scope",
        // No ids.
        "/docker",
        "/docker/4f797c539e6c",
        "/docker/FD9D0EA06257A9780827CBC7FD92E3812A54FCA26D63E191B73610D5D48B9CBD",
        "/docker/{A}0",
        "/docker/gd9d0ea06257a9780827cbc7fd92e3812a54fca26d63e191b73610d5d48b9cbd",
        "/system.slice/docker-4f797c539e6c.scope",
        "/system.slice/docker-{A}.service",
        "/system.slice/docker-{A}0.scope",
        "/system.slice:cri-containerd:4f797c539e6c",
        "/system.slice:unknown:{A}",
        "/docker:{A}",
        "/ecs/bf1ddbfbbc8f45c9b1ac4f779368741e",
        "/ecs/cd189a933e5849daa93386466019ab50-",
        "/buildkit/short",
        "/default",
        "/default/init.scope",
        "/default/a..b",
        "/system.slice/default/redis-1",
        "/lxc",
        "/lxc.payload.",
        // A pod, not a container of it.
        "/kubepods/burstable/pod{POD}",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_}.slice",
        "/libpod_parent/{A}",
        // They look after a container.
        "/kubepods.slice/kubepods-pod{POD_}.slice/crio-conmon-{A}.scope",
        "/kubepods/pod{POD}/crio-conmon-{A}",
        "/machine.slice/libpod-conmon-{A}.scope",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-{A}.scope",
        "/libpod_parent/conmon",
        "/system.slice/redis.service/runtime",
        "/lxc.monitor.web",
        "/lxc.monitor/web",
        "/machine.slice/systemd-nspawn@jammy.service/supervisor",
        "/machine.slice/machine-debian.scope/supervisor",
        "/kata_overhead/{A}",
        "/kata_overhead/kubepods/burstable/pod{POD}/{A}",
        "/kubepods/burstable/pod{POD}/kata_{A}",
        "/default/kata_redis",
        // Virtual machines, a machine out of place.
        r"/machine.slice/machine-qemu\x2d1\x2ddebian12.scope/libvirt/emulator",
        "/machine.slice/machine-.scope",
        "/machine.slice",
        "/system.slice/machine-debian.scope",
        "/system.slice/systemd-nspawn@jammy.service",
    ];

    fn expand(path: &str) -> String {
        let ids = [
            ("A", A),
            ("B", B),
            ("POD", POD),
            ("POD_", POD_),
            ("STATIC", STATIC_POD),
            ("BUILD", BUILD),
            ("TASK", TASK),
        ];
        ids.iter().fold(path.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id))
    }

    #[test]
    fn containers_are_told_by_their_paths() {
        for (path, id, runtime, pod_uid) in CONTAINERS {
            let expected =
                ContainerId { id: (*id).to_owned(), runtime: *runtime, pod_uid: pod_uid.map(str::to_owned) };
            assert_eq!(identify(&expand(path)), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_not_taken_for_one() {
        for path in OTHERS {
            assert_eq!(identify(&expand(path)), None, "{path}");
        }
    }

    #[test]
    fn odd_slashes_change_nothing() {
        for (path, ..) in CONTAINERS.iter().filter(|(path, ..)| !path.ends_with(" (deleted)")) {
            let path = expand(path);
            assert_eq!(identify(&format!("{}/", path.replace('/', "//./"))), identify(&path), "{path}");
        }
    }

    #[test]
    fn a_pod_needs_a_uid_in_full() {
        for pod in
            ["pod", "podeab5a334", "pod{POD}0", "podEAB5A334-93FE-48A8-B139-9E8079C1F163", "pod-{STATIC}"]
        {
            let found = identify(&expand(&format!("/kubepods/{pod}/{{A}}")));
            assert_eq!(found.map(|container| container.pod_uid), Some(None), "{pod}");
        }
    }

    #[test]
    fn runtimes_are_lower_case_words() {
        let words = [Buildkit, Containerd, Crio, Docker, Ecs, Lxc, Nspawn, Podman].map(|r| r.to_string());
        assert_eq!(words, ["buildkit", "containerd", "crio", "docker", "ecs", "lxc", "nspawn", "podman"]);
    }

    #[test]
    fn a_path_of_any_length_takes_linear_time() {
        for part in ["/", "/a", "/docker/", "-", ":", "/lxc", r"\x2d", "/kata_overhead/", "/pod", "{A}/"] {
            let path = expand(&part.repeat(50_000));
            let start = std::time::Instant::now();
            let _ = identify(&path);
            // Milliseconds if linear, minutes if not.
            assert!(start.elapsed().as_secs() < 5, "{part}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(path in any::<String>()) {
            let _ = identify(&path);
        }

        #[test]
        fn any_path_of_familiar_parts_gives_an_id_that_is_in_it(
            parts in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(CONTAINERS).prop_map(|row| expand(row.0)),
                    proptest::sample::select(OTHERS).prop_map(expand),
                    "[-/:.@\\\\a-fx0-9]{0,12}",
                    "(docker|lxc|machine|pod|kubepods|libpod|ecs|default|é|lxc.payload)[-/.:]?",
                ],
                0..8,
            )
        ) {
            let path = parts.concat();
            if let Some(container) = identify(&path) {
                prop_assert!(!container.id.is_empty() && !container.id.contains('/'));
                prop_assert!(path.contains(&container.id) || path.contains(r"\x"));
            }
        }

        #[test]
        fn a_container_stays_one_below_a_unit(
            row in proptest::sample::select(CONTAINERS), unit in "[a-z]{1,8}\\.(service|scope|slice)"
        ) {
            let path = expand(row.0);
            prop_assume!(!path.ends_with(" (deleted)"));
            prop_assert_eq!(identify(&format!("{path}/{unit}")), identify(&path));
        }
    }
}
