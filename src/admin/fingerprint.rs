//! The fingerprint by which calls with the same idempotency key are compared.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value};

use crate::control::Idempotency;

/// The key with the fingerprints of a call: its verb and its parsed request. `before` is the text of which versions
/// before 0.2.0 made a checksum.
pub(super) fn idempotency(key: String, verb: &str, request: Value, before: &str) -> Idempotency {
    let canonical = canonical_text(verb, request);
    let digest = digest(&SHA256, canonical.as_bytes());
    let hex: String = digest.as_ref().iter().map(|it| format!("{it:02x}")).collect();
    let old_fingerprint =
        format!("{verb} {:08x} {}", crc32fast::hash(before.as_bytes()), before.len());
    Idempotency { key, fingerprint: format!("sha256:{hex}"), old_fingerprint }
}

/// JSON with sorted keys and without spaces. Empty and false values are left out, so that a new field of a request
/// changes nothing for callers that do not set it.
fn canonical_text(verb: &str, request: Value) -> String {
    let call = [("request".to_owned(), request), ("verb".to_owned(), verb.into())];
    sorted(Value::Object(call.into_iter().collect())).to_string()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, sorted(value)));
            let mut fields: Vec<_> = fields.filter(|(_, value)| !is_default(value)).collect();
            fields.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        plain => plain,
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(request: Value, before: &str) -> Idempotency {
        idempotency("k".to_owned(), "promote", request, before)
    }

    /// `printf '{"request":{"services":{"web":"green"}},"verb":"promote"}' | sha256sum`
    #[test]
    fn it_is_the_digest_of_canonical_json() {
        let request = json!({"services": {"web": "green"}, "force": false, "more": null});
        let text = canonical_text("promote", request.clone());
        assert_eq!(text, r#"{"request":{"services":{"web":"green"}},"verb":"promote"}"#);
        let expected = "sha256:e7a452f91fd1c2f64becf9ccd92e979a03867b871a30240ee050c443abebf2f3";
        assert_eq!(of(request, "").fingerprint, expected);
    }

    #[test]
    fn the_order_of_fields_does_not_matter_and_their_values_do() {
        let parsed = |text: &str| of(serde_json::from_str(text).expect("JSON"), "").fingerprint;
        let one = parsed(r#"{"services":{"api":"blue","web":"green"},"list":[1,2]}"#);
        assert_eq!(one, parsed(r#"{"list":[1,2],"services":{"web":"green","api":"blue"}}"#));
        assert_ne!(one, parsed(r#"{"list":[2,1],"services":{"web":"green","api":"blue"}}"#));
        assert_ne!(one, parsed(r#"{"list":[1,2],"services":{"web":"blue","api":"green"}}"#));
        assert_ne!(
            one,
            parsed(r#"{"list":[1,2],"services":{"web":"green","api":"blue"},"x":true}"#)
        );
    }

    /// Two texts of the same length and CRC32, which were taken for the same call.
    #[test]
    fn calls_with_the_same_checksum_are_different() {
        let (one, other) = ("plumless", "buckeroo");
        assert_eq!(crc32fast::hash(one.as_bytes()), crc32fast::hash(other.as_bytes()));
        let (first, second) = (of(json!({"v": one}), one), of(json!({"v": other}), other));
        assert_eq!(first.old_fingerprint, second.old_fingerprint);
        assert!(!second.matches(&first.fingerprint));
        assert!(first.matches(&first.fingerprint));
        // A fingerprint of an older version is still recognized.
        assert!(first.matches(&first.old_fingerprint));
        assert!(!of(json!({"v": "x"}), "x").matches(&first.old_fingerprint));
    }
}
