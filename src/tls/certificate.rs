//! Certificates with their keys, and the choice by server name.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    files::{self, FileError, not_its_key},
    subject_names::{self, SubjectNames},
};

/// The files of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyPair {
    /// The certificate and its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A certificate and its names.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) names: Arc<SubjectNames>,
    /// In seconds since 1970.
    pub(super) expires: i64,
}

/// The certificates of a listener. Never empty.
#[derive(Debug)]
pub(super) struct CertificateSet {
    all: Vec<Certificate>,
    /// By name: exact names before wildcards, and earlier certificates before later ones.
    exact: HashMap<Box<str>, usize>,
    wildcards: HashMap<Box<str>, usize>,
}

// === impl Certificate ===

impl Certificate {
    pub(super) fn load(pair: &KeyPair, provider: &CryptoProvider) -> Result<Self, FileError> {
        let chain = files::certificates(&pair.cert)?;
        let names = SubjectNames::of(&chain[0])
            .ok_or_else(|| FileError::new(&pair.cert, "its first certificate cannot be read"))?;
        let expires = subject_names::expiry(&chain[0]).unwrap_or(i64::MAX);
        let key = files::private_key(&pair.key)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => not_its_key(&pair.key, &pair.cert),
            error => FileError::new(&pair.key, format_args!("cannot be used: {error}")),
        })?;
        Ok(Self { key: Arc::new(key), names: Arc::new(names), expires })
    }
}

// === impl CertificateSet ===

impl CertificateSet {
    pub(super) fn new(all: Vec<Certificate>) -> Self {
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        for (place, certificate) in all.iter().enumerate() {
            for name in certificate.names.exact() {
                exact.entry(name.into()).or_insert(place);
            }
            for parent in certificate.names.wildcards() {
                wildcards.entry(parent.into()).or_insert(place);
            }
        }
        Self { all, exact, wildcards }
    }

    /// The expiry of each, in seconds since 1970.
    pub(super) fn expiries(&self) -> impl Iterator<Item = i64> {
        self.all.iter().map(|it| it.expires)
    }

    /// The certificate for a name. A client without a name, or with an unknown one, gets the first; its request then
    /// gets 421 unless its host fits.
    pub(super) fn find(&self, name: Option<&str>) -> &Certificate {
        let name = name.unwrap_or_default();
        let parent = || name.split_once('.').map(|it| it.1);
        let place = self.exact.get(name).or_else(|| self.wildcards.get(parent()?));
        &self.all[place.copied().unwrap_or_default()]
    }
}

impl ResolvesServerCert for CertificateSet {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        Some(Arc::clone(&self.find(name.as_deref()).key))
    }
}
