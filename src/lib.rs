//! The [Model Context Protocol](https://modelcontextprotocol.io) over WebSockets, for its Rust SDK
//! [`rmcp`]: one long-lived connection carries requests in both directions. A client:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rmcp::ServiceExt;
//!
//! let client = ().serve(mcp_ws_transport::connect("wss://example.com/mcp").await?).await?;
//! println!("{:?}", client.list_all_tools().await?);
//! # Ok(()) }
//! ```
//! and a server, with one service for each session:
//! ```no_run
//! # #[derive(Clone, Default)] struct Calculator;
//! # impl rmcp::ServerHandler for Calculator {}
//! # async fn example() -> std::io::Result<()> {
//! let server = mcp_ws_transport::serve("127.0.0.1:8080", Calculator::default).await?;
//! server.wait().await; // or `shutdown`; dropping it stops it
//! # Ok(()) }
//! ```
//!
//! Both take options before they are awaited. Mount a [`WebSocketService`](server::WebSocketService)
//! in a server that you have; give a stream that you have to [`connect_over`] or [`accept()`]. Whoever
//! dials may be the MCP server. A [`relay`] carries messages without decoding them. The [`guide`] has
//! a [cookbook](guide::cookbook) of tasks, and is on [security](guide::security),
//! [sessions](guide::sessions), [deployment](guide::deployment), [logs and
//! metrics](guide::observability), [hosts](guide::hosts) and servers for stdio,
//! [migration](guide::migration), [alternatives](guide::alternatives), tested
//! [peers](guide::peers), [errors](guide::troubleshooting), [terms](guide::glossary), and [the
//! binding](guide::binding) for those who write a peer.
//!
//! # The stack
//!
//! ```text
//!  rmcp's service loop
//!       │ rmcp::transport::Transport<R>
//!  ┌────▼──────────── transport   WebSocketTransport<R> ────────────────────────────────┐
//!  │  layer::correlation   requests in flight, deadlines; ends each exactly once        │
//!  │  layer::framed        JSON-RPC message ⇄ Message   framing: JsonRpc, Envelope, …   │
//!  │  layer::shared_link   bounded queue, numbers, two locks, one waker for all         │
//!  │  layer::resume        numbers messages; sends again what a lost link took          │
//!  │  layer::reconnect     one link after the other                                     │
//!  │ ─ one link ─────────────────────────────────────────────────────────────────────── │
//!  │  (yours)              any Duplex of Messages                                       │
//!  │  layer::heartbeat     pings; only what arrives counts                              │
//!  │  layer::socket        RFC 6455: frames, limits, the closing handshake; compresses  │
//!  └──────────────▲──────────────────────────────────────────▲──────────────────────────┘
//!          client: name, TCP, TLS, upgrade      server: checks, upgrade, sessions
//! ```
//!
//! Every [`layer`] is a [`Stream`](futures::Stream) and [`Sink`](futures::Sink), usable alone. No
//! task runs behind a transport: rmcp's own tasks drive it, and dropping it frees all of it.
//!
//! # What it promises
//!
//! - **A client comes back** and resumes its session, so that no call notices: see [`client`].
//! - **Every call ends**, once, with its result or an error; if the connection and its session are
//!   lost, `data.reason` of that says `not_sent`, or `outcome_unknown` where it may have run.
//! - **Order**: messages are written as rmcp hands them over. Only calls that wait for a new peer to
//!   initialize, or until it takes more, are overtaken, by answers and notifications.
//! - **Bounds** of sizes, memory, requests in flight, rates, and the time of each handshake, write and
//!   close. A full queue makes its senders wait.
//! - **Bad input** gets an error where it is not JSON-RPC, and a close code where it breaks RFC 6455.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `client` | yes | dial: [`connect()`], [`connect_over`] |
//! | `server` | yes | accept: [`accept()`], [`serve()`] |
//! | `cookies` | yes | a client keeps the cookies of upgrade responses, for load balancers |
//! | `proxy` | | a client goes by way of HTTP and SOCKS5 proxies, also those that the environment names |
//! | `rustls-tls` | yes | TLS by rustls, with certificates that are given |
//! | `rustls-tls-native-roots` | yes | `wss://` with the operating system's certificates |
//! | `rustls-tls-webpki-roots` | | `wss://` with Mozilla's certificates, compiled in |
//! | `rustls-platform-verifier` | | `wss://` as the operating system judges |
//! | `ring`, `aws-lc-rs` | `ring` | what rustls computes with, preferably `aws-lc-rs`; without both, install a provider |
//! | `native-tls` | | `wss://` by the system's TLS library, where no rustls feature is on |
//! | `deflate` | | compressed messages (RFC 7692), if both ends ask: `layer::socket::deflate` |
//! | `rate-limit` | | a layer that bounds the messages per second of each peer: `layer::Rate` |
//! | `cluster` | | several instances of a server, joined by a message bus: `cluster` |
//! | `metrics` | | counters of all connections in the metrics of the process: [`stats`] |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod catch_panic;
#[cfg(feature = "client")]
pub mod client;
mod close;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod decode;
pub mod duplex;
pub mod encode;
mod end_report;
pub mod error;
pub mod event;
pub mod framing;
pub mod guide;
mod handshake;
pub mod layer;
pub mod link;
pub mod message;
pub mod relay;
mod role;
mod rpc_code;
#[cfg(feature = "server")]
pub mod server;
pub mod stats;
mod time;
#[cfg(all(feature = "rustls-tls", any(feature = "client", feature = "server")))]
mod tls;
pub mod transport;
mod warn_limit;
mod wire;

pub use catch_panic::CatchPanic;
#[cfg(feature = "client")]
#[doc(inline)]
pub use client::{connect, connect_over};
pub use close::{CloseCode, CloseReason};
pub use error::Error;
pub use event::State;
pub use message::Message;
pub use role::McpRole;
#[cfg(feature = "server")]
#[doc(inline)]
pub use server::{accept, serve};
pub use transport::WebSocketTransport;
