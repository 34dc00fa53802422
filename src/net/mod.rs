//! What both sides read and write with: sockets that read ahead, the memory for it, and the channel
//! that is a socket or a stream of HTTP/2.
//!
//! Knows nothing of what the bytes mean. A socket that nobody speaks on holds no memory: it waits
//! until there is something to read, takes a buffer of its worker only then, and gives it back when
//! what was in it is done with. So thousands of idle connections cost what their sockets cost.

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
