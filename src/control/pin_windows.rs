//! The services with a color that pins hold, and when to check whether they still do.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{continuity::PinSettings, model::ServiceName, upstream::TableEntry};

/// The services with a color that pins hold, and when to check each.
#[derive(Debug, Default)]
pub(super) struct PinWindows(HashMap<ServiceName, Instant>);

/// How often pins are checked that can end before their time.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often all pins are checked within [`INTERVAL`] after the flip.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);

// === impl PinWindows ===

impl PinWindows {
    /// Those of a whole table.
    pub(super) fn of(entries: &[TableEntry]) -> Self {
        let mut windows = Self::default();
        entries.iter().for_each(|it| windows.update(it));
        windows
    }

    /// Follows a new entry of the table.
    pub(super) fn update(&mut self, entry: &TableEntry) {
        let pins = entry.terms.as_ref().and_then(|it| it.pins.as_ref());
        match pins.and_then(|it| Some((it.settings(), it.window()?))) {
            Some((settings, window)) => {
                let now = Instant::now();
                let next = match ends_early(settings) {
                    // Soon after the flip there may turn out to be no pins at all.
                    _ if now < window.retired + INTERVAL => now + FIRST_INTERVAL,
                    true => now + INTERVAL,
                    false => window.until,
                };
                self.0.insert(entry.name.clone(), next.min(window.until));
            }
            None => {
                self.0.remove(&entry.name);
            }
        }
    }

    /// Waits for the next check. For ever if there is none. Cancel-safe.
    pub(super) async fn due(&self) {
        match self.0.values().min() {
            Some(next) => tokio::time::sleep_until((*next).into()).await,
            None => std::future::pending().await,
        }
    }

    /// The services to check now.
    pub(super) fn take_due(&mut self) -> Vec<ServiceName> {
        let now = Instant::now();
        self.0.extract_if(|_, next| *next <= now).map(|it| it.0).collect()
    }
}

/// Whether the last pin can end before `max_age`.
fn ends_early(settings: &PinSettings) -> bool {
    use crate::continuity::PinCarrier::{Cookie, Header, Query};
    match settings.carrier {
        Cookie => settings.idle.is_some() || settings.max_share < 100,
        Header(_) | Query(_) => true,
    }
}
