//! Tests that count the memory, the descriptors or the time of the whole process, or read all that
//! it traces. Each test runs in a process of its own, one after the other. See `tests/README.md`.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nobody else can reach a test")]

#[path = "../common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "others use the rest")]
mod common;
#[macro_use]
mod process;

mod broadcast;
#[cfg(target_os = "linux")]
mod churn;
#[cfg(feature = "deflate")]
mod deflate_bomb;
#[cfg(target_os = "linux")]
mod flood;
mod handshake_floods;
#[cfg(target_os = "linux")]
mod nodelay;
mod notifications;
mod outage;
#[cfg(feature = "proxy")]
mod proxy_environment;
mod resume_memory;
#[cfg(target_os = "linux")]
mod returned;
mod secrets;
mod sizes;
mod slow_loris;
#[cfg(all(feature = "rustls-tls", feature = "ring"))]
mod slow_loris_tls;
mod unauthenticated;
#[cfg(target_os = "linux")]
mod vanished_peers;

use std::alloc::System;

use cap::Cap;

/// Counts the heap.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);
