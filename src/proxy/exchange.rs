//! One request and its answer, driven by one task: the request goes up and the answer comes down in
//! the same place, so that nothing has to be handed from one task to another.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    flow::{Broken, Flow, Stuck, Trailers},
    headers::{Answer, Marks, Onward, put_answer, put_request},
    refusal::{Refusal, Told},
    tunnel::Tunnel,
    worker::{Admitted, Memory, Proxy},
};
use crate::{
    downstream::{After, Client, Connection, HeadError, Wait},
    http1::{Framing, RequestHead, ResponseHead, Version},
    metrics::PoolMetrics,
    net::Socket,
    switch::{Claim, Kind, Ticket},
    upstream::{self, Member, Pool, Seat},
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
    /// The request on its way up.
    pub(super) upload: Flow,
    pub(super) sending: Sending,
    /// Interim answers that are not written yet.
    pub(super) interim: Vec<u8>,
    pub(super) interim_count: u32,
    /// Whether the client has said that it will send nothing more.
    pub(super) is_half_closed: bool,
}

/// What has to be known of a request when its head is no longer there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) version: Version,
    pub(super) is_for_head: bool,
    pub(super) keeps_alive: bool,
    pub(super) takes_trailers: bool,
    pub(super) wants_websocket: bool,
    /// Whether the client still waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// Whether doing it twice is the same as doing it once, and it can be sent twice.
    pub(super) is_repeatable: bool,
    /// How long the answer may take to begin.
    pub(super) patience: Duration,
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

/// What keeps a side from being drained. Struck out of the books before the claim itself ends.
pub(super) struct Hold {
    ticket: Ticket<Instant>,
    seat: Option<Seat>,
    claim: Claim<Pool>,
}

/// Why there is no answer to relay.
pub(super) enum Failure {
    /// The client is told.
    Refused(Refusal),
    /// The upstream has closed before it said a word.
    Closed,
    /// There is nobody to be told.
    Left,
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
            Err(Failure::Closed | Failure::Left) => After::Cut,
        }
    }
}

// === impl Ask ===

impl Ask {
    /// What is assumed of a request that could not be read.
    const UNREAD: Self = Self {
        version: Version::Http11,
        is_for_head: false,
        keeps_alive: false,
        takes_trailers: false,
        wants_websocket: false,
        expects_continue: false,
        is_repeatable: false,
        patience: Duration::ZERO,
    };

    fn of(head: &RequestHead, bytes: &[u8]) -> Self {
        // RFC 9110, section 9.2.2.
        let method = head.method(bytes);
        let is_idempotent = matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE");
        Self {
            version: head.version,
            is_for_head: method == b"HEAD",
            keeps_alive: head.keeps_alive,
            takes_trailers: head.takes_trailers,
            wants_websocket: head.wants_websocket,
            expects_continue: head.expects_continue,
            is_repeatable: is_idempotent
                && matches!(head.framing, Framing::None | Framing::Exact(0)),
            patience: Duration::ZERO,
        }
    }

    /// How an answer's body is framed for this client.
    fn framing_of(&self, framing: Framing) -> Framing {
        match (framing, self.version) {
            (Framing::Chunked | Framing::ToClose, Version::Http10) => Framing::ToClose,
            (Framing::ToClose, Version::Http11) => Framing::Chunked,
            (framing, _) => framing,
        }
    }
}

// === impl Hold ===

impl Hold {
    /// Notes that the request has become a tunnel.
    pub(super) fn becomes_tunnel(&self) {
        self.ticket.becomes(Kind::Tunnel);
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
            upload: Flow::new(Vec::new(), Framing::None, Framing::None, Trailers::Drop),
            sending: Sending::Going,
            interim: Vec::new(),
            interim_count: 0,
            is_half_closed: false,
        }
    }

    /// Decides on the head, takes the claim, and turns the head into the upstream's.
    fn admit(
        &mut self,
        client: &mut Client<Memory>,
        head: Result<RequestHead, HeadError>,
    ) -> Result<(), Refusal> {
        let head = head?;
        let (socket, connection) = client.split();
        self.ask = Ask::of(&head, socket.unread());
        connection.begin(Wait::Exchange);
        let admitted = match self.proxy.admit(&head, socket.unread(), connection) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                socket.consume(head.len);
                self.upload = Flow::new(Vec::new(), head.framing, head.framing, Trailers::Drop);
                return Err(refusal);
            }
        };
        let Admitted { claim, is_behind_proxy, is_wished, has_marks, patience } = admitted;
        self.ask.patience = patience;
        self.marks = Marks {
            origin: has_marks.then(|| (claim.color(), claim.generation())),
            is_private: is_wished,
        };
        let ticket = self.proxy.shard.enter(claim.side(), Kind::Request, self.started);
        self.hold = Some(Hold { ticket, seat: None, claim });
        // Whoever does not wait for leave has it.
        self.ask.expects_continue &= socket.unread().len() == head.len;
        self.is_expectation_open = self.ask.expects_continue;
        let onward = Onward {
            expects_continue: self.ask.expects_continue,
            peer: connection.peer(),
            memory: connection.memory(),
            is_behind_proxy,
            random: &mut self.proxy.random.borrow_mut(),
        };
        let out = put_request(&head, socket.unread(), onward);
        let trailers = Trailers::Pass { listed: head.fields.lines(socket.unread()).listed() };
        socket.consume(head.len);
        self.upload = Flow::new(out, head.framing, head.framing, trailers);
        self.upload.hold(self.ask.expects_continue);
        Ok(())
    }

    /// Passes the answer on to the client, while the rest of the request may still be on its way.
    async fn relay(
        &mut self,
        client: &mut Client<Memory>,
        found: &mut Option<Found>,
        head: ResponseHead,
    ) -> Result<After<Tunnel>, Failure> {
        let Some(Found { upstream, .. }) = found else { return Err(Failure::Left) };
        let (socket, connection) = client.split();
        let framing = head.framing(self.ask.is_for_head);
        let told = self.ask.framing_of(framing);
        let keeps_alive = head.keeps_alive && framing != Framing::ToClose;
        let goes_on = self.goes_on(told, keeps_alive, connection);
        let is_tunnel = head.status == SWITCHING;
        if is_tunnel && self.sending != Sending::Done {
            return Err(Failure::Refused(Refusal::Protocol));
        }
        let trailers = match self.ask.takes_trailers {
            true => Trailers::Pass { listed: head.fields.lines(upstream.socket.unread()).listed() },
            false => Trailers::Drop,
        };
        let out = self.begin_answer(&head, told, goes_on, &mut upstream.socket, connection);
        if is_tunnel {
            // While it is known whose it was.
            self.count();
            let (found, hold) = (found.take(), self.hold.take());
            let tunnel = found.zip(hold).map(|(it, hold)| Tunnel::new(it.upstream, hold, out));
            return tunnel.map(After::Tunnel).ok_or(Failure::Left);
        }
        let mut download = Flow::new(out, framing, told, trailers);
        // An answer up to the end of the connection must not look whole, however it comes to be cut.
        let is_to_close = told == Framing::ToClose;
        if is_to_close {
            socket.closes_with_reset(true);
        }
        let relayed = poll_fn(|context| {
            match connection.take_alarm() {
                // The request is given up then, but not its answer.
                Some(Wait::Rest) => self.sending = Sending::Refused,
                Some(_) => return Poll::Ready(Err(Broken::TooSlow)),
                None => {}
            }
            let relayed = download.poll(context, &mut upstream.socket, socket);
            self.note_download(&mut download, connection);
            if relayed.is_pending()
                && self.keep_sending(context, socket, upstream, connection).is_err()
            {
                return Poll::Ready(Err(Broken::Writing(io::ErrorKind::ConnectionReset.into())));
            }
            relayed
        })
        .await;
        if is_to_close && (relayed.is_ok() || download.sent() == 0) {
            socket.closes_with_reset(false);
        }
        if let Err(broken) = relayed {
            return self.give_up(&broken, found, &download);
        }
        connection.end(Wait::Exchange);
        if self.sending == Sending::Going && keeps_alive {
            self.send_rest(socket, &mut upstream.socket, connection).await;
        }
        let is_sent = self.sending == Sending::Done;
        if let Some(Found { upstream, member }) = found.take()
            && is_sent
            && keeps_alive
            && !self.is_expectation_open
            && upstream.socket.unread().is_empty()
        {
            self.proxy.connections.put_back(&member, upstream, connection.now());
        }
        Ok(if goes_on && is_sent { After::GoOn } else { After::Close })
    }

    /// Whether the client may send another request behind the answer that is about to begin.
    fn goes_on(
        &mut self,
        told: Framing,
        keeps_alive: bool,
        connection: &Connection<Memory>,
    ) -> bool {
        if self.upload.is_held() {
            // Nobody knows whether the client sends the body that it has announced.
            self.sending = Sending::Refused;
        }
        self.ask.keeps_alive
            && told != Framing::ToClose
            // An upstream that closes takes no more of a request that is not there as a whole.
            && (self.sending == Sending::Done || self.sending == Sending::Going && keeps_alive)
            && !connection.is_closing()
    }

    /// Writes the head that the client gets, and takes the one that the upstream sent away.
    fn begin_answer(
        &mut self,
        head: &ResponseHead,
        told: Framing,
        goes_on: bool,
        upstream: &mut Socket,
        connection: &Connection<Memory>,
    ) -> Vec<u8> {
        connection.end(Wait::Answer);
        connection.end(Wait::Continue);
        self.code = Some(head.status);
        let mut out = std::mem::take(&mut self.interim);
        let answer = Answer {
            version: self.ask.version,
            framing: told,
            goes_on,
            is_websocket: head.status == SWITCHING,
            marks: self.marks,
            date: connection.date(),
        };
        put_answer(&mut out, head, &upstream.unread()[..head.len], &answer);
        upstream.consume(head.len);
        out
    }

    /// Moves the rest of a request on while its answer is relayed. A request that breaks off does not
    /// break its answer.
    fn keep_sending(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Socket,
        upstream: &mut upstream::Connection,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        match self.send(context, socket, &mut upstream.socket, connection) {
            Ok(()) => {}
            Err(Failure::Left) => return Err(Failure::Left),
            Err(Failure::Refused(_) | Failure::Closed) => {
                self.sending = Sending::Refused;
                // Nobody knows where the next request would begin.
                self.ask.keeps_alive = false;
                connection.end(Wait::Rest);
            }
        }
        self.watch(context, socket, connection)
    }

    /// An answer that does not come to its end: the client must not take it for whole.
    fn give_up(
        &self,
        broken: &Broken,
        found: &Option<Found>,
        download: &Flow,
    ) -> Result<After<Tunnel>, Failure> {
        if matches!(broken, Broken::Writing(_)) {
            return Ok(After::Cut);
        }
        let (service, color) = self.names();
        let endpoint = found.as_ref().map(|it| it.member.endpoint().to_string());
        warn!(%service, %color, endpoint, %broken, "an answer broke off");
        match (download.sent(), broken) {
            (0, Broken::TooSlow) => Err(Failure::Refused(Refusal::Timeout)),
            (0, _) => Err(Failure::Refused(Refusal::Protocol)),
            _ => Ok(After::Cut),
        }
    }

    fn note_download(&self, download: &mut Flow, connection: &Connection<Memory>) {
        let (stuck, has_moved) = (download.stuck(), download.has_moved());
        connection.note(Wait::Taken, stuck == Some(Stuck::Writing), has_moved);
        connection.note(Wait::AnswerBody, stuck == Some(Stuck::Reading), has_moved);
        if self.is_half_closed && has_moved {
            connection.begin(Wait::HalfClosed);
        }
    }

    /// Gives an answer of our own. The connection goes on if the request's end is known to be there.
    async fn refuse(&mut self, client: &mut Client<Memory>, refusal: Refusal) -> After<Tunnel> {
        let (out, goes_on) = self.put_refusal(client, refusal);
        match client.write_all(&out).await {
            Ok(()) if goes_on => After::GoOn,
            Ok(()) => After::Close,
            Err(_) => After::Cut,
        }
    }

    fn put_refusal(&mut self, client: &mut Client<Memory>, refusal: Refusal) -> (Vec<u8>, bool) {
        self.code = Some(refusal.status().0.as_u16());
        let (socket, connection) = client.split();
        connection.wait_for_nothing();
        let goes_on = self.ask.keeps_alive
            && !refusal.ends_connection()
            && !connection.is_closing()
            && (self.sending == Sending::Done || self.upload.discard(socket));
        let mut out = std::mem::take(&mut self.interim);
        let told = Told {
            version: self.ask.version,
            is_for_head: self.ask.is_for_head,
            goes_on,
            marks: self.marks,
            date: connection.date(),
        };
        refusal.put(&mut out, &told);
        (out, goes_on)
    }

    pub(super) fn pool(&self) -> Option<&Arc<Pool>> {
        self.hold.as_ref().map(|it| it.claim.pool())
    }

    pub(super) fn sit(&mut self, seat: Seat) {
        if let Some(hold) = &mut self.hold {
            hold.seat = Some(seat);
        }
    }

    /// Service and color, for the log.
    pub(super) fn names(&self) -> (&str, &str) {
        self.pool().map_or(("", ""), |it| (it.service().as_str(), it.color().as_str()))
    }

    /// The endpoint that it is with, for the log.
    pub(super) fn endpoint(&self) -> Option<String> {
        let seat = self.hold.as_ref()?.seat.as_ref()?;
        Some(seat.member().endpoint().to_string())
    }

    /// Counts the exchange, once.
    fn count(&mut self) {
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
