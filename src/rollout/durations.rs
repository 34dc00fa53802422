//! Durations in records: whole milliseconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn serialize<S: Serializer>(it: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(millis(*it))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(it: D) -> Result<Duration, D::Error> {
    u64::deserialize(it).map(Duration::from_millis)
}

/// The same, or none.
pub(super) mod optional {
    use super::{Deserialize, Deserializer, Duration, Serializer, millis};

    pub(in crate::rollout) fn serialize<S: Serializer>(
        it: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match it {
            Some(it) => serializer.serialize_some(&millis(*it)),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::rollout) fn deserialize<'de, D: Deserializer<'de>>(
        it: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(it)?.map(Duration::from_millis))
    }
}
