//! `nightjar-backend agents`, `gaps` and `status`

use std::{path::Path, time::Duration};

use anyhow::Result;
use nightjar_proto::{
    backend::v1::{Count, GetStatusRequest, ListAgentsRequest, ListGapsRequest},
    v1::Lane,
};
use serde_json::{Map, Value, json};

use super::client::{connect, told};
use crate::hour::now;

/// Prints agents.
///
/// # Errors
/// When the backend cannot be asked.
pub async fn agents(dir: &Path, as_json: bool) -> Result<()> {
    let agents =
        connect(dir).await?.list_agents(ListAgentsRequest {}).await.map_err(told)?.into_inner().agents;
    if !as_json {
        println!(
            "{:<32}  {:<20} {:<9} {:<10} {:>9} {:>8} {:>8}  COVERAGE",
            "AGENT", "HOST", "VERSION", "STATE", "SEEN", "LAG", "MISSING"
        );
    }
    for agent in agents {
        let state = match (agent.revoked > 0, agent.connected) {
            (true, _) => "revoked",
            (false, true) => "connected",
            (false, false) => "away",
        };
        if as_json {
            let object = json!({
                "id": agent.id, "host": agent.host, "version": agent.version, "state": state,
                "enrolled": agent.enrolled, "last_seen": agent.last_seen, "lag": agent.lag,
                "missing": agent.missing, "sensors": agent.sensors, "sensors_served": agent.sensors_served,
            });
            println!("{object}");
            continue;
        }
        println!(
            "{:<32}  {:<20} {:<9} {state:<10} {:>9} {:>8} {:>8}  {}/{}",
            plain(&agent.id),
            plain(&agent.host),
            plain(&agent.version),
            ago(agent.last_seen),
            short(agent.lag),
            agent.missing,
            agent.sensors_served,
            agent.sensors
        );
    }
    Ok(())
}

/// Prints gaps.
///
/// # Errors
/// When the backend cannot be asked.
pub async fn gaps(dir: &Path, as_json: bool) -> Result<()> {
    let gaps = connect(dir).await?.list_gaps(ListGapsRequest {}).await.map_err(told)?.into_inner().gaps;
    if !as_json {
        println!(
            "{:<32}  {:<36}  {:<8} {:>12} {:>12} {:>9}  REASON",
            "AGENT", "BOOT", "LANE", "FROM", "TO", "NOTICED"
        );
    }
    for gap in gaps {
        let lane = lane(gap.lane);
        if as_json {
            let object = json!({
                "agent": gap.agent, "boot": gap.boot, "epoch": gap.epoch, "lane": lane, "from": gap.from,
                "to": gap.to, "since": gap.since, "reason": gap.reason, "events": gap.events,
            });
            println!("{object}");
            continue;
        }
        let reason = match (gap.reason.as_str(), gap.events) {
            ("", _) => "not told".to_owned(),
            (reason, 0) => plain(reason),
            (reason, events) => format!("{} ({events} events)", plain(reason)),
        };
        println!(
            "{:<32}  {:<36}  {lane:<8} {:>12} {:>12} {:>9}  {reason}",
            plain(&gap.agent),
            plain(&gap.boot),
            gap.from,
            gap.to,
            ago(gap.since)
        );
    }
    Ok(())
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
    println!("nightjar-backend {}, {}", status.version, status.condition);
    for (heading, counts) in [("now", status.levels), ("since the start", status.counts)] {
        println!("\n{heading}");
        for Count { name, value } in counts {
            println!("  {:<24} {value:>16}", name.replace('_', " "));
        }
    }
    Ok(())
}

fn lane(number: i32) -> String {
    match Lane::try_from(number) {
        Ok(Lane::Critical) => "critical".to_owned(),
        Ok(Lane::Bulk) => "bulk".to_owned(),
        _ => number.to_string(),
    }
}

/// Agents choose these: what could act on a terminal is written as an escape.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn ago(time: u64) -> String {
    if time == 0 { "never".to_owned() } else { format!("{} ago", short(now().saturating_sub(time))) }
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
