//! `bench exec`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    agent::{self, Agent, Asked, Memory, Told},
    audit::{self, Audit},
    machine::{self, Machine},
    price::{mib, number},
    producer::{self, Effort, NAME, Producers, WARM_UP, nanos},
    stats::{Sample, Verdict},
    sys,
    table::Table,
    write_json,
};

/// Most that the agent may add to an exec storm, in percent.
const MOST_ADDED: f64 = 4.0;
/// Most user CPU time of the agent for an exec, in µs.
const MOST_USER_MICROS: f64 = 40.0;
/// Less than this is resident, in MiB.
const MOST_RESIDENT: f64 = 40.0;

/// What the agent costs a machine that starts programs as fast as it can
///
/// Producers, one process on each of N CPUs, do nothing but start a program and wait for its end
/// (posix_spawn, which is vfork and execve, and waitpid). Rounds without and with the agent take turns,
/// and each round is compared with its neighbour, so that what else the machine does hits both.
///
/// Two storms are made. With one producer the agent has a CPU for itself: what is added to wall and CPU
/// time is what its kernel programs cost the one who calls exec. It starts /bin/true, the smallest of real
/// programs: a larger one only makes the share of the agent smaller. With a producer on every CPU, and a
/// program that is an ELF header and exit(0), the machine makes as many execs as it ever can; the agent
/// must get its CPU time from the same CPUs and still lose nothing. Wall time there has its CPU time in it.
///
/// The agent runs as it does unless told otherwise (run --json FILE), with every sensor, and writes to a file in memory; the file is read
/// afterwards, and every exec and every exit must be in it. Its CPU time goes from the first exec until it
/// has written the last event; attaching and detaching are not in it. The kernel tells the total to a
/// nanosecond but only samples how it splits into user and system.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "shown on a terminal, as --help")]
pub struct Arguments {
    /// Rounds without and rounds with the agent
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Execs of each producer in a round
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1..))]
    execs: u32,

    /// Only one storm, with this many producers
    #[arg(long, value_name = "N")]
    producers: Option<usize>,

    /// Start this program in every storm
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,

    /// Last, compare with the kernel's audit and a rule for execve; needs auditctl and a host that does
    /// not use audit. Leaves the rule "task,never", without which audit that was on once costs for ever
    #[arg(long)]
    audit: bool,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A kind of storm.
#[derive(Debug, Serialize)]
struct Storm {
    program: PathBuf,
    /// Where producers are.
    cpus: Vec<usize>,
    execs_per_producer: u32,
    /// Whether the agent finds a CPU that no producer uses.
    leaves_a_cpu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Subject {
    Nothing,
    Agent,
    Audit,
}

/// One storm, measured.
#[derive(Debug, Serialize)]
struct Round {
    subject: Subject,
    producers: Effort,
    agent: Option<Watched>,
    /// CPU time of all that is neither a producer nor the agent.
    others_ns: u64,
    stolen_ns: u64,
}

/// The agent in a round.
#[derive(Debug, Serialize)]
struct Watched {
    cpu_ns: u64,
    user_ns: u64,
    memory: Memory,
    told: Told,
}

/// All rounds of a storm.
#[derive(Debug, Serialize)]
struct Measured {
    storm: Storm,
    rounds: Vec<Round>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let program = agent::program()?;
    // Refused now or not at all, not after minutes of rounds.
    let audit = if arguments.audit { Some(Audit::take()?) } else { None };
    let tiny = producer::tiny_program()?;
    let cpus = machine::cpus()?;

    let mut all = Vec::new();
    for storm in storms(arguments, &tiny, cpus) {
        storm.introduce(arguments.rounds, &program);
        let measured = storm.measure(arguments.rounds, Subject::Agent, |subject, storm| match subject {
            Subject::Nothing => storm.round(),
            _ => storm.watched_round(&program),
        })?;
        measured.tell_agent();
        all.push(measured);
    }
    if let Some(audit) = audit {
        audit.off()?;
        for storm in storms(arguments, &tiny, cpus) {
            println!("\nThe same storm, {}, with audit and a rule for execve", storm.name());
            let measured = storm.measure(arguments.rounds, Subject::Audit, |subject, storm| {
                match subject {
                    Subject::Nothing => audit.off()?,
                    _ => Audit::on(&audit::EXECVE)?,
                }
                storm.round()
            })?;
            measured.tell_audit();
            all.push(measured);
        }
    }
    write_json(arguments.json.as_deref(), &all)
}

fn storms(arguments: &Arguments, tiny: &Path, cpus: usize) -> Vec<Storm> {
    let storm = |producers: usize, program: &Path| Storm {
        program: arguments.program.as_deref().unwrap_or(program).to_owned(),
        // From the last: the first CPU is where most interrupts go.
        cpus: (0..producers).map(|producer| cpus - 1 - producer % cpus).collect(),
        execs_per_producer: arguments.execs,
        leaves_a_cpu: producers < cpus,
    };
    let real = Path::new("/bin/true");
    match arguments.producers {
        Some(producers) if producers < cpus => vec![storm(producers, real)],
        Some(producers) => vec![storm(producers, tiny)],
        None => vec![storm(1, real), storm(cpus, tiny)],
    }
}

impl Storm {
    fn name(&self) -> String {
        let real = self.program.to_string_lossy();
        let program = if real.contains("nightjar-bench-tiny") { "the tiny program" } else { &real };
        match self.cpus.len() {
            1 => format!("one producer of {program}"),
            producers => format!("{producers} producers of {program}"),
        }
    }

    fn introduce(&self, rounds: u32, program: &Path) {
        let room = if self.leaves_a_cpu { "the agent has a CPU left" } else { "no CPU is left to the agent" };
        println!("\nExec storm, {}: {room}", self.name());
        println!("{} execs a round, {rounds} rounds each in turns; {}", self.execs(), program.display());
    }

    fn execs(&self) -> u64 {
        u64::from(self.execs_per_producer) * self.cpus.len() as u64
    }

    /// Runs `round` with nothing and with the subject in turns.
    fn measure(
        self,
        rounds: u32,
        subject: Subject,
        round: impl Fn(Subject, &Self) -> Result<Round>,
    ) -> Result<Measured> {
        let mut measured = Vec::new();
        for number in 0..rounds {
            // Whoever always comes second would find warmer caches and a hotter CPU.
            let mut order = [Subject::Nothing, subject];
            if number % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                sys::go_on()?;
                measured.push(Round { subject, ..round(subject, &self)? });
            }
        }
        Ok(Measured { storm: self, rounds: measured })
    }

    fn round(&self) -> Result<Round> {
        let producers = Producers::start(&self.cpus, &self.program, self.execs_per_producer)?;
        let before = Machine::now()?;
        let effort = producers.run()?;
        let after = Machine::now()?;
        Ok(Round {
            subject: Subject::Nothing,
            producers: effort,
            agent: None,
            others_ns: nanos(after.busy_since(&before)).saturating_sub(effort.cpu_ns),
            stolen_ns: nanos(after.stolen_since(&before)),
        })
    }

    fn watched_round(&self, program: &Path) -> Result<Round> {
        let agent = Agent::start(program, &Asked::USUAL)?;
        let before = agent.cpu()?;
        let mut round = self.round()?;
        let during = agent.cpu()?.total.saturating_sub(before.total);
        round.others_ns = round.others_ns.saturating_sub(nanos(during));
        agent.catch_up()?;
        let after = agent.cpu()?;
        round.agent = Some(Watched {
            cpu_ns: nanos(after.total.saturating_sub(before.total)),
            user_ns: nanos(after.user.saturating_sub(before.user)),
            memory: agent.memory()?,
            told: agent.stop()?.told_of_execs(NAME)?,
        });
        Ok(round)
    }
}

const HEAD: [&str; 7] = ["", "", "without", "with", "change (95 %)", "goal", ""];

impl Measured {
    fn of(&self, subject: Subject, number: impl Fn(&Round) -> f64) -> Sample {
        Sample::new(self.rounds.iter().filter(|round| round.subject == subject).map(number))
    }

    /// What a round with the subject is above its neighbour without, in percent.
    fn added(&self, number: impl Fn(&Round) -> f64) -> Sample {
        Sample::new(self.rounds.chunks_exact(2).map(|pair| {
            let (without, with) = match pair[0].subject {
                Subject::Nothing => (&pair[0], &pair[1]),
                _ => (&pair[1], &pair[0]),
            };
            (number(with) / number(without) - 1.0) * 100.0
        }))
    }

    fn wall_micros(&self, round: &Round) -> f64 {
        micros(round.producers.wall_ns) / f64::from(self.storm.execs_per_producer)
    }

    fn cpu_micros(&self, round: &Round) -> f64 {
        self.per_exec(round.producers.cpu_ns)
    }

    fn whole_cpu_micros(&self, round: &Round) -> f64 {
        self.per_exec(round.producers.cpu_ns + round.agent.as_ref().map_or(0, |agent| agent.cpu_ns))
    }

    fn rate(&self, round: &Round) -> f64 {
        number(self.storm.execs()) / (micros(round.producers.wall_ns) / 1e6)
    }

    fn per_exec(&self, ns: u64) -> f64 {
        micros(ns) / number(self.storm.execs())
    }

    fn compare(
        &self,
        table: &mut Table,
        (name, unit): (&str, &str),
        subject: Subject,
        of: impl Fn(&Round) -> f64,
        goal: Option<f64>,
    ) {
        let added = self.added(&of);
        let (low, high) = added.interval();
        table.row(&[
            name.into(),
            unit.into(),
            self.of(Subject::Nothing, &of).spread(1),
            self.of(subject, &of).spread(1),
            format!("{:+.1} % ({low:+.1} to {high:+.1})", added.median()),
            goal.map(|goal| format!("≤ {goal:+.0} %")).unwrap_or_default(),
            goal.map(|goal| added.at_most(goal).word().into()).unwrap_or_default(),
        ]);
    }

    fn tell_agent(&self) {
        // With a producer on every CPU there is nowhere to put the agent's own CPU time.
        let goal = self.storm.leaves_a_cpu.then_some(MOST_ADDED);
        let mut table = Table::new(HEAD);
        self.compare(&mut table, ("wall time an exec", "µs"), Subject::Agent, |r| self.wall_micros(r), goal);
        self.compare(
            &mut table,
            ("CPU time an exec, producer", "µs"),
            Subject::Agent,
            |r| self.cpu_micros(r),
            Some(MOST_ADDED),
        );
        self.compare(
            &mut table,
            ("CPU time an exec, and agent", "µs"),
            Subject::Agent,
            |r| self.whole_cpu_micros(r),
            None,
        );
        self.compare(&mut table, ("execs", "1/s"), Subject::Agent, |r| self.rate(r), None);
        self.noise(&mut table, Subject::Agent);
        println!();
        table.print();
        self.tell_agent_alone();
    }

    fn tell_audit(&self) {
        let mut table = Table::new(HEAD);
        self.compare(&mut table, ("wall time an exec", "µs"), Subject::Audit, |r| self.wall_micros(r), None);
        self.compare(
            &mut table,
            ("CPU time an exec, producer", "µs"),
            Subject::Audit,
            |r| self.cpu_micros(r),
            None,
        );
        self.noise(&mut table, Subject::Audit);
        println!();
        table.print();
    }

    /// What else ran, in percent of one CPU.
    fn noise(&self, table: &mut Table, subject: Subject) {
        let mut row = |name: &str, ns: fn(&Round) -> u64| {
            let percent = |round: &Round| number(ns(round)) / number(round.producers.wall_ns) * 100.0;
            let (without, with) = (self.of(Subject::Nothing, percent), self.of(subject, percent));
            table.row(&[
                name.into(),
                "%".into(),
                without.spread(1),
                with.spread(1),
                String::new(),
                String::new(),
                String::new(),
            ]);
        };
        row("noise: other programs, of a CPU", |round| round.others_ns);
        row("noise: stolen by the hypervisor", |round| round.stolen_ns);
    }

    fn tell_agent_alone(&self) {
        let watched: Vec<&Watched> = self.rounds.iter().filter_map(|round| round.agent.as_ref()).collect();
        let sample = |of: &dyn Fn(&Watched) -> f64| Sample::new(watched.iter().map(|watched| of(watched)));
        let told = |of: fn(&Told) -> u64| watched.iter().map(move |watched| of(&watched.told));
        let user = |watched: &Watched| self.per_exec(watched.user_ns);
        let peak = |watched: &Watched| mib(watched.memory.peak);
        let expected = self.storm.execs() + u64::from(WARM_UP) * self.storm.cpus.len() as u64;

        let mut table = Table::new(["the agent", "", "median (min–max)", "goal", ""]);
        let mut row = |name: &str, unit: &str, value: String, goal: Option<(String, Verdict)>| {
            let (goal, word) = goal.map_or_else(Default::default, |(goal, verdict)| (goal, verdict.word()));
            table.row(&[name.into(), unit.into(), value, goal, word.into()]);
        };
        let plain = |of: &dyn Fn(&Watched) -> f64| sample(of).spread(1);

        let goal = (format!("≤ {MOST_USER_MICROS}"), sample(&user).at_most(MOST_USER_MICROS));
        row("user CPU time an exec", "µs", plain(&user), Some(goal));
        let system = |watched: &Watched| self.per_exec(watched.cpu_ns.saturating_sub(watched.user_ns));
        row("system CPU time an exec", "µs", plain(&system), None);
        let goal = (format!("< {MOST_RESIDENT}"), (sample(&peak).max() < MOST_RESIDENT).into());
        row("peak resident", "MiB", plain(&peak), Some(goal));
        row("  at the end, anonymous", "MiB", plain(&|watched| mib(watched.memory.anonymous)), None);
        row("  at the end, of files", "MiB", plain(&|watched| mib(watched.memory.file)), None);
        row("  at the end, shared", "MiB", plain(&|watched| mib(watched.memory.shared)), None);
        row("maps in the kernel, not resident", "MiB", plain(&|watched| mib(watched.memory.maps)), None);
        row("JSON of an exec and its exit", "B", plain(&|watched| watched.told.bytes_per_exec), None);
        for (name, of) in [
            ("execs told, worst round", (|told| told.execs) as fn(&Told) -> u64),
            ("exits told, worst round", |told| told.exits),
        ] {
            // Twice the same event would be as wrong as none.
            let goal = (format!("= {expected}"), told(of).all(|number| number == expected).into());
            row(name, "", told(of).min().unwrap_or(0).to_string(), Some(goal));
        }
        let lost: u64 = told(|told| told.lost).sum();
        row(
            "lost by its own count, all rounds",
            "",
            lost.to_string(),
            Some(("= 0".into(), (lost == 0).into())),
        );
        println!();
        table.print();
        for watched in watched.iter().filter(|watched| !watched.told.summary.ends_with("nothing lost")) {
            println!("  the agent said: {}", watched.told.summary);
        }
    }
}

fn micros(ns: u64) -> f64 {
    number(ns) / 1e3
}
