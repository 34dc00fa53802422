//! Opens connections to a pool before its first requests, so that those need no handshake.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    connect::ConnectContext, connection_requests::PreconnectRequest,
    connections::WorkerConnectionPool,
};
use crate::model::Health;

/// The most connections that one worker opens for one promotion.
const OPENED_MAX: usize = 256;

/// The timeout of one connection.
const TIMEOUT: Duration = Duration::from_secs(1);

impl WorkerConnectionPool {
    /// Opens idle connections as requested. A connection that cannot be opened is left to the first request. Endpoints
    /// that get a PROXY protocol header have none: each of their connections belongs to one client.
    pub(super) async fn preconnect(self: Rc<Self>, request: PreconnectRequest) {
        let PreconnectRequest { pool, per_endpoint, done } = request;
        let mut opened = 0;
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let context = ConnectContext {
            client: nowhere,
            local: nowhere,
            is_for_tunnel: false,
            client_requests: 0,
            timeout: Some(TIMEOUT),
        };
        for endpoint in pool.endpoints() {
            let is_usable = endpoint.health() == Health::Up
                && endpoint.connect_config().proxy_protocol.is_none();
            if !is_usable {
                continue;
            }
            let missing = per_endpoint.saturating_sub(self.idle_count(&endpoint));
            for _ in 0..missing.min(OPENED_MAX - opened) {
                let now = Instant::now();
                let Ok(connection) = self.open(&pool, &endpoint, context, now).await else { break };
                self.put_back(&endpoint, connection, now);
                opened += 1;
                if endpoint.is_multiplexed() == Some(true) {
                    // One session has room for all requests.
                    break;
                }
            }
        }
        // The caller may have given up.
        let _ = done.send(opened);
    }
}
