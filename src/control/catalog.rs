//! Services and clients of the configuration, checked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{
    continuity::{HoldSettings, PinSettings, ShareSettings},
    model::{
        Color, GateSettings, HostPattern, Networks, PathPrefix, Policy, PoolSpec, Router, Rules,
        ServiceName, ServiceRules, WatchSettings,
    },
};

/// The services and clients of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Catalog {
    services: BTreeMap<ServiceName, ServiceSpec>,
    /// Networks of internal clients, which may preview a color.
    pub internal: Vec<IpNet>,
    /// Networks of trusted proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether responses to public clients have color and generation, too.
    pub public_marks: bool,
    /// Whether the trace context of public clients is kept.
    pub keeps_trace: bool,
    /// The timeout of the response head.
    pub response_timeout: Duration,
}

/// A configured service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceSpec {
    /// Its hosts.
    pub hosts: Vec<HostPattern>,
    /// Its path prefix.
    pub path: PathPrefix,
    /// The active color at the first start.
    pub active: Color,
    /// The pool named blue.
    pub blue: PoolSpec,
    /// The pool named green.
    pub green: PoolSpec,
    /// The rules for its requests.
    pub rules: ServiceRules,
    /// Load balancing, health checks, retries and limits.
    pub policy: Arc<Policy>,
    /// The conditions for its promotions.
    pub gate: Arc<GateSettings>,
    /// How a color is judged after its promotion, if it is.
    pub watch: Option<Arc<WatchSettings>>,
    /// How transactions stay on their version, if they do.
    pub pins: Option<Arc<PinSettings>>,
    /// What tells its clients apart during a gradual promotion.
    pub share: Arc<ShareSettings>,
    /// The settings of holds.
    pub hold: HoldSettings,
}

/// Two services with the same host and path.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("services `{one}` and `{two}` both answer for host `{host}` and path `{path}`")]
pub struct CatalogError {
    /// The first one by name.
    pub one: ServiceName,
    /// The other.
    pub two: ServiceName,
    /// The host that both have.
    pub host: HostPattern,
    /// The path that both have.
    pub path: PathPrefix,
}

// === impl Catalog ===

impl Catalog {
    /// A catalog of services, without internal networks.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] for the first two services with the same host and path.
    pub fn new(services: BTreeMap<ServiceName, ServiceSpec>) -> Result<Self, CatalogError> {
        router(&services)?;
        Ok(Self {
            services,
            internal: Vec::new(),
            trusted_proxies: Vec::new(),
            public_marks: false,
            keeps_trace: false,
            response_timeout: Duration::from_secs(60),
        })
    }

    /// All services, by name.
    #[must_use]
    pub fn services(&self) -> &BTreeMap<ServiceName, ServiceSpec> {
        &self.services
    }

    /// The routing rules, for tables with services in the order of the catalog.
    pub(super) fn rules(&self, id: u64) -> Arc<Rules> {
        let Self {
            services,
            internal,
            trusted_proxies,
            public_marks,
            keeps_trace,
            response_timeout: response_patience,
        } = self;
        Arc::new(Rules {
            id,
            router: router(services).expect("checked when the catalog was made"),
            internal: internal.iter().copied().collect::<Networks>(),
            trusted_proxies: trusted_proxies.iter().copied().collect::<Networks>(),
            public_headers: *public_marks,
            keeps_trace: *keeps_trace,
            response_timeout: *response_patience,
            services: services.values().map(|it| it.rules).collect(),
        })
    }
}

// === impl ServiceSpec ===

impl ServiceSpec {
    /// The pool of a color.
    #[must_use]
    pub fn pool(&self, color: Color) -> &PoolSpec {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }
}

fn router(services: &BTreeMap<ServiceName, ServiceSpec>) -> Result<Router<usize>, CatalogError> {
    let mut router = Router::default();
    for (place, (name, service)) in services.iter().enumerate() {
        for host in &service.hosts {
            router.insert(host, &service.path, place).map_err(|taken| CatalogError {
                one: services.keys().nth(taken.0).unwrap_or(name).clone(),
                two: name.clone(),
                host: host.clone(),
                path: service.path.clone(),
            })?;
        }
    }
    Ok(router)
}
