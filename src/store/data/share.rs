//! A gradual promotion in progress, as it is written.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ColorData, names};
use crate::{
    continuity::ShareSecret,
    model::Generation,
    store::state::{ShareEnd, ShareState},
};

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ShareData {
    generation: u64,
    color: ColorData,
    steps: Vec<u8>,
    step: usize,
    step_for_ms: u64,
    /// In milliseconds of Unix time.
    until: u64,
    services: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    first: bool,
    /// 32 hexadecimal digits.
    secret: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ShareEndData {
    color: ColorData,
    /// In milliseconds of Unix time.
    at: u64,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<&ShareEnd> for ShareEndData {
    fn from(end: &ShareEnd) -> Self {
        let ShareEnd { color, at, by, reason } = end;
        let reason = reason.as_ref().map(ToString::to_string);
        Self { color: (*color).into(), at: *at, by: by.to_string(), reason }
    }
}

impl From<ShareEndData> for ShareEnd {
    fn from(data: ShareEndData) -> Self {
        let ShareEndData { color, at, by, reason } = data;
        Self { color: color.into(), at, by: by.into(), reason: reason.map(Into::into) }
    }
}

impl From<&ShareState> for ShareData {
    fn from(share: &ShareState) -> Self {
        let ShareState {
            generation,
            color,
            steps,
            step,
            step_for,
            until,
            services,
            has_first,
            secret,
        } = share;
        Self {
            generation: generation.0,
            color: (*color).into(),
            steps: steps.clone(),
            step: *step,
            step_for_ms: u64::try_from(step_for.as_millis()).unwrap_or(u64::MAX),
            until: *until,
            services: services.iter().map(ToString::to_string).collect(),
            first: *has_first,
            secret: format!("{:032x}", u128::from_be_bytes(secret.0)),
        }
    }
}

impl TryFrom<ShareData> for ShareState {
    type Error = String;

    fn try_from(data: ShareData) -> Result<Self, String> {
        let ShareData {
            generation,
            color,
            steps,
            step,
            step_for_ms,
            until,
            services,
            first,
            secret,
        } = data;
        let is_rising = steps.is_sorted_by(|one, next| one < next);
        if !is_rising || steps.last() != Some(&100) || step >= steps.len() - 1 {
            return Err("its share has no rising steps up to 100".to_owned());
        }
        let number = u128::from_str_radix(&secret, 16).ok().filter(|_| secret.len() == 32);
        let secret = number.ok_or("its share has no secret of 32 hexadecimal digits")?;
        Ok(Self {
            generation: Generation(generation),
            color: color.into(),
            steps,
            step,
            step_for: Duration::from_millis(step_for_ms),
            until,
            services: names(services)?,
            has_first: first,
            secret: ShareSecret(secret.to_be_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::entries::service_state;

    fn service(active: &str, step: u64) -> Result<Option<ShareState>, String> {
        let pool = r#"{"file":{"endpoints":[]},"runtime":null,"served":true}"#;
        let share = format!(
            r#"{{"generation":3,"color":"green","steps":[1,50,100],"step":{step},"step_for_ms":1000,"until":9,"services":["web"],"secret":"{:032x}"}}"#,
            7
        );
        let json = format!(
            r#"{{"active":"{active}","previous":null,"blue":{pool},"green":{pool},"share":{share}}}"#
        );
        service_state(&json).map(|it| it.share)
    }

    #[test]
    fn a_step_that_does_not_exist_is_an_error() {
        assert_eq!(service("blue", 1).map(|it| it.map(|it| it.percent())), Ok(Some(50)));
        for step in [2, 3, u64::MAX] {
            assert!(service("blue", step).is_err(), "{step}");
        }
    }

    #[test]
    fn a_candidate_that_an_older_version_has_promoted_is_none() {
        assert_eq!(service("green", 0), Ok(None));
    }
}
