//! Connectors that pools share: one for each set of settings.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::upstream::UpstreamConnector;
use crate::model::UpstreamTls;

/// The connectors in use, by their settings. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Connectors(Arc<Mutex<Known>>);

type Known = HashMap<UpstreamTls, Weak<UpstreamConnector>>;

// === impl Connectors ===

impl Connectors {
    /// The connector for these settings. Reads their files if none is in use, which blocks on the disk: call it off the
    /// control thread first, keep the result, and let the control thread call it again.
    #[must_use]
    pub fn get(&self, settings: &UpstreamTls) -> Arc<UpstreamConnector> {
        let find = |known: &Known| known.get(settings).and_then(Weak::upgrade);
        if let Some(known) = find(&self.known()) {
            return known;
        }
        // Other settings must not wait for this disk.
        let new = Arc::new(UpstreamConnector::new(settings));
        let mut known = self.known();
        if let Some(other) = find(&known) {
            return other;
        }
        known.retain(|_, it| it.strong_count() > 0);
        known.insert(settings.clone(), Arc::downgrade(&new));
        new
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_settings_are_read_once_while_they_are_in_use() {
        let connectors = Connectors::default();
        let named =
            UpstreamTls { server_name: Some("a.test".to_owned()), ..UpstreamTls::default() };
        let one = connectors.get(&UpstreamTls::default());
        assert!(Arc::ptr_eq(&one, &connectors.get(&UpstreamTls::default())));
        assert!(!Arc::ptr_eq(&one, &connectors.get(&named)));
        drop(one);
        drop(connectors.get(&named));
        let _again = connectors.get(&UpstreamTls::default());
        assert_eq!(connectors.known().len(), 1, "an unused connector is forgotten");
    }
}
