//! Dialling: [`connect`], and [`connect_over`] on a stream of your own.
//!
//! # When the connection is lost
//!
//! A transport of [`connect`] outlives its connections: it dials again, as [`ReconnectPolicy`] says,
//! until the server is there. Where the server speaks [`mcp.resume.v1`](crate::guide::resume_v1), the
//! next connection resumes the session, and no call notices. Where it does not, or no longer has the
//! session, requests that had been sent end with `-32000`, `outcome_unknown`; those that had not wait
//! until `initialize` has been repeated on the next connection. The guide on
//! [sessions](crate::guide::sessions#the-client) has the details, and says when a client gives up.
//!
//! [`Connect::state`] and [`Connect::events`] tell what happens, and it is logged:
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
//! # The way to the server
//!
//! By default a client connects by TCP to the host of the URL. [`Connect::connector`] takes a
//! function in place of that, and `UnixSocket` is one. With the feature `proxy`, clients go by way
//! of the HTTP or SOCKS5 proxy that the environment names, or that [`Connect::proxy`] does. All of
//! them are asked for each connection anew, and TLS is spoken over what they return.
//!
//! # Requests of the server
//!
//! A server may send requests too, such as elicitations, which rmcp hands to the service. Where a
//! handler panics, rmcp does not answer; a [`CatchPanic`](crate::CatchPanic) around the service does,
//! and [`ToolClient`] contains one. Without it the request is answered a second later, unless the
//! handler had given its context away.
//!
//! # Tools by name
//!
//! Where tools are all that is wanted of a server, a [`ToolClient`] dials, initializes, lists the
//! tools, and calls them with anything that serialises, for anything that deserialises:
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

mod authorization;
mod backoff;
mod box_io;
mod connect;
mod connector;
mod cookies;
mod dial;
mod dialer;
mod endpoint;
mod first_connection;
mod http1;
mod in_band;
mod lifetimes;
#[cfg(feature = "proxy")]
mod proxy;
mod redirect;
mod refusal;
mod session;
mod subprotocol;
mod tcp;
mod tls;
mod token;
mod tool_error;
mod tools;
#[cfg(unix)]
mod unix;
mod upgrade;

#[cfg(feature = "proxy")]
#[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
pub use self::proxy::Proxy;
#[cfg(unix)]
pub use self::unix::UnixSocket;
pub use self::{
    backoff::ReconnectPolicy,
    connect::{Connect, connect, connect_over},
    connector::{Connector, Target},
    tls::ClientTls,
    token::TokenRequest,
    tool_error::ToolError,
    tools::ToolClient,
};
pub use crate::layer::correlation::config::Replay;
