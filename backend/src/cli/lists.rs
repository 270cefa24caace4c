//! `nightjar-backend agents`, `gaps` and `status`

use std::{path::Path, time::Duration};

use anyhow::Result;
use nightjar_proto::{
    backend::v1::{
        Agent, Count, Gap, GetAgentRequest, GetAgentResponse, GetStatusRequest, ListAgentsRequest,
        ListGapsRequest,
    },
    status_to_json,
    v1::{Lane, Sensor},
};
use nightjar_show::compact::shown;
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, connect, told},
    config::outcome,
    table::{Side, Table},
};
use crate::hour::now;

/// The ID of the agent that is meant.
///
/// # Errors
/// When it is none, or may be more than one.
pub async fn id(client: &mut Client, agent: &str) -> Result<String> {
    let found = client.get_agent(GetAgentRequest { agent: agent.to_owned() }).await.map_err(told)?;
    Ok(found.into_inner().agent.unwrap_or_default().id)
}

/// Prints agents.
///
/// # Errors
/// When the backend cannot be asked.
pub async fn agents(dir: &Path, as_json: bool) -> Result<()> {
    let agents =
        connect(dir).await?.list_agents(ListAgentsRequest {}).await.map_err(told)?.into_inner().agents;
    if as_json {
        for agent in &agents {
            println!("{}", agent_json(agent));
        }
        return Ok(());
    }
    let mut table = Table::new([
        ("AGENT", Side::Left),
        ("HOST", Side::Left),
        ("VERSION", Side::Left),
        ("STATE", Side::Left),
        ("SEEN", Side::Right),
        ("LAG", Side::Right),
        ("COVERAGE", Side::Right),
        ("LOST", Side::Right),
        ("MISSING", Side::Right),
        ("CONFIGURATION", Side::Left),
    ]);
    for agent in agents {
        let coverage = match agent.sensors {
            0 => "-".to_owned(),
            sensors => format!("{}/{sensors}", agent.sensors_served),
        };
        let configuration = configuration(&agent);
        table.row([
            agent.id.clone(),
            agent.host.clone(),
            agent.version.clone(),
            state(&agent).to_owned(),
            ago(agent.last_seen),
            short(agent.lag),
            coverage,
            agent.told_lost.to_string(),
            agent.missing.to_string(),
            configuration,
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

fn state(agent: &Agent) -> &'static str {
    match (agent.revoked > 0, agent.connected) {
        (true, _) => "revoked",
        (false, true) => "connected",
        (false, false) => "away",
    }
}

fn configuration(agent: &Agent) -> String {
    let version = |version: &str| if version.is_empty() { "its own".to_owned() } else { version.to_owned() };
    if agent.wanted_configuration == agent.configuration {
        return version(&agent.configuration);
    }
    let answer = agent.answer.as_ref().filter(|answer| answer.version == agent.wanted_configuration);
    let word = answer.map_or("waits for", |answer| outcome(Some(answer)));
    format!("{}, {word} {}", version(&agent.configuration), version(&agent.wanted_configuration))
}

fn agent_json(agent: &Agent) -> Value {
    json!({
        "id": agent.id, "host": agent.host, "version": agent.version, "state": state(agent),
        "enrolled": agent.enrolled, "last_seen": agent.last_seen, "lag": agent.lag,
        "missing": agent.missing, "told_lost": agent.told_lost, "sensors": agent.sensors,
        "sensors_served": agent.sensors_served, "certificate_ends": agent.certificate_ends,
        "configuration": agent.configuration, "wanted_configuration": agent.wanted_configuration,
    })
}

/// Prints one agent.
///
/// # Errors
/// When there is none, or the backend cannot be asked.
pub async fn agent(dir: &Path, agent: String, as_json: bool) -> Result<()> {
    let found = connect(dir).await?.get_agent(GetAgentRequest { agent }).await.map_err(told)?.into_inner();
    let agent = found.agent.clone().unwrap_or_default();
    if as_json {
        let status = found.status.as_ref().map(status_to_json);
        let status = status.and_then(|status| serde_json::from_str::<Value>(&status).ok());
        let mut object = agent_json(&agent);
        object["status"] = status.unwrap_or_default();
        println!("{object}");
        return Ok(());
    }
    let certificate = match agent.certificate_ends {
        0 => "none of this backend's".to_owned(),
        ends => format!("ends {}, in {}", date(ends), short(ends.saturating_sub(now()))),
    };
    let mut table = Table::new([("", Side::Left), ("", Side::Left)]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("agent", agent.id.clone());
    row("host", agent.host.clone());
    row("version", agent.version.clone());
    row("state", format!("{}, seen {}", state(&agent), ago(agent.last_seen)));
    row("lag", short(agent.lag));
    row("enrolled", date(agent.enrolled));
    row("certificate", certificate);
    row("configuration", configuration(&agent));
    if let Some(answer) = &agent.answer {
        let parts = [outcome(Some(answer)), answer.version.as_str(), answer.reason.as_str()];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        row("  answered", parts.join(" "));
    }
    row("lost", format!("{} events, as it told", agent.told_lost));
    row("missing", format!("{} batches, without an explanation", agent.missing));
    print!("{}", table.render().trim_start());
    print!("{}", told_by(&found));
    Ok(())
}

/// What the agent itself said last.
fn told_by(found: &GetAgentResponse) -> String {
    let status = found.status.clone().unwrap_or_default();
    let coverage = found.coverage.clone().unwrap_or_default();
    let sensors = if coverage.sensors.is_empty() { &status.sensors } else { &coverage.sensors };
    let hook = |sensor: &Sensor| if sensor.hook.is_empty() { "none".to_owned() } else { sensor.hook.clone() };
    let coverage = Table::new([("SENSOR", Side::Left), ("HOOK", Side::Left), ("WORTH", Side::Left)])
        .rows(sensors.iter().map(|sensor| [sensor.name.clone(), hook(sensor), sensor.worth.clone()]));
    let losses = status.losses.map(|losses| losses.losses).unwrap_or_default();
    let lost = Table::new([("LOST AT", Side::Left), ("REASON", Side::Left), ("COUNT", Side::Right)])
        .rows(losses.iter().map(|loss| [loss.hook.clone(), loss.reason.clone(), loss.count.to_string()]));
    let taken = match found.told {
        0 => "It told nothing of itself since this backend was started.\n".to_owned(),
        told => format!("As it told {}; with --json there is more.\n", ago(told)),
    };
    let parts =
        [(!sensors.is_empty(), coverage.render()), (!losses.is_empty(), lost.render()), (true, taken)];
    let shown = parts.into_iter().filter(|(shown, _)| *shown).map(|(_, part)| part);
    [String::new()].into_iter().chain(shown).collect::<Vec<_>>().join("\n")
}

/// Prints gaps.
///
/// # Errors
/// When the backend cannot be asked.
pub async fn gaps(dir: &Path, as_json: bool) -> Result<()> {
    let gaps = connect(dir).await?.list_gaps(ListGapsRequest {}).await.map_err(told)?.into_inner().gaps;
    let mut table = Table::new([
        ("AGENT", Side::Left),
        ("BOOT", Side::Left),
        ("LANE", Side::Left),
        ("BATCHES", Side::Right),
        ("EVENTS", Side::Right),
        ("NOTICED", Side::Right),
        ("REASON", Side::Left),
    ]);
    for gap in gaps {
        let lane = lane(gap.lane);
        // Where there is no agent a file of the backend is damaged.
        let told = !gap.reason.is_empty() && !gap.agent.is_empty();
        if as_json {
            let object = json!({
                "agent": gap.agent, "boot": gap.boot, "epoch": gap.epoch, "lane": lane, "from": gap.from,
                "to": gap.to, "since": gap.since, "told": told, "reason": gap.reason,
                "events": gap.events, "first_time": gap.first_time, "last_time": gap.last_time,
            });
            println!("{object}");
            continue;
        }
        let (batches, events, reason) = (batches(&gap), events(&gap), reason(&gap));
        let all = |name: String| if name.is_empty() { "-".to_owned() } else { name };
        table.row([all(gap.agent), all(gap.boot), lane, batches, events, ago(gap.since), reason]);
    }
    if !as_json {
        print!("{}", table.render());
    }
    Ok(())
}

fn batches(gap: &Gap) -> String {
    match (gap.from, gap.to) {
        (0, _) => "-".to_owned(),
        (from, to) if from == to => from.to_string(),
        (from, to) => format!("{from}-{to}"),
    }
}

fn events(gap: &Gap) -> String {
    if gap.events == 0 { "?".to_owned() } else { gap.events.to_string() }
}

fn reason(gap: &Gap) -> String {
    if gap.reason.is_empty() { "unexplained: it did not come".to_owned() } else { gap.reason.clone() }
}

/// Prints how the backend does.
///
/// # Errors
/// When the backend cannot be asked.
pub async fn status(dir: &Path, as_json: bool) -> Result<()> {
    let status = connect(dir).await?.get_status(GetStatusRequest {}).await.map_err(told)?.into_inner();
    let object = |counts: &[Count]| -> Map<String, Value> {
        counts.iter().map(|count| (count.name.clone(), count.value.into())).collect()
    };
    if as_json {
        println!(
            "{}",
            json!({
                "version": status.version, "condition": status.condition,
                "since_start": object(&status.counts), "now": object(&status.levels),
            })
        );
        return Ok(());
    }
    println!("nightjar-backend {}, {}", status.version, shown(&status.condition));
    for (heading, counts) in [("NOW", status.levels), ("SINCE THE START", status.counts)] {
        let rows =
            counts.into_iter().map(|Count { name, value }| [name.replace('_', " "), value.to_string()]);
        let table = Table::new([(heading, Side::Left), ("", Side::Right)]).rows(rows);
        print!("\n{}", table.render());
    }
    Ok(())
}

fn lane(number: i32) -> String {
    match Lane::try_from(number) {
        Ok(Lane::Critical) => "critical".to_owned(),
        Ok(Lane::Bulk) => "bulk".to_owned(),
        Ok(Lane::Unspecified) => "-".to_owned(),
        _ => number.to_string(),
    }
}

/// How long ago a time in nanoseconds since 1970 was.
pub fn ago(time: u64) -> String {
    if time == 0 { "never".to_owned() } else { format!("{} ago", short(now().saturating_sub(time))) }
}

fn date(time: u64) -> String {
    Timestamp { seconds: (time / 1_000_000_000).cast_signed(), nanos: 0 }.to_string()
}

fn short(nanoseconds: u64) -> String {
    let duration = Duration::from_nanos(nanoseconds);
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
