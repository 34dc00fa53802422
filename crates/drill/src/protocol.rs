//! The versions of HTTP of the load.

use std::str::FromStr;

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: with ALPN over TLS, with prior knowledge over TCP.
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
