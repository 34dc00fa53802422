//! The calls: who may hold and release, and what they refuse.

use super::*;

#[tokio::test]
async fn a_release_works_in_every_state_and_one_by_id_only_for_its_hold() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    let generation = proxy.generation().await;
    release(&proxy).await;
    assert!(proxy.events("hold_released").is_empty(), "there was none");
    let first = hold(&proxy, json!({"for": "60s"})).await["id"].clone();
    release(&proxy).await;
    release(&proxy).await;
    let second = hold(&proxy, json!({"for": "60s"})).await["id"].clone();
    assert_ne!(first, second);
    // A late release of the first hold does not end the second one.
    call(&proxy, "POST", "web/release", &json!({"id": first})).await;
    assert_eq!(web(&proxy).await["hold"]["id"], second);
    call(&proxy, "POST", "web/release", &json!({"id": second})).await;
    assert_eq!(proxy.get("/").await, "blue");
    assert_eq!(proxy.events("hold_released").len(), 2);
    assert_eq!(proxy.generation().await, generation, "no change of the routing table");
}

#[tokio::test]
async fn a_second_hold_of_the_same_caller_sets_another_end() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    let first = hold(&proxy, json!({"for": "20s", "requests": 5})).await;
    let mut client = held(&proxy, "/").await;
    let second = hold(&proxy, json!({"for": "100s", "requests": 6})).await;
    assert_eq!((&second["id"], &second["since"]), (&first["id"], &first["since"]));
    assert_eq!((&second["requests"], &second["waiting"]), (&json!(6), &json!(1)));
    assert!(second["remaining_ms"].as_u64().is_some_and(|it| it > 60_000), "{second}");
    release(&proxy).await;
    assert_eq!(client.answer().await.text(), "blue");
}

#[tokio::test]
async fn another_caller_needs_force_and_a_reason() {
    let (blue, green) = (application("blue").await, application("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = ["one", "two"].map(|name| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("secret-of-{name}-0123456789abcdef")).expect("a file");
        format!(
            "[[admin.token]]\nname = {name:?}\nscope = \"admin\"\nfile = {:?}\n",
            path.display().to_string()
        )
    });
    let proxy = service(&blue, &green, "").admin(&tokens.concat()).start();
    let bearer =
        |name: &str| format!("Authorization: Bearer secret-of-{name}-0123456789abcdef\r\n");
    let hold = async |name: &str, body: Value| {
        proxy.call("POST", "/v1/services/web/hold", &bearer(name), &body.to_string()).await
    };
    let first = hold("one", json!({"for": "60s"})).await.json()["services"]["web"]["hold"].clone();
    assert_eq!(first["owner"], "one");
    let refused = hold("two", json!({"for": "60s"})).await;
    assert_eq!(
        (refused.status, &refused.json()["reasons"][0]["code"]),
        (409, &json!("held_by_other"))
    );
    assert_eq!(hold("two", json!({"for": "60s", "force": true})).await.status, 422, "no reason");
    assert_eq!(web(&proxy).await["hold"]["id"], first["id"]);
    let forced = hold("two", json!({"for": "60s", "force": true, "reason": "night shift"})).await;
    let second = forced.json()["services"]["web"]["hold"].clone();
    assert_eq!(second["owner"], "two");
    assert_ne!(second["id"], first["id"]);
    // Everyone may release.
    let released = proxy.call("POST", "/v1/services/web/release", &bearer("one"), "{}").await;
    assert_eq!((released.status, proxy.get("/").await), (200, "blue".to_owned()));
}

#[tokio::test]
async fn what_a_call_cannot_mean_is_refused_and_changes_nothing() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    for (path, body, status) in [
        ("web/hold", json!({"for": "301s"}), 400),
        ("web/hold", json!({"for": "0s"}), 400),
        ("web/hold", json!({"for": "soon"}), 400),
        ("web/hold", json!({"requests": 0}), 400),
        ("web/hold", json!({"requests": 10_001}), 400),
        ("web/hold", json!({"unknown": 1}), 400),
        ("shop/hold", json!({}), 404),
        ("shop/release", json!({}), 404),
        ("web/release", json!({"id": "one"}), 400),
        ("web/maintenance", json!({"retry_after": "25h"}), 400),
        ("web/maintenance", json!({"page": "x".repeat(256 * 1024 + 1)}), 400),
        ("shop/maintenance", json!({}), 404),
    ] {
        let answer =
            proxy.call("POST", &format!("/v1/services/{path}"), "", &body.to_string()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let stale = proxy.call("POST", "/v1/services/web/hold", "If-Match: \"999\"\r\n", "{}").await;
    assert_eq!(stale.status, 412);
    let now = web(&proxy).await;
    assert!(now["hold"].is_null() && now["maintenance"].is_null(), "{now}");
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn a_repeated_call_with_its_key_holds_once() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    let key = "Idempotency-Key: one\r\n";
    let again =
        async || proxy.call("POST", "/v1/services/web/hold", key, "{\"for\":\"60s\"}").await;
    assert_eq!(again().await.status, 200);
    release(&proxy).await;
    let repeated = again().await;
    assert_eq!((repeated.status, repeated.field("idempotent-replayed")), (200, Some("true")));
    assert_eq!(proxy.get("/").await, "blue", "it was not held again");
}

#[tokio::test]
async fn holds_are_in_the_audit_log_with_their_reason() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s", "reason": "migration"})).await;
    release(&proxy).await;
    call(&proxy, "POST", "web/maintenance", &json!({})).await;
    call(&proxy, "DELETE", "web/maintenance", &json!({})).await;
    let lines = async || {
        let files = std::fs::read_dir(proxy.state_folder()).expect("a folder");
        let files = files.map(|it| it.expect("a file").path());
        let files = files.filter(|it| it.to_string_lossy().contains("audit"));
        files.map(|it| std::fs::read_to_string(it).unwrap_or_default()).collect::<String>()
    };
    for text in [
        "\"hold web for 60000 ms\"",
        "migration",
        "\"release web\"",
        "\"maintenance web\"",
        "\"maintenance end web\"",
    ] {
        eventually(text, async || lines().await.contains(text)).await;
    }
}
