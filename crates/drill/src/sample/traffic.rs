//! The paths below `/traffic/`: one for each kind of request of the drill.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::{
    BYTES, Body, Content, DIGEST, ENDED, INSTANCE, SampleIdentity, content::digest, now_ns,
    number_in, text, websocket, with_status,
};

/// The longest duration and the largest body that a client can ask for.
const MILLIS_MAX: u64 = 600_000;
const BYTES_MAX: u64 = 1 << 30;

/// The time between two chunks of a body or two events.
const CHUNK_INTERVAL: Duration = Duration::from_millis(50);

/// The size of a short response.
const SHORT_BYTES: u64 = 128;

pub(super) async fn respond(
    identity: &SampleIdentity,
    kind: &str,
    id: u64,
    request: Request<Incoming>,
) -> Response<Body> {
    let query = request.uri().query().map(str::to_owned);
    let millis = number_in(query.as_deref(), "ms").unwrap_or_default().min(MILLIS_MAX);
    let bytes = number_in(query.as_deref(), "bytes").unwrap_or(SHORT_BYTES).min(BYTES_MAX);
    match kind {
        "/short" => short(id),
        "/download" => download(identity, id, bytes, Duration::from_millis(millis)),
        "/upload" => upload(request).await,
        "/events" => events(identity, Duration::from_millis(millis)),
        "/ws" => websocket::respond(identity, request),
        "/scan" | "/page" | "/visit" => private(short(id)),
        kind if kind.starts_with("/asset/") => asset(identity, &kind["/asset/".len()..], id),
        _ => with_status(StatusCode::NOT_FOUND, format!("there is no kind of traffic {kind}\n")),
    }
}

fn short(id: u64) -> Response<Body> {
    let bytes = Content::of(id).next_bytes(usize::try_from(SHORT_BYTES).expect("small"));
    let mut response = Response::new(http_body_util::Full::from(bytes).boxed_unsync());
    response.headers_mut().insert(ENDED, HeaderValue::from(now_ns()));
    response
}

/// A response that no shared cache may keep, so that it may set cookies.
fn private(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An asset, which only applications of its color have.
fn asset(identity: &SampleIdentity, name: &str, id: u64) -> Response<Body> {
    let number = name.strip_prefix("part").and_then(|it| it.split_once('.')).map(|it| it.0);
    let number = number.and_then(|it| it.parse::<u64>().ok());
    if number.is_none_or(|it| asset_name(&identity.color, it) != name) {
        let text = format!("{} has no asset {name}\n", identity.color);
        return with_status(StatusCode::NOT_FOUND, text);
    }
    let mut response = short(id);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript"));
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, forever);
    response
}

/// The name of an asset of a color: with a hash, as a build tool names it.
pub(crate) fn asset_name(color: &str, number: u64) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(format!("{color} {number}").as_bytes());
    format!("part{number}.{hash:016x}.js")
}

/// The body of the number `id` in equal chunks over a time, with its digest and the instance in trailers.
fn download(identity: &SampleIdentity, id: u64, bytes: u64, time: Duration) -> Response<Body> {
    let chunks = u64::try_from(time.as_millis() / CHUNK_INTERVAL.as_millis()).unwrap_or(1).max(1);
    // Chunks must fit into a buffer, however short the time is.
    let chunks = chunks.max(bytes.div_ceil(256 * 1024));
    let (began, pause) = (Instant::now(), time / u32::try_from(chunks).unwrap_or(u32::MAX));
    let sent = (Content::of(id), Xxh3::new(), 0, identity.instance.clone());
    let chunk = move |(mut content, mut hash, number, instance): (Content, Xxh3, u64, String)| async move {
        if number > chunks {
            return None;
        }
        if number == chunks {
            let mut trailers = HeaderMap::new();
            trailers.insert(DIGEST, value(&digest(&hash)));
            trailers.insert(ENDED, HeaderValue::from(now_ns()));
            if let Ok(instance) = HeaderValue::from_str(&instance) {
                trailers.insert(INSTANCE, instance);
            }
            return Some((
                Ok::<_, Infallible>(Frame::trailers(trailers)),
                (content, hash, number + 1, instance),
            ));
        }
        tokio::time::sleep_until(began + pause * u32::try_from(number).unwrap_or(u32::MAX)).await;
        let until = (number + 1) * bytes / chunks;
        let fresh =
            content.next_bytes(usize::try_from(until - content.taken()).unwrap_or_default());
        hash.update(&fresh);
        Some((Ok(Frame::data(Bytes::from(fresh))), (content, hash, number + 1, instance)))
    };
    let mut response = Response::new(StreamBody::new(stream::unfold(sent, chunk)).boxed_unsync());
    let trailers = HeaderValue::from_static("x-sample-digest, x-sample-ended, x-sample-instance");
    response.headers_mut().insert(header::TRAILER, trailers);
    response
}

/// Answers with the size and the digest of the received body.
async fn upload(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let (mut hash, mut count) = (Xxh3::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return with_status(StatusCode::BAD_REQUEST, "the body was cut off\n".to_owned());
        };
        if let Some(data) = frame.data_ref() {
            hash.update(data);
            count += data.len() as u64;
        }
    }
    let mut response = text(format!("{count} bytes, {}\n", digest(&hash)));
    let headers = response.headers_mut();
    headers.insert(ENDED, HeaderValue::from(now_ns()));
    headers.insert(BYTES, HeaderValue::from(count));
    headers.insert(DIGEST, value(&digest(&hash)));
    response
}

/// An event at each interval with its number, the color, the instance and [`now_ns`], and a last one named `end`.
fn events(identity: &SampleIdentity, time: Duration) -> Response<Body> {
    let chunks = u64::try_from(time.as_millis() / CHUNK_INTERVAL.as_millis()).unwrap_or(1).max(1);
    let (began, prefix) = (Instant::now(), format!("{} {}", identity.color, identity.instance));
    let event = move |number: u64| {
        let prefix = prefix.clone();
        async move {
            if number > chunks {
                return None;
            }
            tokio::time::sleep_until(
                began + CHUNK_INTERVAL * u32::try_from(number).unwrap_or(u32::MAX),
            )
            .await;
            let name = if number == chunks { "event: end\n" } else { "" };
            let text = format!("{name}id: {number}\ndata: {prefix} {}\n\n", now_ns());
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), number + 1))
        }
    };
    let mut response = Response::new(StreamBody::new(stream::unfold(0, event)).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn value(hexadecimal: &str) -> HeaderValue {
    HeaderValue::from_str(hexadecimal).expect("digits")
}
