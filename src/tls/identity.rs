//! The client certificate of a connection.

use super::distinguished_name::text_of;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A client with a certificate of a trusted authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// One element of `X-Forwarded-Client-Cert`, in the form of Envoy: `Hash`, `Subject` (RFC 4514), and a `URI` and a
    /// `DNS` for each alternative name.
    pub element: Box<str>,
}

// === impl ClientCertificate ===

impl ClientCertificate {
    /// Of the first certificate of a verified chain; `None` if it cannot be read.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        use std::fmt::Write;
        let own = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        let mut element = String::from("Hash=");
        for byte in digest(&SHA256, own).as_ref() {
            let _ = write!(element, "{byte:02x}");
        }
        // It has no quotes, and its backslashes are literal.
        let _ = write!(element, ";Subject=\"{}\"", text_of(parsed.subject()));
        let alternative = parsed.subject_alternative_name().ok()?;
        for name in alternative.iter().flat_map(|it| &it.value.general_names) {
            let (key, value) = match name {
                GeneralName::URI(value) => ("URI", value),
                GeneralName::DNSName(value) => ("DNS", value),
                _ => continue,
            };
            let _ = write!(element, ";{key}={}", quoted(value));
        }
        Some(Self { element: element.into() })
    }
}

/// In quotes, and with nothing that could end them or the field.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            ' '..='~' => quoted.push(letter),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_one_quoted_header_element() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("a name");
        let uri = "spiffe://a/b".try_into().expect("ASCII");
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        params.distinguished_name.push(rcgen::DnType::CommonName, "x\"; URI=evil,\r\nHost: b");
        let certificate = params.self_signed(&key).expect("a certificate");
        let identity = ClientCertificate::of(&[certificate.der().clone()]).expect("readable");
        let element = &*identity.element;
        assert!(element.starts_with("Hash=") && element.as_bytes()[5 + 64] == b';', "{element}");
        assert!(element.ends_with(";DNS=\"a.test\";URI=\"spiffe://a/b\""), "{element}");
        assert!(element.contains(r#";Subject="CN=x\22\; URI=evil\,\0D\0AHost: b""#), "{element}");
    }

    fn subject(parts: &[(rcgen::DnType, &str)]) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&key).expect("a certificate");
        let identity = ClientCertificate::of(&[certificate.der().clone()]).expect("readable");
        let (_, behind) = identity.element.split_once(";Subject=\"").expect("a subject");
        behind.split_once('"').expect("in quotes").0.to_owned()
    }

    /// `O=x` and a common name `admin+OU=root` read as a subject with an organizational unit `root`.
    #[test]
    fn a_subject_reads_as_no_other_one() {
        use rcgen::DnType::{CommonName, CustomDnType, OrganizationName, OrganizationalUnitName};
        let (one, other) = (
            subject(&[(OrganizationName, "x"), (CommonName, "admin+OU=root")]),
            subject(&[
                (OrganizationName, "x"),
                (CommonName, "admin"),
                (OrganizationalUnitName, "root"),
            ]),
        );
        assert_eq!(one, r"CN=admin\+OU=root,O=x");
        assert_eq!(other, "OU=root,CN=admin,O=x");
        assert_eq!(subject(&[(CommonName, "a, O=b")]), r"CN=a\, O=b");
        assert_eq!(subject(&[(CommonName, "O=a/CN=b")]), "CN=O=a/CN=b");
        // A type without a short name has its value in its encoding, here a UTF8String.
        let custom = CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]);
        assert_eq!(subject(&[(custom, "x,y")]), "1.3.6.1.4.1.99999.1=#0C03782C79");
    }
}
