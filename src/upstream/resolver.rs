//! Resolves the names of endpoints with the name servers, and respects the TTL.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};

/// Resolves names. Cheap to clone; caches answers for their TTL.
#[derive(Clone)]
pub struct Resolver(Result<Arc<TokioResolver>, Arc<str>>);

/// The settings of a resolver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolverSettings {
    /// Name servers; if empty, those of the system.
    pub servers: Vec<SocketAddr>,
    /// The address families.
    pub families: AddressFamilies,
    /// Lower bound of the TTL.
    pub ttl_min: Duration,
    /// Upper bound of the TTL.
    pub ttl_max: Duration,
    /// The timeout of one query.
    pub timeout: Duration,
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressFamilies {
    /// IPv4 and IPv6.
    Both,
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
}

/// Addresses, and when they expire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvedAddresses {
    /// Sorted, without duplicates, 1 to 256.
    pub addresses: Vec<IpAddr>,
    /// When to resolve the name again.
    pub until: Instant,
}

/// Why a name could not be resolved.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no address for `{host}`: {reason}")]
pub struct LookupError {
    /// The name.
    pub host: String,
    /// The error of the resolver.
    pub reason: String,
}

/// More addresses than any pool needs.
const ADDRESSES_MAX: usize = 256;

// === impl Resolver ===

impl Resolver {
    /// A resolver with these settings, or the system's if no servers are given. If the system's settings are unusable,
    /// every look-up fails with that error: most configurations have no names. Sends no query yet.
    #[must_use]
    pub fn new(settings: &ResolverSettings) -> Self {
        Self(
            Self::resolver(settings).map(Arc::new).map_err(|error| {
                format!("{error}; set dns.servers or fix /etc/resolv.conf").into()
            }),
        )
    }

    fn resolver(settings: &ResolverSettings) -> Result<TokioResolver, NetError> {
        let provider = TokioRuntimeProvider::default();
        let server = |it: &SocketAddr| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = it.port();
            }
            NameServerConfig::new(it.ip(), true, connections)
        };
        let mut builder = if settings.servers.is_empty() {
            TokioResolver::builder(provider)?
        } else {
            let servers = settings.servers.iter().map(server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, provider)
        };
        let options = builder.options_mut();
        options.ip_strategy = match settings.families {
            AddressFamilies::Both => LookupIpStrategy::Ipv4AndIpv6,
            AddressFamilies::V4 => LookupIpStrategy::Ipv4Only,
            AddressFamilies::V6 => LookupIpStrategy::Ipv6Only,
        };
        options.timeout = settings.timeout;
        options.positive_min_ttl = Some(settings.ttl_min);
        options.positive_max_ttl = Some(settings.ttl_max);
        // A missing name may be added at any moment.
        options.negative_max_ttl = Some(settings.ttl_min);
        builder.build()
    }

    /// The addresses of a name. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`LookupError`] if the name has no address or the query failed.
    pub async fn look_up(&self, host: &str) -> Result<ResolvedAddresses, LookupError> {
        let failed = |reason: String| LookupError { host: host.to_owned(), reason };
        let resolver = self.0.as_ref().map_err(|reason| failed(reason.to_string()))?;
        let found = resolver.lookup_ip(host).await;
        let found = found.map_err(|error| match error.is_no_records_found() {
            true => failed("the name server has no such record".to_owned()),
            false => failed(error.to_string()),
        })?;
        let mut addresses: Vec<IpAddr> = found.iter().map(|it| it.to_canonical()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        match addresses.is_empty() {
            true => Err(failed("the answer has no address".to_owned())),
            false => Ok(ResolvedAddresses { addresses, until: found.valid_until() }),
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Default for ResolverSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            families: AddressFamilies::Both,
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(300),
            timeout: Duration::from_secs(2),
        }
    }
}
