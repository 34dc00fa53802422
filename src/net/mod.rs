//! What both sides use to read and write: sockets that read ahead, their buffers, and the stream that is an HTTP/1
//! connection or an HTTP/2 stream.
//!
//! This room does not know what the bytes mean. An idle socket holds no buffer: it takes one of its worker when bytes
//! arrive, and returns it when they are consumed. So an idle connection costs little more than its socket.

mod buffers;
mod dead_peer;
mod http_stream;
mod local;
mod socket;
mod tls_idle;
mod transport;

pub use self::{
    buffers::{Buffer, BufferPool},
    dead_peer::detect_dead_peer,
    http_stream::HttpStream,
    local::is_local,
    socket::Socket,
    transport::Transport,
};
