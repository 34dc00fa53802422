//! The course of a request over the endpoints of its pool, until one has begun to answer.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Instant};

use tracing::{debug, warn};

use super::{
    exchange::{Exchange, Found, Sending},
    failure::Failure,
    forward::has_left,
    memory::Memory,
    refusal::Refusal,
    said::Line,
};
use crate::{
    downstream::{Client, Connection, Wait},
    http1::ResponseHead,
    http2::Reset,
    metrics::LimitHit,
    upstream::{self, Choice, ConnectError, ConnectReason, Errand, Member, Picked, Pool, Seat},
};

/// Where a request has been.
pub(super) struct Course {
    pub(super) tried: Vec<Arc<Member>>,
    /// What its client is told if nobody is left.
    pub(super) refusal: Refusal,
    /// Members that have closed a connection that waited: a fresh one tells whether they live.
    stale: Vec<Arc<Member>>,
    was_turned_down: bool,
    /// Whether it has left an endpoint that closed a fresh connection: one may have died meanwhile, and two
    /// are no accident.
    has_left_closed: bool,
    /// How often a place turned out to be none.
    missed_places: u32,
    /// What had become of it, until it is sent once more.
    again: Option<&'static str>,
    /// Where it goes next, if that is known already.
    next: Option<Seat>,
}

/// Places that may turn out to be taken by others before a request is refused.
const MISSED_PLACES_MAX: u32 = 3;

impl Exchange<'_> {
    /// Sends the request to an endpoint of its pool and waits for the head of the answer.
    ///
    /// A connection that cannot be opened costs nothing: the next endpoint is tried. A request
    /// that was sent is sent again only if doing it twice is the same as doing it once, or if nobody has
    /// read it: once when its connection had been used before and ended without an answer, and within
    /// the pool's budget once elsewhere when a fresh one has, when its endpoint is gone, or for what the
    /// service's `retry` lists.
    ///
    /// Dropping the future gives up the request: its seat, its place in the line and its connection.
    pub(super) async fn forward(
        &mut self,
        client: &mut Client<Memory>,
        found: &mut Option<Found>,
    ) -> Result<ResponseHead, Failure> {
        let mut course = Course::new();
        loop {
            let pool = self.pool().ok_or(Failure::Refused(course.refusal))?;
            if course.tried.len() >= pool.policy().retry.tries {
                return Err(Failure::Refused(course.refusal));
            }
            let now = client.split().1.now();
            let picked = match course.next.take() {
                Some(seat) => Picked::Seat(seat),
                None => self.pick(&course.tried, false, now),
            };
            let seat = match picked {
                Picked::Seat(seat) => seat,
                Picked::Nobody => return Err(Failure::Refused(course.refusal)),
                // In a box of its own, since it is seldom needed.
                Picked::Full => Box::pin(self.wait_in_line(client, &course)).await?,
            };
            if let (Some(reason), Some(pool)) = (course.again.take(), self.pool()) {
                pool.metrics().retried(reason);
            }
            let member = Arc::clone(seat.member());
            let connections = &self.proxy.connections;
            // What was closed before may be so elsewhere too.
            let with_care = !self.ask.is_repeatable || !course.stale.is_empty();
            let waiting = match course.takes_waiting(&member) {
                true => connections.waiting(&member, self.ask.wants_websocket, with_care),
                false => None,
            };
            *found = waiting.map(|upstream| Found { upstream, member: Arc::clone(&member) });
            if found.is_none() {
                let Some(pool) = self.pool() else { return Err(Failure::Left) };
                match self.open(client, pool, &member).await? {
                    Ok(upstream) => *found = Some(Found { upstream, member }),
                    Err(error) => {
                        self.note_unopened(&mut course, &member, &error)?;
                        continue;
                    }
                }
            }
            self.sit(seat);
            let Some(Found { upstream, member }) = found else {
                return Err(Failure::Refused(course.refusal));
            };
            let answered = self.attempt(client, &mut upstream.channel, &course.tried).await;
            let (_, connection) = client.split();
            connection.end(Wait::Try);
            let member = Arc::clone(member);
            match answered {
                Ok(head) if self.is_refused_answer(&head, &mut course, &member, connection) => {
                    course.go_on(&member, Refusal::Closed, "status");
                }
                Ok(head) => return Ok(head),
                Err(Failure::Late) => {
                    upstream.distrust();
                    self.note_failure(&member, "no answer in time", connection);
                    let why = if member.is_silent() { "silent" } else { "timeout" };
                    course.go_on(&member, Refusal::Timeout, why);
                }
                Err(Failure::Closed) => {
                    let ended = Ended {
                        is_fresh: !upstream.is_reused,
                        is_unprocessed: upstream
                            .channel
                            .broken()
                            .is_some_and(Reset::is_unprocessed),
                    };
                    self.decide_on_closed(&mut course, &member, &ended, connection)?;
                }
                Err(Failure::Refused(Refusal::Protocol))
                    if self.may_leave_broken(&mut course, &member, connection) =>
                {
                    self.note_failure(&member, "an answer that is not HTTP", connection);
                    course.go_on(&member, Refusal::Protocol, "protocol");
                }
                Err(failure) => {
                    if let Failure::Refused(refusal) = &failure {
                        if *refusal == Refusal::Timeout {
                            upstream.distrust();
                        }
                        if refusal.is_upstreams() {
                            self.note_failure(&member, &refusal.to_string(), connection);
                        }
                    }
                    return Err(failure);
                }
            }
            connection.end(Wait::Answer);
            connection.end(Wait::Continue);
            *found = None;
            // Its place is free for whoever comes, itself included.
            self.stand_up();
            self.upload.rewind();
            self.sending = Sending::Going;
        }
    }

    pub(super) fn pick(&self, tried: &[Arc<Member>], is_called: bool, now: Instant) -> Picked {
        let Some(pool) = self.pool() else { return Picked::Nobody };
        let connections = &self.proxy.connections;
        let choice = Choice {
            tried,
            key: self.ask.key,
            // Also one that is not to be used again: it makes room for a fresh one.
            is_open: &|member| connections.has_waiting(member, self.ask.wants_websocket),
            is_called,
            now,
        };
        pool.pick(&choice, &mut self.proxy.random.borrow_mut())
    }

    /// Opens a connection, unless the whole exchange takes too long.
    async fn open(
        &self,
        client: &mut Client<Memory>,
        pool: &Pool,
        member: &Arc<Member>,
    ) -> Result<Result<upstream::Connection, ConnectError>, Failure> {
        let (channel, connection) = client.split();
        // In a box of its own, since it is seldom needed and large.
        let errand = Errand {
            client: connection.peer().socket_address(),
            local: connection.peer().listener().address,
            is_for_tunnel: self.ask.wants_websocket,
        };
        let now = connection.now();
        let mut opening = Box::pin(self.proxy.connections.open(pool, member, errand, now));
        poll_fn(|context| match connection.take_alarm() {
            Some(Wait::Exchange) => Poll::Ready(Err(Failure::Refused(Refusal::Timeout))),
            // A stream that was taken back holds no place any more in what its client may have.
            _ if has_left(channel, context) => Poll::Ready(Err(Failure::Left)),
            _ => opening.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// A connection could not be opened: somebody else is asked, unless that would be no better.
    fn note_unopened(
        &self,
        course: &mut Course,
        member: &Arc<Member>,
        error: &ConnectError,
    ) -> Result<(), Failure> {
        let (service, color) = self.names();
        debug!(%service, %color, %error, "next one");
        match error.reason {
            // Somebody else was quicker; it is as if it had not been chosen.
            ConnectReason::Limit => {
                course.missed_places += 1;
                if course.missed_places > MISSED_PLACES_MAX {
                    if let Some(pool) = self.pool() {
                        pool.metrics().limited(LimitHit::Queue);
                    }
                    return Err(Failure::Refused(Refusal::Overloaded));
                }
            }
            ConnectReason::Descriptors => {
                if let Some(pool) = self.pool() {
                    pool.metrics().limited(LimitHit::Descriptors);
                }
                return Err(Failure::Refused(Refusal::Overloaded));
            }
            reason => {
                course.go_on(member, Refusal::Connect(reason), "connect");
            }
        }
        Ok(())
    }

    /// A connection has ended without a byte of an answer.
    fn decide_on_closed(
        &self,
        course: &mut Course,
        member: &Arc<Member>,
        ended: &Ended,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        let Ended { is_fresh, is_unprocessed } = *ended;
        let (service, color) = self.names();
        let endpoint = member.endpoint();
        let now = connection.now();
        if is_fresh && !is_unprocessed {
            self.note_failure(member, "closed without an answer", connection);
        }
        let may_repeat = self.upload.can_rewind()
            && (self.upload.sent() == 0
                || is_unprocessed
                || !is_fresh && self.ask.is_repeatable
                || is_fresh && self.may_leave_closed(course, member) && self.withdraw(now));
        if !may_repeat {
            if let Some(suppressed) = self.proxy.said.may_say(Line::Closed, now) {
                warn!(%service, %color, %endpoint, suppressed, "closed without an answer");
            }
            return Err(Failure::Refused(Refusal::Closed));
        }
        debug!(%service, %color, %endpoint, "closed without an answer; once more");
        course.again = Some(if is_unprocessed { "unprocessed" } else { "closed" });
        if is_unprocessed && !course.was_turned_down {
            // Its connection is being ended, or has no room; the next one may do.
            course.was_turned_down = true;
        } else if is_fresh || !course.takes_waiting(member) {
            course.has_left_closed |= is_fresh;
            // It takes connections and closes them: as good as none.
            course.refusal = Refusal::Closed;
            course.tried.push(Arc::clone(member));
        }
        course.stale.push(Arc::clone(member));
        Ok(())
    }

    /// Whether a request that was closed on a fresh connection goes to somebody else: once, or as often as the
    /// service has chosen.
    fn may_leave_closed(&self, course: &Course, member: &Arc<Member>) -> bool {
        self.may_retry(|it| it.on_closed || !course.has_left_closed)
            && self.pool().is_some_and(|it| it.has_other(&course.tried, member))
    }

    /// Whether an answer is not passed on, since somebody else may have a better one.
    fn is_refused_answer(
        &self,
        head: &ResponseHead,
        course: &mut Course,
        member: &Arc<Member>,
        connection: &Connection<Memory>,
    ) -> bool {
        let Some(pool) = self.pool() else { return false };
        if pool.policy().ejection.statuses.contains(head.status) {
            self.note_failure(member, &format!("answered {}", head.status), connection);
        }
        self.may_retry(|it| it.statuses.contains(head.status))
            && self.has_alternative(course, member, connection)
    }

    /// Whether an answer that cannot be understood is as good as none.
    fn may_leave_broken(
        &self,
        course: &mut Course,
        member: &Arc<Member>,
        connection: &Connection<Memory>,
    ) -> bool {
        self.may_retry(|it| it.on_closed) && self.has_alternative(course, member, connection)
    }

    /// Whether there is somebody else to ask, with a place for this request, and a retry left for it. Both
    /// are taken then: an answer is not given up for one that may not come.
    fn has_alternative(
        &self,
        course: &mut Course,
        member: &Arc<Member>,
        connection: &Connection<Memory>,
    ) -> bool {
        let Some(pool) = self.pool() else { return false };
        let may = self.interim_count == 0
            && self.upload.can_rewind()
            && course.tried.len() + 1 < pool.policy().retry.tries
            && pool.has_other(&course.tried, member);
        if !may {
            return false;
        }
        let tried = [&course.tried[..], &[Arc::clone(member)]].concat();
        let Picked::Seat(seat) = self.pick(&tried, false, connection.now()) else {
            return false;
        };
        course.next = Some(seat).filter(|_| pool.withdraw(connection.now()));
        course.next.is_some()
    }

    /// Whether the service has chosen to try something again, and this request can be.
    fn may_retry(&self, is_chosen: impl Fn(&crate::model::Retry) -> bool) -> bool {
        self.ask.is_repeatable && self.pool().is_some_and(|it| is_chosen(&it.policy().retry))
    }

    fn withdraw(&self, now: Instant) -> bool {
        self.pool().is_some_and(|it| it.withdraw(now))
    }

    /// Notes that a request came to nothing at an endpoint, for which that is to blame.
    pub(super) fn note_failure(
        &self,
        member: &Arc<Member>,
        what: &str,
        connection: &Connection<Memory>,
    ) {
        if let Some(pool) = self.pool() {
            pool.failed(member, what, connection.now());
        }
    }
}

/// How a connection has ended on which no byte of an answer came.
struct Ended {
    /// Whether the request was the first one on it.
    is_fresh: bool,
    /// Whether the endpoint says that it has not begun with it.
    is_unprocessed: bool,
}

// === impl Course ===

impl Course {
    fn new() -> Self {
        Self {
            tried: Vec::new(),
            refusal: Refusal::NoEndpoint,
            stale: Vec::new(),
            has_left_closed: false,
            was_turned_down: false,
            missed_places: 0,
            again: None,
            next: None,
        }
    }

    /// Whether a connection that waits for a request may be used.
    fn takes_waiting(&self, member: &Arc<Member>) -> bool {
        !self.stale.iter().any(|it| Arc::ptr_eq(it, member))
    }

    /// To somebody else, and why.
    fn go_on(&mut self, member: &Arc<Member>, refusal: Refusal, why: &'static str) {
        self.tried.push(Arc::clone(member));
        (self.refusal, self.again) = (refusal, Some(why));
    }
}
