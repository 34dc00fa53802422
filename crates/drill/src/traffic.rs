//! The kinds of requests: what each sends, and the response that it must get.

mod clients;
mod frames;
mod messages;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub(super) use self::clients::page_time;
use self::{
    frames::WatchedFrames,
    messages::{
        BODY_MAX, check_head, color_of, digest_of, get, header_number, instance_of, payload_of,
        read_body, record_head, slow_body,
    },
};
use super::{
    connector::{Connector, IdleConnections},
    live::LiveCounters,
    record::{Kind, Outcome, Request},
};
use crate::{
    sample::{self, Content, now_ns},
    {color::Color, protocol::Protocol},
};
use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::client::generate_key,
        protocol::{Role, frame::coding::CloseCode},
    },
};

/// The sizes and the duration of streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) download_bytes: u64,
    pub(super) upload_bytes: u64,
    pub(super) stream_time: Duration,
    /// Whether WebSockets may be closed after a flip.
    pub(super) has_reconnects: bool,
}

/// Connectors and idle connections of one service, for public clients and for testers.
#[derive(Debug)]
pub(super) struct ServiceAddresses {
    public: (Connector, IdleConnections),
    tester: (Connector, IdleConnections),
}

/// The clients of one thread.
pub(super) struct ThreadClients {
    addresses: Vec<ServiceAddresses>,
    sizes: Sizes,
    next_id: Cell<u64>,
    random: RefCell<fastrand::Rng>,
    live: Arc<LiveCounters>,
    /// All requests that have ended.
    pub(super) requests: RefCell<Vec<Request>>,
}

/// The path of a WebSocket that sends each message as two frames, with a pause between them.
const FRAGMENTED: &str = "/traffic/ws?pause_ms=10";

/// The timeout of a response, beyond the duration of a stream.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// The timeout of the first response.
const FIRST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The size of a short response.
const SHORT_BYTES: usize = 128;

/// The time between two chunks of an upload, and between two messages of a WebSocket.
const CHUNK_INTERVAL: Duration = Duration::from_millis(50);

/// How many times as long a WebSocket takes if it may be closed: proxies do not close at once.
const RECONNECT_TIMES: u32 = 5;

// === impl Sizes ===

impl Sizes {
    fn websocket_time(&self) -> Duration {
        match self.has_reconnects {
            true => self.stream_time * RECONNECT_TIMES,
            false => self.stream_time,
        }
    }
}

// === impl ServiceAddresses ===

impl ServiceAddresses {
    pub(super) fn new(public: Connector, tester: Connector) -> Self {
        Self {
            public: (public, IdleConnections::default()),
            tester: (tester, IdleConnections::default()),
        }
    }
}

// === impl ThreadClients ===

impl ThreadClients {
    /// The clients of a thread, which numbers its requests.
    pub(super) fn new(
        thread: u64,
        addresses: Vec<ServiceAddresses>,
        sizes: Sizes,
        seed: u64,
        live: Arc<LiveCounters>,
    ) -> Self {
        Self {
            addresses,
            sizes,
            next_id: Cell::new(first_id()),
            random: RefCell::new(fastrand::Rng::with_seed(seed ^ thread)),
            live,
            requests: RefCell::default(),
        }
    }

    /// Sends a request of a kind, which was due at `due`, and records its outcome. If dropped, nothing is recorded.
    pub(super) async fn run(self: Rc<Self>, kind: Kind, due: u64) {
        let service = self.random.borrow_mut().usize(..self.addresses.len());
        match kind {
            Kind::Scan => return self.scan(service, due).await,
            Kind::Page => return self.page(service, due).await,
            Kind::Visitor => return self.visitor(service, due).await,
            Kind::Ws => return self.websockets(service, due).await,
            _ => {}
        }
        self.run_one(kind, service, due).await;
        if kind == Kind::Pair {
            let other = (service + 1) % self.addresses.len();
            self.run_one(kind, other, now_ns()).await;
        }
    }

    /// Records a request that was due and could not be sent.
    pub(super) fn record_not_sent(&self, kind: Kind, due: u64) {
        let mut request = self.request(kind, 0, due);
        request.outcome = Outcome::NotSent;
        self.record(request);
    }

    async fn run_one(&self, kind: Kind, service: usize, due: u64) {
        let mut request = self.request(kind, service, due);
        let limit = RESPONSE_TIMEOUT + self.sizes.stream_time;
        let end = timeout(limit, Box::pin(self.attempt(&mut request, service))).await;
        self.end(request, end.unwrap_or(Err(Outcome::TimedOut)));
    }

    /// Records how a request has ended.
    fn end(&self, mut request: Request, end: Result<(), Outcome>) {
        request.outcome = end.err().unwrap_or(Outcome::Complete);
        request.ended = now_ns();
        self.record(request);
    }

    /// A WebSocket for the time of a stream. If the proxy asks for it, the client connects again, and goes on with the
    /// first message that has no echo.
    async fn websockets(&self, service: usize, mut due: u64) {
        let (began, mut number) = (Instant::now(), 0);
        let (connector, _) = &self.addresses[service].public;
        loop {
            let mut request = self.request(Kind::Ws, service, due);
            let limit = RESPONSE_TIMEOUT + self.sizes.websocket_time();
            let stream = Box::pin(self.websocket(connector, &mut request, began, &mut number));
            let end = timeout(limit, stream).await.unwrap_or(Err(Outcome::TimedOut));
            let is_moved = request.moved != 0 && end.is_ok();
            self.end(request, end);
            if !is_moved {
                return;
            }
            due = now_ns();
        }
    }

    fn request(&self, kind: Kind, service: usize, due: u64) -> Request {
        let (id, now) = (self.next_id.get(), now_ns());
        self.next_id.set(id + 1);
        Request {
            id,
            transaction: 0,
            client: 0,
            service: u8::try_from(service).unwrap_or(u8::MAX),
            kind,
            outcome: Outcome::Complete,
            color: None,
            instance: 0,
            due,
            began: now,
            received: 0,
            head: 0,
            ended: now,
            active_at: 0,
            moved: 0,
        }
    }

    fn record(&self, request: Request) {
        self.live.count(&request);
        self.requests.borrow_mut().push(request);
    }

    async fn attempt(&self, request: &mut Request, service: usize) -> Result<(), Outcome> {
        let ServiceAddresses { public, tester } = &self.addresses[service];
        let (connector, idle) = if request.kind == Kind::Preview { tester } else { public };
        match request.kind {
            Kind::Upload => self.upload(connector, idle, request).await,
            Kind::Download => self.download(connector, idle, request).await,
            Kind::Sse => self.event_stream(connector, idle, request).await,
            Kind::Short
            | Kind::Pair
            | Kind::RefusedPreview
            | Kind::Preview
            | Kind::Ws
            | Kind::Scan
            | Kind::Page
            | Kind::Visitor => short(connector, idle, request).await,
        }
    }

    async fn download(
        &self,
        connector: &Connector,
        idle: &IdleConnections,
        request: &mut Request,
    ) -> Result<(), Outcome> {
        let Sizes { download_bytes: bytes, stream_time, .. } = self.sizes;
        let path = format!("/traffic/download?bytes={bytes}&ms={}", stream_time.as_millis());
        let mut http_request =
            connector.request("GET", &path).header(sample::ID, request.id).header("te", "trailers");
        if connector.protocol == Protocol::Http1 {
            // RFC 9110, section 10.1.4.
            http_request = http_request.header(header::CONNECTION, "te");
        }
        let http_request =
            http_request.body(Empty::new().boxed_unsync()).map_err(|_| Outcome::NotSent)?;
        let (response, connection) = connector.send(idle, http_request).await?;
        let instance = instance_of(response.headers()).map(str::to_owned);
        let mut body = check_head(request, response)?;
        let (mut content, mut trailers) = (Content::of(request.id), None);
        while let Some(frame) = body.frame().await {
            match frame.map_err(|_| Outcome::Truncated)?.into_data() {
                Ok(data) if content.matches_next(&data) && content.taken() <= bytes => {}
                Ok(_) => return Err(Outcome::Corrupted),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        if content.taken() < bytes {
            return Err(Outcome::Truncated);
        }
        idle.put_back(connection, connector);
        let trailers = trailers.ok_or(Outcome::TrailersLost)?;
        request.active_at = header_number(&trailers, sample::ENDED).ok_or(Outcome::TrailersLost)?;
        match trailers.get(sample::DIGEST) {
            Some(digest) if *digest == digest_of(request.id, bytes) => {}
            _ => return Err(Outcome::Corrupted),
        }
        match (instance, instance_of(&trailers)) {
            (Some(first), Some(last)) if first != last => Err(Outcome::EndpointChanged),
            _ => Ok(()),
        }
    }

    async fn upload(
        &self,
        connector: &Connector,
        idle: &IdleConnections,
        request: &mut Request,
    ) -> Result<(), Outcome> {
        let Sizes { upload_bytes: bytes, stream_time, .. } = self.sizes;
        let http_request =
            connector.request("POST", "/traffic/upload").header(sample::ID, request.id);
        let http_request = http_request
            .body(slow_body(request.id, bytes, stream_time))
            .map_err(|_| Outcome::NotSent)?;
        let (response, connection) = connector.send(idle, http_request).await?;
        let headers = response.headers().clone();
        let body = check_head(request, response)?;
        request.active_at = header_number(&headers, sample::ENDED).unwrap_or_default();
        read_body(body).await?;
        idle.put_back(connection, connector);
        let is_whole = header_number(&headers, sample::BYTES) == Some(bytes)
            && headers.get(sample::DIGEST).is_some_and(|it| *it == digest_of(request.id, bytes));
        if is_whole { Ok(()) } else { Err(Outcome::Corrupted) }
    }

    async fn event_stream(
        &self,
        connector: &Connector,
        idle: &IdleConnections,
        request: &mut Request,
    ) -> Result<(), Outcome> {
        let path = format!("/traffic/events?ms={}", self.sizes.stream_time.as_millis());
        let (response, connection) = get(connector, idle, &path, request.id, &[]).await?;
        let instance = instance_of(response.headers()).map(str::to_owned);
        let mut body = check_head(request, response)?;
        let color = request.color.ok_or(Outcome::UnknownResponder)?;
        let (mut text, mut next, mut is_over) = (String::new(), 0_u64, false);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Outcome::Truncated)?.into_data() else { continue };
            text.push_str(std::str::from_utf8(&data).map_err(|_| Outcome::Corrupted)?);
            if text.len() > BODY_MAX {
                return Err(Outcome::Corrupted);
            }
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let field = |name| event.lines().find_map(|it| it.strip_prefix(name));
                let data = field("data: ").ok_or(Outcome::Corrupted)?;
                let stamp = payload_of(data, color, instance.as_deref())?;
                if field("id: ").and_then(|it| it.parse().ok()) != Some(next) || is_over {
                    return Err(Outcome::Corrupted);
                }
                request.active_at = stamp.parse().map_err(|_| Outcome::Corrupted)?;
                next += 1;
                is_over = field("event: ") == Some("end");
            }
        }
        if !is_over {
            return Err(Outcome::Truncated);
        }
        idle.put_back(connection, connector);
        Ok(())
    }

    /// A WebSocket on a new HTTP/1.1 connection: a message and its echo at each interval since `began`, from number `next`
    /// on, and a closing handshake. The proxy may close it between two messages.
    async fn websocket(
        &self,
        connector: &Connector,
        request: &mut Request,
        began: Instant,
        next: &mut u32,
    ) -> Result<(), Outcome> {
        let own = Connector { protocol: Protocol::Http1, ..connector.clone() };
        let path = if self.sizes.has_reconnects { FRAGMENTED } else { "/traffic/ws" };
        let mut sender = own.open().await?;
        let http_request = own
            .request("GET", path)
            .header(sample::ID, request.id)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key());
        let http_request =
            http_request.body(Empty::new().boxed_unsync()).map_err(|_| Outcome::NotSent)?;
        let mut response =
            sender.send_request(http_request).await.map_err(|_| Outcome::NoResponse)?;
        record_head(request, response.headers());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Outcome::ErrorStatus(response.status().as_u16()));
        }
        let color = request.color.ok_or(Outcome::UnknownResponder)?;
        let instance = instance_of(response.headers()).map(str::to_owned);
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(|_| Outcome::Truncated)?;
        let io = WatchedFrames::new(TokioIo::new(upgraded));
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        loop {
            let number = *next;
            let at = CHUNK_INTERVAL * number;
            if at > self.sizes.websocket_time() {
                break;
            }
            tokio::time::sleep_until(began + at).await;
            let sent = now_ns();
            let is_sent = socket.send(Message::text(number.to_string())).await;
            let echo = loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => break text,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(Some(close))))
                        if self.sizes.has_reconnects && is_move(close.code) =>
                    {
                        if socket.get_ref().is_message_open() {
                            return Err(Outcome::MessageCut);
                        }
                        request.moved = now_ns();
                        // The library answers it with the next flush.
                        let _ = socket.flush().await;
                        return Ok(());
                    }
                    _ => return Err(Outcome::Truncated),
                }
            };
            is_sent.map_err(|_| Outcome::Truncated)?;
            // The echo proves that the application handled the WebSocket after this message was sent.
            request.active_at = sent;
            if payload_of(&echo, color, instance.as_deref())? != number.to_string() {
                return Err(Outcome::Corrupted);
            }
            *next += 1;
        }
        socket.close(None).await.map_err(|_| Outcome::Truncated)?;
        // The closing handshake. How the connection ends after it does not matter.
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) => return Err(Outcome::Corrupted),
                Some(Err(_)) | None => return Err(Outcome::Truncated),
            }
        }
    }
}

/// Whether a client that gets this code connects again: RFC 6455, section 7.4.1, and the registry of codes.
fn is_move(code: CloseCode) -> bool {
    matches!(code, CloseCode::Restart | CloseCode::Away)
}

/// The first of a trillion numbers that no other thread of this process uses.
fn first_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed) << 40
}

/// A short request, with a preview header or cookie for both kinds of previews.
async fn short(
    connector: &Connector,
    idle: &IdleConnections,
    request: &mut Request,
) -> Result<(), Outcome> {
    let id = request.id;
    let color = if id.is_multiple_of(2) { Color::Green } else { Color::Blue };
    let cookie = format!("flipgate_preview={color}");
    let header = ("flipgate-preview", color.as_str());
    let headers = [
        &[header][..],
        &[("cookie", cookie.as_str())],
        &[header, ("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1")],
    ];
    let headers_sent = match request.kind {
        Kind::RefusedPreview => headers[usize::try_from(id / 2 % 3).unwrap_or_default()],
        Kind::Preview => headers[usize::try_from(id / 2 % 2).unwrap_or_default()],
        _ => &[],
    };
    let (response, connection) = get(connector, idle, "/traffic/short", id, headers_sent).await?;
    request.active_at = header_number(response.headers(), sample::ENDED).unwrap_or_default();
    let body = read_body(check_head(request, response)?).await?;
    idle.put_back(connection, connector);
    let mut content = Content::of(id);
    if body.len() != SHORT_BYTES || !content.matches_next(&body) {
        return Err(Outcome::Corrupted);
    }
    match request.kind {
        Kind::Preview if request.color != Some(color) => Err(Outcome::WrongColor),
        _ => Ok(()),
    }
}

/// Sends a short request, and returns the color of the response.
pub(super) async fn first_color(connector: &Connector) -> Result<Color, Outcome> {
    let (response, _connection) = timeout(
        FIRST_RESPONSE_TIMEOUT,
        get(connector, &IdleConnections::default(), "/traffic/short", 0, &[]),
    )
    .await
    .map_err(|_| Outcome::TimedOut)??;
    if response.status() != StatusCode::OK {
        return Err(Outcome::ErrorStatus(response.status().as_u16()));
    }
    color_of(response.headers()).ok_or(Outcome::UnknownResponder)
}
