//! The kernel programs' own log lines.

use std::{io, time::Duration};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at the log. It is only read where somebody asked for it.
const INTERVAL: Duration = Duration::from_millis(100);

/// Carries the log lines of the kernel programs into the agent's log, from a task of the current
/// runtime, until that ends.
///
/// # Errors
/// When the programs have no log.
pub fn spawn(ebpf: &mut Ebpf) -> io::Result<()> {
    let mut logger = EbpfLogger::init(ebpf).map_err(io::Error::other)?;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::spawn(async move {
        loop {
            ticks.tick().await;
            logger.flush();
        }
    });
    Ok(())
}
