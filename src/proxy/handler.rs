//! The proxy of one worker as the handler of its clients.

use std::time::Instant;

use http::StatusCode;
use tracing::warn;

use super::{
    detached::Detached, exchange::exchange, log_limiter::LimitedEvent, peer_cache::PeerCache,
    worker::Proxy,
};
use crate::{
    downstream::{AfterExchange, ClientStream, Handler, HeadError, RejectReason},
    http1::RequestHead,
};

impl Handler for Proxy {
    type ConnectionCache = PeerCache;
    type Tunnel = Detached;

    fn exchange<'a>(
        &'a self,
        client: &'a mut ClientStream<PeerCache>,
        head: Result<RequestHead, HeadError>,
    ) -> impl Future<Output = AfterExchange<Detached>> + 'a {
        exchange(self, client, head)
    }

    fn tunnel(
        &self,
        client: ClientStream<PeerCache>,
        detached: Detached,
    ) -> impl Future<Output = ()> {
        detached.carry(client)
    }

    fn count_rejected(&self, why: RejectReason) {
        match why {
            RejectReason::Malformed => self.unrouted.count(StatusCode::BAD_REQUEST.as_u16()),
            RejectReason::TooManyConnections => {
                self.unrouted.count(StatusCode::TOO_MANY_REQUESTS.as_u16());
                self.metrics.turned_away("connections_per_client");
            }
            RejectReason::Http2Abuse(peer) => {
                self.metrics.turned_away("http2_abuse");
                let event = LimitedEvent::Http2Abuse;
                let suppressed = self.log_limiter.permits(event, ("", ""), Instant::now());
                if let Some(suppressed) = suppressed {
                    warn!(%peer, suppressed, "{}", event.message());
                }
            }
            RejectReason::Handshake => self.metrics.turned_away("handshake"),
            RejectReason::ClientCertificate(peer, problem) => {
                self.metrics.turned_away("handshake");
                let event = LimitedEvent::ClientCertificate;
                let suppressed = self.log_limiter.permits(event, ("", ""), Instant::now());
                if let Some(suppressed) = suppressed {
                    warn!(%peer, problem, suppressed, "{}", event.message());
                }
            }
            RejectReason::ProxyHeader(peer) => {
                self.metrics.turned_away("proxy_header");
                if !self.has_warned_of_header.replace(true) {
                    warn!(
                        %peer,
                        "a peer of proxy_protocol.from sent no valid PROXY protocol header: its clients are not \
                         served; enable the header there, or remove the peer from the list"
                    );
                }
            }
        }
    }

    fn serve_other_workers(&self) -> impl Future<Output = ()> {
        self.connections.serve_other_workers()
    }

    fn tick(&self) -> bool {
        for _ in 0..self.connections.sweep(Instant::now()) {
            self.metrics.task_died("endpoint connection");
        }
        // Idle streams do not see otherwise that they have to end.
        let endings = self.switch.endings();
        self.seen_endings.replace(endings) != endings
    }
}
