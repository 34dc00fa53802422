//! TLS towards endpoints.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    ALPN_HTTP1, ALPN_HTTP2,
    file_stamps::FileStamps,
    files::{self, FileError, not_its_key},
    provider,
};
use crate::model::{Protocol, UpstreamTls};

/// TLS of the connections to the endpoints of a pool.
#[derive(Debug)]
pub struct UpstreamConnector {
    settings: UpstreamTls,
    /// The current configuration, or the error because of which no connection is opened.
    current: ArcSwap<Result<ClientConfigs, FileError>>,
    stamps: Mutex<FileStamps>,
}

/// One for each set of ALPN protocols.
#[derive(Debug)]
struct ClientConfigs {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// Verifies certificates by the usual rules, or as one of the configured certificates.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    /// Trusted themselves, whatever has signed them.
    named: Vec<CertificateDer<'static>>,
}

// === impl TlsConnector ===

impl UpstreamConnector {
    /// Reads the files. If one cannot be read, every connection fails until it can.
    #[must_use]
    pub fn new(settings: &UpstreamTls) -> Self {
        let stamps = Mutex::new(FileStamps::of(files_of(settings)));
        let current = ArcSwap::from_pointee(ClientConfigs::load(settings));
        Self { settings: settings.clone(), current, stamps }
    }

    /// Checks the files.
    ///
    /// # Errors
    ///
    /// The first that cannot be used.
    pub fn check(settings: &UpstreamTls) -> Result<(), FileError> {
        ClientConfigs::load(settings).map(drop)
    }

    /// Reads the files again if one has changed, and returns whether one had. If one cannot be used, the current
    /// configuration stays.
    ///
    /// # Errors
    ///
    /// The first that cannot be used.
    pub fn refresh(&self) -> Result<bool, FileError> {
        let found = FileStamps::of(files_of(&self.settings));
        let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == found {
            return Ok(false);
        }
        *known = found;
        let new = ClientConfigs::load(&self.settings)?;
        self.current.store(Arc::new(Ok(new)));
        Ok(true)
    }

    /// The connector, with one protocol or both offered by ALPN.
    ///
    /// # Errors
    ///
    /// The file that cannot be used.
    pub fn connector(&self, protocol: Option<Protocol>) -> Result<TlsConnector, FileError> {
        match &**self.current.load() {
            Ok(configs) => Ok(TlsConnector::from(Arc::clone(match protocol {
                None => &configs.any,
                Some(Protocol::Http1) => &configs.http1,
                Some(Protocol::H2) => &configs.http2,
            }))),
            Err(error) => Err(error.clone()),
        }
    }

    /// The name that the certificate of an endpoint must have: the configured one, or its host.
    #[must_use]
    pub fn server_name(&self, host: &str) -> Option<ServerName<'static>> {
        let name = self.settings.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).ok()
    }
}

fn files_of(settings: &UpstreamTls) -> impl Iterator<Item = &Path> {
    [&settings.ca, &settings.cert, &settings.key].into_iter().flatten().map(AsRef::as_ref)
}

// === impl ClientConfigs ===

impl ClientConfigs {
    fn load(settings: &UpstreamTls) -> Result<Self, FileError> {
        let provider = provider();
        let (roots, named) = match &settings.ca {
            Some(path) => named_roots(path)?,
            None => (native_roots(), Vec::new()),
        };
        let place = settings.ca.as_deref().unwrap_or(Path::new("the machine's certificates"));
        let fail = |error: &dyn ToString| FileError::new(place, error.to_string());
        let usual =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| fail(&error))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(&error))?
            .dangerous()
            // The usual rules apply, except for configured certificates.
            .with_custom_certificate_verifier(Arc::new(Verifier { usual, named }));
        let config = match (&settings.cert, &settings.key) {
            (Some(cert), Some(key)) => {
                let chain = files::certificates(cert)?;
                let key_der = files::private_key(key)?;
                builder.with_client_auth_cert(chain, key_der).map_err(|error| match error {
                    Error::InconsistentKeys(_) => not_its_key(key, cert),
                    error => FileError::new(key, format_args!("cannot be used: {error}")),
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            any: offering(&[ALPN_HTTP2, ALPN_HTTP1]),
            http1: offering(&[ALPN_HTTP1]),
            http2: offering(&[ALPN_HTTP2]),
        })
    }
}

fn named_roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), FileError> {
    let named = files::certificates(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &named {
        let no_authority = |error| FileError::new(path, format_args!("is no authority: {error}"));
        roots.add(certificate.clone()).map_err(no_authority)?;
    }
    Ok((roots, named))
}

/// The certificate authorities of this machine. Without any, each handshake fails, and its error says so.
fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

// === impl Verifier ===

impl Verifier {
    /// Whether a certificate is one of the configured ones, and valid today for this name.
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
            // Self-signed certificates are often marked as authorities, and refused for that.
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
