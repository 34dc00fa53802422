//! How Flipgate connects to the endpoints of a pool.

use std::sync::Arc;

use super::{pool_context::PoolContext, resolver::Resolver};
use crate::{
    model::{Link, OwnAddresses, Protocol, ProxyProtocol, WeightedEndpoint},
    tls::UpstreamConnector,
};

/// How to connect to the endpoints of a pool.
#[derive(Debug)]
pub(super) struct ConnectConfig {
    pub(super) protocol: Option<Protocol>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    /// If one of them uses TLS.
    pub(super) tls: Option<Arc<UpstreamConnector>>,
    /// For endpoints that are names.
    pub(super) resolver: Resolver,
    /// Flipgate's own addresses, which no endpoint may have.
    pub(super) own: OwnAddresses,
}

// === impl ConnectConfig ===

impl ConnectConfig {
    pub(super) fn new(link: &Link, endpoints: &[WeightedEndpoint], context: &PoolContext) -> Self {
        let has_tls = endpoints.iter().any(|it| it.endpoint.is_tls);
        let tls = has_tls.then(|| context.connectors.get(&link.tls));
        let (resolver, own) = (context.resolver.clone(), context.own.clone());
        let (protocol, proxy_protocol) = (link.protocol, link.proxy_protocol);
        Self { protocol, proxy_protocol, tls, resolver, own }
    }
}
