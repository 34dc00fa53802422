//! What is remembered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Color, Generation, PoolSpec, ServiceName};

/// All that must survive the process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Truth {
    /// The generation of the table that this describes.
    pub generation: Generation,
    /// The services of the last promotion or rollback, which a rollback without names is for.
    pub last_promotion: Vec<ServiceName>,
    /// Calls with an idempotency key that were accepted, oldest first.
    pub accepted: Vec<Accepted>,
    /// What is known of each service, also of those that are not configured now.
    pub services: BTreeMap<ServiceName, ServiceTruth>,
    /// Entries that could not be read, as they stand in the file. They are kept as they are until
    /// an operator says which color is active; until then their service answers nobody.
    pub damaged: BTreeMap<ServiceName, String>,
}

/// What is known of one service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceTruth {
    /// The color that answers.
    pub active: Color,
    /// The color that a rollback goes to: the one that answered before the last promotion, until
    /// that is rolled back.
    pub previous: Option<Color>,
    /// The pool named blue.
    pub blue: PoolTruth,
    /// The pool named green.
    pub green: PoolTruth,
}

/// What is known of one pool.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolTruth {
    /// What the configuration file said when this was written.
    pub file: PoolSpec,
    /// What a call at run time said. Dropped when the file's own entry changes.
    pub runtime: Option<PoolSpec>,
    /// Whether the pool has been active since its endpoints were set.
    pub served: bool,
}

/// A call that was accepted under an idempotency key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The key, 1 to 255 characters.
    pub key: String,
    /// Tells another call under the same key from the same call again.
    pub fingerprint: String,
    /// The generation that the call led to.
    pub generation: Generation,
}

// === impl Truth ===

impl Truth {
    /// How many accepted calls are remembered.
    pub const ACCEPTED_MAX: usize = 128;

    /// Remembers an accepted call, and forgets the oldest beyond the limit.
    pub fn accept(&mut self, accepted: Accepted) {
        self.accepted.push(accepted);
        let over = self.accepted.len().saturating_sub(Self::ACCEPTED_MAX);
        self.accepted.drain(..over);
    }
}

// === impl ServiceTruth ===

impl ServiceTruth {
    /// A service that nobody has changed yet.
    #[must_use]
    pub fn fresh(active: Color, blue: PoolSpec, green: PoolSpec) -> Self {
        let pool = |file, color| PoolTruth { file, runtime: None, served: color == active };
        let (blue, green) = (pool(blue, Color::Blue), pool(green, Color::Green));
        Self { active, previous: None, blue, green }
    }

    /// The pool of a color.
    #[must_use]
    pub fn pool(&self, color: Color) -> &PoolTruth {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// The pool of a color, to be changed.
    pub fn pool_mut(&mut self, color: Color) -> &mut PoolTruth {
        match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        }
    }

    /// Makes `color` active.
    pub fn promote(&mut self, color: Color) {
        self.previous = Some(self.active);
        self.active = color;
        self.pool_mut(color).served = true;
    }

    /// Takes what the configuration file says now. What was set at run time stays, unless the
    /// file's own entry for that pool has changed since.
    pub fn follow_file(&mut self, color: Color, file: &PoolSpec) {
        let served = self.active == color;
        let pool = self.pool_mut(color);
        if pool.file != *file {
            *pool = PoolTruth { file: file.clone(), runtime: None, served };
        }
    }
}

// === impl PoolTruth ===

impl PoolTruth {
    /// What the pool is made of.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        self.runtime.as_ref().unwrap_or(&self.file)
    }
}
