//! A small proxy with an admin API like Flipgate's and a fault of your choice: what a checker that works
//! has to find.

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

use bytes::Bytes;
use flipgate::model::Color;
use flipgate_api::wire::{PoolStatus, PromoteRequest, ServiceStatus, Status};
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{broadcast, watch},
    task::JoinSet,
};

/// What is wrong with a proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// A flip is acknowledged before it is made.
    NoBarrier,
    /// A request looks which color is active, and is counted a little later.
    CountsLate,
    /// A flip ends what is under way.
    Cuts,
    /// Now and then the public gets the other color.
    Leaks,
    /// The public gets the color that it wishes for.
    GrantsWishes,
    /// A flip of two services is made in two steps.
    Halves,
    /// Now and then a request is sent twice.
    Doubles,
    /// Now and then a byte is another.
    Alters,
    /// Trailers are left out.
    Untrailed,
    /// Now and then there is no answer.
    Loses,
    /// Now and then a flip fails.
    Refuses,
}

/// The proxy. Ends when it is dropped.
pub(crate) struct Planted {
    /// Where each service is.
    pub(crate) public: Vec<SocketAddr>,
    /// Where the admin API is.
    pub(crate) admin: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Proxy {
    fault: Fault,
    table: Mutex<Table>,
    /// The applications of each service, blue and green.
    upstreams: Vec<[SocketAddr; 2]>,
    events: broadcast::Sender<String>,
    /// The generation, for whoever waits for the next.
    flips: watch::Sender<u64>,
    asked: AtomicU64,
}

struct Table {
    generation: u64,
    active: Vec<Color>,
    /// Who is inside of each color of each service.
    inside: Vec<[u64; 2]>,
    /// By which generation each was replaced, until that is told to be drained.
    replaced: Vec<[Option<u64>; 2]>,
}

/// Somebody inside.
struct Inside {
    proxy: Arc<Proxy>,
    service: usize,
    color: Color,
    generation: u64,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

const NAMES: [&str; 2] = ["web", "api"];

/// How long the gaps are that faults leave open. They are the faults: nobody waits for anything by them.
const GAP: Duration = Duration::from_millis(25);

impl Planted {
    pub(crate) async fn start(fault: Fault, upstreams: Vec<[SocketAddr; 2]>) -> Self {
        let services = upstreams.len();
        let table = Table {
            generation: 1,
            active: vec![Color::Blue; services],
            inside: vec![[0; 2]; services],
            replaced: vec![[None; 2]; services],
        };
        let proxy = Arc::new(Proxy {
            fault,
            table: Mutex::new(table),
            upstreams,
            events: broadcast::Sender::new(1000),
            flips: watch::Sender::new(1),
            asked: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        let mut public = Vec::new();
        for service in 0..services {
            let proxy = Arc::clone(&proxy);
            let handle = move |request| forward(Arc::clone(&proxy), service, request);
            public.push(listen(&mut tasks, handle).await);
        }
        let admin = listen(&mut tasks, move |request| control(Arc::clone(&proxy), request)).await;
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
    let inside = enter(&proxy, service, &request, is_chosen).await;
    if proxy.fault == Fault::Loses && is_chosen {
        return Err(io::Error::other("lost on purpose"));
    }
    let upstream = proxy.upstreams[service][inside.color as usize];
    if proxy.fault == Fault::Doubles && is_chosen && request.method() == Method::GET {
        let mut twin = Request::get(request.uri()).body(empty()).expect("a request");
        *twin.headers_mut() = request.headers().clone();
        drop(ask(upstream, twin).await);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let request = request.map(|it| it.map_err(io::Error::other).boxed_unsync());
    let mut answer = ask(upstream, request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let onward = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(client), Ok(server)) = (upgrade.await, onward.await) else { return };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            let relayed = tokio::io::copy_bidirectional(&mut client, &mut server);
            tokio::select! { _ = relayed => {}, () = inside.ended() => {} }
        });
        return Ok(answer.map(|_| empty()));
    }
    let is_altered = proxy.fault == Fault::Alters && is_chosen;
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, relayed(body, inside, is_altered)))
}

/// Chooses a color, and counts the request in.
async fn enter(
    proxy: &Arc<Proxy>,
    service: usize,
    request: &Request<Incoming>,
    is_chosen: bool,
) -> Inside {
    let wish = request.headers().get("flipgate-preview").and_then(|it| it.to_str().ok());
    let (color, generation) = {
        let mut table = proxy.table.lock().expect("no panic inside");
        let color = match proxy.fault {
            Fault::Leaks if is_chosen => table.active[service].other(),
            Fault::GrantsWishes => {
                wish.and_then(|it| it.parse().ok()).unwrap_or(table.active[service])
            }
            _ => table.active[service],
        };
        if proxy.fault != Fault::CountsLate {
            table.inside[service][color as usize] += 1;
        }
        (color, table.generation)
    };
    if proxy.fault == Fault::CountsLate {
        tokio::time::sleep(GAP).await;
        proxy.table.lock().expect("no panic inside").inside[service][color as usize] += 1;
    }
    Inside { proxy: Arc::clone(proxy), service, color, generation }
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

/// The body, for as long as which its request is inside.
fn relayed(body: Incoming, inside: Inside, is_altered: bool) -> Body {
    let frames =
        stream::unfold((body, inside, is_altered), |(mut body, inside, alter)| async move {
            let frame = tokio::select! {
                frame = body.frame() => frame?.map_err(io::Error::other),
                () = inside.ended() => Err(io::Error::other("cut on purpose")),
            };
            let frame = match frame {
                Ok(frame) if alter => frame.map_data(|data| {
                    let mut bytes = data.to_vec();
                    bytes[0] ^= 1;
                    bytes.into()
                }),
                Ok(frame) if frame.is_trailers() && inside.proxy.fault == Fault::Untrailed => {
                    return None;
                }
                Ok(frame) => frame,
                Err(error) => return Some((Err(error), (body, inside, false))),
            };
            Some((Ok::<_, io::Error>(frame), (body, inside, false)))
        });
    StreamBody::new(frames).boxed_unsync()
}

fn empty() -> Body {
    Full::default().map_err(|never: Infallible| match never {}).boxed_unsync()
}

// === impl Inside ===

impl Inside {
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

impl Drop for Inside {
    fn drop(&mut self) {
        let mut table = self.proxy.table.lock().expect("no panic inside");
        table.inside[self.service][self.color as usize] -= 1;
        self.proxy.tell(&mut table, self.service, self.color);
    }
}

// === impl Proxy ===

impl Proxy {
    /// Tells that a color is drained, if it is and nobody was told yet.
    fn tell(&self, table: &mut Table, service: usize, color: Color) {
        let is_idle = table.inside[service][color as usize] == 0 && table.active[service] != color;
        if let Some(generation) = table.replaced[service][color as usize].take_if(|_| is_idle) {
            let event = json!({
                "seq": generation, "event": "drained", "service": NAMES[service], "color": color,
                "generation": generation, "took_ms": 0,
            });
            // Nobody has to listen.
            let _ = self.events.send(event.to_string());
        }
    }

    fn set(&self, service: usize, color: Color, generation: u64) {
        let mut table = self.table.lock().expect("no panic inside");
        if table.active[service] != color {
            table.active[service] = color;
            table.replaced[service] = [None; 2];
            table.replaced[service][color.other() as usize] = Some(generation);
            self.tell(&mut table, service, color.other());
        }
    }

    fn status(&self) -> Status {
        let table = self.table.lock().expect("no panic inside");
        let service = |place: usize| {
            let pool = |color: Color| PoolStatus {
                role: if table.active[place] == color { "active" } else { "standby" }.to_owned(),
                version: None,
                source: "file".to_owned(),
                in_flight: table.inside[place][color as usize],
                queued: 0,
                retry_budget: 0,
                panicking: false,
                endpoints: Vec::new(),
            };
            let pools = Color::BOTH.map(|it| (it.to_string(), pool(it)));
            ServiceStatus {
                active: table.active[place].to_string(),
                previous: None,
                damaged: false,
                pools: pools.into(),
            }
        };
        let services = (0..table.active.len()).map(|it| (NAMES[it].to_owned(), service(it)));
        Status {
            generation: table.generation,
            revision: table.generation,
            read_only: None,
            write_refused: None,
            partial: false,
            replayed: false,
            services: services.collect(),
        }
    }

    /// Makes a flip as this proxy does.
    async fn promote(self: &Arc<Self>, request: PromoteRequest) -> Option<Status> {
        let place = |name: &str| NAMES.iter().position(|it| *it == name).expect("a service");
        let parsed =
            |(name, color): (String, String)| (place(&name), color.parse().expect("a color"));
        let changes: Vec<(usize, Color)> = request.services.into_iter().map(parsed).collect();
        let generation = {
            let mut table = self.table.lock().expect("no panic inside");
            table.generation += 1;
            table.generation
        };
        self.flips.send_replace(generation);
        if self.fault == Fault::Refuses && generation.is_multiple_of(4) {
            return None;
        }
        let mut shown = self.status();
        match self.fault {
            Fault::NoBarrier => {
                for (service, color) in &changes {
                    let service = shown.services.get_mut(NAMES[*service]).expect("a service");
                    service.active = color.to_string();
                }
                let proxy = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(GAP).await;
                    proxy.set_all(&changes, generation);
                });
                return Some(shown);
            }
            Fault::Halves => {
                for (service, color) in changes {
                    self.set(service, color, generation);
                    tokio::time::sleep(GAP).await;
                }
            }
            _ => self.set_all(&changes, generation),
        }
        Some(self.status())
    }

    /// All at once, for everybody who looks under the lock.
    fn set_all(&self, changes: &[(usize, Color)], generation: u64) {
        let mut table = self.table.lock().expect("no panic inside");
        for (service, color) in changes {
            table.active[*service] = *color;
            table.replaced[*service] = [None; 2];
            table.replaced[*service][color.other() as usize] = Some(generation);
        }
        for (service, color) in changes {
            self.tell(&mut table, *service, color.other());
        }
    }
}

async fn control(
    proxy: Arc<Proxy>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let json = |status: &Status| {
        let text = serde_json::to_string(status).expect("texts and numbers");
        Response::new(Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync())
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => Ok(json(&proxy.status())),
        (&Method::POST, "/v1/promote") => {
            let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            let wanted = serde_json::from_slice(&body).expect("a promotion");
            Ok(proxy
                .promote(wanted)
                .await
                .map_or_else(|| bare(StatusCode::CONFLICT), |it| json(&it)))
        }
        (&Method::GET, "/v1/events") => {
            let events = proxy.events.subscribe();
            let lines = stream::unfold(events, |mut events| async move {
                let event = events.recv().await.ok()?;
                let frame = Frame::data(Bytes::from(format!("data: {event}\n\n")));
                Some((Ok::<_, io::Error>(frame), events))
            });
            let mut answer = Response::new(StreamBody::new(lines).boxed_unsync());
            let kind = http::HeaderValue::from_static("text/event-stream");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok(answer)
        }
        _ => Ok(bare(StatusCode::NOT_FOUND)),
    }
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(empty());
    *answer.status_mut() = status;
    answer
}
