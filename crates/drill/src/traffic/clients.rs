//! Clients of several requests: transactions, which belong together, and visitors, which only keep their cookies.

use std::time::Duration;

use http::{HeaderMap, header};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    RESPONSE_TIMEOUT, SHORT_BYTES, ThreadClients,
    messages::{check_head, get, header_number, read_body},
};
use crate::{
    connector::{Connector, IdleConnections},
    record::{Kind, Outcome, Request},
    sample::{self, Content, asset_name, now_ns},
};

/// The calls of a scan and of a visitor. There are four of them in the time of a stream.
const CALLS: u32 = 10;
const CALL_RATE: u32 = 4;

/// The assets of a page. There is one of them in the time of a stream.
const PAGE_ASSETS: u32 = 10;

/// The cookies of a client.
#[derive(Debug, Default)]
struct Cookies(Vec<(String, String)>);

/// A client of several requests.
struct Client<'a> {
    clients: &'a ThreadClients,
    service: usize,
    kind: Kind,
    /// The number of its first request; 0 before that.
    first: u64,
    /// `None` for a client that keeps none.
    cookies: Option<Cookies>,
}

/// How long a page takes to load its assets, at a duration of streams.
pub(crate) fn page_time(stream_time: Duration) -> Duration {
    stream_time * PAGE_ASSETS
}

impl ThreadClients {
    /// A scanner: calls with their scan's number, and with the cookies that it was given. Ends with the first call that fails.
    pub(super) async fn scan(&self, service: usize, due: u64) {
        self.calls(Client::new(self, service, Kind::Scan, true), "/traffic/scan", due).await;
    }

    /// A client with its cookies, and with nothing that says that its calls belong together.
    pub(super) async fn visitor(&self, service: usize, due: u64) {
        self.calls(Client::new(self, service, Kind::Visitor, true), "/traffic/visit", due).await;
    }

    /// Makes the calls of a client, until one fails.
    async fn calls(&self, mut client: Client<'_>, path: &str, due: u64) {
        let (began, interval) = (Instant::now(), self.sizes.stream_time / CALL_RATE);
        for number in 0..CALLS {
            sleep_until(began + interval * number).await;
            let due = if number == 0 { due } else { now_ns() };
            if client.call(path, &[], due).await.is_none() {
                return;
            }
        }
    }

    /// A browser: a page, and then its assets. Every second one keeps no cookies, so that only the names of the assets say
    /// which version the page is of.
    pub(super) async fn page(&self, service: usize, due: u64) {
        let keeps_cookies = self.next_id.get().is_multiple_of(2);
        let mut client = Client::new(self, service, Kind::Page, keeps_cookies);
        let document = [("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate")];
        let Some(page) = client.call("/traffic/page", &document, due).await else { return };
        let Some(color) = page.color else { return };
        let began = Instant::now();
        for number in 0..PAGE_ASSETS {
            sleep_until(began + self.sizes.stream_time * number).await;
            let path = format!("/traffic/asset/{}", asset_name(color.as_str(), number.into()));
            // The page goes on without an asset that is missing.
            client.call(&path, &[("sec-fetch-dest", "script")], now_ns()).await;
        }
    }
}

// === impl Client ===

impl<'a> Client<'a> {
    fn new(clients: &'a ThreadClients, service: usize, kind: Kind, keeps_cookies: bool) -> Self {
        let cookies = keeps_cookies.then(Cookies::default);
        Self { clients, service, kind, first: 0, cookies }
    }

    /// Makes a call and records it. Returns it if it is complete.
    async fn call(&mut self, path: &str, fields: &[(&str, &str)], due: u64) -> Option<Request> {
        let mut request = self.clients.request(self.kind, self.service, due);
        if self.first == 0 {
            self.first = request.id;
        }
        if self.kind.is_transaction() {
            request.transaction = self.first;
        }
        if self.cookies.is_some() {
            request.client = self.first;
        }
        let cookie = self.cookies.as_ref().and_then(Cookies::line);
        let scan = self.first.to_string();
        let mut fields = fields.to_vec();
        if self.kind == Kind::Scan {
            fields.push(("x-scan-id", &scan));
        }
        fields.extend(cookie.as_deref().map(|it| ("cookie", it)));
        let (connector, idle) = &self.clients.addresses[self.service].public;
        let call = Box::pin(call(connector, idle, path, &fields, &mut request));
        let end = timeout(RESPONSE_TIMEOUT, call).await.unwrap_or(Err(Outcome::TimedOut));
        let end = end.map(|headers| {
            if let Some(cookies) = &mut self.cookies {
                cookies.keep(&headers);
            }
        });
        let complete = end.is_ok().then_some(request);
        self.clients.end(request, end);
        complete
    }
}

async fn call(
    connector: &Connector,
    idle: &IdleConnections,
    path: &str,
    fields: &[(&str, &str)],
    request: &mut Request,
) -> Result<HeaderMap, Outcome> {
    let (response, connection) = get(connector, idle, path, request.id, fields).await?;
    request.active_at = header_number(response.headers(), sample::ENDED).unwrap_or_default();
    let headers = response.headers().clone();
    let body = read_body(check_head(request, response)?).await?;
    idle.put_back(connection, connector);
    match body.len() == SHORT_BYTES && Content::of(request.id).matches_next(&body) {
        true => Ok(headers),
        false => Err(Outcome::Corrupted),
    }
}

// === impl Cookies ===

impl Cookies {
    /// Keeps the cookies of a response. Their attributes do not matter here.
    fn keep(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(header::SET_COOKIE) {
            let pair = value.to_str().ok().and_then(|it| it.split(';').next()?.split_once('='));
            let Some((name, value)) = pair else { continue };
            self.0.retain(|it| it.0 != name);
            self.0.push((name.to_owned(), value.to_owned()));
        }
    }

    fn line(&self) -> Option<String> {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}
