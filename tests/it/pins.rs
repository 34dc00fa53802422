//! Pins: a transaction stays on the version that it began on, for a time, and nothing else does.

mod cookies;
mod drains;
mod names;
mod settings;

use std::collections::BTreeMap;

use crate::support::{
    Application, Client, Reply, TestProxy, client, client::Answer, test_proxy::TestProxyBuilder,
};

/// An application that names itself. Its pages are private, but for `/cacheable` and `/public`.
async fn application(name: &'static str) -> Application {
    Application::start(move |request| {
        let caching = match request.path.as_str() {
            "/cacheable" => None,
            "/public" => Some("public, max-age=60"),
            "/stored-by-cdn" => Some("private"),
            _ => Some("no-store"),
        };
        let mut headers = Vec::new();
        headers.extend(caching.map(|it| ("Cache-Control", it.to_owned())));
        if request.path == "/stored-by-cdn" {
            headers.push(("CDN-Cache-Control", "max-age=60".to_owned()));
        }
        Reply::Full(200, headers, name.to_owned())
    })
    .await
}

/// A service `web` with pins.
fn pinned(blue: &Application, green: &Application, pin: &str) -> TestProxyBuilder {
    TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[green.address])
        .services(&format!("[service.web.pin]\n{pin}\n"))
}

/// A client with cookies.
pub(crate) struct Browser {
    client: Client,
    pub(crate) cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) async fn of(proxy: &TestProxy) -> Self {
        Self { client: proxy.public().await, cookies: BTreeMap::new() }
    }

    pub(crate) async fn from(address: &str, proxy: &TestProxy) -> Self {
        let client = Client::connect(address, proxy.public).await;
        Self { client, cookies: BTreeMap::new() }
    }

    /// Loads a page.
    pub(crate) async fn navigate(&mut self, path: &str) -> Answer {
        self.get(path, "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n").await
    }

    /// What a script of the page gets.
    pub(crate) async fn fetch(&mut self, path: &str) -> String {
        let fields = "Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\n";
        self.get(path, fields).await.text()
    }

    pub(crate) async fn get(&mut self, path: &str, fields: &str) -> Answer {
        let mut fields = fields.to_owned();
        if !self.cookies.is_empty() {
            let cookies: Vec<_> =
                self.cookies.iter().map(|(it, value)| format!("{it}={value}")).collect();
            fields.push_str(&format!("Cookie: {}\r\n", cookies.join("; ")));
        }
        let answer = self.client.get(path, &fields).await;
        for cookie in answer.fields("set-cookie") {
            let (pair, _) = cookie.split_once(';').expect("attributes");
            let (name, value) = pair.split_once('=').expect("a value");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    fn pin(&self) -> &str {
        &self.cookies["flipgate_pin_web"]
    }
}

/// The answer to a request of a client of the public with these header lines.
async fn get(proxy: &TestProxy, path: &str, fields: &str) -> Answer {
    Client::connect(client::PUBLIC, proxy.public).await.get(path, fields).await
}
