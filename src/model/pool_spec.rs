//! What a pool is made of, and where that came from.

use std::{collections::HashSet, fmt, str::FromStr, sync::Arc};

use flipgate_api::is_deceptive;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Link, WeightedEndpoint};

/// What an operator calls the program that a pool runs: 1 to 128 printable characters.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Version(Arc<str>);

/// What a pool is made of.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// What runs there, if anybody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Where it runs; without any, the pool is empty and answers nothing.
    #[serde(default)]
    pub endpoints: Vec<WeightedEndpoint>,
    /// How they are spoken to.
    #[serde(default, skip_serializing_if = "Link::is_default")]
    pub link: Link,
}

/// Where a pool's version and endpoints come from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration file.
    File,
    /// A call at run time; it lasts until the file's own entry changes.
    Runtime,
}

/// Endpoints that cannot make up a pool.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PoolSpecError {
    /// The same address twice would get twice the share, which weights are for.
    #[error("endpoint `{0}` is there twice: leave one")]
    Duplicate(Endpoint),
    /// More than [`PoolSpec::ENDPOINTS_MAX`].
    #[error("{0} endpoints are more than a pool holds: at most 1000")]
    TooMany(usize),
}

// === impl PoolSpec ===

impl PoolSpec {
    /// How many endpoints a pool may have.
    pub const ENDPOINTS_MAX: usize = 1000;

    /// A pool of these endpoints, in the order given.
    ///
    /// # Errors
    ///
    /// [`PoolSpecError`] for an address that is there twice, and for too many.
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
    /// A version that somebody sets now. One that was set before may hold more.
    ///
    /// # Errors
    ///
    /// What a version may be: without characters that are invisible or change the direction of what stands
    /// around them.
    pub fn parse_new(text: &str) -> Result<Self, &'static str> {
        match text.chars().any(is_deceptive) {
            true => Err("a version is 1 to 128 visible characters, without marks of direction"),
            false => text.parse(),
        }
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.chars().count() > 128 || text.chars().any(char::is_control) {
            return Err("a version is 1 to 128 printable characters");
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
