//! The version signal: pages learn that another version has become active.
//!
//! Its resources are requests of the service: they are admitted as any other, so that they tell the version that their
//! client gets. They do not reach an endpoint.

mod answer;
mod events;
mod script;

use std::sync::Arc;

use bytes::Bytes;

use self::answer::{Answer, AnswerContext, has_script};
pub use self::events::EventStream;
use super::{
    admitted::AdmittedRequest,
    local_reply::{LocalReply, may_keep_alive},
    peer_cache::PeerCache,
};
use crate::{
    downstream::{AfterExchange, ClientStream},
    http1::RequestHead,
    metrics::Outcome,
    model::{SignalResource, VersionId, VersionSignal},
    upstream::Pool,
};

/// An admitted request for a resource of the version signal.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignalRequest {
    resource: SignalResource,
    /// Whether the method is GET or HEAD.
    is_allowed: bool,
    /// Whether the client has the script already.
    is_known: bool,
    /// The version that the client gets.
    version: VersionId,
}

// === impl SignalRequest ===

impl SignalRequest {
    /// The request with this head, if it is for a resource of the version signal.
    // The path is compared as it was sent. With another spelling of it, the application is asked.
    pub(super) fn of(
        signal: &VersionSignal,
        pool: &Pool,
        head: &RequestHead,
        bytes: &[u8],
    ) -> Option<Box<Self>> {
        let resource = signal.resource(head.path(bytes))?;
        let version = pool.version_id()?;
        let lines = head.fields.lines(bytes);
        let tags = lines
            .each()
            .filter(|(_, name, _)| name.eq_ignore_ascii_case(b"if-none-match"))
            .map(|(_, _, value)| value);
        Some(Box::new(Self {
            resource,
            is_allowed: matches!(head.method(bytes), b"GET" | b"HEAD"),
            is_known: has_script(tags),
            version,
        }))
    }
}

impl AdmittedRequest<'_> {
    /// Responds to a request for a resource of the version signal. If the future is dropped, it is not known how much the
    /// client has, and the connection is not usable.
    pub(super) async fn signal(
        mut self,
        client: &mut ClientStream<PeerCache>,
        request: &SignalRequest,
    ) -> AfterExchange<EventStream> {
        let SignalRequest { resource, is_allowed, is_known, version } = *request;
        let pool = Arc::clone(self.pool());
        let Some(signal) = &pool.policy().version_signal else { return AfterExchange::Cut };
        let answer = match resource {
            _ if !is_allowed => Answer::method_not_allowed(),
            SignalResource::Version => Answer::version(signal, version),
            SignalResource::Script => Answer::script(is_known),
            SignalResource::Events => Answer::events(),
        };
        // It says nothing of the application.
        self.claim.set_outcome(answer.status.as_u16(), Outcome::Excluded);
        if is_allowed && resource == SignalResource::Events && !self.traits.is_for_head {
            let stream = EventStream::begin(self, client, &answer);
            return stream.map_or(AfterExchange::Cut, AfterExchange::Tunnel);
        }
        let keeps_alive = may_keep_alive(&self.traits, &mut self.upload, client);
        let connection = client.split().1;
        let context =
            AnswerContext::new(self.traits.version, keeps_alive, self.headers, connection);
        let mut head = Vec::with_capacity(512);
        answer.put_head(&mut head, &context, &answer.length());
        let content = if self.traits.is_for_head { Bytes::new() } else { answer.content };
        LocalReply::of(head, content, keeps_alive).send(client).await
    }
}
