//! Resolves the names of a pool's endpoints at once, for callers that need every endpoint.

use super::Pool;
use crate::model::EndpointAddress;

impl Pool {
    /// Looks up the names that have no address yet. A name that cannot be looked up stays as it is. Cancel-safe.
    pub async fn resolve_unknown_names(&self) {
        for endpoint in self.endpoints() {
            let EndpointAddress::Name { host, .. } = &endpoint.configured().address else {
                continue;
            };
            if endpoint.resolved().is_some() {
                continue;
            }
            if let Ok(found) = self.shared.context.resolver.look_up(host).await {
                self.resolve(host, &found.addresses);
            }
        }
    }
}
