//! Interim responses (1xx), and `100 Continue` among them: RFC 9110, sections 10.1.1 and 15.2.

use std::task::{Context, Poll, ready};

use super::{
    headers::put_interim, peer_cache::PeerCache, upload::Upload, upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, Timeout},
    http1::{HttpVersion, ResponseHead},
    net::HttpStream,
};

/// The interim responses to one request.
pub(super) struct InterimResponses {
    /// Bytes that are not written yet.
    bytes: Vec<u8>,
    /// Bytes of interim responses that the upstream has sent.
    bytes_received: usize,
    /// Whether the client still waits for `100 Continue`.
    is_client_waiting: bool,
    /// Whether the upstream got `Expect` and has not responded to it. Until then it is not known how it reads the body.
    is_expectation_open: bool,
}

/// The most bytes of interim responses to one request. An application that reports progress sends thousands of them;
/// the response timeout bounds the time.
const BYTES_MAX: usize = 512 * 1024;

/// RFC 9110, section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// RFC 9110, section 15.2.2.
pub(super) const SWITCHING: u16 = 101;

// === impl InterimResponses ===

impl InterimResponses {
    pub(super) fn new(expects_continue: bool) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_received: 0,
            is_client_waiting: expects_continue,
            is_expectation_open: expects_continue,
        }
    }

    /// Whether the client still waits for `100 Continue`.
    pub(super) fn is_client_waiting(&self) -> bool {
        self.is_client_waiting
    }

    /// Whether the upstream has not responded to `Expect` yet.
    pub(super) fn is_expectation_open(&self) -> bool {
        self.is_expectation_open
    }

    /// Whether the upstream has sent an interim response.
    pub(super) fn has_any(&self) -> bool {
        self.bytes_received > 0
    }

    /// Whether everything is written.
    pub(super) fn is_written(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes that are not written yet, to be sent before the response.
    pub(super) fn take_unwritten(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Asks the client for a body that the upstream has neither accepted nor refused so far.
    pub(super) fn ask_for_body(
        &mut self,
        upload: &mut Upload,
        connection: &ClientConnection<PeerCache>,
    ) {
        if self.release_body(upload, connection) {
            self.bytes.extend_from_slice(CONTINUE);
        }
    }

    /// Releases a held body, and returns whether its client still waits for `100 Continue`.
    pub(super) fn release_body(
        &mut self,
        upload: &mut Upload,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        connection.disarm(Timeout::Continue);
        upload.hold_body(false);
        std::mem::replace(&mut self.is_client_waiting, false)
    }

    /// Takes an interim response with the head at the beginning of `bytes`. False if an upstream may not send it.
    pub(super) fn take(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        version: HttpVersion,
        upload: &mut Upload,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        self.bytes_received += head.len;
        if head.status == SWITCHING || self.bytes_received > BYTES_MAX {
            return false;
        }
        let is_welcome = match head.status {
            100 => {
                self.is_expectation_open = false;
                self.release_body(upload, connection)
            }
            _ => version == HttpVersion::Http11,
        };
        if is_welcome {
            put_interim(&mut self.bytes, head, &bytes[..head.len]);
        }
        true
    }

    pub(super) fn write(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Poll<Result<(), UpstreamFailure>> {
        self.send(socket)?;
        while !self.bytes.is_empty() {
            let written = socket.poll_write(context, [&self.bytes, &[], &[]]);
            connection.track(Timeout::Write, written.is_pending(), false);
            match ready!(written) {
                Ok(count) => drop(self.bytes.drain(..count)),
                Err(_) => return Poll::Ready(Err(UpstreamFailure::ClientLeft)),
            }
        }
        // Bytes that TLS still buffers are sent with the next write, if not now.
        match socket.poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(UpstreamFailure::ClientLeft)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Sends them to an HTTP/2 stream at once. Does nothing for a socket.
    pub(super) fn send(&mut self, channel: &mut HttpStream) -> Result<(), UpstreamFailure> {
        let HttpStream::Stream(stream) = channel else { return Ok(()) };
        let mut left = &*self.bytes;
        while let Some(end) = memchr::memmem::find(left, b"\r\n\r\n") {
            stream.send_interim(&left[..end + 4]).map_err(|_| UpstreamFailure::ClientLeft)?;
            left = &left[end + 4..];
        }
        self.bytes.clear();
        Ok(())
    }
}
