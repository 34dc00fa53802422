//! An upstream that keeps every byte that it gets, and sends scripted responses.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{LONG, eventually};

/// An upstream that answers each head with the same bytes, whatever was asked. Ends when it is
/// dropped.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    answer: Vec<u8>,
    closes: bool,
    seen: Mutex<Vec<u8>>,
    open: watch::Sender<usize>,
    connections: AtomicUsize,
}

impl Scripted {
    pub(crate) async fn start(answer: impl AsRef<[u8]>) -> Self {
        Self::new(answer.as_ref(), false).await
    }

    /// One that closes behind its answer.
    pub(crate) async fn closing(answer: impl AsRef<[u8]>) -> Self {
        Self::new(answer.as_ref(), true).await
    }

    async fn new(answer: &[u8], closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let answer = answer.to_vec();
        let (seen, open) = (Mutex::default(), watch::Sender::new(0));
        let connections = AtomicUsize::new(0);
        let state = Arc::new(State { answer, closes, seen, open, connections });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                connections.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { address, state, _tasks: tasks }
    }

    /// What came since this was called the last time.
    pub(crate) fn take(&self) -> String {
        let seen = std::mem::take(&mut *self.state.seen.lock().expect("no panic inside"));
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// What came since it was taken the last time.
    pub(crate) fn seen(&self) -> String {
        let seen = self.state.seen.lock().expect("no panic inside");
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Waits until this text has come, and returns everything up to now.
    pub(crate) async fn wait_for(&self, text: &str) -> String {
        eventually(&format!("{text:?} upstream"), async || self.seen().contains(text)).await;
        self.seen()
    }

    /// Connections that carried a request.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// Waits until no client is connected.
    pub(crate) async fn left(&self) {
        let mut open = self.state.open.subscribe();
        let gone = tokio::time::timeout(LONG, open.wait_for(|it| *it == 0)).await;
        assert!(gone.is_ok(), "a client stays connected");
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    state.open.send_modify(|it| *it += 1);
    let mut unseen = Vec::new();
    let mut is_first = true;
    loop {
        let begin = unseen.len();
        match stream.read_buf(&mut unseen).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
        state.seen.lock().expect("no panic inside").extend_from_slice(&unseen[begin..]);
        let mut is_answered = false;
        while let Some(end) = unseen.windows(4).position(|it| it == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unseen[..end]).into_owned();
            unseen.drain(..end + 4);
            // The end of a chunked body looks like one, but has no version.
            if head.contains(" HTTP/1.") {
                if std::mem::take(&mut is_first) {
                    state.connections.fetch_add(1, SeqCst);
                }
                is_answered = stream.write_all(&state.answer).await.is_ok();
            }
        }
        if state.closes && is_answered {
            break;
        }
    }
    drop(stream);
    state.open.send_modify(|it| *it -= 1);
}
