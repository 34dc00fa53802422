//! Endpoints that are names, and changes of their addresses.

use std::{collections::BTreeSet, net::SocketAddr};

use hickory_server::proto::op::ResponseCode;
use serde_json::json;

use crate::support::{NameServer, TestProxy, Upstream, eventually};

/// Upstreams at different addresses and the same port, named by their addresses.
async fn upstreams<const COUNT: usize>(addresses: [&str; COUNT]) -> [Upstream; COUNT] {
    let mut started = Vec::new();
    let mut port = 0;
    for address in addresses {
        let address = SocketAddr::new(address.parse().expect("an address"), port);
        let upstream = Upstream::start_at(&address.ip().to_string(), address).await;
        port = upstream.address.port();
        started.push(upstream);
    }
    started.try_into().unwrap_or_else(|_| panic!("as many as were asked for"))
}

fn proxy(server: &NameServer, port: u16, more: &str) -> TestProxy {
    let dns = server.address;
    TestProxy::build()
        .with(&format!("dns = {{ servers = [\"{dns}\"], min_ttl = \"100ms\", {more} timeout = \"500ms\" }}"))
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = [\"app.test:{port}\"] }}\nhealth.interval = \"200ms\"\n"
        ))
        .start()
}

/// The names of the upstreams that answer.
async fn seen(proxy: &TestProxy) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(proxy.get("/").await);
    }
    seen
}

async fn wait_for(proxy: &TestProxy, names: &[&str]) {
    let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    eventually(&format!("{names:?} answer"), async || seen(proxy).await == names).await;
}

#[tokio::test]
async fn all_addresses_are_used_and_changes_are_followed() {
    let [one, two, _three] = upstreams(["127.0.1.1", "127.0.1.2", "127.0.1.3"]).await;
    let server = NameServer::start(&["127.0.1.1", "127.0.1.2"]).await;
    let proxy = proxy(&server, one.address.port(), "");
    wait_for(&proxy, &["127.0.1.1", "127.0.1.2"]).await;
    let address = format!("app.test:{}", one.address.port());
    let endpoints = proxy.status().await["services"]["web"]["pools"]["blue"]["endpoints"].clone();
    let endpoints = endpoints.as_array().expect("a list");
    let resolved: Vec<_> = endpoints.iter().map(|it| it["resolved"].clone()).collect();
    assert_eq!(resolved, [json!(one.address.to_string()), json!(two.address.to_string())]);
    assert!(endpoints.iter().all(|it| it["address"] == address && it["health"] == "up"));

    server.tell(&["127.0.1.2", "127.0.1.3"]);
    wait_for(&proxy, &["127.0.1.2", "127.0.1.3"]).await;
    let told = proxy.events("addresses_changed");
    let addresses: Vec<_> = told.iter().map(|it| it["addresses"].clone()).collect();
    assert_eq!(addresses, [json!(["127.0.1.1", "127.0.1.2"]), json!(["127.0.1.2", "127.0.1.3"])]);
    assert_eq!((&told[0]["host"], &told[0]["service"]), (&json!("app.test"), &json!("web")));
    assert_eq!(proxy.generation().await, 0, "nothing has changed");
}

#[tokio::test]
async fn a_request_in_flight_stays_at_its_address() {
    let [one, _two] = upstreams(["127.0.2.1", "127.0.2.2"]).await;
    let server = NameServer::start(&["127.0.2.1"]).await;
    let proxy = proxy(&server, one.address.port(), "");
    wait_for(&proxy, &["127.0.2.1"]).await;
    let mut client = proxy.public().await;
    client.ask("/hold", "").await;
    let head = client.head().await;
    server.tell(&["127.0.2.2"]);
    wait_for(&proxy, &["127.0.2.2"]).await;
    one.release();
    assert_eq!(client.rest(head).await.text(), "127.0.2.1 begins\n127.0.2.1 ends\n");
}

#[tokio::test]
async fn without_a_name_server_the_last_addresses_stay() {
    let [one, _two] = upstreams(["127.0.3.1", "127.0.3.2"]).await;
    let server = NameServer::start(&["127.0.3.1"]).await;
    let proxy = proxy(&server, one.address.port(), "");
    wait_for(&proxy, &["127.0.3.1"]).await;
    for code in [ResponseCode::ServFail, ResponseCode::NXDomain, ResponseCode::Refused] {
        server.fail(code);
        let before = server.questions();
        eventually("the name server got a question", async || server.questions() > before + 1)
            .await;
        assert_eq!(seen(&proxy).await, BTreeSet::from(["127.0.3.1".to_owned()]), "{code:?}");
    }
    server.tell(&["127.0.3.2"]);
    wait_for(&proxy, &["127.0.3.2"]).await;
}

#[tokio::test]
async fn a_name_that_is_not_there_yet_is_found_when_it_is() {
    let [one] = upstreams(["127.0.4.1"]).await;
    let server = NameServer::start(&[]).await;
    server.fail(ResponseCode::NXDomain);
    let proxy = proxy(&server, one.address.port(), "");
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!(
        (answer.status, answer.field("proxy-status")),
        (502, Some("flipgate; error=dns_error"))
    );
    proxy.wait_for_health("blue", 0, "down").await;
    let reason = proxy.endpoint("web", "blue", 0).await["reason"].to_string();
    assert!(reason.contains("no address for `app.test`"), "{reason}");
    server.tell(&["127.0.4.1"]);
    wait_for(&proxy, &["127.0.4.1"]).await;
}

#[tokio::test]
async fn addresses_of_a_family_that_is_not_wanted_are_left_out() {
    let [one] = upstreams(["127.0.5.1"]).await;
    let server = NameServer::start(&["127.0.5.1", "2001:db8::1"]).await;
    let proxy = proxy(&server, one.address.port(), "families = \"ipv4\",");
    wait_for(&proxy, &["127.0.5.1"]).await;
    let endpoints = &proxy.status().await["services"]["web"]["pools"]["blue"]["endpoints"];
    assert_eq!(endpoints.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn one_dead_address_of_a_name_costs_no_request() {
    let [mut one, two] = upstreams(["127.0.6.1", "127.0.6.2"]).await;
    let server = NameServer::start(&["127.0.6.1", "127.0.6.2"]).await;
    let proxy = proxy(&server, one.address.port(), "");
    wait_for(&proxy, &["127.0.6.1", "127.0.6.2"]).await;
    one.kill().await;
    let name = two.address.ip().to_string();
    assert_eq!(seen(&proxy).await, BTreeSet::from([name]));
    proxy.wait_for_health("blue", 0, "down").await;
    assert_eq!(proxy.endpoint("web", "blue", 1).await["health"], "up");
}
