//! The first phase of a request: its head was read, and there is no claim yet. From here it is either
//! admitted or refused.

use super::{
    admitted::{AdmittedRequest, RequestPermits, ServiceTerms},
    error::ProxyError,
    headers::{FlipgateHeaders, RequestRewrite, put_request},
    interim::InterimResponses,
    local_reply::{LocalReply, ReplyContext},
    peer_cache::PeerCache,
    request_claim::RequestClaim,
    request_record::RequestRecord,
    request_traits::{RequestTraits, location},
    upload::Upload,
    worker::{Proxy, RoutingDecision},
};
use crate::{
    downstream::{AfterExchange, ClientStream, HeadError, Timeout},
    http1::{Framing, RequestHead},
};

/// A request whose head was read.
struct ReceivedRequest<'a> {
    proxy: &'a Proxy,
    record: RequestRecord,
    ask: RequestTraits,
}

/// A request that no service answers. It never had a claim.
///
/// Dropping it counts the request among those without a service.
pub(super) struct UnroutedRequest<'a> {
    proxy: &'a Proxy,
    record: RequestRecord,
    answer: LocalReply,
}

/// Decides on the head that stands at the beginning of what is unread, and takes it away. If the request
/// is admitted but must not go to an upstream, the refusal is beside it: its hold lasts until that is
/// written.
pub(super) fn receive<'a>(
    proxy: &'a Proxy,
    client: &mut ClientStream<PeerCache>,
    head: Result<RequestHead, HeadError>,
) -> Result<(AdmittedRequest<'a>, Result<(), ProxyError>), UnroutedRequest<'a>> {
    let record = RequestRecord::begin();
    match head {
        Ok(head) => {
            let (channel, connection) = client.split();
            let ask = RequestTraits::of(&head, channel);
            connection.arm(Timeout::Exchange);
            ReceivedRequest { proxy, record, ask }.admit(client, &head)
        }
        Err(error) => {
            let received = ReceivedRequest { proxy, record, ask: RequestTraits::UNREAD };
            Err(received.refuse(client, error.into(), Upload::unread(), None))
        }
    }
}

// === impl ReceivedRequest ===

impl<'a> ReceivedRequest<'a> {
    /// Takes the claim, and turns the head into the upstream's.
    fn admit(
        self,
        client: &mut ClientStream<PeerCache>,
        head: &RequestHead,
    ) -> Result<(AdmittedRequest<'a>, Result<(), ProxyError>), UnroutedRequest<'a>> {
        let (channel, connection) = client.split();
        let decision = match self.proxy.admit(head, channel.unread(), connection) {
            Ok(decision) => decision,
            Err(error) => {
                let port = connection.peer().listener().https_redirect_port;
                let port = port.filter(|_| error == ProxyError::Redirect);
                let location = port.map(|it| location(head, channel.unread(), it));
                let upload = Upload::to_discard(channel, head);
                return Err(self.refuse(client, error, upload, location.as_deref()));
            }
        };
        let Self { proxy, mut record, ask } = self;
        let RoutingDecision {
            claim,
            told,
            is_wished,
            has_marks,
            keeps_trace,
            patience,
            client: address,
            key,
            rules,
        } = decision;
        if is_wished {
            record.note_preview();
        }
        let marks = FlipgateHeaders {
            origin: has_marks.then(|| (claim.color(), claim.generation())),
            is_private: is_wished,
        };
        let timeouts = &claim.pool().policy().timeouts;
        match timeouts.request {
            None => {}
            Some(Some(limit)) => connection.arm_for(Timeout::Exchange, limit),
            Some(None) => connection.disarm(Timeout::Exchange),
        }
        let patience = timeouts.response.unwrap_or(patience);
        let terms = ServiceTerms { patience, tunnel_patience: rules.tunnel_timeout, key };
        let underway = connection.peer().load().count_request();
        let hold = RequestClaim::new(claim, record, &proxy.shard, underway);
        let permits = match RequestPermits::take(&hold, proxy, address) {
            Ok(permits) => permits,
            Err(error) => {
                let (upload, interim) =
                    (Upload::to_discard(channel, head), InterimResponses::new(false));
                let permits = None;
                let admitted =
                    AdmittedRequest { hold, permits, proxy, ask, terms, marks, upload, interim };
                return Ok((admitted, Err(error)));
            }
        };
        // A client that sends its body at once does not wait for leave.
        let expects_continue = head.expects_continue && channel.unread().len() == head.len;
        let onward = RequestRewrite {
            expects_continue,
            peer: connection.peer(),
            client: address,
            told,
            keeps_trace,
            mark: proxy.mark_lines.of(ask.received()),
        };
        let out = put_request(head, channel.unread(), &onward, &mut proxy.random.borrow_mut());
        let mut upload = Upload::to_send(out, channel, head, expects_continue, &proxy.trailers);
        let decided = match (rules.body_max, head.framing) {
            (Some(max), Framing::Exact(length)) if length > max => Err(ProxyError::BodyTooLarge),
            (max, _) => {
                upload.limit(max, proxy.least_progress);
                Ok(())
            }
        };
        let (permits, interim) = (Some(permits), InterimResponses::new(expects_continue));
        Ok((AdmittedRequest { hold, permits, proxy, ask, terms, marks, upload, interim }, decided))
    }

    fn refuse(
        self,
        client: &mut ClientStream<PeerCache>,
        error: ProxyError,
        mut upload: Upload,
        location: Option<&[u8]>,
    ) -> UnroutedRequest<'a> {
        let Self { proxy, mut record, ask } = self;
        record.answer(error.status().0.as_u16());
        if let Some(reason) = error.reason() {
            proxy.unrouted.proxy_error(reason);
        }
        let circumstances =
            ReplyContext { interim: Vec::new(), marks: FlipgateHeaders::default(), location };
        let answer = LocalReply::new(error, &ask, &mut upload, circumstances, client);
        UnroutedRequest { proxy, record, answer }
    }
}

// === impl UnroutedRequest ===

impl UnroutedRequest<'_> {
    /// Sends the refusal.
    pub(super) async fn answer<T>(&self, client: &mut ClientStream<PeerCache>) -> AfterExchange<T> {
        self.answer.send(client).await
    }
}

impl Drop for UnroutedRequest<'_> {
    fn drop(&mut self) {
        self.record.count(&self.proxy.unrouted);
    }
}
