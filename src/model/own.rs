//! The addresses of the process itself, which must not be used as endpoints.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use super::{Endpoint, EndpointAddress};

/// The addresses of the process itself. Cheap to clone.
#[derive(Clone)]
pub struct OwnAddresses {
    all: Arc<[OwnAddress]>,
    /// Whether an address is one of this machine.
    is_local: fn(IpAddr) -> bool,
}

/// One address of the process itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnAddress {
    /// Where it listens, with the port that the kernel assigned.
    pub address: OwnAddressKind,
    /// What listens there, like "a listener".
    pub description: &'static str,
}

/// The address of one of the process's own sockets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OwnAddressKind {
    /// A TCP port.
    Tcp(SocketAddr),
    /// The file of a unix socket.
    Unix(Arc<Path>),
}

// === impl OwnAddresses ===

impl OwnAddresses {
    /// These addresses. `is_local` returns whether an address is one of this machine, for sockets that listen on all
    /// addresses.
    #[must_use]
    pub fn new(all: Vec<OwnAddress>, is_local: fn(IpAddr) -> bool) -> Self {
        Self { all: all.into(), is_local }
    }

    /// The own address that a connection to `endpoint` would reach, as far as known without a DNS look-up.
    #[must_use]
    pub fn find(&self, endpoint: &Endpoint) -> Option<OwnAddress> {
        match &endpoint.address {
            EndpointAddress::Address(target) => self.find_address(*target),
            // RFC 6761, section 6.3.
            EndpointAddress::Name { host, port } if is_localhost(host) => {
                let here = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
                here.into_iter().find_map(|it| self.find_address(SocketAddr::new(it, *port)))
            }
            EndpointAddress::Unix(path) => {
                self.all.iter().find(|it| it.socket() == Some(Path::new(&**path))).cloned()
            }
            EndpointAddress::Name { .. } => None,
        }
    }

    /// The files of the process's own unix sockets.
    pub fn sockets(&self) -> impl Iterator<Item = (&Path, &OwnAddress)> {
        self.all.iter().filter_map(|it| Some((it.socket()?, it)))
    }

    /// The own address that a connection to `target` would reach.
    #[must_use]
    pub fn find_address(&self, target: SocketAddr) -> Option<OwnAddress> {
        let reaches = |own: &&OwnAddress| match &own.address {
            OwnAddressKind::Tcp(own) => {
                own.port() == target.port()
                    && self.reaches(target.ip().to_canonical(), own.ip().to_canonical())
            }
            OwnAddressKind::Unix(_) => false,
        };
        self.all.iter().find(reaches).cloned()
    }

    fn reaches(&self, target: IpAddr, own: IpAddr) -> bool {
        // The kernel connects to the unspecified address as to loopback.
        let target = match target {
            IpAddr::V4(it) if it.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(it) if it.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            it => it,
        };
        // A socket on all IPv6 addresses also accepts IPv4.
        let accepts = own.is_unspecified() && (own.is_ipv6() || target.is_ipv4());
        target == own || accepts && (target.is_loopback() || (self.is_local)(target))
    }
}

// === impl OwnAddress ===

impl OwnAddress {
    fn socket(&self) -> Option<&Path> {
        match &self.address {
            OwnAddressKind::Tcp(_) => None,
            OwnAddressKind::Unix(path) => Some(path),
        }
    }
}

impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            OwnAddressKind::Tcp(address) => {
                write!(f, "{} of Flipgate itself ({address})", self.description)
            }
            OwnAddressKind::Unix(path) => {
                write!(f, "{} of Flipgate itself (unix:{})", self.description, path.display())
            }
        }
    }
}

impl Default for OwnAddresses {
    fn default() -> Self {
        Self::new(Vec::new(), |_| false)
    }
}

impl fmt::Debug for OwnAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)
    }
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_own_address_if_a_connection_to_it_reaches_this_process() {
        let found = |own: &str, endpoint: &str| {
            let address = match own.strip_prefix("unix:") {
                Some(path) => OwnAddressKind::Unix(Path::new(path).into()),
                None => OwnAddressKind::Tcp(own.parse().expect("an address")),
            };
            let own = OwnAddress { address, description: "a listener" };
            let is_local = |it| it == IpAddr::from([192, 0, 2, 7]);
            let own = OwnAddresses::new(vec![own], is_local);
            own.find(&endpoint.parse().expect("an endpoint")).is_some()
        };
        for (own, endpoint) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "https://127.0.0.1:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("127.0.0.1:80", "localhost:80"),
            ("127.0.0.1:80", "app.localhost:80"),
            ("[::1]:80", "localhost:80"),
            ("[::1]:80", "[::]:80"),
            ("0.0.0.0:80", "127.9.9.9:80"),
            ("0.0.0.0:80", "192.0.2.7:80"),
            ("[::]:80", "192.0.2.7:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.8:80", "192.0.2.8:80"),
            ("unix:/run/flipgate.sock", "unix:/run/flipgate.sock"),
            ("unix:/run/flipgate.sock", "unix:/run//flipgate.sock"),
        ] {
            assert!(found(own, endpoint), "{own} {endpoint}");
        }
        for (own, endpoint) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("127.0.0.1:80", "192.0.2.7:80"),
            ("127.0.0.1:80", "[::1]:80"),
            ("0.0.0.0:80", "[::1]:80"),
            ("0.0.0.0:80", "192.0.2.8:80"),
            ("0.0.0.0:80", "app:80"),
            ("0.0.0.0:80", "unix:/run/app.sock"),
            ("unix:/run/flipgate.sock", "unix:/run/app.sock"),
            ("unix:/run/flipgate.sock", "127.0.0.1:80"),
        ] {
            assert!(!found(own, endpoint), "{own} {endpoint}");
        }
    }
}
