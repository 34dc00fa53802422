//! The pins of the planted proxy: a cookie with the color on which a transaction began.

use std::{sync::Arc, time::Duration};

use flipgate::model::Color;
use http::{HeaderMap, HeaderValue, Request, header};
use tokio::time::Instant;

use super::{Proxy, Table};

/// The pins of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Pins {
    /// Whether there may be any.
    is_used: bool,
    /// Until when pins to each color that is not active are valid.
    until: [Option<Instant>; 2],
}

/// How long a pin is valid after a flip.
pub(crate) const PIN_AGE: Duration = Duration::from_secs(4);

const COOKIE: &str = "planted_pin";

// === impl Pins ===

impl Pins {
    /// The color of the transaction of a request. Notes a transaction that begins.
    pub(super) fn color<B>(
        &mut self,
        request: &Request<B>,
        active: Color,
        is_endless: bool,
    ) -> Option<Color> {
        if begins(request) {
            self.is_used = true;
            return None;
        }
        let color = cookie_of(request.headers())?;
        (color == active || is_endless || self.hold(color)).then_some(color)
    }

    /// Whether pins hold a color.
    pub(super) fn hold(&self, color: Color) -> bool {
        self.until[color as usize].is_some_and(|it| Instant::now() < it)
    }

    /// Follows a flip away from a color. Returns when its pins end, if there are any.
    pub(super) fn replace(&mut self, color: Color) -> Option<Instant> {
        let until = self.is_used.then(|| Instant::now() + PIN_AGE);
        self.until = [None; 2];
        self.until[color as usize] = until;
        until
    }
}

/// Whether a request begins a transaction.
pub(super) fn begins<B>(request: &Request<B>) -> bool {
    let is_document = request.headers().get("sec-fetch-dest").is_some_and(|it| it == "document");
    let is_scan = request.headers().contains_key("x-scan-id");
    is_document || (is_scan && cookie_of(request.headers()).is_none())
}

pub(super) fn cookie(color: Color) -> HeaderValue {
    HeaderValue::from_str(&format!("{COOKIE}={color}; Path=/")).expect("letters")
}

fn cookie_of(headers: &HeaderMap) -> Option<Color> {
    value_of(headers, COOKIE)?.parse().ok()
}

/// The value of a cookie.
pub(super) fn value_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = headers.get(header::COOKIE)?.to_str().ok()?;
    let mut pairs = line.split("; ").filter_map(|it| it.split_once('='));
    pairs.find(|it| it.0 == name).map(|it| it.1)
}

impl Proxy {
    /// Follows a flip away from a color. When its pins end, it may be drained.
    pub(super) fn replace_pins(self: &Arc<Self>, table: &mut Table, service: usize, color: Color) {
        let Some(until) = table.pins[service].replace(color) else { return };
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            proxy.tell(&mut proxy.table.lock().expect("no panic inside"), service, color);
        });
    }
}
