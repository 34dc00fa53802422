//! Clients for what `wrk` does not measure: the memory that idle connections cost, messages of WebSockets,
//! and latencies at a rate that is given.
//!
//! - `load idle ADDRESS COUNT PID` opens connections, has one answer on each, and tells how many bytes
//!   of resident memory each of them costs the process.
//! - `load tunnels ADDRESS COUNT PID`: the same with WebSockets.
//! - `load messages ADDRESS CONNECTIONS SECONDS` sends a small message in each of so many WebSockets, and the
//!   next one when it has come back, and tells how many there were.
//! - `load rate ADDRESS RATE SECONDS` asks so many times a second, whether answers come or not, and
//!   tells the percentiles of the time from when each question was due to the end of its answer.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    sync::mpsc,
};

const CONNECTIONS: usize = 64;

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A frame of binary data, masked as those of clients are, with 32 bytes in it: RFC 6455, section 5.2.
const MESSAGE: &[u8; 38] = b"\x82\xa0\x01\x02\x03\x040123456789abcdef0123456789abcdef";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let number = |text: &str| text.parse::<usize>().map_err(io::Error::other);
    match words[..] {
        ["idle", address, count, pid] => {
            runtime.block_on(idle(address, "GET / HTTP/1.1\r\n", number(count)?, pid))
        }
        ["tunnels", address, count, pid] => {
            runtime.block_on(idle(address, WEBSOCKET, number(count)?, pid))
        }
        ["messages", address, count, seconds] => {
            runtime.block_on(messages(address, number(count)?, number(seconds)?))
        }
        ["rate", address, rate, seconds] => {
            runtime.block_on(rate_of(address, number(rate)?, number(seconds)?))
        }
        _ => {
            eprintln!(
                "load idle|tunnels ADDRESS COUNT PID, load messages ADDRESS CONNECTIONS SECONDS, or \
                 load rate ADDRESS RATE SECONDS"
            );
            Ok(())
        }
    }
}

async fn idle(address: &str, ask: &str, count: usize, pid: &str) -> io::Result<()> {
    // Memory that does not depend on the number of clients is not counted.
    let mut open = Vec::new();
    connect(&mut open, address, ask, 100).await?;
    let before = resident(pid)?;
    connect(&mut open, address, ask, count).await?;
    // What was only needed for asking is given back within a second or two.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = resident(pid)?;
    println!("{}", after.saturating_sub(before) / count);
    Ok(())
}

async fn connect(
    open: &mut Vec<TcpStream>,
    address: &str,
    ask: &str,
    count: usize,
) -> io::Result<()> {
    let request = format!("{ask}Host: a.test\r\n\r\n");
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await?;
        answer(&mut stream, &request).await?;
        open.push(stream);
    }
    Ok(())
}

async fn messages(address: &str, connections: usize, seconds: usize) -> io::Result<()> {
    let mut open = Vec::new();
    connect(&mut open, address, WEBSOCKET, connections).await?;
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let talk = |mut stream: TcpStream| async move {
        stream.set_nodelay(true)?;
        let (mut count, mut back) = (0_u64, [0; MESSAGE.len()]);
        while Instant::now() < end {
            stream.write_all(MESSAGE).await?;
            stream.read_exact(&mut back).await?;
            if back != *MESSAGE {
                return Err(io::Error::other("a message did not come back as it was"));
            }
            count += 1;
        }
        Ok(count)
    };
    let talking: Vec<_> = open.into_iter().map(|it| tokio::task::spawn_local(talk(it))).collect();
    let mut count = 0;
    for it in talking {
        count += it.await.map_err(io::Error::other)??;
    }
    println!("{count} messages in {seconds}s");
    Ok(())
}

/// Asks, and reads a head and the 128 bytes behind it, if there is a length.
async fn answer(stream: &mut TcpStream, request: &str) -> io::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    let mut seen = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = seen.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let is_tunnel = seen.starts_with(b"HTTP/1.1 101 ");
        if is_tunnel || seen.len() >= end + 4 + 128 {
            return Ok(());
        }
    }
}

/// Resident bytes of a process.
fn resident(pid: &str) -> io::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    Ok(kilobytes.ok_or_else(|| io::Error::other("no VmRSS"))? * 1024)
}

async fn rate_of(address: &str, rate: usize, seconds: usize) -> io::Result<()> {
    let took = Rc::new(RefCell::new(Vec::with_capacity(rate * seconds)));
    let mut askers = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (asker, mut due) = mpsc::unbounded_channel::<Instant>();
        let took = Rc::clone(&took);
        askers.push(asker);
        tasks.push(tokio::task::spawn_local(async move {
            while let Some(due) = due.recv().await {
                answer(&mut stream, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await?;
                took.borrow_mut().push(due.elapsed());
            }
            Ok::<_, io::Error>(())
        }));
    }
    let begin = Instant::now();
    let total = rate * seconds;
    let mut asked = 0;
    while asked < total {
        let due_by_now = (begin.elapsed().as_secs_f64() * rate as f64) as usize;
        for number in asked..due_by_now.min(total) {
            let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
            askers[number % CONNECTIONS].send(due).map_err(io::Error::other)?;
        }
        asked = due_by_now.min(total).max(asked);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(askers);
    for task in tasks {
        task.await.map_err(io::Error::other)??;
    }
    let mut took = took.borrow_mut();
    took.sort_unstable();
    let percentile = |it: f64| took[((took.len() - 1) as f64 * it) as usize].as_micros();
    println!("{} {} {}", percentile(0.5), percentile(0.99), percentile(0.999));
    Ok(())
}
