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
    admitted::Admitted, failure::Failure, interim::SWITCHING, memory::Memory, received::receive,
    relay::Answered, retries::forward, tunnel::Tunnel, worker::Proxy,
};
use crate::{
    downstream::{After, Client, HeadError},
    http1::RequestHead,
    upstream,
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
    client: &'a mut Client<Memory>,
    head: Result<RequestHead, HeadError>,
) -> impl Future<Output = After<Tunnel>> + 'a {
    let (mut admitted, decided) = match receive(proxy, client, head) {
        Ok(admitted) => admitted,
        Err(unrouted) => return Either::Left(async move { unrouted.answer(client).await }),
    };
    Either::Right(async move {
        let outcome = match decided {
            Ok(()) => pass_on(&mut admitted, client).await,
            Err(refusal) => Err(Failure::Refused(refusal)),
        };
        let failure = match outcome {
            Ok(Outcome::Answered(after)) => return after,
            Ok(Outcome::Upgraded { upstream, first }) => {
                return After::Tunnel(admitted.into_tunnel(upstream, first));
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Refused(refusal) => admitted.refuse(client, refusal).await,
            Failure::Closed | Failure::Late | Failure::Left => After::Cut,
        }
    })
}

/// What has become of a request that an upstream has answered.
enum Outcome {
    /// The client has the answer.
    Answered(After<Tunnel>),
    /// Both connections become a tunnel, which begins with `first` for the client.
    Upgraded { upstream: upstream::Connection, first: Vec<u8> },
}

/// Sends the request to an upstream and passes its answer on.
///
/// # Errors
///
/// The connection to the upstream is closed by then. After [`Failure::Refused`] nothing of an answer was
/// written; after the others there may be a part, and the client's connection has to be cut.
async fn pass_on(
    request: &mut Admitted<'_>,
    client: &mut Client<Memory>,
) -> Result<Outcome, Failure> {
    let (mut found, head) = forward(request, client).await?;
    if head.status == SWITCHING {
        let first = request.upgrade(client, &mut found.upstream.channel, &head)?;
        return Ok(Outcome::Upgraded { upstream: found.upstream, first });
    }
    let mut answered = Answered::begin(request, client, &mut found, head)?;
    answered.relay(client, &mut found).await?;
    Ok(Outcome::Answered(answered.end(client, found)))
}
