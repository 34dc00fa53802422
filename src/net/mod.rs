//! What both sides read and write with: sockets that read ahead, the memory for it, and the channel
//! that is a socket or a stream of HTTP/2.
//!
//! Knows nothing of what the bytes mean. A socket that nobody speaks on holds no memory: it waits
//! until there is something to read, takes a buffer of its worker only then, and gives it back when
//! what was in it is done with. So thousands of idle connections cost what their sockets cost.

mod buffers;
mod http_stream;
mod local;
mod loss;
mod quiet;
mod socket;
mod transport;

pub use self::{
    buffers::{Buffer, BufferPool},
    http_stream::HttpStream,
    local::is_local,
    loss::notice_loss,
    socket::Socket,
    transport::Transport,
};
