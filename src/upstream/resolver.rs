//! The addresses of endpoints that are names, as the name servers tell them and for as long as they
//! say.

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

/// Asks name servers. Cheap to clone; answers are kept for as long as they are good.
#[derive(Clone)]
pub struct Resolver(Result<Arc<TokioResolver>, Arc<str>>);

/// Who is asked, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolverSettings {
    /// Name servers; without any, those of the system.
    pub servers: Vec<SocketAddr>,
    /// Which addresses are taken.
    pub families: AddressFamilies,
    /// Answers are good for no less, whatever they say.
    pub ttl_min: Duration,
    /// And for no more.
    pub ttl_max: Duration,
    /// How long one question may take.
    pub timeout: Duration,
}

/// Which addresses of a name are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressFamilies {
    /// All there are.
    Both,
    /// Only those of IPv4.
    V4,
    /// Only those of IPv6.
    V6,
}

/// Addresses, and until when they are good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvedAddresses {
    /// In order, no two alike, at most 256; never none.
    pub addresses: Vec<IpAddr>,
    /// When to ask again.
    pub until: Instant,
}

/// A name without an address, as far as can be found out.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no address for `{host}`: {reason}")]
pub struct LookupError {
    /// The name.
    pub host: String,
    /// What the library says.
    pub reason: String,
}

/// More addresses than any pool has a use for.
const ADDRESSES_MAX: usize = 256;

// === impl Resolver ===

impl Resolver {
    /// Reads the system's settings unless others are given. If those cannot be used, that is what every
    /// question comes to: most have no names among their endpoints. Asks nobody yet.
    #[must_use]
    pub fn new(settings: &ResolverSettings) -> Self {
        Self(
            Self::resolver(settings).map(Arc::new).map_err(|error| {
                format!("{error}: set dns.servers, or mend /etc/resolv.conf").into()
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
        // Who is not there may come at any moment.
        options.negative_max_ttl = Some(settings.ttl_min);
        builder.build()
    }

    /// The addresses of a name. Dropping the future gives the question up.
    ///
    /// # Errors
    ///
    /// [`LookupError`] if there are none, or nobody knows.
    pub async fn look_up(&self, host: &str) -> Result<ResolvedAddresses, LookupError> {
        let failed = |reason: String| LookupError { host: host.to_owned(), reason };
        let resolver = self.0.as_ref().map_err(|reason| failed(reason.to_string()))?;
        let found = resolver.lookup_ip(host).await;
        let found = found.map_err(|error| match error.is_no_records_found() {
            true => failed("the name server knows none".to_owned()),
            false => failed(error.to_string()),
        })?;
        let mut addresses: Vec<IpAddr> = found.iter().map(|it| it.to_canonical()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        match addresses.is_empty() {
            true => Err(failed("it has none".to_owned())),
            false => Ok(ResolvedAddresses { addresses, until: found.valid_until() }),
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
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
