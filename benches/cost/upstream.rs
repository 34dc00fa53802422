//! The cheapest upstream there is, so that what is measured is the proxy before it: every head is
//! answered with the same 128 bytes, `/large` with 1 MB, `/ws` with a tunnel in which every byte comes
//! back as it was. One thread, no parsing beyond the end of a head.
//!
//! `upstream ADDRESS`, for example `upstream 127.0.0.1:9101`; ends when it is killed.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BODY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const LARGE: usize = 1024 * 1024;

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn main() -> io::Result<()> {
    let Some(address) = std::env::args().skip(1).find(|it| !it.starts_with('-')) else {
        eprintln!("which address? upstream 127.0.0.1:9101");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(answer(stream));
        }
    })
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let head = |length| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n")
    };
    let small = format!("{}{BODY}", head(BODY.len())).into_bytes();
    let mut large = Vec::new();
    let mut buffer = vec![0; 4 * 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        while let Some(end) = buffer[..filled].windows(4).position(|it| it == b"\r\n\r\n") {
            let answer = if buffer.starts_with(b"GET /large ") {
                if large.is_empty() {
                    large = head(LARGE).into_bytes();
                    large.resize(large.len() + LARGE, b'x');
                }
                &large
            } else if buffer.starts_with(b"GET /ws ") {
                SWITCHING.as_bytes()
            } else {
                &small
            };
            let is_tunnel = answer == SWITCHING.as_bytes();
            stream.write_all(answer).await?;
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
            if is_tunnel {
                return echo(stream, buffer, filled).await;
            }
        }
    }
}

/// Sends back whatever comes, beginning with what has come already. A frame of a client goes back masked, which
/// no server does; the proxy does not read frames.
async fn echo(mut stream: TcpStream, mut buffer: Vec<u8>, filled: usize) -> io::Result<()> {
    stream.write_all(&buffer[..filled]).await?;
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}
