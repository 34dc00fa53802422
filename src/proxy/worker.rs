//! The proxy of one worker: what its exchanges share, and the decision on each head.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    address::ClientIdentity as Asker,
    affinity::key_of,
    cookies,
    error::ProxyError,
    forwarded_chain::ForwardedInfo,
    forwarding::{Forwarding, Via},
    log_limiter::LogLimiter,
    max_forwards::hops_left,
    peer_cache::PeerCache,
    previews::PreviewMonitor,
    via::{LoopMark, ViaLines},
    view::{RequestView, RequestedColor, admit},
};
use crate::{
    downstream::ClientConnection,
    http1::{FieldLines, FieldName, RequestHead, TargetForm},
    metrics::{Metrics, PoolMetrics},
    model::{Algorithm, Audience, Color, Host, NamePattern, Rules, ServiceRules, normalize_path},
    net::BufferPool,
    switch::{Claim, Ledger, LedgerShard, Switch, Visit},
    upstream::{self, ConcurrencyLimit, Pool, WorkerConnectionPool, WorkerRegistry},
};

/// What all workers share.
#[derive(Clone, Debug)]
pub struct ProxyContext {
    /// Which pool answers.
    pub switch: Arc<Switch<Arc<Rules>, Pool>>,
    /// Who is inside, and since when.
    pub ledger: Arc<Ledger<Instant>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Requests that there may be at once.
    pub in_flight: Arc<ConcurrencyLimit>,
    /// Connections to endpoints that there may be at once.
    pub connections: Arc<ConcurrencyLimit>,
    /// The workers, who give up connections to each other.
    pub workers: Arc<WorkerRegistry>,
    /// Bytes that a body has to move by while a client is waited for as long as that may be.
    pub least_progress: u64,
    /// How messages are passed on.
    pub forwarding: Forwarding,
    /// What they are known by when they come back.
    pub mark: LoopMark,
}

/// The proxy of one worker.
pub struct Proxy {
    switch: Arc<Switch<Arc<Rules>, Pool>>,
    pub(super) metrics: Metrics,
    pub(super) unrouted: Arc<PoolMetrics>,
    pub(super) shard: Arc<LedgerShard<Instant>>,
    pub(super) connections: WorkerConnectionPool,
    pub(super) in_flight: Arc<ConcurrencyLimit>,
    pub(super) random: RefCell<fastrand::Rng>,
    pub(super) log_limiter: LogLimiter,
    pub(super) least_progress: u64,
    mark: LoopMark,
    pub(super) mark_lines: ViaLines,
    pub(super) via: Via,
    /// Names that may be trailers, besides those that are known.
    pub(super) trailers: Rc<[NamePattern]>,
    previews: PreviewMonitor,
    /// Whether a proxy that nobody told us of was warned of already.
    has_warned: Cell<bool>,
    pub(super) has_warned_of_header: Cell<bool>,
}

/// What was decided when a request was admitted.
pub(super) struct RoutingDecision {
    pub(super) claim: Claim<Pool>,
    /// What a trusted proxy tells of the client, if there is one.
    pub(super) told: Option<ForwardedInfo>,
    pub(super) is_wished: bool,
    pub(super) has_marks: bool,
    /// Whether the public's trace context is kept.
    pub(super) keeps_trace: bool,
    /// How long the answer may take to begin.
    pub(super) patience: Duration,
    /// Where the client is, as far as that is known.
    pub(super) client: Option<IpAddr>,
    /// What its endpoint is chosen by, if it is by something of the request.
    pub(super) key: Option<u64>,
    pub(super) rules: ServiceRules,
}

// === impl Proxy ===

impl Proxy {
    /// The proxy of worker number `worker`, which reads through `buffers`.
    #[must_use]
    pub fn new(
        shared: &ProxyContext,
        worker: usize,
        limits: upstream::ConnectionSettings,
        buffers: Rc<BufferPool>,
    ) -> Self {
        Self {
            switch: Arc::clone(&shared.switch),
            metrics: shared.metrics.clone(),
            unrouted: Arc::new(shared.metrics.unrouted()),
            shard: shared.ledger.shard(worker),
            connections: WorkerConnectionPool::new(
                limits,
                Arc::clone(&shared.connections),
                &shared.workers,
                buffers,
            ),
            in_flight: Arc::clone(&shared.in_flight),
            random: RefCell::new(fastrand::Rng::new()),
            log_limiter: LogLimiter::default(),
            least_progress: shared.least_progress,
            mark_lines: shared.mark.lines(shared.forwarding.via),
            mark: shared.mark.clone(),
            via: shared.forwarding.via,
            trailers: shared.forwarding.trailers.iter().cloned().collect(),
            previews: PreviewMonitor::default(),
            has_warned: Cell::new(false),
            has_warned_of_header: Cell::new(false),
        }
    }

    /// Decides on a head and takes the claim. The only load of the table for this request.
    pub(super) fn admit(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        connection: &ClientConnection<PeerCache>,
    ) -> Result<RoutingDecision, ProxyError> {
        let peer = connection.peer();
        if is_health_check(head, bytes) && peer.listener().health_checks {
            return Err(ProxyError::Options);
        }
        let host = std::str::from_utf8(head.host(bytes)).ok().and_then(|it| Host::parse(it).ok());
        let host = host.ok_or(ProxyError::Malformed("the Host is not a name or an address"))?;
        if peer.tls().is_some_and(|it| !it.names.cover(host.as_str())) {
            return Err(ProxyError::Misdirected);
        }
        if peer.listener().https_redirect_port.is_some() {
            return Err(ProxyError::Redirect);
        }
        let lines = head.fields.lines(bytes);
        if self.mark.is_on(lines) {
            return Err(ProxyError::Loop);
        }
        match hops_left(head, bytes) {
            Ok(None | Some(1..)) => {}
            Ok(Some(0)) => return Err(ProxyError::Options),
            Err(_) => return Err(ProxyError::Malformed("the Max-Forwards is not one number")),
        }
        let is_vouched_for = peer.tls().is_some_and(|it| it.makes_internal);
        let unclear = ProxyError::Malformed("the path cannot be read in one way only");
        let path = match head.form {
            TargetForm::Asterisk => "/".into(),
            TargetForm::Path | TargetForm::Root => {
                let path = std::str::from_utf8(head.path(bytes)).map_err(|_| unclear)?;
                normalize_path(path).map_err(|_| unclear)?
            }
        };
        let wish = wish(lines);
        let listener = peer.listener().preview;
        let mut decided = None;
        let claim = self.switch.claim(|rules| {
            let mut asker = peer.cache().standing.client(rules, peer.address(), lines);
            if peer.is_identity_unknown() {
                asker = Asker::UNKNOWN;
            }
            // Whoever stands behind a proxy has not shown the proxy's certificate.
            if is_vouched_for && asker.told.is_none() {
                asker.audience = Audience::Internal;
            }
            let view = RequestView {
                host: &host,
                path: &path,
                audience: asker.audience,
                requested: wish,
                listener,
            };
            let choice = admit(rules, &view)?;
            let has_marks = asker.audience == Audience::Internal || rules.public_headers;
            let of_service = rules.services.get(choice.0).copied().unwrap_or_default();
            let keeps_trace = rules.keeps_trace;
            decided = Some((
                (asker, choice.1),
                (has_marks, keeps_trace),
                rules.response_timeout,
                of_service,
            ));
            Ok::<_, ProxyError>(choice)
        });
        if let (Err(ProxyError::Audience), Some(color)) = (&claim, listener) {
            self.metrics.preview_refused("", color);
        }
        let claim = claim?;
        let ((asker, visit), (has_marks, keeps_trace), patience, rules) =
            decided.expect("a claim was taken, so the choice was made");
        if let (Audience::Public, RequestedColor::Color(color)) = (asker.audience, wish) {
            self.metrics.preview_refused(claim.pool().service().as_str(), color);
        }
        self.warn_of_forgotten_proxy(asker, peer.address());
        if let (Audience::Internal, Some(address)) = (asker.audience, asker.address) {
            self.previews.note(address, visit != Visit::Active);
        }
        let (told, is_wished) = (asker.told, visit != Visit::Active);
        let client = asker.address;
        let key = match &claim.pool().policy().balance.algorithm {
            Algorithm::Hash(by) => key_of(by, lines, client),
            Algorithm::LeastRequest | Algorithm::RoundRobin => None,
        };
        Ok(RoutingDecision {
            claim,
            told,
            is_wished,
            has_marks,
            keeps_trace,
            patience,
            client,
            key,
            rules,
        })
    }

    fn warn_of_forgotten_proxy(&self, asker: Asker, peer: IpAddr) {
        if asker.is_forgotten_proxy && !self.has_warned.replace(true) {
            warn!(
                %peer,
                "a peer of clients.internal forwards for others: if it is a proxy, list it in \
                 clients.trusted_proxies, or all of its clients count as internal"
            );
        }
    }
}

/// Whether a request asks how the proxy itself is, as a health check does: `OPTIONS` for the whole server, or without a
/// host.
fn is_health_check(head: &RequestHead, bytes: &[u8]) -> bool {
    head.form == TargetForm::Asterisk
        || head.host(bytes).is_empty() && head.method(bytes) == b"OPTIONS"
}

/// The color that the head asks for: by header, else by cookie.
fn wish(lines: FieldLines<'_>) -> RequestedColor {
    if lines.has(FieldName::FlipgatePreview) {
        return agreed(lines.all(FieldName::FlipgatePreview));
    }
    agreed(cookies::preview_colors(lines))
}

fn agreed<'a>(words: impl Iterator<Item = &'a [u8]>) -> RequestedColor {
    words.fold(RequestedColor::None, |wish, word| {
        let color = std::str::from_utf8(word).ok().and_then(|it| it.parse::<Color>().ok());
        match (wish, color) {
            (RequestedColor::None, Some(color)) => RequestedColor::Color(color),
            (RequestedColor::Color(before), Some(color)) if before == color => wish,
            _ => RequestedColor::Unclear,
        }
    })
}
