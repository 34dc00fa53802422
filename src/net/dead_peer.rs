//! Detection of peers that have vanished without closing the connection.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// The longest time between two keep-alive probes.
const INTERVAL_MAX: Duration = Duration::from_secs(15);

/// Makes the kernel close a TCP connection if its peer acknowledges nothing for `limit`: sent data (RFC 5482,
/// `TCP_USER_TIMEOUT`), or a keep-alive probe while idle (RFC 1122, section 4.2.3.6). Otherwise a peer behind a
/// firewall that drops everything, or a pulled cable, goes unnoticed for a quarter of an hour, since the kernel accepts
/// written data. A receive window that stays closed for `limit` counts too.
///
/// On a listening socket it applies to every accepted connection.
///
/// # Errors
///
/// The system's error.
pub fn detect_dead_peer(socket: &SockRef<'_>, limit: Duration) -> io::Result<()> {
    // The kernel counts in seconds and milliseconds, and 0 means never.
    let limit = limit.max(Duration::from_secs(1));
    let interval = (limit / 4).clamp(Duration::from_secs(1), INTERVAL_MAX);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(limit).with_interval(interval))?;
    socket.set_tcp_user_timeout(Some(limit))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn accepted_connections_inherit_the_options_of_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        detect_dead_peer(&SockRef::from(&listener), Duration::from_secs(60))
            .expect("a live socket");
        let client = TcpStream::connect(address).expect("it listens");
        let (accepted, _) = listener.accept().expect("a connection");
        let accepted = SockRef::from(&accepted);
        let minute = Duration::from_secs(60);
        assert_eq!(accepted.tcp_user_timeout().expect("an option"), Some(minute));
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), minute);
        assert_eq!(accepted.tcp_keepalive_interval().expect("an option"), INTERVAL_MAX);
        assert_eq!(SockRef::from(&client).tcp_user_timeout().expect("an option"), None);
    }

    #[test]
    fn a_limit_below_one_second_is_not_rounded_to_never() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let socket = SockRef::from(&listener);
        detect_dead_peer(&socket, Duration::from_millis(1)).expect("a live socket");
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(1)));
    }
}
