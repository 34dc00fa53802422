//! One request and its answer, driven by one task: the request goes up and the answer comes down in
//! the same place, so that nothing has to be handed from one task to another.
//!
//! A request passes through phases, each a type of its own:
//!
//! ```text
//! received ─▶ admitted ─▶ answered      received   its head was read; there is no claim
//!     │           │ ▲         │         admitted   owns its hold and its permits; goes up (forward), over
//!     ▼           │ └─────────┤                    the endpoints of its pool (retries, line)
//! unrouted        ▼           ▼         answered   its answer's head is known and the body comes down
//!               tunnel   next request              (relay); back if nothing of that was written
//! ```

use futures_util::future::Either;

use super::{
    interim::SWITCHING, peer_cache::PeerCache, received::receive, relay::AnsweredRequest,
    retries::forward, tunnel::Tunnel, upstream_failure::UpstreamFailure, worker::Proxy,
};
use crate::{
    downstream::{AfterExchange, ClientStream, HeadError},
    http1::RequestHead,
};

/// Answers the request whose head stands at the beginning of what is unread.
///
/// The request is counted once: when its tunnel begins, or else when the future ends or is dropped.
/// Dropping the future ends the exchange: its upstream sees the connection end, and then its claim is
/// given back.
// Not an `async fn`: the head is of no use any more when the waiting begins, and what waits is kept
// small.
pub(super) fn exchange<'a>(
    proxy: &'a Proxy,
    client: &'a mut ClientStream<PeerCache>,
    head: Result<RequestHead, HeadError>,
) -> impl Future<Output = AfterExchange<Tunnel>> + 'a {
    let (mut admitted, decided) = match receive(proxy, client, head) {
        Ok(admitted) => admitted,
        Err(unrouted) => return Either::Left(async move { unrouted.answer(client).await }),
    };
    Either::Right(async move {
        // Where the answer came from is dropped at the end of this block, before a refusal is written in
        // the answer's place.
        let failure = 'failed: {
            if let Err(error) = decided {
                break 'failed UpstreamFailure::Refused(error);
            }
            let (mut found, head) = match forward(&mut admitted, client).await {
                Ok(forwarded) => forwarded,
                Err(failure) => break 'failed failure,
            };
            if head.status == SWITCHING {
                match admitted.upgrade(client, &mut found.upstream.stream, &head) {
                    Ok(first) => {
                        return AfterExchange::Tunnel(admitted.into_tunnel(found.upstream, first));
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
            UpstreamFailure::Refused(error) => admitted.refuse(client, error).await,
            UpstreamFailure::Closed | UpstreamFailure::Late | UpstreamFailure::Left => {
                AfterExchange::Cut
            }
        }
    })
}
