//! Durations in the body of a call.

use std::{ops::RangeInclusive, time::Duration};

use super::problem::ApiError;

/// The shortest duration that is longer than 0.
pub(super) const ABOVE_ZERO: Duration = Duration::from_nanos(1);

/// The duration of a field. `shown` is the range in words.
pub(super) fn parse_duration(
    field: &str,
    text: &str,
    range: RangeInclusive<Duration>,
    shown: &str,
) -> Result<Duration, ApiError> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let parsed = parsed.and_then(|it| Duration::try_from(it).ok());
    parsed.filter(|it| range.contains(it)).ok_or_else(|| {
        ApiError::malformed(format!("`{field}` must be a duration like \"2m\", {shown}"))
    })
}
