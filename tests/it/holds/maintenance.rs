//! Maintenance: 503 with a page, for a service as a whole.

use super::*;
use crate::support::Http2;

const PAGE: &str = "<html><body>Back at noon: \"soon\"</body></html>";

async fn maintain(proxy: &TestProxy, body: Value) -> Value {
    call(proxy, "POST", "web/maintenance", &body).await["services"]["web"]["maintenance"].clone()
}

#[tokio::test]
async fn everyone_gets_the_page_until_the_end() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    let begun = maintain(&proxy, json!({"page": PAGE, "retry_after": "90s"})).await;
    assert_eq!((&begun["retry_after_s"], &begun["owner"]), (&json!(90), &json!("127.0.0.1")));
    assert_eq!(
        (&begun["except_internal"], &begun["page_bytes"]),
        (&json!(false), &json!(PAGE.len()))
    );
    for mut client in [proxy.public().await, proxy.internal().await] {
        let answer = client.get("/", "Accept: text/html\r\n").await;
        assert_eq!((answer.status, answer.text()), (503, PAGE.to_owned()));
        assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.field("retry-after"), Some("90"));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("proxy-status"), Some("flipgate; error=destination_unavailable"));
        // Clients that do not accept HTML get the text.
        let json = client.get("/", "Accept: application/json\r\n").await;
        assert_eq!(
            (json.status, json.field("content-type")),
            (503, Some("text/plain; charset=utf-8"))
        );
        assert!(json.text().contains("maintenance"), "{}", json.text());
        client.send("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let head = client.answer_to_head().await;
        let length = PAGE.len().to_string();
        assert_eq!((head.status, head.field("content-length")), (503, Some(&*length)));
        // The head has no body: the next response begins at once.
        assert_eq!(client.get("/", "").await.status, 503);
    }
    assert!(paths(&blue).is_empty());
    assert_eq!(proxy.metric("flipgate_maintenance{service=\"web\"}").await, 1.0);
    call(&proxy, "DELETE", "web/maintenance", &json!({})).await;
    call(&proxy, "DELETE", "web/maintenance", &json!({})).await;
    assert_eq!(proxy.get("/").await, "blue");
    let events = ["maintenance_started", "maintenance_ended"].map(|it| proxy.events(it).len());
    assert_eq!(events, [1, 1]);
    assert_eq!(proxy.metric("flipgate_maintenance_refused_total{service=\"web\"}").await, 8.0);
}

#[tokio::test]
async fn insiders_are_let_through_by_option_and_previews_always() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "pass = [\"/healthz\"]").start();
    maintain(&proxy, json!({"except_internal": true})).await;
    assert_eq!(proxy.internal().await.get("/", "").await.text(), "blue");
    assert_eq!(proxy.public().await.get("/", "").await.status, 503);
    maintain(&proxy, json!({})).await;
    let mut insider = proxy.internal().await;
    assert_eq!(insider.get("/", "").await.status, 503);
    assert_eq!(insider.get("/", "Flipgate-Preview: green\r\n").await.text(), "green");
    let public = proxy.public().await.get("/", "Flipgate-Preview: green\r\n").await;
    assert_eq!(public.status, 503, "the header of a public client has no effect");
    assert_eq!(proxy.get("/healthz").await, "blue", "a declared path");
}

#[tokio::test]
async fn it_survives_a_restart_and_a_flip() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    let before = maintain(&proxy, json!({"page": PAGE})).await;
    proxy.promote(&[("web", "green")]).await;
    let state = proxy.shut_down();
    let proxy = service(&blue, &green, "").state(state).start();
    assert_eq!(web(&proxy).await["maintenance"], before);
    assert_eq!(proxy.get("/").await, PAGE);
    call(&proxy, "DELETE", "web/maintenance", &json!({})).await;
    assert_eq!(proxy.get("/").await, "green");
}

#[tokio::test]
async fn it_takes_precedence_over_a_hold_which_goes_on_after_it() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s"})).await;
    let mut client = held(&proxy, "/").await;
    maintain(&proxy, json!({"page": PAGE})).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (503, PAGE.to_owned()), "it does not wait longer");
    assert_eq!(proxy.get("/").await, PAGE);
    call(&proxy, "DELETE", "web/maintenance", &json!({})).await;
    let mut again = held(&proxy, "/again").await;
    release(&proxy).await;
    assert_eq!(again.answer().await.text(), "blue");
    assert_eq!(paths(&blue), ["/again"]);
}

#[tokio::test]
async fn over_http2_it_is_the_same_and_grpc_clients_get_a_status() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    maintain(&proxy, json!({"page": PAGE})).await;
    let mut http2 = Http2::connect(client::PUBLIC, proxy.public).await;
    let answer = http2.get("/", "").await;
    assert_eq!((answer.status, answer.text()), (503, PAGE.to_owned()));
    let mut head = http2.ask("HEAD", "/", "", true).await;
    let head = head.answer().await.expect("an answer");
    assert_eq!((head.status, head.body.len()), (503, 0));
    let mut call =
        http2.ask("POST", "/grpc", "content-type: application/grpc\nte: trailers", true).await;
    let answer = call.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")), "{}", answer.head);
    let events = http2.get("/events", "accept: text/event-stream").await;
    assert_eq!((events.status, events.field("content-type")), (200, Some("text/event-stream")));
    assert!(events.text().starts_with("retry: 6"), "{}", events.text());
    assert!(paths(&blue).is_empty());
}

#[tokio::test]
async fn clients_that_prefer_json_get_the_error_page_of_the_service() {
    let (blue, green) = (application("blue").await, application("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("503.json");
    std::fs::write(&path, "{\"code\":503}").expect("a file");
    let errors = format!("[service.web.errors]\n503 = {:?}\n", path.display().to_string());
    let proxy = service(&blue, &green, "requests = 1").services(&errors).start();
    maintain(&proxy, json!({"page": PAGE})).await;
    let mut client = proxy.public().await;
    let answer = client.get("/", "Accept: application/json\r\n").await;
    assert_eq!((answer.status, answer.text()), (503, "{\"code\":503}".to_owned()));
    assert_eq!(client.get("/", "Accept: text/html\r\n").await.text(), PAGE);
    call(&proxy, "DELETE", "web/maintenance", &json!({})).await;
    // The same page is for requests that a hold has no place for.
    hold(&proxy, json!({"for": "60s"})).await;
    let mut first = held(&proxy, "/").await;
    let refused = client.get("/", "Accept: application/json\r\n").await;
    assert_eq!((refused.status, refused.text()), (503, "{\"code\":503}".to_owned()));
    release(&proxy).await;
    assert_eq!(first.answer().await.text(), "blue");
}

#[tokio::test]
async fn a_hold_that_begins_anew_during_maintenance_goes_on_after_it() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    maintain(&proxy, json!({})).await;
    hold(&proxy, json!({"for": "60s"})).await;
    release(&proxy).await;
    // At once, while the table still has the hold that was released.
    let begun = hold(&proxy, json!({"for": "50s"})).await;
    assert!(begun["remaining_ms"].as_u64().is_some_and(|it| it > 40_000), "{begun}");
    call(&proxy, "DELETE", "web/maintenance", &json!({})).await;
    assert_eq!(web(&proxy).await["hold"]["id"], begun["id"]);
    let mut client = held(&proxy, "/").await;
    release(&proxy).await;
    assert_eq!(client.answer().await.text(), "blue");
}
