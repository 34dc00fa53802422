//! `compatible`: both versions say in a manifest what they can live with, and rules compare them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use super::{promote, reasons_of, refusal, service, verdicts};
use crate::support::{Application, Reply, TestProxy, Upstream};

/// An application with this manifest.
async fn application(manifest: &str) -> Application {
    let manifest = manifest.to_owned();
    Application::start(move |request| match &*request.path {
        "/manifest.json" => Reply::ok(&manifest),
        _ => Reply::ok("page"),
    })
    .await
}

/// A gate with these rules, each a name, an expression and more settings.
fn gate(rules: &[(&str, &str, &str)]) -> String {
    let mut gate = "[service.web.gate.compatible]\nmanifest = \"/manifest.json\"\n".to_owned();
    for (name, require, more) in rules {
        gate += &format!(
            "[[service.web.gate.compatible.rules]]\nname = {name:?}\nrequire = {require:?}\n{more}\n"
        );
    }
    gate
}

async fn proxy(blue: &[&Application], green: &[&Application], gate: &str) -> TestProxy {
    let of = |all: &[&Application]| all.iter().map(|it| it.address).collect::<Vec<_>>();
    service(&of(blue), &of(green), gate).start()
}

/// Makes green active, and then blue again.
async fn rollback(proxy: &TestProxy) -> (u16, String) {
    let answer = proxy.call("POST", "/v1/rollback", "", "{}").await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn rules_that_hold_allow_and_a_rule_that_does_not_refuses_with_values_and_help() {
    let rules = gate(&[
        ("one step", "new.schema <= old.schema + 1", "help = \"deploy every version in between\""),
        ("newer", "version(new.version) > version(old.version)", ""),
        ("roles", "candidate.version == new.version && active.version == old.version", ""),
    ]);
    let old = application(r#"{"schema": 12, "version": "8.9.0"}"#).await;
    let new = application(r#"{"schema": 13, "version": "8.10.0"}"#).await;
    let allowed = proxy(&[&old], &[&new], &rules).await;
    let report = verdicts(&allowed).await;
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!(promote(&allowed).await.status, 200);

    let far = application(r#"{"schema": 14, "version": "8.8"}"#).await;
    let refused = proxy(&[&old], &[&far], &rules).await;
    let reasons = reasons_of(&verdicts(&refused).await, "compatible");
    assert_eq!(
        reasons[0],
        "one step: `new.schema <= old.schema + 1` is false (new.schema = 14, old.schema = 12); deploy every version in between"
    );
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert_eq!(refusal(&refused).await.0, "gate_compatible");
}

#[tokio::test]
async fn names_follow_the_order_of_release_also_in_a_rollback() {
    let rules = gate(&[
        ("up", "new.schema >= old.schema", ""),
        ("roles", "candidate.schema <= active.schema", "on = [\"rollback\"]"),
    ]);
    let old = application(r#"{"schema": 12}"#).await;
    let new = application(r#"{"schema": 13}"#).await;
    let proxy = proxy(&[&old], &[&new], &rules).await;
    assert_eq!(promote(&proxy).await.status, 200);
    let (status, text) = rollback(&proxy).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn a_rule_applies_in_its_directions_only() {
    let old = application(r#"{"schema": 12}"#).await;
    let new = application(r#"{"schema": 13}"#).await;
    let only = |direction: &str| {
        gate(&[("same", "new.schema == old.schema", &format!("on = [{direction:?}]"))])
    };
    let on_promote = proxy(&[&old], &[&new], &only("promote")).await;
    assert_eq!(promote(&on_promote).await.status, 409);
    let on_rollback = proxy(&[&old], &[&new], &only("rollback")).await;
    assert_eq!(promote(&on_rollback).await.status, 200);
    let (status, text) = rollback(&on_rollback).await;
    assert!(status == 409 && text.contains("gate_compatible"), "{text}");
    assert_eq!(on_rollback.status().await["services"]["web"]["active"], "green");
}

#[tokio::test]
async fn a_version_that_is_dead_cannot_prevent_its_own_rollback() {
    let rules = gate(&[("same", "new.schema == old.schema", "")]);
    let works = Arc::new(AtomicBool::new(true));
    let is_working = Arc::clone(&works);
    let old = application(r#"{"schema": 12}"#).await;
    let new = Application::start(move |_| match is_working.load(SeqCst) {
        true => Reply::ok(r#"{"schema": 12}"#),
        false => Reply::status(500, "broken"),
    })
    .await;
    let build = || service(&[old.address], &[new.address], &rules);
    let proxy = build().start();
    assert_eq!(promote(&proxy).await.status, 200);
    works.store(false, SeqCst);
    // The manifests of the promotion survive a restart.
    let proxy = build().state(proxy.shut_down()).start();
    let asked = new.requests().len();
    let (status, text) = rollback(&proxy).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(new.requests().len(), asked, "it was judged by the stored manifest");
    // For a promotion, the manifest is read again.
    assert_eq!(refusal(&proxy).await.0, "gate_compatible");
}

#[tokio::test]
async fn a_manifest_that_proves_nothing_is_refused() {
    let old = application(r#"{"schema": 12}"#).await;
    let large = format!(r#"{{"schema": 12, "list": "{}"}}"#, "x".repeat(256 * 1024));
    for (manifest, what) in [
        ("<html>", "expected"),
        (r#"{"schema": 12, "schema": 13}"#, "schema"),
        (r#"{"schema": 12"#, "EOF"),
        ("[12]", "it is not a JSON object"),
        (&large, "it is larger than 256 KiB"),
    ] {
        let new = application(manifest).await;
        let proxy = proxy(&[&old], &[&new], &gate(&[("true", "true", "")])).await;
        let (code, detail) = refusal(&proxy).await;
        assert_eq!(code, "gate_compatible");
        assert!(detail.starts_with("manifest of green at 127.0.0.1:"), "{detail}");
        assert!(detail.contains(what), "{what}: {detail}");
    }
    let missing = Application::start(|_| Reply::status(404, "")).await;
    let proxy = proxy(&[&old], &[&missing], &gate(&[("true", "true", "")])).await;
    assert!(refusal(&proxy).await.1.ends_with("expected status 200, got 404"));
}

#[tokio::test]
async fn a_rule_that_fails_refuses() {
    let old = application(r#"{"schema": 12}"#).await;
    let new = application(r#"{"schema": 13}"#).await;
    for rule in [
        "new.shcema == 13",
        "new.shcema == 13 || true",
        "true || new.schema",
        "new.schema",
        "old.schema - new.schema",
        "new.schema == 13 && new.plugins.size() > 0",
        "version(new.schema) > version(\"1\")",
    ] {
        let proxy = proxy(&[&old], &[&new], &gate(&[("rule", rule, "")])).await;
        let reasons = reasons_of(&verdicts(&proxy).await, "compatible");
        // `true || x` never looks at x.
        let expected = usize::from(rule != "true || new.schema");
        assert_eq!(reasons.len(), expected, "{rule}: {reasons:?}");
    }
}

#[tokio::test]
async fn the_endpoints_of_one_pool_must_have_the_same_manifest() {
    let old = application(r#"{"schema": 12}"#).await;
    let one = application(r#"{"schema": 12, "build": {"host": "a", "plugins": [1, 2]}}"#).await;
    let two = application(r#"{"schema": 12, "build": {"host": "b", "plugins": [1, 2]}}"#).await;
    let three = application(r#"{"schema": 12, "build": {"host": "c", "plugins": [1, 3]}}"#).await;
    let rules = gate(&[("true", "true", "")]);
    let different = proxy(&[&old], &[&one, &two], &rules).await;
    let (_, detail) = refusal(&different).await;
    assert!(detail.contains("differ at \"/build/host\""), "{detail}");
    let ignored = rules.replacen("[[", "ignore = [\"/build/host\"]\n[[", 1);
    let alike = proxy(&[&old], &[&one, &two], &ignored).await;
    assert_eq!(promote(&alike).await.status, 200);
    let plugins = proxy(&[&old], &[&one, &three], &ignored).await;
    assert!(refusal(&plugins).await.1.contains("differ at \"/build/plugins/1\""));
}

/// The next version runs at the address of the one before, and has been forced.
#[tokio::test]
async fn a_forced_promotion_is_not_rolled_back_by_the_manifests_of_an_earlier_one() {
    let rules = gate(&[("same", "new.schema == old.schema", "")]);
    let old = application(r#"{"schema": 1}"#).await;
    let is_upgraded = Arc::new(AtomicBool::new(false));
    let upgraded = Arc::clone(&is_upgraded);
    let new = Application::start(move |_| match upgraded.load(SeqCst) {
        true => Reply::ok(r#"{"schema": 2}"#),
        false => Reply::ok(r#"{"schema": 1}"#),
    })
    .await;
    let proxy = proxy(&[&old], &[&new], &rules).await;
    assert_eq!(promote(&proxy).await.status, 200);
    assert_eq!(rollback(&proxy).await.0, 200);
    is_upgraded.store(true, SeqCst);
    let body = serde_json::json!({"endpoints": [new.address.to_string()]}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(promote(&proxy).await.status, 409);
    let forced = r#"{"services":{"web":"green"},"force":true,"reason":"maintenance"}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", forced).await.status, 200);
    let (status, text) = rollback(&proxy).await;
    assert!(status == 409 && text.contains("new.schema = 2"), "{text}");
}

#[tokio::test]
async fn a_change_of_the_pool_forgets_its_manifest() {
    let rules = gate(&[("same", "new.schema == old.schema", "")]);
    let old = application(r#"{"schema": 12}"#).await;
    let new = application(r#"{"schema": 12}"#).await;
    let proxy = proxy(&[&old], &[&new], &rules).await;
    assert_eq!(promote(&proxy).await.status, 200);
    let dumb = Upstream::start("dumb").await;
    let body =
        serde_json::json!({"endpoints": [dumb.address.to_string()], "force": true}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let (status, text) = rollback(&proxy).await;
    assert!(
        status == 409 && text.contains("manifest of green"),
        "another version runs there: {text}"
    );
}
