//! The public cannot reach the admin API by way of an endpoint.

use flipgate::config::Config;
use serde_json::json;

use crate::support::{
    Client, NameServer, Process, TestProxy, Upstream, client, eventually, process,
};

const PROMOTE: &str = "POST /v1/promote HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                       Content-Length: 29\r\n\r\n{\"services\":{\"web\":\"green\"}}\n";

/// A pool with the admin address as an endpoint let the public promote: loopback needs no token.
#[tokio::test]
async fn the_admin_api_is_refused_as_an_endpoint() {
    let upstream = Upstream::start("blue").await;
    let proxy = TestProxy::build().service("web", &[&upstream], &[]).start();
    let port = proxy.admin.port();
    for endpoint in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("0.0.0.0:{port}"),
        format!("https://127.0.0.1:{port}"),
    ] {
        let body = json!({"endpoints": [endpoint], "force": true}).to_string();
        let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
        assert_eq!(set.status, 422, "{endpoint} {}", set.text());
        let problem = set.json();
        assert_eq!(problem["reasons"][0]["code"], "own_address", "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|it| it.contains("the admin API")));
    }
    assert_eq!(proxy.generation().await, 0);
    for (admin, endpoint) in [
        ("127.0.0.1:9900", "127.0.0.1:9900"),
        ("127.0.0.1:9900", "localhost:9900"),
        ("unix:/run/flipgate.sock", "unix:/run/flipgate.sock"),
    ] {
        let text = format!(
            "admin.listen = {admin:?}\n[[listener]]\nlisten = \"127.0.0.1:80\"\n\
             [service.web]\nblue = {{ endpoints = [{endpoint:?}] }}\n"
        );
        let mistakes = Config::parse("f.toml".as_ref(), &text).expect_err("it is refused");
        let text = mistakes.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains("the admin API of Flipgate itself"), "{text}");
    }
}

#[tokio::test]
async fn a_name_that_comes_to_point_at_the_admin_api_is_not_connected_to() {
    let server = NameServer::start(&["127.0.0.1"]).await;
    let proxy = TestProxy::build()
        .with(&format!("dns = {{ servers = [\"{}\"], timeout = \"500ms\" }}", server.address))
        .services("[service.web]\nblue = { endpoints = [\"127.0.0.1:9\"] }\nhealth.interval = \"200ms\"\n")
        .start();
    let endpoint = format!("app.test:{}", proxy.admin.port());
    let body = json!({"endpoints": [endpoint], "force": true}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert_eq!(set.status, 200, "what a name stands for is known later: {}", set.text());
    let mut client = proxy.public().await;
    client.send(PROMOTE).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=destination_ip_prohibited"));
    assert_eq!(proxy.status().await["services"]["web"]["active"], "blue");
    eventually("the endpoint is down, with the reason", async || {
        let endpoint = proxy.endpoint("web", "blue", 0).await;
        endpoint["health"] == "down"
            && endpoint["reason"].as_str().is_some_and(|it| it.contains("the admin API"))
    })
    .await;
}

#[tokio::test]
async fn a_unix_endpoint_is_a_socket_and_not_that_of_the_admin_api() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let link = folder.path().join("app.sock");
    std::os::unix::fs::symlink(folder.path().join("admin.sock"), &link).expect("a link");
    let file = folder.path().join("flipgate.toml");
    let missing = folder.path().join("later.sock");
    let caller = process.caller();
    let set = async |path: &std::path::Path| {
        let endpoint = format!("unix:{}", path.display());
        let request = flipgate_api::wire::PoolRequest {
            version: None,
            endpoints: vec![flipgate_api::wire::EndpointRequest::Plain(endpoint)],
            force: false,
        };
        caller.set_pool("web", "green", &request).await.map_err(|error| error.to_string())
    };
    for (path, why) in [
        (&folder.path().join("admin.sock"), "the admin API"),
        (&link, "the admin API"),
        (&file, "is not a socket"),
        (&folder.path().to_owned(), "is not a socket"),
    ] {
        let error = set(path).await.expect_err("it is refused");
        assert!(error.contains(why), "{error}");
    }
    set(&missing).await.expect("an application may start later");
    // The link comes later too.
    std::fs::rename(&link, &missing).expect("ours");
    process.cli(&["promote", "web=green", "--force", "--reason", "test"]);
    let mut client = Client::connect(client::PUBLIC, process.public).await;
    client.send(PROMOTE).await;
    assert_eq!(client.answer().await.status, 502);
    // The same in a file, before anything is started.
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let other = folder.path().join("other.toml");
    let bad =
        text.replace(&format!("\"{}\"", blue.address), &format!("\"unix:{}\"", file.display()));
    std::fs::write(&other, bad).expect("written");
    let checked = process::run(&["check", "--config", &other.display().to_string()]);
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{error}");
    assert!(error.contains("is not a socket"), "{error}");
}
