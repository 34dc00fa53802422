//! Where frames and messages end in one direction of a connection.

use super::extensions::Extensions;

/// Follows the frames of one direction, however their bytes are split. Payload is skipped by counting. 16 bytes, so
/// that an idle tunnel can have one for each direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameTracker {
    /// The payload that is left, or the part of its length that was read.
    left: u64,
    position: Position,
    /// The opcode of the frame that was begun last.
    opcode: u8,
    /// Whether that frame is the last one of its message.
    is_final: bool,
    /// Whether a message was begun that the last data frame did not end.
    is_in_message: bool,
    sender: Sender,
    allows_compressed: bool,
}

/// Who sends the frames. Those of a client are masked, those of a server are not (section 5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sender {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// A place in the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Border {
    /// Between two frames. A control frame may stand here (section 5.4).
    Frame,
    /// Between two messages.
    Message,
    /// Behind the Close frame.
    Close,
}

/// The next byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Position {
    /// The first of a frame.
    First,
    /// The second: the mask bit and the length.
    Second,
    /// One of the longer length, of which so many are left.
    Length { left: u8, is_masked: bool },
    /// One of the masking key, of which so many are left.
    Mask { left: u8 },
    /// One of the payload.
    Payload,
    /// Behind the Close frame.
    Closed,
    /// Not known: the bytes are no frames that are understood here.
    Lost,
}

/// The opcodes of section 5.2.
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// The longest payload of a control frame (section 5.5).
const CONTROL_PAYLOAD_MAX: u8 = 125;

// === impl FrameTracker ===

impl FrameTracker {
    /// A tracker at the beginning of a direction. With unknown extensions it is lost from the start.
    #[must_use]
    pub fn new(sender: Sender, extensions: Extensions) -> Self {
        Self {
            left: 0,
            position: match extensions {
                Extensions::None | Extensions::Deflate => Position::First,
                Extensions::Unknown => Position::Lost,
            },
            opcode: CONTINUATION,
            is_final: true,
            is_in_message: false,
            sender,
            allows_compressed: extensions == Extensions::Deflate,
        }
    }

    /// Follows bytes that pass.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.is_going() {
            let count = self.step(bytes);
            bytes = &bytes[count..];
        }
    }

    /// Whether the bytes so far end at this border.
    #[must_use]
    pub fn is_at(&self, border: Border) -> bool {
        match border {
            Border::Frame => self.position == Position::First,
            Border::Message => self.position == Position::First && !self.is_in_message,
            Border::Close => self.has_closed(),
        }
    }

    /// How many of `bytes`, which come next, lie before the next such border: all if there is none among them, and 0 if
    /// the bytes so far end at one.
    #[must_use]
    pub fn until(&self, border: Border, bytes: &[u8]) -> usize {
        let (mut ahead, mut count) = (*self, 0);
        while count < bytes.len() && ahead.is_going() && !ahead.is_at(border) {
            count += ahead.step(&bytes[count..]);
        }
        if ahead.is_at(border) { count } else { bytes.len() }
    }

    /// Whether a Close frame has passed: it is the last frame (section 5.5.1).
    #[must_use]
    pub fn has_closed(&self) -> bool {
        self.position == Position::Closed
    }

    /// Whether the borders are not known, because of an extension or an invalid frame.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.position == Position::Lost
    }

    fn is_going(&self) -> bool {
        !matches!(self.position, Position::Closed | Position::Lost)
    }

    /// Passes one byte of a header, or as much payload of a frame as there is. Returns how many bytes that was, at
    /// least one. `bytes` must not be empty, and the tracker must be going.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        match self.position {
            Position::First => self.begin(byte),
            Position::Second => self.take_length(byte),
            Position::Length { left, is_masked } => {
                self.left = self.left << 8 | u64::from(byte);
                match left {
                    // The first bit of a length of 64 bits is 0.
                    1 if self.left > i64::MAX as u64 => self.position = Position::Lost,
                    1 => self.take_mask(is_masked),
                    _ => self.position = Position::Length { left: left - 1, is_masked },
                }
            }
            Position::Mask { left: 1 } => self.take_payload(),
            Position::Mask { left } => self.position = Position::Mask { left: left - 1 },
            Position::Payload => {
                let there = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= there as u64;
                if self.left == 0 {
                    self.end();
                }
                return there;
            }
            Position::Closed | Position::Lost => {}
        }
        1
    }

    /// The first byte of a frame: FIN, three reserved bits, and the opcode.
    fn begin(&mut self, byte: u8) {
        (self.opcode, self.is_final) = (byte & 0x0f, byte & 0x80 != 0);
        let is_compressed = byte & 0x40 != 0;
        let is_valid = match self.opcode {
            CONTINUATION => self.is_in_message && !is_compressed,
            // A message is compressed as a whole, and its first frame says so (RFC 7692, section 6).
            1..=BINARY => !self.is_in_message && (self.allows_compressed || !is_compressed),
            CLOSE..=PONG => self.is_final && !is_compressed,
            _ => false,
        };
        self.position =
            if is_valid && byte & 0x30 == 0 { Position::Second } else { Position::Lost };
    }

    fn take_length(&mut self, byte: u8) {
        let (is_masked, length) = (byte & 0x80 != 0, byte & 0x7f);
        self.left = 0;
        let is_control = self.opcode >= CLOSE;
        if is_masked != (self.sender == Sender::Client)
            || is_control && length > CONTROL_PAYLOAD_MAX
        {
            self.position = Position::Lost;
            return;
        }
        match length {
            126 => self.position = Position::Length { left: 2, is_masked },
            127 => self.position = Position::Length { left: 8, is_masked },
            length => {
                self.left = length.into();
                self.take_mask(is_masked);
            }
        }
    }

    fn take_mask(&mut self, is_masked: bool) {
        match is_masked {
            true => self.position = Position::Mask { left: 4 },
            false => self.take_payload(),
        }
    }

    fn take_payload(&mut self) {
        match self.left {
            0 => self.end(),
            _ => self.position = Position::Payload,
        }
    }

    /// The end of a frame.
    fn end(&mut self) {
        if self.opcode <= BINARY {
            self.is_in_message = !self.is_final;
        }
        self.position = if self.opcode == CLOSE { Position::Closed } else { Position::First };
    }
}

#[cfg(test)]
mod tests;
