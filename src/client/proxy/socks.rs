//! Connections through SOCKS5 proxies (RFC 1928), by hyper-util.

use std::{
    future::{Ready, ready},
    io,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::{client::legacy::connect::proxy::SocksV5, rt::TokioIo};
use tower_service::Service;

use super::uri::ProxyUri;
use crate::{
    client::box_io::BoxIo,
    error::{HandshakeError, ProxyMeaning, ProxyRefusal},
};

/// Longest user or password, in bytes (RFC 1929).
const MAX_CREDENTIAL: usize = 255;

/// Ends of hyper-util's messages that mean the same the next time, with advice. The types of these
/// errors are not public.
const FINAL: [(&str, ProxyMeaning, &str); 7] = [
    (
        "credentials not accepted",
        ProxyMeaning::Credentials,
        "it does not accept this user and password",
    ),
    (
        "server does not support user/pass authentication",
        ProxyMeaning::Credentials,
        "it wants another authentication: a user and password, or none, or one that is not spoken here",
    ),
    ("server implements authentication incorrectly", ProxyMeaning::Never, "is it a SOCKS5 proxy?"),
    ("connection not allowed", ProxyMeaning::Never, "its rules do not allow this host and port"),
    ("command not supported", ProxyMeaning::Never, "it does not connect for others"),
    (
        "address type not supported",
        ProxyMeaning::Never,
        "it takes no such address; try socks5:// or socks5h://",
    ),
    ("failed parsing server response", ProxyMeaning::Never, "is it a SOCKS5 proxy?"),
];

/// Asks the `proxy` at the other end of `stream`, for `destination`, `host:port`.
pub(super) async fn connect(
    stream: BoxIo,
    proxy: ProxyUri<'_>,
    destination: &str,
    credentials: Option<(&str, &str)>,
) -> Result<BoxIo, HandshakeError> {
    let destination = Uri::builder().scheme("socks5").authority(destination).path_and_query("/");
    let destination = destination.build();
    let destination = destination.map_err(|error| HandshakeError::Invalid(error.to_string()))?;
    let mut socks = SocksV5::new(proxy.uri.clone(), Connected(Some(TokioIo::new(stream))));
    if let Some((user, password)) = credentials {
        if user.len().max(password.len()) > MAX_CREDENTIAL {
            let what = "user and password for a SOCKS proxy have at most 255 bytes each";
            return Err(HandshakeError::Invalid(what.into()));
        }
        socks = socks.with_auth(user.to_owned(), password.to_owned());
    }
    match socks.call(destination).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(error) => Err(failed(proxy, &error.to_string())),
    }
}

fn failed(proxy: ProxyUri<'_>, error: &str) -> HandshakeError {
    if error.ends_with("io error during SOCKS handshake") {
        let what = format!("the proxy {proxy} closed the connection: is it a SOCKS5 proxy?");
        return io::Error::new(io::ErrorKind::UnexpectedEof, what).into();
    }
    let text = error.strip_prefix("SOCKS error: ").unwrap_or(error);
    match FINAL.iter().find(|(end, ..)| text.ends_with(end)) {
        Some((_, meaning, hint)) => {
            ProxyRefusal::new(proxy, format!("{text} ({hint})"), *meaning).into()
        }
        None => {
            let reason = format!("{text} (it does not reach the server)");
            ProxyRefusal::new(proxy, reason, ProxyMeaning::NotNow).into()
        }
    }
}

/// Connector in hyper-util's sense, to a proxy that is connected already.
struct Connected(Option<TokioIo<BoxIo>>);

impl Service<Uri> for Connected {
    type Response = TokioIo<BoxIo>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
