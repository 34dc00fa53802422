//! How to connect to the endpoints of a pool.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How to connect to the endpoints of a pool. Their addresses are in [`WeightedEndpoint`](super::WeightedEndpoint).
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// The version of HTTP. `None`: what an endpoint with TLS selects by ALPN, HTTP/1.1 without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Settings for endpoints with TLS.
    #[serde(skip_serializing_if = "UpstreamTls::is_default")]
    pub tls: UpstreamTls,
    /// The PROXY protocol header that each connection begins with, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of HTTP, as in the configuration.
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
    /// The text format.
    V1,
    /// The binary format.
    V2,
}

/// How to verify endpoints over TLS, and Flipgate's own certificate.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// A file of trusted CA or endpoint certificates; `None` for those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The client certificate to present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The name that the endpoint's certificate must be valid for, instead of its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

// === impl Link ===

impl Link {
    /// Whether every setting has its default.
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
