//! `bench connect` and `bench udp`

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    agent::{self, Asked, RECEIVED, SENT},
    audit::Audit,
    machine,
    price::{self, About, Caller, Comparison, Goal, Subject, Under},
    sockets::{self, Connector, Datagrams, PORT},
    sockets_producer::Work,
    top_rate::{Flood, Round},
    write_json,
};

/// Most that may be added to a connection that is made, accepted and closed at both ends, in ns.
const MOST_ADDED_CONNECTION: f64 = 1500.0;
/// Most that may be added to a datagram of a known flow, sent and received, in ns.
const MOST_ADDED_DATAGRAM: f64 = 100.0;

/// What the agent costs who connects and is connected to
///
/// A client, kept on one CPU, connects over the loopback interface, waits for the end and closes, in a loop. A server,
/// a thread on the same CPU, accepts and closes. So a call here is a connection with all of its work: connect,
/// accept, and two closes; nothing is sent. Both have a network namespace of their own.
///
/// Short rounds are timed with nothing attached, nothing attached again, an agent that records sockets alone
/// (--kind 'network.*'), and one as it is unless told otherwise. A block has many rounds of each; blocks are
/// repeated, in another order each time. Every connection is to be told, by events of its own or as one of those that
/// a network.flow counts: as made, as accepted, and ended at each end.
///
/// Then workers, a client with its server each, make as many connections as they can, without the agent and with
/// either, and every one of these is to be told too.
#[derive(Debug, Args)]
pub struct ConnectArguments {
    /// Timed rounds of a state in a block
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Connections in a round
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    #[command(flatten)]
    common: Common,
}

/// What the agent costs who sends and receives datagrams
///
/// One thread, kept on one CPU, sends a datagram of UDP over the loopback interface and receives it, in a loop, always
/// from the same socket to the same other one: a flow that is known after the first. A call here is a datagram, sent
/// and received. It has a network namespace of its own.
///
/// It is timed as `connect` is. The packets that events count are to be those that were sent and received. Then
/// workers send as many as they can, 32 at a time before they receive these, without the agent and with either, and
/// every packet is to be counted.
#[derive(Debug, Args)]
pub struct UdpArguments {
    /// Timed rounds of a state in a block
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Datagrams in a round
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    #[command(flatten)]
    common: Common,
}

/// What both have.
#[derive(Debug, Args)]
struct Common {
    /// How often every state comes
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    blocks: u32,

    /// Workers at the top rate; one a CPU unless given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,

    /// Seconds at the top rate, in each state
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// How often every state comes at the top rate; 0: never
    #[arg(long, default_value_t = 1)]
    floods: u32,

    /// Compare with the kernel's audit and a rule for the same system calls; needs auditctl and a host that does
    /// not use audit. Leaves the rule "task,never", without which audit that was on once costs for ever
    #[arg(long)]
    audit: bool,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is measured.
struct Question<'a> {
    work: Work,
    unit: &'a str,
    most_added: f64,
    rounds: u32,
    calls: u32,
    caller: &'a (dyn Fn() -> Result<Caller<'static>> + Sync),
    /// What is to be told of one, and how many of that.
    told: &'a [(&'a str, u64)],
    /// Names of the system calls that an audit rule would be about.
    audited: &'a [&'a str],
}

#[derive(Serialize)]
struct Measured {
    price: price::Measured,
    audit: Option<price::Measured>,
    top_rate: Vec<Round>,
}

pub fn connect(arguments: &ConnectArguments) -> Result<()> {
    let &ConnectArguments { rounds, calls, .. } = arguments;
    println!("\nConnecting, accepting and closing, over and over");
    arguments.common.run(&Question {
        work: Work::Connect,
        unit: "connection",
        most_added: MOST_ADDED_CONNECTION,
        rounds,
        calls,
        caller: &|| {
            sockets::isolate()?;
            let mut connector = Connector::new()?;
            Ok(Box::new(move |_| (0..calls).try_for_each(|_| connector.connect())))
        },
        told: &[("network.connect", 1), ("network.accept", 1), ("network.close", 2)],
        audited: &["connect", "accept", "accept4"],
    })
}

pub fn udp(arguments: &UdpArguments) -> Result<()> {
    let &UdpArguments { rounds, calls, .. } = arguments;
    println!("\nDatagrams of one flow, one after another");
    arguments.common.run(&Question {
        work: Work::Udp,
        unit: "datagram",
        most_added: MOST_ADDED_DATAGRAM,
        rounds,
        calls,
        caller: &|| {
            sockets::isolate()?;
            let datagrams = Datagrams::new()?;
            Ok(Box::new(move |_| (0..calls).try_for_each(|_| datagrams.exchange(1))))
        },
        told: &[(SENT, 1), (RECEIVED, 1)],
        audited: &["sendto", "recvfrom"],
    })
}

impl Common {
    fn run(&self, question: &Question) -> Result<()> {
        let program = agent::program()?;
        let cpus = machine::cpus()?;
        let (&Question { rounds, calls, unit, .. }, blocks) = (question, self.blocks);
        // Refused now or not at all, not after minutes of rounds.
        let audit = if self.audit { Some(Audit::take()?) } else { None };
        println!(
            "{rounds} rounds of {calls} {unit}s in each state, {blocks} blocks in turns; {}",
            program.display()
        );
        let goal = Some(Goal::Median(question.most_added));
        let agent = |name, asked| Subject { name, under: Under::Agent(asked, question.told), goal };
        let comparison = Comparison {
            program: &program,
            cpu: cpus - 1,
            blocks,
            rounds,
            calls,
            caller: &|| (question.caller)(),
            about: About::Port(PORT),
            subjects: &[agent("the agent, network alone", Asked::NETWORK), agent("the agent", Asked::USUAL)],
            audit: None,
        };
        let price = comparison.measure()?;
        comparison.tell(&price);

        let flood = Flood {
            program: &program,
            work: question.work,
            unit,
            // From the last: the first CPU is where most interrupts go.
            cpus: &self.workers(cpus).map(|worker| cpus - 1 - worker % cpus).collect::<Vec<_>>(),
            length: Duration::from_secs(self.seconds),
            rounds: self.floods,
            told: question.told,
        };
        let top_rate = if self.floods > 0 { flood.measure()? } else { Vec::new() };
        if !top_rate.is_empty() {
            flood.tell(&top_rate);
        }

        let mut with_audit = None;
        if let Some(audit) = audit {
            let mut rule = vec!["-a", "always,exit", "-F", "arch=b64"];
            rule.extend(question.audited.iter().flat_map(|&call| ["-S", call]));
            rule.extend(["-k", "nightjar-bench"]);
            let subject = Subject { name: "audit, a rule for it", under: Under::Audit(rule), goal: None };
            let comparison =
                Comparison { subjects: std::slice::from_ref(&subject), audit: Some(&audit), ..comparison };
            let measured = comparison.measure()?;
            comparison.tell(&measured);
            with_audit = Some(measured);
        }
        write_json(self.json.as_deref(), &Measured { price, audit: with_audit, top_rate })
    }

    fn workers(&self, cpus: usize) -> std::ops::Range<usize> {
        0..self.workers.map_or(cpus, |workers| workers as usize)
    }
}
