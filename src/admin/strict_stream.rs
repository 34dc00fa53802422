//! Reads requests as strictly as the data plane does.
//!
//! The HTTP library of the API accepts lines that end in a bare LF, a target and a `Host` that differ, and more. A
//! proxy in front of the API could see other requests in the same bytes. So the reader of the data plane reads each
//! head first, and the library gets only valid requests.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::AdminConnection;
use crate::http1::{Decoder, HeadScanner, RequestHead};

/// A connection on which only strict HTTP/1 is read. Instead of a malformed request, the library reads a request to
/// [`REJECTED`] and then nothing more; a malformed body ends.
pub(super) struct StrictStream<S> {
    stream: S,
    caller: Arc<AdminConnection>,
    /// Bytes that were read and not passed on.
    bytes: Vec<u8>,
    /// How many of them are valid.
    good: usize,
    expected: Expected,
}

/// What comes after the valid bytes.
enum Expected {
    Head(HeadScanner),
    Body(Box<Decoder>),
    /// Nothing: the response to the last request is in progress. An end would stop the library from sending it.
    Nothing,
    /// The end, within a body.
    End,
}

/// The path of the request that replaces a malformed one.
pub(super) const REJECTED: &str = "/.rejected";

const AT_ONCE: usize = 8 * 1024;

// === impl StrictStream ===

impl<S> StrictStream<S> {
    pub(super) fn new(stream: S, caller: Arc<AdminConnection>) -> Self {
        let expected = Expected::Head(HeadScanner::new(RequestHead::BYTES_MAX));
        Self { stream, caller, bytes: Vec::new(), good: 0, expected }
    }

    /// Checks the bytes after the valid ones.
    fn look(&mut self) {
        loop {
            let left = &self.bytes[self.good..];
            match &mut self.expected {
                Expected::Nothing | Expected::End => return,
                _ if left.is_empty() => return,
                Expected::Head(scan) => {
                    if !scan.is_worth_parsing(left) {
                        return;
                    }
                    match RequestHead::parse(left) {
                        Ok(None) => return,
                        Ok(Some(head)) => {
                            self.good += head.len;
                            self.expected = Expected::Body(Box::new(Decoder::new(head.framing)));
                        }
                        Err(reject) => return self.reject(reject.to_string()),
                    }
                }
                Expected::Body(decoder) => {
                    // The decoder moves content, so it gets a copy.
                    let used = match decoder.decode(&mut left.to_vec()) {
                        Ok(piece) => piece.consumed,
                        Err(error) => return self.reject(error.to_string()),
                    };
                    self.good += used;
                    if decoder.is_done() {
                        self.expected = Expected::Head(HeadScanner::new(RequestHead::BYTES_MAX));
                    } else if used == 0 {
                        return;
                    }
                }
            }
        }
    }

    fn reject(&mut self, why: String) {
        self.bytes.truncate(self.good);
        self.caller.reject(why);
        if let Expected::Body(_) = self.expected {
            self.expected = Expected::End;
        } else {
            self.expected = Expected::Nothing;
            let request = format!("GET {REJECTED} HTTP/1.0\r\nHost: localhost\r\n\r\n");
            self.bytes.extend_from_slice(request.as_bytes());
            self.good = self.bytes.len();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let strict = self.get_mut();
        while strict.good == 0 {
            match strict.expected {
                Expected::Nothing => return Poll::Pending,
                Expected::End => return Poll::Ready(Ok(())),
                Expected::Head(_) | Expected::Body(_) => {}
            }
            let mut read = [0; AT_ONCE];
            let mut read = ReadBuf::new(&mut read);
            ready!(Pin::new(&mut strict.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                // An end within a head is one without a request.
                return Poll::Ready(Ok(()));
            }
            strict.bytes.extend_from_slice(read.filled());
            strict.look();
        }
        let count = strict.good.min(room.remaining());
        room.put_slice(&strict.bytes[..count]);
        strict.bytes.drain(..count);
        strict.good -= count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::admin::connections::AdminConnections;

    /// The requests that the library reads of these bytes, sent in parts of `size`.
    async fn seen(sent: &str, size: usize) -> (String, Option<String>) {
        let place = AdminConnections::new(1).open().expect("a place");
        let (ours, mut theirs) = duplex(64);
        let mut strict = StrictStream::new(ours, Arc::clone(&place.caller));
        let mut all = String::new();
        let sending = async {
            for part in sent.as_bytes().chunks(size) {
                // The rest is not read.
                if theirs.write_all(part).await.is_err() {
                    return;
                }
            }
            drop(theirs);
        };
        let reading = async {
            let mut part = [0; 100];
            loop {
                // Nothing is read after a rejected head.
                let read = tokio::select! {
                    biased;
                    read = strict.read(&mut part) => read.expect("no error"),
                    () = std::future::ready(()), if place.caller.rejected().is_some() => 0,
                };
                match read {
                    0 => break,
                    count => all.push_str(std::str::from_utf8(&part[..count]).expect("UTF-8")),
                }
            }
            drop(strict);
        };
        tokio::join!(sending, reading);
        (all, place.caller.rejected())
    }

    #[tokio::test]
    async fn strict_input_is_passed_on_unchanged() {
        let sent = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nb\n\nbGET /b HTTP/1.1\r\nHost: a\r\n\r\n\
                    PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n\n\n\r\n0\r\nA: b\r\n\r\n\
                    PUT /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                    1\r\na\r\n2\r\nbc\r\n1;x\r\nd\r\n0\r\n\r\nGET /e HTTP/1.0\r\nHost: a\r\n\r\n";
        for size in [1, 7, 1000] {
            assert_eq!(seen(sent, size).await, (sent.to_owned(), None), "{size}");
        }
    }

    #[tokio::test]
    async fn a_malformed_request_is_replaced_by_one_that_is_refused_with_the_reason() {
        let good = "GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            for size in [1, 1000] {
                let (all, why) = seen(&format!("{good}{bad}{good}"), size).await;
                let expected = format!("{good}GET {REJECTED} HTTP/1.0\r\nHost: localhost\r\n\r\n");
                assert_eq!(all, expected, "{bad:?}");
                assert!(why.is_some_and(|it| it.len() > 5), "{bad:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_read_has_no_end() {
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (all, _) = seen(&format!("{head}1\nx\r\n0\r\n\r\n"), 1000).await;
        assert_eq!(all, head);
    }
}
