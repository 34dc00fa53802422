//! One request and its response, driven by one task: nothing has to be handed from one task to another.
//!
//! A request passes through phases, each a type of its own:
//!
//! ```text
//! received ─▶ admitted ─▶ answered      received   the head was read; there is no claim
//!     │           │ ▲         │         admitted   owns its claim and its permits; is sent (forward), to one
//!     ▼           │ └─────────┤                    or more endpoints of its pool (retries, queueing)
//! unrouted        ▼           ▼         answered   the response head is known, and the body is relayed (relay);
//!               tunnel   next request              back to admitted if none of it was written
//! ```

use std::sync::Arc;

use futures_util::future::Either;

use super::{
    detached::Detached,
    holding::ExchangeFuture,
    interim::SWITCHING,
    peer_cache::PeerCache,
    received::{NextAction, NotReceived, receive},
    relay::AnsweredRequest,
    retries::forward,
    tunnel::extensions,
    upstream_failure::UpstreamFailure,
    worker::Proxy,
};
use crate::{
    continuity::Hold,
    downstream::{AfterExchange, ClientStream, HeadError},
    http1::RequestHead,
};

/// Serves the request with the head at the beginning of the unread bytes.
///
/// The request is counted once: when its tunnel begins, or else when the future ends or is dropped. Dropping the future
/// ends the exchange: the upstream connection is closed, and then the claim is released.
// Not an `async fn`: the head is not needed any more when the waiting begins, and the future is kept small.
pub(super) fn exchange<'a>(
    proxy: &'a Proxy,
    client: &'a mut ClientStream<PeerCache>,
    head: Result<RequestHead, HeadError>,
) -> impl Future<Output = AfterExchange<Detached>> + 'a {
    exchange_after(proxy, client, head, None)
}

/// Serves a request that was kept back; `released` is the hold that has let it go.
fn resume<'a>(
    proxy: &'a Proxy,
    client: &'a mut ClientStream<PeerCache>,
    head: RequestHead,
    released: Option<&Arc<Hold>>,
) -> ExchangeFuture<'a> {
    Box::pin(exchange_after(proxy, client, Ok(head), released))
}

fn exchange_after<'a>(
    proxy: &'a Proxy,
    client: &'a mut ClientStream<PeerCache>,
    head: Result<RequestHead, HeadError>,
    released: Option<&Arc<Hold>>,
) -> impl Future<Output = AfterExchange<Detached>> + use<'a> {
    let (mut admitted, next) = match receive(proxy, client, head, released) {
        Ok(admitted) => admitted,
        Err(NotReceived::Unrouted(unrouted)) => {
            return Either::Left(Either::Left(async move { unrouted.answer(client).await }));
        }
        Err(NotReceived::Kept(kept)) => {
            return Either::Left(Either::Right(kept.run(client, resume)));
        }
    };
    Either::Right(async move {
        // The upstream connection is dropped at the end of this block, before an error response is written.
        let failure = 'failed: {
            match next {
                NextAction::Forward => {}
                NextAction::Refuse(error) => break 'failed UpstreamFailure::Error(error),
                // Boxed: it is rarely needed.
                NextAction::Signal(request) => {
                    let after = Box::pin(admitted.signal(client, &request)).await;
                    return after.map(Detached::Events);
                }
            }
            // The response of a color that does not have an asset, while the other color is asked.
            let mut first = None;
            let (mut found, head) = loop {
                // The only call: so the compiler makes one function of both.
                let answer = match forward(&mut admitted, client).await {
                    Ok(forwarded) if first.is_none() => break forwarded,
                    other => other,
                };
                match Box::pin(admitted.go_on(client, &mut first, answer)).await {
                    Ok(None) => {}
                    Ok(Some(response)) => break response,
                    Err(failure) => break 'failed failure,
                }
            };
            if head.status == SWITCHING {
                let extensions = extensions(&head, &found.upstream.stream);
                match admitted.upgrade(client, &mut found.upstream.stream, &head) {
                    Ok(first) => {
                        let tunnel = admitted.into_tunnel(found.upstream, first, extensions);
                        return AfterExchange::Tunnel(Detached::Tunnel(tunnel));
                    }
                    Err(failure) => break 'failed failure,
                }
            }
            let mut answered = match AnsweredRequest::begin(&mut admitted, client, &mut found, head)
            {
                Ok(answered) => answered,
                Err(failure) => break 'failed failure,
            };
            if let Err(failure) = answered.relay(client, &mut found).await {
                break 'failed failure;
            }
            return answered.end(client, found);
        };
        match failure {
            UpstreamFailure::Error(error) => admitted.refuse(client, error).await,
            UpstreamFailure::Closed
            | UpstreamFailure::RetryElsewhere
            | UpstreamFailure::ClientLeft => AfterExchange::Cut,
        }
    })
}
