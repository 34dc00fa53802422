//! The versions of HTTP that the clients of the load speak.

use std::str::FromStr;

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: over TLS by ALPN, in the clear by prior knowledge.
    H2,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "http1" => Ok(Self::Http1),
            "h2" => Ok(Self::H2),
            _ => Err("write http1 or h2".to_owned()),
        }
    }
}
