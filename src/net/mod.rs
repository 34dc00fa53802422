//! What both sides read and write with: sockets that read ahead, and the memory for it.
//!
//! Knows nothing of what the bytes mean. A socket that nobody speaks on holds no memory: it waits
//! until there is something to read, takes a buffer of its worker only then, and gives it back when
//! what was in it is done with. So thousands of idle connections cost what their sockets cost.

mod buffers;
mod socket;

pub use self::{
    buffers::{Buffer, Buffers},
    socket::Socket,
};
