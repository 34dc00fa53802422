//! Upstreams that misbehave.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

/// The misbehavior of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Misbehavior {
    /// Accepts no connections.
    Refuses,
    /// Reads everything and sends nothing.
    Silent,
    /// Closes after it has read a head.
    ClosesBehindHead,
    /// Closes in the middle of a response body.
    ClosesInBody,
    /// Responds once, and closes after it has read a second head.
    ClosesBehindSecondHead,
    /// Sends half of a response body, and then nothing.
    StallsInBody,
    /// Resets the connection after it has read a head.
    Resets,
    /// Sends two responses to a request.
    AnswersTwice,
    /// Sends a response before a request, and then one to each request.
    AnswersUnasked,
    /// Sends one byte at a time.
    Slow,
    /// Sends a body that is longer than its `Content-Length`.
    WrongLength,
    /// Sends bytes that are not HTTP.
    Babbles,
    /// Responds with 503.
    Unavailable,
}

/// An upstream that misbehaves. Ends when it is dropped.
pub(crate) struct MisbehavingUpstream {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfaulty";

impl MisbehavingUpstream {
    pub(crate) async fn start(manner: Misbehavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let (requests, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let counted = Arc::clone(&requests);
        if manner != Misbehavior::Refuses {
            tasks.spawn(async move {
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    connections.spawn(misbehave(stream, manner, Arc::clone(&counted)));
                }
            });
        }
        Self { address, requests, _tasks: tasks }
    }

    /// Requests with a head that was read.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

async fn misbehave(
    mut stream: TcpStream,
    manner: Misbehavior,
    requests: Arc<AtomicUsize>,
) -> Option<()> {
    if manner == Misbehavior::AnswersUnasked {
        stream.write_all(OK).await.ok()?;
    }
    let mut unread = Vec::new();
    let mut heads = 0;
    loop {
        let end = loop {
            if let Some(place) = unread.windows(4).position(|it| it == b"\r\n\r\n") {
                break place + 4;
            }
            if stream.read_buf(&mut unread).await.ok()? == 0 {
                return None;
            }
        };
        unread.drain(..end);
        requests.fetch_add(1, SeqCst);
        heads += 1;
        let answer: &[u8] = match manner {
            Misbehavior::Refuses | Misbehavior::Silent => continue,
            Misbehavior::ClosesBehindHead => return None,
            Misbehavior::ClosesBehindSecondHead if heads > 1 => return None,
            Misbehavior::StallsInBody => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            Misbehavior::Resets => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
                return None;
            }
            Misbehavior::ClosesInBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.ok()?;
                return None;
            }
            Misbehavior::AnswersTwice => {
                stream.write_all(OK).await.ok()?;
                OK
            }
            Misbehavior::WrongLength => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfaulty and more"
            }
            Misbehavior::Babbles => b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
            Misbehavior::Unavailable => {
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
            }
            Misbehavior::AnswersUnasked
            | Misbehavior::Slow
            | Misbehavior::ClosesBehindSecondHead => OK,
        };
        let at_once = if manner == Misbehavior::Slow { 1 } else { answer.len() };
        for part in answer.chunks(at_once) {
            stream.write_all(part).await.ok()?;
            tokio::task::yield_now().await;
        }
    }
}

/// An address that accepts connections for a while and then drops packets, as behind a firewall.
pub(crate) struct Walled {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    filling: Vec<TcpStream>,
}

impl Walled {
    pub(crate) fn open() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = socket.local_addr().expect("a bound socket");
        let listener = socket.listen(1).expect("a queue");
        Self { address, listener, filling: Vec::new() }
    }

    /// Takes connections until one has sent a request.
    pub(crate) async fn accept(&self) -> (TcpStream, String) {
        loop {
            let (mut stream, _) = self.listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_buf(&mut head).await {
                    Ok(1..) => {}
                    // A look at its health.
                    Ok(0) | Err(_) => break,
                }
            }
            if !head.is_empty() {
                return (stream, String::from_utf8_lossy(&head).into_owned());
            }
        }
    }

    /// From now on connections wait: the kernel's queue is full.
    pub(crate) async fn shut(&mut self) {
        let soon = Duration::from_millis(300);
        while let Ok(stream) = tokio::time::timeout(soon, TcpStream::connect(self.address)).await {
            self.filling.push(stream.expect("a connection"));
        }
    }
}
