//! The steps of a gradual promotion, as a call gives them.

use std::time::Duration;

use super::{durations::parse_duration, problem::ApiError};
use crate::{
    continuity::ShareSecret,
    control::{ShareSteps, random_secret},
};

/// How long a step lasts, by default.
const STEP_FOR: Duration = Duration::from_secs(120);

/// The longest time of a step.
const STEP_FOR_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The shortest time of a step: the watch needs some ticks.
const STEP_FOR_MIN: Duration = Duration::from_secs(1);

/// The steps of a promotion; `None` for one that is made at once.
pub(super) fn share_steps(
    steps: &[u8],
    step_for: Option<&str>,
    has_first: bool,
) -> Result<Option<ShareSteps>, ApiError> {
    if steps.is_empty() {
        return match (step_for, has_first) {
            (None, false) => Ok(None),
            _ => Err(ApiError::malformed(
                "`step_for` and `first` are for a gradual promotion: give `steps`, like [1, 10, 50, 100]",
            )),
        };
    }
    let is_rising = steps.is_sorted_by(|one, next| one < next);
    if !is_rising || steps.first() == Some(&0) || steps.last() != Some(&100) {
        return Err(ApiError::malformed(
            "`steps` must be shares in percent from 1 to 100, each larger than the one before, and end with 100, like [1, 10, 50, 100]",
        ));
    }
    let step_for = match step_for {
        None => STEP_FOR,
        Some(text) => {
            let shown = "from 1 second to 7 days";
            parse_duration("step_for", text, STEP_FOR_MIN..=STEP_FOR_MAX, shown)?
        }
    };
    // Those who go first have a step of their own.
    let first = has_first.then_some(0);
    let percents: Vec<u8> = first.into_iter().chain(steps.iter().copied()).collect();
    let secret = ShareSecret(random_secret());
    let is_at_once = percents == [100];
    Ok((!is_at_once).then_some(ShareSteps { percents, step_for, has_first, secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_and_end_with_all_clients() {
        let steps = share_steps(&[1, 10, 100], Some("90s"), false).ok().flatten();
        let steps = steps.expect("a gradual promotion");
        assert_eq!((steps.percents, steps.step_for), (vec![1, 10, 100], Duration::from_secs(90)));
        let first =
            share_steps(&[50, 100], None, true).ok().flatten().expect("a gradual promotion");
        assert_eq!((first.percents, first.step_for), (vec![0, 50, 100], STEP_FOR));
        for none in [&[][..], &[100]] {
            assert!(matches!(share_steps(none, None, false), Ok(None)), "{none:?}");
        }
        for wrong in [&[0, 100][..], &[10, 10, 100], &[50, 10, 100], &[50], &[101], &[100, 200]] {
            assert!(share_steps(wrong, None, false).is_err(), "{wrong:?}");
        }
        for wrong in ["", "0s", "2", "-1m", "8d", "500ms"] {
            assert!(share_steps(&[1, 100], Some(wrong), false).is_err(), "{wrong}");
        }
        assert!(share_steps(&[], Some("2m"), false).is_err());
        assert!(share_steps(&[], None, true).is_err());
    }
}
