//! Content codings (RFC 9110, section 8.4.1): the decoded bodies are compared, since versions may compress differently.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

/// Why a body cannot be decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum CodingError {
    /// Flipgate does not know the coding.
    Unknown(String),
    /// The body is not in its coding.
    Broken(String),
    /// The decoded body is longer than the limit.
    TooLong,
}

/// The body without its codings, which are in the order in which they were applied. `max` limits each decoded body.
pub(super) fn decode(body: Bytes, codings: &str, max: usize) -> Result<Bytes, CodingError> {
    let names = codings.split(',').map(str::trim).filter(|it| !it.is_empty());
    names.rev().try_fold(body, |body, name| match &*name.to_ascii_lowercase() {
        "identity" => Ok(body),
        // A response to HEAD or an empty one has nothing to decode.
        "gzip" | "x-gzip" if body.is_empty() => Ok(body),
        "gzip" | "x-gzip" => gunzip(&body, max),
        other => Err(CodingError::Unknown(other.to_owned())),
    })
}

fn gunzip(body: &[u8], max: usize) -> Result<Bytes, CodingError> {
    let mut decoded = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body)
        .take(limit)
        .read_to_end(&mut decoded)
        .map_err(|error| CodingError::Broken(error.to_string()))?;
    match decoded.len() > max {
        true => Err(CodingError::TooLong),
        false => Ok(decoded.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(body: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory").into()
    }

    #[test]
    fn gzip_is_decoded_and_other_codings_are_named() {
        let body = Bytes::from_static(b"hello");
        for (encoded, codings) in [
            (body.clone(), ""),
            (body.clone(), "identity"),
            (gzip(&body), "gzip"),
            (gzip(&body), "X-GZip"),
            (gzip(&gzip(&body)), "gzip, gzip"),
        ] {
            assert_eq!(decode(encoded, codings, 100), Ok(body.clone()), "{codings}");
        }
        assert_eq!(decode(Bytes::new(), "gzip", 100), Ok(Bytes::new()));
        assert_eq!(decode(body, "br", 100), Err(CodingError::Unknown("br".to_owned())));
    }

    #[test]
    fn a_broken_or_endless_body_is_an_error() {
        let whole = gzip(&vec![b'x'; 1_000_000]);
        assert_eq!(decode(whole.clone(), "gzip", 1000), Err(CodingError::TooLong));
        assert!(decode(whole.clone(), "gzip", 1_000_000).is_ok());
        let half = whole.slice(..whole.len() / 2);
        for broken in [half, Bytes::from_static(b"no gzip")] {
            let error = decode(broken, "gzip", 1_000_000);
            assert!(matches!(error, Err(CodingError::Broken(_))), "{error:?}");
        }
    }
}
