//! TLS: certificates and keys that are read from files and replaced without dropping a connection, for clients and
//! upstreams.
//!
//! Knows nothing of HTTP but the names of its versions. Everything is read and checked as a whole: if a changed file
//! cannot be used, the current certificates stay, and the log says so. Types of the TLS library do not leave this room,
//! except for the two that a handshake needs.

mod certificate;
mod connectors;
mod distinguished_name;
mod file_stamps;
mod files;
mod identity;
mod server;
mod subject_names;
mod upstream;

pub use self::{
    certificate::KeyPair,
    connectors::Connectors,
    files::FileError,
    identity::ClientCertificate,
    server::{
        ClientAuth, HandshakeConfig, ListenerTls, ServerSettings, client_certificate_problem,
    },
    subject_names::SubjectNames,
    upstream::UpstreamConnector,
};

/// HTTP/1.1 in ALPN: RFC 7301.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// HTTP/2: RFC 9113, section 3.2.
pub const ALPN_HTTP2: &[u8] = b"h2";

/// The cryptography provider. Explicit: with a second one in the tree, the choice of the library would panic.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
