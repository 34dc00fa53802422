//! Streams on a replaced color end by their policies: when, how, and which do not.

mod by_hand;
mod events;
mod grpc;
mod many;
mod transfers;
mod websockets;

use std::net::SocketAddr;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Authority, Client, Http2, TestProxy, Upstream, client::PUBLIC, eventually};

/// An application; the test itself serves its connections.
pub(crate) struct ManualUpstream {
    address: SocketAddr,
    listener: TcpListener,
}

/// How a client reaches the proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Transport {
    Http1,
    Tls,
    Http2,
}

/// A proxy of one worker with the service `web`: blue is served by the test, and green by an application that names
/// itself. Streams of the service `probe` end at once after a flip.
struct Proxy {
    proxy: TestProxy,
    blue: ManualUpstream,
    authority: Authority,
    probe: ManualUpstream,
    _green: Upstream,
}

/// The handshake of a client, and the response to it: RFC 6455, section 1.2.
const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The Close frame of a server with the code 1012.
const CLOSE: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

impl ManualUpstream {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        Self { address, listener }
    }

    /// The next connection that sends a request, with its head.
    async fn accept(&self) -> (Client, String) {
        loop {
            let (stream, _) = self.listener.accept().await.expect("a connection");
            let mut client = Client::over(stream);
            // A health check only connects.
            if client.has_come("\r\n\r\n").await {
                let head = client.until("\r\n\r\n").await;
                return (client, head);
            }
        }
    }
}

impl Proxy {
    /// With these lines in `[service.web.drain]`.
    async fn with(drain: &str) -> Self {
        let (blue, green) = (ManualUpstream::open().await, Upstream::start("green").await);
        let authority = Authority::new();
        let pair = authority.issue("server", &["localhost"]);
        let probe = ManualUpstream::open().await;
        let proxy = TestProxy::build()
            .workers(1)
            .listener(&format!("[listener.tls]\n{}", authority.listener(&pair)))
            .service_of("web", "*", "/", &[blue.address], &[green.address])
            .services(&format!("[service.web.drain]\n{drain}"))
            .service_of("probe", "probe.test", "/", &[probe.address], &[probe.address])
            .services("[service.probe.drain]\nwebsocket = { patience = \"0s\", spread = \"0s\" }")
            .start();
        Self { proxy, blue, authority, probe, _green: green }
    }

    /// A client of HTTP/1.1, in the clear or by TLS.
    async fn http1(&self, transport: Transport) -> Client {
        match transport {
            Transport::Http1 => self.proxy.public().await,
            Transport::Tls => {
                let tls = self.authority.client(&["http/1.1"], None);
                Client::connect_tls(PUBLIC, self.proxy.others[0], &tls).await
            }
            Transport::Http2 => panic!("another version"),
        }
    }

    async fn http2(&self) -> Http2 {
        let tls = self.authority.client(&["h2"], None);
        Http2::connect_tls(PUBLIC, self.proxy.others[0], &tls).await
    }

    async fn flip(&self) {
        self.proxy.promote(&[("web", "green")]).await;
    }

    async fn roll_back(&self) {
        self.proxy.promote(&[("web", "blue")]).await;
    }

    /// How many streams of blue were ended, by kind and way.
    async fn ended(&self) -> Value {
        let drain = self.proxy.call("GET", "/v1/services/web/drain?color=blue", "", "").await;
        drain.json()["streams"]["ended"].clone()
    }

    /// Waits until the drain counts these endings. A client may see its end a moment earlier.
    async fn wait_for_ended(&self, expected: &Value) {
        eventually("the endings are counted", async || self.ended().await == *expected).await;
    }

    /// The events of `web` with this name.
    fn events(&self, name: &str) -> Vec<Value> {
        let mut events = self.proxy.events(name);
        events.retain(|it| it["service"] == "web");
        events
    }

    /// Waits until the worker has ended what was due before this call: it ends a stream that begins now.
    async fn wait_for_worker(&self) {
        let mut client = self.proxy.public().await;
        client.send(HANDSHAKE.replace("localhost", "probe.test")).await;
        let (mut app, _) = self.probe.accept().await;
        app.send(SWITCH).await;
        assert_eq!(client.head().await.status, 101);
        let status = self.proxy.status().await;
        let active = status["services"]["probe"]["active"].as_str().expect("a color");
        let other = if active == "blue" { "green" } else { "blue" };
        self.proxy.promote(&[("probe", other)]).await;
        assert_eq!(client.exactly(4).await, CLOSE);
    }
}
