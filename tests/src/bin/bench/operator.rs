//! `bench operator`

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    agent::{self, Agent, Asked, Reader},
    machine,
    producer::{Effort, NAME, Producers, nanos},
    stats::Sample,
    sys,
    table::Table,
    write_json,
};

/// Most that is not measurable, in percent of what an exec takes.
const NOTHING: f64 = 1.0;
/// Between two reloads: far more often than anybody does.
const RELOAD_INTERVAL: Duration = Duration::from_millis(500);

/// What an operator who looks on costs the path of events
///
/// One producer starts /bin/true as fast as it can. The agent watches with every sensor and writes to a file in
/// memory: alone, with a `nightjar tail` attached that shows every event, and while it is told to reload its
/// configuration twice a second. The three take turns, and each is compared with the round of the agent alone
/// beside it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rounds of each
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Execs in a round
    #[arg(long, default_value_t = 6000, value_parser = clap::value_parser!(u32).range(1..))]
    execs: u32,

    /// Write the numbers of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Subject {
    Alone,
    Tail,
    Reload,
}

#[derive(Debug, Serialize)]
struct Round {
    subject: Subject,
    producer: Effort,
    /// CPU time of the agent.
    agent_ns: u64,
    lost: u64,
    /// Events that the attached tail showed.
    shown: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let program = agent::program()?;
    let cpus = machine::cpus()?;
    println!("\nOne producer of /bin/true, {} execs a round; {}", arguments.execs, program.display());
    let mut rounds = Vec::new();
    for number in 0..arguments.rounds {
        let mut order = [Subject::Tail, Subject::Alone, Subject::Reload];
        if number % 2 == 1 {
            order.reverse();
        }
        for subject in order {
            sys::go_on()?;
            rounds.push(round(subject, arguments.execs, cpus - 1, &program)?);
        }
    }
    tell(&rounds, arguments.execs);
    write_json(arguments.json.as_deref(), &rounds)
}

fn round(subject: Subject, execs: u32, cpu: usize, program: &Path) -> Result<Round> {
    let agent = Agent::start(program, &Asked::USUAL)?;
    let reader = (subject == Subject::Tail).then(|| Reader::attach(program, &agent)).transpose()?;
    let producers = Producers::start(&[cpu], Path::new("/bin/true"), execs)?;
    let before = agent.cpu()?;
    let producer =
        if subject == Subject::Reload { reloading(&agent, producers)? } else { producers.run()? };
    agent.catch_up()?;
    let agent_ns = nanos(agent.cpu()?.total.saturating_sub(before.total));
    let shown = reader.map(Reader::stop).transpose()?.unwrap_or(0);
    let lost = agent.stop()?.told_of_execs(NAME)?.lost;
    Ok(Round { subject, producer, agent_ns, lost, shown })
}

/// Has the agent reload its configuration until the producer is done.
fn reloading(agent: &Agent, producers: Producers) -> Result<Effort> {
    let work = thread::spawn(move || producers.run());
    let mut next = Instant::now();
    while !work.is_finished() {
        if Instant::now() >= next {
            agent.reload()?;
            next += RELOAD_INTERVAL;
        }
        thread::sleep(Duration::from_millis(5));
    }
    work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn tell(rounds: &[Round], execs: u32) {
    let mut table = Table::new(["", "", "alone", "with", "change (95 %)", "goal", ""]);
    for (subject, name) in [(Subject::Tail, "tail attached"), (Subject::Reload, "2 reloads a second")] {
        let measures = [
            ("wall time an exec", (|round| round.producer.wall_ns) as fn(&Round) -> u64, true),
            ("CPU time an exec, producer", |round| round.producer.cpu_ns, true),
            ("CPU time an exec, agent", |round| round.agent_ns, false),
        ];
        for (what, of, has_goal) in measures {
            let micros = |round: &Round| number(of(round)) / 1e3 / f64::from(execs);
            let sample =
                |wanted| Sample::new(rounds.iter().filter(|round| round.subject == wanted).map(micros));
            let added = Sample::new(rounds.chunks_exact(3).filter_map(|turn| {
                let find = |wanted| turn.iter().find(|round| round.subject == wanted);
                Some((micros(find(subject)?) / micros(find(Subject::Alone)?) - 1.0) * 100.0)
            }));
            let (low, high) = added.interval();
            table.row(&[
                format!("{what}, {name}"),
                "µs".into(),
                format!("{:.1}", sample(Subject::Alone).median()),
                format!("{:.1}", sample(subject).median()),
                format!("{:+.1} % ({low:+.1} to {high:+.1})", added.median()),
                if has_goal { format!("≤ {NOTHING:+.0} %") } else { String::new() },
                if has_goal { added.at_most(NOTHING).word().into() } else { String::new() },
            ]);
        }
    }
    println!();
    table.print();
    let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
    println!(
        "\nlost in all rounds: {}; shown by the attached tails: {}",
        sum(|round| round.lost),
        sum(|round| round.shown)
    );
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
fn number(integer: u64) -> f64 {
    integer as f64
}
