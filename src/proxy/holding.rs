//! A request that is not admitted now: it waits until its service takes requests again, or gets an answer of Flipgate.
//!
//! It has no claim. When its hold lets it go, it is decided on again, with the table of that moment. All of this is boxed:
//! a request that is not kept back does not have it.

use std::{
    future::poll_fn,
    num::NonZeroU32,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    detached::Detached,
    error::ProxyError,
    error_page::{AcceptedFormats, ChosenPage},
    headers::FlipgateHeaders,
    intake::{Keeper, KeptBack},
    local_reply::{LocalReply, ReplyContext, may_keep_alive},
    peer_cache::PeerCache,
    request_record::RequestRecord,
    request_traits::RequestTraits,
    stream_refusal::{refuse_stream, wants_events},
    upload::{AHEAD_MAX, Upload, client_has_left},
    worker::Proxy,
};
use crate::{
    continuity::{Entry, Hold, HoldTicket, Maintenance, Turn},
    downstream::{AfterExchange, ClientConnection, ClientStream, Timeout},
    http1::{Framing, RequestHead},
    metrics::Outcome,
    model::{ErrorPage, ServiceName},
    net::HttpStream,
    upstream::Pool,
};

/// A request that is not admitted now.
pub(super) struct KeptRequest<'a> {
    count: KeptCount<'a>,
    traits: RequestTraits,
    head: RequestHead,
    by: Keeper,
    client: Option<std::net::IpAddr>,
}

/// Counts the request when it is dropped, with the active color of its service, unless it goes on.
struct KeptCount<'a> {
    proxy: &'a Proxy,
    record: RequestRecord,
    service: ServiceName,
    /// Whether it waits: if it is dropped then, its client has left.
    is_waiting: bool,
}

/// Serves a request that waits no longer, by the table of now. It passes the hold that has let it go.
pub(super) type Resume = for<'a> fn(
    &'a Proxy,
    &'a mut ClientStream<PeerCache>,
    RequestHead,
    Option<&Arc<Hold>>,
) -> ExchangeFuture<'a>;

pub(super) type ExchangeFuture<'a> = Pin<Box<dyn Future<Output = AfterExchange<Detached>> + 'a>>;

/// How the waiting ended.
enum Waited {
    /// It is its turn.
    Go,
    /// Flipgate stops.
    Refused,
    /// The client has left.
    Left,
}

/// Memory that a held request takes at least: its buffer.
const BYTES_MIN: usize = AHEAD_MAX;

/// Memory for content that a held HTTP/2 client may send meanwhile, by its window.
const STREAM_BYTES: usize = 64 * 1024;

/// The time between two checks whether a client has closed its connection, of which no more bytes are read.
const HANG_UP_CHECK: Duration = Duration::from_millis(500);

// === impl KeptRequest ===

impl<'a> KeptRequest<'a> {
    pub(super) fn new(
        proxy: &'a Proxy,
        record: RequestRecord,
        traits: RequestTraits,
        head: RequestHead,
        kept: KeptBack,
    ) -> Self {
        let KeptBack { service, by, client } = kept;
        Self {
            count: KeptCount { proxy, record, service, is_waiting: false },
            traits,
            head,
            by,
            client,
        }
    }

    /// Waits or responds. Dropping the future gives the place up; the connection is not usable then, if the response has
    /// begun.
    pub(super) fn run(
        self,
        client: &'a mut ClientStream<PeerCache>,
        resume: Resume,
    ) -> ExchangeFuture<'a> {
        Box::pin(async move {
            client.split().1.disarm(Timeout::Exchange);
            match &self.by {
                Keeper::Maintenance(maintenance) => {
                    let maintenance = Arc::clone(maintenance);
                    self.refuse_in_maintenance(client, &maintenance).await
                }
                Keeper::Hold(hold) => {
                    let hold = Arc::clone(hold);
                    self.hold(client, &hold, resume).await
                }
            }
        })
    }

    async fn refuse_in_maintenance(
        self,
        client: &mut ClientStream<PeerCache>,
        maintenance: &Maintenance,
    ) -> AfterExchange<Detached> {
        self.count.proxy.metrics.maintenance_refused(&self.count.service);
        let retry_after = maintenance.retry_after;
        if self.wants_events(client) {
            let retry = Duration::from_secs(retry_after.get().into());
            return self.refuse_stream(client, retry).await;
        }
        let html = maintenance.page.clone().map(|it| Bytes::from_owner(Page(it)));
        self.refuse(client, ProxyError::Maintenance(retry_after), html).await
    }

    async fn hold(
        mut self,
        client: &'a mut ClientStream<PeerCache>,
        hold: &Arc<Hold>,
        resume: Resume,
    ) -> AfterExchange<Detached> {
        if self.wants_events(client) {
            self.note("stream");
            let retry = hold.retry_after(Instant::now());
            return self.refuse_stream(client, retry).await;
        }
        let ticket = match hold.enter(self.client, self.bytes(client), Instant::now()) {
            Entry::Open => None,
            Entry::Wait(ticket) => {
                self.count.is_waiting = true;
                let waited = wait(client, &ticket).await;
                self.count.is_waiting = matches!(waited, Waited::Left);
                match waited {
                    Waited::Go => self.note("released"),
                    Waited::Refused => return self.refuse_held(client, hold).await,
                    Waited::Left => return AfterExchange::Cut,
                }
                Some(ticket)
            }
            Entry::Refused => return self.refuse_held(client, hold).await,
        };
        let Self { mut count, head, .. } = self;
        // From here on it is counted as any other request.
        count.record.discard();
        let proxy = count.proxy;
        client.split().1.disarm_all();
        // The next request goes when this one is admitted. One that did not have to wait has to if the hold has begun anew.
        let exchange = resume(proxy, client, head, ticket.as_ref().map(HoldTicket::hold));
        drop(ticket);
        drop(count);
        exchange.await
    }

    async fn refuse_held(
        self,
        client: &mut ClientStream<PeerCache>,
        hold: &Hold,
    ) -> AfterExchange<Detached> {
        self.note("refused");
        let seconds = hold.retry_after(Instant::now()).as_secs_f64().ceil();
        // A hold is far shorter than the range of the number.
        let seconds = NonZeroU32::new(seconds as u32).unwrap_or(NonZeroU32::MIN);
        self.refuse(client, ProxyError::Held(seconds), None).await
    }

    /// Responds with 503: with this page or that of the service, if the client accepts it.
    async fn refuse(
        mut self,
        client: &mut ClientStream<PeerCache>,
        error: ProxyError,
        html: Option<Bytes>,
    ) -> AfterExchange<Detached> {
        let channel = client.split().0;
        let accepts = AcceptedFormats::of_head(&channel.unread()[..self.head.len]);
        let pool = self.count.pool();
        let (status, page) = (error.status().0.as_u16(), self.page(pool.as_deref(), accepts, html));
        if let (Some(pool), Some(reason)) = (&pool, error.reason()) {
            pool.metrics().proxy_error(reason);
        }
        self.count.record.set_outcome(status, Outcome::Excluded);
        let mut upload = Upload::to_discard(channel, &self.head);
        let headers = FlipgateHeaders::default();
        let context = ReplyContext { interim: Vec::new(), headers, location: None, page };
        LocalReply::new(error, &self.traits, &mut upload, context, client).send(client).await
    }

    fn page(
        &self,
        pool: Option<&Pool>,
        accepts: AcceptedFormats,
        html: Option<Bytes>,
    ) -> Option<ChosenPage> {
        if self.traits.is_grpc {
            return None;
        }
        let pages = pool.and_then(|it| it.policy().error_pages.as_deref());
        let own = pages.and_then(|it| it.get(503)).cloned().unwrap_or_default();
        let page = ErrorPage { html: html.or(own.html), json: own.json };
        accepts.choose(&page)
    }

    /// Accepts an event stream, says when to come again, and ends it: a browser gives up for ever on any other status.
    async fn refuse_stream(
        mut self,
        client: &mut ClientStream<PeerCache>,
        retry: Duration,
    ) -> AfterExchange<Detached> {
        self.count.record.set_outcome(200, Outcome::Excluded);
        let mut upload = Upload::to_discard(client.split().0, &self.head);
        let keeps_alive = may_keep_alive(&self.traits, &mut upload, client);
        let spread = self.count.proxy.random.borrow_mut().u32(0..2000);
        let retry = retry + Duration::from_millis(spread.into());
        let connection = client.split().1;
        let (head, content) = refuse_stream(&self.traits, connection, keeps_alive, retry);
        LocalReply::of(head, content, keeps_alive).send(client).await
    }

    fn wants_events(&self, client: &mut ClientStream<PeerCache>) -> bool {
        wants_events(&self.head, client.split().0.unread())
    }

    /// The memory that it takes while it waits.
    fn bytes(&self, client: &mut ClientStream<PeerCache>) -> usize {
        let channel = client.split().0;
        let is_content_coming = self.head.framing != Framing::None;
        let window = if channel.is_stream() && is_content_coming { STREAM_BYTES } else { 0 };
        channel.unread().len().max(BYTES_MIN) + window
    }

    fn note(&self, result: &'static str) {
        let KeptCount { proxy, service, .. } = &self.count;
        proxy.metrics.hold_request(service, result);
    }
}

/// Waits until it is the request's turn, or nothing is left to wait for. Reads no more of the request than fits its
/// buffer, so no `100 Continue` is sent.
async fn wait(client: &mut ClientStream<PeerCache>, ticket: &HoldTicket) -> Waited {
    let (channel, connection) = client.split();
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let mut hang_up = pin!(tokio::time::sleep(HANG_UP_CHECK));
    poll_fn(|context| {
        if has_left(channel, context, connection) {
            return Poll::Ready(Waited::Left);
        }
        loop {
            let until = match ticket.poll_turn(context.waker(), Instant::now()) {
                Turn::Go => return Poll::Ready(Waited::Go),
                Turn::Refused => return Poll::Ready(Waited::Refused),
                Turn::Wait(until) => until,
            };
            let Some(until) = until else { break };
            timer.as_mut().reset(until.into());
            if timer.as_mut().poll(context).is_pending() {
                break;
            }
        }
        // Only a client of which no more is read has to be asked: this one costs a timer.
        if let HttpStream::Socket(socket) = channel
            && socket.unread().len() >= AHEAD_MAX
        {
            while hang_up.as_mut().poll(context).is_ready() {
                connection.track(Timeout::HalfClosed, socket.has_hung_up(), false);
                hang_up.as_mut().reset((Instant::now() + HANG_UP_CHECK).into());
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether the client has left. One that has only closed its sending side gets a moment, as everywhere.
fn has_left(
    channel: &mut HttpStream,
    context: &mut Context<'_>,
    connection: &ClientConnection<PeerCache>,
) -> bool {
    if channel.is_stream() {
        return client_has_left(channel, context);
    }
    while channel.unread().len() < AHEAD_MAX {
        match channel.poll_read(context, AHEAD_MAX) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0)) => {
                // Not again for each wake, or it would never expire.
                connection.track(Timeout::HalfClosed, true, false);
                return false;
            }
            Poll::Ready(Err(_)) => return true,
            Poll::Pending => return false,
        }
    }
    false
}

/// A page as bytes, shared by all that get it.
struct Page(Arc<str>);

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

// === impl KeptCount ===

impl KeptCount<'_> {
    /// The active pool of the service, if it is still configured.
    fn pool(&self) -> Option<Arc<Pool>> {
        self.proxy.switch.read(|table| {
            let service = table.service(&self.service)?;
            Some(Arc::clone(service.side(service.active()).pool()))
        })
    }
}

impl Drop for KeptCount<'_> {
    fn drop(&mut self) {
        if self.is_waiting {
            self.proxy.metrics.hold_request(&self.service, "left");
        }
        match self.pool() {
            Some(pool) => self.record.count(pool.metrics(), || (None, false)),
            None => self.record.count(&self.proxy.unrouted, || (None, false)),
        }
    }
}
