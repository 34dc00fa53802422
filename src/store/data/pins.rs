//! The parts of the state that pins and assets need: the history of a service and of its pools, and the keys.

use serde::{Deserialize, Serialize};

use super::ColorData;
use crate::{
    continuity::{PinKey, Span},
    model::Generation,
    store::{
        pool_state::PoolState,
        state::{PinKeyState, ServiceState},
    },
};

/// What a service needs for pins and assets, at the top of its entry.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct PinsData {
    /// The latest active colors, and the generations from which they were active.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<(u64, ColorData)>,
    #[serde(skip_serializing_if = "PoolPinsData::is_empty")]
    blue: PoolPinsData,
    #[serde(skip_serializing_if = "PoolPinsData::is_empty")]
    green: PoolPinsData,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct PoolPinsData {
    #[serde(skip_serializing_if = "super::is_zero")]
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
}

/// A key that signs pins. Its number is the key of the entry.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::store) struct PinKeyData {
    /// 32 hexadecimal digits.
    secret: String,
    /// In milliseconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<u64>,
}

// === impl PinsData ===

impl PinsData {
    pub(super) fn is_empty(&self) -> bool {
        let Self { history, blue, green } = self;
        history.is_empty() && blue.is_empty() && green.is_empty()
    }

    pub(super) fn of(state: &ServiceState) -> Self {
        let pool = |it: &PoolState| PoolPinsData {
            since: it.pins_since.0,
            retired_at: it.retired_at,
            shared: it.shared,
        };
        Self {
            history: state.history.iter().map(|it| (it.from.0, it.color.into())).collect(),
            blue: pool(&state.blue),
            green: pool(&state.green),
        }
    }

    pub(super) fn put(self, state: &mut ServiceState) {
        let Self { history, blue, green } = self;
        let span =
            |(from, color): (u64, ColorData)| Span { from: Generation(from), color: color.into() };
        state.history = history.into_iter().map(span).collect();
        // A history that does not end with the active color says nothing.
        if state.history.last().is_some_and(|it| it.color != state.active) {
            state.history.clear();
        }
        for (pool, data) in [(&mut state.blue, blue), (&mut state.green, green)] {
            pool.pins_since = Generation(data.since);
            pool.retired_at = data.retired_at;
            pool.shared = data.shared;
        }
    }
}

impl PoolPinsData {
    fn is_empty(&self) -> bool {
        let Self { since, retired_at, shared } = self;
        *since == 0 && retired_at.is_none() && !shared
    }
}

// === impl PinKeyData ===

impl From<&PinKeyState> for PinKeyData {
    fn from(state: &PinKeyState) -> Self {
        let PinKeyState { key, retired_at } = state;
        let secret = format!("{:032x}", u128::from_be_bytes(key.secret));
        Self { secret, retired_at: *retired_at }
    }
}

impl PinKeyData {
    /// The key with this number.
    pub(in crate::store) fn key(self, id: u32) -> Result<PinKeyState, &'static str> {
        let Self { secret, retired_at } = self;
        let secret = u128::from_str_radix(&secret, 16).ok().filter(|_| secret.len() == 32);
        let secret = secret.ok_or("it has no secret of 32 hexadecimal digits")?.to_be_bytes();
        Ok(PinKeyState { key: PinKey { id, secret }, retired_at })
    }
}
