//! One request and its answer, driven by one task: the request goes up and the answer comes down in
//! the same place, so that nothing has to be handed from one task to another.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use super::{
    flow::{Broken, Flow, Stuck},
    headers::{Answer, Marks, Onward, put_answer, put_interim, put_request},
    refusal::{Refusal, Told},
    tunnel::Tunnel,
    worker::{Admitted, Memory, Proxy},
};
use crate::{
    downstream::{After, Client, Connection, HeadError, Wait},
    http1::{Framing, RequestHead, ResponseHead, Scan, Version},
    metrics::PoolMetrics,
    net::Socket,
    switch::{Claim, Kind, Ticket},
    upstream::{self, Member, Pool, Seat},
};

/// A request that is being answered: counted once, when this is dropped.
struct Exchange<'a> {
    proxy: &'a Proxy,
    started: Instant,
    /// The answer's code, or 499 for a client that left before there was one.
    code: u16,
    ask: Ask,
    marks: Marks,
    /// Unless no service was found for it.
    hold: Option<Hold>,
    sending: Sending,
    /// Interim answers that are not written yet.
    interim: Vec<u8>,
    interim_count: u32,
    /// Whether the client has said that it will send nothing more.
    is_half_closed: bool,
}

/// What has to be known of a request when its head is no longer there.
#[derive(Clone, Copy, Debug)]
struct Ask {
    version: Version,
    is_for_head: bool,
    keeps_alive: bool,
    takes_trailers: bool,
    wants_websocket: bool,
    /// Whether the client still waits for `100 Continue`.
    expects_continue: bool,
    /// Whether doing it twice is the same as doing it once, and it can be sent twice.
    is_repeatable: bool,
    /// How long the answer may take to begin.
    patience: Duration,
}

/// How far the request has come on its way up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sending {
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
enum Failure {
    /// The client is told.
    Refused(Refusal),
    /// The upstream has closed before it said a word.
    Closed,
    /// There is nobody to be told.
    Left,
}

/// An answer, from its head on, and where it comes from.
struct Found {
    head: ResponseHead,
    upstream: upstream::Connection,
    member: Arc<Member>,
}

/// Endpoints that one request is tried at. More would hold a client and a drain up for minutes when
/// a whole network is gone.
const TRIES_MAX: usize = 3;

/// Interim answers to one request. More are no way to answer.
const INTERIM_MAX: u32 = 32;

/// Bytes behind a request that are read while it is being answered: to notice that its client
/// leaves, not to get ahead.
const AHEAD_MAX: usize = 16 * 1024;

/// A client that closed its connection before it had an answer; a number that nginx made common.
const CLIENT_LEFT: u16 = 499;

/// RFC 9110, section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Answers the request whose head stands at the beginning of what is unread.
///
/// Dropping the future ends the exchange: its claim is given back, and its upstream sees the
/// connection end.
pub(super) async fn exchange(
    proxy: &Proxy,
    client: &mut Client<Memory>,
    head: Result<RequestHead, HeadError>,
) -> After<Tunnel> {
    let mut exchange = Exchange::begin(proxy);
    let head = match head {
        Ok(head) => head,
        Err(error) => return exchange.refuse(client, error.into(), None).await,
    };
    let (socket, connection) = client.split();
    exchange.ask = Ask::of(&head, socket.unread());
    connection.begin(Wait::Exchange);
    let mut upload = match proxy.admit(&head, socket.unread(), connection) {
        Ok(admitted) => exchange.enter(admitted, &head, socket, connection),
        Err(refusal) => {
            socket.consume(head.len);
            let mut body = Flow::new(Vec::new(), head.framing, head.framing, false);
            return exchange.refuse(client, refusal, Some(&mut body)).await;
        }
    };
    drop(head);
    match exchange.forward(client, &mut upload).await {
        Ok(found) => exchange.relay(client, &mut upload, found).await,
        Err(Failure::Refused(refusal)) => exchange.refuse(client, refusal, Some(&mut upload)).await,
        Err(Failure::Closed | Failure::Left) => After::Cut,
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
            code: CLIENT_LEFT,
            ask: Ask::UNREAD,
            marks: Marks::default(),
            hold: None,
            sending: Sending::Going,
            interim: Vec::new(),
            interim_count: 0,
            is_half_closed: false,
        }
    }

    /// Takes what the request was admitted with, and turns its head into the upstream's.
    fn enter(
        &mut self,
        admitted: Admitted,
        head: &RequestHead,
        socket: &mut Socket,
        connection: &Connection<Memory>,
    ) -> Flow {
        let Admitted { claim, is_behind_proxy, is_wished, has_marks, patience } = admitted;
        self.ask.patience = patience;
        self.marks = Marks {
            origin: has_marks.then(|| (claim.color(), claim.generation())),
            is_private: is_wished,
        };
        let ticket = self.proxy.shard.enter(claim.side(), Kind::Request, self.started);
        self.hold = Some(Hold { ticket, seat: None, claim });
        let onward = Onward {
            peer: connection.peer(),
            memory: connection.memory(),
            is_behind_proxy,
            random: &mut self.proxy.random.borrow_mut(),
        };
        let out = put_request(head, socket.unread(), onward);
        socket.consume(head.len);
        let mut upload = Flow::new(out, head.framing, head.framing, true);
        // Whoever does not wait for leave has it.
        self.ask.expects_continue &= socket.unread().is_empty();
        upload.hold(self.ask.expects_continue);
        upload
    }

    /// Sends the request to an endpoint of its pool and waits for the head of the answer.
    ///
    /// A connection that cannot be opened costs nothing: the next endpoint is tried. A request
    /// that was sent is sent again only once, only because its connection had been used before and
    /// ended without an answer, and only if doing it twice is the same as doing it once.
    async fn forward(
        &mut self,
        client: &mut Client<Memory>,
        upload: &mut Flow,
    ) -> Result<Found, Failure> {
        let mut refusal = Refusal::NoEndpoint;
        let mut tried = Vec::new();
        let mut takes_waiting = true;
        loop {
            if tried.len() == TRIES_MAX {
                return Err(Failure::Refused(refusal));
            }
            let pool = self.pool().ok_or(Failure::Refused(refusal))?;
            let seat = pool.pick(&tried, &mut self.proxy.random.borrow_mut());
            let seat = seat.ok_or(Failure::Refused(refusal))?;
            let member = Arc::clone(seat.member());
            let waiting = match takes_waiting {
                true => self.proxy.connections.waiting(&member),
                false => None,
            };
            let mut upstream = match waiting {
                Some(upstream) => upstream,
                // In a box of its own, since it is seldom needed and large.
                None => match Box::pin(self.proxy.connections.open(pool, &member)).await {
                    Ok(upstream) => upstream,
                    Err(error) => {
                        debug!(service = %pool.service(), color = %pool.color(), %error, "next one");
                        refusal = Refusal::Connect(error.reason);
                        tried.push(member);
                        continue;
                    }
                },
            };
            self.sit(seat);
            match self.attempt(client, upload, &mut upstream.socket).await {
                Ok(head) => return Ok(Found { head, upstream, member }),
                Err(Failure::Closed) => {}
                Err(failure) => return Err(failure),
            }
            let is_fresh = !upstream.is_reused;
            let may_repeat = upload.sent() == 0 || !is_fresh && self.ask.is_repeatable;
            let (service, color) = self.names();
            let endpoint = member.endpoint();
            if !may_repeat || !upload.can_rewind() {
                warn!(%service, %color, %endpoint, "closed without an answer");
                return Err(Failure::Refused(Refusal::Closed));
            }
            debug!(%service, %color, %endpoint, "closed without an answer; once more");
            upload.rewind();
            self.sending = Sending::Going;
            if is_fresh {
                // It takes connections and closes them: as good as none.
                refusal = Refusal::Closed;
                tried.push(member);
            }
            // The endpoint has closed what was waiting; a fresh connection tells whether it lives.
            takes_waiting = false;
        }
    }

    /// Sends the request and reads the answer's head, which is left where it stands. Interim answers
    /// are passed on as they come.
    async fn attempt(
        &mut self,
        client: &mut Client<Memory>,
        upload: &mut Flow,
        upstream: &mut Socket,
    ) -> Result<ResponseHead, Failure> {
        let (socket, connection) = client.split();
        connection.begin_for(Wait::Answer, self.ask.patience);
        if upload.is_held() {
            connection.begin(Wait::Continue);
        }
        let mut scan = Scan::default();
        poll_fn(|context| {
            match connection.take_alarm() {
                Some(Wait::Continue) => self.ask_for_body(upload, connection),
                Some(_) => return Poll::Ready(Err(Failure::Refused(Refusal::Timeout))),
                None => {}
            }
            self.send(context, upload, socket, upstream, connection)?;
            loop {
                ready!(self.write_interim(context, socket, connection))?;
                let unread = upstream.unread();
                if !unread.is_empty() && scan.is_worth_parsing(unread) {
                    match ResponseHead::parse(unread) {
                        Ok(Some(head)) if self.is_final(&head) => return Poll::Ready(Ok(head)),
                        Ok(Some(head)) => {
                            self.take_interim(&head, unread, upload, connection)?;
                            upstream.consume(head.len);
                            scan = Scan::default();
                            self.send(context, upload, socket, upstream, connection)?;
                            continue;
                        }
                        Ok(None) => {}
                        Err(defect) => {
                            let (service, color) = self.names();
                            warn!(%service, %color, %defect, "an answer that cannot be understood");
                            return Poll::Ready(Err(Failure::Refused(Refusal::Protocol)));
                        }
                    }
                }
                let Poll::Ready(read) = upstream.poll_read(context, ResponseHead::BYTES_MAX) else {
                    self.watch(context, socket, connection)?;
                    if upload.is_held() && !socket.unread().is_empty() {
                        // Sent without leave, as it may.
                        self.let_body_go(upload, connection);
                        self.send(context, upload, socket, upstream, connection)?;
                    }
                    return Poll::Pending;
                };
                match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) if upstream.unread().is_empty() && self.interim_count == 0 => {
                        return Poll::Ready(Err(Failure::Closed));
                    }
                    Ok(0) | Err(_) => {
                        return Poll::Ready(Err(Failure::Refused(Refusal::Closed)));
                    }
                }
            }
        })
        .await
    }

    /// Whether a head is the answer, and not one that comes before it.
    fn is_final(&self, head: &ResponseHead) -> bool {
        let is_tunnel = head.status == 101 && head.is_websocket && self.ask.wants_websocket;
        head.status >= 200 || is_tunnel
    }

    /// Moves the request on, as far as that goes without waiting.
    fn send(
        &mut self,
        context: &mut Context<'_>,
        upload: &mut Flow,
        socket: &mut Socket,
        upstream: &mut Socket,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        if self.sending != Sending::Going {
            return Ok(());
        }
        match upload.poll(context, socket, upstream) {
            Poll::Ready(Ok(())) => self.sending = Sending::Done,
            // What it said before it closed is still to be read.
            Poll::Ready(Err(Broken::Writing(_))) => self.sending = Sending::Refused,
            Poll::Ready(Err(Broken::Reading(_))) => return Err(Failure::Left),
            Poll::Ready(Err(Broken::Short | Broken::TooSlow)) => {
                return Err(Failure::Refused(Refusal::BodyIncomplete));
            }
            Poll::Ready(Err(Broken::Malformed(error))) => {
                return Err(Failure::Refused(Refusal::Body(error)));
            }
            Poll::Pending => {}
        }
        self.note_upload(upload, connection);
        Ok(())
    }

    /// Reads ahead what the client sends, to notice that it leaves.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Socket,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        let is_body_held = self.ask.expects_continue;
        if self.sending == Sending::Going && !is_body_held {
            // What comes is a part of the body.
            return Ok(());
        }
        while !self.is_half_closed && socket.unread().len() < AHEAD_MAX {
            match socket.poll_read(context, AHEAD_MAX) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    self.is_half_closed = true;
                    connection.begin(Wait::HalfClosed);
                }
                Poll::Ready(Err(_)) => return Err(Failure::Left),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Writes down what the request's way up waits for. The patience with the answer counts from the
    /// last part of the body that was taken, so that a long upload is not too slow an answer.
    fn note_upload(&self, upload: &mut Flow, connection: &Connection<Memory>) {
        let (stuck, has_moved) = (upload.stuck(), upload.has_moved());
        let is_going = self.sending == Sending::Going;
        connection.note(Wait::Body, is_going && stuck == Some(Stuck::Reading), has_moved);
        if self.code != CLIENT_LEFT {
            connection.note(Wait::Upload, is_going && stuck == Some(Stuck::Writing), has_moved);
        } else if is_going && stuck == Some(Stuck::Reading) {
            connection.end(Wait::Answer);
        } else if has_moved || !connection.is_waiting(Wait::Answer) {
            connection.begin_for(Wait::Answer, self.ask.patience);
        }
    }

    /// Has the client send a body that the upstream has neither wanted nor refused so far.
    fn ask_for_body(&mut self, upload: &mut Flow, connection: &Connection<Memory>) {
        if self.let_body_go(upload, connection) {
            self.interim.extend_from_slice(CONTINUE);
        }
    }

    /// Lets a body go that was kept back, and returns whether its client still waits for leave.
    fn let_body_go(&mut self, upload: &mut Flow, connection: &Connection<Memory>) -> bool {
        connection.end(Wait::Continue);
        upload.hold(false);
        std::mem::replace(&mut self.ask.expects_continue, false)
    }

    fn take_interim(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        upload: &mut Flow,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        self.interim_count += 1;
        if head.status == 101 || self.interim_count > INTERIM_MAX {
            let (service, color) = self.names();
            warn!(%service, %color, status = head.status, "an interim answer that nobody asked for");
            return Err(Failure::Refused(Refusal::Protocol));
        }
        let is_welcome = match head.status {
            100 => self.let_body_go(upload, connection),
            _ => self.ask.version == Version::Http11,
        };
        if is_welcome {
            put_interim(&mut self.interim, head, &bytes[..head.len]);
        }
        Ok(())
    }

    fn write_interim(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Socket,
        connection: &Connection<Memory>,
    ) -> Poll<Result<(), Failure>> {
        while !self.interim.is_empty() {
            let written = socket.poll_write(context, [&self.interim, &[], &[]]);
            connection.note(Wait::Taken, written.is_pending(), false);
            match ready!(written) {
                Ok(count) => drop(self.interim.drain(..count)),
                Err(_) => return Poll::Ready(Err(Failure::Left)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Passes the answer on to the client, while the rest of the request may still be on its way.
    async fn relay(
        &mut self,
        client: &mut Client<Memory>,
        upload: &mut Flow,
        found: Found,
    ) -> After<Tunnel> {
        let Found { head, mut upstream, member } = found;
        let (socket, connection) = client.split();
        connection.end(Wait::Answer);
        connection.end(Wait::Continue);
        self.code = head.status;
        if upload.is_held() {
            self.sending = Sending::Refused;
        }
        let is_websocket = head.status == 101;
        let framing = head.framing(self.ask.is_for_head);
        let told = self.ask.framing_of(framing);
        let goes_on = self.ask.keeps_alive
            && told != Framing::ToClose
            && self.sending != Sending::Refused
            && !connection.is_closing();
        let mut out = std::mem::take(&mut self.interim);
        let (version, marks, date) = (self.ask.version, self.marks, connection.date());
        let answer = Answer { version, framing: told, goes_on, is_websocket, marks, date };
        put_answer(&mut out, &head, &upstream.socket.unread()[..head.len], &answer);
        upstream.socket.consume(head.len);
        if is_websocket {
            return match self.hold.take() {
                Some(hold) => After::Tunnel(Tunnel::new(upstream, hold, out)),
                None => After::Cut,
            };
        }
        let mut download = Flow::new(out, framing, told, self.ask.takes_trailers);
        let relayed = poll_fn(|context| {
            if connection.take_alarm().is_some() {
                return Poll::Ready(Err(Broken::TooSlow));
            }
            let relayed = download.poll(context, &mut upstream.socket, socket);
            self.note_download(&mut download, connection);
            if relayed.is_pending() {
                let sent = match self.sending {
                    Sending::Going => {
                        self.send(context, upload, socket, &mut upstream.socket, connection)
                    }
                    Sending::Done => self.watch(context, socket, connection),
                    Sending::Refused => Ok(()),
                };
                let gone = |_| Broken::Writing(io::ErrorKind::ConnectionReset.into());
                sent.map_err(gone)?;
            }
            relayed
        })
        .await;
        match relayed {
            Ok(()) => {}
            Err(Broken::Writing(_)) => return After::Cut,
            Err(broken) => {
                let (service, color) = self.names();
                warn!(%service, %color, endpoint = %member.endpoint(), %broken, "an answer broke off");
                drop(upstream);
                if download.sent() == 0 {
                    return self.refuse(client, Refusal::Protocol, Some(upload)).await;
                }
                if told == Framing::ToClose {
                    socket.will_reset();
                }
                return After::Cut;
            }
        }
        if self.sending == Sending::Going && head.keeps_alive && framing != Framing::ToClose {
            self.send_rest(upload, socket, &mut upstream.socket, connection).await;
        }
        let is_sent = self.sending == Sending::Done;
        let is_clean = upstream.socket.unread().is_empty() && framing != Framing::ToClose;
        if is_sent && is_clean && head.keeps_alive {
            self.proxy.connections.put_back(&member, upstream, connection.now());
        }
        if goes_on && is_sent { After::GoOn } else { After::Close }
    }

    /// Sends the rest of a request that was answered before it was there as a whole. The upstream may
    /// still be taking it, so the claim stays.
    async fn send_rest(
        &mut self,
        upload: &mut Flow,
        socket: &mut Socket,
        upstream: &mut Socket,
        connection: &Connection<Memory>,
    ) {
        poll_fn(|context| {
            if connection.take_alarm().is_some()
                || self.send(context, upload, socket, upstream, connection).is_err()
            {
                self.sending = Sending::Refused;
            }
            if self.sending != Sending::Going {
                return Poll::Ready(());
            }
            // Whatever it says now, or that it says nothing any more: it is done with this request.
            upstream.poll_read(context, AHEAD_MAX).map(|_| self.sending = Sending::Refused)
        })
        .await;
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
    async fn refuse(
        &mut self,
        client: &mut Client<Memory>,
        refusal: Refusal,
        body: Option<&mut Flow>,
    ) -> After<Tunnel> {
        self.code = refusal.status().0.as_u16();
        let (socket, connection) = client.split();
        connection.end(Wait::Answer);
        connection.end(Wait::Exchange);
        let is_over = body.is_some_and(|it| self.sending == Sending::Done || it.discard(socket));
        let goes_on = is_over
            && self.ask.keeps_alive
            && !refusal.ends_connection()
            && !connection.is_closing();
        let mut out = std::mem::take(&mut self.interim);
        let told = Told {
            version: self.ask.version,
            is_for_head: self.ask.is_for_head,
            goes_on,
            marks: self.marks,
            date: connection.date(),
        };
        refusal.put(&mut out, &told);
        match client.write_all(&out).await {
            Ok(()) if goes_on => After::GoOn,
            Ok(()) => After::Close,
            Err(_) => After::Cut,
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

    /// Service and color, for the log.
    fn names(&self) -> (&str, &str) {
        self.pool().map_or(("", ""), |it| (it.service().as_str(), it.color().as_str()))
    }

    fn metrics(&self) -> &PoolMetrics {
        self.pool().map_or(&self.proxy.unrouted, |it| it.metrics())
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.metrics().count(self.code);
        self.metrics().duration.observe(self.started.elapsed().as_secs_f64());
    }
}
