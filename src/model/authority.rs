//! Comparison of authorities.

/// Whether `one` and `two` name the same host and port, for a scheme with this default port (RFC 9110, section 4.2.3).
/// A missing or empty port is the default one. Neither is validated; invalid text only equals itself.
#[must_use]
pub fn is_same_authority(one: &[u8], two: &[u8], default_port: u16) -> bool {
    if one.eq_ignore_ascii_case(two) {
        return true;
    }
    let ((one, its_port), (two, other_port)) = (split(one), split(two));
    let its_port = port(its_port, default_port);
    one.eq_ignore_ascii_case(two)
        && its_port.is_some()
        && its_port == port(other_port, default_port)
}

/// The default port of a scheme, case-insensitive (RFC 9110, sections 4.2.1 and 4.2.2).
#[must_use]
pub fn default_port(scheme: &[u8]) -> u16 {
    if scheme.eq_ignore_ascii_case(b"https") { 443 } else { 80 }
}

/// The host, and the text after its colon.
fn split(authority: &[u8]) -> (&[u8], &[u8]) {
    // The colons of an IPv6 address end at its bracket.
    match authority.iter().rposition(|it| matches!(it, b':' | b']')) {
        Some(at) if authority[at] == b':' => (&authority[..at], &authority[at + 1..]),
        _ => (authority, b""),
    }
}

fn port(digits: &[u8], default: u16) -> Option<u16> {
    match digits {
        [] => Some(default),
        _ if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) => None,
        _ => std::str::from_utf8(digits).ok()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_port_may_be_written_left_out_or_left_empty() {
        for (one, two, port) in [
            ("a.test", "a.test:80", 80),
            ("a.test:", "a.test:80", 80),
            ("a.test:", "a.test", 80),
            ("A.Test:443", "a.test", 443),
            ("a.test:080", "a.test", 80),
            ("[::1]", "[::1]:80", 80),
            ("[::A]:", "[::a]", 443),
            ("a.test:8080", "a.test:8080", 80),
        ] {
            let (one, two) = (one.as_bytes(), two.as_bytes());
            assert!(is_same_authority(one, two, port), "{}", one.escape_ascii());
            assert!(is_same_authority(two, one, port), "{}", one.escape_ascii());
        }
    }

    #[test]
    fn another_host_or_port_is_another_authority() {
        for (one, two, port) in [
            ("a.test", "b.test", 80),
            ("a.test", "a.test.", 80),
            ("a.test", "a.test:443", 80),
            ("a.test", "a.test:80", 443),
            ("a.test:80", "a.test:8080", 80),
            ("a.test:65616", "a.test", 80),
            ("a.test:00000080", "a.test", 80),
            ("a.test:+80", "a.test", 80),
            ("user@a.test", "a.test", 80),
            ("a.test:80:80", "a.test", 80),
            ("[::1]", "[::1", 80),
            ("[::1:80]", "[::1]:80", 80),
            ("", "a.test", 80),
        ] {
            let (one, two) = (one.as_bytes(), two.as_bytes());
            assert!(!is_same_authority(one, two, port), "{}", one.escape_ascii());
            assert!(!is_same_authority(two, one, port), "{}", one.escape_ascii());
        }
    }
}
