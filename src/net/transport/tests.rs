//! Which idle connections can be reused.

use std::{io::Write, os::unix::net::UnixStream as StdUnixStream, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// The peer's end, which writes without the runtime.
type Plain = std::net::TcpStream;

async fn pair() -> (TcpStream, Plain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let theirs = theirs.expect("a connection").0.into_std().expect("a socket");
    theirs.set_nonblocking(false).expect("a socket");
    (ours.expect("a connection"), theirs)
}

/// A TLS connection that has carried a request, and the server's end of it.
async fn secured(tickets: usize) -> (Transport, Plain, ServerConnection) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_safe_default_protocol_versions().expect("versions");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut server =
        server.with_no_client_auth().with_single_cert(vec![certificate], key).expect("they fit");
    server.send_tls13_tickets = tickets;
    let client = ClientConfig::builder_with_provider(provider);
    let client = client.with_safe_default_protocol_versions().expect("versions");
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let (ours, theirs) = pair().await;
    theirs.set_nonblocking(true).expect("a socket");
    let theirs = TcpStream::from_std(theirs).expect("a socket");
    let name = ServerName::try_from("a.test").expect("a name");
    let (ours, theirs) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, ours),
        TlsAcceptor::from(Arc::new(server)).accept(theirs)
    );
    let (mut ours, mut theirs) = (ours.expect("a handshake"), theirs.expect("a handshake"));
    let mut seen = [0; 3];
    ours.write_all(b"ask").await.expect("open");
    theirs.read_exact(&mut seen).await.expect("open");
    let (theirs, session) = theirs.into_inner();
    let theirs = theirs.into_std().expect("a socket");
    theirs.set_nonblocking(false).expect("a socket");
    (Transport::Tls(Box::new(ours.into())), theirs, session)
}

/// Writes the pending records of the server's session.
fn flush(session: &mut ServerConnection, mut to: &Plain) {
    while session.wants_write() {
        session.write_tls(&mut to).expect("open");
    }
}

// The tests do not let the runtime poll the socket between the peer's write and the check, so the runtime does not know
// yet that something has arrived.

#[tokio::test]
async fn unread_bytes_make_a_plain_connection_unusable() {
    let unsolicited = b"HTTP/1.1 408 Request Timeout\r\n\r\n".as_slice();
    for bytes in [b"x".as_slice(), b"\r\n", unsolicited] {
        let (ours, mut theirs) = pair().await;
        let mut transport = Transport::Tcp(ours);
        assert!(transport.check_reusable());
        theirs.write_all(bytes).expect("open");
        assert!(!transport.check_reusable(), "{bytes:?}");
    }
    let (ours, theirs) = pair().await;
    let mut transport = Transport::Tcp(ours);
    drop(theirs);
    assert!(!transport.check_reusable(), "the end");

    let (ours, mut theirs) = StdUnixStream::pair().expect("sockets");
    ours.set_nonblocking(true).expect("a socket");
    let mut transport = Transport::Unix(UnixStream::from_std(ours).expect("a socket"));
    assert!(transport.check_reusable());
    theirs.write_all(b"x").expect("open");
    assert!(!transport.check_reusable(), "a unix socket");
}

#[tokio::test]
async fn a_reset_makes_a_connection_unusable() {
    let (ours, theirs) = pair().await;
    let mut transport = Transport::Tcp(ours);
    SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(theirs);
    assert!(!transport.check_reusable());
}

#[tokio::test]
async fn a_close_notify_makes_a_connection_unusable_while_its_socket_is_open() {
    let (mut transport, theirs, mut session) = secured(0).await;
    assert!(transport.check_reusable());
    session.send_close_notify();
    flush(&mut session, &theirs);
    assert!(!transport.check_reusable());
    assert!(!transport.check_reusable(), "and it stays unusable");
}

#[tokio::test]
async fn an_unsolicited_response_over_tls_makes_a_connection_unusable() {
    let (mut transport, theirs, mut session) = secured(0).await;
    session.writer().write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").expect("open");
    flush(&mut session, &theirs);
    assert!(!transport.check_reusable());
    // The decrypted bytes are still there.
    assert!(!transport.check_reusable() && !transport.is_reusable());
}

#[tokio::test]
async fn a_partial_record_and_plain_bytes_make_a_tls_connection_unusable() {
    let (mut transport, theirs, mut session) = secured(0).await;
    session.writer().write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").expect("open");
    let mut record = Vec::new();
    session.write_tls(&mut record).expect("memory");
    (&theirs).write_all(&record[..record.len() - 1]).expect("open");
    assert!(!transport.check_reusable());

    let (mut transport, theirs, _session) = secured(0).await;
    (&theirs).write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").expect("open");
    assert!(!transport.check_reusable());

    let (mut transport, theirs, _session) = secured(0).await;
    drop(theirs);
    assert!(!transport.check_reusable());
}

#[tokio::test]
async fn session_tickets_leave_a_connection_usable() {
    let (mut transport, theirs, mut session) = secured(4).await;
    let Transport::Tls(stream) = &transport else { panic!("it is TLS") };
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let waiting = SockRef::from(stream.get_ref().0).peek(&mut byte);
    assert_eq!(waiting.ok(), Some(1), "the tickets are unread");
    assert!(transport.check_reusable());
    assert!(transport.is_reusable());
    // The connection still works.
    let mut seen = [0; 5];
    transport.write_all(b"again").await.expect("open");
    session.writer().write_all(b"reply").expect("open");
    flush(&mut session, &theirs);
    transport.read_exact(&mut seen).await.expect("open");
    assert_eq!(&seen, b"reply");
}
