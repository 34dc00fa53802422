//! A WebSocket that echoes each message with the color and the instance in front. With `?pause_ms=10`, an echo has two
//! frames with that pause between them.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::derive_accept_key,
        protocol::{
            Role,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

use super::{Body, SampleIdentity, number_in, with_status};

/// The longest pause that a client can ask for.
const PAUSE_MAX: u64 = 10_000;

/// Accepts a handshake, and echoes messages until the connection ends.
pub(super) fn respond(identity: &SampleIdentity, mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        let text = "send a WebSocket handshake\n".to_owned();
        return with_status(StatusCode::UPGRADE_REQUIRED, text);
    };
    let prefix = format!("{} {}", identity.color, identity.instance);
    let pause = number_in(request.uri().query(), "pause_ms");
    let pause = pause.map(|it| Duration::from_millis(it.min(PAUSE_MAX)));
    let upgrade = hyper::upgrade::on(&mut request);
    // Ends with its connection.
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            echo(upgraded, &prefix, pause).await;
        }
    });
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(upgraded: Upgraded, prefix: &str, pause: Option<Duration>) {
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let sent = match pause {
            None => socket.send(Message::text(format!("{prefix} {text}"))).await,
            Some(pause) => send_in_two(&mut socket, prefix, &text, pause).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn send_in_two(
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
    prefix: &str,
    text: &str,
    pause: Duration,
) -> Result<(), tungstenite::Error> {
    let frame = |text: String, kind, is_last| {
        Message::Frame(Frame::message(text.into_bytes(), OpCode::Data(kind), is_last))
    };
    socket.send(frame(format!("{prefix} "), Data::Text, false)).await?;
    tokio::time::sleep(pause).await;
    socket.send(frame(text.to_owned(), Data::Continue, true)).await
}
