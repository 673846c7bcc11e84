//! Connections after the 101: authentication within the connection, the service, and its end.

pub(super) mod establish;
mod handlers;
mod in_band;
mod run;
pub(super) mod state;
