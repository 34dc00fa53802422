//! An operator ends the streams: by the API, and by `flipgate drain --end-streams`.

use serde_json::json;

use super::{HANDSHAKE, Proxy, SWITCH};
use crate::support::{Client, eventually};

async fn open(proxy: &Proxy) -> (Client, Client) {
    let mut client = proxy.proxy.public().await;
    client.send(HANDSHAKE).await;
    let (mut app, _) = proxy.blue.accept().await;
    app.send(SWITCH).await;
    assert_eq!(client.head().await.status, 101);
    (client, app)
}

const PATH: &str = "/v1/services/web/drain";

#[tokio::test]
async fn a_call_ends_the_streams_of_a_service_without_a_policy() {
    let proxy = Proxy::with("abandoned = \"cut\"").await;
    let mut open_ones = Vec::new();
    for _ in 0..20 {
        open_ones.push(open(&proxy).await);
    }
    proxy.flip().await;
    let before = proxy.proxy.drain("web").await;
    assert_eq!((&before["streams"], &before["in_flight"]), (&json!(null), &json!(20)));
    let body = json!({"color": "blue", "end_streams": true}).to_string();
    let answer = proxy.proxy.call("POST", PATH, "", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let streams = &answer.json()["streams"];
    assert_eq!((&streams["ending"], &streams["ended"]), (&json!(true), &json!({})));
    let left = streams["left_ms"].as_u64().expect("a number");
    assert!(
        (50_000..=60_000).contains(&left),
        "30 s of patience for transfers, and 30 s of spread: {left}"
    );
    // The first of so many that spread over 30 s comes soon.
    eventually("one is closed", async || {
        proxy.ended().await["websocket"]["closed"].as_u64().is_some_and(|it| it > 0)
    })
    .await;
    let started = proxy.events("streams_ending");
    assert_eq!((started.len(), &started[0]["by_hand"]), (1, &json!(true)));
}

#[tokio::test]
async fn a_call_skips_the_patience_and_keeps_the_rest_of_a_policy() {
    let proxy = Proxy::with(
        "websocket = { patience = \"10m\", spread = \"0s\", close = 1001 }\n\
         download = { patience = \"10m\", spread = \"0s\" }\nsse = { patience = \"10m\", spread = \"0s\" }\n\
         grpc = { patience = \"10m\", spread = \"0s\" }\nupload = { patience = \"10m\", spread = \"0s\" }",
    )
    .await;
    let (mut client, _app) = open(&proxy).await;
    proxy.flip().await;
    proxy.wait_for_worker().await;
    let drain = proxy.proxy.drain("web").await;
    assert_eq!((&drain["streams"]["ending"], &drain["in_flight"]), (&json!(true), &json!(1)));
    // Without a color it is the one that is not active.
    let answer = proxy.proxy.call("POST", PATH, "", r#"{"end_streams":true}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(client.exactly(4).await, [0x88, 2, 0x03, 0xe9]);
    eventually("it is counted", async || {
        proxy.ended().await == json!({"websocket": {"closed": 1}})
    })
    .await;
}

#[tokio::test]
async fn a_call_for_the_active_color_is_refused_and_ends_nothing() {
    let proxy = Proxy::with("websocket = { patience = \"0s\", spread = \"0s\" }").await;
    let (mut client, mut app) = open(&proxy).await;
    for (body, status) in [
        (r#"{"color":"blue","end_streams":true}"#, 409),
        (r#"{"color":"green","end_streams":false}"#, 422),
        (r#"{"color":"green"}"#, 400),
        (r#"{"color":"red","end_streams":true}"#, 404),
        (r#"{"color":"green","end_streams":true,"now":true}"#, 400),
    ] {
        let answer = proxy.proxy.call("POST", PATH, "", body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    let answer = proxy.proxy.call("POST", "/v1/services/x/drain", "", r#"{"end_streams":true}"#);
    assert_eq!(answer.await.status, 404);
    proxy.wait_for_worker().await;
    app.send([0x81, 2, b'o', b'n']).await;
    assert_eq!(client.exactly(4).await, [0x81, 2, b'o', b'n']);
    assert!(proxy.events("streams_ending").is_empty());
}

#[tokio::test]
async fn a_rollback_keeps_what_a_call_has_not_ended_yet() {
    let proxy = Proxy::with("websocket = { patience = \"0s\", spread = \"1h\" }").await;
    let (mut client, mut app) = open(&proxy).await;
    proxy.flip().await;
    let answer = proxy.proxy.call("POST", PATH, "", r#"{"end_streams":true}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    proxy.roll_back().await;
    let drain = proxy.proxy.call("GET", "/v1/services/web/drain?color=blue", "", "").await.json();
    assert_eq!(drain["streams"], json!({"ending": false, "left_ms": 0, "ended": {}}));
    proxy.wait_for_worker().await;
    app.send([0x81, 2, b'o', b'n']).await;
    assert_eq!(client.exactly(4).await, [0x81, 2, b'o', b'n']);
}
