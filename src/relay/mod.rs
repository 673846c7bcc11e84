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

pub use self::{
    end::End,
    lines::Lines,
    message::{RawMessage, RawNotification, RawRequest, RawResponse},
    pump::Ended,
    role::{Client, RelayRole, Server},
    run::{Run, run},
};
