//! The sample application: pages that name their color and version, one that takes its time, and
//! one that streams.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One version of the application, running on this runtime until it is dropped.
#[derive(Debug)]
pub(super) struct SampleApp {
    /// Where it listens.
    pub(super) address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// The time between two lines of a stream.
const BEAT: Duration = Duration::from_millis(100);

/// The longest that a client may ask a page to take.
const SECONDS_MAX: u64 = 600;

impl SampleApp {
    pub(super) async fn start(color: &'static str, version: &'static str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                connections.spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let answer = service_fn(move |request| answer(color, version, request));
                    let connection =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                    // A client that leaves is no news to a sample application.
                    let _ = connection.await;
                });
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn answer(
    color: &'static str,
    version: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let seconds = seconds(request.uri().query().unwrap_or_default());
    let mut response = match request.uri().path() {
        "/" => html(page(color, version)),
        "/whoami" => text(format!("{{\"color\":\"{color}\",\"version\":\"{version}\"}}\n")),
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            text(format!("{color} {version} took {seconds} s\n"))
        }
        "/stream" => Response::new(lines(color, seconds)),
        _ => {
            let mut missing = text(format!("{color} {version} has no such page\n"));
            *missing.status_mut() = StatusCode::NOT_FOUND;
            missing
        }
    };
    response.headers_mut().insert("x-sample-color", http::HeaderValue::from_static(color));
    Ok(response)
}

/// `seconds=N` of a query; 3 if there is none.
fn seconds(query: &str) -> u64 {
    let found = query.split('&').find_map(|it| it.strip_prefix("seconds="));
    found.and_then(|it| it.parse().ok()).unwrap_or(3).min(SECONDS_MAX)
}

fn text(text: String) -> Response<Body> {
    Response::new(Full::from(text).boxed_unsync())
}

fn html(page: String) -> Response<Body> {
    let mut response = text(page);
    let html = http::HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// A line for each beat, each naming the color, and a last one that says that it is the last.
fn lines(color: &'static str, seconds: u64) -> Body {
    let beats = seconds * 10;
    let line = move |beat: u64| async move {
        if beat > beats {
            return None;
        }
        if beat > 0 {
            tokio::time::sleep(BEAT).await;
        }
        let line = match beat == beats {
            true => format!("{color} end\n"),
            false => format!("{color} {beat} of {beats}\n"),
        };
        Some((Ok(Frame::data(Bytes::from(line))), beat + 1))
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
