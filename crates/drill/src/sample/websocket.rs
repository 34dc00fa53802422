//! A WebSocket that echoes each message with the color and the instance in front.

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{Body, SampleIdentity, with_status};

/// Accepts a handshake, and echoes messages until the connection ends.
pub(super) fn respond(identity: &SampleIdentity, mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        let text = "send a WebSocket handshake\n".to_owned();
        return with_status(StatusCode::UPGRADE_REQUIRED, text);
    };
    let prefix = format!("{} {}", identity.color, identity.instance);
    let upgrade = hyper::upgrade::on(&mut request);
    // Ends with its connection.
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            echo(upgraded, &prefix).await;
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

async fn echo(upgraded: Upgraded, prefix: &str) {
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message
            && socket.send(Message::text(format!("{prefix} {text}"))).await.is_err()
        {
            return;
        }
    }
}
