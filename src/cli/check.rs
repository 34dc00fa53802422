//! `check`.

use std::path::Path;

use flipgate_api::terminal::print_line;
use ipnet::IpNet;

use super::{CommandError, run::load};

/// Who may preview, in words.
fn internal(networks: &[IpNet]) -> String {
    if networks.is_empty() {
        return "no client is internal".to_owned();
    }
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    format!("internal clients: {}", networks.join(", "))
}

pub(super) fn check(path: &Path) -> Result<u8, CommandError> {
    let config = load(path)?;
    let (services, listeners) = (config.catalog.services().len(), config.listeners.len());
    let plural = |count| if count == 1 { "" } else { "s" };
    print_line(format_args!(
        "{}: good: {services} service{}, {listeners} listener{}; {}",
        path.display(),
        plural(services),
        plural(listeners),
        internal(&config.catalog.internal)
    ))?;
    Ok(0)
}
