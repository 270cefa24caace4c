//! `bench http`

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::{
    agent::{self, Agent, HookCounts, Memory, ToldOfActs},
    audit::Audit,
    http_producer::{self, Done},
    machine,
    price::{mib, number},
    producer::{Producers, nanos},
    sockets::PORT,
    stats::{Sample, Verdict},
    sys,
    table::Table,
    top_rate::Subject,
    write_json,
};

/// Most requests a second that may be missing where connections are kept, in percent.
const MOST_MISSING: f64 = 2.0;
/// The system calls that an audit rule is about.
const AUDITED: [&str; 12] = [
    "-a",
    "always,exit",
    "-F",
    "arch=b64",
    "-S",
    "connect",
    "-S",
    "accept",
    "-S",
    "accept4",
    "-k",
    "nightjar-bench",
];

/// What the agent costs a server of HTTP and its clients
///
/// A server (axum, hyper) answers a KiB to each request of its clients (hyper), which ask over the loopback
/// interface, each again as soon as it is answered. They keep their connections, or make one for each request; and
/// server and clients, a thread each, share a CPU, or have one each: where there are only two the agent has to get its
/// time from these. Both have a network namespace of their own.
///
/// Rounds without the agent, with an agent that records sockets alone (--kind 'network.*'), and with one as it is
/// unless told otherwise take turns, and each round is compared with the one without of the same turn. Every
/// connection is to be told.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rounds in each state
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Seconds of each of the four parts of a round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Clients that ask at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,

    /// Last, compare with the kernel's audit and a rule for connections; needs auditctl and a host that does
    /// not use audit. Leaves the rule "task,never", without which audit that was on once costs for ever
    #[arg(long)]
    audit: bool,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A part of a round.
struct Load {
    name: &'static str,
    new_connections: bool,
    /// Server and clients share a CPU.
    one_cpu: bool,
}

const LOADS: [Load; 4] = [
    Load { name: "connections kept, one CPU", new_connections: false, one_cpu: true },
    Load { name: "connections kept, two CPUs", new_connections: false, one_cpu: false },
    Load { name: "new connections, one CPU", new_connections: true, one_cpu: true },
    Load { name: "new connections, two CPUs", new_connections: true, one_cpu: false },
];

/// The loads in one state.
#[derive(Serialize)]
struct Round<S> {
    subject: S,
    parts: Vec<Part>,
    agent: Option<Watched>,
}

#[derive(Serialize)]
struct Part {
    done: Done,
    pid: u32,
    /// CPU time of the agent.
    agent_ns: u64,
}

/// The agent in a round.
#[derive(Serialize)]
struct Watched {
    memory: Memory,
    dropped: u64,
    told: ToldOfActs,
    complaint: Option<String>,
}

/// What all rounds share.
struct Bench<'a> {
    arguments: &'a Arguments,
    program: PathBuf,
    cpus: usize,
}

#[derive(Serialize)]
struct Measured {
    agent: Vec<Round<Subject>>,
    /// Without and with a rule.
    audit: Vec<Round<bool>>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let bench = Bench { arguments, program: agent::program()?, cpus: machine::cpus()? };
    let &Arguments { rounds, seconds, clients, .. } = arguments;
    // Refused now or not at all, not after minutes of rounds.
    let audit = if arguments.audit { Some(Audit::take()?) } else { None };
    println!("\nA server of HTTP and {clients} clients, {} CPUs; {}", bench.cpus, bench.program.display());
    println!("{rounds} rounds in each state, in turns, of {} parts of {seconds} s", LOADS.len());
    let mut measured = Measured { agent: Vec::new(), audit: Vec::new() };
    for turn in 0..rounds {
        for subject in Subject::in_turn(turn) {
            sys::go_on()?;
            measured.agent.push(bench.round(subject)?);
        }
    }
    measured.tell_agent();
    if let Some(audit) = audit {
        for turn in 0..rounds {
            for with in if turn % 2 == 0 { [false, true] } else { [true, false] } {
                sys::go_on()?;
                if with {
                    Audit::on(&AUDITED)?;
                } else {
                    audit.off()?;
                }
                measured.audit.push(Round { subject: with, parts: bench.parts(None)?, agent: None });
            }
        }
        audit.off()?;
        let mut table =
            Table::new(["audit, a rule for it", "", "without", "with", "change (95 %)", "goal", ""]);
        compare(&mut table, &measured.audit, (false, true), None);
        println!();
        table.print();
    }
    write_json(arguments.json.as_deref(), &measured)
}

impl Bench<'_> {
    fn round(&self, subject: Subject) -> Result<Round<Subject>> {
        let Some(asked) = subject.asked() else {
            return Ok(Round { subject, parts: self.parts(None)?, agent: None });
        };
        let agent = Agent::start(&self.program, asked)?;
        let parts = self.parts(Some(&agent))?;
        let memory = agent.memory()?;
        let dropped = agent.status()?.of_hooks(HookCounts::SOCKETS, HookCounts::lost);
        let stopped = agent.end()?;
        let complaint = stopped.complaint();
        let told = stopped.told_of_port(PORT)?;
        Ok(Round { subject, parts, agent: Some(Watched { memory, dropped, told, complaint }) })
    }

    fn parts(&self, agent: Option<&Agent>) -> Result<Vec<Part>> {
        LOADS.iter().map(|load| self.part(load, agent)).collect()
    }

    fn part(&self, load: &Load, agent: Option<&Agent>) -> Result<Part> {
        let length = Duration::from_secs(self.arguments.seconds);
        // From the last: the first CPU is where most interrupts go.
        let last = self.cpus - 1;
        let cpus = [if load.one_cpu { last } else { last.saturating_sub(1) }, last];
        let command = http_producer::command(self.arguments.clients, load.new_connections, cpus, length);
        let before = agent.map(Agent::cpu).transpose()?;
        let producers = Producers::each([command])?;
        let pid = producers.pids()[0];
        let done = producers.answers::<Done>()?.pop().context("no answer")?;
        let mut agent_ns = 0;
        if let (Some(agent), Some(before)) = (agent, before) {
            agent.await_silence()?;
            agent_ns = nanos(agent.cpu()?.total.saturating_sub(before.total));
        }
        Ok(Part { done, pid, agent_ns })
    }
}

impl Done {
    fn a_second(&self) -> f64 {
        number(self.requests) / number(self.wall_ns) * 1e9
    }

    fn cpu_micros(&self) -> f64 {
        number(self.cpu_ns) / 1e3 / number(self.requests.max(1))
    }
}

/// Rows that compare two subjects, of each load; rounds of a turn are next to each other.
fn compare<S: Copy + PartialEq>(
    table: &mut Table,
    rounds: &[Round<S>],
    (without, with): (S, S),
    goal: Option<f64>,
) {
    let of = |subject: S| rounds.iter().filter(move |round| round.subject == subject);
    for (place, load) in LOADS.iter().enumerate() {
        let measures = [
            (
                "requests",
                "1/s",
                Done::a_second as fn(&Done) -> f64,
                0,
                goal.filter(|_| !load.new_connections),
            ),
            ("  CPU time a request", "µs", Done::cpu_micros, 1, None),
        ];
        for (name, unit, figure, digits, goal) in measures {
            let sample = |subject| Sample::new(of(subject).map(|round| figure(&round.parts[place].done)));
            // The n-th without and the n-th with are of the same turn.
            let added = Sample::new(of(without).zip(of(with)).map(|(without, with)| {
                (figure(&with.parts[place].done) / figure(&without.parts[place].done) - 1.0) * 100.0
            }));
            let (low, high) = added.interval();
            table.row(&[
                format!("{name}, {}", load.name),
                unit.into(),
                sample(without).spread(digits),
                sample(with).spread(digits),
                format!("{:+.1} % ({low:+.1} to {high:+.1})", added.median()),
                goal.map(|most| format!("≥ {:+.0} %", -most)).unwrap_or_default(),
                goal.map(|most| added.at_least(-most).word().into()).unwrap_or_default(),
            ]);
        }
    }
}

impl Measured {
    fn tell_agent(&self) {
        for subject in [Subject::Network, Subject::Usual] {
            let head = format!("the agent, {}", subject.name());
            let mut table = Table::new([&head, "", "without", "with", "change (95 %)", "goal", ""]);
            compare(&mut table, &self.agent, (Subject::Nothing, subject), Some(MOST_MISSING));
            println!();
            table.print();
            self.tell_agent_alone(subject);
        }
    }

    fn tell_agent_alone(&self, subject: Subject) {
        let rounds = || self.agent.iter().filter(|round| round.subject == subject);
        let with = || rounds().filter_map(|round| round.agent.as_ref().map(|watched| (round, watched)));
        let head = format!("the agent, {}", subject.name());
        let mut table = Table::new([head.as_str(), "", "median (min–max)", "goal", ""]);
        let mut row = |name: &str, unit: &str, value: String, goal: Option<(String, bool)>| {
            let (goal, word) =
                goal.map_or_else(Default::default, |(goal, holds)| (goal, Verdict::from(holds).word()));
            table.row(&[name.into(), unit.into(), value, goal, word.into()]);
        };
        for (place, load) in LOADS.iter().enumerate() {
            let micros = |round: &Round<Subject>| {
                let part = &round.parts[place];
                number(part.agent_ns) / 1e3 / number(part.done.requests.max(1))
            };
            let name = format!("its CPU time a request, {}", load.name);
            row(&name, "µs", Sample::new(rounds().map(micros)).spread(2), None);
        }
        let peak = Sample::new(with().map(|(_, watched)| mib(watched.memory.peak)));
        row("peak resident", "MiB", peak.spread(1), None);
        for (what, of_one) in [("network.connect", 1), ("network.accept", 1), ("network.close", 2)] {
            let (mut made, mut told, mut holds) = (0, 0, true);
            for (round, watched) in with() {
                for part in &round.parts {
                    let (wanted, has) = (part.done.connections * of_one, watched.told.by(&[part.pid], what));
                    made += wanted;
                    told += has;
                    // Twice the same event would be as wrong as none.
                    holds &= wanted == has;
                }
            }
            row(
                &format!("told: {what}, all rounds"),
                "",
                told.to_string(),
                Some((format!("= {made}"), holds)),
            );
        }
        for (name, of) in [
            ("dropped by hooks of sockets, all rounds", (|watched| watched.dropped) as fn(&Watched) -> u64),
            ("lost by its own count, all rounds", |watched| watched.told.lost),
        ] {
            let lost: u64 = with().map(|(_, watched)| of(watched)).sum();
            row(name, "", lost.to_string(), Some(("= 0".into(), lost == 0)));
        }
        println!();
        table.print();
        for complaint in with().filter_map(|(_, watched)| watched.complaint.as_ref()) {
            println!("  the agent failed: {complaint}");
        }
    }
}
