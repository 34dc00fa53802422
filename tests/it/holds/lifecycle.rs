//! A hold over a restart, a reload, and the end of the process.

use super::*;
use crate::support::{Process, Upstream, process};

#[tokio::test]
async fn a_restart_goes_on_with_what_is_left_of_a_hold() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    let before = hold(&proxy, json!({"for": "60s", "requests": 9})).await;
    let state = proxy.shut_down();
    let proxy = service(&blue, &green, "").state(state).start();
    let after = web(&proxy).await["hold"].clone();
    for field in ["id", "owner", "since", "until", "requests"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let left = |hold: &Value| hold["remaining_ms"].as_u64().expect("a number");
    assert!(left(&after) <= left(&before) && left(&after) > 30_000, "{after}");
    let mut client = held(&proxy, "/").await;
    assert!(paths(&blue).is_empty());
    release(&proxy).await;
    assert_eq!(client.answer().await.text(), "blue");
}

#[tokio::test]
async fn a_hold_that_ended_while_flipgate_was_down_holds_nothing() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "50ms"})).await;
    let state = proxy.shut_down();
    std::thread::spawn(|| std::thread::park_timeout(std::time::Duration::from_millis(60)))
        .join()
        .expect("no panic");
    let proxy = service(&blue, &green, "").state(state).start();
    assert_eq!(proxy.get("/").await, "blue");
    eventually("it is forgotten", async || {
        proxy.app().control().applied().state.holds.iter().next().is_none()
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_process_refuses_held_requests() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s"})).await;
    let mut client = held(&proxy, "/").await;
    let ended = tokio::task::spawn_blocking(|| proxy.shut_down());
    let answer = client.answer().await;
    assert_eq!(answer.status, 503);
    assert!(answer.field("retry-after").is_some(), "{}", answer.head);
    drop(ended.await.expect("no panic"));
    assert!(paths(&blue).is_empty(), "the hold kept it from the application to the end");
}

#[tokio::test]
async fn a_changed_pool_and_a_rollback_leave_the_hold_as_it_is() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    let begun = hold(&proxy, json!({"for": "60s"})).await;
    let mut client = held(&proxy, "/").await;
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    let pool = json!({"version": "3", "endpoints": [green.address.to_string()]}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &pool).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let now = web(&proxy).await["hold"].clone();
    assert_eq!(
        (&now["id"], &now["until"], &now["waiting"]),
        (&begun["id"], &begun["until"], &json!(1))
    );
    release(&proxy).await;
    assert_eq!(client.answer().await.text(), "blue");
    assert!(paths(&green).is_empty());
}

#[tokio::test]
async fn a_reload_keeps_a_hold_and_lets_the_requests_of_a_removed_service_go() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let process = Process::start_with(folder.path(), &config).await;
    assert_eq!(process.cli(&["hold", "web", "--for", "60s"]).status.code(), Some(0));
    let held = || process.status()["services"]["web"]["hold"].clone();
    let before = held();
    let mut client = process.public().await;
    client.ask("/", "").await;
    eventually("it waits", async || held()["waiting"] == 1).await;
    let text = std::fs::read_to_string(&config).expect("it is readable");
    std::fs::write(&config, format!("{text}[service.web.hold]\npass = [\"/healthz\"]\n"))
        .expect("it is writable");
    assert_eq!(process.cli(&["reload"]).status.code(), Some(0));
    let now = held();
    assert_eq!(
        (&now["id"], &now["until"], &now["waiting"]),
        (&before["id"], &before["until"], &json!(1))
    );
    assert_eq!(process.get("/healthz").await, "blue", "the new setting is in use");
    let other = text.replace("[service.web]", "[service.shop]\nhosts = [\"shop.test\"]");
    std::fs::write(&config, other).expect("it is writable");
    assert_eq!(process.cli(&["reload"]).status.code(), Some(0));
    assert_eq!(client.answer().await.status, 404, "it does not wait for a service that is gone");
}
