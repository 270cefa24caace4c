//! Sockets that tests open by `rawnet`, and what is told of them.

use std::{
    collections::BTreeMap,
    process::{ChildStdin, Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    agent::{Agent, shared},
    event::{Event, network},
    netns::{Host, Hosts},
    os,
    run::rawnet_path,
    session::{Session, until},
    watched::Told,
};

/// What is told of one connection between two hosts, and of the listener that it is made to.
pub const TALK: [&str; 7] = [
    "network.bind",
    "network.listen",
    "network.connect",
    "network.accept",
    "network.close",
    "network.close",
    "network.close",
];

/// Kinds of events that these tests are about, and the one that others wait for.
const KINDS: [&str; 2] = ["process.exec", "network.*"];
/// Beginning of addresses that only are talked to so that there is something to be told.
const ELSEWHERE: &str = "127.0.77.";
/// How long an event may take that is expected, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// As `rawnet` ends where the kernel lacks what it needs.
const SKIPPED: i32 = 77;

/// Two hosts, and all that is told of their sockets.
#[derive(Debug)]
pub struct Wire {
    /// The one that mostly connects.
    pub a: &'static Host,
    /// The one that mostly listens.
    pub b: &'static Host,
    mark: usize,
}

/// What `rawnet` says it did.
#[derive(Debug)]
pub struct Talk {
    /// Process ID that it had.
    pub pid: u32,
    /// What it said, a line for each act.
    pub lines: Vec<Value>,
}

/// `rawnet` while it waits for a line or the end of its input. Dropped, it is killed.
#[derive(Debug)]
pub struct Peer {
    session: Session,
    input: ChildStdin,
}

/// Starts the agent that all tests of a file share, if it does not run yet: it shows all kinds of network events.
pub fn watch_network(configuration: &str) {
    static WATCHES: Once = Once::new();
    WATCHES.call_once(|| {
        Agent::share_kinds(configuration, &KINDS);
        until("sockets are watched", || {
            let mark = shared::mark();
            do_elsewhere("send", "");
            thread::sleep(LOOK);
            (shared::count_network_events(&[ELSEWHERE.to_owned()], mark) > 0).then_some(())
        });
    });
}

/// Starts an agent of its own that shows all kinds of network events.
#[must_use]
pub fn network_agent(configuration: &str) -> Agent {
    let kinds = KINDS.iter().flat_map(|kind| ["--kind", kind]);
    let agent = Agent::configured(configuration, &kinds.collect::<Vec<_>>());
    until("sockets are watched", || {
        do_elsewhere("send", "");
        thread::sleep(LOOK);
        (agent.count_more_network_events(ELSEWHERE, &mut 0) > 0).then_some(())
    });
    agent
}

/// Lines of JSON; one that is not whole yet is left out.
fn lines_of(text: &str) -> Vec<Value> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    whole.lines().map(parse).collect()
}

/// How many there are of each kind.
fn counts_of(kinds: Vec<&str>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// As events have it that are of sockets there.
fn in_namespace(host: &Host) -> String {
    format!("\"namespace\":{}", host.namespace())
}

/// `rawnet` with these words.
fn rawnet(words: &str) -> Command {
    let mut command = Command::new(rawnet_path());
    command.args(words.split_whitespace()).stdin(Stdio::piped());
    os::die_with_this_thread(&mut command);
    command
}

// === impl Wire ===

impl Wire {
    /// Two new hosts. [`watch_network`] comes first.
    pub fn new() -> Self {
        // They stay until the program ends: the number of a namespace that is gone may be given to another, which
        // would be taken for this one.
        let hosts: &'static Hosts = Box::leak(Box::new(Hosts::new()));
        Self { a: &hosts.a, b: &hosts.b, mark: shared::mark() }
    }

    /// All network events of the two hosts so far, but for what this program itself did.
    pub fn events(&self) -> Vec<Event> {
        let of_host = |host: &Host| {
            let mut events = shared::network_events(&in_namespace(host), self.mark);
            // The number may be the beginning of another one.
            events.retain(|event| event.number("network.namespace") == host.namespace());
            events
        };
        let mut events = [of_host(self.a), of_host(self.b)].concat();
        events.sort_by_key(|event| event.nanos("time"));
        events
    }

    /// Serves on one host by these words of `rawnet`, and runs it on the other with those, in which `ADDRESS` is where
    /// is served; comes back when both have ended. The one that connects is first.
    pub fn talk(&self, serve: &str, connect: &str) -> (Talk, Talk) {
        let server = self.b.serve(&serve.replace("HERE", &self.b.ipv4()));
        let client = self.a.rawnet(&connect.replace("ADDRESS", &server.address()));
        (client, server.finish())
    }

    /// Waits until there are as many events as these kinds, and then no more; they are of these kinds.
    pub fn told(&self, kinds: &[&str]) -> Told {
        let deadline = Instant::now() + PATIENCE;
        let hosts = [self.a, self.b].map(in_namespace);
        let count = || shared::count_network_events(&hosts, self.mark);
        while count() < kinds.len() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        self.settle();
        let has_flows = self.events().iter().any(|event| {
            event.text("network.family") != "unix" && event.get("network.type") != Some(&"stream".into())
        });
        if has_flows {
            self.settle_flows();
        }
        let told = Told(self.events());
        assert_eq!(counts_of(told.kinds()), counts_of(kinds.to_vec()), "{told}");
        told
    }

    /// Waits until all that has happened so far was told, but for ends of flows of datagrams and what the agent tells
    /// after a while only.
    pub fn settle(&self) {
        let mark = shared::mark();
        let pid = do_elsewhere("connect", "--expect ECONNREFUSED");
        shared::expect(&network("network.connect").of_process(pid), mark);
        shared::catch_up();
    }

    /// As [`Self::settle`], with ends of flows: what they counted is looked up for them.
    pub fn settle_flows(&self) {
        let mark = shared::mark();
        let pid = do_elsewhere("send", "");
        shared::expect(&network("network.close").of_process(pid), mark);
    }
}

/// Does something where no test looks, to an address that nothing is done to otherwise; gives who did it.
fn do_elsewhere(act: &str, more: &str) -> u32 {
    /// Discard, which nobody serves any more.
    const PORT: u16 = 9;
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let number = DONE.fetch_add(1, Ordering::Relaxed) % 250 + 1;
    let session = Session::start(rawnet(&format!("{act} {ELSEWHERE}{number}:{PORT} {more}")));
    let pid = session.pid();
    let output = session.finish();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pid
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

// === Host, with `rawnet` ===

impl Host {
    /// Runs `rawnet` with these words here, to its end, which is a good one.
    pub fn rawnet(&self, words: &str) -> Talk {
        self.start(words).finish()
    }

    /// As [`Self::rawnet`], of what goes on for as long as it takes.
    pub fn rawnet_that_takes_long(&self, words: &str) -> Talk {
        let mut command = rawnet(words);
        self.enter(&mut command);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
        let pid = child.id();
        let output = child.wait_with_output().expect("our own child");
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        Talk { pid, lines: lines_of(&String::from_utf8_lossy(&output.stdout)) }
    }

    /// As [`Self::rawnet`]; nothing where the kernel lacks what it needs.
    pub fn rawnet_unless_skipped(&self, words: &str) -> Option<Talk> {
        self.start(words).finish_unless_skipped()
    }

    /// Starts `rawnet` with these words here.
    pub fn start(&self, words: &str) -> Peer {
        self.start_with(words, &[])
    }

    /// As [`Self::start`], with more in its environment.
    pub fn start_with(&self, words: &str, variables: &[(&str, &str)]) -> Peer {
        let mut command = rawnet(words);
        command.envs(variables.iter().copied());
        self.enter(&mut command);
        let mut session = Session::start(command);
        let input = session.input();
        Peer { session, input }
    }

    /// Starts one of the programs of `rawnet` that serve; comes back when it does.
    pub fn serve(&self, words: &str) -> Peer {
        let peer = self.start(words);
        peer.await_line("ready");
        peer
    }

    /// As [`Self::serve`]; nothing where the kernel lacks what it needs.
    pub fn serve_unless_skipped(&self, words: &str) -> Option<Peer> {
        let peer = self.start(words);
        let text = peer.session.await_output("it serves, or says why it does not", |text| {
            lines_of(text).iter().any(|line| line["act"] == "ready" || line["skipped"].is_string())
        });
        lines_of(&text).iter().all(|line| line["skipped"].is_null()).then_some(peer)
    }
}

// === impl Peer ===

impl Peer {
    /// Process ID.
    pub fn pid(&self) -> u32 {
        self.session.pid()
    }

    /// What it said so far.
    pub fn lines(&self) -> Vec<Value> {
        lines_of(&self.session.output())
    }

    /// Waits for a line about this act; gives the first.
    pub fn await_line(&self, act: &str) -> Value {
        self.await_lines(act, 1).swap_remove(0)
    }

    /// Waits for as many lines about this act.
    pub fn await_lines(&self, act: &str, count: usize) -> Vec<Value> {
        let of_act = |text: &str| -> Vec<Value> {
            lines_of(text).into_iter().filter(|line| line["act"] == act).collect()
        };
        let text = self.session.await_output(act, |text| of_act(text).len() >= count);
        of_act(&text)
    }

    /// The port that it listens on or is bound to, the last of several.
    pub fn port(&self) -> u64 {
        let line = self.await_lines("bind", 1).pop().expect("at least one");
        line["local"]["port"].as_u64().expect("a port")
    }

    /// As [`Self::port`], with the address before it.
    pub fn address(&self) -> String {
        let line = self.await_lines("bind", 1).pop().expect("at least one");
        let address = line["local"]["address"].as_str().expect("an address").to_owned();
        let port = &line["local"]["port"];
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }

    /// Gives it the line that it waits for.
    pub fn go_on(&mut self) {
        use std::io::Write as _;
        self.input.write_all(b"\n").expect("it reads its input");
    }

    /// Kills it.
    pub fn kill(self) -> Talk {
        self.session.signal(Signal::KILL);
        let (pid, output) = (self.session.pid(), self.session.finish());
        Talk { pid, lines: lines_of(&String::from_utf8_lossy(&output.stdout)) }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.session.signal(signal);
    }

    /// Ends its input, so that it goes on to its end, which is a good one.
    pub fn finish(self) -> Talk {
        self.finish_unless_skipped().unwrap_or_else(|| panic!("skipped"))
    }

    /// As [`Self::finish`]; nothing where the kernel lacks what it needs.
    pub fn finish_unless_skipped(self) -> Option<Talk> {
        drop(self.input);
        let (pid, output) = (self.session.pid(), self.session.finish());
        if output.status.code() == Some(SKIPPED) {
            return None;
        }
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Some(Talk { pid, lines: lines_of(&String::from_utf8_lossy(&output.stdout)) })
    }
}

// === impl Talk ===

impl Talk {
    /// The only line about this act.
    pub fn line(&self, act: &str) -> &Value {
        let lines: Vec<_> = self.acts(act).collect();
        assert_eq!(lines.len(), 1, "{act}: {:?}", self.lines);
        lines[0]
    }

    /// The line about the end of the only connection: what ends a listener is about no other side.
    pub fn end(&self) -> &Value {
        let mut ends = self.acts("close").filter(|line| !line["remote"].is_null());
        ends.next().unwrap_or_else(|| panic!("no end of a connection: {:?}", self.lines))
    }

    /// Lines about such an act.
    pub fn acts(&self, act: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["act"] == act)
    }

    /// A number that it said in its only line about this act.
    pub fn number(&self, act: &str, name: &str) -> u64 {
        let line = self.line(act);
        line[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"))
    }
}
