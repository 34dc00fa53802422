//! The names of a certificate.

use std::{collections::HashSet, net::IpAddr};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The hosts of a certificate: RFC 9525, section 6.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubjectNames {
    exact: HashSet<Box<str>>,
    /// The part behind `*.` of a wildcard.
    wildcards: HashSet<Box<str>>,
    addresses: HashSet<IpAddr>,
}

// === impl SubjectNames ===

impl SubjectNames {
    /// The alternative names of a certificate. Without any, its common name, as in many hand-made certificates. `None`
    /// if it is not a certificate.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut names = Self::default();
        let alternative = parsed.subject_alternative_name().ok()?;
        for name in alternative.iter().flat_map(|it| &it.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.insert(name),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        if alternative.is_none() {
            let common = parsed.subject().iter_common_name();
            common.filter_map(|it| it.as_str().ok()).for_each(|it| match it.parse() {
                Ok(address) => drop(names.addresses.insert(address)),
                Err(_) => names.insert(it),
            });
        }
        Some(names)
    }

    /// Whether the certificate is for this host, which is in lower case and has no trailing dot. A
    /// wildcard stands for one label: RFC 9525, section 6.3.
    #[must_use]
    pub fn cover(&self, host: &str) -> bool {
        if self.exact.contains(host) {
            return true;
        }
        let parent = host.split_once('.').map(|it| it.1);
        if parent.is_some_and(|it| self.wildcards.contains(it)) {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        let is_address = |it: IpAddr| self.addresses.contains(&it.to_canonical());
        bare.parse().is_ok_and(is_address)
    }

    /// The exact names.
    pub(super) fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(|it| &**it)
    }

    /// The parts behind `*.` of the wildcards.
    pub(super) fn wildcards(&self) -> impl Iterator<Item = &str> {
        self.wildcards.iter().map(|it| &**it)
    }

    fn insert(&mut self, name: &str) {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(parent) => drop(self.wildcards.insert(parent.into())),
            None => drop(self.exact.insert(name.into())),
        }
    }
}

/// The expiry of a certificate, in seconds since 1970.
pub(super) fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let sixteen = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    four.or(sixteen).ok().map(|it| it.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> SubjectNames {
        let of: Vec<_> = of.iter().map(|it| (*it).to_owned()).collect();
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(of).expect("names").self_signed(&key);
        SubjectNames::of(certificate.expect("a certificate").der()).expect("it can be read")
    }

    #[test]
    fn a_certificate_is_for_its_names_and_no_others() {
        let names = names(&["Example.com", "*.apps.test", "127.0.0.1", "::1"]);
        for good in ["example.com", "a.apps.test", "127.0.0.1", "[::1]"] {
            assert!(names.cover(good), "{good}");
        }
        for bad in
            ["www.example.com", "apps.test", "a.b.apps.test", "127.0.0.2", "[::2]", "", "com"]
        {
            assert!(!names.cover(bad), "{bad}");
        }
    }

    #[test]
    fn a_certificate_without_alternative_names_is_for_its_common_name() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "old.test");
        let certificate = params.self_signed(&key).expect("a certificate");
        let names = SubjectNames::of(certificate.der()).expect("it can be read");
        assert!(names.cover("old.test") && !names.cover("new.test"));
    }

    #[test]
    fn a_file_that_is_not_a_certificate_has_no_names() {
        assert!(SubjectNames::of(&CertificateDer::from_slice(b"no certificate")).is_none());
    }
}
