//! Clients and upstreams that speak HTTP/2.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    server::SendResponse,
};
use http::{Method, Request, Response};
use rustls::ClientConfig;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{
    Answer, LONG,
    client::{self, Wire},
};

/// Where connections are driven: not by the test, so that they hear what is said at their end while
/// the test waits for something else.
static ELSEWHERE: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread")
});

/// A connection of HTTP/2.
pub(crate) struct Http2 {
    sender: SendRequest<Bytes>,
    driver: AbortHandle,
}

/// A request that is under way.
pub(crate) struct Call {
    response: Option<ResponseFuture>,
    pub(crate) sending: SendStream<Bytes>,
    receiving: Option<RecvStream>,
}

impl Http2 {
    /// By prior knowledge.
    pub(crate) async fn connect(from: &str, to: SocketAddr) -> Self {
        let from = from.to_owned();
        let opened = async move { Self::over(Box::new(client::connect(&from, to).await)).await };
        ELSEWHERE.spawn(opened).await.expect("a connection")
    }

    /// By TLS, to `localhost`.
    pub(crate) async fn connect_tls(from: &str, to: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        let (from, tls) = (from.to_owned(), Arc::clone(tls));
        let opened = async move {
            let stream = client::connect_tls(&from, to, "localhost", &tls).await;
            let stream = stream.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            Self::over(Box::new(stream)).await
        };
        ELSEWHERE.spawn(opened).await.expect("a connection")
    }

    async fn over(wire: Box<dyn Wire>) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 22);
        let (sender, connection) = builder.handshake(wire).await.expect("a preface");
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Self { sender, driver }
    }

    /// Asks for a path, with a body to follow unless `ends`.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, fields: &str, ends: bool) -> Call {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(format!("https://localhost{path}"));
        for line in fields.lines() {
            let (name, value) = line.split_once(": ").expect("a field");
            request = request.header(name, value);
        }
        self.send(request.body(()).expect("a request"), ends).await
    }

    pub(crate) async fn send(&mut self, request: Request<()>, ends: bool) -> Call {
        let ready = timeout(LONG, poll_fn(|context| self.sender.poll_ready(context)));
        ready.await.expect("in time").expect("the connection is open");
        let (response, sending) = self.sender.send_request(request, ends).expect("a request");
        Call { response: Some(response), sending, receiving: None }
    }

    /// Asks for a path and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str, fields: &str) -> Answer {
        self.ask("GET", path, fields, true).await.answer().await.expect("an answer")
    }

    /// Whether the other end takes no more requests, in a moment.
    pub(crate) async fn ends(&mut self) {
        let ended = timeout(LONG, async {
            while poll_fn(|context| self.sender.poll_ready(context)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        ended.await.expect("the connection ends in time");
    }

    /// Whether the other end has said that it takes WebSockets.
    pub(crate) fn takes_tunnels(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Call {
    /// The answer's head.
    pub(crate) async fn head(&mut self) -> Result<Answer, h2::Error> {
        let response = self.response.take().expect("read once");
        let response = timeout(LONG, response).await.expect("an answer in time")?;
        let (parts, body) = response.into_parts();
        self.receiving = Some(body);
        let mut head = format!("HTTP/2 {}\r\n", parts.status.as_u16());
        for (name, value) in &parts.headers {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().expect("ASCII")));
        }
        Ok(Answer { status: parts.status.as_u16(), head, ..Answer::default() })
    }

    /// The next part of the body; nothing at its end.
    pub(crate) async fn some(&mut self) -> Result<Bytes, h2::Error> {
        let body = self.receiving.as_mut().expect("the head was read");
        let data = timeout(LONG, body.data()).await.expect("in time");
        let Some(data) = data.transpose()? else { return Ok(Bytes::new()) };
        body.flow_control().release_capacity(data.len()).expect("no more than came");
        Ok(data)
    }

    /// The body up to this text.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let some = self.some().await.expect("more of the body");
            assert!(!some.is_empty(), "{text:?} never came, but {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&some));
        }
        seen
    }

    /// The rest of an answer.
    pub(crate) async fn rest(&mut self, mut answer: Answer) -> Result<Answer, h2::Error> {
        while let data @ [_, ..] = &*self.some().await? {
            answer.body.extend_from_slice(data);
        }
        let body = self.receiving.as_mut().expect("the head was read");
        let trailers = timeout(LONG, body.trailers()).await.expect("in time")?;
        for (name, value) in trailers.iter().flatten() {
            answer.trailers.push_str(&format!("{name}: {}\r\n", value.to_str().expect("ASCII")));
        }
        Ok(answer)
    }

    /// The whole answer.
    pub(crate) async fn answer(&mut self) -> Result<Answer, h2::Error> {
        let head = self.head().await?;
        self.rest(head).await
    }

    /// Sends a part of the body, as the window lets it.
    pub(crate) async fn push(&mut self, data: &[u8], ends: bool) {
        let mut left = Bytes::copy_from_slice(data);
        while !left.is_empty() {
            self.sending.reserve_capacity(left.len());
            let sent = timeout(LONG, poll_fn(|context| self.sending.poll_capacity(context))).await;
            let count = sent.expect("room in time").expect("an open stream").expect("room");
            let part = left.split_to(count.min(left.len()));
            self.sending.send_data(part, ends && left.is_empty()).expect("an open stream");
        }
        if data.is_empty() && ends {
            self.sending.send_data(Bytes::new(), true).expect("an open stream");
        }
    }
}

/// An application that speaks HTTP/2 in the clear, and sends scripted responses.
pub(crate) struct Http2Upstream {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Http2Upstream {
    /// `answer` is called for each request, on a task of its own.
    pub(crate) async fn start<F>(
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::new(true, answer).await
    }

    /// One that does not take WebSockets.
    pub(crate) async fn without_tunnels<F>(
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::new(false, answer).await
    }

    async fn new<F>(
        takes_tunnels: bool,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let answer = Arc::new(answer);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let answer = Arc::clone(&answer);
                connections.spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    if takes_tunnels {
                        builder.enable_connect_protocol();
                    }
                    // A probe of health says nothing.
                    let Ok(mut connection) = builder.handshake(stream).await else { return };
                    let mut requests = JoinSet::new();
                    while let Some(Ok((request, response))) = connection.accept().await {
                        requests.spawn(answer(request, response));
                    }
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

/// Reads a body to its end, and its trailers.
pub(crate) async fn read(body: &mut RecvStream) -> (Vec<u8>, http::HeaderMap) {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("a whole body");
        body.flow_control().release_capacity(data.len()).expect("no more than came");
        content.extend_from_slice(&data);
    }
    (content, body.trailers().await.expect("trailers or none").unwrap_or_default())
}

/// Answers with a text.
pub(crate) fn say(mut response: SendResponse<Bytes>, text: &str) {
    let head = Response::new(());
    if let Ok(mut body) = response.send_response(head, false) {
        body.send_data(Bytes::copy_from_slice(text.as_bytes()), true).expect("an open stream");
    }
}
