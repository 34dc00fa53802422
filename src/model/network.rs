//! Sets of networks.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixSet;

/// A set of networks. A look-up costs the same for one network as for thousands.
///
/// An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is the IPv4 address, in the networks as well as in look-ups (RFC
/// 4291, section 2.5.5.2).
#[derive(Clone, Default)]
pub struct Networks {
    v4: PrefixSet<Ipv4Net>,
    v6: PrefixSet<Ipv6Net>,
}

/// Text that is not a network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseNetworkError {
    /// Neither an address nor an address with a prefix length.
    #[error("`{0}` is not a network; use `10.0.0.0/8`, `fc00::/7` or a single address")]
    Malformed(String),
    /// Host bits are set, which is probably a mistake.
    #[error("`{found}` has bits set after its prefix; use `{meant}`")]
    HostBits {
        /// The text.
        found: String,
        /// The network that it lies in.
        meant: IpNet,
    },
}

/// The address that stands for one client in counts and limits: an IPv4 address, or the /64 of an IPv6 address, since
/// one customer usually has a whole /64.
#[must_use]
pub fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(it) => Ipv6Addr::from(u128::from(it) & !u128::from(u64::MAX)).into(),
        it @ IpAddr::V4(_) => it,
    }
}

// === impl Networks ===

impl Networks {
    /// Parses a network, or a single address as the network of that address.
    ///
    /// # Errors
    ///
    /// [`ParseNetworkError`], which says what to write instead.
    pub fn parse(text: &str) -> Result<IpNet, ParseNetworkError> {
        let net = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| ParseNetworkError::Malformed(text.chars().take(80).collect()))?;
        if net.addr() != net.network() {
            return Err(ParseNetworkError::HostBits { found: text.to_owned(), meant: net.trunc() });
        }
        Ok(net)
    }

    /// Whether `address` is in one of the networks.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(it) => self.v4.get_lpm(&Ipv4Net::from(it)).is_some(),
            IpAddr::V6(it) => self.v6.get_lpm(&Ipv6Net::from(it)).is_some(),
        }
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut set = Self::default();
        for net in networks {
            match net {
                IpNet::V4(net) => set.v4.insert(net),
                IpNet::V6(net) => match mapped_v4(net) {
                    Some(net) => set.v4.insert(net),
                    None => set.v6.insert(net),
                },
            };
        }
        set
    }
}

/// The IPv4 network of a network within `::ffff:0:0/96`.
fn mapped_v4(net: Ipv6Net) -> Option<Ipv4Net> {
    let address = net.addr().to_ipv4_mapped()?;
    let length = net.prefix_len().checked_sub(96)?;
    Ipv4Net::new(address, length).ok()
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.v4.iter()).entries(self.v6.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|it| Networks::parse(it).expect("a network")).collect()
    }

    fn contains(set: &Networks, address: &str) -> bool {
        set.contains(address.parse().expect("an address"))
    }

    #[test]
    fn a_set_contains_the_addresses_of_its_networks_only() {
        let set = networks(&["10.0.0.0/8", "192.168.1.0/24", "fc00::/7", "127.0.0.1"]);
        for inside in ["10.255.0.1", "192.168.1.0", "192.168.1.255", "fd12::1", "127.0.0.1"] {
            assert!(contains(&set, inside), "{inside}");
        }
        for outside in ["11.0.0.0", "9.255.255.255", "192.168.2.1", "127.0.0.2", "fe00::1", "::1"] {
            assert!(!contains(&set, outside), "{outside}");
        }
        assert!(!contains(&Networks::default(), "127.0.0.1"));
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let set = networks(&["10.0.0.0/8"]);
        assert!(contains(&set, "::ffff:10.1.2.3"));
        assert!(!contains(&set, "::ffff:11.1.2.3"));
        assert!(!contains(&set, "::10.1.2.3"), "the deprecated compatible form is not mapped");
        let mapped = networks(&["::ffff:192.168.0.0/112"]);
        assert!(contains(&mapped, "192.168.5.5") && contains(&mapped, "::ffff:192.168.5.5"));
        assert!(!contains(&mapped, "192.169.0.0"));
    }

    #[test]
    fn a_zero_prefix_contains_its_whole_family() {
        let set = networks(&["0.0.0.0/0"]);
        assert!(contains(&set, "8.8.8.8") && !contains(&set, "2000::1"));
    }

    #[test]
    fn invalid_networks_are_rejected() {
        for invalid in
            ["", "10.0.0.0/33", "10.0.0/8", "ten", "::/129", "10.0.0.0/-1", "10.0.0.0/8 "]
        {
            assert!(
                matches!(Networks::parse(invalid), Err(ParseNetworkError::Malformed(_))),
                "{invalid:?}"
            );
        }
        let wrong = Networks::parse("10.0.0.1/8").expect_err("bits after the prefix");
        assert!(wrong.to_string().ends_with("use `10.0.0.0/8`"), "{wrong}");
    }
}
