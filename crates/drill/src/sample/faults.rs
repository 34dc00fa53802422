//! Faults that the sample application has on purpose, so that gates and watches have something to find.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Body, with_status};

/// The faults of the application. Shares are in percent of its requests.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Responses with the status 500, 0 to 100.
    pub errors: u8,
    /// If it is not 0, the errors come in bursts of so many milliseconds: all requests of a burst fail.
    pub burst_ms: u64,
    /// The delay of each response, in milliseconds.
    pub delay_ms: u64,
    /// Requests without a response, 0 to 100.
    pub hangs: u8,
    /// Responses that break off, 0 to 100.
    pub broken: u8,
}

/// The timeout of [`set_faults`].
const SET_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of its response that are read.
const RESPONSE_MAX: u64 = 64 * 1024;

/// The current faults of an application.
#[derive(Debug)]
pub(super) struct FaultSwitch(Mutex<Faults>);

/// Sets the faults of the application at an address, by `PUT /faults`. Takes at most 5 seconds. Cancel safe, but then it is
/// not known whether they are set.
///
/// # Errors
///
/// If it cannot be reached, or does not accept them.
pub async fn set_faults(address: SocketAddr, faults: Faults) -> io::Result<()> {
    let body = serde_json::to_string(&faults)?;
    let request = format!(
        "PUT /faults HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.take(RESPONSE_MAX).read_to_end(&mut response).await?;
        match response.starts_with(b"HTTP/1.1 200 ") {
            true => Ok(()),
            false => Err(io::Error::other("it did not accept them")),
        }
    };
    tokio::time::timeout(SET_TIMEOUT, exchange).await?
}

// === impl Faults ===

impl Faults {
    /// The response that a request gets instead of the right one, if any. Waits for the delay, and forever if the request
    /// hangs.
    pub(super) async fn respond(self) -> Option<http::Response<Body>> {
        let Self { errors, burst_ms, delay_ms, hangs, broken } = self;
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        if is_drawn(hangs) {
            std::future::pending::<()>().await;
        }
        let fails = match burst_ms {
            0 => is_drawn(errors),
            _ => is_in_burst(errors, burst_ms),
        };
        if fails {
            let text = "this application fails on purpose\n".to_owned();
            return Some(with_status(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
        is_drawn(broken).then(broken_response)
    }
}

fn is_drawn(percent: u8) -> bool {
    percent > 0 && fastrand::u8(0..100) < percent
}

/// Whether all requests fail now. Which stretches of time are bursts depends on the clock alone.
fn is_in_burst(percent: u8, burst_ms: u64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = u64::try_from(now.as_millis()).unwrap_or_default() / burst_ms.max(1);
    fastrand::Rng::with_seed(number).u8(0..100) < percent
}

/// A response that is shorter than its length says: the connection is closed behind it.
fn broken_response() -> http::Response<Body> {
    let half = Bytes::from_static(b"half of a respon");
    let body = StreamBody::new(futures_util::stream::iter([Ok(Frame::data(half))]));
    let mut response = http::Response::new(body.boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_LENGTH, 1000.into());
    response
}

// === impl FaultSwitch ===

impl FaultSwitch {
    pub(super) fn new(faults: Faults) -> Self {
        Self(Mutex::new(faults))
    }

    pub(super) fn get(&self) -> Faults {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, faults: Faults) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}
