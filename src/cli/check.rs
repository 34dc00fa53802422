//! `check`.

use std::path::Path;

use flipgate_api::terminal::print_line;

use super::{Failure, run::load};

pub(super) fn check(path: &Path) -> Result<u8, Failure> {
    let config = load(path)?;
    let (services, listeners) = (config.catalog.services().len(), config.listeners.len());
    let plural = |count| if count == 1 { "" } else { "s" };
    print_line(format_args!(
        "{}: good: {services} service{}, {listeners} listener{}",
        path.display(),
        plural(services),
        plural(listeners)
    ))?;
    Ok(0)
}
