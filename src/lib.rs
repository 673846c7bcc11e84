//! The Model Context Protocol over WebSockets.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;
pub mod event;
pub mod stats;

pub mod duplex;
pub mod message;

pub mod decode;
pub mod encode;
pub mod framing;
pub mod layer;
pub mod transport;

#[cfg(feature = "__http")]
mod upgrade;

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;

#[cfg(feature = "client")]
#[doc(inline)]
pub use client::{connect, connect_over};
pub use error::{CloseCode, CloseReason, Error};
pub use event::State;
pub use message::Message;
#[cfg(feature = "server")]
#[doc(inline)]
pub use server::{accept, serve};
pub use transport::WebSocketTransport;
