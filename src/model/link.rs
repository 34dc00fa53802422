//! How the endpoints of a pool are spoken to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the endpoints of a pool are spoken to; where they are is told by each itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// The version of HTTP. Without one: whatever an endpoint with TLS chooses, HTTP/1.1 in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// For endpoints with TLS.
    #[serde(skip_serializing_if = "UpstreamTls::is_default")]
    pub tls: UpstreamTls,
    /// Whether each connection begins with the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of HTTP, as the configuration names it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    H2,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// As a line of text.
    V1,
    /// In binary.
    V2,
}

/// How TLS to endpoints is verified and what is shown to them.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// The authorities, or the very certificates, that are trusted; without it those of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that we show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The name that certificates have to be for, instead of the endpoint's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

// === impl Link ===

impl Link {
    /// Whether nothing is said of it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl UpstreamTls ===

impl UpstreamTls {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
