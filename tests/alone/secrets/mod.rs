//! Tokens show nowhere: not in what this crate traces at any level, not in the `Debug` or `Display`
//! of anything public, not in an answer, a close reason or a metric.
//!
//! What other crates trace is another matter: tungstenite (through `log`) and rmcp write whole
//! messages at TRACE and DEBUG, so a token that is sent within the connection, or as a tool's
//! argument, is in them. Filter those targets where that matters.

mod clients;
#[cfg(feature = "cluster")]
mod cluster;
mod public;
mod servers;
mod traced;

use std::fmt::{self, Debug};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mcp_ws_transport::server::{BearerTokens, Config, Identity};

/// Text that is in all tokens and other secrets, by which they are found.
const CANARY: &str = "canary";

/// The token that the server takes, and one that it refuses.
const RIGHT: &str = "right-canary-4711";
const WRONG: &str = "wrong-canary-4711";

/// Asserts that no token shows in what is `shown`.
fn assert_clean(what: &str, shown: &impl fmt::Display) {
    let shown = shown.to_string();
    assert!(!shown.contains(CANARY), "{what}: {shown}");
    for encoded in [RIGHT, WRONG].map(|token| URL_SAFE_NO_PAD.encode(token)) {
        assert!(!shown.contains(&encoded), "{what}: {shown}");
    }
}

/// Asserts that no token shows in the `Debug` of a value.
fn assert_debug_clean(what: &str, value: &impl Debug) {
    assert_clean(what, &format!("{value:?} {value:#?}"));
}

/// Returns the settings of a server that takes the right token, and from a cookie too.
fn config() -> Config {
    Config::default()
        .authenticator(BearerTokens::default().token(RIGHT, Identity::new("alice")))
        .token_cookie("session")
        .allowed_origins(["https://app.example"])
}

/// Returns every way in which a request can carry `token`.
fn ways(token: &str) -> [String; 7] {
    [
        format!("Authorization: Bearer {token}\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Sec-WebSocket-Protocol: mcp, mcp.auth.{token}\r\n"),
        format!("Sec-WebSocket-Protocol: mcp.auth.{token}, mcp.auth.{token}\r\n"),
        format!(
            "Sec-WebSocket-Protocol: mcp, mcp.auth-base64url.{}\r\n",
            URL_SAFE_NO_PAD.encode(token)
        ),
        format!("Origin: https://app.example\r\nCookie: session={token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
    ]
}
