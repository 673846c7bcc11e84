//! The page of `math serve`, and the modules of the npm package in `js/` that it is built on.

use axum::{
    Router,
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    routing::get,
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal: $kind:ident = $file:literal),* $(,)?) => {
        &[$(($path, $kind, include_str!($file))),*]
    };
}

/// Paths, kinds and contents.
const FILES: &[(&str, &str, &str)] = files! {
    "/": HTML = "page/index.html",
    "/page/agent.js": JS = "page/agent.js",
    "/page/browse.js": JS = "page/browse.js",
    "/page/call.js": JS = "page/call.js",
    "/page/connection.js": JS = "page/connection.js",
    "/page/dom.js": JS = "page/dom.js",
    "/page/icon.svg": SVG = "page/icon.svg",
    "/page/main.js": JS = "page/main.js",
    "/page/page.css": CSS = "page/page.css",
    "/page/requests.js": JS = "page/requests.js",
    "/page/result.js": JS = "page/result.js",
    "/page/schema-form.js": JS = "page/schema-form.js",
    "/page/traffic.js": JS = "page/traffic.js",
    "/mcp-ws.js": JS = "../../js/mcp-ws.js",
    "/src/aliases.js": JS = "../../js/src/aliases.js",
    "/src/backoff.js": JS = "../../js/src/backoff.js",
    "/src/close-codes.js": JS = "../../js/src/close-codes.js",
    "/src/dialer.js": JS = "../../js/src/dialer.js",
    "/src/errors.js": JS = "../../js/src/errors.js",
    "/src/framing.js": JS = "../../js/src/framing.js",
    "/src/handshake.js": JS = "../../js/src/handshake.js",
    "/src/heartbeat.js": JS = "../../js/src/heartbeat.js",
    "/src/inbox.js": JS = "../../js/src/inbox.js",
    "/src/link.js": JS = "../../js/src/link.js",
    "/src/options.js": JS = "../../js/src/options.js",
    "/src/outbox.js": JS = "../../js/src/outbox.js",
    "/src/overload.js": JS = "../../js/src/overload.js",
    "/src/read-progress.js": JS = "../../js/src/read-progress.js",
    "/src/reconnect.js": JS = "../../js/src/reconnect.js",
    "/src/refusal.js": JS = "../../js/src/refusal.js",
    "/src/requests.js": JS = "../../js/src/requests.js",
    "/src/resume-frame.js": JS = "../../js/src/resume-frame.js",
    "/src/resume-session.js": JS = "../../js/src/resume-session.js",
    "/src/socket.js": JS = "../../js/src/socket.js",
    "/src/subprotocol.js": JS = "../../js/src/subprotocol.js",
    "/src/timer.js": JS = "../../js/src/timer.js",
    "/src/transport.js": JS = "../../js/src/transport.js",
};

/// Serves the page, which may run its own scripts and connect to any server.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let policy = include_str!("page/policy.txt").trim_ascii();
    FILES.iter().fold(Router::new(), |router, &(path, kind, content)| {
        let headers = [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, policy)];
        router.route(path, get(move || async move { (headers, content) }))
    })
}
