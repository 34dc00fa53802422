//! The kinds of traffic: what each sends, and what it must get.

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

use self::messages::{
    BODY_MAX, color_of, digest_of, get, head, instance_of, note_head, number, read, rest_of, slowly,
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
    tungstenite::{Message, handshake::client::generate_key, protocol::Role},
};

/// How large and how long what takes its time is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) download_bytes: u64,
    pub(super) upload_bytes: u64,
    pub(super) stream_time: Duration,
}

/// Where one service is asked, by the public and by testers.
#[derive(Debug)]
pub(super) struct ServiceAddresses {
    public: (Connector, IdleConnections),
    tester: (Connector, IdleConnections),
}

/// The clients of one thread.
pub(super) struct ThreadClients {
    entrances: Vec<ServiceAddresses>,
    sizes: Sizes,
    next_id: Cell<u64>,
    random: RefCell<fastrand::Rng>,
    live: Arc<LiveCounters>,
    /// What they saw.
    pub(super) seen: RefCell<Vec<Request>>,
}

/// How long an answer may take beyond the time that was asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the very first answer may take.
const FIRST: Duration = Duration::from_secs(2);

/// Bytes of a short answer.
const SHORT: usize = 128;

/// The time between two pieces of an upload, and two messages of a WebSocket.
const BEAT: Duration = Duration::from_millis(50);

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
    /// The clients of the thread `thread`; each has numbers of its own.
    pub(super) fn new(
        thread: u64,
        entrances: Vec<ServiceAddresses>,
        sizes: Sizes,
        seed: u64,
        live: Arc<LiveCounters>,
    ) -> Self {
        Self {
            entrances,
            sizes,
            next_id: Cell::new(first_id()),
            random: RefCell::new(fastrand::Rng::with_seed(seed ^ thread)),
            live,
            seen: RefCell::default(),
        }
    }

    /// Makes one request of a kind, which was due at `due`, and notes how it went. Dropped, it is not
    /// noted.
    pub(super) async fn run(self: Rc<Self>, kind: Kind, due: u64) {
        let service = self.random.borrow_mut().usize(..self.entrances.len());
        self.one(kind, service, due).await;
        if kind == Kind::Pair {
            let other = (service + 1) % self.entrances.len();
            self.one(kind, other, now_ns()).await;
        }
    }

    /// Notes one that was due and could not be sent.
    pub(super) fn leave_out(&self, kind: Kind, due: u64) {
        let mut request = self.request(kind, 0, due);
        request.outcome = Outcome::Unsent;
        self.note(request);
    }

    async fn one(&self, kind: Kind, service: usize, due: u64) {
        let mut request = self.request(kind, service, due);
        let limit = PATIENCE + self.sizes.stream_time;
        let end = timeout(limit, Box::pin(self.attempt(&mut request, service))).await;
        request.outcome = match end {
            Ok(Ok(())) => Outcome::Whole,
            Ok(Err(outcome)) => outcome,
            Err(_) => Outcome::Late,
        };
        request.ended = now_ns();
        self.note(request);
    }

    fn request(&self, kind: Kind, service: usize, due: u64) -> Request {
        let (id, now) = (self.next_id.get(), now_ns());
        self.next_id.set(id + 1);
        Request {
            id,
            service: u8::try_from(service).unwrap_or(u8::MAX),
            kind,
            outcome: Outcome::Whole,
            color: None,
            instance: 0,
            due,
            began: now,
            met: 0,
            head: 0,
            ended: now,
            alive: 0,
        }
    }

    fn note(&self, request: Request) {
        self.live.count(&request);
        self.seen.borrow_mut().push(request);
    }

    async fn attempt(&self, request: &mut Request, service: usize) -> Result<(), Outcome> {
        let ServiceAddresses { public, tester } = &self.entrances[service];
        let (door, idle) = if request.kind == Kind::Preview { tester } else { public };
        match request.kind {
            Kind::Ws => self.websocket(door, request).await,
            Kind::Upload => self.upload(door, idle, request).await,
            Kind::Download => self.download(door, idle, request).await,
            Kind::Sse => self.events(door, idle, request).await,
            Kind::Short | Kind::Pair | Kind::RefusedPreview | Kind::Preview => {
                short(door, idle, request).await
            }
        }
    }

    async fn download(
        &self,
        door: &Connector,
        idle: &IdleConnections,
        request: &mut Request,
    ) -> Result<(), Outcome> {
        let Sizes { download_bytes: bytes, stream_time, .. } = self.sizes;
        let path = format!("/traffic/download?bytes={bytes}&ms={}", stream_time.as_millis());
        let mut asking =
            door.request("GET", &path).header(sample::ID, request.id).header("te", "trailers");
        if door.protocol == Protocol::Http1 {
            // RFC 9110, section 10.1.4.
            asking = asking.header(header::CONNECTION, "te");
        }
        let asking = asking.body(Empty::new().boxed_unsync()).map_err(|_| Outcome::Unsent)?;
        let (answer, lent) = door.ask(idle, asking).await?;
        let instance = instance_of(answer.headers()).map(str::to_owned);
        let mut body = head(request, answer)?;
        let (mut content, mut trailers) = (Content::of(request.id), None);
        while let Some(frame) = body.frame().await {
            match frame.map_err(|_| Outcome::Cut)?.into_data() {
                Ok(data) if content.goes_on_with(&data) && content.taken() <= bytes => {}
                Ok(_) => return Err(Outcome::Altered),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        if content.taken() < bytes {
            return Err(Outcome::Cut);
        }
        idle.give_back(lent, door);
        let trailers = trailers.ok_or(Outcome::Untrailed)?;
        request.alive = number(&trailers, sample::ENDED).ok_or(Outcome::Untrailed)?;
        match trailers.get(sample::DIGEST) {
            Some(digest) if *digest == digest_of(request.id, bytes) => {}
            _ => return Err(Outcome::Altered),
        }
        match (instance, instance_of(&trailers)) {
            (Some(first), Some(last)) if first != last => Err(Outcome::Moved),
            _ => Ok(()),
        }
    }

    async fn upload(
        &self,
        door: &Connector,
        idle: &IdleConnections,
        request: &mut Request,
    ) -> Result<(), Outcome> {
        let Sizes { upload_bytes: bytes, stream_time, .. } = self.sizes;
        let asking = door.request("POST", "/traffic/upload").header(sample::ID, request.id);
        let asking =
            asking.body(slowly(request.id, bytes, stream_time)).map_err(|_| Outcome::Unsent)?;
        let (answer, lent) = door.ask(idle, asking).await?;
        let headers = answer.headers().clone();
        let body = head(request, answer)?;
        request.alive = number(&headers, sample::ENDED).unwrap_or_default();
        read(body).await?;
        idle.give_back(lent, door);
        let is_whole = number(&headers, sample::BYTES) == Some(bytes)
            && headers.get(sample::DIGEST).is_some_and(|it| *it == digest_of(request.id, bytes));
        if is_whole { Ok(()) } else { Err(Outcome::Altered) }
    }

    async fn events(
        &self,
        door: &Connector,
        idle: &IdleConnections,
        request: &mut Request,
    ) -> Result<(), Outcome> {
        let path = format!("/traffic/events?ms={}", self.sizes.stream_time.as_millis());
        let (answer, lent) = get(door, idle, &path, request.id, &[]).await?;
        let instance = instance_of(answer.headers()).map(str::to_owned);
        let mut body = head(request, answer)?;
        let color = request.color.ok_or(Outcome::Foreign)?;
        let (mut text, mut next, mut is_over) = (String::new(), 0_u64, false);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Outcome::Cut)?.into_data() else { continue };
            text.push_str(std::str::from_utf8(&data).map_err(|_| Outcome::Altered)?);
            if text.len() > BODY_MAX {
                return Err(Outcome::Altered);
            }
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let field = |name| event.lines().find_map(|it| it.strip_prefix(name));
                let data = field("data: ").ok_or(Outcome::Altered)?;
                let stamp = rest_of(data, color, instance.as_deref())?;
                if field("id: ").and_then(|it| it.parse().ok()) != Some(next) || is_over {
                    return Err(Outcome::Altered);
                }
                request.alive = stamp.parse().map_err(|_| Outcome::Altered)?;
                next += 1;
                is_over = field("event: ") == Some("end");
            }
        }
        if !is_over {
            return Err(Outcome::Cut);
        }
        idle.give_back(lent, door);
        Ok(())
    }

    /// A connection of its own, over HTTP/1.1: a message and its echo for each beat, and a clean end.
    async fn websocket(&self, door: &Connector, request: &mut Request) -> Result<(), Outcome> {
        let own = Connector { protocol: Protocol::Http1, ..door.clone() };
        let mut sender = own.open().await?;
        let asking = own
            .request("GET", "/traffic/ws")
            .header(sample::ID, request.id)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key());
        let asking = asking.body(Empty::new().boxed_unsync()).map_err(|_| Outcome::Unsent)?;
        let mut answer = sender.send_request(asking).await.map_err(|_| Outcome::Unanswered)?;
        note_head(request, answer.headers());
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Outcome::Refused(answer.status().as_u16()));
        }
        let color = request.color.ok_or(Outcome::Foreign)?;
        let instance = instance_of(answer.headers()).map(str::to_owned);
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|_| Outcome::Cut)?;
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let began = Instant::now();
        for beat in 0.. {
            let at = BEAT * beat;
            if at > self.sizes.stream_time {
                break;
            }
            tokio::time::sleep_until(began + at).await;
            let sent = now_ns();
            socket.send(Message::text(beat.to_string())).await.map_err(|_| Outcome::Cut)?;
            let echo = loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => break text,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _ => return Err(Outcome::Cut),
                }
            };
            // It was alive when this message left: its echo came.
            request.alive = sent;
            if rest_of(&echo, color, instance.as_deref())? != beat.to_string() {
                return Err(Outcome::Altered);
            }
        }
        socket.close(None).await.map_err(|_| Outcome::Cut)?;
        // The answer to the close. How the connection ends behind it is nobody's business.
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) => return Err(Outcome::Altered),
                Some(Err(_)) | None => return Err(Outcome::Cut),
            }
        }
    }
}

/// The first of a trillion numbers that nobody else of this process counts with.
fn first_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed) << 40
}

/// A small answer, with a wish for those that are to have one.
async fn short(
    door: &Connector,
    idle: &IdleConnections,
    request: &mut Request,
) -> Result<(), Outcome> {
    let id = request.id;
    let wished = if id.is_multiple_of(2) { Color::Green } else { Color::Blue };
    let cookie = format!("flipgate_preview={wished}");
    let wish = ("flipgate-preview", wished.as_str());
    let wishes = [
        &[wish][..],
        &[("cookie", cookie.as_str())],
        &[wish, ("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1")],
    ];
    let fields = match request.kind {
        Kind::RefusedPreview => wishes[usize::try_from(id / 2 % 3).unwrap_or_default()],
        Kind::Preview => wishes[usize::try_from(id / 2 % 2).unwrap_or_default()],
        _ => &[],
    };
    let (answer, lent) = get(door, idle, "/traffic/short", id, fields).await?;
    request.alive = number(answer.headers(), sample::ENDED).unwrap_or_default();
    let body = read(head(request, answer)?).await?;
    idle.give_back(lent, door);
    let mut content = Content::of(id);
    if body.len() != SHORT || !content.goes_on_with(&body) {
        return Err(Outcome::Altered);
    }
    match request.kind {
        Kind::Preview if request.color != Some(wished) => Err(Outcome::Mistaken),
        _ => Ok(()),
    }
}

/// Asks once for a short answer, and returns the color that gave it.
pub(super) async fn first_color(door: &Connector) -> Result<Color, Outcome> {
    let (answer, _lent) =
        timeout(FIRST, get(door, &IdleConnections::default(), "/traffic/short", 0, &[]))
            .await
            .map_err(|_| Outcome::Late)??;
    if answer.status() != StatusCode::OK {
        return Err(Outcome::Refused(answer.status().as_u16()));
    }
    color_of(answer.headers()).ok_or(Outcome::Foreign)
}
