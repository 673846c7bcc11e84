//! Tunnels through HTTP proxies, by `CONNECT` (RFC 9110, section 9.3.6).

use std::{error::Error as _, io};

use bytes::Bytes;
use futures::FutureExt;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, USER_AGENT},
};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::uri::ProxyUri;
use crate::{
    client::{
        box_io::BoxIo,
        connector::Target,
        http1::{PRODUCT, driving},
        refusal::body_text,
    },
    error::{HandshakeError, ProxyMeaning, ProxyRefusal, is_temporary},
    handshake::stream::reclaim,
};

/// Asks the `proxy` at the other end of `stream` for a tunnel to `target`.
pub(super) async fn open(
    stream: BoxIo,
    proxy: ProxyUri<'_>,
    target: &Target,
    authorization: Option<HeaderValue>,
) -> Result<BoxIo, HandshakeError> {
    let failed = |error| failed(proxy, &error);
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(target.to_string())
        .header(HOST, target.to_string())
        .header(USER_AGENT, PRODUCT)
        .body(Empty::<Bytes>::new())
        .map_err(|error| HandshakeError::Invalid(error.to_string()))?;
    let is_known = authorization.is_some();
    if let Some(authorization) = authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut connection = connection.with_upgrades().fuse();
    let response =
        driving(&mut connection, sender.send_request(request).boxed()).await.map_err(failed)?;
    let (status, headers) = (response.status(), response.headers().clone());
    if !status.is_success() {
        let body = driving(&mut connection, body_text(response.into_body()).boxed()).await;
        let reason = reason(status, &headers, &body, is_known);
        let meaning = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => ProxyMeaning::Credentials,
            _ if is_temporary(status) => ProxyMeaning::NotNow,
            _ => ProxyMeaning::Never,
        };
        let mut refusal = ProxyRefusal::new(proxy, reason, meaning);
        refusal.status = Some(status);
        return Err(refusal.into());
    }
    let upgraded =
        driving(&mut connection, hyper::upgrade::on(response).boxed()).await.map_err(failed)?;
    match reclaim::<BoxIo>(upgraded) {
        Some((stream, leftover)) if leftover.is_empty() => Ok(stream),
        // The client speaks first, in TLS and in HTTP.
        _ => {
            let reason = "it speaks before the server is asked";
            Err(ProxyRefusal::new(proxy, reason, ProxyMeaning::Never).into())
        }
    }
}

/// Returns what a proxy that refused has said, and advice.
fn reason(status: StatusCode, headers: &HeaderMap, body: &str, is_known: bool) -> String {
    let hint = match status.as_u16() {
        407 => Some(authenticate(headers, is_known)),
        403 | 405 => Some(
            "it does not allow this host and port; many proxies allow `CONNECT` to port 443 alone"
                .into(),
        ),
        400 | 404 | 501 => Some("is it an HTTP proxy, and does it allow `CONNECT`?".into()),
        502..=504 => Some("it does not reach the server: are host and port right?".into()),
        _ => None,
    };
    let line = body.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<'));
    let line = line.map(|line| format!(": {}", line.chars().take(200).collect::<String>()));
    let hint = hint.map(|hint: String| format!(" ({hint})"));
    format!("{status}{}{}", line.unwrap_or_default(), hint.unwrap_or_default())
}

/// Returns advice on a 407.
fn authenticate(headers: &HeaderMap, is_known: bool) -> String {
    let challenges =
        headers.get_all(PROXY_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
    let schemes: Vec<_> = challenges.filter_map(|line| line.split_whitespace().next()).collect();
    if !schemes.is_empty() && !schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        let schemes = schemes.join(", ").chars().take(100).collect::<String>();
        return format!(
            "it wants {schemes}, and only Basic is spoken here: a local proxy can do that"
        );
    }
    match is_known {
        true => "it does not accept this user and password".into(),
        false => "it wants a user and password: http://USER:PASSWORD@HOST:PORT".into(),
    }
}

/// Converts hyper's error of a `CONNECT`.
fn failed(proxy: ProxyUri<'_>, error: &hyper::Error) -> HandshakeError {
    let kind = match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => source.kind(),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            io::ErrorKind::UnexpectedEof
        }
        None => {
            let reason = format!("the answer cannot be read ({error}): is it an HTTP proxy?");
            return ProxyRefusal::new(proxy, reason, ProxyMeaning::Never).into();
        }
    };
    io::Error::new(kind, format!("the proxy {proxy} closed the connection: {error}")).into()
}
