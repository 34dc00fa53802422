//! Ends a body before its end, between two events or messages.

use std::{borrow::Cow, time::Duration};

use super::BodyPipe;
use crate::{
    http1::{Decoder, Encoding, Framing, put_number},
    net::HttpStream,
    proxy::body_borders::BodyBorders,
};

/// Follows the content of a body that can be ended between two events or messages.
#[derive(Debug)]
pub(super) struct EarlyEnd {
    borders: BodyBorders,
    state: EarlyEndState,
    /// Whether content behind the end was read and is lost, so that the body cannot go on.
    has_dropped: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EarlyEndState {
    /// The body goes on to its own end.
    NotWanted,
    /// It ends at the next border; events with the `retry` field for clients to reconnect.
    Wanted { retry: Option<Duration> },
    /// It has ended.
    Done,
}

/// The trailers of gRPC that end a stream: status 14 is `UNAVAILABLE`.
const UNAVAILABLE: &[u8] = b"grpc-status: 14\r\ngrpc-message: this version was replaced\r\n";

impl BodyPipe {
    /// Follows the content from here on, so that the body can be ended early. Only before its first byte.
    pub(in crate::proxy) fn follow(&mut self, borders: BodyBorders) {
        let state = EarlyEndState::NotWanted;
        self.early_end = Some(Box::new(EarlyEnd { borders, state, has_dropped: false }));
    }

    /// Ends the body between two events or messages. Returns whether that is possible and was not wanted yet.
    pub(in crate::proxy) fn end_early(&mut self, retry: Option<Duration>) -> bool {
        match self.early_end.as_deref_mut() {
            Some(it) if it.state == EarlyEndState::NotWanted => {
                it.state = EarlyEndState::Wanted { retry };
                true
            }
            _ => false,
        }
    }

    /// Lets the body go on, if it has not ended yet and can still go on.
    pub(in crate::proxy) fn keep_on(&mut self) {
        if let Some(it) = self.early_end.as_deref_mut() {
            it.keep_on();
        }
    }

    /// Whether the body was ended early.
    pub(in crate::proxy) fn has_ended_early(&self) -> bool {
        self.early_end.as_ref().is_some_and(|it| it.state == EarlyEndState::Done)
    }

    /// Whether everything that was decoded is written, and the body ends here.
    pub(super) fn is_to_end_here(&self) -> bool {
        self.early_end.as_ref().is_some_and(|it| {
            matches!(it.state, EarlyEndState::Wanted { .. }) && it.borders.is_at_border()
        }) && !self.decoder.is_done()
    }

    /// Ends the body, as its receiver expects the end of a body.
    pub(super) fn put_early_end(&mut self, to: &HttpStream) {
        let Some(early_end) = self.early_end.as_deref_mut() else { return };
        let EarlyEndState::Wanted { retry } = early_end.state else { return };
        early_end.state = EarlyEndState::Done;
        self.decoder = Decoder::new(Framing::None);
        self.suffix_sent = 0;
        let mut last = Vec::new();
        match early_end.borders {
            BodyBorders::Events(_) => put_retry(&mut last, retry),
            BodyBorders::Messages(_) => self.tail = UNAVAILABLE.to_vec(),
        }
        let encoding = if to.is_stream() { Encoding::Plain } else { self.encoding };
        let mut end = Vec::new();
        if !last.is_empty() {
            encoding.put_before_data(&mut end, last.len());
            end.extend_from_slice(&last);
            end.extend_from_slice(encoding.after_data());
        }
        encoding.put_end(&mut end, &[]);
        self.suffix = Cow::Owned(end);
    }
}

// === impl EarlyEnd ===

impl EarlyEnd {
    /// How much of the content that comes next is sent. The rest lies behind the end.
    pub(super) fn pass(&mut self, content: &[u8]) -> usize {
        let count = match self.state {
            EarlyEndState::NotWanted => content.len(),
            EarlyEndState::Wanted { .. } => self.borders.until(content),
            EarlyEndState::Done => 0,
        };
        self.borders.advance(&content[..count]);
        self.has_dropped |= count < content.len();
        count
    }

    fn keep_on(&mut self) {
        // A slow client may not have what lies before the end yet, and the end with it.
        if self.state != EarlyEndState::Done && !self.has_dropped {
            self.state = EarlyEndState::NotWanted;
        }
    }
}

/// The `retry` field, in milliseconds.
fn put_retry(out: &mut Vec<u8>, retry: Option<Duration>) {
    if let Some(retry) = retry {
        out.extend_from_slice(b"retry: ");
        put_number(out, u64::try_from(retry.as_millis()).unwrap_or(u64::MAX));
        out.extend_from_slice(b"\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_has_lost_content_behind_its_end_does_not_go_on() {
        let wanted = EarlyEndState::Wanted { retry: None };
        for (content, passed, expected) in [
            (&b"data: a\n"[..], 8, EarlyEndState::NotWanted),
            (b"data: a\n\n", 9, EarlyEndState::NotWanted),
            (b"data: a\n\ndata", 9, wanted),
        ] {
            let mut borders = BodyBorders::EVENTS;
            borders.advance(b"id: 1\n");
            let mut end = EarlyEnd { borders, state: wanted, has_dropped: false };
            assert_eq!(end.pass(content), passed);
            end.keep_on();
            assert_eq!(end.state, expected, "{}", content.escape_ascii());
        }
    }
}
