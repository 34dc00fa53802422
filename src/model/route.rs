//! Routing: which service a host and a path belong to.

use std::{borrow::Cow, collections::HashMap, fmt, str::FromStr};

/// The host of a request, in lower case, without port and trailing dot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host<'a>(Cow<'a, str>);

/// Text that is not a valid host.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the host is not a name or an address with an optional port")]
pub struct ParseHostError;

/// The hosts of a route.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum HostPattern {
    /// `example.com`: this host.
    Exact(Box<str>),
    /// `*.example.com`: every host that ends in `.example.com`, at any depth.
    Suffix(Box<str>),
    /// `*`: every host.
    Any,
}

/// A path prefix that ends at a segment border: `/api` matches `/api` and `/api/users`, but not `/apis`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PathPrefix(Box<str>);

/// Text that is not a valid path prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not a path prefix; it must begin with `/` and have no `?`, `#`, `*`, spaces, escapes or dot segments"
)]
pub struct ParsePathError(String);

/// Maps host and path to a target. The most specific host pattern with a matching prefix wins (exact, then the longest
/// suffix, then any), and among its prefixes the longest.
#[derive(Clone, Debug)]
pub struct Router<T> {
    exact: HashMap<Box<str>, Prefixes<T>>,
    suffix: HashMap<Box<str>, Prefixes<T>>,
    any: Prefixes<T>,
}

/// The prefixes of one host pattern.
#[derive(Clone, Debug)]
struct Prefixes<T> {
    /// Sorted by bytes.
    sorted: Vec<(PathPrefix, T)>,
    /// The length of the longest one in bytes.
    longest_length: usize,
}

/// The route exists already; the value is its target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteConflict<T>(pub T);

// === impl Host ===

impl<'a> Host<'a> {
    /// Parses the value of a `Host` field or the authority of a target (RFC 9110, section 7.2).
    ///
    /// # Errors
    ///
    /// [`ParseHostError`] for an empty name, user information, and invalid characters.
    pub fn parse(text: &'a str) -> Result<Self, ParseHostError> {
        let (name, port) = match text.strip_prefix('[') {
            Some(inside) => {
                let end = inside.find(']').ok_or(ParseHostError)?;
                inside[..end].parse::<std::net::Ipv6Addr>().map_err(|_| ParseHostError)?;
                (&text[..end + 2], &inside[end + 1..])
            }
            None => match text.bytes().position(|it| it == b':') {
                Some(colon) => text.split_at(colon),
                None => (text, ""),
            },
        };
        let port_is_valid = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|it| it.len() <= 5 && it.bytes().all(|it| it.is_ascii_digit()));
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() || !port_is_valid {
            return Err(ParseHostError);
        }
        if name.starts_with('[') {
            return Ok(Self(lower(name)));
        }
        if name.starts_with('.') || name.len() > 255 {
            return Err(ParseHostError);
        }
        let (mut has_capitals, mut before) = (false, b'a');
        for byte in name.bytes() {
            match byte {
                b'.' if before == b'.' => return Err(ParseHostError),
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {}
                b'A'..=b'Z' => has_capitals = true,
                _ => return Err(ParseHostError),
            }
            before = byte;
        }
        if before == b'.' {
            return Err(ParseHostError);
        }
        Ok(Self(if has_capitals { lower(name) } else { Cow::Borrowed(name) }))
    }

    /// The host name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|it| it.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

// === impl HostPattern ===

impl FromStr for HostPattern {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, is_suffix) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let host = Host::parse(name)?;
        // A port would never match, since hosts are compared without port.
        if name.contains(':') && !name.ends_with(']') || is_suffix && name.starts_with('[') {
            return Err(ParseHostError);
        }
        Ok(match is_suffix {
            true => Self::Suffix(host.as_str().into()),
            false => Self::Exact(host.as_str().into()),
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

// === impl PathPrefix ===

impl FromStr for PathPrefix {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, ParsePathError> {
        let normal = super::normalize_path(text).ok();
        let is_plain = text.bytes().all(|it| it.is_ascii_graphic() && !b"?#*%\\".contains(&it));
        if normal.as_deref() != Some(text) || !is_plain {
            return Err(ParsePathError(text.chars().take(200).collect()));
        }
        // `/` becomes empty, so that every prefix is compared in the same way.
        Ok(Self(text.strip_suffix('/').unwrap_or(text).into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

impl PathPrefix {
    /// Whether a normalized path is the prefix or below it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0).is_some_and(|it| it.is_empty() || it.starts_with('/'))
    }
}

// === impl Router ===

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), suffix: HashMap::new(), any: Prefixes::default() }
    }
}

impl<T: Copy> Router<T> {
    /// Adds a route to `target`.
    ///
    /// # Errors
    ///
    /// [`RouteConflict`] with the target of the same pattern and prefix; then nothing is added.
    pub fn insert(
        &mut self,
        host: &HostPattern,
        path: &PathPrefix,
        target: T,
    ) -> Result<(), RouteConflict<T>> {
        let prefixes = match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Suffix(name) => self.suffix.entry(name.clone()).or_default(),
            HostPattern::Any => &mut self.any,
        };
        prefixes.insert(path, target)
    }

    /// The target for a host and a normalized path.
    #[must_use]
    pub fn find(&self, host: &Host<'_>, path: &str) -> Option<T> {
        let host = host.as_str();
        let in_prefixes = |prefixes: &Prefixes<T>| prefixes.find(path);
        if !self.exact.is_empty()
            && let Some(found) = self.exact.get(host).and_then(in_prefixes)
        {
            return Some(found);
        }
        if !self.suffix.is_empty() {
            // Each dot begins a suffix; the first is the longest.
            let found = host
                .match_indices('.')
                .filter_map(|(dot, _)| self.suffix.get(&host[dot + 1..]))
                .find_map(in_prefixes);
            if found.is_some() {
                return found;
            }
        }
        in_prefixes(&self.any)
    }
}

// === impl Prefixes ===

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { sorted: Vec::new(), longest_length: 0 }
    }
}

impl<T: Copy> Prefixes<T> {
    fn insert(&mut self, path: &PathPrefix, target: T) -> Result<(), RouteConflict<T>> {
        match self.sorted.binary_search_by(|(it, _)| it.0.cmp(&path.0)) {
            Ok(index) => Err(RouteConflict(self.sorted[index].1)),
            Err(index) => {
                self.longest_length = self.longest_length.max(path.0.len());
                self.sorted.insert(index, (path.clone(), target));
                Ok(())
            }
        }
    }

    /// The target of the longest prefix of a normalized path. Searches for each segment border, beginning with the last
    /// one within the longest prefix.
    fn find(&self, path: &str) -> Option<T> {
        let is_border = |end: usize| path.as_bytes().get(end).is_none_or(|it| *it == b'/');
        let ends = (0..=self.longest_length.min(path.len())).rev().filter(|it| is_border(*it));
        let mut found = ends.map(|end| {
            self.sorted.binary_search_by(|(it, _)| it.0.as_bytes().cmp(&path.as_bytes()[..end]))
        });
        found.find_map(Result::ok).map(|index| self.sorted[index].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[(&str, &str, u32)]) -> Router<u32> {
        let mut router = Router::default();
        for (host, path, target) in routes {
            let host = host.parse().expect("a pattern");
            router.insert(&host, &path.parse().expect("a prefix"), *target).expect("a new route");
        }
        router
    }

    fn find(router: &Router<u32>, host: &str, path: &str) -> Option<u32> {
        router.find(&Host::parse(host).expect("a host"), path)
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let covers = |prefix: &str, path| prefix.parse::<PathPrefix>().expect("one").covers(path);
        for (prefix, path) in [("/", "/"), ("/", "/a"), ("/a", "/a"), ("/a/", "/a"), ("/a", "/a/b")]
        {
            assert!(covers(prefix, path), "{prefix} {path}");
        }
        for (prefix, path) in [("/a", "/"), ("/a", "/ab"), ("/a/b", "/a"), ("/a", "/b/a")] {
            assert!(!covers(prefix, path), "{prefix} {path}");
        }
    }

    #[test]
    fn the_most_specific_host_wins() {
        let router = router(&[
            ("*", "/", 0),
            ("*.example.com", "/", 1),
            ("*.a.example.com", "/", 2),
            ("www.example.com", "/", 3),
        ]);
        for (host, target) in [
            ("other.org", 0),
            ("example.com", 0),
            ("x.example.com", 1),
            ("y.x.example.com", 1),
            ("x.a.example.com", 2),
            ("a.example.com", 1),
            ("WWW.Example.COM.:8080", 3),
            ("notexample.com", 0),
        ] {
            assert_eq!(find(&router, host, "/"), Some(target), "{host}");
        }
    }

    #[test]
    fn the_longest_prefix_wins_on_segment_borders() {
        let router =
            router(&[("*", "/", 0), ("*", "/api", 1), ("*", "/api/v2/", 2), ("a", "/deep", 3)]);
        for (host, path, target) in [
            ("h", "/", 0),
            ("h", "/apis", 0),
            ("h", "/api", 1),
            ("h", "/api/", 1),
            ("h", "/api/v1", 1),
            ("h", "/api/v2", 2),
            ("h", "/api/v2/x", 2),
            ("h", "/api/v20", 1),
            ("a", "/deep/x", 3),
            ("a", "/api/v2", 2),
            ("h", "/deep", 0),
        ] {
            assert_eq!(find(&router, host, path), Some(target), "{host}{path}");
        }
    }

    #[test]
    fn the_search_finds_what_a_linear_search_finds() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut path = |most: usize| -> String {
            let segments = random.usize(0..=most);
            (0..segments)
                .map(|_| format!("/{}", ["a", "b", "ab", "c"][random.usize(0..4)]))
                .collect()
        };
        let mut router = Router::default();
        let mut known: Vec<(String, usize)> = Vec::new();
        for target in 0..200 {
            let text = path(4);
            let prefix = if text.is_empty() { "/" } else { &text };
            let prefix = prefix.parse().expect("a prefix");
            if router.insert(&HostPattern::Any, &prefix, target).is_ok() {
                known.push((text, target));
            }
        }
        let host = Host::parse("h").expect("a host");
        for _ in 0..1000 {
            let bare = path(6);
            for asked in [bare.clone() + "/", bare] {
                let asked = if asked.is_empty() { "/" } else { &asked };
                let is_under = |prefix: &str| {
                    asked
                        .strip_prefix(prefix)
                        .is_some_and(|it| it.is_empty() || it.starts_with('/'))
                };
                let under = known.iter().filter(|(it, _)| is_under(it));
                let longest_length =
                    under.max_by_key(|(it, _)| it.len()).map(|(_, target)| *target);
                assert_eq!(router.find(&host, asked), longest_length, "seed {seed}: {asked}");
            }
        }
    }

    #[test]
    fn without_a_matching_route_there_is_no_target() {
        let router = router(&[("a.com", "/x", 1), ("*.b.com", "/", 2)]);
        for (host, path) in [("a.com", "/"), ("b.com", "/"), ("c.com", "/x")] {
            assert_eq!(find(&router, host, path), None, "{host}{path}");
        }
    }

    #[test]
    fn the_same_route_is_not_added_twice() {
        let mut router = router(&[("a.com", "/x", 1)]);
        let (host, path) = ("A.com".parse().expect("a pattern"), "/x/".parse().expect("a prefix"));
        assert_eq!(router.insert(&host, &path, 2), Err(RouteConflict(1)));
        assert_eq!(find(&router, "a.com", "/x"), Some(1));
    }

    #[test]
    fn invalid_hosts_are_rejected() {
        for invalid in [
            "", ":80", ".", "a b", "user@a", "a/b", "a:b", "a:123456", "[::1", "[x]", "[::1]x",
            "a,b", ".a",
        ] {
            assert!(Host::parse(invalid).is_err(), "{invalid:?}");
        }
        for (valid, name) in [("[::1]:80", "[::1]"), ("A:1", "a"), ("a.", "a"), ("a:", "a")] {
            assert_eq!(Host::parse(valid).map(|it| it.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn invalid_patterns_and_prefixes_are_rejected() {
        for invalid in ["", "*.", "a.*", "*a.com", "a.com:80", "*.[::1]", "**"] {
            assert!(invalid.parse::<HostPattern>().is_err(), "{invalid:?}");
        }
        for invalid in ["", "api", "/a/../b", "/a?b", "/a*", "/%61", "/a b"] {
            assert!(invalid.parse::<PathPrefix>().is_err(), "{invalid:?}");
        }
    }
}
