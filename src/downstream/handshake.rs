//! What happens on a connection before its first request: the PROXY protocol and the TLS handshake.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    bind::ListenerContext,
    peer::{PeerIdentity, TlsDetails},
};
use crate::{
    net::Transport,
    tls::{ALPN_HTTP2, ClientCertificate, HandshakeConfig},
};
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// Why a connection failed before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// A listed proxy sent no valid PROXY protocol header.
    #[error("PROXY protocol: {0}")]
    ProxyHeader(io::Error),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Handshake(io::Error),
}

/// A connection that is ready for requests.
pub(super) struct AcceptedConnection {
    pub(super) transport: Transport,
    /// The client, which is the one that the PROXY protocol header names, if there is one.
    pub(super) identity: PeerIdentity,
    pub(super) tls: Option<Box<TlsDetails>>,
    /// Whether ALPN selected HTTP/2.
    pub(super) is_http2: bool,
}

/// `PROXY UNKNOWN\r\n`, the shortest possible header.
const PROXY_MIN: usize = 15;

/// The longest text header, and the longest binary header that Flipgate accepts. Real ones have some hundred bytes.
const PROXY_TEXT_MAX: usize = 107;
const PROXY_BINARY_MAX: usize = 4096;

/// The signature of a binary header, and its size up to and including the length.
const PROXY_BINARY: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY_BINARY_HEAD: usize = 16;

/// How long a rejected client has to read the response or alert.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The first byte of every TLS handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE_RECORD: u8 = 22;

const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Proxy-Status: flipgate; error=tls_protocol_error\r\n\
    Cache-Control: no-store\r\n\
    Connection: close\r\n\
    Content-Length: 52\r\n\r\n\
    400 Bad Request: this port speaks TLS; use https://\n";

/// Reads the PROXY protocol header, if the peer must send one, and does the TLS handshake, if the listener uses TLS.
/// Dropping the future closes the connection.
///
/// # Errors
///
/// The connection ended early, the header is invalid, or the handshake failed.
pub(super) async fn accept_handshake(
    mut stream: TcpStream,
    peer: SocketAddr,
    listener_context: &Arc<ListenerContext>,
) -> Result<AcceptedConnection, HandshakeError> {
    let mut identity = PeerIdentity::Known(peer);
    if listener_context.expects_proxy_header(peer.ip()) {
        let announced =
            read_proxy_header(&mut stream).await.map_err(HandshakeError::ProxyHeader)?;
        identity = announced.map_or(PeerIdentity::UnknownBehindProxy(peer), PeerIdentity::Known);
    }
    let Some(tls) = &listener_context.tls else {
        let transport = Transport::Tcp(stream);
        return Ok(AcceptedConnection { transport, identity, tls: None, is_http2: false });
    };
    let acceptance = tls.current();
    let stream = handshake(stream, &acceptance).await.map_err(HandshakeError::Handshake)?;
    let session = stream.get_ref().1;
    let client_certificate = session.peer_certificates().and_then(ClientCertificate::of);
    let details = TlsDetails {
        names: acceptance.names(session.server_name()),
        makes_internal: acceptance.makes_internal && client_certificate.is_some(),
        client_certificate,
    };
    let is_http2 = session.alpn_protocol() == Some(ALPN_HTTP2);
    let transport = Transport::Tls(Box::new(stream.into()));
    Ok(AcceptedConnection { transport, identity, tls: Some(Box::new(details)), is_http2 })
}

/// Does the TLS handshake. A client that fails has time to read why.
async fn handshake(
    mut stream: TcpStream,
    acceptance: &HandshakeConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE_RECORD] {
        stream.write_all(NOT_TLS).await?;
        shut_down_and_drain(stream).await;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the first byte is not a TLS handshake record",
        ));
    }
    match acceptance.acceptor().accept(stream).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, stream)) => {
            shut_down_and_drain(stream).await;
            Err(error)
        }
    }
}

/// Closes the sending side and discards what still arrives for a moment: closing a socket with unread bytes resets the
/// connection, and the client may lose the last response.
async fn shut_down_and_drain(mut stream: TcpStream) {
    let shutdown = async {
        stream.shutdown().await?;
        let mut left = [0; 1024];
        while stream.read(&mut left).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection is closed either way.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, shutdown).await;
}

/// Reads a header, and no byte after it. `None` if the header names no client: a health check of the proxy, or a client
/// that the proxy does not know.
async fn read_proxy_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; PROXY_MIN];
    stream.read_exact(&mut header).await?;
    if header.starts_with(PROXY_BINARY) {
        header.push(stream.read_u8().await?);
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > PROXY_BINARY_MAX {
            return Err(invalid("the header is longer than 4096 bytes"));
        }
        header.resize(PROXY_BINARY_HEAD + length, 0);
        stream.read_exact(&mut header[PROXY_BINARY_HEAD..]).await?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            let mut ahead = [0; PROXY_TEXT_MAX - PROXY_MIN];
            let seen = stream.peek(&mut ahead).await?;
            let count = memchr::memchr(b'\n', &ahead[..seen]).map_or(seen, |it| it + 1);
            if count == 0 || header.len() + count > PROXY_TEXT_MAX {
                return Err(invalid("the header is incomplete or longer than 107 bytes"));
            }
            stream.read_exact(&mut ahead[..count]).await?;
            header.extend_from_slice(&ahead[..count]);
        }
    } else {
        return Err(invalid("the header is missing"));
    }
    let (header, _) = ProxyHeader::parse(&header, ParseConfig::default()).map_err(invalid)?;
    Ok(header.proxied_address().map(|it| it.source))
}

fn invalid(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// The result of reading a header from these bytes, and the bytes left unread.
    async fn read(parts: &[&[u8]]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let (mut server, _) = listener.accept().await.expect("the connection");
        let sending = async {
            for part in parts {
                client.write_all(part).await.expect("written");
                tokio::task::yield_now().await;
            }
            client.shutdown().await.expect("ended");
        };
        let (found, ()) = tokio::join!(read_proxy_header(&mut server), sending);
        let mut left = Vec::new();
        server.read_to_end(&mut left).await.expect("the rest");
        (found, left)
    }

    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x05\x7f\0\0\x01\x30\x39\x01\xbb";

    #[tokio::test]
    async fn both_versions_are_read_and_not_a_byte_after_them() {
        let v1 = b"PROXY TCP4 203.0.113.5 127.0.0.1 12345 443\r\n";
        let client: SocketAddr = "203.0.113.5:12345".parse().expect("an address");
        for header in [&v1[..], V2] {
            let (found, left) = read(&[header, b"GET /"]).await;
            assert_eq!((found.expect("a valid header"), &*left), (Some(client), &b"GET /"[..]));
            let bytes: Vec<&[u8]> = header.chunks(1).collect();
            assert_eq!(read(&bytes).await.0.expect("a valid header"), Some(client));
        }
        for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
            let (found, left) = read(&[header, b"GET /"]).await;
            assert_eq!((found.expect("a valid header"), &*left), (None, &b"GET /"[..]));
        }
    }

    #[tokio::test]
    async fn an_invalid_header_is_an_error() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let huge = [&PROXY_BINARY[..], b"\x21\x11\xff\xff"].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 1.2.3.4 name 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
            b"PROXY TCP4 1.2",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
            &V2[..20],
            &long,
            &huge,
            b"",
        ] {
            assert!(read(&[bytes]).await.0.is_err(), "{}", bytes.escape_ascii());
        }
    }
}
