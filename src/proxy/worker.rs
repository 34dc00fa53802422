//! The proxy of one worker: decides on each head, and has the exchange that follows.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{HOST, TRANSFER_ENCODING},
    request,
};
use hyper::body::Incoming;
use tracing::warn;

use super::{
    address::Client,
    body::{RequestBody, ResponseBody},
    cookies,
    exchange::{Exchange, Held},
    glance::Glance,
    headers,
    refusal::Refusal,
    view::{RequestView, Wish, admit},
};
use crate::{
    downstream::{Connection, Handler},
    metrics::{Metrics, PoolMetrics},
    model::{Audience, Color, Host, Rules, normalize_path},
    switch::{Claim, Ledger, Shard, Switch, Visit},
    upstream::{self, Connections, Pool},
};

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Which pool answers.
    pub switch: Arc<Switch<Arc<Rules>, Pool>>,
    /// Who is inside, and since when.
    pub ledger: Arc<Ledger<Instant>>,
    /// What is counted.
    pub metrics: Metrics,
}

/// The proxy of one worker.
pub struct Proxy {
    switch: Arc<Switch<Arc<Rules>, Pool>>,
    metrics: Metrics,
    unrouted: Arc<PoolMetrics>,
    pub(super) shard: Arc<Shard<Instant>>,
    pub(super) connections: Connections<RequestBody>,
    pub(super) random: RefCell<fastrand::Rng>,
    /// Whether a proxy that nobody told us of was warned of already.
    has_warned: Cell<bool>,
}

/// What was decided when a request was admitted.
struct Admitted {
    claim: Claim<Pool>,
    client: Client,
    is_wished: bool,
    has_marks: bool,
    patience: Duration,
}

// === impl Proxy ===

impl Proxy {
    /// The proxy of worker number `worker`.
    #[must_use]
    pub fn new(shared: &Shared, worker: usize, limits: upstream::Limits) -> Self {
        Self {
            switch: Arc::clone(&shared.switch),
            metrics: shared.metrics.clone(),
            unrouted: Arc::new(shared.metrics.unrouted()),
            shard: shared.ledger.shard(worker),
            connections: Connections::new(limits),
            random: RefCell::new(fastrand::Rng::new()),
            has_warned: Cell::new(false),
        }
    }

    /// Decides on a head and takes the claim. The only load of the table for this request.
    fn admit(
        &self,
        head: &request::Parts,
        glance: Glance,
        connection: &Connection<Self>,
    ) -> Result<Admitted, Refusal> {
        let host = checked_host(head, glance)?;
        let path = match (&head.method, head.uri.path()) {
            (&Method::OPTIONS, "*") => "/".into(),
            (_, path) => normalize_path(path)
                .map_err(|_| Refusal::Malformed("the path cannot be read in one way only"))?,
        };
        let wish = wish(&head.headers, glance);
        let listener = connection.listener().preview;
        let mut decided = None;
        let claim = self.switch.claim(|rules| {
            let standing = &connection.memory().standing;
            let client =
                standing.client(rules, connection.peer(), &head.headers, glance.is_forwarded);
            let view =
                RequestView { host: &host, path: &path, audience: client.audience, wish, listener };
            let choice = admit(rules, &view)?;
            let has_marks = client.audience == Audience::Internal || rules.public_marks;
            decided = Some((client, choice.1, has_marks, rules.response_patience));
            Ok::<_, Refusal>(choice)
        });
        if let (Err(Refusal::Audience), Some(color)) = (&claim, listener) {
            self.metrics.preview_refused("", color);
        }
        let claim = claim?;
        let (client, visit, has_marks, patience) =
            decided.expect("a claim was taken, so the choice was made");
        if let (Audience::Public, Wish::Color(color)) = (client.audience, wish) {
            self.metrics.preview_refused(claim.pool().service().as_str(), color);
        }
        if client.is_forgotten_proxy && !self.has_warned.replace(true) {
            let peer = connection.peer();
            warn!(
                %peer,
                "a peer of clients.internal forwards for others: if it is a proxy, list it in \
                 clients.trusted_proxies, or all of its clients count as internal"
            );
        }
        let is_wished = visit != Visit::Active;
        Ok(Admitted { claim, client, is_wished, has_marks, patience })
    }

    async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
        connection: Rc<Connection<Self>>,
    ) -> Response<ResponseBody> {
        let started = Instant::now();
        let (mut head, body) = request.into_parts();
        let glance = Glance::at(&head.headers);
        let admitted = self.admit(&head, glance, &connection);
        let mut exchange = Exchange::begin(Arc::clone(&self.unrouted), self, connection, started);
        let Admitted { claim, client, is_wished, has_marks, patience } = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return exchange.refused(refusal),
        };
        let (color, generation) = (claim.color(), claim.generation());
        exchange.hold(claim);
        {
            let Exchange { proxy, connection, .. } = &exchange;
            let (memory, peer) = (connection.memory(), connection.peer());
            let random = &mut *proxy.random.borrow_mut();
            let is_behind_proxy = client.is_behind_proxy;
            let headers = &mut head.headers;
            headers::forward_request(headers, glance, memory, peer, is_behind_proxy, random);
        }
        let forwarded = exchange.forward(head, glance, body, patience).await;
        let mut answer = match forwarded {
            // A tunnel that nobody asked for.
            Ok((answer, _)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                exchange.refused(Refusal::Protocol)
            }
            Ok((answer, back)) => exchange.relayed(answer, back),
            Err(refusal) => exchange.refused(refusal),
        };
        let marked = answer.headers_mut();
        if is_wished {
            headers::forbid_caching(marked);
        }
        if has_marks {
            marked.insert("flipgate-color", HeaderValue::from_static(color.as_str()));
            marked.insert("flipgate-generation", generation.0.into());
        }
        answer
    }
}

impl Handler for Proxy {
    type Body = ResponseBody;
    type Hold = Held;
    type Memory = headers::Memory;

    fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        connection: Rc<Connection<Self>>,
    ) -> impl Future<Output = Response<ResponseBody>> {
        self.answer(request, connection)
    }

    fn tick(&self) {
        self.connections.sweep(Instant::now());
    }
}

/// The one host that a head names: RFC 9112, section 3.2.
fn checked_host(head: &request::Parts, glance: Glance) -> Result<Host<'_>, Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let (Some(line), 1) = (head.headers.get(HOST), glance.hosts) else {
        return Err(Refusal::Malformed("exactly one Host is needed"));
    };
    let host = line.to_str().map_err(|_| Refusal::Malformed("the Host is not plain text"))?;
    if let Some(authority) = head.uri.authority()
        && !authority.as_str().eq_ignore_ascii_case(host)
    {
        return Err(Refusal::Malformed("the target and the Host name different hosts"));
    }
    if glance.codings > 0 {
        let coding = head.headers.get(TRANSFER_ENCODING);
        let is_chunked = coding.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || glance.codings > 1 {
            return Err(Refusal::TransferCoding);
        }
    }
    Host::parse(host).map_err(|_| Refusal::Malformed("the Host is not a name or an address"))
}

/// The color that the head asks for: by header, else by cookie.
fn wish(headers: &HeaderMap, glance: Glance) -> Wish {
    if glance.has_wish {
        return agreed(headers.get_all("flipgate-preview").iter().map(HeaderValue::as_bytes));
    }
    if glance.has_cookies { agreed(cookies::wishes(headers)) } else { Wish::None }
}

fn agreed<'a>(words: impl Iterator<Item = &'a [u8]>) -> Wish {
    words.fold(Wish::None, |wish, word| {
        let color = std::str::from_utf8(word).ok().and_then(|it| it.parse::<Color>().ok());
        match (wish, color) {
            (Wish::None, Some(color)) => Wish::Color(color),
            (Wish::Color(before), Some(color)) if before == color => wish,
            _ => Wish::Unclear,
        }
    })
}
