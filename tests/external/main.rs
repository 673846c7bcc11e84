//! What needs more than cargo and the sources: other implementations, a browser, nginx, systemd, a registry. See
//! `tests/README.md`.
#![cfg(all(
    unix,
    feature = "client",
    feature = "server",
    feature = "rustls-tls",
    feature = "ring"
))]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nobody else can reach a test")]

#[path = "../common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "others use the rest")]
mod common;
#[path = "../common/process.rs"]
mod process;

#[cfg(target_os = "linux")]
mod affinity;
mod autobahn;
mod deployment;
#[cfg(feature = "proxy")]
mod forward_proxies;
mod guide;
#[cfg(target_os = "linux")]
mod instance;
mod interop;
#[cfg(feature = "deflate")]
mod interop_deflate;
mod interop_js;
#[cfg(target_os = "linux")]
mod nginx;
mod node;
mod page;
mod python_2;
mod readme;
#[cfg(target_os = "linux")]
mod reverse_proxies;

/// Returns an address with a port that is free now.
pub fn free_port() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
