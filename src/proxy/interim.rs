//! Answers that come before the answer, and the leave to send a body that is one of them: RFC 9110,
//! sections 10.1.1 and 15.2.

use std::task::{Context, Poll, ready};

use tracing::warn;

use super::{
    exchange::{Exchange, Failure, SWITCHING},
    headers::put_interim,
    refusal::Refusal,
    said::Line,
    worker::Memory,
};
use crate::{
    downstream::{Connection, Wait},
    http1::{ResponseHead, Version},
    net::Channel,
};

/// Interim answers to one request. More are no way to answer.
const INTERIM_MAX: u32 = 32;

/// RFC 9110, section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Exchange<'_> {
    /// Has the client send a body that the upstream has neither wanted nor refused so far.
    pub(super) fn ask_for_body(&mut self, connection: &Connection<Memory>) {
        if self.let_body_go(connection) {
            self.interim.extend_from_slice(CONTINUE);
        }
    }

    /// Lets a body go that was kept back, and returns whether its client still waits for leave.
    pub(super) fn let_body_go(&mut self, connection: &Connection<Memory>) -> bool {
        connection.end(Wait::Continue);
        self.upload.hold(false);
        std::mem::replace(&mut self.ask.expects_continue, false)
    }

    pub(super) fn take_interim(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        self.interim_count += 1;
        if head.status == SWITCHING || self.interim_count > INTERIM_MAX {
            let (service, color) = self.names();
            if let Some(suppressed) = self.proxy.said.may_say(Line::Interim, connection.now()) {
                warn!(%service, %color, status = head.status, suppressed, "an interim answer that nobody asked for");
            }
            return Err(Failure::Refused(Refusal::Protocol));
        }
        let is_welcome = match head.status {
            100 => {
                self.is_expectation_open = false;
                self.let_body_go(connection)
            }
            _ => self.ask.version == Version::Http11,
        };
        if is_welcome {
            put_interim(&mut self.interim, head, &bytes[..head.len]);
        }
        Ok(())
    }

    pub(super) fn write_interim(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Channel,
        connection: &Connection<Memory>,
    ) -> Poll<Result<(), Failure>> {
        self.send_interim(socket)?;
        while !self.interim.is_empty() {
            let written = socket.poll_write(context, [&self.interim, &[], &[]]);
            connection.note(Wait::Taken, written.is_pending(), false);
            match ready!(written) {
                Ok(count) => drop(self.interim.drain(..count)),
                Err(_) => return Poll::Ready(Err(Failure::Left)),
            }
        }
        // What TLS has kept back goes with whatever is written next, if it does not go now.
        match socket.poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Left)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Hands interim answers to a stream, which takes them at once.
    pub(super) fn send_interim(&mut self, channel: &mut Channel) -> Result<(), Failure> {
        let Channel::Stream(stream) = channel else { return Ok(()) };
        let mut left = &*self.interim;
        while let Some(end) = memchr::memmem::find(left, b"\r\n\r\n") {
            stream.send_interim(&left[..end + 4]).map_err(|_| Failure::Left)?;
            left = &left[end + 4..];
        }
        self.interim.clear();
        Ok(())
    }
}
