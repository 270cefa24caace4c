//! What a call costs its caller: the same calls, timed with nothing attached and under each of several subjects, in
//! turns.

use std::{
    path::Path,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::{
    agent::{Agent, Asked, HookCounts, Memory, Stopped, ToldOfActs},
    audit::Audit,
    producer::{nanos, pin},
    programs::{self, Clocks, KernelProgram},
    stats::{Sample, Verdict},
    sys,
    table::Table,
};

/// A clock cannot tell less, in ns a call, and a loop's own place in memory makes that much.
const FINEST: f64 = 1.0;
/// Where nothing differs from nothing by more than this, in ns, differences of the fastest say nothing.
const COARSEST: f64 = 5.0;
/// The kernel takes hooks away for good only after all CPUs have passed a quiet state.
const SETTLE: Duration = Duration::from_millis(200);

/// What is timed, how often, and under what.
pub struct Comparison<'a> {
    /// The agent.
    pub program: &'a Path,
    /// Where the caller is.
    pub cpu: usize,
    /// How often every subject comes.
    pub blocks: u32,
    /// Timed rounds in a block.
    pub rounds: u32,
    /// Calls in a round.
    pub calls: u32,
    /// Makes ready to call, in the thread that does.
    pub caller: &'a (dyn Fn() -> Result<Caller<'a>> + Sync),
    pub about: About<'a>,
    pub subjects: &'a [Subject<'a>],
    /// Held where audit is a subject.
    pub audit: Option<&'a Audit>,
}

/// Makes the calls of a round of this number. Dropped, it takes back what it made ready.
pub type Caller<'a> = Box<dyn FnMut(u32) -> Result<()> + 'a>;

/// What the calls are about, so that what is told of them is known.
#[derive(Clone, Copy)]
pub enum About<'a> {
    Nothing,
    /// Files, all of them in this directory.
    Files(&'a Path),
    /// Sockets, of which one end has this port.
    Port(u16),
}

/// Something that may make calls slower.
pub struct Subject<'a> {
    pub name: &'a str,
    pub under: Under<'a>,
    pub goal: Option<Goal>,
}

pub enum Under<'a> {
    /// An agent, and how many acts each call is to give of what (as [`ToldOfActs::acts`] has them); of what it does
    /// not name, none.
    Agent(Asked, &'a [(&'a str, u64)]),
    /// The kernel's audit with this rule.
    Audit(Vec<&'a str>),
}

/// The most that may be added, in ns a call.
#[derive(Clone, Copy)]
pub enum Goal {
    /// To the fastest round: for what is so little that noise hides it from any other.
    Fastest(f64),
    /// To the median.
    Median(f64),
}

/// A comparison, done.
#[derive(Serialize)]
pub struct Measured {
    pub rounds: Vec<Rounds>,
    pub programs: Vec<KernelProgram>,
}

/// The rounds of a state in a block.
#[derive(Serialize)]
pub struct Rounds {
    block: u32,
    state: State,
    ns_per_call: Vec<f64>,
    agent: Option<Watched>,
}

/// What the machine is under.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Nothing,
    NothingAgain,
    /// The subject of this place.
    Subject(usize),
}

/// The agent in a block.
#[derive(Serialize)]
struct Watched {
    cpu_ns: u64,
    memory: Memory,
    /// By the hooks that are about the same.
    dropped: u64,
    told: ToldOfActs,
    complaint: Option<String>,
}

impl Comparison<'_> {
    pub fn measure(&self) -> Result<Measured> {
        let mut states = vec![State::Nothing];
        states.extend((0..self.subjects.len()).map(State::Subject));
        // Not beside the other: what the block brings is between them.
        states.insert(states.len().div_ceil(2), State::NothingAgain);
        let mut rounds = Vec::new();
        for block in 0..self.blocks {
            for turn in 0..states.len() {
                sys::go_on()?;
                // Whoever always comes second would find warmer caches and a hotter CPU.
                rounds.push(self.block(block, states[(turn + block as usize) % states.len()])?);
            }
        }
        sys::go_on()?;
        // Of several, the last asks for most.
        let programs = match self.subjects.last().map(|subject| &subject.under) {
            Some(Under::Agent(asked, _)) => self.programs(asked)?,
            _ => Vec::new(),
        };
        Ok(Measured { rounds, programs })
    }

    fn block(&self, block: u32, state: State) -> Result<Rounds> {
        let under = match state {
            State::Subject(place) => Some(&self.subjects[place].under),
            State::Nothing | State::NothingAgain => None,
        };
        if let Some(audit) = self.audit {
            match under {
                Some(Under::Audit(rule)) => Audit::on(rule)?,
                _ => audit.off()?,
            }
        }
        let Some(Under::Agent(asked, _)) = under else {
            return Ok(Rounds { block, state, ns_per_call: self.time()?, agent: None });
        };
        let agent = Agent::start(self.program, asked)?;
        let before = agent.cpu()?.total;
        let ns_per_call = self.time()?;
        agent.await_silence()?;
        let cpu_ns = nanos(agent.cpu()?.total.saturating_sub(before));
        let memory = agent.memory()?;
        let dropped = agent.status()?.of_hooks(self.about.hooks().1, HookCounts::lost);
        // One that could not hand over all in time says so, and the numbers of the call count all the same.
        let stopped = agent.end()?;
        let complaint = stopped.complaint();
        let told = self.about.told(stopped)?;
        Ok(Rounds {
            block,
            state,
            ns_per_call,
            agent: Some(Watched { cpu_ns, memory, dropped, told, complaint }),
        })
    }

    /// Makes the calls of a block while the kernel times its programs.
    fn programs(&self, asked: &Asked) -> Result<Vec<KernelProgram>> {
        let agent = Agent::start(self.program, asked)?;
        let _clocks = Clocks::start()?;
        let before = agent.programs()?;
        self.time()?;
        let programs = programs::between(&before, agent.programs()?);
        agent.end()?;
        Ok(programs)
    }

    /// Times calls in a thread of its own, so that agents do not inherit its CPU, and audit, which makes up its
    /// mind about a task when that begins, knows it from its beginning.
    fn time(&self) -> Result<Vec<f64>> {
        let work = || {
            pin(self.cpu)?;
            sleep(SETTLE);
            let mut call = (self.caller)()?;
            let round = |number| {
                let begin = Instant::now();
                call(number)?;
                Ok(begin.elapsed().as_secs_f64() * 1e9 / f64::from(self.calls))
            };
            (0..self.rounds).map(round).collect()
        };
        thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("the timing thread panicked"))?)
    }

    pub fn tell(&self, measured: &Measured) {
        let all = &measured.rounds;
        self.tell_calls(all);
        for (place, subject) in self.subjects.iter().enumerate() {
            if let Under::Agent(_, expected) = &subject.under {
                let watched = all.iter().filter(|rounds| rounds.state == State::Subject(place));
                let watched: Vec<&Watched> = watched.filter_map(|rounds| rounds.agent.as_ref()).collect();
                self.tell_agent(subject, expected, &watched);
            }
        }
        if let (Some(subject), false) = (self.subjects.last(), measured.programs.is_empty()) {
            programs::tell(subject.name, &measured.programs);
        }
    }

    fn tell_calls(&self, all: &[Rounds]) {
        let of = |state: State| all.iter().filter(move |rounds| rounds.state == state);
        let rounds =
            |state: State| Sample::new(of(state).flat_map(|rounds| rounds.ns_per_call.iter().copied()));
        let median = |rounds: &Rounds| Sample::new(rounds.ns_per_call.iter().copied()).median();
        let fastest = |state: State| rounds(state).min() - rounds(State::Nothing).min();
        let resolution = fastest(State::NothingAgain).abs().max(FINEST);

        let mut table = Table::new([
            "ns a call",
            "fastest",
            "median",
            "fastest, added",
            "median, added (95 %)",
            "goal",
            "",
        ]);
        let subjects = self.subjects.iter().enumerate();
        let states =
            [("nothing attached", State::Nothing, None), ("nothing, again", State::NothingAgain, None)]
                .into_iter()
                .chain(subjects.map(|(place, subject)| (subject.name, State::Subject(place), subject.goal)));
        for (name, state, goal) in states {
            let blocks = of(state).zip(of(State::Nothing));
            let medians = Sample::new(blocks.map(|(with, without)| median(with) - median(without)));
            let (low, high) = medians.interval();
            let added = |text: String| if state == State::Nothing { String::new() } else { text };
            let (goal, word) = match goal {
                None => (String::new(), ""),
                Some(Goal::Median(most)) => (format!("≤ {most:+}"), medians.at_most(most).word()),
                Some(Goal::Fastest(most)) => {
                    let verdict = match fastest(state) {
                        _ if resolution > COARSEST => Verdict::Unclear,
                        added => Verdict::from(added <= most + resolution),
                    };
                    (if most == 0.0 { "0".to_owned() } else { format!("≤ {most:+}") }, verdict.word())
                }
            };
            table.row(&[
                name.into(),
                format!("{:.1}", rounds(state).min()),
                format!("{:.1}", rounds(state).median()),
                added(format!("{:+.1}", fastest(state))),
                added(format!("{:+.1} ({low:+.1} to {high:+.1})", medians.median())),
                goal,
                word.into(),
            ]);
        }
        println!();
        table.print();
        let goals: Vec<Goal> = self.subjects.iter().filter_map(|subject| subject.goal).collect();
        if goals.iter().any(|goal| matches!(goal, Goal::Fastest(_))) {
            println!(
                "  The goals are for the fastest. Differences below {resolution:.1} ns cannot be told from 0 here."
            );
        } else if !goals.is_empty() {
            println!("  The goals are for the median.");
        }
    }

    fn tell_agent(&self, subject: &Subject, expected: &[(&str, u64)], watched: &[&Watched]) {
        let calls = u64::from(self.rounds) * u64::from(self.calls);
        let sample = |of: &dyn Fn(&Watched) -> f64| Sample::new(watched.iter().map(|watched| of(watched)));
        let head = format!("the agent: {}", subject.name);
        let mut table = Table::new([head.as_str(), "", "median (min–max)", "goal", ""]);
        let mut row = |name: &str, unit: &str, value: String, goal: Option<(String, bool)>| {
            let (goal, word) =
                goal.map_or_else(Default::default, |(goal, holds)| (goal, Verdict::from(holds).word()));
            table.row(&[name.into(), unit.into(), value, goal, word.into()]);
        };
        let cpu = sample(&|watched| number(watched.cpu_ns) / number(calls)).spread(1);
        row("its CPU time a call", "ns", cpu, None);
        row("peak resident", "MiB", sample(&|watched| mib(watched.memory.peak)).spread(1), None);
        if !matches!(self.about, About::Nothing) {
            for (what, a_call) in expected {
                let told = || watched.iter().map(|watched| watched.told.of(what));
                let acts = calls * a_call;
                // Twice the same event would be as wrong as none.
                let goal = (format!("= {acts}"), told().all(|told| told == acts));
                let worst = told().max_by_key(|told| told.abs_diff(acts)).unwrap_or(0);
                row(&format!("told: {what}, worst block"), "", worst.to_string(), Some(goal));
            }
            let events = sample(&|watched| number(watched.told.events));
            let goal = expected.is_empty().then(|| ("= 0".to_owned(), events.max() == 0.0));
            row("  in events", "", events.spread(0), goal);
            let bytes = |watched: &Watched| number(watched.told.bytes) / number(watched.told.events.max(1));
            row("JSON of an event", "B", sample(&bytes).spread(0), None);
        }
        let dropped = format!("dropped by hooks of {}, all blocks", self.about.hooks().0);
        for (name, of) in [
            (dropped.as_str(), (|watched| watched.dropped) as fn(&Watched) -> u64),
            ("lost by its own count, all blocks", |watched| watched.told.lost),
        ] {
            let lost: u64 = watched.iter().map(|watched| of(watched)).sum();
            row(name, "", lost.to_string(), Some(("= 0".into(), lost == 0)));
        }
        println!();
        table.print();
        for complaint in watched.iter().filter_map(|watched| watched.complaint.as_ref()) {
            println!("  the agent failed: {complaint}");
        }
    }
}

impl About<'_> {
    /// The hooks that are about the same: what they are hooks of, and how their names begin.
    fn hooks(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Nothing | Self::Files(_) => ("files", HookCounts::FILES),
            Self::Port(_) => ("sockets", HookCounts::SOCKETS),
        }
    }

    fn told(self, stopped: Stopped) -> Result<ToldOfActs> {
        match self {
            // No file is below this one.
            Self::Nothing => stopped.told_of_files(Path::new("/dev/null")),
            Self::Files(below) => stopped.told_of_files(below),
            Self::Port(port) => stopped.told_of_port(port),
        }
    }
}

/// In MiB.
pub fn mib(bytes: u64) -> f64 {
    number(bytes) / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn number(integer: u64) -> f64 {
    integer as f64
}
