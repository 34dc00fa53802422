//! One request and its answer, driven by one task: the request goes up and the answer comes down in
//! the same place, so that nothing has to be handed from one task to another. What it holds and its
//! course are here; the way over the endpoints is in `retries`, the way up to one in `forward`, the way
//! down in `relay`.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::{
    ask::{Ask, is_grpc, location},
    failure::Failure,
    flow::{Flow, Trailers, intake},
    headers::{Marks, Onward, put_request},
    hold::Hold,
    memory::Memory,
    refusal::Refusal,
    tunnel::Tunnel,
    worker::{Admitted, Proxy},
};
use crate::{
    downstream::{After, Client, HeadError, Wait},
    http1::{Framing, RequestHead},
    metrics::{LimitHit, PoolMetrics},
    net::Channel,
    switch::Kind,
    upstream::{self, Member, Permit, Pool, Seat},
};

/// A request that is being answered: counted once, when this is dropped.
pub(super) struct Exchange<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) started: Instant,
    /// The answer's code; none before there is one. Whoever leaves, or is cut, before that is counted
    /// as a client that left.
    pub(super) code: Option<u16>,
    /// Whether the upstream was told of an expectation, and has not said that it will meet it. What it
    /// takes the body for then is not known.
    pub(super) is_expectation_open: bool,
    is_counted: bool,
    pub(super) ask: Ask,
    pub(super) marks: Marks,
    /// Unless no service was found for it.
    pub(super) hold: Option<Hold>,
    /// Its places among the requests of the process and of the service.
    permits: [Option<Permit>; 2],
    /// The request on its way up.
    pub(super) upload: Flow,
    pub(super) sending: Sending,
    /// Interim answers that are not written yet.
    pub(super) interim: Vec<u8>,
    pub(super) interim_count: u32,
    /// Whether the client has said that it will send nothing more.
    pub(super) is_half_closed: bool,
    /// Whether the last byte of the answer is written.
    pub(super) is_answered: bool,
    /// Where the client is sent instead.
    pub(super) location: Option<Box<[u8]>>,
}

/// How far the request has come on its way up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sending {
    /// There is more of it.
    Going,
    /// All of it is written.
    Done,
    /// The upstream takes no more of it.
    Refused,
}

/// Where an answer comes from.
pub(super) struct Found {
    pub(super) upstream: upstream::Connection,
    pub(super) member: Arc<Member>,
}

/// A client that closed its connection before it had an answer; a number that nginx made common.
const CLIENT_LEFT: u16 = 499;

/// RFC 9110, section 15.2.2.
pub(super) const SWITCHING: u16 = 101;

/// Answers the request whose head stands at the beginning of what is unread.
///
/// Dropping the future ends the exchange: its claim is given back, and its upstream sees the
/// connection end.
// Not an `async fn`: the head is of no use any more when the waiting begins, and what waits is kept
// small.
pub(super) fn exchange<'a>(
    proxy: &'a Proxy,
    client: &'a mut Client<Memory>,
    head: Result<RequestHead, HeadError>,
) -> impl Future<Output = After<Tunnel>> + 'a {
    let mut exchange = Exchange::begin(proxy);
    let admitted = exchange.admit(client, head);
    async move {
        let mut found = None;
        let answered = match admitted {
            Err(refusal) => Err(Failure::Refused(refusal)),
            Ok(()) => match exchange.forward(client, &mut found).await {
                Ok(head) => exchange.relay(client, &mut found, head).await,
                Err(failure) => Err(failure),
            },
        };
        match answered {
            Ok(after) => after,
            Err(Failure::Refused(refusal)) => {
                drop(found);
                exchange.refuse(client, refusal).await
            }
            Err(Failure::Closed | Failure::Late | Failure::Left) => After::Cut,
        }
    }
}

// === impl Exchange ===

impl<'a> Exchange<'a> {
    /// A request for which no service has been found yet.
    fn begin(proxy: &'a Proxy) -> Self {
        Self {
            proxy,
            started: Instant::now(),
            code: None,
            is_expectation_open: false,
            is_counted: false,
            ask: Ask::UNREAD,
            marks: Marks::default(),
            hold: None,
            permits: [None, None],
            upload: Flow::new(Vec::new(), Framing::None, Framing::None, Trailers::Drop),
            sending: Sending::Going,
            interim: Vec::new(),
            interim_count: 0,
            is_half_closed: false,
            is_answered: false,
            location: None,
        }
    }

    /// Decides on the head, takes the claim, and turns the head into the upstream's.
    fn admit(
        &mut self,
        client: &mut Client<Memory>,
        head: Result<RequestHead, HeadError>,
    ) -> Result<(), Refusal> {
        let head = head?;
        let (channel, connection) = client.split();
        self.ask = Ask::of(&head, channel);
        connection.begin(Wait::Exchange);
        if self.ask.is_stream {
            self.ask.is_grpc = is_grpc(head.fields.lines(channel.unread()));
        }
        let admitted = match self.proxy.admit(&head, channel.unread(), connection) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                if refusal == Refusal::Redirect {
                    let port = connection.peer().listener().redirects_to;
                    self.location = port.map(|it| location(&head, channel.unread(), it));
                }
                self.take_to_discard(channel, &head);
                return Err(refusal);
            }
        };
        let Admitted { claim, is_behind_proxy, is_wished, has_marks, patience, client, key, rules } =
            admitted;
        self.ask.key = key;
        self.ask.patience = patience;
        self.ask.tunnel_patience = rules.tunnel_patience;
        self.marks = Marks {
            origin: has_marks.then(|| (claim.color(), claim.generation())),
            is_private: is_wished,
        };
        let ticket = self.proxy.shard.enter(claim.side(), Kind::Request, self.started);
        self.hold = Some(Hold { ticket, seat: None, claim });
        if let Err(refusal) = self.take_permits(client) {
            self.take_to_discard(channel, &head);
            return Err(refusal);
        }
        // Whoever does not wait for leave has it.
        self.ask.expects_continue &= channel.unread().len() == head.len;
        self.is_expectation_open = self.ask.expects_continue;
        let onward = Onward {
            expects_continue: self.ask.expects_continue,
            peer: connection.peer(),
            client,
            is_behind_proxy,
            random: &mut self.proxy.random.borrow_mut(),
        };
        let out = put_request(&head, channel.unread(), onward);
        let trailers = Trailers::Pass { listed: head.fields.lines(channel.unread()).listed() };
        channel.consume(head.len);
        self.upload = Flow::new(out, intake(channel, head.framing), head.framing, trailers);
        self.upload.hold(self.ask.expects_continue);
        match (rules.body_max, head.framing) {
            (Some(max), Framing::Exact(length)) if length > max => Err(Refusal::BodyTooLarge),
            (max, _) => {
                self.upload.limit(max);
                self.upload.demand(self.proxy.least_progress);
                Ok(())
            }
        }
    }

    /// Takes the head of a request that goes nowhere; its body is thrown away with it.
    fn take_to_discard(&mut self, channel: &mut Channel, head: &RequestHead) {
        channel.consume(head.len);
        let came = intake(channel, head.framing);
        self.upload = Flow::new(Vec::new(), came, head.framing, Trailers::Drop);
    }

    /// Counts the request in, unless there are as many as may be.
    fn take_permits(&mut self, client: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(pool) = self.pool() else { return Ok(()) };
        let (admission, metrics) = (pool.admission(), pool.metrics());
        let refused = |limit, refusal| {
            metrics.limited(limit);
            Err(refusal)
        };
        if let Err(wait) = admission.count(client) {
            return refused(LimitHit::ClientRate, Refusal::TooMany(wait));
        }
        let of_service = admission.in_flight().map(|it| it.enter().ok_or(()));
        let Ok(of_service) = of_service.transpose() else {
            return refused(LimitHit::ServiceInFlight, Refusal::Overloaded);
        };
        let Some(of_process) = self.proxy.in_flight.enter() else {
            return refused(LimitHit::InFlight, Refusal::Overloaded);
        };
        pool.deposit();
        self.permits = [of_service, Some(of_process)];
        Ok(())
    }

    pub(super) fn pool(&self) -> Option<&Arc<Pool>> {
        self.hold.as_ref().map(|it| it.claim.pool())
    }

    pub(super) fn sit(&mut self, seat: Seat) {
        if let Some(hold) = &mut self.hold {
            hold.seat = Some(seat);
        }
    }

    /// Gives its place at an endpoint back.
    pub(super) fn stand_up(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.seat = None;
        }
    }

    /// The endpoint that it is with.
    pub(super) fn member(&self) -> Option<&Arc<Member>> {
        Some(self.hold.as_ref()?.seat.as_ref()?.member())
    }

    /// Service and color, for the log.
    pub(super) fn names(&self) -> (&str, &str) {
        self.pool().map_or(("", ""), |it| (it.service().as_str(), it.color().as_str()))
    }

    /// The endpoint that it is with, for the log.
    pub(super) fn endpoint(&self) -> Option<String> {
        Some(self.member()?.endpoint().to_string())
    }

    /// Counts the exchange, once.
    pub(super) fn count(&mut self) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.metrics().count(self.code.unwrap_or(CLIENT_LEFT));
            self.metrics().duration.observe(self.started.elapsed().as_secs_f64());
        }
    }

    fn metrics(&self) -> &PoolMetrics {
        self.pool().map_or(&self.proxy.unrouted, |it| it.metrics())
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.count();
    }
}
