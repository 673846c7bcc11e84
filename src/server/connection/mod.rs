//! Connections after the 101: authentication within the connection, the service, and its end.

pub(super) mod establish;
mod handlers;
pub(super) mod host;
pub(super) mod in_band;
pub(super) mod relay;
mod run;
pub(super) mod state;
