//! What the configuration says of services and clients, checked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::model::{
    Color, HostPattern, Networks, PathPrefix, Policy, PoolSpec, Router, Rules, ServiceName,
    ServiceRules,
};

/// What the configuration says of services and clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Catalog {
    services: BTreeMap<ServiceName, ServiceSpec>,
    /// Networks whose clients may see a color before it is active.
    pub internal: Vec<IpNet>,
    /// Networks of proxies whose word on the client's address we take.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether answers to the public tell color and generation too.
    pub public_marks: bool,
    /// Whether the public's trace context is kept.
    pub keeps_trace: bool,
    /// How long an upstream may take to the head of its answer.
    pub response_patience: Duration,
}

/// One service as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceSpec {
    /// The hosts that it answers for.
    pub hosts: Vec<HostPattern>,
    /// The paths that it answers for.
    pub path: PathPrefix,
    /// The color that answers at the very first start.
    pub active: Color,
    /// The pool named blue.
    pub blue: PoolSpec,
    /// The pool named green.
    pub green: PoolSpec,
    /// What holds for its requests.
    pub rules: ServiceRules,
    /// How they are spread over its endpoints, and how those are looked after.
    pub policy: Arc<Policy>,
}

/// Two services that want the same requests.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("services `{one}` and `{two}` both answer for host `{host}` and path `{path}`")]
pub struct CatalogError {
    /// The one that comes first by name.
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
    /// A catalog of services, for the clients of no network.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] for the first two services that want the same requests.
    pub fn new(services: BTreeMap<ServiceName, ServiceSpec>) -> Result<Self, CatalogError> {
        router(&services)?;
        Ok(Self {
            services,
            internal: Vec::new(),
            trusted_proxies: Vec::new(),
            public_marks: false,
            keeps_trace: false,
            response_patience: Duration::from_secs(60),
        })
    }

    /// All services, by name.
    #[must_use]
    pub fn services(&self) -> &BTreeMap<ServiceName, ServiceSpec> {
        &self.services
    }

    /// The rules that follow, for tables whose services stand in the catalog's order.
    pub(super) fn rules(&self, id: u64) -> Arc<Rules> {
        let Self {
            services,
            internal,
            trusted_proxies,
            public_marks,
            keeps_trace,
            response_patience,
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
