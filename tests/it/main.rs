//! Everything that can share a process: see `tests/README.md`.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nobody else can reach a test")]

#[path = "../common/mod.rs"]
mod common;

mod auth;
mod auto_traits;
mod calls;
#[cfg(feature = "cluster")]
mod cluster;
mod documents;
mod handshake;
mod liveness;
mod messages;
mod observability;
mod reconnect;
mod relay;
mod sessions;
mod shutdown;
