//! `hook`: another program allows the promotion. The call is signed as Standard Webhooks says.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    model::{HookGate, HookSecret},
    release::{
        candidate::Candidate,
        duration_text::written,
        gate::{Findings, Gate, GateName},
        masking::quoted,
    },
    upstream::{EndpointState, ProbeRequest},
};

/// Bytes of the response that are read.
const BODY_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Hook(pub(super) HookGate);

impl Gate for Hook {
    fn name(&self) -> GateName {
        GateName::Hook
    }

    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings> {
        check(&self.0, candidate).boxed()
    }
}

async fn check(gate: &HookGate, candidate: &Candidate) -> Findings {
    let HookGate { url, endpoint, host, path, secrets, timeout } = gate;
    let now = Timestamp::now();
    let id = format!("promotion_{:032x}", fastrand::u128(1..));
    let body = body(candidate, &id, now);
    let mut headers = HeaderMap::new();
    let signature = signatures(secrets, &id, now.as_second(), &body);
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::USER_AGENT, concat!("flipgate/", env!("CARGO_PKG_VERSION"), " hook")),
        (HeaderName::from_static("webhook-id"), &id),
        (HeaderName::from_static("webhook-timestamp"), &now.as_second().to_string()),
        (HeaderName::from_static("webhook-signature"), &signature),
    ] {
        headers.insert(name, HeaderValue::from_str(value).expect("visible characters"));
    }
    let (method, path, host) = (Method::POST, path.to_string(), Some(host.to_string()));
    let request = ProbeRequest { method, path, host, headers, body: Bytes::from(body) };
    let call = async {
        let (endpoint, context) = (endpoint.clone(), candidate.context.clone());
        // Reads certificates of the system.
        let made =
            tokio::task::spawn_blocking(move || EndpointState::standalone(&endpoint, &context));
        let endpoint = made.await.map_err(|error| error.to_string())?;
        endpoint.probe(request, BODY_MAX).await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(*timeout, call).await {
        Ok(Ok(response)) if (200..300).contains(&response.status) => {
            Findings::passed(format!("{url} allowed it with status {}", response.status))
        }
        Ok(Ok(response)) => {
            let text = quoted(String::from_utf8_lossy(&response.body).trim());
            let text = if text.is_empty() { text } else { format!(": {text}") };
            Findings::refused(format!("{url} refused it with status {}{text}", response.status))
        }
        Ok(Err(why)) => Findings::refused(format!("{url} cannot be called: {why}")),
        Err(_elapsed) => Findings::refused(format!(
            "{url} did not respond within {} (gate.hook.timeout)",
            written(*timeout)
        )),
    }
}

/// The promotion as JSON.
fn body(candidate: &Candidate, id: &str, now: Timestamp) -> String {
    let Candidate { service, color, generation, reason, actor, .. } = candidate;
    let replaced = color.other();
    let promotion = json!({
        "id": id,
        "at": now.to_string(),
        "action": "promote",
        "dry_run": candidate.is_dry_run,
        "service": service.as_str(),
        "generation": generation.0,
        "candidate": {"color": color.as_str(), "version": candidate.version(*color)},
        "active": {"color": replaced.as_str(), "version": candidate.version(replaced)},
        "reason": reason,
        "by": actor.as_ref().map(|it| it.name.as_str()),
    });
    promotion.to_string()
}

/// The signatures of all keys over id, time and body: during the rotation of a key, receivers with either key accept the
/// call.
fn signatures(secrets: &[HookSecret], id: &str, at: i64, body: &str) -> String {
    let signed = format!("{id}.{at}.{body}");
    let sign = |secret: &HookSecret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, signed.as_bytes())))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'msg_1.1700000000.{"a":1}' | openssl dgst -sha256 -hmac sesame -binary | base64`
    #[test]
    fn each_key_signs_id_time_and_body() {
        let secrets = [HookSecret::new(b"sesame"), HookSecret::new(b"next")];
        let both = signatures(&secrets, "msg_1", 1_700_000_000, r#"{"a":1}"#);
        let (first, second) = both.split_once(' ').expect("two signatures");
        assert_eq!(first, "v1,7H4Ov+VY223gk/c6gMDJSFabVdKAsZCnHekLlO24KVg=");
        assert_ne!(first, second);
        assert_ne!(first, signatures(&secrets[..1], "msg_2", 1_700_000_000, r#"{"a":1}"#));
    }
}
