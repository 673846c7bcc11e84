//! Accepting: [`serve`] on an address, [`WebSocketService`] in a server that you have, and [`accept`]
//! on one stream of your own.
//!
//! Each session has a service of its own, and each connection to [`accept`]; the first two take the
//! factory that makes them. All three are configured by a [`Config`]:
//!
//! ```no_run
//! # #[derive(Clone)] struct Calculator;
//! # impl rmcp::ServerHandler for Calculator {}
//! # async fn example() -> std::io::Result<()> {
//! use mcp_ws_transport::{serve, server::{BearerTokens, Config, Identity, Limits}};
//!
//! let config = Config::default()
//!     .allowed_hosts(["mcp.example.com"])
//!     .allowed_origins(["https://app.example.com"])
//!     .authenticator(BearerTokens::default().token("s3cr3t", Identity::new("alice")))
//!     .limits(Limits::default().connections(5000).connections_per_address(50));
//! let signal = async { drop(tokio::signal::ctrl_c().await) };
//! serve("0.0.0.0:8080", || Calculator).config(config).serve_with_shutdown(signal).await
//! # }
//! ```
//!
//! Guides: [what is safe by default, and what is not](crate::guide::security);
//! [sessions](crate::guide::sessions#the-server), which outlive their connections;
//! [deployment](crate::guide::deployment) behind a proxy, by systemd, in a container.
//!
//! # Framings
//!
//! A [`framing`](Config::framing) other than JSON-RPC is for clients older than MCP's binding:
//!
//! ```
//! # use mcp_ws_transport::{framing::{Envelope, ToolCall}, server::Config};
//! let envelopes: Config = Config::default().framing(Envelope::default());
//! let tool_calls: Config = Config::default().framing(ToolCall::default()).in_band_authentication();
//! ```
//!
//! The service does not notice. Where a framing knows no `initialize`, it answers whatever comes
//! first, and the deadline for that does not apply. Several [`WebSocketService`]s, each with a
//! framing and a path of its own, share one listener as the
//! [`fallback_unguarded`](Serve::fallback_unguarded) of a server, and one [`Registry`]; each makes
//! its own checks. [`Serve::or`] puts HTTP on the same path. `examples/math` serves four paths so.
//!
//! # Behind a proxy
//!
//! The proxy's name is the `Host` that clients ask for: allow it, or have the proxy check it and
//! [allow all](Config::disable_allowed_hosts). All connections come from the proxy's address;
//! [`Config::trusted_proxies`] takes the client's from the header that the proxy sets, for limits
//! per address and for the registry. Idle connections carry a ping every 20 s.
//!
//! # Connections
//!
//! The [`Registry`] lists the connections, notifies one or all of them without waiting for the slow,
//! closes them, tells what happens as a stream of [`RegistryEvent`]s, and sums it up as [`Health`],
//! which serialises.
//!
//! # Stopping
//!
//! [`Server::shutdown`] drains, as [`Drain`] says: new clients are answered with 503, calls in flight
//! are finished, and sessions without a connection end. Each connection is closed with 1012 as soon as
//! it has no calls left, one after the other so that clients do not come back all at once. The
//! [`fallback`](Serve::fallback) goes on as long as there are calls; then what it has begun to answer
//! is finished, and no other client is accepted. At the deadline what still runs is dropped, its callers are
//! told `-32000` with `outcome_unknown`, and nothing is left running.
//!
//! A mounted [`WebSocketService`] stops so when the token of [`Config::cancellation_token`] is
//! cancelled; await [`WebSocketService::closed`] then. The graceful shutdown of the server around
//! it does not wait for connections that were upgraded.

mod many_threads;

mod accept;
mod admission;
mod auth;
#[cfg(feature = "cluster")]
pub(crate) mod cluster;
mod config;
mod connection;
mod http;
mod listen;
mod or;
mod registry;
pub(crate) mod relay;
mod role;
mod service;
mod sessions;
mod shutdown;
mod span;

#[cfg(feature = "rustls-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls-tls")))]
pub use self::listen::tls::ServerTls;
pub use self::{
    accept::{Accept, accept},
    auth::{AuthError, Authenticator, Credentials, Identity, bearer::BearerTokens, token::Token},
    config::Config,
    http::{
        body::Body,
        forwarded::TrustedProxies,
        guard::{Guard, GuardLayer},
        limits::Limits,
        origin::source::Origin,
    },
    listen::{
        fallback::HttpService,
        listener::{Bind, Listener},
        serve::{Serve, Server, serve, serve_on},
    },
    or::Or,
    registry::{
        Registry,
        connection::{Connection, ConnectionInfo},
        event::{RegistryEvent, RegistryEvents, RejectReason},
        health::Health,
        report::{BroadcastReport, NotifyError},
    },
    role::HostedRole,
    service::WebSocketService,
    sessions::{config::SessionConfig, id::SessionIdPolicy},
    shutdown::Drain,
};
