//! Relays: MCP carried from and to WebSockets without being decoded.
//!
//! rmcp's types know the MCP that they were made for. A relay has to carry any other as well: the
//! messages of a [`Client`] and of a [`Server`] stay the text that they came as, byte for byte, with
//! members that nobody knows, numbers of any form, and names that appear twice. Of a message only
//! that is read which the [layers](crate::layer) need: its id, its method, progress tokens. So all
//! that they do is done for it: requests in flight end once, sessions resume, links are made again,
//! `initialize` is repeated, limits hold, a stop drains.
//!
//! [`run`] carries messages between a transport and an [`End`], whatever is a `Stream` and `Sink` of
//! [`RawMessage`]s. [`Lines`] is one over standard streams. This brings a server on WebSockets to a
//! host that has started this process:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mcp_ws_transport::{connect, relay::{self, Lines}};
//!
//! let transport = connect::<relay::Client>("wss://example.com/mcp").await?;
//! let host = Lines::new(tokio::io::stdin(), tokio::io::stdout());
//! relay::run(transport, host).await;
//! # Ok(()) }
//! ```
//! and this puts a program on WebSockets, with one process for each session:
#![cfg_attr(feature = "server", doc = "```no_run")]
#![cfg_attr(not(feature = "server"), doc = "```ignore")]
//! # async fn example() -> std::io::Result<()> {
//! use std::{io, process::Stdio};
//!
//! use mcp_ws_transport::relay::{self, Lines};
//! use tokio::process::Command;
//!
//! let server = relay::serve("127.0.0.1:8080", |_client| async {
//!     let mut command = Command::new("./server");
//!     let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//!     let streams = child.stdout.take().zip(child.stdin.take());
//!     let (stdout, stdin) = streams.ok_or(io::ErrorKind::BrokenPipe)?;
//!     Ok(Lines::new(stdout, stdin))
//! });
//! server.await?.wait().await;
//! # Ok(()) }
//! ```
//!
//! The program `mcp-ws` is both, with all that belongs to processes.
//!
//! # What is kept
//!
//! | | |
//! |---|---|
//! | the text | as it came, but for white space around it, and the id where that is another now |
//! | an id | a string, by its value, or an integer of 64 bits as it is; any other (`1.0`, more bits) is passed on as a string that holds it, and the answer has the original |
//! | the order | in each direction, but for requests that [wait](crate::layer::correlation) until the peer takes more |
//! | an answer that cannot be read, or a line that is too long | its caller gets an error |
//! | what is no message | its sender gets an error, if it may; else it is skipped, with a warning in the log |
//!
//! # Limits
//!
//! Those of the [layers](crate::transport::Config); once decoded, a message counts as its text and
//! what keeps it. What a peer asks and tells counts in
//! [`max_inbound_memory`](crate::layer::correlation::Config::max_inbound_memory) until the end has
//! taken it: of an end that does not read, further requests are refused, and further notifications
//! dropped, with a warning. An end is not read while the outbound queue is full, nor while 16 MiB of
//! answers wait for it. Of its own requests 4,096 may be in flight or wait; a further one is
//! refused, as is one whose id is that of another.
//! [`Config::request_timeout`](crate::server::Config::request_timeout) is for rmcp's handlers.
//!
//! # Framings
//!
//! [`JsonRpc`](crate::framing::JsonRpc), and without its `session_fields`. The others make messages
//! of their own of what they carry; and their clients do not initialize MCP, which most programs
//! want.

pub(crate) mod end;
mod id;
mod lines;
pub(crate) mod message;
mod parse;
pub(crate) mod pump;
pub(crate) mod role;
pub(crate) mod run;
mod serde;
mod write;

#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub use crate::server::relay::{serve, serve_on};

pub use self::{
    end::End,
    lines::Lines,
    message::{RawMessage, RawNotification, RawRequest, RawResponse},
    pump::Ended,
    role::{Client, RelayRole, Server},
    run::{Run, run},
};

use bytes::Bytes;

use crate::decode::malformed::Malformed;

/// Reads the text of a message, which keeps it without a copy.
///
/// # Errors
/// [`Malformed`] for what is not JSON, or not one message of JSON-RPC 2.0.
pub fn parse(json: impl Into<Bytes>) -> Result<RawMessage, Malformed> {
    parse::parse(&json.into(), &())
}

/// Returns the text of a message.
///
/// # Errors
/// An error of serde_json, which cannot write the data of a
/// [`JsonRpcMessage::Error`](rmcp::model::JsonRpcMessage::Error).
pub fn write(message: &RawMessage) -> Result<Bytes, serde_json::Error> {
    write::write(message)
}
