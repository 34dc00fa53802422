//! `Max-Forwards`: how many hops a request may still take.

use crate::http1::{FieldName, RequestHead};

/// The hops that a request may still take: RFC 9110, section 7.6.2. `None` for no limit. Of the supported methods, only
/// `OPTIONS` uses it.
///
/// # Errors
///
/// If the value is not one number.
pub(super) fn hops_left(
    head: &RequestHead,
    bytes: &[u8],
) -> Result<Option<u64>, InvalidMaxForwards> {
    let lines = head.fields.lines(bytes);
    if !lines.has(FieldName::MaxForwards) || head.method(bytes) != b"OPTIONS" {
        return Ok(None);
    }
    let mut values = lines.all(FieldName::MaxForwards);
    let (Some(digits @ [_, ..]), None) = (values.next(), values.next()) else {
        return Err(InvalidMaxForwards);
    };
    let mut hops = 0_u64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(10).ok_or(InvalidMaxForwards)?;
        hops = hops.saturating_mul(10).saturating_add(u64::from(digit));
    }
    Ok(Some(hops))
}

/// A `Max-Forwards` that is not one number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct InvalidMaxForwards;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_count_their_hops() {
        let hops = |method: &str, lines: &str| {
            let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let head = RequestHead::parse(text.as_bytes()).expect("good").expect("whole");
            hops_left(&head, text.as_bytes())
        };
        for (value, left) in [("0", 0), ("00", 0), ("7", 7), ("99999999999999999999", u64::MAX)] {
            let line = format!("Max-Forwards: {value}\r\n");
            assert_eq!(hops("OPTIONS", &line), Ok(Some(left)), "{value}");
            assert_eq!(hops("GET", &line), Ok(None), "{value}");
        }
        assert_eq!(hops("OPTIONS", ""), Ok(None));
        for odd in ["", "-1", "+1", "1 2", "1, 2", "x", "1\r\nMax-Forwards: 1"] {
            assert_eq!(
                hops("OPTIONS", &format!("Max-Forwards: {odd}\r\n")),
                Err(InvalidMaxForwards),
                "{odd}"
            );
        }
    }
}
