//! How the pages of a service learn that another version has become active.

use std::{fmt, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{Color, PathPrefix, PoolSpec, ServiceName};

/// The version signal of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VersionSignal {
    /// The path of the resources, without a slash at its end: the prefix of the service and the configured path.
    path: Box<str>,
    /// Whether every response has the id of its version.
    pub header: bool,
    /// The time over which the pages spread their reloads.
    pub spread: Duration,
}

/// A resource of the version signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignalResource {
    /// The id of the version that the client gets.
    Version,
    /// The same as an event stream, with each change.
    Events,
    /// A script that reloads a page when the version changes.
    Script,
}

/// The id of a version: 16 characters of base64url.
///
/// It is a hash of the service, the color, the version and the endpoints. So it is the same on every replica and after a
/// restart, and another one when one of them changes. It does not contain them. It is not keyed: a client that knows all
/// of the others can test a guess of the version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VersionId([u8; Self::LENGTH]);

// === impl VersionSignal ===

impl VersionSignal {
    /// The signal at `path` below the prefix of a service.
    #[must_use]
    pub fn new(prefix: &PathPrefix, path: &PathPrefix, header: bool, spread: Duration) -> Self {
        let part = |it: &PathPrefix| it.to_string().trim_end_matches('/').to_owned();
        Self { path: (part(prefix) + &part(path)).into(), header, spread }
    }

    /// The resource at this path of a request, if it is one.
    #[must_use]
    pub fn resource(&self, path: &[u8]) -> Option<SignalResource> {
        match path.strip_prefix(self.path.as_bytes())? {
            b"/version" => Some(SignalResource::Version),
            b"/events" => Some(SignalResource::Events),
            b"/reload.js" => Some(SignalResource::Script),
            _ => None,
        }
    }
}

// === impl VersionId ===

impl VersionId {
    /// Its length in characters.
    pub const LENGTH: usize = 16;

    /// The id of a pool of a service.
    #[must_use]
    pub fn of(service: &ServiceName, color: Color, spec: &PoolSpec) -> Self {
        let mut hash = Context::new(&SHA256);
        // Lengths first: no two lists of texts have the same bytes.
        let mut add = |text: &str| {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        add("flipgate version 1");
        add(service.as_str());
        add(color.as_str());
        match &spec.version {
            Some(version) => add(&format!("={version}")),
            None => add(""),
        }
        // Neither their order nor their weights make another version.
        let mut endpoints: Vec<_> =
            spec.endpoints.iter().map(|it| it.endpoint.to_string()).collect();
        endpoints.sort_unstable();
        endpoints.iter().for_each(|it| add(it));
        let digest = hash.finish();
        let mut id = [0; Self::LENGTH];
        // Three bytes are four characters.
        let written = BASE64_URL_SAFE_NO_PAD.encode_slice(&digest.as_ref()[..12], &mut id);
        debug_assert_eq!(written, Ok(Self::LENGTH));
        Self(id)
    }

    /// The id as text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{Endpoint, Version};

    fn spec(version: Option<&str>, endpoints: &[&str]) -> PoolSpec {
        let version = version.map(|it| Version::parse_new(it).expect("a version"));
        let endpoints: Vec<Endpoint> =
            endpoints.iter().map(|it| it.parse().expect("an endpoint")).collect();
        PoolSpec::new(version, endpoints).expect("distinct")
    }

    fn id(service: &str, color: Color, spec: &PoolSpec) -> String {
        VersionId::of(&service.parse().expect("a name"), color, spec).to_string()
    }

    #[test]
    fn an_id_changes_with_everything_that_makes_a_version() {
        let ids = [
            id("web", Color::Blue, &spec(Some("8.0"), &["10.0.0.1:80", "10.0.0.2:80"])),
            id("api", Color::Blue, &spec(Some("8.0"), &["10.0.0.1:80", "10.0.0.2:80"])),
            id("web", Color::Green, &spec(Some("8.0"), &["10.0.0.1:80", "10.0.0.2:80"])),
            id("web", Color::Blue, &spec(Some("8.1"), &["10.0.0.1:80", "10.0.0.2:80"])),
            id("web", Color::Blue, &spec(None, &["10.0.0.1:80", "10.0.0.2:80"])),
            id("web", Color::Blue, &spec(Some("8.0"), &["10.0.0.1:80"])),
            id("web", Color::Blue, &spec(Some("8.0"), &["10.0.0.1:8010", "10.0.0.2:80"])),
        ];
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }

    /// Replicas of different releases must agree: a change of this text reloads every open page.
    #[test]
    fn an_id_is_the_same_everywhere_and_says_nothing() {
        let one = spec(Some("8.0-blue"), &["10.0.0.1:80", "10.0.0.2:80"]);
        let mut other = spec(Some("8.0-blue"), &["10.0.0.2:80", "10.0.0.1:80"]);
        other.endpoints[0].weight = 7;
        let found = id("web", Color::Blue, &one);
        assert_eq!(found, id("web", Color::Blue, &other), "order and weight do not matter");
        assert_eq!(found, "DnpG6LJnJqrc9Jjp");
        assert!(found.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)));
    }

    #[test]
    fn resources_are_below_the_prefix_of_the_service() {
        let signal = |prefix: &str, path: &str| {
            let part = |it: &str| it.parse::<PathPrefix>().expect("a path");
            VersionSignal::new(&part(prefix), &part(path), false, Duration::ZERO)
        };
        for (prefix, path, base) in [
            ("/", "/.flipgate", "/.flipgate"),
            ("/shop", "/.flipgate", "/shop/.flipgate"),
            ("/shop/", "/a/b/", "/shop/a/b"),
        ] {
            let signal = signal(prefix, path);
            let find = |name: &str| signal.resource(format!("{base}{name}").as_bytes());
            assert_eq!(find("/version"), Some(SignalResource::Version), "{base}");
            assert_eq!(find("/events"), Some(SignalResource::Events), "{base}");
            assert_eq!(find("/reload.js"), Some(SignalResource::Script), "{base}");
            for other in ["", "/", "/version/", "/versions", "//version", "/Version"] {
                assert_eq!(find(other), None, "{base}{other}");
            }
            assert_eq!(signal.resource(b"/other/version"), None);
        }
    }
}
