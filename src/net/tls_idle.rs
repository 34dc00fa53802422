//! Whether anything has come on an idle connection that uses TLS.

use std::io::{self, Read};

use rustls::{ConnectionCommon, SideData};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

/// Bytes that are received at once. Session tickets are a few hundred bytes each.
const READ_SIZE: usize = 4096;

/// How often an idle connection is read from. Nobody sends more session tickets than that.
const READS_MAX: usize = 16;

/// Whether nothing has come but what is for TLS alone, as far as the runtime knows.
pub(super) fn is_reusable<D: SideData>(tcp: &TcpStream, session: &mut ConnectionCommon<D>) -> bool {
    has_only_session_data(session, |session| {
        tcp.try_io(Interest::READABLE, || receive(tcp, session))
    })
}

/// The same, by asking the system.
pub(super) fn check_reusable<D: SideData>(
    tcp: &TcpStream,
    session: &mut ConnectionCommon<D>,
) -> bool {
    has_only_session_data(session, |session| receive(tcp, session))
}

/// Receives until nothing is there. False for content, the end, and whatever else is for us.
fn has_only_session_data<D: SideData>(
    session: &mut ConnectionCommon<D>,
    mut receive: impl FnMut(&mut ConnectionCommon<D>) -> io::Result<bool>,
) -> bool {
    // Decrypted already, or the end of the session.
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

/// Receives what is there. Whether it was for TLS alone: session tickets come unasked, and only TLS can
/// tell them from content.
fn receive<D: SideData>(tcp: &TcpStream, session: &mut ConnectionCommon<D>) -> io::Result<bool> {
    let mut records = [0; READ_SIZE];
    let socket = SockRef::from(tcp);
    let count = (&*socket).read(&mut records)?;
    let mut unread = &records[..count];
    // Nobody knows what a part of a record will be.
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

/// Whether the last record is complete: RFC 8446, section 5.1.
fn are_complete(mut records: &[u8]) -> bool {
    while let [_, _, _, high, low, behind @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        match behind.get(length..) {
            Some(next) => records = next,
            None => return false,
        }
    }
    records.is_empty()
}
