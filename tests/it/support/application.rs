//! A fake application with responses from a closure, for tests of gates.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// A request that the application got.
#[derive(Clone, Debug)]
pub(crate) struct AppRequest {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A response of the application.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A status with headers and a body.
    Full(u16, Vec<(&'static str, String)>, String),
    /// The same with a body of bytes.
    Bytes(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Status 200 with a body, after so many milliseconds.
    Delayed(u64, String),
    /// Status 200 with a body, when the test calls [`Application::release`].
    Held(String),
    /// None, for as long as the connection is open.
    Hang,
}

/// A fake application. Ends when it is dropped.
pub(crate) struct Application {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<AppRequest>>>,
    released: watch::Sender<bool>,
    open: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

// === impl AppRequest ===

impl AppRequest {
    /// The value of a header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default()
    }
}

// === impl Reply ===

impl Reply {
    /// A body with status 200.
    pub(crate) fn ok(body: &str) -> Self {
        Self::Full(200, Vec::new(), body.to_owned())
    }

    /// A status with a body.
    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self::Full(status, Vec::new(), body.to_owned())
    }
}

// === impl Application ===

impl Application {
    pub(crate) async fn start(
        reply: impl Fn(&AppRequest) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (released, open) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
        let (seen, reply) = (Arc::clone(&requests), Arc::new(reply));
        let (hold, count) = (released.subscribe(), Arc::clone(&open));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (seen, reply) = (Arc::clone(&seen), Arc::clone(&reply));
                let (hold, count) = (hold.clone(), Arc::clone(&count));
                count.fetch_add(1, SeqCst);
                connections.spawn(async move {
                    let answer = service_fn(async |request: Request<Incoming>| {
                        let request = read(request).await;
                        let reply = reply(&request);
                        seen.lock().expect("no panic inside").push(request);
                        Ok::<_, Infallible>(respond(reply, hold.clone()).await)
                    });
                    // The end of a connection is up to its client.
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                    count.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, requests, released, open, _tasks: tasks }
    }

    /// Sends the responses that are held, now and from now on.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<AppRequest> {
        self.requests.lock().expect("no panic inside").clone()
    }

    /// The requests for a path so far.
    pub(crate) fn requests_for(&self, path: &str) -> Vec<AppRequest> {
        self.requests().into_iter().filter(|it| it.path == path).collect()
    }
}

async fn read(request: Request<Incoming>) -> AppRequest {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    AppRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

async fn respond(reply: Reply, mut hold: watch::Receiver<bool>) -> Response<Full<Bytes>> {
    match reply {
        Reply::Held(body) => {
            // The test has ended if it never releases the response.
            let _ = hold.wait_for(|it| *it).await;
            Response::new(Full::new(body.into()))
        }
        Reply::Hang => std::future::pending().await,
        Reply::Delayed(millis, body) => {
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
            Response::new(Full::new(body.into()))
        }
        Reply::Full(status, headers, body) => with_headers(status, headers, body.into()),
        Reply::Bytes(status, headers, body) => with_headers(status, headers, body.into()),
    }
}

fn with_headers(
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::new(body)).expect("a valid response")
}
