//! Guides: how the parts of this crate work together, and how to run them.
//!
//! | guide | for whom |
//! |---|---|
//! | [`cookbook`] | those who have a task: each with a short program |
//! | [`security`] | those who expose a server: what is safe by default, what is not, who may connect |
//! | [`sessions`] | what survives a lost connection, on the client and on the server |
//! | [`deployment`] | nginx, HAProxy, Caddy, Apache, several instances, systemd, containers, clients behind a proxy, and what to watch |
//! | [`observability`] | logs, spans, metrics and health: what there is, and under which names |
//! | [`troubleshooting`] | those who have an error: each text, its cause, and what to do |
//! | [`hosts`] | those who have a server or a host for stdio: the program `mcp-ws` |
//! | [`alternatives`] | those who have not chosen yet: other ways to carry MCP, and where they are the better choice |
//! | [`migration`] | those who come from stdio, streamable HTTP, the TypeScript SDK, Python or PartySocket |
//! | [`peers`] | those who ask whether their client or server works with this crate: those that are tried, with versions |
//! | [`binding`] | those who write a peer in another language: MCP over WebSockets as it is on the wire |
//! | [`resume_v1`] | the same, for sessions that outlive their connections: `mcp.resume.v1` |
//! | [`glossary`] | everybody: each term in one sentence |
//!
//! These modules hold documentation and no items.

#[doc = include_str!("alternatives.md")]
pub mod alternatives {}

#[doc = include_str!("binding.md")]
pub mod binding {}

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("deployment.md")]
pub mod deployment {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("hosts.md")]
pub mod hosts {}

#[doc = include_str!("migration.md")]
pub mod migration {}

#[doc = include_str!("observability.md")]
pub mod observability {}

#[doc = include_str!("peers.md")]
pub mod peers {}

#[doc = include_str!("resume_v1.md")]
pub mod resume_v1 {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("sessions.md")]
pub mod sessions {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

/// The programs of the README, compiled as they stand.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
