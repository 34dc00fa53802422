//! A small HTTP client that connects from a given source address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct DemoClient {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// A complete response.
#[derive(Debug)]
pub(super) struct DemoResponse {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Bytes,
}

impl DemoClient {
    /// Connects to `to` with the source address `from`.
    pub(super) async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream: TcpStream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends when the client is dropped.
        tokio::spawn(driver);
        Ok(Self { sender, host: to.to_string() })
    }

    /// Sends a request, and waits for the head of its response.
    pub(super) async fn open(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let request = request.body(body).map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        self.sender.send_request(request).await.map_err(io::Error::other)
    }

    /// Sends a GET request, and reads the response.
    pub(super) async fn get(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<DemoResponse> {
        let response = self.open(Method::GET, path, headers, "").await?;
        read(response).await
    }

    /// Sends a POST request with JSON, and reads the response.
    pub(super) async fn post(&mut self, path: &str, body: &str) -> io::Result<DemoResponse> {
        let response =
            self.open(Method::POST, path, &[("content-type", "application/json")], body).await?;
        read(response).await
    }
}

pub(super) async fn read(response: Response<Incoming>) -> io::Result<DemoResponse> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(DemoResponse { status: head.status.as_u16(), headers: head.headers, body })
}
