//! Relays: MCP carried without being decoded.
mod end;
mod id;
mod lines;
pub(crate) mod message;
mod parse;
pub(crate) mod pump;
mod role;
pub(crate) mod run;
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
