//! Many WebSockets are moved over the spread, at an even rate, and every message is delivered in the end.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{CLOSE, HANDSHAKE, SWITCH};
use crate::support::{LONG, TestProxy, client};

/// Over which the WebSockets are moved.
const SPREAD: Duration = Duration::from_secs(10);

/// Messages that each client wants: numbered from 1.
const MESSAGES: u32 = 30;

/// As many as the open files allow, with some left: each has four sockets in this process, and 5,000 would need more
/// than 20,000 files.
fn count() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    (files.saturating_sub(2000) / 4).clamp(20, 4000)
}

/// An application: the first frame of a client is the number of the last message that it has. When the test has begun,
/// every message after that follows: one at once, and then one every half a second, until the client closes.
async fn application(begun: &watch::Sender<bool>) -> (std::net::SocketAddr, JoinSet<()>) {
    let begun = begun.subscribe();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            // A client that leaves is no error of the application.
            let begun = begun.clone();
            connections.spawn(async move { drop(serve(stream, begun).await) });
        }
    });
    (address, tasks)
}

async fn serve(mut stream: TcpStream, mut begun: watch::Receiver<bool>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(SWITCH.as_bytes()).await?;
    let last = stream.read_frame().await?;
    let last = u32::from_be_bytes(last[6..].try_into().expect("a number, masked with zeros"));
    drop(begun.wait_for(|it| *it).await);
    let (mut pace, mut byte) = (tokio::time::interval(Duration::from_millis(500)), [0]);
    for number in last + 1..=MESSAGES {
        tokio::select! {
            biased;
            // It only sends its Close frame.
            _ = stream.peek(&mut byte) => return Ok(()),
            _ = pace.tick() => {}
        }
        // In two fragments, so that there are borders that are none of a message.
        let [a, b, c, d] = number.to_be_bytes();
        stream.write_all(&[0x02, 2, a, b]).await?;
        stream.write_all(&[0x80, 2, c, d]).await?;
    }
    // The client leaves when it has all.
    while stream.read_frame().await.is_ok() {}
    Ok(())
}

trait ReadFrame {
    /// A frame of less than 126 bytes, with its header and its mask.
    async fn read_frame(&mut self) -> std::io::Result<Vec<u8>>;
}

impl ReadFrame for TcpStream {
    async fn read_frame(&mut self) -> std::io::Result<Vec<u8>> {
        let mut frame = vec![0; 2];
        self.read_exact(&mut frame).await?;
        let mask = if frame[1] & 0x80 != 0 { 4 } else { 0 };
        frame.resize(2 + mask + usize::from(frame[1] & 0x7f), 0);
        self.read_exact(&mut frame[2..]).await?;
        Ok(frame)
    }
}

/// A client that wants every message once and in order, and comes back where it was.
async fn follow(
    number: usize,
    to: std::net::SocketAddr,
    opened: Arc<Semaphore>,
    closed: Arc<Mutex<Vec<Instant>>>,
) -> usize {
    let (mut last, mut connections) = (0_u32, 0);
    loop {
        // No client address has more connections than one may have.
        let from = format!("127.0.1.{}", 1 + number % 200);
        let mut stream = client::connect(&from, to).await;
        stream.write_all(HANDSHAKE.as_bytes()).await.expect("an open connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let resume = [&[0x82, 0x84, 0, 0, 0, 0], &last.to_be_bytes()[..]].concat();
        stream.write_all(&resume).await.expect("an open connection");
        connections += 1;
        if connections == 1 {
            opened.add_permits(1);
        }
        let mut begun: Option<[u8; 2]> = None;
        loop {
            let frame =
                stream.read_frame().await.expect("a frame, and no end without a Close frame");
            if frame[0] == 0x88 {
                assert_eq!(frame, CLOSE);
                assert_eq!(begun, None, "it came within a message");
                closed.lock().expect("no panic inside").push(Instant::now());
                let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4];
                stream.write_all(&close).await.expect("an open connection");
                assert_eq!(stream.read(&mut [0]).await.expect("no reset"), 0, "nothing follows");
                break;
            }
            match (frame[0], begun.take()) {
                (0x02, None) => begun = Some([frame[2], frame[3]]),
                (0x80, Some([a, b])) => {
                    let message = u32::from_be_bytes([a, b, frame[2], frame[3]]);
                    assert_eq!(message, last + 1, "none is lost, and none comes twice");
                    last = message;
                }
                other => panic!("an unexpected frame: {other:?}"),
            }
            if last == MESSAGES {
                return connections;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_websockets_move_at_the_declared_rate_and_lose_no_message() {
    let count = count();
    let begun = watch::Sender::new(false);
    let ((blue, _blue), (green, _green)) = (application(&begun).await, application(&begun).await);
    let proxy = TestProxy::build()
        .with("[limits]\nconnections = 9000\nconnections_per_client = 9000")
        .service_of("web", "*", "/", &[blue], &[green])
        .services(&format!(
            "[service.web.drain]\nwebsocket = {{ patience = \"0s\", spread = \"{}s\" }}",
            SPREAD.as_secs()
        ))
        .start();
    let (opened, closed) = (Arc::new(Semaphore::new(0)), Arc::default());
    let mut clients = JoinSet::new();
    for number in 0..count {
        clients.spawn(follow(number, proxy.public, Arc::clone(&opened), Arc::clone(&closed)));
        if number % 100 == 99 {
            // The queue of the listener is not endless.
            let so_far = u32::try_from(number + 1).expect("some thousands");
            let all = tokio::time::timeout(LONG, opened.acquire_many(so_far)).await;
            drop(all.expect("they are open in time").expect("an open semaphore"));
        }
    }
    let begin = Instant::now();
    begun.send_replace(true);
    proxy.promote(&[("web", "green")]).await;
    let mut moved = 0;
    while let Some(connections) = clients.join_next().await {
        moved += usize::from(connections.expect("every message came") == 2);
    }
    // Each that was open at the flip has moved once.
    let closed = std::mem::take(&mut *closed.lock().expect("no panic inside"));
    assert_eq!((closed.len(), moved), (count, count));
    // At an even rate: 5,000 over 30 s would be 167 a second. Workers look twice a second, and the machine is busy.
    let rate = count / usize::try_from(SPREAD.as_secs()).expect("seconds");
    let after = |it: &Instant| it.duration_since(begin);
    for from in 0..SPREAD.as_secs() {
        let second = Duration::from_secs(from)..Duration::from_secs(from + 2);
        let in_two = closed.iter().filter(|it| second.contains(&after(it))).count();
        assert!(
            in_two <= 3 * rate + 10,
            "{in_two} in the two seconds from {from}, of {rate} a second"
        );
    }
    let first_half = closed.iter().filter(|it| after(it) < SPREAD / 2).count();
    assert!(first_half > count / 4, "{first_half} of {count} in the first half");
    let last = closed.iter().map(after).max().expect("many");
    assert!(last > SPREAD * 3 / 4, "the last after {last:?}");
    let series = "flipgate_streams_ended_total{color=\"blue\",how=\"closed\",kind=\"websocket\",service=\"web\"}";
    assert!((proxy.metric(series).await - count as f64).abs() < 0.5);
}
