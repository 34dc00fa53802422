//! A fake application that names itself, and does by path what a test needs of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// A fake application. Ends when it is dropped.
///
/// | path | answer |
/// |---|---|
/// | `/head…` | the request's head as it came |
/// | `/echo` | the request's body in chunks, with its trailers |
/// | `/echo-silent` | the same, and never `100 Continue` |
/// | `/wait` | its name, when the test calls [`Upstream::release`] |
/// | `/hold…` | `NAME begins` at once, the rest when the test calls [`Upstream::release`] |
/// | `/close` | reads the request, then closes without an answer |
/// | `/cut` | half of a body |
/// | `/endless` | bytes for as long as they are taken |
/// | `/204`, `/304`, `/length` | answers without a body, or of a length |
/// | `/trailers` | a chunked body with trailers |
/// | `/hop` | an answer with fields for one hop, and some that are ours to say |
/// | `/switch` | an unrequested 101 |
/// | `/ws` | a tunnel, whatever was asked: says `NAME: `, then whatever comes, then `bye` |
/// | `/ws-greets` | a tunnel that speaks first |
/// | `/both` | a chunked body with a length beside it |
/// | `/refuse` | 417 without reading the body |
/// | `/last` | an answer after which the connection ends |
/// | `/health` | its name, or 500 when the test calls [`Upstream::ail`] |
/// | others | its name |
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    tasks: JoinSet<()>,
}

struct State {
    name: String,
    released: watch::Sender<bool>,
    is_ailing: AtomicBool,
    requests: AtomicUsize,
    whole: AtomicUsize,
    connections: AtomicUsize,
    sent: AtomicUsize,
    paths: Mutex<Vec<String>>,
}

impl Upstream {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// One at an address of its own; or where another one was before.
    pub(crate) async fn start_at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::new(State {
            name: name.to_owned(),
            released: watch::Sender::new(false),
            is_ailing: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            whole: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            paths: Mutex::new(Vec::new()),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                connections.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { address, state, tasks }
    }

    /// Releases requests on `/hold`, now and from now on.
    pub(crate) fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// Holds requests again.
    pub(crate) fn hold_back(&self) {
        self.state.released.send_replace(false);
    }

    /// Whether `/health` answers 500.
    pub(crate) fn ail(&self, is_ailing: bool) {
        self.state.is_ailing.store(is_ailing, SeqCst);
    }

    /// Requests with a head that was read.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(SeqCst)
    }

    /// Requests that were read to their end.
    pub(crate) fn whole_requests(&self) -> usize {
        self.state.whole.load(SeqCst)
    }

    /// Connections that carried a request.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// Bytes of `/endless` that were taken.
    pub(crate) fn sent(&self) -> usize {
        self.state.sent.load(SeqCst)
    }

    /// The targets that were asked for.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.state.paths.lock().expect("no panic inside").clone()
    }

    /// Stops listening and closes every connection, as a killed process does.
    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut is_first = true;
    while let Some(head) = head(&mut reader).await {
        if is_first {
            state.connections.fetch_add(1, SeqCst);
            is_first = false;
        }
        state.requests.fetch_add(1, SeqCst);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        state.paths.lock().expect("no panic inside").push(path.clone());
        if answer(&path, &head, &mut reader, &mut writer, &state).await.is_none() {
            return;
        }
    }
}

/// `None` when the connection is to end.
async fn answer(
    path: &str,
    head: &str,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
    state: &State,
) -> Option<()> {
    let name = &state.name;
    if path.starts_with("/ws") {
        tunnel(path, name, head, reader, writer).await;
        return None;
    }
    let mut send = async |bytes: &[u8]| writer.write_all(bytes).await.ok();
    if path == "/refuse" {
        return send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    }
    let is_silent = path.ends_with("-silent");
    if head.to_ascii_lowercase().contains("expect: 100-continue") && !is_silent {
        send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let (body, trailers) = body(head, reader).await?;
    state.whole.fetch_add(1, SeqCst);
    let route = path.split(['?', '-']).next().unwrap_or_default();
    match route {
        "/head" => {
            let length = head.len();
            send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}").as_bytes())
                .await
        }
        "/echo" => {
            send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")
                .await?;
            for part in body.chunks(1000) {
                send(format!("{:x}\r\n", part.len()).as_bytes()).await?;
                send(part).await?;
                send(b"\r\n").await?;
            }
            send(format!("0\r\n{trailers}\r\n").as_bytes()).await
        }
        "/hold" => {
            send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let begins = format!("{name} begins\n");
            send(format!("{:x}\r\n{begins}\r\n", begins.len()).as_bytes()).await?;
            state.released.subscribe().wait_for(|it| *it).await.ok()?;
            let ends = format!("{name} ends\n");
            send(format!("{:x}\r\n{ends}\r\n0\r\n\r\n", ends.len()).as_bytes()).await
        }
        "/wait" => {
            state.released.subscribe().wait_for(|it| *it).await.ok()?;
            let length = name.len();
            send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}").as_bytes())
                .await
        }
        "/close" => None,
        "/cut" => {
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await?;
            None
        }
        "/endless" => {
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await?;
            loop {
                send(&[b'x'; 16 * 1024]).await?;
                state.sent.fetch_add(16 * 1024, SeqCst);
            }
        }
        "/health" if state.is_ailing.load(SeqCst) => {
            send(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n").await
        }
        "/204" => send(b"HTTP/1.1 204 No Content\r\n\r\n").await,
        "/304" => {
            send(b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 5\r\n\r\n").await
        }
        "/length" if head.starts_with("HEAD ") => {
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n").await
        }
        "/trailers" => {
            let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 10\r\n\r\n";
            send(text.as_bytes()).await
        }
        "/hop" => {
            let text = "HTTP/1.1 200 OK\r\nConnection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
                        Flipgate-Color: red\r\nProxy-Status: flipgate; error=x\r\nCache-Control: public, max-age=3600\r\nSet-Cookie: a=b\r\n\
                        Set-Cookie: c=d\r\nContent-Length: 0\r\n\r\n";
            send(text.as_bytes()).await
        }
        "/switch" => {
            send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                .await?;
            None
        }
        "/both" => {
            let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                        5\r\nwhole\r\n0\r\n\r\n";
            send(text.as_bytes()).await
        }
        "/last" => {
            let length = name.len();
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
            send(text.as_bytes()).await?;
            None
        }
        _ => {
            let length = name.len();
            send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}").as_bytes())
                .await
        }
    }
}

async fn tunnel(
    path: &str,
    name: &str,
    head: &str,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> Option<()> {
    let key = head.lines().find_map(|it| {
        let (field, value) = it.split_once(": ")?;
        field.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = flipgate::http2::websocket_accept(key.unwrap_or_default().as_bytes());
    let greeting = if path == "/ws-greets" { "hello" } else { "" };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n{greeting}"
    );
    writer.write_all(answer.as_bytes()).await.ok()?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = reader.read(&mut buffer).await.ok()?;
        writer.write_all(format!("{name}: ").as_bytes()).await.ok()?;
        if count == 0 {
            return writer.write_all(b"bye").await.ok();
        }
        writer.write_all(&buffer[..count]).await.ok()?;
    }
}

async fn head(reader: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
        if &head[before..] == "\r\n" {
            head.truncate(before);
            return Some(head);
        }
    }
}

/// The body and, of a chunked one, the lines of its trailers.
async fn body(head: &str, reader: &mut BufReader<OwnedReadHalf>) -> Option<(Vec<u8>, String)> {
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).await.ok()?;
    } else if field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).await.ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            if size == 0 {
                let mut trailers = String::new();
                loop {
                    let before = trailers.len();
                    reader.read_line(&mut trailers).await.ok()?;
                    if &trailers[before..] == "\r\n" {
                        trailers.truncate(before);
                        return Some((body, trailers));
                    }
                }
            }
            let begin = body.len();
            body.resize(begin + size + 2, 0);
            reader.read_exact(&mut body[begin..]).await.ok()?;
            body.truncate(begin + size);
        }
    }
    Some((body, String::new()))
}
