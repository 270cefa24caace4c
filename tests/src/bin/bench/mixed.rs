//! `bench mixed`

use std::{ffi::OsString, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::{
    agent::{self, Agent, Asked, HookCounts, Memory, Status, ToldOfActs, sum},
    files_producer::{Done, Work},
    machine,
    open::Files,
    price::{mib, number},
    producer::{Producers, nanos},
    programs::{self, Clocks, KernelProgram},
    stats::{Sample, Verdict},
    sys,
    table::Table,
    write_json,
};

/// Less than this is resident, in MiB.
const MOST_RESIDENT: f64 = 64.0;
/// One on each of two CPUs, or both on the only one.
const PRODUCERS: u32 = 2;

/// What becomes of a flood of file events
///
/// A hundred thousand files are there, and the directory with all of them is watched (recursive: true,
/// operations: [open, change]). Two producers first do what a build does, as fast as they can: they look for
/// headers and read them, some again and again and others once, write an object to a new file, rename it, read
/// it, delete an old one, with a few calls in between that are nobody's business. Then they open files at a given
/// rate together, every other one of the few that they opened just before. Both is also done without the agent, in
/// turns.
///
/// The agent gets its CPU time from the same CPUs and writes JSON to a file in memory. Every act that was offered
/// is to be told, by an event of its own or as one of the repeats that an event counts, or it is lost; how many are
/// missing in the file is held against what the agent says is lost. Losing is allowed here, losing silently is not.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rounds without and rounds with the agent
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Seconds that each part of a round takes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Opens a second of both producers together, in the second part
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(2_000..))]
    rate: u32,

    /// Files that are there
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..))]
    files: u32,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Acts on files, and the kind of the events that tell of them.
struct Acts {
    name: &'static str,
    kind: &'static str,
    offered: fn(&Done) -> u64,
}

const ACTS: [Acts; 5] = [
    Acts { name: "opens", kind: "file.open", offered: |done| done.opens },
    Acts { name: "files made", kind: "file.create", offered: |done| done.creates },
    Acts { name: "files written", kind: "file.modify", offered: |done| done.writings },
    Acts { name: "renames", kind: "file.rename", offered: |done| done.renames },
    Acts { name: "deletes", kind: "file.delete", offered: |done| done.deletes },
];

/// One part of a round.
#[derive(Debug, Serialize)]
struct Part {
    work: Work,
    done: Done,
    pids: Vec<u32>,
    /// What the agent had counted before and after; none without an agent.
    counted: Option<(Status, Status)>,
}

/// A round with the agent.
#[derive(Debug, Serialize)]
struct Watched {
    parts: [Part; 2],
    cpu_ns: u64,
    memory: Memory,
    told: ToldOfActs,
    /// Last line of its standard error.
    summary: String,
}

#[derive(Debug, Serialize)]
struct Measured {
    /// Both parts alone.
    without: Vec<[Done; 2]>,
    with: Vec<Watched>,
    programs: Vec<KernelProgram>,
}

/// What all rounds share.
struct Bench<'a> {
    arguments: &'a Arguments,
    program: PathBuf,
    cpus: Vec<usize>,
    files: Files,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let cpus = machine::cpus()?;
    let bench = Bench {
        arguments,
        program: agent::program()?,
        cpus: (0..PRODUCERS as usize).map(|producer| cpus - 1 - producer % cpus).collect(),
        files: Files::make(arguments.files)?,
    };
    println!(
        "\n{PRODUCERS} producers below a watched directory with {} files, {cpus} CPUs; {}",
        arguments.files,
        bench.program.display()
    );
    println!(
        "{} rounds without and with the agent: {} s of a build, {} s of {} opens/s",
        arguments.rounds, arguments.seconds, arguments.seconds, arguments.rate
    );
    let mut measured = Measured { without: Vec::new(), with: Vec::new(), programs: Vec::new() };
    for number in 0..arguments.rounds {
        let mut order = [false, true];
        if number % 2 == 1 {
            order.reverse();
        }
        for with in order {
            sys::go_on()?;
            if with {
                measured.with.push(bench.watched_round()?);
            } else {
                measured
                    .without
                    .push([bench.part(Work::Build, None)?.done, bench.part(Work::Opens, None)?.done]);
            }
        }
    }
    sys::go_on()?;
    measured.programs = bench.programs()?;
    measured.tell(arguments);
    write_json(arguments.json.as_deref(), &measured)
}

impl Bench<'_> {
    fn commands(&self, work: Work) -> Result<Vec<Vec<OsString>>> {
        let length = Duration::from_secs(self.arguments.seconds);
        let rate = self.arguments.rate / PRODUCERS;
        let own = self.files.dir().join("out");
        work.commands(&self.cpus, (&self.files.sources(), &own), length, rate)
    }

    fn part(&self, work: Work, agent: Option<&Agent>) -> Result<Part> {
        let producers = Producers::each(self.commands(work)?)?;
        let pids = producers.pids();
        let before = agent.and_then(|agent| agent.status().ok());
        let mut done = Done::default();
        for one in producers.answers::<Done>()? {
            done.add(&one);
        }
        // One that has more to do than it can may not get to answer; what its file says counts all the same.
        let after = agent.and_then(|agent| match agent.await_silence().and_then(|()| agent.status()) {
            Ok(status) => Some(status),
            Err(error) => {
                println!("  after {} acts: {error:#}", done.acts());
                None
            }
        });
        Ok(Part { work, done, pids, counted: before.zip(after) })
    }

    fn start(&self) -> Result<Agent> {
        // Made before anybody looks.
        self.commands(Work::Build)?;
        let watched = self.files.dir().to_str().context("a temporary directory that is no text")?;
        Agent::start(&self.program, &Asked::watching(watched, true, &["open", "change"]))
    }

    fn watched_round(&self) -> Result<Watched> {
        let agent = self.start()?;
        let before = agent.cpu()?.total;
        let parts = [self.part(Work::Build, Some(&agent))?, self.part(Work::Opens, Some(&agent))?];
        let cpu_ns = nanos(agent.cpu()?.total.saturating_sub(before));
        let memory = agent.memory()?;
        // One that could not hand over all in time says so; what is missing then is the question here.
        let stopped = agent.end()?;
        let summary = stopped.summary();
        let told = stopped.told_of_files(self.files.dir())?;
        Ok(Watched { parts, cpu_ns, memory, told, summary })
    }

    fn programs(&self) -> Result<Vec<KernelProgram>> {
        let agent = self.start()?;
        let clocks = Clocks::start()?;
        let before = agent.programs()?;
        self.part(Work::Build, None)?;
        let programs = programs::between(&before, agent.programs()?);
        drop(clocks);
        agent.end()?;
        Ok(programs)
    }
}

impl Acts {
    /// How many were offered and told of.
    fn in_part(&self, watched: &Watched, part: &Part) -> (u64, u64) {
        ((self.offered)(&part.done), watched.told.by(&part.pids, self.kind))
    }
}

impl Watched {
    fn offered(&self) -> u64 {
        self.parts.iter().map(|part| part.done.acts()).sum()
    }

    /// Acts of which no event tells.
    fn missing(&self) -> u64 {
        let of = |(offered, told): (u64, u64)| offered.saturating_sub(told);
        let parts = self.parts.iter();
        parts.map(|part| ACTS.iter().map(|acts| of(acts.in_part(self, part))).sum::<u64>()).sum()
    }
}

impl Part {
    fn told(&self, told: &ToldOfActs) -> u64 {
        ACTS.iter().map(|acts| told.by(&self.pids, acts.kind)).sum()
    }

    /// What was counted meanwhile.
    fn counted(&self, of: impl Fn(&Status) -> u64) -> u64 {
        self.counted.as_ref().map_or(0, |(before, after)| of(after).saturating_sub(of(before)))
    }
}

impl Measured {
    fn tell(&self, arguments: &Arguments) {
        self.tell_build();
        for (place, name) in ["the build", "opens at a rate"].into_iter().enumerate() {
            self.tell_part(place, name, arguments);
        }
        self.tell_acts();
        self.tell_agent();
        programs::tell("the build", &self.programs);
    }

    fn tell_build(&self) {
        let without = |of: &dyn Fn(&Done) -> f64| Sample::new(self.without.iter().map(|parts| of(&parts[0])));
        let with = |of: &dyn Fn(&Done) -> f64| Sample::new(self.with.iter().map(|w| of(&w.parts[0].done)));
        let mut table = Table::new(["the build", "", "without", "with", "change (95 %)", "", ""]);
        let mut row = |name: &str, unit: &str, of: &dyn Fn(&Done) -> f64| {
            let pairs = self.without.iter().zip(&self.with);
            let changes = Sample::new(pairs.map(|(a, b)| (of(&b.parts[0].done) / of(&a[0]) - 1.0) * 100.0));
            let (low, high) = changes.interval();
            table.row(&[
                name.into(),
                unit.into(),
                without(of).spread(1),
                with(of).spread(1),
                format!("{:+.1} % ({low:+.1} to {high:+.1})", changes.median()),
                String::new(),
                String::new(),
            ]);
        };
        row("units", "1/s", &|done| done.a_second(done.units));
        row("CPU time a unit, producer", "µs", &|done| number(done.cpu_ns) / 1e3 / number(done.units));
        println!();
        table.print();
    }

    fn tell_part(&self, place: usize, name: &str, arguments: &Arguments) {
        let parts = || self.with.iter().map(|watched| (&watched.parts[place], watched));
        let rate = |of: &dyn Fn(&Part, &Watched) -> u64| {
            Sample::new(parts().map(|(part, watched)| part.done.a_second(of(part, watched)) / 1e3))
        };
        let all = |of: &dyn Fn(&Part, &Watched) -> u64| parts().map(|(part, w)| of(part, w)).sum::<u64>();
        let hooks = |of: fn(&HookCounts) -> u64| {
            move |part: &Part, _: &Watched| part.counted(|status| status.of_hooks(HookCounts::FILES, of))
        };
        let flow = |of: fn(&Status) -> u64| move |part: &Part, _: &Watched| part.counted(of);

        let mut table = Table::new([name, "all rounds", "1000/s, median (min–max)", "goal", ""]);
        let mut row = |name: &str, of: &dyn Fn(&Part, &Watched) -> u64, goal: Option<(String, Verdict)>| {
            let (goal, word) = goal.map_or_else(Default::default, |(goal, verdict)| (goal, verdict.word()));
            table.row(&[name.into(), all(of).to_string(), rate(of).spread(1), goal, word.into()]);
        };
        let offered = |part: &Part, _: &Watched| part.done.acts();
        let goal = (place == 1).then(|| {
            let wanted = f64::from(arguments.rate) / 1e3;
            // What a slice rounds away, and its start, are no shortfall. A machine that cannot offer as much says
            // nothing about the agent.
            let reached = rate(&offered).median() >= wanted * 0.98;
            (format!("≥ {wanted:.0}"), if reached { Verdict::Passes } else { Verdict::Unclear })
        });
        row("acts offered by the producers", &offered, goal);
        row("calls seen by hooks of files", &hooks(|counts| counts.seen), None);
        row("  filtered: no act, or not watched", &hooks(|counts| counts.filtered), None);
        row("  folded into an earlier event", &hooks(|counts| counts.aggregated), None);
        row("  submitted", &hooks(|counts| counts.submitted), None);
        row("  dropped", &hooks(HookCounts::lost), None);
        row("records received by the agent", &flow(|status| status.flow.received), None);
        row("events exported", &flow(|status| sum(&status.flow.exported)), None);
        row("lost anywhere, by its own count", &flow(|status| status.losses.total), None);
        row("acts told by events", &|part, watched| part.told(&watched.told), None);
        println!();
        table.print();
        let alone =
            Sample::new(self.without.iter().map(|parts| parts[place].a_second(parts[place].acts()) / 1e3));
        println!("  Without the agent, {} thousand acts a second are offered here.", alone.spread(1));
    }

    fn tell_acts(&self) {
        let mut table = Table::new(["acts", "offered", "told", "missing", "told twice", "goal", ""]);
        for acts in &ACTS {
            let (mut offered, mut told, mut missing, mut twice) = (0, 0, 0, 0);
            for watched in &self.with {
                for part in &watched.parts {
                    let (of_part, told_of_part) = acts.in_part(watched, part);
                    offered += of_part;
                    told += told_of_part;
                    missing += of_part.saturating_sub(told_of_part);
                    twice += told_of_part.saturating_sub(of_part);
                }
            }
            table.row(&[
                acts.name.into(),
                offered.to_string(),
                told.to_string(),
                missing.to_string(),
                twice.to_string(),
                "none twice".into(),
                Verdict::from(twice == 0).word().into(),
            ]);
        }
        println!();
        table.print();
    }

    fn tell_agent(&self) {
        let sample = |of: &dyn Fn(&Watched) -> f64| Sample::new(self.with.iter().map(of));
        let mut table = Table::new(["the agent", "", "median (min–max)", "goal", ""]);
        let mut row = |name: &str, unit: &str, value: String, goal: Option<(String, bool)>| {
            let (goal, word) =
                goal.map_or_else(Default::default, |(goal, holds)| (goal, Verdict::from(holds).word()));
            table.row(&[name.into(), unit.into(), value, goal, word.into()]);
        };
        let cpu = |watched: &Watched| number(watched.cpu_ns) / 1e3 / number(watched.offered());
        row("its CPU time an act", "µs", sample(&cpu).spread(2), None);
        let peak = sample(&|watched| mib(watched.memory.peak));
        let goal = (format!("< {MOST_RESIDENT}"), peak.max() < MOST_RESIDENT);
        row("peak resident", "MiB", peak.spread(1), Some(goal));
        row("  at the end, anonymous", "MiB", sample(&|w| mib(w.memory.anonymous)).spread(1), None);
        row("maps in the kernel, not resident", "MiB", sample(&|w| mib(w.memory.maps)).spread(1), None);
        let bytes = |w: &Watched| number(w.told.bytes) / number(w.told.events.max(1));
        row("JSON of an event", "B", sample(&bytes).spread(0), None);

        let counted = || self.with.iter().filter_map(|watched| watched.parts[1].counted.as_ref());
        let identities = || counted().flat_map(|(_, after)| &after.identities);
        let broken: Vec<&str> =
            identities().filter(|sum| !sum.holds).map(|identity| identity.of.as_str()).collect();
        let holding = identities().count() - broken.len();
        row("sums that hold, all rounds", "", holding.to_string(), {
            Some((format!("= {}", identities().count()), broken.is_empty()))
        });
        let missing: u64 = self.with.iter().map(Watched::missing).sum();
        let lost: u64 = self.with.iter().map(|watched| watched.told.lost).sum();
        // What a hook lost and a notification told of all the same is not missing.
        let accounted = self.with.iter().all(|watched| watched.missing() <= watched.told.lost);
        let goal = (format!("≤ {lost}, which it says are lost"), accounted);
        row("acts missing, all rounds", "", missing.to_string(), Some(goal));
        println!();
        table.print();
        if !broken.is_empty() {
            println!("  sums that do not hold: {}", broken.join(", "));
        }
        for (_, after) in counted() {
            for loss in &after.losses.losses {
                println!("  the agent lost {} of {}: {}", loss.count, loss.hook, loss.reason);
            }
        }
        for watched in &self.with {
            println!("  the agent said: {}", watched.summary);
        }
    }
}
