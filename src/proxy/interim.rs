//! Answers that come before the answer, and the leave to send a body that is one of them: RFC 9110,
//! sections 10.1.1 and 15.2.

use std::task::{Context, Poll, ready};

use super::{
    headers::put_interim, peer_cache::PeerCache, upload::Upload, upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, Timeout},
    http1::{ResponseHead, Version},
    net::HttpStream,
};

/// The interim answers to one request.
pub(super) struct InterimResponses {
    /// Those that are not written yet.
    bytes: Vec<u8>,
    /// How many bytes the upstream has sent of them.
    came: usize,
    /// Whether the client still waits for `100 Continue`.
    is_client_waiting: bool,
    /// Whether the upstream was told of an expectation, and has not said that it will meet it. What it
    /// takes the body for then is not known.
    is_expectation_open: bool,
}

/// Bytes of interim answers to one request. An application that reports its progress sends thousands of them;
/// how long that may take is bounded by the patience with the answer.
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
            came: 0,
            is_client_waiting: expects_continue,
            is_expectation_open: expects_continue,
        }
    }

    /// Whether the client still waits for `100 Continue`.
    pub(super) fn is_client_waiting(&self) -> bool {
        self.is_client_waiting
    }

    /// Whether the upstream has not answered an expectation that it was told of.
    pub(super) fn is_expectation_open(&self) -> bool {
        self.is_expectation_open
    }

    /// Whether the upstream has sent any.
    pub(super) fn has_come(&self) -> bool {
        self.came > 0
    }

    /// Whether all of them are written.
    pub(super) fn is_written(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Those that are not written yet, for the answer to be written behind them.
    pub(super) fn take_unwritten(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Has the client send a body that the upstream has neither wanted nor refused so far.
    pub(super) fn ask_for_body(
        &mut self,
        upload: &mut Upload,
        connection: &ClientConnection<PeerCache>,
    ) {
        if self.let_body_go(upload, connection) {
            self.bytes.extend_from_slice(CONTINUE);
        }
    }

    /// Lets a body go that was kept back, and returns whether its client still waits for leave.
    pub(super) fn let_body_go(
        &mut self,
        upload: &mut Upload,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        connection.disarm(Timeout::Continue);
        upload.hold(false);
        std::mem::replace(&mut self.is_client_waiting, false)
    }

    /// Takes one that the upstream has sent, whose head stands at the beginning of `bytes`. False if it
    /// is none that an upstream may send.
    pub(super) fn take(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        version: Version,
        upload: &mut Upload,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        self.came += head.len;
        if head.status == SWITCHING || self.came > BYTES_MAX {
            return false;
        }
        let is_welcome = match head.status {
            100 => {
                self.is_expectation_open = false;
                self.let_body_go(upload, connection)
            }
            _ => version == Version::Http11,
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
                Err(_) => return Poll::Ready(Err(UpstreamFailure::Left)),
            }
        }
        // What TLS has kept back goes with whatever is written next, if it does not go now.
        match socket.poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(UpstreamFailure::Left)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Hands them to a stream, which takes them at once. Does nothing for a socket.
    pub(super) fn send(&mut self, channel: &mut HttpStream) -> Result<(), UpstreamFailure> {
        let HttpStream::Stream(stream) = channel else { return Ok(()) };
        let mut left = &*self.bytes;
        while let Some(end) = memchr::memmem::find(left, b"\r\n\r\n") {
            stream.send_interim(&left[..end + 4]).map_err(|_| UpstreamFailure::Left)?;
            left = &left[end + 4..];
        }
        self.bytes.clear();
        Ok(())
    }
}
