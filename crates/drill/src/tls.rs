//! TLS of the clients: trusted certificates and ALPN.

use std::{fmt::Display, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::ParsedCertificate,
};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::protocol::Protocol;

/// The TLS settings of the clients, for each protocol.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// The usual verification, which also trusts the certificates in the file of authorities themselves.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted regardless of their issuer.
    named: Vec<CertificateDer<'static>>,
}

/// The largest file of authorities. A bundle has a few hundred KiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

// === impl Tls ===

impl Tls {
    /// Settings that trust the authorities of a PEM file, or those of this machine.
    ///
    /// # Errors
    ///
    /// The file, and what is wrong with it.
    pub(super) fn new(authorities: Option<&Path>) -> Result<Self, String> {
        let (roots, named) = match authorities {
            Some(path) => {
                named_roots(path).map_err(|error| format!("{}: {error}", path.display()))?
            }
            None => (native_roots(), Vec::new()),
        };
        let source = authorities.unwrap_or(Path::new("the machine's certificates")).display();
        let fail = |error: &dyn Display| format!("{source}: {error}");
        // Explicit: with two cryptography libraries among the dependencies, rustls would have no default.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let usual =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| fail(&error))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(&error))?
            .dangerous()
            // The usual verification, except for certificates in the file of authorities.
            .with_custom_certificate_verifier(Arc::new(Verifier { usual, named }))
            .with_no_client_auth();
        let offering = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        // RFC 7301, and RFC 9113, section 3.2.
        Ok(Self { http1: offering(b"http/1.1"), http2: offering(b"h2") })
    }

    /// The connector for a protocol.
    pub(super) fn connector(&self, protocol: Protocol) -> TlsConnector {
        TlsConnector::from(Arc::clone(match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::H2 => &self.http2,
        }))
    }
}

fn named_roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let named = certificates(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &named {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("is not a valid certificate: {error}"))?;
    }
    Ok((roots, named))
}

/// The authorities that this machine trusts. If there are none, each handshake fails with an error that says so.
fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// All certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let known = std::fs::metadata(path).map_err(failed)?;
    if !known.is_file() {
        let what = if known.is_dir() { "is a folder, not a file" } else { "is not a file" };
        return Err(what.to_owned());
    }
    if known.len() > FILE_BYTES_MAX {
        return Err("is larger than 4 MiB".to_owned());
    }
    let text = std::fs::read(path).map_err(failed)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("has no PEM certificate: there is no BEGIN CERTIFICATE line".to_owned()),
        Err(pem::Error::MissingSectionEnd { .. }) => {
            Err("is cut off: a BEGIN line has no END line".to_owned())
        }
        Err(error) => Err(format!("is not a PEM file: {error}")),
    }
}

// === impl Verifier ===

impl Verifier {
    /// Whether a certificate is in the file of authorities, and valid now for this name.
    fn is_named(&self, end: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.named.iter().any(|it| it == end)
            && X509Certificate::from_der(end).is_ok_and(|(_, it)| {
                let validity = it.validity();
                (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
            })
            && ParsedCertificate::try_from(end)
                .is_ok_and(|it| verify_server_name(&it, name).is_ok())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(end, between, name, ocsp, now) {
            // The usual verification refuses a self-signed certificate that is marked as an authority.
            Err(Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::UnknownIssuer,
            )) if self.is_named(end, name, now) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_ca_file_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("writes");
            path
        };
        for (path, why) in [
            (folder.path().join("missing"), "cannot be read"),
            (folder.path().to_owned(), "is a folder"),
            (write("empty", ""), "BEGIN CERTIFICATE"),
            (write("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n"), "cut off"),
        ] {
            let error = Tls::new(Some(&path)).expect_err("no authorities");
            assert!(error.starts_with(&path.display().to_string()), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }
}
