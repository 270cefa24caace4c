//! As many as a machine can make, and whether the agent has told of every one.

use std::{path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{
    agent::{Agent, Asked, HookCounts, Memory, Status, ToldOfActs},
    price::{mib, number},
    producer::{Producers, nanos},
    sockets::PORT,
    sockets_producer::{Done, Work},
    stats::{Sample, Verdict},
    sys,
    table::Table,
};

/// What is made, and what is told of it.
pub struct Flood<'a> {
    /// The agent.
    pub program: &'a Path,
    pub work: Work,
    /// What one of it is called.
    pub unit: &'a str,
    /// Where producers are, one each.
    pub cpus: &'a [usize],
    pub length: Duration,
    /// How often every subject comes.
    pub rounds: u32,
    /// What is told of one (as [`ToldOfActs::acts`] has it), and how many of that.
    pub told: &'a [(&'a str, u64)],
}

/// What the machine is under.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    Nothing,
    /// An agent that records sockets alone.
    Network,
    /// An agent as it is unless told otherwise.
    Usual,
}

/// A flood, measured.
#[derive(Serialize)]
pub struct Round {
    subject: Subject,
    done: Done,
    agent: Option<Watched>,
}

/// The agent in a round.
#[derive(Serialize)]
struct Watched {
    cpu_ns: u64,
    memory: Memory,
    pids: Vec<u32>,
    status: Option<Status>,
    told: ToldOfActs,
    complaint: Option<String>,
}

impl Subject {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Network, Self::Usual];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "without",
            Self::Network => "network alone",
            Self::Usual => "as usual",
        }
    }

    /// What the agent is asked to watch, where there is one.
    pub fn asked(self) -> Option<&'static Asked> {
        match self {
            Self::Nothing => None,
            Self::Network => Some(&Asked::NETWORK),
            Self::Usual => Some(&Asked::USUAL),
        }
    }

    /// All of them, in the order of this turn: whoever always comes second would find warmer caches and a hotter CPU.
    pub fn in_turn(turn: u32) -> impl Iterator<Item = Self> {
        let first = turn as usize % Self::ALL.len();
        (first..first + Self::ALL.len()).map(|place| Self::ALL[place % Self::ALL.len()])
    }
}

impl Flood<'_> {
    pub fn measure(&self) -> Result<Vec<Round>> {
        let (workers, length) = (self.cpus.len(), self.length);
        println!(
            "\nAs many {}s as there can be for {length:?}, {workers} workers, {} rounds in turns",
            self.unit, self.rounds
        );
        let mut rounds = Vec::new();
        for turn in 0..self.rounds {
            for subject in Subject::in_turn(turn) {
                sys::go_on()?;
                rounds.push(self.round(subject)?);
            }
        }
        Ok(rounds)
    }

    fn round(&self, subject: Subject) -> Result<Round> {
        let agent = subject.asked().map(|asked| Agent::start(self.program, asked)).transpose()?;
        let before = agent.as_ref().map(Agent::cpu).transpose()?.map(|cpu| cpu.total).unwrap_or_default();
        let producers = Producers::each(self.cpus.iter().map(|cpu| self.work.command(*cpu, self.length)))?;
        let pids = producers.pids();
        let mut done = Done::default();
        for one in producers.answers::<Done>()? {
            done.add(&one);
        }
        let Some(agent) = agent else { return Ok(Round { subject, done, agent: None }) };
        // One that has more to do than it can may not get to answer; what its file says counts all the same.
        let status = match agent.await_silence().and_then(|()| agent.status()) {
            Ok(status) => Some(status),
            Err(error) => {
                println!("  after {} {}s: {error:#}", done.made, self.unit);
                None
            }
        };
        let cpu_ns = nanos(agent.cpu()?.total.saturating_sub(before));
        let memory = agent.memory()?;
        let stopped = agent.end()?;
        let complaint = stopped.complaint();
        let told = stopped.told_of_port(PORT)?;
        Ok(Round { subject, done, agent: Some(Watched { cpu_ns, memory, pids, status, told, complaint }) })
    }

    pub fn tell(&self, rounds: &[Round]) {
        Self::tell_cost(rounds);
        self.tell_told(rounds);
        for watched in rounds.iter().filter_map(|round| round.agent.as_ref()) {
            for identity in watched.status.iter().flat_map(|status| &status.identities) {
                if !identity.holds {
                    println!(
                        "  a sum does not hold: {} ({} ≠ {})",
                        identity.of, identity.left, identity.right
                    );
                }
            }
            for loss in watched.status.iter().flat_map(|status| &status.losses.losses) {
                println!("  the agent lost {} of {}: {}", loss.count, loss.hook, loss.reason);
            }
            if let Some(complaint) = &watched.complaint {
                println!("  the agent failed: {complaint}");
            }
        }
    }

    fn tell_cost(rounds: &[Round]) {
        let mut table = Table::new([
            "top rate",
            "rounds",
            "1000/s, median (min–max)",
            "producers' CPU, ns each",
            "agent's CPU, ns each",
            "agent's peak, MiB",
            "",
            "",
        ]);
        for subject in Subject::ALL {
            let of = || rounds.iter().filter(move |round| round.subject == subject);
            let sample = |number: &dyn Fn(&Round) -> f64| Sample::new(of().map(number));
            let agents = |figure: &dyn Fn(&Watched, &Round) -> f64, digits| {
                let with = of().filter_map(|round| Some(figure(round.agent.as_ref()?, round)));
                if subject == Subject::Nothing { String::new() } else { Sample::new(with).spread(digits) }
            };
            let each = |ns: u64, round: &Round| number(ns) / number(round.done.made.max(1));
            table.row(&[
                subject.name().into(),
                of().count().to_string(),
                sample(&|round| number(round.done.made) / number(round.done.wall_ns) * 1e6).spread(1),
                sample(&|round| each(round.done.cpu_ns, round)).spread(0),
                agents(&|watched, round| each(watched.cpu_ns, round), 0),
                agents(&|watched, _| mib(watched.memory.peak), 1),
                String::new(),
                String::new(),
            ]);
        }
        println!();
        table.print();
    }

    fn tell_told(&self, rounds: &[Round]) {
        let mut table = Table::new(["the agent", "made", "told", "missing", "told twice", "goal", ""]);
        for subject in Subject::ALL {
            let with = || {
                rounds
                    .iter()
                    .filter(|round| round.subject == subject)
                    .filter_map(|round| round.agent.as_ref().map(|watched| (round.done.made, watched)))
            };
            if with().next().is_none() {
                continue;
            }
            for (what, of_one) in self.told {
                let (mut made, mut told, mut missing, mut twice) = (0, 0, 0, 0);
                for (units, watched) in with() {
                    let (wanted, has) = (units * of_one, watched.told.by(&watched.pids, what));
                    made += wanted;
                    told += has;
                    missing += wanted.saturating_sub(has);
                    twice += has.saturating_sub(wanted);
                }
                table.row(&[
                    format!("{}: {what}", subject.name()),
                    made.to_string(),
                    told.to_string(),
                    missing.to_string(),
                    twice.to_string(),
                    "none missing, none twice".into(),
                    Verdict::from(missing == 0 && twice == 0).word().into(),
                ]);
            }
            let dropped = |watched: &Watched| {
                let status = watched.status.as_ref();
                status.map_or(0, |status| status.of_hooks(HookCounts::SOCKETS, HookCounts::lost))
            };
            for (name, lost) in [
                ("dropped by hooks of sockets", with().map(|(_, watched)| dropped(watched)).sum::<u64>()),
                ("lost by its own count", with().map(|(_, watched)| watched.told.lost).sum()),
            ] {
                table.row(&[
                    format!("{}: {name}", subject.name()),
                    String::new(),
                    lost.to_string(),
                    String::new(),
                    String::new(),
                    "= 0".into(),
                    Verdict::from(lost == 0).word().into(),
                ]);
            }
        }
        println!();
        table.print();
    }
}
