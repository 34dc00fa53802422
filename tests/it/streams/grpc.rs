//! gRPC: `UNAVAILABLE` between two messages.

use bytes::Bytes;
use http::Response;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Http2, Http2Upstream, TestProxy, Upstream, client::PUBLIC, eventually};

/// A proxy with an application that sends what the test tells it to, the sender of that, and the applications.
async fn start(
    drain: &str,
) -> (TestProxy, mpsc::UnboundedSender<Vec<u8>>, (Http2Upstream, Upstream)) {
    let (sender, receiver) = mpsc::unbounded_channel::<Vec<u8>>();
    let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
    let blue = Http2Upstream::start(move |request, mut response| {
        let receiver = std::sync::Arc::clone(&receiver);
        async move {
            // The request goes on for as long as its client wants.
            let _request = request;
            let head = Response::builder().header("content-type", "application/grpc+proto");
            let mut body =
                response.send_response(head.body(()).expect("a head"), false).expect("a stream");
            while let Some(some) = receiver.lock().await.recv().await {
                if body.send_data(Bytes::from(some), false).is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let green = Upstream::start("green").await;
    let proxy = TestProxy::build()
        .workers(1)
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = [\"{}\"], protocol = \"h2\" }}\n\
             green = {{ endpoints = [\"{}\"] }}\n[service.web.drain]\n{drain}",
            blue.address, green.address
        ))
        .start();
    (proxy, sender, (blue, green))
}

/// A message with its prefix.
fn message(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    [&[0], &length[..], content].concat()
}

const GRPC: &str = "content-type: application/grpc\nte: trailers";

async fn ended(proxy: &TestProxy) -> serde_json::Value {
    let path = "/v1/services/web/drain?color=blue";
    proxy.call("GET", path, "", "").await.json()["streams"]["ended"].clone()
}

#[tokio::test]
async fn a_stream_ends_with_unavailable_between_two_messages_wherever_the_flip_comes() {
    let (one, two) = (message(b"first"), message(b""));
    let all = [&one[..], &two].concat();
    for split in 0..=all.len() {
        let (proxy, app, _apps) = start("grpc = { patience = \"0s\", spread = \"0s\" }").await;
        let mut client = Http2::connect(PUBLIC, proxy.public).await;
        let mut call = client.ask("POST", "/Some/Stream", GRPC, false).await;
        let mut answer = call.head().await.expect("an answer");
        if split > 0 {
            app.send(all[..split].to_vec()).expect("a stream");
        }
        while answer.body.len() < split {
            answer.body.extend_from_slice(&call.some().await.expect("a part"));
        }
        proxy.promote(&[("web", "green")]).await;
        // Within a message: it is completed first, and the next one is not sent.
        let borders = [0, one.len(), all.len()];
        let end = borders.into_iter().find(|it| *it >= split).expect("the last one");
        if end > split {
            eventually("the streams have to end", async || {
                !proxy.events("streams_ending").is_empty()
            })
            .await;
            app.send(all[split..end].to_vec()).expect("a stream");
        }
        let rest = call.rest(answer).await.expect("trailers, and no reset");
        assert_eq!(rest.body, &all[..end], "from {split}");
        assert!(rest.trailers.contains("grpc-status: 14\r\n"), "{}", rest.trailers);
        eventually("it is counted", async || ended(&proxy).await == json!({"grpc": {"ended": 1}}))
            .await;
        if split > 0 {
            continue;
        }
        // The request, which goes on, is reset without an error after some seconds: RFC 9113, section 8.1.
        let reset = std::future::poll_fn(|it| call.sending.poll_reset(it));
        let reset = tokio::time::timeout(crate::support::LONG, reset).await.expect("in time");
        assert_eq!(reset.expect("a reason"), h2::Reason::NO_ERROR);
    }
}

#[tokio::test]
async fn a_message_that_does_not_end_is_cut_and_one_without_a_policy_goes_on() {
    let (proxy, app, _apps) = start("grpc = { patience = \"0s\", spread = \"0s\" }").await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut call = client.ask("POST", "/Some/Stream", GRPC, false).await;
    let answer = call.head().await.expect("an answer");
    app.send(message(b"first")[..7].to_vec()).expect("a stream");
    let mut seen = 0;
    while seen < 7 {
        seen += call.some().await.expect("a part").len();
    }
    let (other, other_app, _other_apps) =
        start("sse = { patience = \"0s\", spread = \"0s\" }").await;
    let mut other_client = Http2::connect(PUBLIC, other.public).await;
    let mut other_call = other_client.ask("POST", "/Some/Stream", GRPC, false).await;
    other_call.head().await.expect("an answer");
    other_app.send(message(b"first")).expect("a stream");
    for it in [&proxy, &other] {
        it.promote(&[("web", "green")]).await;
    }
    let error = call.rest(answer).await.expect_err("it is not complete");
    assert!(error.is_reset(), "{error}");
    eventually("it is counted", async || ended(&proxy).await == json!({"grpc": {"cut": 1}})).await;
    other_call.until("first").await;
    other_app.send(message(b"second")).expect("a stream");
    other_call.until("second").await;
    assert_eq!(ended(&other).await, json!({}));
}
