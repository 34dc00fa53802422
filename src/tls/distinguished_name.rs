//! Distinguished names as text: RFC 4514.

use std::fmt::Write;

use x509_parser::{
    der_parser::asn1_rs::{Any, Oid, Tag},
    x509::X509Name,
};

/// The attribute types with a short name: RFC 4514, section 3, and others in wide use.
const SHORT: [(&str, &str); 15] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The name as unambiguous text: from its last part to its first (section 2.1), and no value can end it. All of it is
/// visible ASCII and spaces. A quote or a backslash in a value is written in hexadecimal, so that the text can be
/// quoted.
pub(super) fn text_of(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (place, part) in parts.iter().rev().enumerate() {
        for (inner, attribute) in part.iter().enumerate() {
            match (place, inner) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            put_attribute(&mut text, attribute.attr_type(), attribute.attr_value());
        }
    }
    text
}

/// Section 2.3. A value of an unknown type, or one that is not text, is written in its encoding.
fn put_attribute(text: &mut String, oid: &Oid<'_>, value: &Any<'_>) {
    let dotted = oid.to_id_string();
    let short = SHORT.iter().find(|it| it.0 == dotted).map(|it| it.1);
    text.push_str(short.unwrap_or(&dotted));
    text.push('=');
    match text_value(value).filter(|_| short.is_some()) {
        Some(value) => put_value(text, &value),
        None => {
            text.push('#');
            for byte in encoding_of(value) {
                let _ = write!(text, "{byte:02X}");
            }
        }
    }
}

/// In BER: ITU-T X.690, section 8.1. A certificate's attributes have tags of one byte.
fn encoding_of(value: &Any<'_>) -> Vec<u8> {
    let constructed = u8::from(value.header.is_constructed()) << 5;
    let tag = u8::try_from(value.tag().0 & 31).unwrap_or_default();
    let mut bytes = vec![((value.class() as u8) << 6) | constructed | tag];
    let length = value.data.len();
    match u8::try_from(length) {
        Ok(short @ ..128) => bytes.push(short),
        _ => {
            let digits = length.to_be_bytes();
            let first = digits.iter().position(|it| *it != 0).unwrap_or_default();
            bytes.push(128 | u8::try_from(digits.len() - first).unwrap_or_default());
            bytes.extend_from_slice(&digits[first..]);
        }
    }
    bytes.extend_from_slice(value.data);
    bytes
}

fn text_value(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(value.data).ok().map(str::to_owned)
        }
        // In practice ISO 8859-1.
        Tag::T61String => Some(value.data.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let pairs = value.data.chunks_exact(2).map(|it| u16::from_be_bytes([it[0], it[1]]));
            char::decode_utf16(pairs).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// Section 2.4.
fn put_value(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (place, byte) in value.bytes().enumerate() {
        match byte {
            b'+' | b',' | b';' | b'<' | b'>' => text.extend(['\\', char::from(byte)]),
            b' ' if place == 0 || place == last => text.push_str("\\ "),
            b'#' if place == 0 => text.push_str("\\#"),
            b'"' | b'\\' => {
                let _ = write!(text, "\\{byte:02X}");
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_of_a_value_can_end_its_quotes() {
        for (value, text) in [
            ("admin", "admin"),
            ("admin+OU=root", "admin\\+OU=root"),
            ("a,O=x;<b>", "a\\,O=x\\;\\<b\\>"),
            (" a b ", "\\ a b\\ "),
            (" ", "\\ "),
            ("#a#", "\\#a#"),
            ("a\"b\\", "a\\22b\\5C"),
            ("a\r\n\0", "a\\0D\\0A\\00"),
            ("Lu\u{10d}i\u{107}", "Lu\\C4\\8Di\\C4\\87"),
            ("", ""),
        ] {
            let mut found = String::new();
            put_value(&mut found, value);
            assert_eq!(found, text, "{value:?}");
        }
    }
}
