//! WebSocket framing (RFC 6455) as machines without I/O: where frames and messages end in the bytes that pass, and the
//! Close frame that ends a connection between two of them.
//!
//! This room does not read messages: it parses the headers of frames and skips their payload by counting. It is used by
//! tunnels, which pass the bytes unchanged.
//!
//! Sections without a document are those of RFC 6455.

mod close;
mod extensions;
mod frames;

pub use self::{
    close::{CLOSE_FRAME_LENGTH, CloseCode, InvalidCloseCode, close_frame},
    extensions::Extensions,
    frames::{Border, FrameTracker, Sender},
};
