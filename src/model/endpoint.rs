//! The address of an endpoint, and its health.

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// An endpoint: its address, and whether it uses TLS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddress,
    /// Whether connections use TLS. Never for a unix socket.
    pub is_tls: bool,
}

/// The address of an endpoint.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum EndpointAddress {
    /// An IP address and port.
    Address(SocketAddr),
    /// A name. Its addresses may change.
    Name {
        /// The host name in lower case, without a trailing dot.
        host: Arc<str>,
        /// The port, never 0.
        port: u16,
    },
    /// A unix socket, by its absolute path.
    Unix(Arc<str>),
}

/// The health of an endpoint by its health checks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not checked yet.
    Unknown,
    /// The checks pass.
    Up,
    /// The checks fail.
    Down,
}

/// Text that is not an endpoint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseEndpointError {
    /// The port is missing, 0 or not a number.
    #[error(
        "`{0}` has no valid port; use `127.0.0.1:9001`, `[::1]:9001`, `app:9001` or `https://app:443`"
    )]
    Port(String),
    /// The part before the port is neither an address nor a host name.
    #[error("`{0}` is neither an address nor a host name; use `127.0.0.1:9001` or `app:9001`")]
    Host(String),
    /// The scheme is not supported for endpoints, or a path follows the address.
    #[error(
        "`{0}` is not an endpoint; use `app:9001`, `https://app:9443` or `unix:/run/app.sock`, without a path"
    )]
    Scheme(String),
    /// The path of the unix socket is not absolute, or longer than 107 bytes.
    #[error(
        "`{0}`: the path of a unix socket must be absolute and at most 107 bytes; use `unix:/run/app.sock`"
    )]
    Path(String),
}

// === impl Endpoint ===

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let short = || text.chars().take(300).collect::<String>();
        if let Some(path) = text.strip_prefix("unix:") {
            // The kernel's limit is 108 bytes with a terminating NUL.
            let is_valid = path.starts_with('/') && path.len() < 108 && !path.contains('\0');
            return match is_valid {
                true => Ok(Self { address: EndpointAddress::Unix(path.into()), is_tls: false }),
                false => Err(ParseEndpointError::Path(short())),
            };
        }
        let (is_tls, text) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(ParseEndpointError::Scheme(short())),
        };
        if text.contains('/') {
            return Err(ParseEndpointError::Scheme(short()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
            return match canonical.port() {
                0 => Err(ParseEndpointError::Port(short())),
                _ => Ok(Self { address: EndpointAddress::Address(canonical), is_tls }),
            };
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| ParseEndpointError::Port(short()))?;
        let port = port
            .parse::<u16>()
            .ok()
            .filter(|it| *it != 0 && !port.starts_with('+'))
            .ok_or_else(|| ParseEndpointError::Port(short()))?;
        let host = host.strip_suffix('.').unwrap_or(host);
        if !is_host_name(host) {
            return Err(ParseEndpointError::Host(short()));
        }
        Ok(Self {
            address: EndpointAddress::Name { host: host.to_ascii_lowercase().into(), port },
            is_tls,
        })
    }
}

/// Letters, digits, `-`, `_` and dots, without empty labels. A last label of digits only would be a malformed IPv4
/// address (RFC 1123, section 2.1).
fn is_host_name(host: &str) -> bool {
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
    };
    host.len() <= 253
        && host.split('.').all(label_is_valid)
        && host.rsplit('.').next().is_some_and(|it| !it.bytes().all(|it| it.is_ascii_digit()))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_tls {
            f.write_str("https://")?;
        }
        match &self.address {
            EndpointAddress::Address(address) => address.fmt(f),
            EndpointAddress::Name { host, port } => write!(f, "{host}:{port}"),
            EndpointAddress::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

// === impl Health ===

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for valid in ["127.0.0.1:9001", "[::1]:80", "app:9000", "app-1.internal:65535", "my_app:1"]
        {
            assert_eq!(valid.parse::<Endpoint>().map(|it| it.to_string()), Ok(valid.to_owned()));
        }
        assert_eq!("App.:80".parse::<Endpoint>().map(|it| it.to_string()), Ok("app:80".to_owned()));
        for valid in ["https://app-1:9443", "https://10.0.0.1:443", "unix:/run/app.sock"] {
            assert_eq!(valid.parse::<Endpoint>().map(|it| it.to_string()), Ok(valid.to_owned()));
        }
        assert_eq!("http://app:80".parse::<Endpoint>(), "app:80".parse());
        assert_ne!("https://app:80".parse::<Endpoint>(), "app:80".parse());
        let mapped = "[::ffff:10.0.0.1]:80".parse::<Endpoint>().map(|it| it.to_string());
        assert_eq!(mapped, Ok("10.0.0.1:80".to_owned()));
    }

    #[test]
    fn invalid_endpoints_have_specific_errors() {
        use ParseEndpointError::{Host, Path, Port, Scheme};
        for text in ["127.0.0.1", "app", "127.0.0.1:0", "app:0", "app:99999", "app:+80", "app:"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(Port(_))), "{text}");
        }
        for text in [":80", "a b:80", "-a:80", "a..b:80", "1.2.3:80", "999.1.1.1:80"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(Host(_))), "{text}");
        }
        for text in ["ftp://a:80", "https://a:443/x", "http://a:80/", "a/b:80"] {
            assert!(matches!(text.parse::<Endpoint>(), Err(Scheme(_))), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["unix:run/a", "unix:", "unix:/a\0", &long] {
            assert!(matches!(text.parse::<Endpoint>(), Err(Path(_))), "{text}");
        }
    }
}
