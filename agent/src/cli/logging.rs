//! What the program says of itself on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::Config;

/// Changes what is said while the program runs.
pub(super) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    verbose: u8,
}

/// Begins to log. What is asked for on the command line goes before the variable `RUST_LOG`, and that before the
/// configuration.
pub(super) fn start(verbose: u8, config: &Config) -> Log {
    let (filter, handle) = reload::Layer::new(filter(verbose, config));
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    Log { filter: handle, verbose }
}

fn filter(verbose: u8, config: &Config) -> EnvFilter {
    let asked = match verbose {
        0 => None,
        1 => Some("info"),
        _ => Some("debug"),
    };
    let usual = std::env::var("RUST_LOG").ok();
    let rest = asked.or(usual.as_deref()).unwrap_or(config.log.name());
    // What the kernel programs say is asked for by its own setting.
    EnvFilter::new(format!("{rest},nightjar_ebpf={}", config.kernel.log.name()))
}

impl Log {
    /// Logs as another configuration says.
    pub(super) fn follow(&self, config: &Config) {
        // Only the end of the program takes the subscriber away.
        let _gone = self.filter.reload(filter(self.verbose, config));
    }
}
