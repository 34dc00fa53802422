//! A small proxy with an admin API like Flipgate's and a planted fault, which a working checker must find.

mod admin;
mod closing;
mod fault;
mod pins;
mod shares;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

pub(crate) use self::fault::Fault;
use self::{pins::Pins, shares::Share};
use bytes::Bytes;
use flipgate::model::Color;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client, server, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// The proxy. Ends when it is dropped.
pub(crate) struct Planted {
    /// The address of each service.
    pub(crate) public: Vec<SocketAddr>,
    /// The address of the admin API.
    pub(crate) admin: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Proxy {
    fault: Fault,
    table: Mutex<Table>,
    /// The applications of each service, blue and green. The first of each answers.
    upstreams: Vec<Upstreams>,
    events: broadcast::Sender<String>,
    /// Events that are published late, with their time.
    late: mpsc::UnboundedSender<(Instant, String)>,
    /// The generation, for calls that wait for the next.
    flips: watch::Sender<u64>,
    asked: AtomicU64,
}

struct Table {
    generation: u64,
    active: Vec<Color>,
    /// The requests in flight of each color of each service.
    in_flight: Vec<[u64; 2]>,
    /// The generation that replaced each, until its drained event.
    replaced: Vec<[Option<u64>; 2]>,
    /// How many times a color was drained.
    drains: u64,
    /// The pins of each service.
    pins: Vec<Pins>,
    /// The share of the candidate of each service that is promoted gradually.
    shares: Vec<Option<Share>>,
}

/// The applications of one service, blue and green.
pub(crate) type Upstreams = [Vec<SocketAddr>; 2];

/// A request in flight.
struct RequestInFlight {
    proxy: Arc<Proxy>,
    service: usize,
    color: Color,
    generation: u64,
    /// The cookie that the client is given.
    cookie: Option<HeaderValue>,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

const NAMES: [&str; 2] = ["web", "api"];

/// The length of the gaps that faults leave. The gap is the fault: no test synchronises by it.
const GAP: Duration = Duration::from_millis(25);

/// The delay of late events.
const LATE: Duration = Duration::from_millis(1200);

/// The field that has a request's number.
const NUMBER: &str = "x-sample-id";

impl Planted {
    pub(crate) async fn start(fault: Fault, upstreams: Vec<Upstreams>) -> Self {
        let services = upstreams.len();
        let table = Table {
            generation: 1,
            active: vec![Color::Blue; services],
            in_flight: vec![[0; 2]; services],
            replaced: vec![[None; 2]; services],
            drains: 0,
            pins: vec![Pins::default(); services],
            shares: vec![None; services],
        };
        let (late, mut waiting) = mpsc::unbounded_channel::<(Instant, String)>();
        let proxy = Arc::new(Proxy {
            fault,
            table: Mutex::new(table),
            upstreams,
            events: broadcast::Sender::new(1000),
            late,
            flips: watch::Sender::new(1),
            asked: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        let events = proxy.events.clone();
        tasks.spawn(async move {
            while let Some((at, event)) = waiting.recv().await {
                tokio::time::sleep_until(at).await;
                // There may be no subscriber.
                let _ = events.send(event);
            }
        });
        tasks.spawn(check_health(Arc::clone(&proxy)));
        let mut public = Vec::new();
        for service in 0..services {
            let proxy = Arc::clone(&proxy);
            let handle = move |request| forward(Arc::clone(&proxy), service, request);
            public.push(listen(&mut tasks, handle).await);
        }
        let admin =
            listen(&mut tasks, move |request| admin::control(Arc::clone(&proxy), request)).await;
        Self { public, admin, _tasks: tasks }
    }
}

/// Serves HTTP/1.1 on a free port.
async fn listen<F>(
    tasks: &mut JoinSet<()>,
    handle: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = Result<Response<Body>, io::Error>> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let service = service_fn(handle.clone());
            let connection = server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A connection that ends badly is the client's to see.
            connections.spawn(async move { drop(connection.await) });
        }
    });
    address
}

async fn forward(
    proxy: Arc<Proxy>,
    service: usize,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let turn = proxy.asked.fetch_add(1, SeqCst);
    let is_chosen = turn % 40 == 39;
    let mut in_flight = enter(&proxy, service, &request, is_chosen).await;
    if proxy.fault == Fault::Loses && is_chosen {
        return Err(io::Error::other("lost on purpose"));
    }
    let upstream = proxy.upstreams[service][in_flight.color as usize][0];
    if proxy.fault == Fault::Mirrors && is_chosen && request.method() == Method::GET {
        let mut twin = Request::get(request.uri()).body(empty()).expect("a request");
        *twin.headers_mut() = request.headers().clone();
        twin.headers_mut().remove(NUMBER);
        drop(ask(proxy.upstreams[service][in_flight.color.other() as usize][0], twin).await);
    }
    if proxy.fault == Fault::Doubles && is_chosen && request.method() == Method::GET {
        let mut twin = Request::get(request.uri()).body(empty()).expect("a request");
        *twin.headers_mut() = request.headers().clone();
        drop(ask(upstream, twin).await);
    }
    let begins = pins::begins(&request);
    let is_asset = request.uri().path().starts_with("/traffic/asset/");
    // So the drill asks for messages of two frames, where it expects this.
    let expects_close = request.uri().query().is_some_and(|it| it.contains("pause_ms"));
    let closes = expects_close || proxy.fault == Fault::ClosesAll;
    let mut second = Request::get(request.uri()).body(empty()).expect("a request");
    *second.headers_mut() = request.headers().clone();
    if proxy.fault == Fault::MovesSockets {
        second.headers_mut().remove(NUMBER);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let request = request.map(|it| it.map_err(io::Error::other).boxed_unsync());
    let mut answer = ask(upstream, request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let onward = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(client), Ok(server)) = (upgrade.await, onward.await) else { return };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            if closes {
                return closing::relay(in_flight, client, server).await;
            }
            if matches!(in_flight.proxy.fault, Fault::MovesSockets | Fault::MovesSocketsByNumber) {
                let own = &in_flight.proxy.upstreams[service][in_flight.color as usize];
                let to = *own.last().expect("an endpoint");
                match moved(&mut client, server, to, second).await {
                    Ok(other) => server = other,
                    Err(_) => return,
                }
            }
            let relayed = tokio::io::copy_bidirectional(&mut client, &mut server);
            tokio::select! { _ = relayed => {}, () = in_flight.ended() => {} }
        });
        return Ok(answer.map(|_| empty()));
    }
    let is_lost = proxy.fault == Fault::LosesAssets && is_chosen;
    if is_asset && answer.status() == StatusCode::NOT_FOUND && !is_lost {
        let other = proxy.upstreams[service][in_flight.color.other() as usize][0];
        answer = ask(other, second).await?;
    }
    if begins {
        answer.headers_mut().insert(header::SET_COOKIE, pins::cookie(in_flight.color));
    }
    if let Some(cookie) = in_flight.cookie.take() {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    let is_altered = proxy.fault == Fault::Alters && is_chosen;
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, relayed(body, in_flight, is_altered)))
}

/// Relays a few messages with their echoes, and opens another connection for those that follow.
async fn moved(
    client: &mut TokioIo<Upgraded>,
    mut server: TokioIo<Upgraded>,
    to: SocketAddr,
    handshake: Request<Body>,
) -> io::Result<TokioIo<Upgraded>> {
    let mut bytes = [0; 1024];
    for _ in 0..2 {
        let count = client.read(&mut bytes).await?;
        server.write_all(&bytes[..count]).await?;
        let count = server.read(&mut bytes).await?;
        client.write_all(&bytes[..count]).await?;
    }
    let answer = ask(to, handshake).await?;
    let upgraded = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
    Ok(TokioIo::new(upgraded))
}

/// Asks every application for a page, again and again, as health checks do: without a number.
async fn check_health(proxy: Arc<Proxy>) {
    loop {
        for upstream in proxy.upstreams.iter().flatten().flatten() {
            let check = Request::get("/whoami").body(empty()).expect("a request");
            // The applications come and go as the drill does.
            drop(ask(*upstream, check).await);
        }
        tokio::time::sleep(GAP).await;
    }
}

/// Chooses a color, and counts the request in.
async fn enter(
    proxy: &Arc<Proxy>,
    service: usize,
    request: &Request<Incoming>,
    is_chosen: bool,
) -> RequestInFlight {
    let requested = request.headers().get("flipgate-preview").and_then(|it| it.to_str().ok());
    let (color, generation, cookie) = {
        let mut table = proxy.table.lock().expect("no panic inside");
        let active = table.active[service];
        let draw = table.shares[service].as_ref().filter(|_| shares::takes_cookie(request));
        let draw = draw.map(|it| it.draw(request, proxy.fault));
        let cookie = draw.as_ref().and_then(|it| it.cookie.clone());
        let active_or_candidate = draw.and_then(|it| it.color).unwrap_or(active);
        let pinned = table.pins[service].color(request, active, proxy.fault == Fault::KeepsPins);
        let color = match proxy.fault {
            Fault::Leaks if is_chosen => table.active[service].other(),
            Fault::HonorsPublicPreview => {
                requested.and_then(|it| it.parse().ok()).unwrap_or(table.active[service])
            }
            Fault::MixesTransactions if is_chosen => active,
            _ => pinned.unwrap_or(active_or_candidate),
        };
        if proxy.fault != Fault::CountsLate {
            table.in_flight[service][color as usize] += 1;
        }
        (color, table.generation, cookie)
    };
    if proxy.fault == Fault::CountsLate {
        tokio::time::sleep(GAP).await;
        proxy.table.lock().expect("no panic inside").in_flight[service][color as usize] += 1;
    }
    RequestInFlight { proxy: Arc::clone(proxy), service, color, generation, cookie }
}

async fn ask(
    upstream: SocketAddr,
    request: Request<Body>,
) -> Result<Response<Incoming>, io::Error> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut sender, driver) =
        client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(driver.with_upgrades());
    sender.send_request(request).await.map_err(io::Error::other)
}

/// The response body. Its request is in flight until it ends.
fn relayed(body: Incoming, in_flight: RequestInFlight, is_altered: bool) -> Body {
    let frames =
        stream::unfold((body, in_flight, is_altered), |(mut body, in_flight, alter)| async move {
            let frame = tokio::select! {
                frame = body.frame() => frame?.map_err(io::Error::other),
                () = in_flight.ended() => Err(io::Error::other("cut on purpose")),
            };
            let frame = match frame {
                Ok(frame) if alter => frame.map_data(|data| {
                    let mut bytes = data.to_vec();
                    bytes[0] ^= 1;
                    bytes.into()
                }),
                Ok(frame) if frame.is_trailers() && in_flight.proxy.fault == Fault::Untrailed => {
                    return None;
                }
                Ok(frame) => frame,
                Err(error) => return Some((Err(error), (body, in_flight, false))),
            };
            Some((Ok::<_, io::Error>(frame), (body, in_flight, false)))
        });
    StreamBody::new(frames).boxed_unsync()
}

fn empty() -> Body {
    Full::default().map_err(|never: Infallible| match never {}).boxed_unsync()
}

// === impl RequestInFlight ===

impl RequestInFlight {
    /// When this is ended by a flip, which is never if the proxy is good.
    async fn ended(&self) {
        if self.proxy.fault != Fault::Cuts {
            return std::future::pending().await;
        }
        let mut flips = self.proxy.flips.subscribe();
        // Ends with the proxy.
        let _ = flips.wait_for(|it| *it != self.generation).await;
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        let mut table = self.proxy.table.lock().expect("no panic inside");
        table.in_flight[self.service][self.color as usize] -= 1;
        self.proxy.tell(&mut table, self.service, self.color);
    }
}

// === impl Proxy ===

impl Proxy {
    /// Publishes that a color is drained, once.
    fn tell(&self, table: &mut Table, service: usize, color: Color) {
        let is_pinned = table.pins[service].hold(color) && self.fault != Fault::DrainedUnderPins;
        let is_idle = table.in_flight[service][color as usize] == 0
            && (table.active[service] != color && !is_pinned);
        if let Some(generation) = table.replaced[service][color as usize].take_if(|_| is_idle) {
            let event = json!({
                "seq": generation, "event": "drained", "service": NAMES[service], "color": color,
                "generation": generation, "took_ms": 0,
            });
            table.drains += 1;
            match self.fault {
                Fault::NeverDrained if table.drains.is_multiple_of(3) => {}
                // It fails only when the proxy ends.
                Fault::DrainedLate => {
                    let _ = self.late.send((Instant::now() + LATE, event.to_string()));
                }
                _ => {
                    // There may be no subscriber.
                    let _ = self.events.send(event.to_string());
                }
            }
        }
    }
}
