//! The hash key of requests that should go to the same endpoint.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::cookies;
use crate::{
    http1::{FieldLines, FieldName},
    model::HashKey,
};

/// The key of a request: the same on every worker, machine and version. `None` if the request does not have the value.
pub(super) fn key_of(by: &HashKey, lines: FieldLines<'_>, client: Option<IpAddr>) -> Option<u64> {
    match by {
        HashKey::Header(name) => {
            let is_it = |it: &[u8]| it.eq_ignore_ascii_case(name.as_bytes());
            let value = lines.each().find(|(_, name, _)| is_it(name)).map(|(_, _, value)| value);
            value.filter(|it| !it.is_empty()).map(xxh3_64)
        }
        HashKey::Cookie(name) => {
            let mut lines = lines.all(FieldName::Cookie);
            let value = lines.find_map(|line| cookies::value(line, name.as_bytes()));
            value.filter(|it| !it.is_empty()).map(xxh3_64)
        }
        HashKey::Address => client.map(|it| match it.to_canonical() {
            IpAddr::V4(it) => xxh3_64(&it.octets()),
            IpAddr::V6(it) => xxh3_64(&it.octets()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    fn key(by: &HashKey, fields: &[(&str, &str)], client: &str) -> Option<u64> {
        let (head, bytes) = samples::request(fields);
        key_of(by, head.fields.lines(&bytes), client.parse().ok())
    }

    #[test]
    fn requests_are_hashed_by_the_configured_key_alone() {
        let header = HashKey::Header("x-user".into());
        let cookie = HashKey::Cookie("sid".into());
        let of_header = |value| key(&header, &[("X-User", value), ("A", "b")], "192.0.2.1");
        assert_eq!(of_header("ann"), of_header("ann"));
        assert_ne!(of_header("ann"), of_header("bob"));
        assert_eq!(of_header("ann"), key(&header, &[("x-uSER", "ann")], "192.0.2.9"));
        assert_eq!((of_header(""), key(&header, &[], "192.0.2.1")), (None, None));
        let of_cookie = |value| key(&cookie, &[("Cookie", value)], "192.0.2.1");
        assert_eq!(of_cookie("a=b; sid=7"), of_cookie("sid=7;c=d"));
        assert_ne!(of_cookie("sid=7"), of_cookie("sid=8"));
        assert_eq!(of_cookie("xsid=7; sid"), None);
        let of_address = |client| key(&HashKey::Address, &[("X-User", "ann")], client);
        assert_eq!(of_address("192.0.2.1"), of_address("::ffff:192.0.2.1"));
        assert_ne!(of_address("192.0.2.1"), of_address("192.0.2.2"));
        assert_eq!(of_address("unknown"), None);
    }

    #[test]
    fn keys_stay_the_same_from_one_version_to_the_next() {
        let header = HashKey::Header("x-user".into());
        assert_eq!(key(&header, &[("X-User", "ann")], ""), Some(ANN));
    }

    /// XXH3 of `ann`, by another implementation.
    const ANN: u64 = 0x482c_8948_4cbd_62c8;
}
