//! Writing requests and reading responses, for all kinds.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::{
    super::{
        connector::{Body, Connector, IdleConnections, ResponseConnection},
        record::{Outcome, Request},
    },
    CHUNK_INTERVAL,
};
use crate::{
    color::Color,
    sample::{self, Content, now_ns},
};

/// The whole of a small body.
pub(super) async fn read_body(body: Incoming) -> Result<Bytes, Outcome> {
    let collected = Limited::new(body, BODY_MAX).collect().await;
    let collected = collected.map_err(|error| match error.is::<LengthLimitError>() {
        true => Outcome::Corrupted,
        false => Outcome::Truncated,
    });
    Ok(collected?.to_bytes())
}

/// The digest of the body of a number.
pub(super) fn digest_of(id: u64, bytes: u64) -> String {
    let (mut content, mut hash) = (Content::of(id), Xxh3::new());
    while content.taken() < bytes {
        let left = usize::try_from(bytes - content.taken()).unwrap_or(usize::MAX);
        hash.update(&content.next_bytes(left.min(BODY_MAX)));
    }
    sample::digest(&hash)
}

/// The largest size of a small body and of an event.
pub(super) const BODY_MAX: usize = 64 * 1024;

pub(super) async fn get(
    connector: &Connector,
    idle: &IdleConnections,
    path: &str,
    id: u64,
    fields: &[(&str, &str)],
) -> Result<(Response<Incoming>, ResponseConnection), Outcome> {
    let mut request = connector.request("GET", path).header(sample::ID, id);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new().boxed_unsync()).map_err(|_| Outcome::NotSent)?;
    connector.send(idle, request).await
}

/// Records the head of a response, and returns its body if the status and the sender are right.
pub(super) fn check_head(
    request: &mut Request,
    response: Response<Incoming>,
) -> Result<Incoming, Outcome> {
    record_head(request, response.headers());
    if response.status() != StatusCode::OK {
        return Err(Outcome::ErrorStatus(response.status().as_u16()));
    }
    if request.color.is_none() {
        return Err(Outcome::UnknownResponder);
    }
    Ok(response.into_body())
}

pub(super) fn record_head(request: &mut Request, headers: &HeaderMap) {
    request.head = now_ns();
    request.color = color_of(headers);
    request.received = header_number(headers, sample::RECEIVED).unwrap_or_default();
    if header_number(headers, sample::ID) != Some(request.id) {
        // Not the response to this request.
        request.color = None;
    }
    let instance = header_number(headers, sample::INSTANCE).and_then(|it| u16::try_from(it).ok());
    request.instance = instance.unwrap_or_default();
}

pub(super) fn color_of(headers: &HeaderMap) -> Option<Color> {
    headers.get(sample::COLOR)?.to_str().ok()?.parse().ok()
}

/// The name of the application in a response.
pub(super) fn instance_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(sample::INSTANCE)?.to_str().ok()
}

/// The payload of `COLOR INSTANCE PAYLOAD`, if the color and the instance are those with which the stream began.
pub(super) fn payload_of<'a>(
    text: &'a str,
    color: Color,
    instance: Option<&str>,
) -> Result<&'a str, Outcome> {
    let (from, text) = text.split_once(' ').ok_or(Outcome::Corrupted)?;
    let (by, rest) = text.rsplit_once(' ').ok_or(Outcome::Corrupted)?;
    match (from == color.as_str(), instance.is_none_or(|it| it == by)) {
        (true, true) => Ok(rest),
        (true, false) => Err(Outcome::EndpointChanged),
        (false, _) => Err(Outcome::ColorChanged),
    }
}

pub(super) fn header_number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The body of a number in equal chunks over a time.
pub(super) fn slow_body(id: u64, bytes: u64, time: Duration) -> Body {
    let chunks = u64::try_from(time.as_millis() / CHUNK_INTERVAL.as_millis()).unwrap_or(1).max(1);
    let began = Instant::now();
    let chunk = move |(mut content, number): (Content, u64)| async move {
        if number == chunks {
            return None;
        }
        tokio::time::sleep_until(
            began + CHUNK_INTERVAL * u32::try_from(number).unwrap_or(u32::MAX),
        )
        .await;
        let until = (number + 1) * bytes / chunks;
        let fresh =
            content.next_bytes(usize::try_from(until - content.taken()).unwrap_or_default());
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(fresh))), (content, number + 1)))
    };
    StreamBody::new(stream::unfold((Content::of(id), 0), chunk)).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_continues_on_another_color_or_endpoint_is_found() {
        let rest = |text| payload_of(text, Color::Blue, Some("1001"));
        assert_eq!(rest("blue 1001 17"), Ok("17"));
        assert_eq!(rest("blue 1002 17"), Err(Outcome::EndpointChanged));
        assert_eq!(rest("green 1003 17"), Err(Outcome::ColorChanged));
        assert_eq!(rest("blue 17"), Err(Outcome::Corrupted));
        assert_eq!(rest("17"), Err(Outcome::Corrupted));
        // The name of an application that the drill did not start can have several words, or be missing.
        assert_eq!(payload_of("blue the first 17", Color::Blue, Some("the first")), Ok("17"));
        assert_eq!(payload_of("blue 1002 17", Color::Blue, None), Ok("17"));
    }
}
