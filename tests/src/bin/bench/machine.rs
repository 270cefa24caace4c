//! What else the machine did meanwhile: the noise.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// CPU time of the whole machine since it booted, as the tick samples it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    busy: Duration,
    stolen: Duration,
}

impl Machine {
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.strip_prefix("cpu ").and_then(|rest| rest.lines().next()).context("/proc/stat")?;
        let ticks: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        // user nice system idle iowait irq softirq steal: proc_stat(5).
        let &[user, nice, system, _, _, irq, softirq, stolen, ..] = ticks.as_slice() else {
            anyhow::bail!("the first line of /proc/stat is too short");
        };
        let time = |ticks: u64| Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        Ok(Self { busy: time(user + nice + system + irq + softirq), stolen: time(stolen) })
    }

    pub fn busy_since(&self, before: &Self) -> Duration {
        self.busy.saturating_sub(before.busy)
    }

    pub fn stolen_since(&self, before: &Self) -> Duration {
        self.stolen.saturating_sub(before.stolen)
    }
}

pub fn cpus() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}
