//! HTTP/2 by hand: frames as bytes, and what comes back.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{LONG, client};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A connection of HTTP/2 on which nothing is sent that the test does not send.
pub(crate) struct Frames {
    stream: TcpStream,
}

/// A frame: RFC 9113, section 4.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// An answer with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The end of the connection.
    Closed,
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals without indexing: RFC 7541, section 6.2.2.
pub(crate) fn fields(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(short @ ..127) => block.push(short),
                _ => {
                    block.push(127);
                    let mut left = text.len() - 127;
                    while left >= 128 {
                        block.push((left % 128) as u8 | 128);
                        left /= 128;
                    }
                    block.push(left as u8);
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

impl Frames {
    /// A connection that has said hello.
    pub(crate) async fn connect(from: &str, to: SocketAddr) -> Self {
        let mut frames = Self { stream: client::connect(from, to).await };
        frames.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        frames.send(&frame(SETTINGS, 0, 0, &[])).await;
        frames
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(LONG, self.stream.write_all(bytes)).await.expect("in time").expect("open");
    }

    /// Sends as much as the other end takes; it may have closed.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        timeout(LONG, self.stream.write_all(bytes)).await.expect("in time").is_ok()
    }

    /// The next frame. Settings are acknowledged on the way. `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            let read = timeout(LONG, self.stream.read_exact(&mut head)).await;
            read.expect("a frame in time").ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            if head[3] == SETTINGS && head[4] & ACK == 0 {
                drop(self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await);
                continue;
            }
            return Some(Frame { kind: head[3], flags: head[4], stream, payload });
        }
    }

    /// What becomes of a stream, or of the whole connection.
    pub(crate) async fn fate(&mut self, stream: u32) -> Fate {
        while let Some(frame) = self.next().await {
            let code = |at: usize| {
                let bytes = frame.payload.get(at..at + 4).and_then(|it| it.try_into().ok());
                u32::from_be_bytes(bytes.expect("a code"))
            };
            match frame.kind {
                GOAWAY if code(4) != 0 => return Fate::GoAway(code(4)),
                RST_STREAM if frame.stream == stream => return Fate::Reset(code(0)),
                HEADERS if frame.stream == stream => return Fate::Status(status(&frame.payload)),
                _ => {}
            }
        }
        Fate::Closed
    }

    /// Whether the connection still answers: a ping comes back.
    pub(crate) async fn is_alive(&mut self) -> bool {
        if !self.try_send(&frame(PING, 0, 0, b"a ping!!")).await {
            return false;
        }
        while let Some(frame) = self.next().await {
            if frame.kind == PING && frame.flags & ACK != 0 {
                return true;
            }
        }
        false
    }
}

/// The status at the beginning of a block of fields, where ours writes it: RFC 7541, appendix A.
fn status(block: &[u8]) -> u16 {
    // Changes of the table's size may come first.
    let at = block.iter().position(|it| it & 0xe0 != 0x20).expect("a field");
    match block[at..] {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        // A literal with the name of an index, and Huffman or plain digits.
        [0x48 | 0x08, length, ..] if length & 0x80 == 0 => {
            let digits = &block[at + 2..at + 2 + usize::from(length)];
            String::from_utf8_lossy(digits).parse().expect("a status")
        }
        [0x48 | 0x08, length, ..] => huffman_digits(&block[at + 2..][..usize::from(length & 0x7f)]),
        _ => panic!("no status: {block:x?}"),
    }
}

/// Digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|it| (0..8).rev().map(move |n| it >> n & 1)).collect();
    let (mut at, mut number) = (0, 0);
    while at + 5 <= bits.len() {
        let value =
            |count: usize| bits[at..at + count].iter().fold(0, |all, it| all << 1 | u16::from(*it));
        if value(5) < 3 {
            number = number * 10 + value(5);
            at += 5;
        } else if at + 6 <= bits.len() && (0x19..=0x1f).contains(&value(6)) {
            number = number * 10 + value(6) - 0x19 + 3;
            at += 6;
        } else {
            break;
        }
    }
    number
}
