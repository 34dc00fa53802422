//! Pins of transactions that the client names, in a header or in the query.

use serde_json::json;

use super::{application, get, pinned};
use crate::support::eventually;

const SCAN: &str = "start = [\"header:X-Scan-Id\"]\ncarry = \"header:X-Scan-Id\"\n";

#[tokio::test]
async fn a_scan_stays_on_its_version_and_the_next_one_begins_on_the_new_one() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, SCAN).start();
    let of = async |id: &str| get(&proxy, "/api", &format!("X-Scan-Id: {id}\r\n")).await.text();
    assert_eq!((of("one").await, of("two").await), ("blue".to_owned(), "blue".to_owned()));
    proxy.promote(&[("web", "green")]).await;
    assert_eq!((of("one").await, of("three").await), ("blue".to_owned(), "green".to_owned()));
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["pins"]["count"], &drain["drained"]), (&json!(2), &json!(false)));
    assert!(drain["pins"]["until"].is_string(), "{drain}");
    let blue_pool = proxy.status().await["services"]["web"]["pools"]["blue"].clone();
    assert_eq!(blue_pool["role"], "draining");
    assert_eq!(
        (&blue_pool["pins"]["count"], &blue_pool["safe_to_stop"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(get(&proxy, "/api", "").await.text(), "green", "no transaction");
    assert_eq!(of("").await, "green", "no name");
    assert_eq!(of(&"x".repeat(257)).await, "green", "too long for a name");
    let two = "X-Scan-Id: one\r\nX-Scan-Id: two\r\n";
    assert_eq!(get(&proxy, "/api", two).await.text(), "green", "it is not clear which");
}

#[tokio::test]
async fn the_color_is_free_as_soon_as_every_transaction_has_lapsed() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, &format!("{SCAN}idle = \"1s\"\n")).start();
    let of = async |id: &str| get(&proxy, "/api", &format!("X-Scan-Id: {id}\r\n")).await.text();
    of("one").await;
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.drain("web").await["drained"], false);
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
    eventually("the event", async || !proxy.events("drained").is_empty()).await;
    assert_eq!(of("one").await, "green", "it has lapsed");
    // Without a transaction there is nothing to wait for.
    let quiet = pinned(&blue, &green, SCAN).start();
    quiet.promote(&[("web", "green")]).await;
    eventually("drained", async || quiet.drain("web").await["drained"] == true).await;
}

#[tokio::test]
async fn a_pattern_and_a_path_begin_transactions() {
    let (blue, green) = (application("blue").await, application("green").await);
    let pin = "start = [\"header:X-Client=scanner-*\", \"path:/batch\"]\ncarry = \"query:scan\"\n";
    let proxy = pinned(&blue, &green, pin).start();
    let of = async |path: &str, fields: &str| get(&proxy, path, fields).await.text();
    of("/batch/begin?scan=one", "").await;
    of("/api?a=b&scan=two&c=d", "X-Client: scanner-7\r\n").await;
    of("/api?scan=three", "X-Client: browser\r\n").await;
    of("/batches?scan=four", "").await;
    proxy.promote(&[("web", "green")]).await;
    let mut found = Vec::new();
    for path in [
        "/x?scan=one",
        "/x?scan=two",
        "/x?scan=three",
        "/x?scan=four",
        "/x?scan=one&scan=two",
        "/x?ascan=one",
    ] {
        found.push(of(path, "").await);
    }
    assert_eq!(found, ["blue", "blue", "green", "green", "green", "green"]);
    // What belongs to a transaction does not begin another one.
    assert_eq!(of("/batch/next?scan=one", "").await, "blue");
    assert_eq!(of("/batch/next?scan=five", "").await, "green");
}
