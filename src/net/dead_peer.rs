//! What the kernel does about a peer that has vanished without a packet.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// The longest time between two probes.
const INTERVAL_MAX: Duration = Duration::from_secs(15);

/// Has the kernel end a TCP connection whose peer acknowledges nothing for `limit`: what was sent (RFC 5482,
/// `TCP_USER_TIMEOUT`), or a probe while nothing is (RFC 1122, section 4.2.3.6). Without this a peer behind a
/// firewall that drops everything, or a cable that was pulled, goes unnoticed for a quarter of an hour,
/// since the kernel takes what is written. A peer whose window stays closed for so long counts as vanished too.
///
/// On a listening socket it holds for every connection that is accepted there.
///
/// # Errors
///
/// What the system says of the socket.
pub fn detect_dead_peer(socket: &SockRef<'_>, limit: Duration) -> io::Result<()> {
    // Seconds and milliseconds are what the kernel counts in, and 0 means never.
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
