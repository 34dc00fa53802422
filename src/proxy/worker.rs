//! The proxy of one worker: what its exchanges share, and the routing decision for each head.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::warn;

use super::{
    address::ClientIdentity,
    affinity::key_of,
    continued::{Continued, NewCookies, Sides, SteeredRequest, is_https},
    cookies::{self, OwnCookies},
    error::ProxyError,
    forwarded_chain::ForwardedInfo,
    forwarding::{Forwarding, Via},
    intake::{NotAdmitted, check_intake},
    log_limiter::LogLimiter,
    max_forwards::hops_left,
    peer_cache::PeerCache,
    previews::PreviewMonitor,
    steering::decide,
    via::{LoopMark, ViaLines},
    view::{RequestView, RequestedColor, admit},
};
use crate::{
    continuity::Hold,
    downstream::ClientConnection,
    http1::{FieldLines, FieldName, RequestHead, TargetForm},
    metrics::{Metrics, PoolMetrics},
    model::{Algorithm, Audience, Color, Host, NamePattern, ServiceRules, normalize_path},
    net::BufferPool,
    switch::{Claim, ClaimOrigin, Ledger, LedgerShard, Visit},
    upstream::{
        self, ConcurrencyLimit, Pool, Pools, ServiceSwitch, WorkerConnectionPool, WorkerRegistry,
    },
};

/// What all workers share.
#[derive(Clone, Debug)]
pub struct ProxyContext {
    /// The sides and the active colors.
    pub switch: Arc<ServiceSwitch>,
    /// The requests in flight, and since when.
    pub ledger: Arc<Ledger<Instant>>,
    /// The metrics.
    pub metrics: Metrics,
    /// The limit of requests in flight.
    pub in_flight: Arc<ConcurrencyLimit>,
    /// The limit of connections to endpoints.
    pub connections: Arc<ConcurrencyLimit>,
    /// The workers, which give up idle connections for each other.
    pub workers: Arc<WorkerRegistry>,
    /// Bytes of a body that count as progress within the stall timeout.
    pub least_progress: u64,
    /// How messages are forwarded.
    pub forwarding: Forwarding,
    /// The mark by which loops are detected.
    pub mark: LoopMark,
    /// The pools and active colors, as the switch has them.
    pub pools: watch::Receiver<Pools>,
}

/// The proxy of one worker.
pub struct Proxy {
    pub(super) switch: Arc<ServiceSwitch>,
    pub(super) metrics: Metrics,
    pub(super) unrouted: Arc<PoolMetrics>,
    pub(super) shard: Arc<LedgerShard<Instant>>,
    pub(super) connections: Rc<WorkerConnectionPool>,
    pub(super) in_flight: Arc<ConcurrencyLimit>,
    pub(super) pools: watch::Receiver<Pools>,
    pub(super) random: RefCell<fastrand::Rng>,
    pub(super) log_limiter: LogLimiter,
    pub(super) least_progress: u64,
    mark: LoopMark,
    pub(super) mark_lines: ViaLines,
    pub(super) via: Via,
    /// Additional names of trailer fields.
    pub(super) trailers: Rc<[NamePattern]>,
    previews: PreviewMonitor,
    /// Whether there was a warning about a proxy that is not in `trusted_proxies`.
    has_warned: Cell<bool>,
    pub(super) has_warned_of_header: Cell<bool>,
    /// [`crate::switch::Switch::endings`] at the last step.
    pub(super) seen_endings: Cell<u64>,
}

/// The decision about an admitted request.
pub(super) struct RoutingDecision {
    pub(super) claim: Claim<Pool>,
    /// What a trusted proxy says about the client, if there is one.
    pub(super) forwarded: Option<ForwardedInfo>,
    pub(super) is_preview: bool,
    /// Whether the client is internal.
    pub(super) is_internal: bool,
    pub(super) shows_color: bool,
    /// Whether the trace context of public clients is kept.
    pub(super) keeps_trace: bool,
    /// The timeout of the response head.
    pub(super) response_timeout: Duration,
    /// The address of the client, if it is known.
    pub(super) client: Option<IpAddr>,
    /// The hash key for the choice of an endpoint, if the service balances by hash.
    pub(super) key: Option<u64>,
    pub(super) rules: ServiceRules,
    /// Why it gets this color.
    pub(super) origin: ClaimOrigin,
    /// Whether the request has cookies of Flipgate.
    pub(super) own_cookies: OwnCookies,
    /// The cookies that keep its client on a version.
    pub(super) cookies: Option<Box<NewCookies>>,
}

// === impl Proxy ===

impl Proxy {
    /// The proxy of worker number `worker`, which reads into `buffers`.
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
            connections: Rc::new(WorkerConnectionPool::new(
                limits,
                Arc::clone(&shared.connections),
                &shared.workers,
                buffers,
            )),
            in_flight: Arc::clone(&shared.in_flight),
            pools: shared.pools.clone(),
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
            seen_endings: Cell::new(shared.switch.endings()),
        }
    }

    /// Decides on a head and takes the claim. The only load of the table for this request. `released` is the hold that has
    /// let it go, if it was held.
    pub(super) fn admit(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        connection: &ClientConnection<PeerCache>,
        released: Option<&Arc<Hold>>,
    ) -> Result<RoutingDecision, NotAdmitted> {
        let peer = connection.peer();
        if is_health_check(head, bytes) && peer.listener().health_checks {
            return Err(ProxyError::Options.into());
        }
        let host = std::str::from_utf8(head.host(bytes)).ok().and_then(|it| Host::parse(it).ok());
        let host = host.ok_or(ProxyError::Malformed("the Host is not a name or an address"))?;
        if peer.tls().is_some_and(|it| !it.names.cover(host.as_str())) {
            return Err(ProxyError::Misdirected.into());
        }
        if peer.listener().https_redirect_port.is_some() {
            return Err(ProxyError::Redirect.into());
        }
        let lines = head.fields.lines(bytes);
        if self.mark.is_on(lines) {
            return Err(ProxyError::Loop.into());
        }
        match hops_left(head, bytes) {
            Ok(None | Some(1..)) => {}
            Ok(Some(0)) => return Err(ProxyError::Options.into()),
            Err(_) => {
                return Err(ProxyError::Malformed("Max-Forwards is not one number").into());
            }
        }
        let has_internal_certificate = peer.tls().is_some_and(|it| it.makes_internal);
        let unclear = ProxyError::Malformed("the path is ambiguous");
        let path = match head.form {
            TargetForm::Asterisk => "/".into(),
            TargetForm::Path | TargetForm::Root => {
                let path = std::str::from_utf8(head.path(bytes)).map_err(|_| unclear)?;
                normalize_path(path).map_err(|_| unclear)?
            }
        };
        let own_cookies = OwnCookies::of(lines);
        let requested = requested_color(lines, own_cookies);
        let listener = peer.listener().preview;
        let mut decided = None;
        let mut cookies = None;
        let claim = self.switch.claim(|table| {
            let rules = &**table.rules();
            let mut identity = peer.cache().trust.client(rules, peer.address(), lines);
            if peer.is_identity_unknown() {
                identity = ClientIdentity::UNKNOWN;
            }
            // The certificate of a proxy says nothing about its clients.
            if has_internal_certificate && identity.forwarded.is_none() {
                identity.audience = Audience::Internal;
            }
            let view = RequestView {
                host: &host,
                path: &path,
                audience: identity.audience,
                requested,
                listener,
            };
            let (index, mut visit) = admit(rules, &view)?;
            let service = table.service_at(index);
            if let Some(terms) = service.terms()
                && visit == Visit::Active
            {
                let active = service.active();
                let is_signal = is_signal(service.side(active).pool(), head, bytes);
                if let Some(intake) = terms.intake.as_ref().filter(|_| !is_signal) {
                    let address = identity.address.unwrap_or(peer.address());
                    let client = (identity.audience == Audience::Public).then_some(address);
                    check_intake(intake, service.name(), &path, client, released)?;
                }
                if terms.pins.is_some() || terms.share.is_some() {
                    let request = SteeredRequest {
                        head,
                        bytes,
                        path: &path,
                        client: identity.address,
                        is_secure: peer.tls().is_some()
                            || identity.forwarded.is_some() && is_https(lines),
                        is_internal: identity.audience == Audience::Internal,
                        is_signal,
                        own_cookies,
                        last_pin: &peer.cache().last_pin,
                        now: connection.now(),
                    };
                    let is_up = |color| service.side(color).pool().has_endpoint_up();
                    let sides = Sides { generation: table.generation(), active, is_up };
                    Continued { visit, cookies } = decide(terms, &sides, &request);
                }
            }
            let choice = (index, visit);
            let shows_color = identity.audience == Audience::Internal || rules.public_headers;
            let of_service = rules.services.get(choice.0).copied().unwrap_or_default();
            let keeps_trace = rules.keeps_trace;
            decided = Some((
                (identity, choice.1),
                (shows_color, keeps_trace),
                rules.response_timeout,
                of_service,
            ));
            Ok::<_, NotAdmitted>(choice)
        });
        if let (Err(NotAdmitted::Error(ProxyError::PublicOnPreviewListener)), Some(color)) =
            (&claim, listener)
        {
            self.metrics.preview_refused("", color);
        }
        let claim = claim?;
        let ((identity, visit), (shows_color, keeps_trace), response_timeout, rules) =
            decided.expect("a claim was taken, so the choice was made");
        if let (Audience::Public, RequestedColor::Color(color)) = (identity.audience, requested) {
            self.metrics.preview_refused(claim.pool().service().as_str(), color);
        }
        self.warn_of_unlisted_proxy(identity, peer.address());
        if let (Audience::Internal, Some(address)) = (identity.audience, identity.address) {
            self.previews.note(address, matches!(visit, Visit::Preview(_)));
        }
        let (forwarded, is_preview) = (identity.forwarded, matches!(visit, Visit::Preview(_)));
        let origin = match visit {
            Visit::Active | Visit::Preview(_) => ClaimOrigin::Role,
            Visit::Pinned(_) => {
                claim.pool().metrics().count_pinned();
                ClaimOrigin::Pin
            }
            Visit::Shared(_) => ClaimOrigin::Share,
        };
        let client = identity.address;
        let key = match &claim.pool().policy().balance.algorithm {
            Algorithm::Hash(by) => key_of(by, lines, client),
            Algorithm::LeastRequest | Algorithm::RoundRobin => None,
        };
        Ok(RoutingDecision {
            claim,
            forwarded,
            is_preview,
            is_internal: identity.audience == Audience::Internal,
            shows_color,
            keeps_trace,
            response_timeout,
            client,
            key,
            rules,
            origin,
            own_cookies,
            cookies,
        })
    }

    fn warn_of_unlisted_proxy(&self, identity: ClientIdentity, peer: IpAddr) {
        if identity.is_forgotten_proxy && !self.has_warned.replace(true) {
            warn!(
                %peer,
                "an internal peer sends forwarding headers: if it is a proxy, add it to \
                 clients.trusted_proxies; otherwise all of its clients count as internal"
            );
        }
    }
}

/// Whether a request is for the version signal, which tells what a new page would get: pins have no effect on it, or a
/// pinned page would learn of another version only when its pin has ended.
fn is_signal(active: &Pool, head: &RequestHead, bytes: &[u8]) -> bool {
    let signal = active.policy().version_signal.as_ref();
    signal.is_some_and(|it| it.resource(head.path(bytes)).is_some())
}

/// Whether a request is a health check of Flipgate itself: `OPTIONS *`, or `OPTIONS` without a host.
fn is_health_check(head: &RequestHead, bytes: &[u8]) -> bool {
    head.form == TargetForm::Asterisk
        || head.host(bytes).is_empty() && head.method(bytes) == b"OPTIONS"
}

/// The color that the head asks for: by header, else by cookie.
fn requested_color(lines: FieldLines<'_>, own_cookies: OwnCookies) -> RequestedColor {
    if lines.has(FieldName::FlipgatePreview) {
        return combine(lines.all(FieldName::FlipgatePreview));
    }
    match own_cookies.have_preview() {
        true => combine(cookies::preview_colors(lines)),
        false => RequestedColor::None,
    }
}

fn combine<'a>(words: impl Iterator<Item = &'a [u8]>) -> RequestedColor {
    words.fold(RequestedColor::None, |requested, word| {
        let color = std::str::from_utf8(word).ok().and_then(|it| it.parse::<Color>().ok());
        match (requested, color) {
            (RequestedColor::None, Some(color)) => RequestedColor::Color(color),
            (RequestedColor::Color(before), Some(color)) if before == color => requested,
            _ => RequestedColor::Unclear,
        }
    })
}
