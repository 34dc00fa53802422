//! WebSockets: a Close frame between two messages, then the client's own.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{CLOSE, HANDSHAKE, Proxy, SWITCH, Transport};
use crate::support::{Answer, Client, Http2, LONG, eventually, http2::Call};

/// Everything ends at once.
const AT_ONCE: &str = "websocket = { patience = \"0s\", spread = \"0s\" }";

/// The Close frame of a server with the code 1001.
const CLOSE_1001: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// A client of a WebSocket.
enum WebSocket {
    Http1(Client),
    Http2 { _connection: Http2, call: Call, unread: Vec<u8> },
}

/// A short frame of a server.
pub(super) fn server(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    assert!(length < 126);
    [&[first, length], payload].concat()
}

/// A short frame of a client, masked.
pub(super) fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    let key = [1, 2, 3, 4];
    let masked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
    [&[first, 0x80 | length], &key[..], &masked.collect::<Vec<_>>()].concat()
}

impl WebSocket {
    /// Opens one, with the application's side of it. `fields` are added to the response.
    async fn open(proxy: &Proxy, transport: Transport, fields: &str) -> (Self, Client) {
        let switch = format!("{}{fields}\r\n", SWITCH.strip_suffix("\r\n").expect("a head"));
        if transport == Transport::Http2 {
            let mut connection = proxy.http2().await;
            connection.ends_settings().await;
            let mut request = http::Request::builder()
                .method("CONNECT")
                .uri("https://localhost/ws")
                .header("sec-websocket-version", "13")
                .body(())
                .expect("a request");
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
            let mut call = connection.send(request, false).await;
            let (mut app, head) = proxy.blue.accept().await;
            let head = Answer { head, ..Answer::default() };
            let key = head.field("sec-websocket-key");
            let accept = flipgate::http2::websocket_accept(key.expect("a key").as_bytes());
            app.send(switch.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &accept)).await;
            assert_eq!(call.head().await.expect("an answer").status, 200);
            return (Self::Http2 { _connection: connection, call, unread: Vec::new() }, app);
        }
        let mut client = proxy.http1(transport).await;
        client.send(HANDSHAKE).await;
        let (mut app, _) = proxy.blue.accept().await;
        app.send(switch).await;
        assert_eq!(client.head().await.status, 101);
        (Self::Http1(client), app)
    }

    async fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Http1(client) => client.send(bytes).await,
            Self::Http2 { call, .. } => call.push(bytes, false).await,
        }
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        match self {
            Self::Http1(client) => client.exactly(count).await,
            Self::Http2 { call, unread, .. } => {
                while unread.len() < count {
                    let some = call.some().await.expect("more");
                    assert!(!some.is_empty(), "ended too early, after {unread:?}");
                    unread.extend_from_slice(&some);
                }
                unread.drain(..count).collect()
            }
        }
    }

    /// Reads to the end, which must be a proper one, and nothing may come before it.
    async fn ends(&mut self) {
        match self {
            Self::Http1(client) => {
                assert!(!client.ends_in_reset().await, "a reset");
                assert_eq!(client.read_to_end().await, "");
            }
            Self::Http2 { call, unread, .. } => {
                assert!(unread.is_empty());
                assert!(call.some().await.expect("END_STREAM, and no reset").is_empty());
            }
        }
    }

    /// Waits until it was cut: the end comes without a Close frame. Returns what came before.
    async fn is_cut(&mut self) -> Vec<u8> {
        match self {
            Self::Http1(client) => client.read_to_end().await.into_bytes(),
            Self::Http2 { call, unread, .. } => loop {
                match call.some().await {
                    Ok(some) => {
                        assert!(!some.is_empty(), "END_STREAM instead of a reset");
                        unread.extend_from_slice(&some);
                    }
                    Err(error) => {
                        assert!(error.is_reset(), "{error}");
                        return std::mem::take(unread);
                    }
                }
            },
        }
    }

    /// Answers the Close frame, and closes when the server has.
    async fn close(mut self, app: &mut Client) {
        let close = client(0x88, &1012_u16.to_be_bytes());
        self.send(&close).await;
        assert_eq!(
            app.exactly(close.len()).await,
            close,
            "the client's Close goes to the application"
        );
        self.ends().await;
    }
}

impl Http2 {
    /// Waits until the settings of the other end are known.
    async fn ends_settings(&mut self) {
        eventually("WebSockets are allowed", async || self.takes_tunnels()).await;
    }
}

const ALL: [Transport; 3] = [Transport::Http1, Transport::Tls, Transport::Http2];

#[tokio::test]
async fn a_websocket_is_closed_between_two_messages_and_the_server_closes_first() {
    for transport in ALL {
        let proxy = Proxy::with(AT_ONCE).await;
        let (mut socket, mut app) = WebSocket::open(&proxy, transport, "").await;
        app.send(server(0x81, b"one")).await;
        assert_eq!(socket.exactly(5).await, server(0x81, b"one"));
        proxy.flip().await;
        assert_eq!(socket.exactly(4).await, CLOSE, "{transport:?}");
        // Nothing of the application follows, and frames of the client go on to it.
        app.send(server(0x81, b"late")).await;
        socket.send(&client(0x81, b"data")).await;
        assert_eq!(app.exactly(10).await, client(0x81, b"data"));
        socket.close(&mut app).await;
        // The application sees the end behind the Close frame, too.
        assert_eq!(app.read_to_end().await, "");
        drop(app);
        proxy.proxy.wait_for_in_flight("web", "blue", 0).await;
        proxy.wait_for_ended(&json!({"websocket": {"closed": 1}})).await;
    }
}

/// A fragmented message with a ping between its fragments, and one right behind it. The flip comes after each byte.
#[tokio::test]
async fn a_message_is_complete_before_the_close_frame_wherever_the_flip_comes() {
    let fragments = [server(0x01, b"ab"), server(0x89, b"?"), server(0x80, b"c")].concat();
    let second = server(0x82, b"xyz");
    let all = [&fragments[..], &second].concat();
    let proxy = Proxy::with(AT_ONCE).await;
    let mut sockets = Vec::new();
    for split in 0..=all.len() {
        let (mut socket, mut app) = WebSocket::open(&proxy, Transport::Http1, "").await;
        app.send(&all[..split]).await;
        assert_eq!(socket.exactly(split).await, &all[..split]);
        sockets.push((split, socket, app));
    }
    proxy.flip().await;
    proxy.wait_for_worker().await;
    for (split, mut socket, mut app) in sockets {
        app.try_send(&all[split..]).await;
        // The end of the message that the flip was in, or where it was.
        let borders = [0, fragments.len(), all.len()];
        let end = borders.into_iter().find(|it| *it >= split).expect("the last one");
        assert_eq!(socket.exactly(end - split).await, &all[split..end], "from {split}");
        assert_eq!(socket.exactly(4).await, CLOSE, "from {split}");
        socket.close(&mut app).await;
    }
}

#[tokio::test]
async fn a_message_that_does_not_end_is_closed_between_its_fragments() {
    let proxy = Proxy::with(AT_ONCE).await;
    let (mut socket, mut app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    // And one that stops in the middle of a frame is cut: no frame can be sent there.
    let (mut stuck, mut stuck_app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    app.send(server(0x01, b"ab")).await;
    assert_eq!(socket.exactly(4).await, server(0x01, b"ab"));
    stuck_app.send(&server(0x81, b"abcd")[..4]).await;
    stuck.exactly(4).await;
    proxy.flip().await;
    let begin = Instant::now();
    proxy.wait_for_worker().await;
    app.send(server(0x00, b"cd")).await;
    assert_eq!(socket.exactly(4).await, server(0x00, b"cd"), "the message has its time");
    assert_eq!(socket.exactly(4).await, CLOSE);
    assert!(
        begin.elapsed() > Duration::from_secs(4),
        "a message is waited for: {:?}",
        begin.elapsed()
    );
    socket.close(&mut app).await;
    assert_eq!(stuck.is_cut().await, b"");
    eventually("both are counted", async || {
        proxy.ended().await == json!({"websocket": {"closed": 1, "cut": 1}})
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_close_frame_is_left_after_its_time() {
    let proxy =
        Proxy::with("websocket = { patience = \"0s\", spread = \"0s\", close = 1001 }").await;
    let (mut socket, app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    proxy.flip().await;
    assert_eq!(socket.exactly(4).await, CLOSE_1001);
    socket.ends().await;
    drop(app);
    proxy.proxy.wait_for_in_flight("web", "blue", 0).await;
    proxy.wait_for_ended(&json!({"websocket": {"closed": 1}})).await;
}

#[tokio::test]
async fn a_client_that_has_sent_its_close_frame_gets_that_of_the_proxy_as_the_answer() {
    let proxy = Proxy::with(AT_ONCE).await;
    let (mut socket, mut app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    let close = client(0x88, &1000_u16.to_be_bytes());
    socket.send(&close).await;
    assert_eq!(app.exactly(close.len()).await, close);
    proxy.flip().await;
    assert_eq!(socket.exactly(4).await, CLOSE);
    socket.ends().await;
    assert_eq!(app.read_to_end().await, "");
}

#[tokio::test]
async fn an_application_that_leaves_does_not_take_the_close_frame_with_it() {
    let proxy = Proxy::with(AT_ONCE).await;
    let (mut socket, app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    proxy.flip().await;
    assert_eq!(socket.exactly(4).await, CLOSE);
    drop(app);
    socket.ends().await;
}

#[tokio::test]
async fn a_websocket_with_an_unknown_extension_is_cut_and_one_that_is_compressed_is_not() {
    for transport in ALL {
        let proxy = Proxy::with(AT_ONCE).await;
        let deflate =
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
        let (mut packed, mut packed_app) = WebSocket::open(&proxy, transport, deflate).await;
        let unknown = "Sec-WebSocket-Extensions: x-other\r\n";
        let (mut other, mut other_app) = WebSocket::open(&proxy, transport, unknown).await;
        let frame = server(0xc1, b"\x4a\x04\x00");
        for (socket, app) in [(&mut packed, &mut packed_app), (&mut other, &mut other_app)] {
            app.send(&frame).await;
            assert_eq!(socket.exactly(frame.len()).await, frame);
        }
        proxy.flip().await;
        assert_eq!(packed.exactly(4).await, CLOSE, "{transport:?}");
        packed.close(&mut packed_app).await;
        assert_eq!(other.is_cut().await, b"", "{transport:?}");
        eventually("both are counted", async || {
            proxy.ended().await == json!({"websocket": {"closed": 1, "cut": 1}})
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_no_frame_is_cut_and_not_interpreted() {
    let proxy = Proxy::with(AT_ONCE).await;
    let (mut socket, mut app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    app.send("plain text").await;
    assert_eq!(socket.exactly(10).await, b"plain text");
    proxy.flip().await;
    assert_eq!(socket.is_cut().await, b"");
    proxy.wait_for_ended(&json!({"websocket": {"cut": 1}})).await;
}

#[tokio::test]
async fn without_a_policy_nothing_is_closed_and_on_the_active_color_neither() {
    let none = Proxy::with("abandoned = \"cut\"").await;
    let other = Proxy::with("sse = { patience = \"0s\", spread = \"0s\" }").await;
    let active = Proxy::with(AT_ONCE).await;
    let mut sockets = Vec::new();
    for (proxy, flips) in [(&none, true), (&other, true), (&active, false)] {
        sockets.push(WebSocket::open(proxy, Transport::Http1, "").await);
        if flips {
            proxy.flip().await;
        }
        proxy.wait_for_worker().await;
    }
    for (socket, app) in &mut sockets {
        app.send(server(0x81, b"on")).await;
        assert_eq!(socket.exactly(4).await, server(0x81, b"on"));
        socket.send(&client(0x81, b"on")).await;
        assert_eq!(app.exactly(8).await, client(0x81, b"on"));
    }
    assert_eq!(none.ended().await, json!(null));
    assert_eq!(other.ended().await, json!({}));
}

#[tokio::test]
async fn a_rollback_within_the_patience_keeps_the_websockets_and_the_next_flip_starts_anew() {
    let proxy = Proxy::with("websocket = { patience = \"2s\", spread = \"0s\" }").await;
    let (mut early, mut early_app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    let begin = Instant::now();
    proxy.flip().await;
    proxy.wait_for_worker().await;
    proxy.roll_back().await;
    let (mut late, mut late_app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    // The time of the first flip passes.
    while begin.elapsed() < Duration::from_secs(3) {
        proxy.wait_for_worker().await;
    }
    for (socket, app) in [(&mut early, &mut early_app), (&mut late, &mut late_app)] {
        app.send(server(0x81, b"on")).await;
        assert_eq!(socket.exactly(4).await, server(0x81, b"on"));
    }
    let stopped = proxy.events("streams_ended");
    assert_eq!((stopped.len(), &stopped[0]["stopped"]), (1, &json!(true)), "{stopped:?}");
    assert_eq!(stopped[0]["streams"], json!({}));
    // Both began on blue, before it was active again and since.
    proxy.flip().await;
    for (mut socket, mut app) in [(early, early_app), (late, late_app)] {
        assert_eq!(socket.exactly(4).await, CLOSE);
        socket.close(&mut app).await;
    }
    eventually("both are counted", async || {
        proxy.ended().await == json!({"websocket": {"closed": 2}})
    })
    .await;
    let kinds: Vec<_> =
        proxy.events("streams_ending").iter().map(|it| it["kinds"].clone()).collect();
    assert_eq!(kinds, [json!(["websocket"]), json!(["websocket"])]);
}

#[tokio::test]
async fn the_close_frame_waits_for_its_patience() {
    let proxy = Proxy::with("websocket = { patience = \"2s\", spread = \"0s\" }").await;
    let (mut socket, mut app) = WebSocket::open(&proxy, Transport::Http1, "").await;
    let begin = Instant::now();
    proxy.flip().await;
    assert_eq!(socket.exactly(4).await, CLOSE);
    assert!((Duration::from_secs(2)..LONG).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    socket.close(&mut app).await;
    eventually("drained", async || proxy.proxy.drain("web").await["drained"] == true).await;
    let series = "flipgate_streams_ended_total{color=\"blue\",how=\"closed\",kind=\"websocket\",service=\"web\"}";
    assert_eq!(proxy.proxy.metric(series).await, 1.0);
    eventually("the event", async || !proxy.events("streams_ended").is_empty()).await;
    let ended = &proxy.events("streams_ended")[0];
    assert_eq!((&ended["color"], &ended["stopped"]), (&json!("blue"), &json!(false)));
    assert_eq!(ended["streams"], json!({"websocket": {"closed": 1}}));
}
