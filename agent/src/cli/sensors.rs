//! Loading sensors, for every command that does.

use anyhow::Result;
use tracing::{info, warn};

use super::settings;
use crate::{config::Config, service, watch::Loaded};

/// Loads what the configuration asks for, and gives up the rights that are not needed from then on.
pub(super) fn load(config: &Config) -> Result<Loaded> {
    let drop_privileges = config.privileges.drop;
    Loaded::load(
        &settings::kernel_options(config),
        settings::asked(config)?,
        settings::files(config)?,
        &settings::network(config),
        settings::bounds(config),
        || if drop_privileges { give_up_privileges() } else { Ok(()) },
    )
}

/// Warns of rights that the agent lacks: before it fails for the want of them.
pub(super) fn tell_missing_privileges() -> Result<()> {
    for missing in service::missing()? {
        warn!("{missing}");
    }
    Ok(())
}

fn give_up_privileges() -> Result<()> {
    // Not inside the macro, which does nothing where nobody hears it.
    let dropped = service::drop_unneeded(service::KEPT)?;
    info!("{dropped}");
    Ok(())
}
