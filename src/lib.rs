//! The Model Context Protocol over WebSockets.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod decode;
pub mod encode;
pub mod error;
pub mod message;

pub use error::{CloseCode, CloseReason, Error};
pub use message::Message;
