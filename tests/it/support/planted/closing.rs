//! How the planted proxy closes WebSockets after a flip: with a Close frame between two messages.

use std::io;

use bytes::BytesMut;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Fault, RequestInFlight};

/// Close frames with 1012 (Service Restart) and 1000 (Normal Closure): RFC 6455, section 5.5.1.
const RESTART: [u8; 4] = [0x88, 2, 0x03, 0xf4];
const NORMAL: [u8; 4] = [0x88, 2, 0x03, 0xe8];

/// The messages after which a WebSocket is closed too early.
const EARLY: u32 = 3;

/// Relays until the client or the application ends.
pub(super) async fn relay(
    in_flight: RequestInFlight,
    client: TokioIo<Upgraded>,
    server: TokioIo<Upgraded>,
) {
    let (mut from_client, to_client) = tokio::io::split(client);
    let (from_server, mut to_server) = tokio::io::split(server);
    tokio::select! {
        // One of the two ends badly when the other side is gone.
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = relay_down(&in_flight, from_server, to_client) => {}
    }
}

/// Relays the frames of the application until it ends, or until the WebSocket is closed. Then it waits for the client to
/// leave, for ever.
async fn relay_down(
    in_flight: &RequestInFlight,
    mut server: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let fault = in_flight.proxy.fault;
    let mut flips = in_flight.proxy.flips.subscribe();
    let (mut buffer, mut is_open, mut messages, mut is_due) = (BytesMut::new(), false, 0, false);
    loop {
        let is_chosen = is_due || (fault == Fault::ClosesEarly && messages == EARLY);
        if is_chosen && is_open == (fault == Fault::ClosesWithin) {
            let close = if fault == Fault::ClosesNormally { NORMAL } else { RESTART };
            client.write_all(&close).await?;
            client.flush().await?;
            return std::future::pending().await;
        }
        if let Some(length) = frame_length(&buffer) {
            let frame = buffer.split_to(length);
            let (is_last, is_control) = (frame[0] & 0x80 != 0, frame[0] & 0x08 != 0);
            if !is_control {
                is_open = !is_last;
                messages += u32::from(is_last);
            }
            client.write_all(&frame).await?;
            client.flush().await?;
            continue;
        }
        tokio::select! {
            read = server.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
            // Fails when the proxy ends.
            _ = flips.wait_for(|it| *it != in_flight.generation), if !is_due => is_due = true,
        }
    }
}

/// The length of the first frame, if it is complete. The frames of the application are short and have no mask.
fn frame_length(buffer: &[u8]) -> Option<usize> {
    let length = 2 + usize::from(*buffer.get(1)? & 0x7f);
    (buffer.len() >= length).then_some(length)
}
