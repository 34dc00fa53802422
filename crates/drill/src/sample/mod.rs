//! The sample application of the demo and the drill. Every response has its color, version and instance.
//!
//! It does not depend on Flipgate and works behind any proxy. Clients can check it: bodies are computed from the number
//! of the request, uploads are answered with their digest, and every received request is in a journal that a kill of
//! the process does not damage.

mod clock;
mod content;
mod faults;
mod journal;
mod pages;
mod traffic;
mod websocket;

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use self::faults::FaultSwitch;
pub(crate) use self::traffic::asset_name;
pub use self::{
    clock::now_ns,
    content::{Content, digest},
    faults::{Faults, set_faults},
    journal::{Arrival, Journal, Number, read_journal},
};

/// The number of a request, in decimal, up to 64 bits. The response has the same.
pub const ID: &str = "x-sample-id";
/// The color of the application.
pub const COLOR: &str = "x-sample-color";
/// The version of the application.
pub const VERSION: &str = "x-sample-version";
/// The name of the process.
pub const INSTANCE: &str = "x-sample-instance";
/// When the application received the head of the request, as [`now_ns`].
pub const RECEIVED: &str = "x-sample-received";
/// When the application received the last byte of a body, or was about to send it, as [`now_ns`].
pub const ENDED: &str = "x-sample-ended";
/// The size of a received body.
pub const BYTES: &str = "x-sample-bytes";
/// The [`digest`] of a body.
pub const DIGEST: &str = "x-sample-digest";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The identity of an application.
#[derive(Clone, Debug)]
pub struct SampleIdentity {
    /// Its color.
    pub color: String,
    /// Its version.
    pub version: String,
    /// Its name among several of its color.
    pub instance: String,
    /// The file for its journal.
    pub journal: Option<PathBuf>,
    /// The JSON at `/manifest.json`; `None` for one with the version alone.
    pub manifest: Option<String>,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

/// A running application. Dropping it stops it.
#[derive(Debug)]
pub struct Sample {
    /// Its address.
    pub address: SocketAddr,
    app: Arc<App>,
    _tasks: JoinSet<()>,
}

/// The state that all connections share.
#[derive(Debug)]
struct App {
    identity: SampleIdentity,
    journal: Option<Journal>,
    color: HeaderValue,
    version: HeaderValue,
    instance: HeaderValue,
    faults: FaultSwitch,
}

// === impl Sample ===

impl Sample {
    /// Starts an application on the current runtime.
    ///
    /// # Errors
    ///
    /// If the address is in use, the journal cannot be written, or `identity` has characters that a header must not
    /// have.
    pub async fn start(listen: SocketAddr, identity: SampleIdentity) -> io::Result<Self> {
        let app = Arc::new(App::new(identity)?);
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&app);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Ok(Self { address, app, _tasks: tasks })
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.app.faults.set(faults);
    }
}

async fn serve(stream: TcpStream, app: Arc<App>) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.respond(request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // A client may close its connection at any time.
    let _ = connection.with_upgrades().await;
}

// === impl App ===

impl App {
    fn new(identity: SampleIdentity) -> io::Result<Self> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(io::Error::other);
        let journal = identity.journal.as_deref().map(Journal::open).transpose()?;
        Ok(Self {
            color: value(&identity.color)?,
            version: value(&identity.version)?,
            instance: value(&identity.instance)?,
            faults: FaultSwitch::new(identity.faults),
            journal,
            identity,
        })
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let received = now_ns();
        let id = request.headers().get(ID).cloned();
        let number = id.as_ref().and_then(|it| it.to_str().ok()).and_then(|it| it.parse().ok());
        let path = request.uri().path().to_owned();
        let traffic = path.strip_prefix("/traffic");
        let arrived = match (number, traffic) {
            (Some(number), _) => Number::Known(number),
            (None, Some(_)) => Number::Missing,
            (None, None) => Number::MissingElsewhere,
        };
        if let Some(journal) = &self.journal
            && let Err(error) = journal.append(Arrival { number: arrived, at: received })
        {
            // A response without its entry would look like one of another server.
            let text = format!("the journal cannot be written: {error}\n");
            return with_status(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        // Orders to the application itself are always followed.
        let is_own = matches!(&*path, "/faults" | "/manifest.json");
        let faults = if is_own { Faults::default() } else { self.faults.get() };
        let faulty = if faults == Faults::default() { None } else { faults.respond().await };
        let mut response = match (faulty, traffic) {
            (Some(faulty), _) => faulty,
            (None, None) if path == "/faults" => self.change_faults(request).await,
            (None, Some(kind)) => {
                traffic::respond(&self.identity, kind, number.unwrap_or_default(), request).await
            }
            (None, None) => pages::respond(&self.identity, &request).await,
        };
        let headers = response.headers_mut();
        headers.insert(COLOR, self.color.clone());
        headers.insert(VERSION, self.version.clone());
        headers.insert(INSTANCE, self.instance.clone());
        headers.insert(RECEIVED, HeaderValue::from(received));
        if let Some(id) = id {
            headers.insert(ID, id);
        }
        response
    }
}

impl App {
    /// Shows the faults, or replaces them by those of the body of a PUT.
    async fn change_faults(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::PUT {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            match serde_json::from_slice(&body.unwrap_or_default()) {
                Ok(faults) => self.faults.set(faults),
                Err(error) => {
                    return with_status(StatusCode::BAD_REQUEST, format!("not faults: {error}\n"));
                }
            }
        }
        let faults = serde_json::to_string(&self.faults.get()).expect("numbers only");
        text(faults + "\n")
    }
}

/// The number of a query parameter.
fn number_in(query: Option<&str>, name: &str) -> Option<u64> {
    let mut pairs = query?.split('&').filter_map(|it| it.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

fn text(text: String) -> Response<Body> {
    Response::new(Full::from(text).boxed_unsync())
}

fn with_status(status: StatusCode, text: String) -> Response<Body> {
    let mut response = self::text(text);
    *response.status_mut() = status;
    response
}
