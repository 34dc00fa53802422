//! The conditions of a change, from its header fields.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, StatusCode, header, request},
};

use super::{context::Context, problem::ApiError};
use crate::model::Generation;

/// The conditions of a change.
pub(super) struct Conditions {
    pub(super) if_generation: Option<Vec<Generation>>,
    pub(super) key: Option<String>,
}

const IF_MATCH: HeaderName = header::IF_MATCH;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl FromRequestParts<Context> for Conditions {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut request::Parts,
        context: &Context,
    ) -> Result<Self, ApiError> {
        let if_match = parts.headers.get_all(IF_MATCH).iter();
        let lines: Vec<&str> = if_match.map(|it| it.to_str().unwrap_or("?")).collect();
        if lines.is_empty() && context.config.require_if_match {
            let title = "Precondition Required";
            let detail =
                "a change needs If-Match with the ETag of GET /v1/status (admin.require_if_match)";
            return Err(ApiError::new(
                StatusCode::PRECONDITION_REQUIRED,
                "if-match-required",
                title,
                detail,
            ));
        }
        let if_generation = match &*lines {
            [] | ["*"] => None,
            lines => Some(generations(&lines.join(","))?),
        };
        let mut keys = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = keys.next().map(|it| match (it.to_str(), keys.next()) {
            (Ok(key), None) if (1..=255).contains(&key.len()) => Ok(key.to_owned()),
            (_, None) => {
                Err(ApiError::malformed("Idempotency-Key must have 1 to 255 visible characters"))
            }
            (_, Some(_)) => Err(ApiError::malformed("more than one Idempotency-Key; send one")),
        });
        Ok(Self { if_generation, key: key.transpose()? })
    }
}

/// A list of entity tags: RFC 9110, section 13.1.1. A weak one never matches.
fn generations(list: &str) -> Result<Vec<Generation>, ApiError> {
    let wrong = || ApiError::malformed("If-Match must be the ETag of a status, like \"42\", or *");
    let mut generations = Vec::new();
    for tag in list.split(',').map(str::trim) {
        if tag.starts_with("W/") {
            continue;
        }
        let bare = tag.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(tag);
        generations.push(Generation(bare.parse().map_err(|_| wrong())?));
    }
    Ok(generations)
}
