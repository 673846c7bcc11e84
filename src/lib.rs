//! The [Model Context Protocol](https://modelcontextprotocol.io) over WebSockets, for its Rust SDK
//! [`rmcp`].
//!
//! One long-lived connection carries requests in both directions. A [`WebSocketTransport`] plugs
//! into any rmcp service, whichever side dialled and whichever MCP role it plays:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rmcp::ServiceExt;
//!
//! let client = ().serve(mcp_ws_transport::connect("wss://example.com/mcp").await?).await?;
//! for tool in client.list_all_tools().await? {
//!     println!("{}", tool.name);
//! }
//! client.cancel().await?;
//! # Ok(()) }
//! ```
//!
//! and on the other side, one service for each connection:
//!
//! ```no_run
//! # #[derive(Clone, Default)] struct Calculator;
//! # impl rmcp::ServerHandler for Calculator {}
//! # async fn example() -> std::io::Result<()> {
//! let server = mcp_ws_transport::serve("127.0.0.1:8080", Calculator::default).await?;
//! println!("listening on ws://{}/mcp", server.local_addr());
//! tokio::signal::ctrl_c().await?;
//! server.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! A [`Server`](server::Server) stops when it is dropped; [`wait`](server::Server::wait) keeps it
//! until it is told to.
//!
//! [`connect()`] and [`serve()`] take options before they are awaited. In a server that you already
//! have, mount a [`WebSocketService`](server::WebSocketService); for a stream that you already have
//! there are [`connect_over`] and [`accept()`].
//!
//! # The stack
//!
//! ```text
//!  rmcp's service loop
//!       │ rmcp::transport::Transport<R>
//!  ┌────▼──────────── transport   WebSocketTransport<R> ─────────────────────────────────┐
//!  │  layer::correlation   requests in flight → method, deadlines; ends each once        │  plain &mut:
//!  │  layer::framed        JSON-RPC message ⇄ Message   framing: JsonRpc, Envelope, …    │  encode, decode
//!  │  layer::shared_link   bounded queue, numbers, two locks, one waker for all ─────────│─────────────
//!  │  layer::resume        numbers messages; sends again what a lost link took           │
//!  │  layer::reconnect     one link after the other                                      │
//!  │  ┌─ a link ───────────────────────────────────────────────────────────────────────┐ │
//!  │  │ (yours)            any Duplex of Messages                                      │ │  polled by
//!  │  │ layer::heartbeat   pings; only what arrives is life                            │ │  one at a time
//!  │  │ layer::socket      RFC 6455: frames, limits, the closing handshake; compresses │ │
//!  │  └────────────────────────────────────────────────────────────────────────────────┘ │
//!  └──────────────▲──────────────────────────────────────────────▲───────────────────────┘
//!          client: name, TCP, TLS, upgrade                server: who may enter, upgrade
//! ```
//!
//! Every layer is a [`Stream`](futures::Stream) and [`Sink`](futures::Sink) in a room of its own;
//! [`layer`] describes them. There is no task behind a transport: rmcp's own tasks
//! drive it, and dropping it frees all of it.
//!
//! # What it promises
//!
//! - **A client comes back**: it dials again and, where the server speaks
//!   [`mcp.resume.v1`](layer::resume::protocol), as this crate's does, resumes its session, so that no call
//!   notices. Where it does not, or the session is gone, it opens one anew, and sends what had not been
//!   sent. [`client`] tells how; [`Connect::no_reconnect`](client::Connect::no_reconnect) turns it off, and
//!   [`Connect::retry_first`](client::Connect::retry_first) includes the first connection.
//! - **Every call ends**, once: with its result or with an error. When a connection is lost, and its
//!   session with it, each request in flight ends with the JSON-RPC error `-32000`, whose `data.reason`
//!   says `not_sent` (it never left this side) or `outcome_unknown` (it may have run). A handler
//!   that panics ends its own call, in a [`serve`]d service and in any other by [`CatchPanic`].
//! - **Order.** Messages are written in the order in which rmcp hands them over. Only calls that
//!   wait for a new peer to initialize, or until it takes more of them, are overtaken, by answers
//!   and notifications.
//! - **Bounds.** The size of messages in both directions, encoded and decoded, the peer's requests
//!   in flight, the time of every handshake, write and close, the rate of a message that has begun,
//!   the memory of what is being handled: all are limited. A full outbound queue makes its senders
//!   wait and the peer's further requests be held back; what rmcp has handed over stays queued.
//!   While a client has no connection, a full queue refuses further calls with `not_sent`. A call
//!   has a deadline where [`Connect::deadline`](client::Connect::deadline) or
//!   [`correlation::Config`](layer::correlation::Config) sets one.
//! - **Bad input** is answered where it can be, and costs nobody else anything: what is not
//!   JSON-RPC gets an error and the connection lives; what is larger than the peer takes fails
//!   alone; what breaks RFC 6455 gets a close code that names it.
//!
//! # Guides
//!
//! - [Deployment](server::deployment): behind nginx, as a systemd unit, in a container; what to watch.
//! - [Migration](migration): from stdio, from streamable HTTP, from the TypeScript SDK's client, from
//!   PartySocket.
//! - [The resume extension](layer::resume::protocol), for those who write a peer.
//!
//! # What it does not do by itself
//!
//! Compress: permessage-deflate is negotiated where the feature `deflate` is enabled and both ends ask
//! for it, by `layer::socket::Config::deflate`. What a server does not protect from is said in [`server`].
//!
//! # The binding
//!
//! What goes over the wire, for those who write a peer:
//!
//! - **Establishment**: a WebSocket upgrade (RFC 6455) with the subprotocol `mcp`. The client
//!   offers `mcp` first, then `mcp.resume.v1`, and accepts a server that answers one of them, or
//!   none; where a server refuses the offer, the client dials again without `mcp.resume.v1`, then
//!   with `mcp` alone, then with no offer. The server answers `mcp.resume.v1` where it was offered,
//!   else `mcp`, a lone `mcp.version.…` as it was offered, and nothing else.
//! - **Sessions** outlive their connections by [`mcp.resume.v1`](layer::resume::protocol), or by a
//!   [name](server::SessionIdPolicy) that the client brings.
//! - **Limits**: each side says in its part of the upgrade what it takes: `Mcp-Max-Message-Bytes`,
//!   the largest message in bytes of payload, and `Mcp-Max-Requests`, how many requests it takes
//!   that are not answered yet. Both are optional, and 0 or what is no number says nothing; less
//!   than 1024 bytes is taken for 1024. A message larger than the peer takes is not sent: a request
//!   ends with `-32000`, `not_sent`, a response is replaced by `-32603`. Further requests wait
//!   until others are answered; one that is refused all the same, since a cancelled request counts
//!   until its handler has ended, waits with them. A client that is closed with 1009 by a server that says nothing
//!   dials again, and sends that message no more.
//! - **Framing**: one JSON-RPC 2.0 message per text message; no batches. Tolerated: a byte order mark,
//!   white space around the message, a binary message that holds the same JSON. Older forms are spoken
//!   too: [`Envelope`](framing::Envelope) and [`ToolCall`](framing::ToolCall), which say what is different there.
//! - **Cancellation**: `notifications/cancelled`. The loss of a connection cancels nothing by itself.
//! - **Lifecycle**: MCP's own, of either era. A client that has reconnected repeats its `initialize` and
//!   `notifications/initialized`, or its `subscriptions/listen`; also a `server/discover` that had no
//!   answer. Else the transport looks at no method but `notifications/cancelled`.
//! - **Authentication**: before the upgrade, by `Authorization: Bearer`, a subprotocol
//!   `mcp.auth.<token>` offered beside `mcp`, or a cookie; refusals are 401 with
//!   `WWW-Authenticate`, 403 and 503 with `Retry-After`. Where a server allows it, also by the
//!   request `authenticate` with `{"token": …}`, before which every other request is answered with
//!   `-32001`, and a message of more than 4 KiB is closed with 1009.
//! - **Cookies**: a client with the feature `cookies` sends those that upgrade responses have set,
//!   so that load balancers find its instance again.
//! - **Errors made by the transport**: `-32700` and `-32600` for what cannot be read (with `id`
//!   null where it has none; a notification is never answered), also for a message that would take
//!   more memory than it may, and for a member whose name begins with `$serde_json::private::`. An
//!   answer that cannot be read, or that comes in a batch, ends its call with the same codes (or
//!   with that of the peer's error), `data.reason` `unreadable` and `data.outcome`
//!   `outcome_unknown`, where its id can be told: also of text that is not JSON, if one `id` stands
//!   at its top level. `-32600` for an id already in flight, `-32000` with `data.reason`
//!   `too_many_requests` for one request too many and `stopping` for one that comes while the
//!   server stops (neither was executed, and this crate sends such a request
//!   [again](layer::correlation::Config::retry_refused) when its peer has room, or on its next
//!   connection), `-32001` with
//!   `data.reason` `timed_out` to the own caller past the deadline (`data.outcome` is `not_sent` or
//!   `outcome_unknown`), `-32603` in place of a response that is too large to send, or of a handler
//!   that panicked, and `-32001` `timed_out` in place of one that took longer than a server
//!   [allows](server::Config::request_timeout).
//! - **Liveness**: WebSocket pings, which the peer must answer within 10 s, or be taken for gone. A
//!   message that has begun must arrive at 1 KiB/s, measured over 30 s, and a peer must read what
//!   is written to it at the same rate.
//! - **Close codes**: those of RFC 6455 and its registry, 4401 and 4403 for authentication within
//!   the connection, all named by [`CloseCode`]. A server that stops closes with 1012. A peer that
//!   is too slow, or leaves a full window unacknowledged, is closed with 1008, a message that is
//!   too large with 1009, a client for which there is no room with 1013.
//!   [`layer::resume::protocol`] has the codes of sessions, 4409 and 4410.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `client` | yes | dial: [`connect()`], [`connect_over`] |
//! | `server` | yes | accept: [`accept()`], [`serve()`] |
//! | `cookies` | yes | a client keeps the cookies of upgrade responses, by which balancers lead it back |
//! | `rustls-tls` | yes | TLS by rustls, with certificates that are given: those of a server, or the authorities a client trusts |
//! | `rustls-tls-native-roots` | yes | `wss://` with the operating system's certificates |
//! | `rustls-tls-webpki-roots` | | `wss://` with Mozilla's certificates, compiled in |
//! | `rustls-platform-verifier` | | `wss://` as the operating system judges |
//! | `ring` | yes | rustls computes with ring |
//! | `aws-lc-rs` | | rustls computes with aws-lc-rs, preferred over ring |
//! | `native-tls` | | `wss://` by the operating system's TLS library, where no rustls feature is on |
//! | `deflate` | | compressed messages, by permessage-deflate (RFC 7692), where they are asked for: `layer::socket::deflate` |
//! | `rate-limit` | | a layer that bounds the messages per second of each peer: `layer::Rate` |
//! | `metrics` | | the counters of all connections in the metrics of the process, named in [`stats`] |
//!
//! Of the rustls features, one chooses the certificates and one the cryptography; without the latter,
//! the process has to install a provider, or TLS fails with an error that says so. Those that choose
//! certificates are for dialling, and imply `client` and `rustls-tls`.
//!
//! Both MCP roles are always there: whoever dials may be the server (`cargo run --example reverse`).
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;
pub mod event;
mod rpc_code;
pub mod stats;
mod time;
mod warn_limit;

pub mod message;

pub mod duplex;
pub mod link;

pub mod decode;
pub mod encode;
pub mod framing;
mod role;

pub mod layer;

mod catch_panic;
mod handshake;
pub mod transport;

#[doc = include_str!("migration.md")]
pub mod migration {}

#[cfg(all(feature = "rustls-tls", any(feature = "client", feature = "server")))]
mod tls;

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;

pub use catch_panic::CatchPanic;
#[cfg(feature = "client")]
#[doc(inline)]
pub use client::{connect, connect_over};
pub use error::{CloseCode, CloseReason, Error};
pub use event::State;
pub use message::Message;
#[doc(inline)]
pub use role::McpRole;
#[cfg(feature = "server")]
#[doc(inline)]
pub use server::{accept, serve};
pub use transport::WebSocketTransport;
