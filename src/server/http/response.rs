//! Responses that no service makes, and the close of a connection after one.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONNECTION};
use http_body_util::Full;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::progress::MAX_HEAD_BYTES;
use crate::handshake::stream::Io;

/// Time that writing the last response to a client may take.
pub(in crate::server) const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of bytes that are discarded behind the last response to a client.
const MAX_DISCARDED: u64 = 4 << 20;

/// Response of a server itself.
pub(in crate::server) type HttpResponse = Response<Full<Bytes>>;

/// Closes the connection after the response, unless that is 101.
pub(in crate::server) fn close_connection_after<B>(answer: &mut Response<B>) {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Returns the response to a request whose head is too large (RFC 6585, section 5), as written.
pub(in crate::server) fn too_large() -> String {
    let body = format!("the head of the request has more than {MAX_HEAD_BYTES} bytes");
    format!(
        "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Writes the `last` response and closes `stream`.
///
/// Input that still arrives is read and discarded, for a while: the kernel answers unread data with
/// a reset, which would overtake the response.
pub(in crate::server) async fn close_unread<I: Io>(mut stream: I, last: &str) {
    let closing = async {
        stream.write_all(last.as_bytes()).await?;
        stream.shutdown().await?;
        io::copy(&mut stream.take(MAX_DISCARDED), &mut io::sink()).await
    };
    let _ = timeout(LAST_RESPONSE_TIMEOUT, closing).await;
}

/// Returns a response with this status and text.
pub(in crate::server) fn plain_response(status: StatusCode, body: &'static str) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
