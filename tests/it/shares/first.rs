//! Those who go first: internal clients, and holders of a token.

use serde_json::json;

use super::{application, clients, get, of, promote, share};
use crate::support::{Client, TestProxy, client};

#[tokio::test]
async fn internal_clients_and_holders_of_the_token_go_first() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    let status = promote(&proxy, &[1, 100], json!({"first": true})).await;
    let share = &status["services"]["web"]["share"];
    assert_eq!((&share["percent"], &share["steps"]), (&json!(0), &json!([0, 1, 100])));
    let token = share["first_token"].as_str().expect("a token");
    assert!(clients(&proxy, 20).await.iter().all(|it| it.1 == "blue"), "0 %");
    let mut insider = Client::connect(client::INTERNAL, proxy.public).await;
    assert_eq!(insider.get("/", "").await.text(), "green");
    for fields in
        [format!("Flipgate-First: {token}\r\n"), format!("Cookie: a=b; flipgate_first={token}\r\n")]
    {
        assert_eq!(get(&proxy, "/", &fields).await.text(), "green", "{fields}");
    }
    let seen = green.requests();
    assert!(seen.iter().all(|it| it.header("flipgate-first").is_empty()), "it is not forwarded");
    assert_eq!(seen.last().expect("a request").header("cookie"), "a=b");
    // An insider can still ask for the other one.
    let asked = insider.get("/", "Flipgate-Preview: blue\r\n").await;
    assert_eq!(asked.text(), "blue");
}

/// Numbers of scans can be guessed.
#[tokio::test]
async fn the_name_of_a_transaction_of_those_who_go_first_does_not_let_the_public_in() {
    let (blue, green) = (application("blue").await, application("green").await);
    let pin =
        "pin = { start = [\"header:X-Scan-Id\"], carry = \"header:X-Scan-Id\", max_age = \"1h\" }";
    let proxy = of(&blue, &green, pin).start();
    promote(&proxy, &[50, 100], json!({"first": true})).await;
    let mut insider = Client::connect(client::INTERNAL, proxy.public).await;
    let scan = "X-Scan-Id: 7\r\n";
    assert_eq!(insider.get("/", scan).await.text(), "green");
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/", scan).await.text(), "blue", "0 %");
        assert_eq!(insider.get("/", scan).await.text(), "green", "it is still theirs");
    }
}

/// Found by an adversary: the pin of a page to the candidate led to the candidate of another service, of which no client had a share.
#[tokio::test]
async fn a_pin_of_a_group_is_one_of_its_own_gradual_promotion() {
    let (blue, green) = (application("blue").await, application("green").await);
    let pin = "pin = { start = [\"document\"], group = \"g\", max_age = \"1h\" }";
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.address])
        .services(pin)
        .service_of("api", "web.test", "/api", &[blue.address], &[green.address])
        .services(pin)
        .start();
    let api = json!({"services": {"api": "green"}, "first": true});
    promote(&proxy, &[50, 100], api).await;
    promote(&proxy, &[99, 100], json!({})).await;
    let ask = async |path: &str, fields: &str| {
        let mut client = proxy.public().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n{fields}\r\n")).await;
        client.answer().await
    };
    let page = loop {
        let page = ask("/", "Sec-Fetch-Dest: document\r\n").await;
        if page.text() == "green" {
            break page;
        }
    };
    let pairs: Vec<_> = page.fields("set-cookie").filter_map(|it| it.split(';').next()).collect();
    assert!(pairs.iter().any(|it| it.starts_with("flipgate_pin_g=")), "{pairs:?}");
    let cookie = format!("Cookie: {}\r\n", pairs.join("; "));
    assert_eq!(ask("/app.css", &cookie).await.text(), "green", "the page stays");
    assert_eq!(ask("/api", &cookie).await.text(), "blue", "0 %");
}

#[tokio::test]
async fn without_first_an_insider_is_a_client_like_others() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "share = { by = \"header:X-User\" }").start();
    promote(&proxy, &[50, 100], json!({})).await;
    assert_eq!(share(&proxy).await["first_token"], json!(null));
    let mut insider = Client::connect(client::INTERNAL, proxy.public).await;
    assert_eq!(insider.get("/", "").await.text(), "blue");
}

#[tokio::test]
async fn a_token_is_valid_for_one_promotion() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[1, 100], json!({"first": true})).await;
    let token = share(&proxy).await["first_token"].as_str().expect("a token").to_owned();
    let fields = format!("Flipgate-First: {token}\r\n");
    assert_eq!(get(&proxy, "/", &fields).await.text(), "green");
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    assert_eq!(get(&proxy, "/", &fields).await.text(), "blue");
    promote(&proxy, &[1, 100], json!({"first": true})).await;
    assert_eq!(get(&proxy, "/", &fields).await.text(), "blue", "that is another promotion");
}

#[tokio::test]
async fn a_caller_that_may_only_read_does_not_see_the_token() {
    let (blue, green) = (application("blue").await, application("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = ["read", "promote"].map(|scope| {
        let path = folder.path().join(scope);
        std::fs::write(&path, format!("secret-of-{scope}-0123456789abcdef")).expect("a file");
        format!("[[admin.token]]\nname = {scope:?}\nscope = {scope:?}\nfile = {path:?}\n")
    });
    let proxy = of(&blue, &green, "").admin(&tokens.concat()).start();
    promote(&proxy, &[1, 100], json!({"first": true})).await;
    for (scope, is_shown) in [("read", false), ("promote", true)] {
        let fields = format!("Authorization: Bearer secret-of-{scope}-0123456789abcdef\r\n");
        let status = proxy.call("GET", "/v1/status", &fields, "").await.json();
        let share = &status["services"]["web"]["share"];
        assert_eq!((&share["percent"], share["first_token"].is_string()), (&json!(0), is_shown));
    }
}
