//! Accepting: [`serve`] on an address, [`WebSocketService`] in a server that you have, and [`accept`]
//! on one stream of your own.
//!
//! Each connection has a service of its own, made by the factory that you give. All three are
//! configured by a [`Config`]:
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
//! # What is safe by default
//!
//! | | default | |
//! |---|---|---|
//! | hosts | those of the loopback interface | else a page whose name points to the visitor's machine could use the servers there (DNS rebinding) |
//! | web pages | those of the allowed hosts themselves | else every page could: browsers let pages open WebSockets everywhere, and send cookies along |
//! | sizes | 4 MiB per message from a client, which is told so | close 1009 |
//! | the head of a request | 64 KiB | 431 |
//! | before [authentication within the connection](Config::in_band_authentication) | 4 KiB per message, nothing compressed | close 1009 |
//! | slow messages | one that has begun goes on at 1 KiB/s, measured over 30 s | close 1008; its session ends |
//! | requests in flight | 1,024 per connection, those included whose sender has cancelled them while their handler runs on | error `-32000`, nothing executed |
//! | memory of these | 64 MiB per connection, estimated from their JSON | the same |
//! | notifications | 1,024 handled at once per connection | kept until their turn comes, 4 MiB of them |
//! | memory of these | 64 MiB per connection, those included that are kept | dropped, counted and logged |
//! | queue | 1 MiB to each client, 10 s without a byte taken | close 1013, its buffers are freed |
//! | slow readers | what waits is read at 1 KiB/s, measured over 30 s | cut; its session may resume |
//! | connections | 1,024 | 503 with `Retry-After`, or [1013](Limits::reject_after_upgrade) |
//! | sessions without a connection | 1,024 for 120 s, and 64 MiB of what waits in them | of the address that has the most, the oldest ends |
//! | time | 10 s for TLS and the request, 10 s until MCP is initialized, 45 s without a sign of life | cut, with 408 or 1008 where that can be said; who was answered before it is just closed |
//! | answers | 10 s without a byte taken, before the upgrade | cut |
//! | half-open | 1,024 that have not shown who they are | the one that took longest is dropped, so that slow ones shut nobody out |
//! | panics | of a handler | end its own call, with `-32603` |
//! | HTTP beside it | the [`fallback`](Serve::fallback), and [what shares the path](Serve::or), behind the same [`Guard`] | 401 and 403 as for an upgrade |
//!
//! Every rejection is a plain HTTP answer before the upgrade; [`WebSocketService`] has the table.
//!
//! # What is not
//!
//! - **rmcp's feature `local`** is not supported here: it makes services that stay on one thread,
//!   and a server runs them on many. Where a dependency enables it, use this crate with its feature
//!   `client` alone.
//! - **Nobody is authenticated** until there is an [`authenticator`](Config::authenticator). A program
//!   sends no `Origin` and is let in when it knows the address: the checks of hosts and origins are
//!   for browsers. On a machine with several users, loopback is no protection either.
//! - **Nothing is encrypted** without `Serve::tls`, and tokens travel in clear text then.
//! - A mounted [`WebSocketService`] begins with a whole request. How long its head may take, how many
//!   connections there are before it, and TLS, is up to the server around it; axum's own `serve` sets
//!   no limit to any of them. [`serve`] takes an axum `Router` as its
//!   [`fallback`](Serve::fallback), and has them all.
//! - A message may take a hundred times its size once it is decoded, where it is made of many small
//!   values. What would take more than 32 MiB is refused; lower
//!   [`max_decoded_size`](crate::layer::framed::Config::max_decoded_size) where those who may enter
//!   are not to be trusted with that.
//! - How many messages a client may send per second is not limited, only how many requests are in
//!   flight. The layer `Rate` does (feature `rate-limit`).
//! - [`accept`] performs the handshake and no more: how many connections there are and how they end is
//!   the caller's affair, and a panic in a handler is answered after a second, and only where the
//!   handler still had its context, unless the service is in a [`CatchPanic`](crate::CatchPanic).
//! - Each connection needs a file descriptor, [`Limits::connections`] and [`Limits::handshakes`] together
//!   2,048 of them, and many systems give a process 1,024. Raise that (`ulimit -n`, systemd's
//!   `LimitNOFILE`), or lower the limits. Where descriptors run out nevertheless, [`serve`] drops
//!   whoever takes longest to show who they are, then who waits longest for an answer of the
//!   [`fallback`](Serve::fallback); where all belong to connections, who comes waits.
//! - Other routes of the server that a [`WebSocketService`] is mounted in are unguarded until
//!   [`Config::guard`] is put before them, and so is what is served as
//!   [`fallback_unguarded`](Serve::fallback_unguarded) or [`or_unguarded`](Serve::or_unguarded): it
//!   answers whoever asks. How many answers of the fallback are made at once, and how long they and
//!   the bodies of their requests take, is up to it in any case.
//! - A token in the query of a URL is not looked at, and stays in the request that handlers see. Its
//!   `Debug` shows it, as it shows every header but `Authorization`, `Proxy-Authorization` and `Cookie`.
//! - A host's pages over `http` count as its own where a proxy does TLS, since the request does not tell.
//!   With cookies, list the `https` origins and [disable](Config::disable_allowed_hosts) what hosts
//!   vouch for.
//! - This crate's own logs show no token, session id or secret. tungstenite's show every frame at TRACE,
//!   through the `log` facade, and so all that is in messages; leave them off where that is bridged.
//! - Who returns by a [name](SessionIdPolicy) and begins anew has the old calls cancelled; a handler that takes
//!   no notice of that may still send notifications, which the new client gets.
//! - What tools do with what they are given, and for how long, unless there is a
//!   [`request_timeout`](Config::request_timeout).
//!
//! # Who may enter
//!
//! An [`Authenticator`] sees the request and its token, and says who it is. The token comes from
//! `Authorization: Bearer`, else from a subprotocol `mcp.auth.<token>` (which is never echoed), else
//! from a [cookie](Config::token_cookie) where that is switched on. Never from the URL: those end up
//! in logs. An empty one is none. Clients that can send none of these may authenticate
//! [within the connection](Config::in_band_authentication).
//!
//! Handlers find in the extensions of each request: the [`http::request::Parts`](::http::request::Parts) of the upgrade, under
//! the same type as with rmcp's streamable HTTP and without the headers of the handshake itself; the
//! [`Identity`]; and their [`Connection`].
//!
//! # What is served beside it
//!
//! Streamable HTTP on the same path, a page or a health check are entrances too. [`Serve::or`],
//! [`Serve::fallback`] and [`WebSocketService::or`] make the checks of the upgrade before them,
//! from the same [`Config`]; [`Config::guard`] is a tower layer that does so for any other route:
//!
//! ```no_run
//! # #[derive(Clone)] struct Calculator;
//! # impl rmcp::ServerHandler for Calculator {}
//! # async fn example(
//! #     http: rmcp::transport::StreamableHttpService<
//! #         Calculator,
//! #         rmcp::transport::streamable_http_server::session::local::LocalSessionManager,
//! #     >,
//! # ) -> std::io::Result<()> {
//! use axum::{Router, routing::get};
//! use mcp_ws_transport::{serve, server::{BearerTokens, Config, Identity}};
//!
//! let tokens = BearerTokens::default().token("s3cr3t", Identity::new("alice"));
//! let config = Config::default().authenticator(tokens);
//! let guard = config.guard()?;
//! let router = Router::new()
//!     .route("/figures", get(async || "for who has the token").layer(guard.clone()))
//!     .route("/", get(async || "for everybody").layer(guard.without_authenticator()));
//! // `http` needs the token too: `or` guards, and `fallback` would.
//! let server = serve("127.0.0.1:8080", || Calculator).config(config);
//! let server = server.or(http).fallback_unguarded(router).await?;
//! # drop(server);
//! # Ok(()) }
//! ```
//!
//! Handlers find who calls them by [`Identity::of`], whichever way the request came.
//!
//! # Other forms of messages
//!
//! A [`framing`](Config::framing) other than JSON-RPC is for clients that were there before it:
//!
//! ```
//! # use mcp_ws_transport::{framing::{Envelope, ToolCall}, server::Config};
//! let envelopes: Config = Config::default().framing(Envelope::default());
//! let tool_calls: Config = Config::default().framing(ToolCall::default()).in_band_authentication();
//! ```
//!
//! The service does not notice. Where a form knows no `initialize`, it answers whatever comes
//! first, and the deadline for that does not apply. Several [`WebSocketService`]s, each with a form
//! and a path of its own, share one listener as the
//! [`fallback_unguarded`](Serve::fallback_unguarded) of a server, and one [`Registry`]; each makes
//! its own checks. [`Serve::or`] puts HTTP on the same path. `examples/math` has four of them.
//!
//! # Behind a proxy
//!
//! The proxy's name is the `Host` that clients ask for: allow it, or have the proxy check it and
//! [allow all](Config::disable_allowed_hosts). All connections come from the proxy's address;
//! [`Config::peer_addr`] reads the client's from a header that the proxy sets, for limits per address and for
//! the registry. Idle connections carry a ping every 20 s. [`deployment`] has a configuration of nginx for
//! several instances, a systemd unit, and a container file.
//!
//! # Who is connected
//!
//! The [`Registry`] lists the connections, notifies one or all of them without waiting for the slow,
//! closes them, tells what happens as a stream of [`RegistryEvent`]s, and sums it up as [`Health`], which
//! serialises.
//!
//! # Clients that come back
//!
//! A client that speaks [`mcp.resume.v1`](crate::layer::resume::protocol), as those of this crate do,
//! has a session that outlives its connection. When that is lost, its service and its calls run on for
//! [`SessionConfig::window`], 120 s; what they send is kept, and goes out when the client is back. To the
//! registry it is one [`Connection`] all the while, which is [away](Connection::is_detached) in between; it
//! takes up none of the places of [`Limits`] then. The session belongs to the identity that opened it.
//! When it ends, so do its handlers.
//!
//! Every other client comes back by the name of its session: `mcp_session_id` in the query, a subprotocol
//! `mcp.session-id.<id>`, or a cookie `mcp_session_id`. Where the names come from is up to
//! [`SessionConfig::ids`]:
//!
//! | [`SessionIdPolicy`] | who brings none | who brings one that is not known here |
//! |---|---|---|
//! | `Required` | 400 | begins a session of this name |
//! | `Issued`, the default | is told one, in the header `mcp-session-id` of the 101 and as a cookie | the same; a cookie is replaced |
//! | `None` | its connection is its session | the same |
//!
//! Such a session is kept when its connection is lost or closed with 1001, and ends with any other close. It
//! is kept for the [window](SessionConfig::window) too, but for 5 s at most where the name was only told:
//! most clients take no notice of it, and their handlers should not run on for nobody. The first that
//! comes back by it shows that it does.
//!
//! - **The first message decides** whether it is the same client. `initialize` is what a new one says:
//!   the calls of the old one are cancelled, what they still answer is dropped, and the service is the
//!   same. After anything else the client goes on: it gets what has been queued, also the answers to its
//!   calls. What was on its way when the connection was lost is lost; only `mcp.resume.v1` knows better.
//!   Who says nothing may take its time; where nothing that it says for 10 s can be read, it is closed
//!   with 1008, and the session ends.
//! - **The last connection wins**: the one before is closed with 4409 (1000 where the name came as a
//!   subprotocol, as SEP-1288 has it). Five times in 10 s, then 429 with `Retry-After`. A cookie takes
//!   nothing over, since every window of a browser has the same: the next window gets a session of its own.
//! - **Whoever knows the name has the session**, where nobody is authenticated; with an
//!   [`authenticator`](Config::authenticator), 403 for another identity. So a name that a client makes
//!   up should be as hard to guess as one that is told, which has 256 bits; and names in a query
//!   end up in logs.
//!
//! `None` is for services that hold nothing worth coming back to; for clients that choose names that can be guessed while nobody
//! is authenticated; and where no cookie may be set.
//!
//! With SEP-1288's members the messages name the session too:
//!
//! ```
//! # use mcp_ws_transport::{framing::JsonRpc, server::{Config, SessionConfig, SessionIdPolicy}};
//! let config: Config = Config::default()
//!     .framing(JsonRpc::default().session_fields())
//!     .sessions(SessionConfig::default().ids(SessionIdPolicy::Required));
//! ```
//!
//! # Stopping
//!
//! [`Server::shutdown`] drains, as [`Drain`] says: whoever comes is told 503, calls in flight are
//! finished, sessions without a connection end, and each connection is closed with 1012 as soon as there are none, one after the other so
//! that clients do not come back all at once. The [`fallback`](Serve::fallback) goes on as long as there
//! are calls; then what it has begun to answer is finished, and nobody else is heard. At the deadline
//! what still runs is dropped, its callers are told `-32000` with `outcome_unknown`, and nothing is left
//! running.
//!
//! A mounted [`WebSocketService`] stops so when the token of [`Config::cancellation_token`] is
//! cancelled; await [`WebSocketService::closed`] then. The graceful shutdown of the server around
//! it does not wait for connections that were upgraded.

mod many_threads;

mod accept;
mod admission;
mod auth;
mod config;
mod connection;
#[doc = include_str!("deployment.md")]
pub mod deployment {}
mod http;
mod listen;
mod or;
mod registry;
mod role;
mod service;
mod sessions;
mod shutdown;

#[cfg(feature = "rustls-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls-tls")))]
pub use self::listen::tls::ServerTls;
pub use self::{
    accept::{Accept, accept},
    auth::{AuthError, Authenticator, Credentials, Identity, bearer::BearerTokens, token::Token},
    config::Config,
    http::{
        body::Body,
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
        BroadcastReport, NotifyError, Registry,
        connection::{Connection, ConnectionInfo},
        event::{RegistryEvent, RegistryEvents, RejectReason},
        health::Health,
    },
    role::HostedRole,
    service::WebSocketService,
    sessions::{config::SessionConfig, id::SessionIdPolicy},
    shutdown::Drain,
};
