//! Watches the frames of a WebSocket that a client receives: the library shows messages, and a Close frame between two
//! frames of a message looks like one between two messages.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of which the received frames (RFC 6455, section 5.2) are followed.
#[derive(Debug)]
pub(super) struct WatchedFrames<S> {
    stream: S,
    frames: Frames,
}

/// Where received bytes are in their frames.
#[derive(Debug, Default)]
struct Frames {
    /// The head of a frame, up to its payload, and how much of it was received.
    head: [u8; HEAD_MAX],
    received: usize,
    /// The rest of the payload.
    payload: u64,
    /// Whether the last data frame was not the last of its message.
    is_message_open: bool,
}

/// The largest head: two bytes, a length of eight, a mask of four.
const HEAD_MAX: usize = 14;

// === impl WatchedFrames ===

impl<S> WatchedFrames<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, frames: Frames::default() }
    }

    /// Whether a message has begun and its last frame has not.
    pub(super) fn is_message_open(&self) -> bool {
        self.frames.is_message_open
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedFrames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.frames.follow(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedFrames<S> {
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

// === impl Frames ===

impl Frames {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { return };
            self.head[self.received] = *first;
            self.received += 1;
            bytes = rest;
            if self.received == self.head_bytes() {
                self.begin_payload();
            }
        }
    }

    /// The size of the head, as far as it is known.
    fn head_bytes(&self) -> usize {
        if self.received < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_payload(&mut self) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, it| all << 8 | u64::from(*it));
        self.payload = match self.head[1] & 0x7f {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => u64::from(short),
        };
        let (is_last, is_control) = (self.head[0] & 0x80 != 0, self.head[0] & 0x08 != 0);
        if !is_control {
            self.is_message_open = !is_last;
        }
        self.received = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a message is open after these bytes, which arrive at once or one by one.
    fn is_open(bytes: &[u8]) -> bool {
        let [mut at_once, mut one_by_one] = [Frames::default(), Frames::default()];
        at_once.follow(bytes);
        bytes.iter().for_each(|it| one_by_one.follow(&[*it]));
        assert_eq!(at_once.is_message_open, one_by_one.is_message_open, "{bytes:x?}");
        at_once.is_message_open
    }

    #[test]
    fn a_message_is_open_from_its_first_frame_to_its_last() {
        let (begin, more, end) = (&[0x01, 1, b'a'][..], &[0x00, 1, b'b'][..], &[0x80, 0][..]);
        let (ping, close) = (&[0x89, 0][..], &[0x88, 2, 0x03, 0xf4][..]);
        for (frames, open) in [
            (vec![&[0x81, 1, b'a'][..]], false),
            (vec![begin], true),
            (vec![begin, more], true),
            (vec![begin, more, end], false),
            (vec![begin, ping], true),
            (vec![begin, close], true),
            (vec![begin, end, close], false),
            (vec![ping, close], false),
        ] {
            assert_eq!(is_open(&frames.concat()), open, "{frames:x?}");
        }
    }

    #[test]
    fn payloads_of_every_length_are_skipped() {
        // Each byte of the payload looks like the first frame of a message.
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let head = match u64::try_from(length).expect("small") {
                short @ ..126 => vec![0x82, u8::try_from(short).expect("small")],
                long => match u16::try_from(long) {
                    Ok(it) => [&[0x82, 126][..], &it.to_be_bytes()].concat(),
                    Err(_) => [&[0x82, 127][..], &long.to_be_bytes()].concat(),
                },
            };
            let frame = [head, vec![0x01; length]].concat();
            assert!(!is_open(&frame), "{length}");
            assert!(is_open(&[&frame[..], &[0x01, 0]].concat()), "{length}");
        }
        // A frame with a mask.
        assert!(!is_open(&[0x81, 0x81, 1, 1, 1, 1, 1]));
    }
}
