//! A hold is bounded in number and in time, and a client that leaves gives its place up.

use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn past_the_places_the_response_is_503_with_the_time_that_remains() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s", "requests": 2})).await;
    let mut waiting = [held(&proxy, "/one").await, held(&proxy, "/two").await];
    let mut third = proxy.public().await;
    let answer = third.get("/three", "").await;
    assert_eq!((answer.status, answer.field("cache-control")), (503, Some("no-store")));
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=destination_unavailable"));
    let retry = answer.field("retry-after").and_then(|it| it.parse::<u64>().ok());
    assert!(retry.is_some_and(|it| (50..=61).contains(&it)), "{}", answer.head);
    assert!(answer.text().contains("held"), "{}", answer.text());
    release(&proxy).await;
    for client in &mut waiting {
        assert_eq!(client.answer().await.text(), "blue");
    }
    assert_eq!(third.get("/three", "").await.text(), "blue", "the connection stayed open");
    let results = "flipgate_hold_requests_total{result=";
    assert_eq!(proxy.metric(&format!("{results}\"refused\",service=\"web\"}}")).await, 1.0);
    assert_eq!(proxy.metric(&format!("{results}\"released\",service=\"web\"}}")).await, 2.0);
    let refused = "flipgate_requests_total{code=\"503\",color=\"blue\",service=\"web\"}";
    assert_eq!(proxy.metric(refused).await, 1.0);
}

#[tokio::test]
async fn a_hold_that_nothing_releases_ends_by_itself() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "for = \"1s\"\nrequests = 7").start();
    let begin = Instant::now();
    let begun = hold(&proxy, json!({})).await;
    assert_eq!((&begun["requests"], &begun["owner"]), (&json!(7), &json!("127.0.0.1")));
    assert!(begun["remaining_ms"].as_u64().is_some_and(|it| (1..=1000).contains(&it)), "{begun}");
    let mut client = held(&proxy, "/").await;
    assert_eq!(client.answer().await.text(), "blue");
    let took = begin.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    eventually("the end is recorded", async || !proxy.events("hold_released").is_empty()).await;
    let released = &proxy.events("hold_released")[0];
    assert_eq!((&released["id"], &released["by"]), (&begun["id"], &Value::Null));
    eventually("no hold", async || web(&proxy).await["hold"].is_null()).await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_up() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s", "requests": 1})).await;
    let gone = held(&proxy, "/gone").await;
    drop(gone);
    wait_for_waiting(&proxy, 0).await;
    // The same with a body of which no more is read than fits a buffer.
    let mut uploading = proxy.public().await;
    let head = "POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300000\r\n\r\n";
    uploading.send([head.as_bytes(), &[b'x'; 50_000]].concat()).await;
    wait_for_waiting(&proxy, 1).await;
    uploading.finish().await;
    wait_for_waiting(&proxy, 0).await;
    let mut stays = held(&proxy, "/stays").await;
    release(&proxy).await;
    assert_eq!(stays.answer().await.text(), "blue");
    assert_eq!(paths(&blue), ["/stays"]);
    let left = "flipgate_requests_total{code=\"499\",color=\"blue\",service=\"web\"}";
    assert_eq!(proxy.metric(left).await, 2.0);
}

#[tokio::test]
async fn a_large_body_that_waits_arrives_whole() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s"})).await;
    let mut client = proxy.public().await;
    let head = "POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n";
    client.send([head.as_bytes(), &[b'x'; 200_000]].concat()).await;
    wait_for_waiting(&proxy, 1).await;
    release(&proxy).await;
    assert_eq!(client.answer().await.text(), "blue");
    assert_eq!(blue.requests()[0].body.len(), 200_000);
}

#[tokio::test]
async fn one_public_client_cannot_take_every_place_and_insiders_can() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s", "requests": 20})).await;
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for _ in 0..20 {
        let mut client = proxy.public().await;
        client.ask("/", "").await;
        waiting.push(client);
    }
    // 11 of one address: a half is left for the others.
    wait_for_waiting(&proxy, 11).await;
    eventually("the rest is refused", async || {
        proxy.metric("flipgate_hold_requests_total{result=\"refused\",service=\"web\"}").await
            == 9.0
    })
    .await;
    for _ in 0..10 {
        let mut client = proxy.internal().await;
        client.ask("/", "").await;
        waiting.push(client);
    }
    wait_for_waiting(&proxy, 20).await;
    release(&proxy).await;
    for client in &mut waiting {
        refused += usize::from(client.answer().await.status == 503);
    }
    assert_eq!(refused, 9 + 1, "and the one past the places");
}
