//! Certificates of the test's own, in files as an operator has them.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tempfile::TempDir;

/// An authority that signs whatever a test needs.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// The file of its own certificate.
    pub(crate) file: PathBuf,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let certificate = params.self_signed(&key).expect("a certificate");
        let file = folder.path().join("ca.pem");
        fs::write(&file, certificate.pem()).expect("written");
        let certificate = certificate.der().clone();
        Self { folder, issuer: Issuer::new(params, key), certificate, file }
    }

    /// Signs a certificate for these names. One with the same file name is replaced.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, file);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let place = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        let pair = Pair { cert: place("cert.pem"), key: place("key.pem") };
        // The key first: a reader in between sees two files that do not match, and waits.
        fs::write(&pair.key, key.serialize_pem()).expect("written");
        fs::write(&pair.cert, certificate.pem()).expect("written");
        pair
    }

    /// A client that trusts this authority, offers these protocols and shows this certificate.
    pub(crate) fn client(&self, protocols: &[&str], shown: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
                let chain = CertificateDer::pem_file_iter(&pair.cert).expect("a file");
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
        };
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A listener with this certificate, as configuration; more of `[listener.tls]` may follow.
    pub(crate) fn listener(&self, pair: &Pair) -> String {
        let (cert, key) = (pair.cert.display(), pair.key.display());
        format!("certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]\n")
    }
}
