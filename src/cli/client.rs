//! Calls of the admin API, over TCP or a unix socket.

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

use super::{Admin, Failure, exit};
use crate::admin::wire::Problem;

/// Where the admin API is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// Host and port.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// A call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// How long the answer may take beyond what any answer takes.
    pub(super) wait: Duration,
}

/// How long an answer may take that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(10);

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
    pub(super) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            headers: Vec::new(),
            body: String::new(),
            wait: Duration::ZERO,
        }
    }
}

impl Admin {
    /// Makes a call and reads its answer.
    ///
    /// # Errors
    ///
    /// What to tell the user, with the exit code that belongs to it.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Failure> {
        let patience = PATIENCE.saturating_add(call.wait);
        let reading = async {
            let (head, body) = self.open(call).await?.into_parts();
            let body = body.collect().await.map_err(|error| self.lost(&error))?.to_bytes();
            Ok((head, body))
        };
        let (head, body) = tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| {
            let url = &self.url;
            Err(Failure::new(format!(
                "{url} did not answer within {patience:?}: does the process hang?"
            )))
        })?;
        if !head.status.is_success() {
            return Err(refused(head.status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Failure::new(format!(
                "{} answered with something else than Flipgate: {error}",
                self.url
            ))
        })
    }

    /// Makes a call whose answer goes on for as long as it is read.
    ///
    /// # Errors
    ///
    /// As for [`Admin::call`].
    pub(super) async fn follow(&self, call: Call<'_>) -> Result<Incoming, Failure> {
        let (head, body) = self.open(call).await?.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let body = body.collect().await.map_err(|error| self.lost(&error))?.to_bytes();
        Err(refused(head.status, &body))
    }

    async fn open(&self, call: Call<'_>) -> Result<Response<Incoming>, Failure> {
        let request = self.request(call)?;
        let unreachable = |error: std::io::Error| {
            Failure::new(format!(
                "cannot reach the admin API at {}: {error}\n  Is flipgate running? Say where with --admin URL or FLIPGATE_ADMIN.",
                self.url
            ))
        };
        match &self.url {
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

    fn request(&self, call: Call<'_>) -> Result<Request<Full<Bytes>>, Failure> {
        let Call { method, path, headers, body, wait: _ } = call;
        let host = match &self.url {
            Target::Tcp(authority) => authority.as_str(),
            Target::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(token) = self.token()? {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::new(format!("this call cannot be sent: {error}")))
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.token_file else { return Ok(self.token.clone()) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
        Ok(Some(text.trim().to_owned()))
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let (mut sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error))?;
        // Ends with the process, or when the answer has been read.
        tokio::spawn(driver);
        sender.send_request(request).await.map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &hyper::Error) -> Failure {
        Failure::new(format!(
            "the connection to {} was lost: {error}\n  See `flipgate status` for what was done.",
            self.url
        ))
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let failure = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if problem.reasons.len() > 1 => {
            let reasons: Vec<_> =
                problem.reasons.iter().map(|it| format!("\n  - {}", it.detail)).collect();
            Failure::new(format!("{}:{}", problem.title, reasons.concat()))
        }
        Ok(problem) => Failure::new(format!("{}: {}", problem.title, problem.detail)),
        Err(_) => Failure::new(format!("the admin API answered {status}")),
    };
    match status {
        StatusCode::CONFLICT => failure.with_code(exit::REFUSED),
        StatusCode::PRECONDITION_FAILED => failure.with_code(exit::STALE),
        _ => failure,
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
