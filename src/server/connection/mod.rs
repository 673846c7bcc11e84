//! What happens after the 101: authentication within the connection, the service, and its end.

mod establish;
mod handlers;
pub(super) mod in_band;
mod run;
pub(super) mod state;
