//! The cheapest upstream there is: answers every head with the same 128 bytes, so that what is
//! measured is the proxy before it. One thread, no parsing beyond the end of a head.
//!
//! `upstream ADDRESS`, for example `upstream 127.0.0.1:9101`; ends when it is killed.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BODY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

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
    let response =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n{BODY}");
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        while let Some(end) = buffer[..filled].windows(4).position(|it| it == b"\r\n\r\n") {
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
            stream.write_all(response.as_bytes()).await?;
        }
    }
}
