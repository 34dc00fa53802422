//! Timeouts of a service for its endpoints.

use std::net::SocketAddr;

use crate::support::{
    Client, MisbehavingUpstream, Misbehavior, Process, TestProxy, Upstream, eventually,
};

/// A Flipgate with two services of the same endpoint; the second one has timeouts of its own.
fn proxy(top: &str, endpoint: &str, timeouts: &str) -> TestProxy {
    let blue = format!("blue = {{ endpoints = [\"{endpoint}\"], tls = {{}} }}");
    let blue = if endpoint.contains("https") { blue } else { blue.replace(", tls = {}", "") };
    TestProxy::build()
        .with(top)
        .services(&format!(
            "[service.usual]\nhosts = [\"usual.test\"]\n{blue}\n\
             [service.own]\nhosts = [\"own.test\"]\n{blue}\n[service.own.timeouts]\n{timeouts}\n"
        ))
        .start()
}

/// A client that has asked a service.
async fn ask(public: SocketAddr, service: &str) -> Client {
    let mut client = Client::connect("127.0.0.2", public).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {service}.test\r\n\r\n")).await;
    client
}

/// The status of the answer to `quick`, which is there while `slow` is without one.
async fn status_of_first(mut quick: Client, slow: &mut Client) -> u16 {
    tokio::select! {
        answer = slow.head() => panic!("that has {} before the other one", answer.status),
        answer = quick.head() => answer.status,
    }
}

#[tokio::test]
async fn a_service_has_its_own_limit_for_the_beginning_of_a_response() {
    let silent = MisbehavingUpstream::start(Misbehavior::Silent).await;
    let proxy = proxy("", &silent.address.to_string(), "upstream_response = \"1s\"");
    let mut usual = ask(proxy.public, "usual").await;
    assert_eq!(status_of_first(ask(proxy.public, "own").await, &mut usual).await, 504);
}

#[tokio::test]
async fn a_service_has_its_own_limit_for_a_connection_to_an_endpoint() {
    // It opens, and TLS, which belongs to it, does not begin.
    let silent = MisbehavingUpstream::start(Misbehavior::Silent).await;
    let endpoint = format!("https://{}", silent.address);
    let top = "timeouts.upstream_connect = \"60s\"";
    let proxy = proxy(top, &endpoint, "upstream_connect = \"1s\"");
    let mut usual = ask(proxy.public, "usual").await;
    assert_eq!(status_of_first(ask(proxy.public, "own").await, &mut usual).await, 504);
}

#[tokio::test]
async fn a_service_has_its_own_limit_for_a_whole_exchange() {
    let silent = MisbehavingUpstream::start(Misbehavior::Silent).await;
    let endpoint = silent.address.to_string();
    let limited = proxy("", &endpoint, "request = \"1s\"");
    let mut usual = ask(limited.public, "usual").await;
    assert_eq!(status_of_first(ask(limited.public, "own").await, &mut usual).await, 504);
    // The other way round: none for the service where others have one.
    let free = proxy("timeouts.request = \"1s\"", &endpoint, "request = \"none\"");
    let mut own = ask(free.public, "own").await;
    assert_eq!(status_of_first(ask(free.public, "usual").await, &mut own).await, 504);
}

#[tokio::test]
async fn a_service_has_its_own_limit_for_a_response_that_stands_still() {
    let stalling = MisbehavingUpstream::start(Misbehavior::StallsInBody).await;
    let proxy = proxy("", &stalling.address.to_string(), "upstream_stall = \"1s\"");
    let mut usual = ask(proxy.public, "usual").await;
    usual.until("half").await;
    let mut own = ask(proxy.public, "own").await;
    own.until("half").await;
    tokio::select! {
        rest = usual.read_to_end() => panic!("that ends before the other one: {rest}"),
        rest = own.read_to_end() => assert_eq!(rest, "", "it is cut"),
    }
}

#[tokio::test]
async fn a_reload_applies_the_timeouts_of_a_service() {
    let silent = MisbehavingUpstream::start(Misbehavior::Silent).await;
    let green = Upstream::start("green").await;
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &green, &green).await;
    let path = folder.path().join("flipgate.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let replaced = text.replace(&green.address.to_string(), &silent.address.to_string());
    let load = async |timeouts: &str| {
        std::fs::write(&path, format!("{replaced}{timeouts}")).expect("written");
        process.caller().reload().await.expect("a good configuration");
    };
    load("").await;
    let mut before = ask(process.public, "web").await;
    // What was admitted before keeps the limits that it was admitted with.
    eventually("it is admitted", async || silent.requests() == 1).await;
    load("[service.web.timeouts]\nupstream_response = \"1s\"\n").await;
    assert_eq!(status_of_first(ask(process.public, "web").await, &mut before).await, 504);
}
