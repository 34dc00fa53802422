//! What may still need a color that is not active, besides its requests.

use jiff::Timestamp;

use crate::{model::Color, store::ServiceState};

/// What may still need a color.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holds {
    /// `watch` and `confirm`: the promotion may be taken back.
    pub by: Vec<&'static str>,
    /// When the last of them ends.
    pub until: Option<Timestamp>,
}

/// The time of so many milliseconds of Unix time.
pub(super) fn timestamp(unix_ms: u64) -> Timestamp {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

// === impl Holds ===

impl Holds {
    /// What may need `color` of a service.
    #[must_use]
    pub fn of(service: &ServiceState, color: Color) -> Self {
        if service.previous != Some(color) || service.active == color {
            return Self::default();
        }
        let watch = service.watch.as_ref().map(|it| ("watch", it.until));
        let confirmation = service.confirmation.as_ref().map(|it| ("confirm", it.until));
        let holds: Vec<_> = watch.into_iter().chain(confirmation).collect();
        let until = holds.iter().map(|it| it.1).max().map(timestamp);
        Self { by: holds.iter().map(|it| it.0).collect(), until }
    }
}
