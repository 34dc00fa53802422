//! Who has shown a certificate.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A client that has shown a certificate of an authority that is trusted for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// As one element of `X-Forwarded-Client-Cert`, in Envoy's form: `Hash`, `Subject`, and a `URI`
    /// and a `DNS` for each alternative name.
    pub element: Box<str>,
}

// === impl Identity ===

impl Identity {
    /// Of the first certificate of a chain that was verified; `None` if it cannot be read.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        use std::fmt::Write;
        let own = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        let mut element = String::from("Hash=");
        for byte in digest(&SHA256, own).as_ref() {
            let _ = write!(element, "{byte:02x}");
        }
        let _ = write!(element, ";Subject={}", quoted(&parsed.subject().to_string()));
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

/// In quotes, with nothing in between that could end them or the field.
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
    fn an_identity_is_told_in_one_element_that_nothing_can_break_out_of() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("a name");
        let uri = "spiffe://a/b".try_into().expect("ASCII");
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        params.distinguished_name.push(rcgen::DnType::CommonName, "x\"; URI=evil,\r\nHost: b");
        let certificate = params.self_signed(&key).expect("a certificate");
        let identity = Identity::of(&[certificate.der().clone()]).expect("readable");
        let element = &*identity.element;
        assert!(element.starts_with("Hash=") && element.as_bytes()[5 + 64] == b';', "{element}");
        assert!(element.ends_with(";DNS=\"a.test\";URI=\"spiffe://a/b\""), "{element}");
        assert!(element.contains("x\\\"; URI=evil,??Host: b"), "{element}");
    }
}
