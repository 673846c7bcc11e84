//! The examples, as programs of their own: see `tests/README.md`.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nobody else can reach a test")]

#[cfg(all(unix, feature = "rustls-tls"))]
#[path = "../common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "others use the rest")]
mod common;
#[cfg(all(unix, feature = "rustls-tls"))]
#[path = "../common/process.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod process;

#[cfg(all(unix, feature = "rustls-tls"))]
mod documents;
#[cfg(all(unix, feature = "rustls-tls"))]
mod math_serve;
mod math_service;

/// Result type of the `math` example, whose files are tried here.
type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
