//! Pages for a browser: the color and the version, a slow page, and a stream.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

use super::{Body, SampleIdentity, number_in, text, with_status};

/// The time between two lines of a stream.
const LINE_INTERVAL: Duration = Duration::from_millis(100);

/// The longest duration that a client can ask for.
const SECONDS_MAX: u64 = 600;

pub(super) async fn respond(
    identity: &SampleIdentity,
    request: &Request<Incoming>,
) -> Response<Body> {
    let SampleIdentity { color, version, .. } = identity;
    let seconds = number_in(request.uri().query(), "seconds").unwrap_or(3).min(SECONDS_MAX);
    match request.uri().path() {
        "/" => html(page(color, version)),
        "/whoami" => text(format!("{{\"color\":\"{color}\",\"version\":\"{version}\"}}\n")),
        "/manifest.json" => text(match &identity.manifest {
            Some(manifest) => manifest.clone(),
            None => format!("{{\"version\":\"{version}\"}}\n"),
        }),
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            text(format!("{color} {version} took {seconds} s\n"))
        }
        "/stream" => Response::new(line_stream(color.clone(), seconds)),
        _ => {
            let missing = format!("{color} {version} has no such page\n");
            with_status(StatusCode::NOT_FOUND, missing)
        }
    }
}

fn html(page: String) -> Response<Body> {
    let mut response = text(page);
    let html = http::HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// A line with the color at each interval, and a last line with `end`.
fn line_stream(color: String, seconds: u64) -> Body {
    let chunks = seconds * 10;
    let line = move |number: u64| {
        let color = color.clone();
        async move {
            if number > chunks {
                return None;
            }
            if number > 0 {
                tokio::time::sleep(LINE_INTERVAL).await;
            }
            let line = match number == chunks {
                true => format!("{color} end\n"),
                false => format!("{color} {number} of {chunks}\n"),
            };
            Some((Ok(Frame::data(Bytes::from(line))), number + 1))
        }
    };
    StreamBody::new(stream::unfold(0, line)).boxed_unsync()
}

fn page(color: &str, version: &str) -> String {
    let (ground, ink) = match color {
        "blue" => ("#0b3d91", "#dbe7ff"),
        _ => ("#0a5c36", "#d7f7e4"),
    };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sample {version} ({color})</title>\
         <meta name=viewport content='width=device-width'>\
         <style>body{{margin:0;min-height:100vh;display:grid;place-content:center;text-align:center;\
         background:{ground};color:{ink};font:1.2rem/1.6 system-ui,sans-serif}}\
         h1{{font-size:5rem;margin:0;letter-spacing:-.03em}}a{{color:inherit}}</style>\
         <main><h1>{color}</h1><p>Sample application, version {version}</p>\
         <p><a href=/slow?seconds=3>a page that takes 3 seconds</a> · \
         <a href=/stream?seconds=10>a stream of 10 seconds</a> · \
         <a href=/whoami>whoami</a></p></main>"
    )
}
