//! Whether an idle TLS connection has received anything but session data.

use std::io::{self, Read};

use rustls::{ConnectionCommon, SideData};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

/// Bytes per read. Session tickets are a few hundred bytes each.
const READ_SIZE: usize = 4096;

/// How often an idle connection is read. No server sends more session tickets than that.
const READS_MAX: usize = 16;

/// Whether nothing but session data has arrived, as far as the runtime knows.
pub(super) fn is_reusable<D: SideData>(tcp: &TcpStream, session: &mut ConnectionCommon<D>) -> bool {
    has_only_session_data(session, |session| {
        tcp.try_io(Interest::READABLE, || receive(tcp, session))
    })
}

/// Like [`is_reusable`], with a system call.
pub(super) fn check_reusable<D: SideData>(
    tcp: &TcpStream,
    session: &mut ConnectionCommon<D>,
) -> bool {
    has_only_session_data(session, |session| receive(tcp, session))
}

/// Receives until the socket is empty. False after content, the end of the connection, or any other data.
fn has_only_session_data<D: SideData>(
    session: &mut ConnectionCommon<D>,
    mut receive: impl FnMut(&mut ConnectionCommon<D>) -> io::Result<bool>,
) -> bool {
    // There is decrypted content, or the session has ended.
    if !session.wants_read() {
        return false;
    }
    for _ in 0..READS_MAX {
        match receive(session) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    false
}

/// Receives once. True if it was session data only: servers send session tickets unasked, and only TLS can tell them
/// from content.
fn receive<D: SideData>(tcp: &TcpStream, session: &mut ConnectionCommon<D>) -> io::Result<bool> {
    let mut records = [0; READ_SIZE];
    let socket = SockRef::from(tcp);
    let count = (&*socket).read(&mut records)?;
    let mut unread = &records[..count];
    // It is unknown what an incomplete record contains.
    if count == 0 || !are_complete(unread) {
        return Ok(false);
    }
    while !unread.is_empty() {
        if session.read_tls(&mut unread)? == 0 {
            return Ok(false);
        }
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            Ok(_) | Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether the last record is complete (RFC 8446, section 5.1).
fn are_complete(mut records: &[u8]) -> bool {
    while let [_, _, _, high, low, after @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match after.get(length..) {
            Some(next) => records = next,
            None => return false,
        }
    }
    records.is_empty()
}
