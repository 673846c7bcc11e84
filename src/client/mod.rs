//! Dialling: [`connect`], and [`connect_over`] on a stream of your own.
//!
//! # When the connection is lost
//!
//! The first connection is attempted once, unless [`Connect::retry_first`] says otherwise. From
//! then on a transport of [`connect`] outlives its connections: it dials again, as
//! [`ReconnectPolicy`] says, until the server is there; at once when the machine has been asleep.
//! [`Connect::no_reconnect`] turns that off.
//!
//! Where the server speaks [`mcp.resume.v1`](crate::layer::resume::protocol), which is offered unless
//! [`Connect::resume`] says otherwise, the next connection resumes the session: what was lost is sent
//! again, by both sides, and nothing else happens. Where it does not, or no longer has the session:
//!
//! | a request that | |
//! |---|---|
//! | was handed to the connection that is lost | ends with `-32000`, `outcome_unknown`: at once, or when the server is not back while it keeps the session. One that may run twice is sent [again](Connect::replay) |
//! | was not, or is made meanwhile | waits until the server is initialized anew, as far as the outbound queue has room (1 MiB); then `not_sent` |
//! | is cancelled or overdue before it was sent | is never sent |
//! | was refused because the server has too many | waits until it takes more, and is sent first then: [`retry_refused`](crate::layer::correlation::Config::retry_refused) |
//! | was refused because the server stops | is sent again on the next connection: [`retry_refused`](crate::layer::correlation::Config::retry_refused) |
//! | was too large for the server, which closed with 1009 | ends with `not_sent`; those sent after it are sent again |
//! | came from the server | is cancelled, and what its handler still answers is dropped |
//!
//! Then the next connection leads to a server that knows nothing of what was before. `initialize` and
//! `notifications/initialized` are repeated there, with the answer kept from the service, and then what
//! waits is sent; notifications that had not been sent are not. `subscriptions/listen` is repeated too, and
//! a `server/discover` that had no answer.
//!
//! It ends for good when the server closes with 1000, or says that this client is not wanted (1008,
//! 4401, 4403; 4409, unless the session is still its own) or breaks its rules, but for the size of
//! a message (1009), for which five connections may be lost in a row; when it refuses the upgrade
//! with a status that means it (401 after a new [token](Connect::bearer_provider), 403, 404, …), fails
//! the TLS handshake, or answers with no WebSocket handshake or a subprotocol that was not offered;
//! when it refuses the repeated `initialize`; when five connections are lost before it has answered
//! the first one; after [so many attempts](ReconnectPolicy::attempts), counted anew for each
//! connection that is lost; or when the service is closed.
//!
//! What happens is told by [`Connect::state`] and [`Connect::events`], and logged: a warning for each
//! outage, not for each attempt.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use futures::StreamExt;
//! use mcp_ws_transport::{client::ReconnectPolicy, connect};
//! use rmcp::ServiceExt;
//!
//! let policy = ReconnectPolicy::default().attempts(20);
//! let connect = connect("ws://127.0.0.1:8080/mcp").reconnect(policy);
//! let mut events = connect.events();
//! tokio::spawn(async move {
//!     while let Some(event) = events.next().await {
//!         println!("{event:?}");
//!     }
//! });
//! let client = ().serve(connect.await?).await?;
//! # drop(client); Ok(()) }
//! ```
//!
//! # What the server asks
//!
//! A server may send requests too, such as elicitations. rmcp hands them to the service, and where
//! a handler panics, it does not answer. Serve a [`CatchPanic`](crate::CatchPanic) of your service,
//! which answers then; a [`ToolClient`] does. Without it the request is answered a second later,
//! unless the handler had given its context away.
//!
//! # Tools by name
//!
//! Where tools are all that is wanted of a server, a [`ToolClient`] dials, initializes, learns what tools
//! there are, and calls them with anything that serialises, for anything that deserialises:
//!
//! ```no_run
//! use mcp_ws_transport::{client::{ToolError, ToolClient}, connect};
//! use serde::Deserialize;
//! use serde_json::json;
//!
//! #[derive(Deserialize)]
//! struct Sum { result: f64 }
//!
//! # async fn example() -> Result<(), ToolError> {
//! let tools = ToolClient::connect(connect("wss://example.com/mcp").bearer("s3cr3t")).await?;
//! match tools.call("add", json!({ "a": 5, "b": 3 })).await {
//!     Ok(Sum { result }) => println!("{result}"),
//!     Err(ToolError::OutcomeUnknown(_)) => println!("connection lost: it may have run"),
//!     Err(error) => println!("{error}"),
//! }
//! # Ok(()) }
//! ```

mod backoff;
mod connect;
mod cookies;
mod dial;
mod dialer;
mod endpoint;
mod first_connection;
mod in_band;
mod lifetimes;
mod redirect;
mod refusal;
mod session;
mod subprotocol;
mod tcp;
mod tls;
mod token;
mod tool_error;
mod tools;
mod upgrade;

pub use self::{
    backoff::ReconnectPolicy,
    connect::{Connect, connect, connect_over},
    tls::ClientTls,
    token::TokenRequest,
    tool_error::ToolError,
    tools::ToolClient,
};
pub use crate::layer::correlation::config::Replay;
