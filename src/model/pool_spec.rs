//! The specification of a pool, and its source.

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};

use flipgate_api::is_deceptive;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Link, WeightedEndpoint};

/// The version that an operator gives a pool: 1 to 128 printable characters.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Version(Arc<str>);

/// The specification of a pool.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// The version, if one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The endpoints; without any, the pool is empty and serves no request.
    #[serde(default)]
    pub endpoints: Vec<WeightedEndpoint>,
    /// How to connect to them.
    #[serde(default, skip_serializing_if = "Link::is_default")]
    pub link: Link,
}

/// Where the version and endpoints of a pool come from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration file.
    File,
    /// The admin API; kept until the entry in the file changes.
    Runtime,
}

/// Why endpoints cannot form a pool.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PoolSpecError {
    /// A duplicate would get twice the requests, which is what weights are for.
    #[error("duplicate endpoint `{0}`; remove one")]
    Duplicate(Endpoint),
    /// More than [`PoolSpec::ENDPOINTS_MAX`].
    #[error("too many endpoints: {0}; a pool has at most 1000")]
    TooMany(usize),
}

// === impl PoolSpec ===

impl PoolSpec {
    /// The maximum number of endpoints of a pool.
    pub const ENDPOINTS_MAX: usize = 1000;

    /// A pool with these endpoints, in this order.
    ///
    /// # Errors
    ///
    /// [`PoolSpecError`] for a duplicate, and for too many endpoints.
    pub fn new(
        version: Option<Version>,
        endpoints: impl IntoIterator<Item = impl Into<WeightedEndpoint>>,
    ) -> Result<Self, PoolSpecError> {
        let endpoints: Vec<WeightedEndpoint> = endpoints.into_iter().map(Into::into).collect();
        if endpoints.len() > Self::ENDPOINTS_MAX {
            return Err(PoolSpecError::TooMany(endpoints.len()));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = endpoints.iter().find(|it| !seen.insert(&it.endpoint)) {
            return Err(PoolSpecError::Duplicate(twice.endpoint.clone()));
        }
        Ok(Self { version, endpoints, link: Link::default() })
    }
}

// === impl Version ===

impl Version {
    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Version {
    /// Parses a version that is being set. An earlier version of Flipgate may have stored others, which [`FromStr`]
    /// accepts.
    ///
    /// # Errors
    ///
    /// The rule for versions: no characters that are invisible or change the text direction.
    pub fn parse_new(text: &str) -> Result<Self, &'static str> {
        match text.chars().any(is_deceptive) {
            true => Err("a version must have 1 to 128 visible characters, without direction marks"),
            false => text.parse(),
        }
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.chars().count() > 128 || text.chars().any(char::is_control) {
            return Err("a version must have 1 to 128 printable characters");
        }
        Ok(Self(text.into()))
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
