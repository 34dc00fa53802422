//! The single-page application with scanner clients of `config/examples/spa.toml`, over a flip.

use crate::support::{Application, Client, Reply, TestProxy, client, client::Answer};

/// A version of the application. It has its own script, and answers every path that it does not know with its page.
async fn application(name: &'static str, script: &'static str) -> Application {
    Application::start(move |request| {
        let of_type = |kind: &str, body: String| {
            Reply::Full(200, vec![("Content-Type", kind.to_owned())], body)
        };
        let path = request.path.split('?').next().unwrap_or_default();
        match path {
            "/api/scan" | "/api/data" => of_type("application/json", format!("\"{name}\"")),
            path if path == script => of_type("text/javascript", format!("// {name}")),
            _ => of_type("text/html", format!("<p>{name}")),
        }
    })
    .await
}

async fn get(proxy: &TestProxy, path: &str, fields: &str) -> Answer {
    Client::connect(client::PUBLIC, proxy.public).await.get(path, fields).await
}

#[tokio::test]
async fn pages_assets_scans_and_the_version_signal_go_through_a_flip() {
    let old = application("old", "/assets/app.3f2c9a7b.js").await;
    let new = application("new", "/assets/app.91bd0e44.js").await;
    let text = std::fs::read_to_string("config/examples/spa.toml").expect("the example");
    let services = &text[text.find("[service.web]").expect("a service")..];
    let services = services.replace("127.0.0.1:9001", &old.address.to_string());
    let services = services.replace("127.0.0.1:9002", &new.address.to_string());
    let proxy = TestProxy::build().services(&services).start();

    let page = get(&proxy, "/projects/7", "Sec-Fetch-Dest: document\r\n").await;
    assert_eq!((page.text(), page.field("cache-control")), ("<p>old".into(), Some("private")));
    let pin = page.field("set-cookie").expect("a pin");
    let pin = format!("Cookie: {}\r\n", pin.split(';').next().expect("a pair"));
    let scan =
        async |id: &str| get(&proxy, "/api/scan", &format!("X-Scan-Id: {id}\r\n")).await.text();
    assert_eq!(scan("first").await, "\"old\"");
    let version = get(&proxy, "/.flipgate/version", &pin).await.text();
    proxy.promote(&[("web", "green"), ("scan", "green")]).await;

    assert_eq!(get(&proxy, "/api/data", &pin).await.text(), "\"old\"", "the page goes on");
    assert_eq!(scan("first").await, "\"old\"", "so does the scan");
    assert_eq!(scan("second").await, "\"new\"");
    // A script of the page that is loaded later: with the pin, and by a client that sends no cookies.
    for fields in [pin.as_str(), ""] {
        let script = get(&proxy, "/assets/app.3f2c9a7b.js", fields).await;
        assert_eq!((script.status, script.text()), (200, "// old".into()), "{fields:?}");
    }
    assert_eq!(get(&proxy, "/assets/app.91bd0e44.js", "").await.text(), "// new");
    let missing = get(&proxy, "/assets/app.00000000.js", "").await;
    assert_eq!(missing.field("cache-control"), Some("no-store"), "{}", missing.head);
    assert_ne!(get(&proxy, "/.flipgate/version", &pin).await.text(), version);
    let fields = format!("{pin}Sec-Fetch-Dest: document\r\n");
    let page = get(&proxy, "/projects/7", &fields).await;
    assert_eq!(page.text(), "<p>new");
    assert!(page.field("set-cookie").is_some());
    let drain = proxy.drain("scan").await;
    assert_eq!(drain["pins"]["count"], 1, "{drain}");
    assert_eq!(proxy.drain("web").await["held_by"], serde_json::json!(["pins"]));
}
