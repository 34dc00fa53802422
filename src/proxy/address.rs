//! The verified address of the client, and the audience that follows from it.

use std::{cell::Cell, net::IpAddr};

use super::forwarded_chain::ForwardedInfo;
use crate::{
    http1::{FieldLines, FieldName},
    model::{Audience, Rules},
};

/// The client of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ClientIdentity {
    /// Public, unless a verified address is internal.
    pub(super) audience: Audience,
    /// Its address, unless a trusted proxy does not give it unambiguously.
    pub(super) address: Option<IpAddr>,
    /// What the peer says about it, if that is a trusted proxy.
    pub(super) forwarded: Option<ForwardedInfo>,
    /// Whether the peer sends forwarding headers, is internal, and is not a trusted proxy. Most likely it is a proxy
    /// that is missing in the configuration, so that all of its clients count as internal.
    pub(super) is_forgotten_proxy: bool,
}

impl ClientIdentity {
    /// An unknown client.
    pub(super) const UNKNOWN: Self = Self {
        audience: Audience::Public,
        address: None,
        forwarded: None,
        is_forgotten_proxy: false,
    };
}

/// The classification of a peer by some rules. Kept with the connection, and computed again when the rules change.
#[derive(Debug, Default)]
pub(super) struct PeerTrust(Cell<Option<(u64, ClientIdentity)>>);

// === impl PeerTrust ===

impl PeerTrust {
    /// The client of a request. The peer stays the same for the whole connection; requests of a trusted proxy are
    /// classified one by one, since different clients share its connections.
    pub(super) fn client(
        &self,
        rules: &Rules,
        peer: IpAddr,
        lines: FieldLines<'_>,
    ) -> ClientIdentity {
        let known = self.0.get().filter(|(id, _)| *id == rules.id);
        let (_, identity) = known.unwrap_or_else(|| {
            let it = identity_of(rules, peer);
            self.0.set(Some((rules.id, it)));
            let is_forwarded =
                lines.has(FieldName::XForwardedFor) || lines.has(FieldName::Forwarded);
            let is_forgotten_proxy = it.audience == Audience::Internal && is_forwarded;
            (rules.id, ClientIdentity { is_forgotten_proxy, ..it })
        });
        if identity.forwarded.is_none() {
            return identity;
        }
        let (address, forwarded) = ForwardedInfo::of(lines, &rules.trusted_proxies);
        let audience = address.map_or(Audience::Public, |it| audience(rules, it));
        ClientIdentity { audience, address, forwarded: Some(forwarded), ..identity }
    }
}

fn identity_of(rules: &Rules, peer: IpAddr) -> ClientIdentity {
    match rules.trusted_proxies.contains(peer) {
        true => ClientIdentity {
            audience: Audience::Public,
            address: None,
            forwarded: Some(ForwardedInfo::default()),
            is_forgotten_proxy: false,
        },
        false => ClientIdentity {
            audience: audience(rules, peer),
            address: Some(peer),
            forwarded: None,
            is_forgotten_proxy: false,
        },
    }
}

fn audience(rules: &Rules, address: IpAddr) -> Audience {
    match rules.internal.contains(address) {
        true => Audience::Internal,
        false => Audience::Public,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{Networks, Router},
        proxy::samples,
    };

    fn rules(id: u64, internal: &str) -> Rules {
        let networks = |it: &str| [Networks::parse(it).expect("a network")].into_iter().collect();
        Rules {
            id,
            router: Router::default(),
            internal: networks(internal),
            trusted_proxies: networks("10.0.0.1"),
            public_headers: false,
            keeps_trace: false,
            response_timeout: Duration::from_secs(1),
            services: Vec::new(),
        }
    }

    fn audience_of(peer: &str, fields: &[(&'static str, &'static str)]) -> Audience {
        let peer = peer.parse().expect("an address");
        let rules = rules(1, "192.168.0.0/16");
        let (head, bytes) = samples::request(fields);
        PeerTrust::default().client(&rules, peer, head.fields.lines(&bytes)).audience
    }

    #[test]
    fn a_peer_is_judged_by_its_address_and_not_by_its_headers() {
        let forged = [("x-forwarded-for", "192.168.0.1"), ("forwarded", "for=192.168.0.1")];
        assert_eq!(audience_of("203.0.113.5", &forged), Audience::Public);
        assert_eq!(audience_of("192.168.0.7", &[]), Audience::Internal);
        let modest = [("x-forwarded-for", "203.0.113.5")];
        assert_eq!(audience_of("192.168.0.7", &modest), Audience::Internal);
    }

    #[test]
    fn behind_a_trusted_proxy_the_client_is_the_forwarded_address() {
        let inside = ("x-forwarded-for", "192.168.0.7");
        let outside = ("x-forwarded-for", "203.0.113.5");
        let forged = ("x-forwarded-for", "192.168.0.7, 203.0.113.5");
        assert_eq!(audience_of("10.0.0.1", &[inside]), Audience::Internal);
        assert_eq!(audience_of("10.0.0.1", &[outside]), Audience::Public);
        assert_eq!(audience_of("10.0.0.1", &[forged]), Audience::Public);
    }

    #[test]
    fn without_one_clear_address_from_a_trusted_proxy_the_client_is_public() {
        let xff = ("x-forwarded-for", "192.168.0.7");
        let same = ("forwarded", "for=192.168.0.7");
        let other = ("forwarded", "for=203.0.113.5");
        let broken = ("forwarded", "for=unknown");
        assert_eq!(audience_of("10.0.0.1", &[]), Audience::Public);
        assert_eq!(audience_of("10.0.0.1", &[xff, same]), Audience::Internal);
        assert_eq!(audience_of("10.0.0.1", &[xff, other]), Audience::Public);
        assert_eq!(audience_of("10.0.0.1", &[xff, broken]), Audience::Public);
    }

    #[test]
    fn an_unlisted_proxy_is_noticed_once_for_a_connection() {
        let rules = rules(1, "192.168.0.0/16");
        let (head, bytes) = samples::request(&[("forwarded", "for=203.0.113.5")]);
        let notice = |trust: &PeerTrust, peer: &str| {
            let peer = peer.parse().expect("an address");
            trust.client(&rules, peer, head.fields.lines(&bytes)).is_forgotten_proxy
        };
        let trust = PeerTrust::default();
        assert!(notice(&trust, "192.168.0.7"));
        assert!(!notice(&trust, "192.168.0.7"));
        assert!(!notice(&PeerTrust::default(), "10.0.0.1"), "it is known for one");
        assert!(!notice(&PeerTrust::default(), "203.0.113.9"), "it gets nothing by it");
    }

    #[test]
    fn new_rules_are_followed_on_an_old_connection() {
        let trust = PeerTrust::default();
        let peer = "192.168.0.7".parse().expect("an address");
        let (head, bytes) = samples::request(&[]);
        let ask = |rules: &Rules| trust.client(rules, peer, head.fields.lines(&bytes)).audience;
        assert_eq!(ask(&rules(1, "192.168.0.0/16")), Audience::Internal);
        assert_eq!(ask(&rules(2, "172.16.0.0/12")), Audience::Public);
    }
}
