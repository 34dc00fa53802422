//! A client that sends bytes as they are written and reads answers piece by piece.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::LONG;

/// One connection.
pub(crate) struct Client {
    stream: Box<dyn Wire>,
    buffer: Vec<u8>,
}

/// Whatever bytes go through.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// An answer's head, and its body if it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub(crate) trailers: String,
}

/// The client of the internal network.
pub(crate) const INTERNAL: &str = "127.0.0.1";

/// All others.
pub(crate) const PUBLIC: &str = "127.0.0.2";

impl Client {
    pub(crate) async fn connect(from: &str, to: SocketAddr) -> Self {
        Self { stream: Box::new(connect(from, to).await), buffer: Vec::new() }
    }

    /// What was opened already.
    pub(crate) fn over(wire: impl Wire + 'static) -> Self {
        Self { stream: Box::new(wire), buffer: Vec::new() }
    }

    /// A connection by TLS, to `localhost`.
    pub(crate) async fn connect_tls(from: &str, to: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        let stream = connect_tls(from, to, "localhost", tls).await.expect("a handshake");
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// A client with a small receive buffer.
    pub(crate) async fn connect_narrow(from: &str, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a live socket");
        let from = SocketAddr::new(from.parse().expect("an address"), 0);
        socket.bind(from).expect("loopback has all of 127/8");
        let stream = Box::new(socket.connect(to).await.expect("a listener is there"));
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(LONG, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("in time").expect("the connection is open");
    }

    /// Sends bytes, and reads meanwhile until `byte` has come as often as it is among them: a client that sends them
    /// back need not be able to keep them all.
    pub(crate) async fn send_and_read(&mut self, bytes: &[u8], byte: u8) {
        let count = |bytes: &[u8]| bytes.iter().filter(|it| **it == byte).count();
        let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
        let mut left = count(bytes) - count(&std::mem::take(&mut self.buffer));
        let read = async {
            let mut part = vec![0; 64 * 1024];
            while left > 0 {
                let read = timeout(LONG, reading.read(&mut part)).await;
                let read = read.expect("in time").expect("the connection is open");
                assert!(read > 0, "it ended");
                left -= count(&part[..read]);
            }
        };
        let (sent, ()) = tokio::join!(writing.write_all(bytes), read);
        sent.expect("the connection is open");
    }

    /// Sends as much as the other end takes; it may have closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = timeout(LONG, self.stream.write_all(bytes.as_ref())).await;
        drop(sent.expect("in time"));
    }

    /// Sends something. False if the other end has closed.
    pub(crate) async fn can_send(&mut self, bytes: &[u8]) -> bool {
        timeout(LONG, self.stream.write_all(bytes)).await.expect("in time").is_ok()
    }

    /// Reads until nothing comes for a moment, or the end.
    pub(crate) async fn read_until_quiet(&mut self) -> String {
        let moment = std::time::Duration::from_millis(200);
        while timeout(moment, self.stream.read_buf(&mut self.buffer))
            .await
            .is_ok_and(|it| matches!(it, Ok(1..)))
        {}
        self.unread()
    }

    /// Asks for a path, with more fields if wanted, each with its line end.
    pub(crate) async fn ask(&mut self, path: &str, fields: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).await;
    }

    /// Asks for a path and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str, fields: &str) -> Answer {
        self.ask(path, fields).await;
        self.answer().await
    }

    /// Reads a head, whatever its status.
    pub(crate) async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            assert!(self.more().await, "ended in a head: {:?}", self.unread());
        };
        let head = String::from_utf8_lossy(&self.buffer[..end + 2]).into_owned();
        self.buffer.drain(..end + 4);
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        Answer { status, head, ..Answer::default() }
    }

    /// Reads an answer that is not interim, whole.
    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        self.rest(head).await
    }

    /// Reads the answer to a HEAD.
    pub(crate) async fn answer_to_head(&mut self) -> Answer {
        self.head().await
    }

    /// Reads the body that belongs to a head.
    pub(crate) async fn rest(&mut self, mut answer: Answer) -> Answer {
        if matches!(answer.status, 204 | 304) {
            return answer;
        }
        if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line().await;
                let size = usize::from_str_radix(&size, 16).expect("a chunk size");
                if size == 0 {
                    break;
                }
                let chunk = self.exactly(size).await;
                answer.body.extend(chunk);
                assert_eq!(self.line().await, "");
            }
            loop {
                let line = self.line().await;
                if line.is_empty() {
                    return answer;
                }
                answer.trailers.push_str(&line);
                answer.trailers.push_str("\r\n");
            }
        }
        match answer.field("content-length").map(|it| it.parse().expect("a length")) {
            Some(length) => answer.body = self.exactly(length).await,
            None => {
                while self.more().await {}
                answer.body = std::mem::take(&mut self.buffer);
            }
        }
        answer
    }

    /// Reads this many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.more().await, "ended too early, after {:?}", self.unread());
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads up to the next occurrence of `text`.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let begin = Instant::now();
        let end = loop {
            assert!(begin.elapsed() < LONG, "{text:?} never came, but {:?}", self.unread());
            if let Some(found) = find(&self.buffer, text.as_bytes()) {
                break found + text.len();
            }
            assert!(self.more().await, "{text:?} never came, but {:?}", self.unread());
        };
        String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<_>>()).into_owned()
    }

    async fn line(&mut self) -> String {
        let line = self.until("\r\n").await;
        line.trim_end_matches("\r\n").to_owned()
    }

    /// Reads until a text has come. False if the end came before.
    pub(crate) async fn has_come(&mut self, text: &str) -> bool {
        while find(&self.buffer, text.as_bytes()).is_none() {
            if !self.more().await {
                return false;
            }
        }
        true
    }

    /// Reads to the end of the connection, and returns what came; also of one that was reset.
    pub(crate) async fn read_to_end(&mut self) -> String {
        while self.more().await {}
        self.unread()
    }

    /// Reads to the end of the connection. Whether that is a reset.
    pub(crate) async fn ends_in_reset(&mut self) -> bool {
        loop {
            let read = timeout(LONG, self.stream.read_buf(&mut self.buffer)).await;
            match read.expect("an answer in time") {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Tells the other end that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    fn unread(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Reads what is there. False at the end, however it came.
    async fn more(&mut self) -> bool {
        let read = timeout(LONG, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("an answer in time"), Ok(1..))
    }
}

pub(crate) async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = SocketAddr::new(from.parse().expect("an address"), 0);
    socket.bind(from).expect("loopback has all of 127/8");
    let connecting = timeout(LONG, socket.connect(to));
    let stream = connecting.await.expect("in time").expect("a listener is there");
    stream.set_nodelay(true).expect("a live socket");
    stream
}

/// A handshake for the host `name`.
pub(crate) async fn connect_tls(
    from: &str,
    to: SocketAddr,
    name: &str,
    tls: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = connect(from, to).await;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
    timeout(LONG, handshake).await.expect("a handshake in time")
}

impl Answer {
    /// The value of a field, if it is there once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields(name);
        let first = values.next();
        assert_eq!(values.next(), None, "{name} is there twice: {}", self.head);
        first
    }

    /// All values of a field.
    pub(crate) fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        self.head.lines().skip(1).filter_map(move |line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {}{}", self.head, self.text());
        })
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|it| it == wanted)
}
