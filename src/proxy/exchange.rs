//! One request and its answer.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING},
    request,
};
use hyper::{
    body::{Body, Incoming},
    client::conn::TrySendError,
};
use tracing::{debug, warn};

use super::{
    body::{Gate, RequestBody, ResponseBody, Return, Transfer},
    glance::Glance,
    headers,
    refusal::Refusal,
    worker::Proxy,
};
use crate::{
    downstream::Connection,
    metrics::PoolMetrics,
    switch::{Claim, Kind, Ticket},
    upstream::{Pool, Seat},
};

/// A request that is being answered: counted once, when this is dropped.
pub(super) struct Exchange {
    pub(super) proxy: Rc<Proxy>,
    pub(super) connection: Rc<Connection<Proxy>>,
    metrics: Arc<PoolMetrics>,
    started: Instant,
    /// The answer's code, or 499 for a client that left before there was one.
    code: u16,
    /// Unless no service was found for it.
    hold: Option<Hold>,
}

/// What an answer holds on to until it is written, or until the rest of its request is sent.
#[expect(dead_code, reason = "it is held for what its drop does")]
pub struct Held {
    hold: Option<Hold>,
    /// The upstream connection that still takes a request's body.
    back: Option<Return>,
}

/// What keeps a side from being drained. Struck out of the books before the claim itself ends.
struct Hold {
    _ticket: Ticket<Instant>,
    seat: Option<Seat>,
    claim: Claim<Pool>,
}

/// How long a client that expects `100 Continue` waits for an upstream that does not say it: many
/// never do, and clients themselves wait about as long.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// Endpoints that one request is tried at. More would hold a client and a drain up for minutes when
/// a whole network is gone.
const TRIES_MAX: usize = 3;

/// A client that closed its connection before it had an answer; a number that nginx made common.
const CLIENT_LEFT: u16 = 499;

// === impl Exchange ===

impl Exchange {
    /// A request for which no service has been found yet.
    pub(super) fn begin(
        metrics: Arc<PoolMetrics>,
        proxy: Rc<Proxy>,
        connection: Rc<Connection<Proxy>>,
        started: Instant,
    ) -> Self {
        Self { proxy, connection, metrics, started, code: CLIENT_LEFT, hold: None }
    }

    /// Takes the claim that the request was admitted with.
    pub(super) fn hold(&mut self, claim: Claim<Pool>) {
        self.metrics = Arc::clone(claim.pool().metrics());
        let ticket = self.proxy.shard.enter(claim.side(), Kind::Request, self.started);
        self.hold = Some(Hold { _ticket: ticket, seat: None, claim });
    }

    /// Sends the request to an endpoint of its pool and waits for the head of the answer.
    ///
    /// A connection that cannot be opened costs nothing: the next endpoint is tried. A request
    /// that was sent is sent again only once, only because its connection had been used before and
    /// ended without an answer, and only if doing it twice is the same as doing it once.
    pub(super) async fn forward(
        &mut self,
        head: request::Parts,
        glance: Glance,
        body: Incoming,
        patience: Duration,
    ) -> Result<(Response<Incoming>, Return), Refusal> {
        let expects = glance.has_expectation && expects_continue(&head.headers);
        let gate = expects.then(Arc::<Gate>::default);
        let (body, transfer) = RequestBody::new(body, &self.connection, gate.clone());
        let mut request = Request::from_parts(outgoing(head), body);
        if transfer.is_some() && !request.headers().contains_key(CONTENT_LENGTH) {
            // Said aloud, since hyper sends no body with GET otherwise.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        if let Some(gate) = gate.clone() {
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        let is_repeatable = transfer.is_none() && request.method().is_idempotent();
        let mut refusal = Refusal::NoEndpoint;
        let mut tried = Vec::new();
        let mut takes_waiting = true;
        loop {
            if tried.len() == TRIES_MAX {
                return Err(refusal);
            }
            let pool = Arc::clone(self.pool().ok_or(Refusal::NoEndpoint)?);
            let seat = pool.pick(&tried, &mut self.proxy.random.borrow_mut()).ok_or(refusal)?;
            let member = Arc::clone(seat.member());
            self.sit(seat);
            let waiting = match takes_waiting {
                true => self.proxy.connections.waiting(&member).await,
                false => None,
            };
            let mut upstream = match waiting {
                Some(upstream) => upstream,
                None => match self.proxy.connections.open(&pool, &member).await {
                    Ok(upstream) => upstream,
                    Err(error) => {
                        debug!(service = %pool.service(), color = %pool.color(), %error, "next one");
                        refusal = Refusal::Connect(error.reason);
                        tried.push(member);
                        continue;
                    }
                },
            };
            let spare = (upstream.is_reused && is_repeatable).then(|| repeat(&request));
            let answer = upstream.sender.send(request);
            match wait_for(answer, patience, transfer.as_deref(), gate.as_deref()).await {
                Ok(answer) => {
                    let sender = upstream.sender;
                    return Ok((answer, Return { member, sender, transfer }));
                }
                Err(None) => return Err(Refusal::Timeout),
                Err(Some(mut error)) => {
                    let unsent = error.take_message();
                    let error = error.into_error();
                    let (service, color) = (pool.service(), pool.color());
                    let endpoint = member.endpoint();
                    match (unsent, spare) {
                        (Some(unsent), _) => request = unsent,
                        (None, Some(spare)) if !error.is_parse() => request = spare,
                        _ => {
                            warn!(%service, %color, %endpoint, %error, "no answer");
                            return Err(blame(&error));
                        }
                    }
                    debug!(%service, %color, %endpoint, %error, "once more");
                    if !upstream.is_reused {
                        // It takes connections and closes them: as good as none.
                        refusal = Refusal::Closed;
                        tried.push(member);
                    }
                }
            }
            // The endpoint has closed what was waiting; a fresh connection tells whether it lives.
            takes_waiting = false;
        }
    }

    fn pool(&self) -> Option<&Arc<Pool>> {
        self.hold.as_ref().map(|it| it.claim.pool())
    }

    fn sit(&mut self, seat: Seat) {
        if let Some(hold) = &mut self.hold {
            hold.seat = Some(seat);
        }
    }

    pub(super) fn relayed(
        mut self,
        answer: Response<Incoming>,
        back: Return,
    ) -> Response<ResponseBody> {
        let (mut head, incoming) = answer.into_parts();
        self.code = head.status.as_u16();
        headers::forward_response(&mut head.headers);
        // hyper answers in the client's version; the upstream's ends here.
        head.version = Version::HTTP_11;
        Response::from_parts(head, ResponseBody::relay(incoming, back, self))
    }

    pub(super) fn refused(mut self, refusal: Refusal) -> Response<ResponseBody> {
        self.code = refusal.status().0.as_u16();
        refusal.answer().map(|body| body.ends(self))
    }

    /// Notes whether the upstream is being waited for.
    pub(super) fn await_upstream(&self, is_awaited: bool) {
        self.connection.await_upstream(is_awaited);
    }

    /// The answer's last byte was given away: the claim ends when it is written.
    pub(super) fn complete(mut self, back: Option<Return>) {
        let hold = self.hold.take();
        let is_sent = |it: &Return| it.transfer.as_ref().is_none_or(|it| it.is_complete());
        match back {
            Some(back) if is_sent(&back) => {
                let Return { member, sender, transfer: _ } = back;
                self.proxy.connections.put_back(&member, sender, Instant::now());
                self.connection.hold_until_written(Held { hold, back: None });
            }
            // Answered before it was asked whole; the upstream may still be taking the rest.
            Some(back) if back.wants_more() => {
                self.connection.hold_until_uploaded(Held { hold, back: Some(back) });
            }
            _ => self.connection.hold_until_written(Held { hold, back: None }),
        }
    }

    /// The upstream broke off in the middle; the client will see its connection end.
    pub(super) fn broken(self, error: &hyper::Error) {
        if let Some(pool) = self.pool() {
            let (service, color) = (pool.service(), pool.color());
            warn!(%service, %color, %error, "an answer broke off");
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.count(self.code);
        self.metrics.duration.observe(self.started.elapsed().as_secs_f64());
        self.connection.answered();
    }
}

/// The head as it goes out: in origin form, and in our version of HTTP.
fn outgoing(mut head: request::Parts) -> request::Parts {
    if head.uri.authority().is_some() {
        let path = head.uri.path_and_query().cloned();
        head.uri = path.map_or_else(Uri::default, Uri::from);
    }
    head.version = Version::HTTP_11;
    head
}

/// The same request once more. Only for one without a body.
fn repeat(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Waits for an answer's head. The patience counts from the last part of the request's body that
/// was taken, so that a long upload is not too slow an answer. `Err(None)` when it is at an end.
async fn wait_for<B: Body>(
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>,
    patience: Duration,
    transfer: Option<&Transfer>,
    gate: Option<&Gate>,
) -> Result<Response<Incoming>, Option<TrySendError<Request<B>>>> {
    let mut answer = std::pin::pin!(answer);
    if let Some(gate) = gate {
        if let Ok(answer) = tokio::time::timeout(CONTINUE_PATIENCE, &mut answer).await {
            return answer.map_err(Some);
        }
        gate.open();
    }
    let mut left = patience;
    loop {
        if let Ok(answer) = tokio::time::timeout(left, &mut answer).await {
            return answer.map_err(Some);
        }
        let idle = transfer.map(|it| it.moved().elapsed());
        left = match idle.and_then(|it| patience.checked_sub(it)) {
            Some(left) if !left.is_zero() => left,
            _ => return Err(None),
        };
    }
}

fn blame(error: &hyper::Error) -> Refusal {
    if error.is_parse() {
        Refusal::Protocol
    } else if error.is_user() {
        Refusal::BodyIncomplete
    } else {
        Refusal::Closed
    }
}
