//! Asset fallback: an asset that the chosen color does not have is asked of the other color.
//!
//! A page of blue that loads its scripts after the flip asks for files that only blue has. It is an exception to the rule
//! that no request reaches a replaced color after a flip, and only for declared paths of services that ask for it.
//!
//! Only the head of the first response is held back. Its connection waits with the content until the other color has
//! responded. Both claims are held meanwhile.

use std::{future::poll_fn, task::Poll, time::Duration};

use super::{
    admitted::AdmittedRequest, log_limiter::LimitedEvent, peer_cache::PeerCache,
    request_claim::ClaimAside, upstream_failure::UpstreamFailure,
    upstream_response::UpstreamResponse,
};
use crate::{
    downstream::{ClientStream, Timeout},
    http1::{FieldName, Framing, ResponseHead},
    metrics::AssetResult,
    model::{Asset, AssetFallback, Color, Generation, VersionId, normalize_path},
    switch::Claim,
    upstream::Pool,
};

/// A missing asset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct MissingAsset {
    /// Whether the other color may be asked.
    may_fall_back: bool,
}

/// A response that says that an asset is missing.
pub(super) struct MissingResponse {
    response: UpstreamResponse,
    head: ResponseHead,
    missing: MissingAsset,
}

/// The response of the color that does not have the asset, while the other one is asked.
// The connection is dropped before its claim.
pub(super) struct FirstResponse {
    response: UpstreamResponse,
    head: ResponseHead,
    aside: ClaimAside,
    /// The usual timeout of the response head.
    timeout: Duration,
    /// Color and generation of the claim on the other color.
    origin: (Color, Generation),
    version: Option<VersionId>,
}

/// What the other color has answered.
pub(super) enum OtherAnswer {
    /// The asset.
    Found(UpstreamResponse, ResponseHead),
    /// It does not have the asset either.
    Missing(Box<MissingResponse>),
    /// There is no response.
    Failed(UpstreamFailure),
}

/// The time in which the other color has to begin its response. Then the client gets the first one.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest content of a given up response that is read, so that its connection can be used again.
const DISCARD_MAX: u64 = 16 * 1024;

// === impl MissingResponse ===

impl MissingResponse {
    #[cold]
    pub(super) fn new(
        response: UpstreamResponse,
        head: ResponseHead,
        missing: MissingAsset,
    ) -> Box<Self> {
        Box::new(Self { response, head, missing })
    }

    /// The response, as it came.
    pub(super) fn into_parts(self) -> (UpstreamResponse, ResponseHead) {
        (self.response, self.head)
    }
}

impl AdmittedRequest<'_> {
    /// The asset that this response says is missing. One check for services without assets, and a second one for other
    /// responses.
    #[inline]
    pub(super) fn missing_asset(
        &self,
        found: &UpstreamResponse,
        head: &ResponseHead,
    ) -> Option<MissingAsset> {
        let settings = self.pool().policy().assets.as_ref()?;
        let is_declared = settings.statuses.contains(head.status);
        let may_be_page = settings.html_is_missing
            && matches!(head.status, 200..=299)
            && is_html(head, found.upstream.stream.unread());
        match is_declared || may_be_page {
            true => self.missing_at(settings, is_declared),
            false => None,
        }
    }

    /// The same, if the status or the type of the response says that an asset would be missing.
    fn missing_at(&self, settings: &AssetFallback, is_declared: bool) -> Option<MissingAsset> {
        let line = self.upload.head().split(|it| *it == b'\n').next()?;
        let mut words = line.split(|it| *it == b' ');
        if !matches!(words.next()?, b"GET" | b"HEAD") {
            return None;
        }
        let target = words.next()?;
        let path = target.split(|it| *it == b'?').next()?;
        let path = normalize_path(std::str::from_utf8(path).ok()?).ok()?;
        let Asset { may_fall_back, is_never_html } = settings.asset(&path)?;
        // A page below the prefix is only taken for a missing asset if its name could have been asked elsewhere.
        let is_missing = is_declared || is_never_html && may_fall_back;
        is_missing.then_some(MissingAsset { may_fall_back })
    }

    /// Gives the request a claim on the other color, so that it can be forwarded once more, if that color may have the
    /// asset. Otherwise returns the response, which no cache may keep.
    #[cold]
    pub(super) fn ask_other(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        missing: Box<MissingResponse>,
    ) -> Result<Box<FirstResponse>, Box<MissingResponse>> {
        let Some(claim) = self.claim_other(missing.missing) else {
            self.headers.is_missing = true;
            return Err(missing);
        };
        let MissingResponse { response, head, missing: _ } = *missing;
        self.note_success(head.status);
        let (origin, version) = ((claim.color(), claim.generation()), claim.pool().version_id());
        let aside = self.claim.set_aside(claim, &self.proxy.shard);
        let connection = client.split().1;
        connection.disarm(Timeout::ResponseHead);
        connection.disarm(Timeout::Continue);
        self.upload.rewind();
        let timeout = self.terms.response_timeout;
        self.terms.response_timeout = timeout.min(TIMEOUT);
        Ok(Box::new(FirstResponse { response, head, aside, timeout, origin, version }))
    }

    /// Decides between the first response and that of the other color, which the client gets unless the asset is missing
    /// there too or there is no response. The first one is marked so that no cache keeps it.
    ///
    /// Dropping the future gives up the request. Both connections are closed then, and both claims end.
    #[cold]
    pub(super) async fn decide_asset(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        first: FirstResponse,
        answer: OtherAnswer,
    ) -> Result<(UpstreamResponse, ResponseHead), UpstreamFailure> {
        // The connection is declared behind the claim: also if the future is dropped, it ends first.
        let FirstResponse { aside, timeout, origin, version, head, response: first } = first;
        self.terms.response_timeout = timeout;
        let (second, result) = match answer {
            OtherAnswer::Found(second, head) => (Some((second, head)), AssetResult::Found),
            OtherAnswer::Missing(missing) => {
                let MissingResponse { response, head, .. } = *missing;
                self.give_up(client, response, &head).await;
                (None, AssetResult::Missing)
            }
            OtherAnswer::Failed(UpstreamFailure::ClientLeft) => {
                drop(first);
                self.claim.take_back(aside);
                return Err(UpstreamFailure::ClientLeft);
            }
            OtherAnswer::Failed(
                UpstreamFailure::Error(_)
                | UpstreamFailure::Closed
                | UpstreamFailure::RetryElsewhere,
            ) => (None, AssetResult::Failed),
        };
        self.pool().metrics().count_asset(result);
        let now = client.split().1.now();
        self.warn(LimitedEvent::Asset, result.as_str(), now);
        if let Some(second) = second {
            self.give_up(client, first, &head).await;
            drop(aside);
            if let Some(shown) = &mut self.headers.origin {
                *shown = origin;
                self.headers.asset_from = Some(origin.0);
                self.headers.is_pinned = false;
            }
            if self.headers.version.is_some() {
                self.headers.version = version;
            }
            // The response is not of the version that the transaction would be pinned to.
            self.cookies = None;
            return Ok(second);
        }
        let connection = client.split().1;
        connection.disarm(Timeout::ResponseHead);
        self.claim.take_back(aside);
        // The first color has the whole request.
        self.upload.mark_done();
        self.headers.is_missing = true;
        Ok((first, head))
    }

    /// Takes a claim on the other color, if that may have the asset: an internal client may ask any color, and the public
    /// only one that was active with these endpoints.
    fn claim_other(&self, missing: MissingAsset) -> Option<Claim<Pool>> {
        let is_repeatable = self.traits.is_repeatable
            && !self.traits.wants_websocket
            && self.upload.is_done()
            && self.upload.can_rewind()
            // The client has seen a part of the first response.
            && !self.interim.has_any();
        if !missing.may_fall_back || !is_repeatable {
            return None;
        }
        let other = self.claim.pool().color().other();
        self.proxy.switch.claim_color(self.pool().service(), |service| {
            let was_served = service.terms().as_ref().is_some_and(|it| it.was_served(other));
            let may_see = self.terms.is_internal || was_served;
            (may_see && service.side(other).pool().has_endpoint_up()).then_some(other)
        })
    }

    /// Gives a response up. If all of it has arrived, its connection is kept for another request; otherwise it is closed.
    async fn give_up(
        &self,
        client: &mut ClientStream<PeerCache>,
        mut response: UpstreamResponse,
        head: &ResponseHead,
    ) {
        let framing = head.framing(self.traits.is_for_head);
        let length = match framing {
            Framing::None if !head.declares_content() => 0,
            Framing::Exact(length @ ..=DISCARD_MAX) => length,
            _ => return,
        };
        let whole = head.len + usize::try_from(length).unwrap_or(usize::MAX);
        let stream = &mut response.upstream.stream;
        if !head.keeps_alive || stream.is_stream() || !self.upload.is_done() {
            return;
        }
        // What has arrived, without waiting.
        poll_fn(|context| {
            while stream.unread().len() < whole
                && let Poll::Ready(Ok(1..)) = stream.poll_read(context, whole)
            {}
            Poll::Ready(())
        })
        .await;
        if stream.unread().len() != whole {
            return;
        }
        stream.consume(whole);
        let UpstreamResponse { upstream, endpoint } = response;
        self.proxy.connections.put_back(&endpoint, upstream, client.split().1.now());
    }
}

/// Whether the content is HTML.
fn is_html(head: &ResponseHead, bytes: &[u8]) -> bool {
    let content_type = head.fields.lines(bytes).first(FieldName::ContentType);
    content_type.is_some_and(|it| {
        let kind = it.split(|it| *it == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}
