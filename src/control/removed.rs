//! Services that a reload has removed. Until their last request has ended, their drains can be asked for and their
//! series are shown.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    metrics::Metrics,
    model::{Color, ServiceName},
};

/// The removed services that are not forgotten yet.
#[derive(Debug, Default)]
pub(super) struct RemovedServices {
    services: Mutex<BTreeMap<ServiceName, RemovedService>>,
}

#[derive(Debug)]
struct RemovedService {
    /// The last active color.
    active: Color,
    /// The number of the rules without it. `None` once it is configured again.
    rules: Option<u64>,
}

/// How long a removed service is kept after its last request, so that a caller that polls its drain sees the end.
pub(super) const KEPT: Duration = Duration::from_secs(10);

// === impl RemovedServices ===

impl RemovedServices {
    /// The last active color of a removed service. `None` for one that is unknown or configured.
    pub(super) fn active(&self, service: &ServiceName) -> Option<Color> {
        self.services().get(service).map(|it| it.active)
    }

    /// The names of all.
    pub(super) fn names(&self) -> Vec<ServiceName> {
        self.services().keys().cloned().collect()
    }

    /// Records that the rules of this number do not have a service. Called before requests see them, so that the
    /// service is known at any moment.
    pub(super) fn record(&self, service: &ServiceName, active: Color, by: u64) {
        self.services().insert(service.clone(), RemovedService { active, rules: Some(by) });
    }

    /// Keeps the series of services that are configured again. Called before their new pools count.
    pub(super) fn keep(&self, is_configured: impl Fn(&ServiceName) -> bool) {
        let mut services = self.services();
        services.iter_mut().filter(|(it, _)| is_configured(it)).for_each(|(_, it)| it.rules = None);
    }

    /// Forgets services that are configured again. Called when requests see them.
    pub(super) fn clear(&self) {
        self.services().retain(|_, it| it.rules.is_some());
    }

    /// Forgets these services, with their series, if they have been removed since the rules of this number.
    pub(super) fn forget(&self, names: &[ServiceName], by: u64, metrics: &Metrics) {
        let mut services = self.services();
        let is_due = |it: &&ServiceName| services.get(*it).is_some_and(|it| it.rules == Some(by));
        let due: Vec<&ServiceName> = names.iter().filter(is_due).collect();
        if !due.is_empty() {
            // Under the lock: a service that is configured again must not lose its new series.
            metrics.forget(&due);
            for name in due {
                services.remove(name);
            }
        }
    }

    fn services(&self) -> MutexGuard<'_, BTreeMap<ServiceName, RemovedService>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::model::Generation;

    #[test]
    fn a_service_that_is_configured_again_keeps_its_series_whichever_drain_ends() {
        let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
        let web: ServiceName = "web".parse().expect("a name");
        let is_shown = || metrics.show(Generation(1), true, &[]).contains("service=\"web\"");
        let removed = RemovedServices::default();
        metrics.pool(&web, Color::Blue).count(200);
        removed.record(&web, Color::Blue, 1);
        assert_eq!(removed.active(&web), Some(Color::Blue));
        removed.keep(|it| *it == web);
        removed.forget(std::slice::from_ref(&web), 1, &metrics);
        assert!(is_shown(), "its new pools count already");
        removed.clear();
        assert_eq!(removed.active(&web), None);
        // Removed again, while requests of the first time are in flight.
        removed.record(&web, Color::Green, 2);
        removed.forget(std::slice::from_ref(&web), 1, &metrics);
        assert!(is_shown(), "that was the first removal");
        removed.forget(std::slice::from_ref(&web), 2, &metrics);
        assert!(!is_shown());
        assert_eq!((removed.active(&web), removed.names()), (None, Vec::new()));
    }
}
