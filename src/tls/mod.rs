//! TLS: certificates and keys read from files and swapped without dropping a connection, what
//! clients and upstreams are offered, and who is at the other end.
//!
//! Knows nothing of HTTP but the names of its versions. Everything is read and checked as a whole: a
//! changed file that cannot be used leaves what is in force as it is, and says so. The library's
//! types do not leave this room but for the two that a handshake needs.

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

/// What may be agreed on in a handshake: RFC 7301.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// HTTP/2: RFC 9113, section 3.2.
pub const ALPN_HTTP2: &[u8] = b"h2";

/// The cryptography behind all of it. Named, since a second one in the tree would make the library's
/// own choice a panic.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
