//! The client: calls of the admin API over TCP or a unix socket, and the stream of its events.
//!
//! Each call has a connection of its own. The client never retries: after an error, [`CallError`] says whether
//! the call may have been acted on.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::{
    escape, gate_text,
    wire::{Problem, Ready},
};

/// The address of the admin API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Host and port.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// A client of the admin API: its address, and the token that authorizes the calls.
///
/// Calls need a tokio runtime with I/O and time enabled.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The address of the admin API.
    pub target: Target,
    /// The bearer token, if the API requires one.
    pub token: Option<String>,
}

/// A call of the admin API.
///
/// The methods of [`Caller`] make the usual calls; use this for headers and for other paths.
#[derive(Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Additional headers.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body. Empty for none.
    pub body: String,
    /// How long the server may delay its response, for example until a drain is complete. It is added to the
    /// usual timeout of 10 s.
    pub wait: Duration,
}

/// The stream of events.
#[derive(Debug)]
pub struct EventLines {
    body: Incoming,
    buffer: Vec<u8>,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection could not be opened. Nothing was changed.
    #[error(
        "cannot reach the admin API at {target}: {error}\n  Is flipgate running? Say where with --admin URL or FLIPGATE_ADMIN."
    )]
    Unreachable {
        /// The address.
        target: Target,
        /// The system's error.
        error: std::io::Error,
    },
    /// The connection ended before the response was complete. The call may have been acted on.
    #[error(
        "the connection to {target} was lost: {error}\n  See `flipgate status` for what was done."
    )]
    Lost {
        /// The address.
        target: Target,
        /// How the connection ended.
        error: hyper::Error,
    },
    /// Timeout. The call may have been acted on.
    #[error(
        "{target} did not answer within {timeout:?}\n  See its log, and `GET /healthz`: the process may hang."
    )]
    Silent {
        /// The address.
        target: Target,
        /// The timeout.
        timeout: Duration,
    },
    /// The response is not one of Flipgate's. The call may have been acted on.
    #[error("{target} answered with something else than Flipgate: {error}")]
    Foreign {
        /// The address.
        target: Target,
        /// What is wrong with the response.
        error: String,
    },
    /// The call is not valid HTTP, for example a path with a space. Nothing was changed.
    #[error("this call cannot be sent: {0}")]
    Malformed(#[from] http::Error),
    /// The response is an error status. Nothing was changed.
    #[error("{}", in_words(*status, problem.as_deref()))]
    Refused {
        /// The status code.
        status: StatusCode,
        /// The problem document, if the response has one.
        problem: Option<Box<Problem>>,
    },
}

/// The timeout of a call that the server answers without a delay.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest event that is buffered, in bytes.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

// === impl Target ===

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write http://HOST:PORT or unix:/PATH".to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        if text.starts_with("https://") {
            return Err(
                "the admin API speaks plain HTTP; reach it by a unix socket or a tunnel".into()
            );
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let authority = bare.parse::<http::uri::Authority>().map_err(|_| wrong())?;
        match authority.port() {
            Some(_) => Ok(Self::Tcp(bare.to_owned())),
            None => Ok(Self::Tcp(format!("{bare}:9900"))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Call ===

impl<'a> Call<'a> {
    /// A GET.
    #[must_use]
    pub fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            headers: Vec::new(),
            body: String::new(),
            wait: Duration::ZERO,
        }
    }

    /// A POST with a JSON body.
    #[must_use]
    pub fn post(path: &'a str, body: String) -> Self {
        Self { method: Method::POST, body, ..Self::get(path) }
    }
}

// === impl Caller ===

impl Caller {
    /// Makes a call and reads its response. If the future is dropped, the call may have been acted on.
    ///
    /// # Errors
    ///
    /// [`CallError`]. Its variants say whether the call may have been acted on.
    pub async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CallError> {
        let (status, body) = self.exchange(call).await?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.foreign(error.to_string()))
    }

    /// Whether a load balancer should send requests to this process, and why not.
    ///
    /// # Errors
    ///
    /// [`CallError`]. That the process is not ready is none.
    pub async fn ready(&self) -> Result<Ready, CallError> {
        let (status, body) = self.exchange(Call::get("/readyz")).await?;
        match serde_json::from_slice(&body) {
            Ok(ready) if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE => {
                Ok(ready)
            }
            Err(error) if status.is_success() => Err(self.foreign(error.to_string())),
            _ => Err(refused(status, &body)),
        }
    }

    /// Makes a call and reads the whole response.
    async fn exchange(&self, call: Call<'_>) -> Result<(StatusCode, Bytes), CallError> {
        let timeout = TIMEOUT.saturating_add(call.wait);
        let exchange = async {
            let (head, body) = self.open(call).await?.into_parts();
            let body = body.collect().await.map_err(|error| self.lost(error))?.to_bytes();
            Ok((head.status, body))
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(CallError::Silent { target: self.target.clone(), timeout }))
    }

    /// Follows the events, from the one after the number `after`, or from the next one.
    ///
    /// # Errors
    ///
    /// As for [`Caller::call`].
    pub async fn events(&self, after: Option<u64>) -> Result<EventLines, CallError> {
        let mut call = Call::get("/v1/events");
        if let Some(number) = after {
            call.headers.push(("last-event-id", number.to_string()));
        }
        let (head, body) = self.open(call).await?.into_parts();
        if head.status.is_success() {
            return Ok(EventLines { body, buffer: Vec::new() });
        }
        let body = body.collect().await.map_err(|error| self.lost(error))?.to_bytes();
        Err(refused(head.status, &body))
    }

    async fn open(&self, call: Call<'_>) -> Result<Response<Incoming>, CallError> {
        let request = self.request(call)?;
        let unreachable = |error| CallError::Unreachable { target: self.target.clone(), error };
        match &self.target {
            Target::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
                self.send(stream, request).await
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                self.send(stream, request).await
            }
        }
    }

    fn request(&self, call: Call<'_>) -> Result<Request<Full<Bytes>>, CallError> {
        let Call { method, path, headers, body, wait: _ } = call;
        let host = match &self.target {
            Target::Tcp(authority) => authority.as_str(),
            Target::Unix(_) => "localhost",
        };
        let writes = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if writes {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        Ok(request.body(Full::new(Bytes::from(body)))?)
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let (mut sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(error))?;
        // Ends when the response has been read or is dropped.
        tokio::spawn(driver);
        sender.send_request(request).await.map_err(|error| self.lost(error))
    }

    fn lost(&self, error: hyper::Error) -> CallError {
        CallError::Lost { target: self.target.clone(), error }
    }

    fn foreign(&self, error: String) -> CallError {
        CallError::Foreign { target: self.target.clone(), error }
    }
}

// === impl EventLines ===

impl EventLines {
    /// The next event as JSON, with its number in `seq`. `None` when the stream has ended. Dropping the future
    /// loses no event.
    ///
    /// # Errors
    ///
    /// What is wrong, if the stream broke or is not one of Flipgate's.
    pub async fn next(&mut self) -> Result<Option<String>, String> {
        loop {
            while let Some(end) = self.buffer.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(data) = line.strip_prefix("data:") {
                    return Ok(Some(data.trim().to_owned()));
                }
            }
            if self.buffer.len() > EVENT_BYTES_MAX {
                return Err("the event stream is not one of Flipgate".to_owned());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("the event stream ended: {error}")),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

fn refused(status: StatusCode, body: &[u8]) -> CallError {
    CallError::Refused { status, problem: serde_json::from_slice(body).ok().map(Box::new) }
}

fn in_words(status: StatusCode, problem: Option<&Problem>) -> String {
    match problem {
        Some(problem) if !problem.gates.is_empty() => {
            let refused = problem.gates.iter().map(|it| format!("\n{}", gate_text(it)));
            format!("refused by a gate; nothing has changed{}", refused.collect::<String>())
        }
        Some(problem) if problem.reasons.len() > 1 => {
            let reasons: Vec<_> =
                problem.reasons.iter().map(|it| format!("\n  - {}", escape(&it.detail))).collect();
            format!("refused:{}", reasons.concat())
        }
        Some(problem) => {
            // A detail may be one of several lines, as the mistakes of a configuration are.
            let lines: Vec<_> = problem.detail.lines().map(escape).collect();
            lines.join("\n")
        }
        None => format!("the admin API answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_url_a_bare_address_or_a_socket() {
        for (text, shown) in [
            ("http://127.0.0.1:9900", "http://127.0.0.1:9900"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("http://localhost/", "http://localhost:9900"),
            ("http://[::1]:9900/", "http://[::1]:9900"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(text.parse::<Target>().map(|it| it.to_string()), Ok(shown.to_owned()));
        }
        for bad in ["", "unix:", "https://a:1", "http://a b", "http://"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
