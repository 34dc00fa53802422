//! The first phase of a request: its head was read, and there is no claim yet. It is admitted, or gets an error.

use std::sync::Arc;

use super::{
    admitted::{AdmittedRequest, RequestPermits, ServiceTerms},
    error::ProxyError,
    error_page::AcceptedFormats,
    headers::{FlipgateHeaders, RequestRewrite, put_request},
    holding::KeptRequest,
    intake::NotAdmitted,
    interim::InterimResponses,
    local_reply::{LocalReply, ReplyContext},
    peer_cache::PeerCache,
    request_claim::RequestClaim,
    request_record::RequestRecord,
    request_traits::{RequestTraits, location},
    signal::SignalRequest,
    stream_schedule::StreamSchedule,
    upload::Upload,
    worker::{Proxy, RoutingDecision},
};
use crate::{
    continuity::Hold,
    downstream::{AfterExchange, ClientStream, HeadError, Timeout},
    http1::{Framing, RequestHead},
    switch::ClaimOrigin,
};

/// A request with a head that was read.
struct ReceivedRequest<'a> {
    proxy: &'a Proxy,
    record: RequestRecord,
    traits: RequestTraits,
}

/// A request without a service. It never had a claim.
///
/// Dropping it counts the request among those without a service.
pub(super) struct UnroutedRequest<'a> {
    proxy: &'a Proxy,
    record: RequestRecord,
    answer: LocalReply,
}

/// A request that was not admitted.
pub(super) enum NotReceived<'a> {
    /// It gets an error.
    Unrouted(UnroutedRequest<'a>),
    /// Its service takes no requests now.
    Kept(Box<KeptRequest<'a>>),
}

/// What happens to a request that was admitted. Its claim lasts until the response is written, also if that is one of
/// Flipgate.
pub(super) enum NextAction {
    /// It goes to an upstream.
    Forward,
    /// It gets an error.
    Refuse(ProxyError),
    /// It is for the version signal.
    Signal(Box<SignalRequest>),
}

/// Decides on the head at the beginning of the unread bytes, and consumes it, unless the request is kept back. `released` is
/// the hold that has let it go, if it was held.
pub(super) fn receive<'a>(
    proxy: &'a Proxy,
    client: &mut ClientStream<PeerCache>,
    head: Result<RequestHead, HeadError>,
    released: Option<&Arc<Hold>>,
) -> Result<(AdmittedRequest<'a>, NextAction), NotReceived<'a>> {
    let record = RequestRecord::begin();
    match head {
        Ok(head) => {
            let (channel, connection) = client.split();
            let traits = RequestTraits::of(&head, channel);
            connection.arm(Timeout::Exchange);
            ReceivedRequest { proxy, record, traits }.admit(client, &head, released)
        }
        Err(error) => {
            let received = ReceivedRequest { proxy, record, traits: RequestTraits::UNREAD };
            let unrouted = received.refuse(client, error.into(), Upload::empty(), None);
            Err(NotReceived::Unrouted(unrouted))
        }
    }
}

// === impl ReceivedRequest ===

impl<'a> ReceivedRequest<'a> {
    /// Takes the claim, and rewrites the head for the upstream.
    fn admit(
        self,
        client: &mut ClientStream<PeerCache>,
        head: &RequestHead,
        released: Option<&Arc<Hold>>,
    ) -> Result<(AdmittedRequest<'a>, NextAction), NotReceived<'a>> {
        let (channel, connection) = client.split();
        let decision = match self.proxy.admit(head, channel.unread(), connection, released) {
            Ok(decision) => decision,
            Err(NotAdmitted::Kept(kept)) => {
                let Self { proxy, record, traits } = self;
                let kept = KeptRequest::new(proxy, record, traits, head.clone(), *kept);
                return Err(NotReceived::Kept(Box::new(kept)));
            }
            Err(NotAdmitted::Error(error)) => {
                let port = connection.peer().listener().https_redirect_port;
                let port = port.filter(|_| error == ProxyError::Redirect);
                let location = port.map(|it| location(head, channel.unread(), it));
                let upload = Upload::to_discard(channel, head);
                let unrouted = self.refuse(client, error, upload, location.as_deref());
                return Err(NotReceived::Unrouted(unrouted));
            }
        };
        let Self { proxy, mut record, mut traits } = self;
        let RoutingDecision {
            claim,
            forwarded,
            is_preview,
            is_internal,
            shows_color,
            keeps_trace,
            response_timeout,
            client: address,
            key,
            rules,
            origin,
            own_cookies,
            cookies,
        } = decision;
        if is_preview {
            record.note_preview();
        }
        let policy = claim.pool().policy();
        let mut headers = FlipgateHeaders {
            origin: shows_color.then(|| (claim.color(), claim.generation())),
            rescued_from: None,
            asset_from: None,
            is_missing: false,
            is_private: is_preview,
            is_pinned: origin == ClaimOrigin::Pin,
            version: None,
        };
        let mut signal = None;
        if let Some(settings) = &policy.version_signal {
            headers.version = claim.pool().version_id().filter(|_| settings.header);
            signal = SignalRequest::of(settings, claim.pool(), head, channel.unread());
        }
        let timeouts = &policy.timeouts;
        match timeouts.request {
            None => {}
            Some(Some(limit)) => connection.arm_for(Timeout::Exchange, limit),
            Some(None) => connection.disarm(Timeout::Exchange),
        }
        let response_timeout = timeouts.response.unwrap_or(response_timeout);
        let tunnel_timeout = rules.tunnel_timeout;
        let terms = ServiceTerms { response_timeout, tunnel_timeout, key, is_internal };
        let underway = connection.peer().load().count_request();
        let claim = RequestClaim::new(claim, record, &proxy.shard, underway, address);
        if origin != ClaimOrigin::Role {
            claim.set_origin(origin);
        }
        let permits = RequestPermits::take(&claim, proxy, address);
        let (permits, own) = match permits {
            Ok(permits) => (Some(permits), signal.map(NextAction::Signal)),
            Err(error) => (None, Some(NextAction::Refuse(error))),
        };
        if let Some(next) = own {
            if claim.pool().policy().error_pages.is_some() {
                let head = &channel.unread()[..head.len];
                traits.accepts = Some(AcceptedFormats::of_head(head));
            }
            let admitted = AdmittedRequest {
                claim,
                permits,
                proxy,
                traits,
                terms,
                headers,
                cookies: None,
                upload: Upload::to_discard(channel, head),
                interim: InterimResponses::new(false),
                ending: StreamSchedule::default(),
            };
            return Ok((admitted, next));
        }
        // A client that sends its body at once does not wait for `100 Continue`.
        let expects_continue = head.expects_continue && channel.unread().len() == head.len;
        let rewrite = RequestRewrite {
            expects_continue,
            peer: connection.peer(),
            client: address,
            forwarded,
            keeps_trace,
            own_cookies,
            mark: proxy.mark_lines.of(traits.received()),
        };
        let out = put_request(head, channel.unread(), &rewrite, &mut proxy.random.borrow_mut());
        let tap = claim.pool().tap();
        if tap.is_open() && !is_preview {
            proxy.copy_request(tap, head, channel.unread(), &out);
        }
        let mut upload = Upload::to_send(out, channel, head, expects_continue, &proxy.trailers);
        let next = match (rules.body_max, head.framing) {
            (Some(max), Framing::Exact(length)) if length > max => {
                NextAction::Refuse(ProxyError::BodyTooLarge)
            }
            (max, _) => {
                upload.limit(max, proxy.least_progress);
                NextAction::Forward
            }
        };
        let interim = InterimResponses::new(expects_continue);
        let ending = StreamSchedule::default();
        let admitted = AdmittedRequest {
            claim,
            permits,
            proxy,
            traits,
            terms,
            headers,
            cookies,
            upload,
            interim,
            ending,
        };
        Ok((admitted, next))
    }

    fn refuse(
        self,
        client: &mut ClientStream<PeerCache>,
        error: ProxyError,
        mut upload: Upload,
        location: Option<&[u8]>,
    ) -> UnroutedRequest<'a> {
        let Self { proxy, mut record, traits } = self;
        record.set_status(error.status().0.as_u16());
        if let Some(reason) = error.reason() {
            proxy.unrouted.proxy_error(reason);
        }
        let context = ReplyContext {
            interim: Vec::new(),
            headers: FlipgateHeaders::default(),
            location,
            page: None,
        };
        let answer = LocalReply::new(error, &traits, &mut upload, context, client);
        UnroutedRequest { proxy, record, answer }
    }
}

// === impl UnroutedRequest ===

impl UnroutedRequest<'_> {
    /// Sends the error response.
    pub(super) async fn answer<T>(&self, client: &mut ClientStream<PeerCache>) -> AfterExchange<T> {
        self.answer.send(client).await
    }
}

impl Drop for UnroutedRequest<'_> {
    fn drop(&mut self) {
        self.record.count(&self.proxy.unrouted, || (None, false));
    }
}
