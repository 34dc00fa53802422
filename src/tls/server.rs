//! TLS of listeners.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, RootCertStore, ServerConfig, crypto::aws_lc_rs::Ticketer,
    server::NoServerSessionStorage, server::WebPkiClientVerifier, version,
};
use tokio_rustls::TlsAcceptor;

use super::{
    certificate::{Certificate, CertificateSet, KeyPair},
    file_stamps::FileStamps,
    files::{self, FileError},
    provider,
    subject_names::SubjectNames,
};

/// The TLS settings of a listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerSettings {
    /// The first is for clients without a server name, or with an unknown one.
    pub certificates: Vec<KeyPair>,
    /// Whether TLS 1.2 is enabled, too.
    pub has_tls12: bool,
    /// The ALPN protocols, in order of preference.
    pub protocols: Vec<&'static [u8]>,
    /// Settings for client certificates.
    pub client: Option<ClientAuth>,
}

/// The settings for client certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientAuth {
    /// The certificate authorities.
    pub ca: PathBuf,
    /// Whether a client without one is refused.
    pub is_required: bool,
    /// Whether a client with one is internal, whatever its address.
    pub is_internal: bool,
}

/// TLS of a listener: the current certificates, and the files that they come from.
#[derive(Debug)]
pub struct ListenerTls {
    settings: ServerSettings,
    current: ArcSwap<HandshakeConfig>,
    stamps: Mutex<FileStamps>,
}

/// The configuration of a handshake. A connection keeps its own.
#[derive(Debug)]
pub struct HandshakeConfig {
    config: Arc<ServerConfig>,
    certificates: Arc<CertificateSet>,
    /// The certificate authorities of clients, to detect changes.
    authorities: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// Whether a client with a certificate is internal.
    pub makes_internal: bool,
}

// === impl ServerSettings ===

impl ServerSettings {
    /// Checks every file.
    ///
    /// # Errors
    ///
    /// All files that cannot be used.
    pub fn check(&self) -> Result<(), Vec<FileError>> {
        let provider = provider();
        let mut errors: Vec<_> = self
            .certificates
            .iter()
            .filter_map(|it| Certificate::load(it, &provider).err())
            .collect();
        errors.extend(self.client.iter().filter_map(|it| it.check().err()));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(|it| [&*it.cert, &*it.key]);
        pairs.chain(self.client.iter().map(|it| &*it.ca))
    }
}

// === impl ClientAuth ===

impl ClientAuth {
    /// Checks the file.
    ///
    /// # Errors
    ///
    /// The problem.
    pub fn check(&self) -> Result<(), FileError> {
        roots(&self.ca).map(drop)
    }
}

// === impl ListenerTls ===

impl ListenerTls {
    /// Reads everything.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used.
    pub fn load(settings: ServerSettings) -> Result<Self, FileError> {
        // Taken before the files are read: changes in between are read again.
        let stamps = Mutex::new(FileStamps::of(settings.files()));
        let current = ArcSwap::from_pointee(HandshakeConfig::load(&settings, None)?);
        Ok(Self { settings, current, stamps })
    }

    /// Reads everything again if a file has changed, and returns whether one had. Open connections stay as they are.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used; the current certificates stay. The same files are not read again before they
    /// change.
    pub fn refresh(&self) -> Result<bool, FileError> {
        let found = FileStamps::of(self.settings.files());
        let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == found {
            return Ok(false);
        }
        *known = found;
        self.reload().map(|()| true)
    }

    /// Reads everything again.
    ///
    /// # Errors
    ///
    /// As [`Self::refresh`].
    pub fn reload(&self) -> Result<(), FileError> {
        let new = HandshakeConfig::load(&self.settings, Some(&self.current.load()))?;
        self.current.store(Arc::new(new));
        Ok(())
    }

    /// The certificate files with their expiry, in seconds since 1970.
    #[must_use]
    pub fn expiries(&self) -> Vec<(PathBuf, i64)> {
        let files = self.settings.certificates.iter().map(|it| it.cert.clone());
        files.zip(self.current.load().certificates.expiries()).collect()
    }

    /// The configuration for a new connection.
    #[must_use]
    pub fn current(&self) -> Arc<HandshakeConfig> {
        self.current.load_full()
    }
}

// === impl HandshakeConfig ===

impl HandshakeConfig {
    fn load(settings: &ServerSettings, before: Option<&Self>) -> Result<Self, FileError> {
        let provider = provider();
        let load = |it: &KeyPair| Certificate::load(it, &provider);
        let certificates = settings.certificates.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let certificates = Arc::new(CertificateSet::new(certificates));
        let versions: &[_] =
            if settings.has_tls12 { rustls::ALL_VERSIONS } else { &[&version::TLS13] };
        let fail = |error: &dyn ToString| {
            let first = settings.certificates.first().map(|it| it.cert.clone());
            FileError::new(&first.unwrap_or_default(), error.to_string())
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| fail(&error))?;
        let mut authorities = Vec::new();
        let builder = match &settings.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let roots = roots(&client.ca)?;
                authorities = files::certificates(&client.ca)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match client.is_required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier =
                    verifier.build().map_err(|error| FileError::new(&client.ca, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config =
            builder.with_cert_resolver(Arc::<CertificateSet>::clone(&certificates) as Arc<_>);
        config.alpn_protocols = settings.protocols.iter().map(|it| it.to_vec()).collect();
        // Tickets hold the sessions, so that nothing has to be stored for each client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        // Old tickets stay valid with new certificates, but not with other authorities: a ticket stands for a client
        // certificate, too.
        config.ticketer = match before.filter(|it| it.authorities == authorities) {
            Some(before) => Arc::clone(&before.config.ticketer),
            None => Ticketer::new().map_err(|error| fail(&error))?,
        };
        let makes_internal = settings.client.as_ref().is_some_and(|it| it.is_internal);
        Ok(Self { config: Arc::new(config), certificates, authorities, makes_internal })
    }

    /// Performs the handshake.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// The names of the certificate for a client with this server name.
    #[must_use]
    pub fn names(&self, server_name: Option<&str>) -> Arc<SubjectNames> {
        Arc::clone(&self.certificates.find(server_name).names)
    }
}

fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in files::certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| FileError::new(path, format_args!("is no authority: {error}")))?;
    }
    Ok(roots)
}

/// Why a handshake failed, if the client certificate is the reason.
#[must_use]
pub fn client_certificate_problem(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::NoCertificatesPresented => Some("no certificate"),
        rustls::Error::InvalidCertificate(error) => Some(match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "not signed by tls.client.ca"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not valid yet"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "not for TLS clients"
            }
            _ => "invalid certificate",
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(folder: &Path, name: &str) -> KeyPair {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let pair = KeyPair { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        fs::write(&pair.cert, certificate.pem()).expect("written");
        fs::write(&pair.key, key.serialize_pem()).expect("written");
        pair
    }

    fn settings(pair: KeyPair) -> ServerSettings {
        ServerSettings {
            certificates: vec![pair],
            has_tls12: true,
            protocols: vec![crate::tls::ALPN_HTTP1],
            client: None,
        }
    }

    #[test]
    fn a_changed_file_is_taken_and_a_broken_one_leaves_what_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let server =
            ListenerTls::load(settings(put(folder.path(), "one.test"))).expect("good files");
        let covers = |name: &str| server.current().names(None).cover(name);
        assert!(covers("one.test"));
        assert_eq!(server.refresh(), Ok(false));
        let pair = put(folder.path(), "two.test");
        assert_eq!(server.refresh(), Ok(true));
        assert!(covers("two.test") && !covers("one.test"));
        fs::write(&pair.cert, "broken").expect("written");
        let error = server.refresh().expect_err("it is broken");
        assert!(error.to_string().contains("cert.pem") && error.what.contains("is no PEM"));
        assert!(covers("two.test"));
        assert_eq!(server.refresh(), Ok(false), "the same broken file is reported once");
        assert!(server.reload().is_err() && covers("two.test"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = put(folder.path(), "one.test");
        let other = rcgen::KeyPair::generate().expect("a key");
        fs::write(&pair.key, other.serialize_pem()).expect("written");
        let errors = settings(pair.clone()).check().expect_err("they do not fit");
        assert!(errors[0].path == pair.key && errors[0].what.contains("is not the key"));
        fs::remove_file(&pair.key).expect("removed");
        let errors = settings(pair).check().expect_err("it is not there");
        assert!(errors[0].what.contains("cannot be read"), "{errors:?}");
    }
}
