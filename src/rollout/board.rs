//! What running stages wait for, for people. Not written: it changes too often, and is of no use after a restart.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::RolloutId;

/// What each running rollout waits for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<HashMap<RolloutId, String>>>);

// === impl Board ===

impl Board {
    pub(super) fn note(&self, id: &RolloutId, text: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(id) {
            Some(known) if known == text => {}
            Some(known) => text.clone_into(known),
            None => drop(all.insert(id.clone(), text.to_owned())),
        }
    }

    pub(super) fn forget(&self, id: &RolloutId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// What a rollout waits for, if its stage has said so.
    #[must_use]
    pub fn get(&self, id: &RolloutId) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}
