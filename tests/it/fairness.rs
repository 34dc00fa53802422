//! One client or service cannot take what all others need.

use crate::support::{Client, Process, Upstream, client, eventually, http2};

/// One client with 20 connections of HTTP/2 and a window of nothing took every descriptor: of another service,
/// 40 of 40 requests got 503.
#[tokio::test]
async fn one_client_leaves_descriptors_for_others_and_so_does_one_service() {
    let (blue, other) = (Upstream::start("blue").await, Upstream::start("other").await);
    let folder = tempfile::tempdir().expect("a folder");
    // Files for 160 connections of clients, and for as many to endpoints.
    let services = format!(
        "[service.other]\nhosts = [\"other.test\"]\nblue = {{ endpoints = [\"{}\"] }}\n",
        other.address
    );
    let process = Process::start_limited(&folder, 416, &blue, &blue, &services).await;
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let mut connection = http2::Http2::connect(client::PUBLIC, process.public).await;
        let mut calls = Vec::new();
        for _ in 0..100 {
            // Held open by the application.
            calls.push(connection.ask("GET", "/hold", "", true).await);
        }
        greedy.push((connection, calls));
    }
    eventually("the client has its share", async || blue.requests() >= 75).await;
    for from in ["127.0.0.3", "127.0.0.4", "127.0.0.5"] {
        let mut client = Client::connect(from, process.public).await;
        client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "other", "{from}");
        assert_eq!(client.get("/", "").await.text(), "blue", "{from}");
    }
    assert!(blue.requests() <= 110, "{} of 160", blue.requests());
    drop(greedy);
    blue.release();
    eventually("the client may have more again", async || {
        process.public().await.get("/", "").await.status == 200
    })
    .await;
}
