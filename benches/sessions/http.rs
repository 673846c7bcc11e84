//! A session of streamable HTTP, by hyper, on one connection.

use std::pin::Pin;

use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::common::{Result, script::VERSION};

const SESSION_ID: &str = "Mcp-Session-Id";

#[derive(Debug)]
pub(crate) struct Session {
    sender: SendRequest<String>,
    connection: AbortHandle,
    id: Option<HeaderValue>,
    /// Events of the GET.
    events: Option<Pin<Box<Incoming>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    pub(crate) async fn new(stream: TcpStream) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { sender, connection, id: None, events: None })
    }

    async fn send(&mut self, method: Method, body: String) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri("/mcp")
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json");
        if let Some(id) = &self.id {
            request =
                request.header(SESSION_ID, id).header("MCP-Protocol-Version", VERSION.as_str());
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(body)?).await?)
    }

    pub(crate) async fn initialize(&mut self, request: &str) -> Result<Utf8Bytes> {
        let response = self.send(Method::POST, request.to_owned()).await?;
        self.id = response.headers().get(SESSION_ID).cloned();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Utf8Bytes::try_from(body)?)
    }

    pub(crate) async fn settle(&mut self, initialized: &str) -> Result<()> {
        let accepted = self.send(Method::POST, initialized.to_owned()).await?;
        if accepted.status() != StatusCode::ACCEPTED {
            return Err(format!("initialized is answered with {}", accepted.status()).into());
        }
        accepted.into_body().collect().await?;
        let events = self.send(Method::GET, String::new()).await?;
        if events.status() != StatusCode::OK {
            return Err(format!("GET is answered with {}", events.status()).into());
        }
        self.events = Some(Box::pin(events.into_body()));
        Ok(())
    }

    /// Fails unless the event stream is open.
    pub(crate) fn check(&mut self) -> Result<()> {
        let events = self.events.as_mut().ok_or("no event stream")?;
        while let Some(frame) = events.frame().now_or_never() {
            frame.ok_or("the event stream has ended")??;
        }
        Ok(())
    }
}
