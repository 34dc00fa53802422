//! Rescue: while a promotion is watched, a request that could not be connected to any endpoint of the new color is served
//! by the color before.
//!
//! It is an exception to the rule that no request reaches a replaced color after a flip, and only for services that ask for
//! it. Nothing of the request was sent, or only on a kept connection that turned out to be closed; then it must be
//! repeatable, as for any retry (RFC 9110, section 9.2.2).

use std::sync::Arc;

use super::{
    admitted::AdmittedRequest, error::ProxyError, log_limiter::LimitedEvent, peer_cache::PeerCache,
    upstream_failure::UpstreamFailure,
};
use crate::downstream::ClientConnection;

impl AdmittedRequest<'_> {
    /// Moves the request to the color before, if it failed because no endpoint of its pool could be connected, and if the
    /// color before may serve it. The watch counts it as a failure of its pool.
    #[cold]
    pub(super) fn rescue(
        &mut self,
        failure: &UpstreamFailure,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        let is_connect = matches!(
            failure,
            UpstreamFailure::Error(ProxyError::NoEndpoint | ProxyError::Connect(_))
        );
        let was_sent = self.upload.was_ever_sent();
        let is_untouched =
            !self.upload.may_be_processed() && (!was_sent || self.traits.is_repeatable);
        if !is_connect || !is_untouched || !self.claim.may_be_rescued() {
            return false;
        }
        let pool = Arc::clone(self.pool());
        let claim_of = |it: &Arc<_>| self.proxy.switch.claim_pool(pool.service(), it);
        let Some(claim) = pool.rescuer().claim(claim_of) else { return false };
        let color = claim.color();
        if let Some(origin) = &mut self.headers.origin {
            *origin = (color, claim.generation());
            self.headers.rescued_from = Some(pool.color());
        }
        if self.headers.version.is_some() {
            self.headers.version = claim.pool().version_id();
        }
        self.warn(LimitedEvent::Rescued, &format!("by {color}"), connection.now());
        // The response is not of the version that the transaction would be pinned to.
        self.cookies = None;
        self.claim.move_to(claim, &self.proxy.shard);
        true
    }
}
