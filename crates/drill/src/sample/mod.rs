//! The sample application that `demo` and `drill` put behind a proxy: two versions of it tell each
//! other apart by color, and every answer says who gave it.
//!
//! Knows nothing of Flipgate: it stands behind any proxy. What it answers can be checked by whoever
//! asked: bodies follow from the request's number, what was received is told by its digest, and every
//! request that arrived is in a journal that outlives a kill.

mod clock;
mod content;
mod journal;
mod pages;
mod traffic;
mod websocket;

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub use self::{
    clock::now_ns,
    content::{Content, digest},
    journal::{Arrival, Journal, Number, read_journal},
};

/// The number of a request, in decimal, so that whoever asked finds it again: 64 bits.
pub const ID: &str = "x-sample-id";
/// Which color answered.
pub const COLOR: &str = "x-sample-color";
/// Which version answered.
pub const VERSION: &str = "x-sample-version";
/// Which process answered.
pub const INSTANCE: &str = "x-sample-instance";
/// [`now_ns`] of the application when the head of a request was there.
pub const RECEIVED: &str = "x-sample-met";
/// [`now_ns`] of the application when the last byte of a body was received or was about to be sent.
pub const ENDED: &str = "x-sample-ended";
/// How many bytes of a body were received.
pub const BYTES: &str = "x-sample-bytes";
/// The [`digest`] of a body, in hexadecimal.
pub const DIGEST: &str = "x-sample-digest";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Who an application is.
#[derive(Clone, Debug)]
pub struct SampleIdentity {
    /// Its color, as it says in every answer.
    pub color: String,
    /// Its version.
    pub version: String,
    /// Which of several it is.
    pub instance: String,
    /// Where requests are written down, with their numbers.
    pub journal: Option<PathBuf>,
}

/// One version of the application, running on this runtime until it is dropped.
#[derive(Debug)]
pub struct Sample {
    /// Where it listens.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// What all connections share.
#[derive(Debug)]
struct App {
    identity: SampleIdentity,
    journal: Option<Journal>,
    color: HeaderValue,
    version: HeaderValue,
    instance: HeaderValue,
}

// === impl Sample ===

impl Sample {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// If the address is taken, the journal cannot be written, or `identity` has what cannot stand in a
    /// header field.
    pub async fn start(listen: SocketAddr, identity: SampleIdentity) -> io::Result<Self> {
        let app = Arc::new(App::new(identity)?);
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, Arc::clone(&app)));
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn serve(stream: TcpStream, app: Arc<App>) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.respond(request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // A client that leaves is no news to a sample application.
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
            journal,
            identity: identity,
        })
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let met = now_ns();
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
            && let Err(error) = journal.append(Arrival { number: arrived, at: met })
        {
            // An answer without its entry would look like one that nobody gave.
            let text = format!("the journal cannot be written: {error}\n");
            return with_status(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        let mut response = match traffic {
            Some(kind) => {
                traffic::respond(&self.identity, kind, number.unwrap_or_default(), request).await
            }
            None => pages::respond(&self.identity, &request).await,
        };
        let headers = response.headers_mut();
        headers.insert(COLOR, self.color.clone());
        headers.insert(VERSION, self.version.clone());
        headers.insert(INSTANCE, self.instance.clone());
        headers.insert(RECEIVED, HeaderValue::from(met));
        if let Some(id) = id {
            headers.insert(ID, id);
        }
        response
    }
}

/// `name=NUMBER` of a query.
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
