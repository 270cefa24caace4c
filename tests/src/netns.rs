//! Two hosts on one wire: network namespaces that are joined by a pair of virtual interfaces.
//!
//! Nothing of what they send leaves them. They go when they are dropped and no process is in them any more.

use std::{
    fs,
    io::Write as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    process::{Command, Stdio},
    thread,
};

use crate::{os, session::until};

/// Two hosts that see each other.
#[derive(Debug)]
pub struct Hosts {
    /// One of them.
    pub a: Host,
    /// The other.
    pub b: Host,
}

/// A network namespace with a loopback interface and one that leads to the other host.
#[derive(Debug)]
pub struct Host {
    namespace: OwnedFd,
    inode: u64,
    interface: &'static str,
    number: u8,
}

/// Where nobody is, though packets are sent there: they get no answer.
const SILENT: u8 = 99;
/// A hardware address that no interface has.
const NOBODY: &str = "02:00:00:00:00:99";

// === impl Hosts ===

impl Hosts {
    /// Makes two hosts.
    pub fn new() -> Self {
        let (a, b) = (Host::new("wire-a", 1), Host::new("wire-b", 2));
        a.ip(&format!("link add {} type veth peer name {}", a.interface, b.interface));
        // As a path: the name of a namespace would be one in /run/netns.
        let descriptor = format!("/proc/{}/fd/{}", std::process::id(), b.namespace.as_raw_fd());
        a.ip(&format!("link set {} netns {descriptor}", b.interface));
        for host in [&a, &b] {
            host.raise();
        }
        // Until then all that is sent gets lost.
        for host in [&a, &b] {
            until("the wire is up", || {
                host.ip(&format!("-o link show {}", host.interface)).contains("state UP").then_some(())
            });
        }
        // What a packet needs to find its way is learned before a test looks at how long things take.
        a.knows(&b);
        b.knows(&a);
        Self { a, b }
    }

    /// Both.
    pub fn both(&self) -> [&Host; 2] {
        [&self.a, &self.b]
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Host ===

impl Host {
    fn new(interface: &'static str, number: u8) -> Self {
        let namespace = os::new_network();
        let inode = fs::File::from(namespace.try_clone().expect("room for one more descriptor"));
        let inode = inode.metadata().expect("an open file").ino();
        Self { namespace, inode, interface, number }
    }

    /// Inode number of its namespace.
    pub fn namespace(&self) -> u64 {
        self.inode
    }

    /// Name of the interface that leads to the other host.
    pub fn interface(&self) -> &'static str {
        self.interface
    }

    /// Number of that interface.
    pub fn interface_index(&self) -> u64 {
        let text = self.ip(&format!("-o link show {}", self.interface));
        let number = text.split(':').next().and_then(|number| number.trim().parse().ok());
        number.unwrap_or_else(|| panic!("no number in {text:?}"))
    }

    /// Address of IPv4.
    pub fn ipv4(&self) -> String {
        format!("192.0.2.{}", self.number)
    }

    /// Address of IPv6.
    pub fn ipv6(&self) -> String {
        format!("2001:db8::{}", self.number)
    }

    /// Link-local address, which the other host has to name its interface for.
    pub fn link_local(&self) -> String {
        format!("fe80::{}", self.number)
    }

    /// An address of IPv4 on this wire where nobody is and nothing comes back from.
    pub fn silent(&self) -> String {
        format!("192.0.2.{SILENT}")
    }

    /// Runs a command in it, as far as the network goes.
    pub fn enter(&self, command: &mut Command) {
        os::enter_network(command, &self.namespace);
    }

    /// Does something in it, in a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                os::go_to_network(&self.namespace);
                work()
            });
            thread.join().expect("it did not fail")
        })
    }

    /// Reads a file of `/proc/net` as it is there, such as `tcp`.
    pub fn proc_net(&self, name: &str) -> String {
        let path = format!("/proc/thread-self/net/{name}");
        self.inside(|| {
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
        })
    }

    /// Sets a parameter of its network, such as `ipv4/tcp_fastopen`.
    pub fn set(&self, parameter: &str, value: &str) {
        let path = format!("/proc/sys/net/{parameter}");
        self.inside(|| {
            fs::write(&path, value).unwrap_or_else(|error| panic!("cannot write {value} to {path}: {error}"));
        });
    }

    /// Lets all that is sent to the other host get lost from now on.
    pub fn is_cut_off_from(&self, other: &Self) {
        self.sends_to(&[other.ipv4(), other.ipv6()], NOBODY);
    }

    /// Lets what is sent to the other host arrive, as it does at first.
    pub fn is_joined_to(&self, other: &Self) {
        self.knows(other);
    }

    fn knows(&self, other: &Self) {
        self.sends_to(&[other.ipv4(), other.ipv6(), other.link_local()], &other.hardware_address());
    }

    fn sends_to(&self, addresses: &[String], hardware: &str) {
        let interface = self.interface;
        for address in addresses {
            self.ip(&format!("neighbor replace {address} lladdr {hardware} dev {interface} nud permanent"));
        }
    }

    fn hardware_address(&self) -> String {
        format!("02:00:00:00:00:0{}", self.number)
    }

    /// Gives it its addresses and has its interfaces up.
    fn raise(&self) {
        let (interface, hardware) = (self.interface, self.hardware_address());
        self.ip_batch(&[
            "link set lo up".to_owned(),
            format!("link set {interface} addrgenmode none"),
            format!("link set {interface} address {hardware} up"),
            format!("address add {}/24 dev {interface}", self.ipv4()),
            format!("address add {}/64 dev {interface} nodad", self.ipv6()),
            format!("address add {}/64 dev {interface} nodad", self.link_local()),
            format!("neighbor add {} lladdr {NOBODY} dev {interface} nud permanent", self.silent()),
            // To each of these another error is given.
            "route add prohibit 198.51.100.1".to_owned(),
            "route add unreachable 198.51.100.2".to_owned(),
            "route add blackhole 198.51.100.3".to_owned(),
            format!("route add 239.0.0.0/8 dev {interface}"),
        ]);
    }

    /// Runs `ip` with these words; what it prints.
    pub fn ip(&self, words: &str) -> String {
        self.run_ip(&words.split(' ').collect::<Vec<_>>(), "")
    }

    /// Runs many commands of `ip` at once.
    fn ip_batch(&self, commands: &[String]) {
        self.run_ip(&["-batch", "-"], &commands.join("\n"));
    }

    fn run_ip(&self, words: &[&str], input: &str) -> String {
        let mut command = Command::new("ip");
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.enter(&mut command);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot run ip (of iproute2): {error}"));
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads its input");
        let output = child.wait_with_output().expect("our own child");
        assert!(output.status.success(), "ip {words:?} {input}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn two_hosts_see_each_other_and_nobody_else() {
        if !rustix::process::geteuid().is_root() {
            return crate::skip("network namespaces need root");
        }
        let hosts = Hosts::new();
        assert_ne!(hosts.a.namespace(), hosts.b.namespace());
        for address in [hosts.b.ipv4(), format!("[{}]", hosts.b.ipv6())] {
            let listener = hosts.b.inside(|| TcpListener::bind(format!("{address}:0")).unwrap());
            let target = listener.local_addr().unwrap();
            let mut client = hosts.a.inside(|| TcpStream::connect(target).unwrap());
            client.write_all(b"hello").unwrap();
            drop(client);
            let (mut accepted, from) = listener.accept().unwrap();
            let mut text = String::new();
            accepted.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
            assert!([hosts.a.ipv4(), hosts.a.ipv6()].contains(&from.ip().to_string()), "{from}");
        }
        let listener = hosts.b.inside(|| TcpListener::bind(format!("{}:0", hosts.b.ipv4())).unwrap());
        let port = format!(":{:04X} ", listener.local_addr().unwrap().port());
        assert!(hosts.b.proc_net("tcp").contains(&port));
        assert!(!hosts.a.proc_net("tcp").contains(&port));
    }
}
