//! A server reads the headers of an upgrade request, in whatever order and number.

use std::net::{Ipv4Addr, SocketAddr};

use http::{HeaderName, HeaderValue, Request, StatusCode, header::HOST};
use mcp_ws_transport::{
    layer::socket::{self, deflate},
    server::{
        BearerTokens, Config, Identity, SessionConfig, SessionIdPolicy, TrustedProxies,
        WebSocketService,
    },
    transport,
};
use tower_service::Service;

use crate::runtime;

/// A service that offers nothing.
#[derive(Clone)]
struct Nothing;

impl rmcp::ServerHandler for Nothing {}

thread_local! {
    static SERVICES: [WebSocketService; 4] =
        [TrustedProxies::x_forwarded_for(PROXIES), TrustedProxies::forwarded(PROXIES)]
            .map(|proxies| [false, true].map(|is_open| service(proxies.clone(), is_open)))
            .concat()
            .try_into()
            .expect("four services");
}

const PROXIES: [&str; 3] = ["10.0.0.0/8", "fd00::/8", "unix"];

/// Creates a service that reads every header that a server may read.
fn service(proxies: TrustedProxies, is_open: bool) -> WebSocketService {
    let socket = socket::Config::default().deflate(deflate::Config::default());
    let mut config = Config::default()
        .transport(transport::Config::default().socket(socket))
        .allowed_hosts(["example.com", "*.example.net:8443", "[::1]"])
        .allowed_origins(["https://example.com", "http://localhost:*"])
        .trusted_proxies(proxies)
        .peer_addr(|_| Some(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 1))))
        .instance("a");
    config = match is_open {
        true => config.sessions(SessionConfig::default().ids(SessionIdPolicy::Issued)),
        false => config
            .authenticator(BearerTokens::default().token("token", Identity::new("user")))
            .token_cookie("token")
            .sessions(SessionConfig::default().ids(SessionIdPolicy::Required)),
    };
    WebSocketService::new(|| Ok(Nothing), config).expect("a valid configuration")
}

/// The first byte chooses the service, the first line is the URI, and each other a header.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let Ok(mut request) = Request::get(lines.next().unwrap_or_default()).body(()) else { return };
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            request.headers_mut().append(name, value);
        }
    }
    let values: Vec<&[u8]> = request.headers().values().map(HeaderValue::as_bytes).collect();
    check_extensions(&values);
    let is_known = request.headers().contains_key(HOST) || request.uri().authority().is_some();
    let mut service = SERVICES.with(|services| services[usize::from(*first) % 4].clone());
    let response = runtime::block_on(service.call(request)).expect("an answer");
    let status = response.status().as_u16();
    assert!([400, 401, 403, 426, 429, 501, 503].contains(&status), "{status}");
    // Whoever gets as far as to the upgrade, which is not possible here, has named a host.
    assert!(is_known || response.status() != StatusCode::NOT_IMPLEMENTED);
}

/// Negotiates permessage-deflate with these values, on either side.
fn check_extensions(values: &[&[u8]]) {
    for config in [deflate::Config::default(), deflate::Config::default().context_takeover(false)] {
        let answer = config.answer(values.iter().copied());
        if let Some((_, answer)) = answer {
            assert!(answer.starts_with("permessage-deflate"), "{answer}");
        }
        // What was answered instead of what was offered is the error.
        let _ = config.confirm(values.iter().copied());
    }
}
