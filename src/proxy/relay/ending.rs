//! The end of a response, or of the rest of its request, after a flip.

use super::AnsweredRequest;
use crate::{
    downstream::{ClientConnection, Timeout},
    http1::{FieldName, Framing, ResponseHead},
    model::{StreamEnd, StreamKind},
    net::HttpStream,
    proxy::{
        admitted::AdmittedRequest, body_borders::BodyBorders, peer_cache::PeerCache,
        request_traits::is_grpc, stream_schedule::END_WITHIN,
    },
};

/// The kind of a response with this head, and how to find the end of its events or messages. Without that it can only be
/// cut: a declared length cannot end early, and what is compressed cannot be read.
pub(super) fn kind_of(
    request: &AdmittedRequest<'_>,
    head: &ResponseHead,
    framing: Framing,
    upstream: &HttpStream,
) -> (StreamKind, Option<BodyBorders>) {
    const DOWNLOAD: (StreamKind, Option<BodyBorders>) = (StreamKind::Download, None);
    if !matches!(framing, Framing::Chunked | Framing::UntilClose) {
        return DOWNLOAD;
    }
    let lines = head.fields.lines(upstream.unread());
    if request.traits.is_grpc {
        return match is_grpc(lines) {
            true => (StreamKind::Grpc, Some(BodyBorders::MESSAGES)),
            false => DOWNLOAD,
        };
    }
    let Some(kind) = lines.first(FieldName::ContentType) else { return DOWNLOAD };
    let kind = kind.split(|it| *it == b';').next().unwrap_or_default();
    if !kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream") {
        return DOWNLOAD;
    }
    let is_coded = lines.each().any(|(_, name, value)| {
        name.eq_ignore_ascii_case(b"content-encoding")
            && !value.trim_ascii().eq_ignore_ascii_case(b"identity")
    });
    (StreamKind::Sse, (!is_coded).then_some(BodyBorders::EVENTS))
}

impl AnsweredRequest<'_, '_> {
    /// Takes up that streams have to end, or not any more.
    #[cold]
    pub(super) fn schedule(&mut self, connection: &ClientConnection<PeerCache>) {
        self.download.keep_on();
        let (response, is_written) = (self.kind, self.is_written);
        let is_sending = self.request.upload.is_going();
        let AdmittedRequest { ending, claim, .. } = &mut *self.request;
        ending.update(claim, connection, |ending| match response {
            // Only the rest of the request goes on.
            _ if is_written => StreamKind::Upload,
            StreamKind::Download
                if is_sending && ending.policies().get(StreamKind::Upload).is_some() =>
            {
                StreamKind::Upload
            }
            kind => kind,
        });
    }

    /// Handles the expired timeout of the ending. Returns whether the stream has to be cut now.
    #[cold]
    pub(super) fn end_now(&mut self, connection: &ClientConnection<PeerCache>) -> bool {
        match self.request.ending.kind() {
            None => return false,
            // The request body is complete, and its response goes on.
            Some(StreamKind::Upload) if !self.request.upload.is_going() => {
                self.schedule(connection);
                return false;
            }
            Some(StreamKind::Upload) => {}
            Some(_) => {
                let retry = self.request.ending.policy().and_then(|it| it.retry);
                if self.download.end_early(retry) {
                    connection.arm_for(Timeout::StreamEnd, END_WITHIN);
                    return false;
                }
            }
        }
        self.count_end(StreamEnd::Cut);
        true
    }

    /// Takes note of a response that was ended between two events or messages: the rest of the request is not sent.
    pub(super) fn note_early_end(&mut self) {
        if self.download.has_ended_early() {
            if self.request.upload.is_going() {
                self.request.upload.give_up();
            }
            self.count_end(StreamEnd::Ended);
        }
    }

    /// Ends the rest of a request after a complete response.
    #[cold]
    pub(super) fn end_rest(&mut self) {
        if self.request.ending.kind() == Some(StreamKind::Upload) {
            self.count_end(StreamEnd::Cut);
        }
    }

    fn count_end(&mut self, how: StreamEnd) {
        let AdmittedRequest { ending, claim, .. } = &mut *self.request;
        ending.count(claim, how);
    }
}
