//! Which connections to an endpoint are used for another request.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{LONG, Scripted, TestProxy};

/// The next connection that has sent a head, and that head.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, String) {
    loop {
        let accepted = timeout(LONG, listener.accept()).await;
        let (mut stream, _) = accepted.expect("one in time").expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(1..) => {}
                // A health check.
                Ok(0) | Err(_) => break,
            }
        }
        if head.ends_with(b"\r\n\r\n") {
            return (stream, String::from_utf8_lossy(&head).into_owned());
        }
    }
}

#[tokio::test]
async fn content_behind_an_answer_that_has_none_is_not_the_next_answer() {
    // An application sent the content after HEAD in a packet of its own. It came after the next request had
    // been sent on that connection, and was taken for its answer.
    for (method, status) in [("HEAD", "200 OK"), ("GET", "304 Not Modified")] {
        for told in ["Content-Length: 45", "Transfer-Encoding: chunked"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let proxy = TestProxy::at(listener.local_addr().expect("a bound socket"));
            let mut client = proxy.public().await;
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let (mut first, _) = accept(&listener).await;
            let head = format!("HTTP/1.1 {status}\r\n{told}\r\n\r\n");
            first.write_all(head.as_bytes()).await.expect("open");
            let code = client.head().await.status.to_string();
            assert!(status.starts_with(&code), "{method} {told}");
            client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let (mut second, head) = accept(&listener).await;
            assert!(head.starts_with("GET /next "), "{method} {told}: {head}");
            let late = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale";
            // It may be closed already.
            drop(first.write_all(late).await);
            let good = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh";
            second.write_all(good).await.expect("open");
            assert_eq!(client.answer().await.text(), "fresh", "{method} {told}");
        }
    }
}

#[tokio::test]
async fn a_connection_is_reused_after_a_response_without_content() {
    for (method, answer, connections) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 2),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 2),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 1),
        ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 2),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 2),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n", 1),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", 1),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 2),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 1),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1),
    ] {
        let upstream = Scripted::start(answer).await;
        let proxy = TestProxy::at(upstream.address);
        let mut client = proxy.public().await;
        for _ in 0..2 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(client.head().await.status.to_string(), answer[9..12]);
        }
        assert_eq!(upstream.connections(), connections, "{method} {answer:?}");
    }
}
