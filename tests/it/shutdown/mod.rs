//! Ends of connections and servers.

mod answers;
mod close;
mod drain;
mod stages;

use std::time::Duration;

use mcp_ws_transport::server::{Config, Drain};

use crate::common::raw::{Frame, Raw};

/// Returns the settings of a server whose drain has this deadline.
fn deadline(deadline: Duration) -> Config {
    Config::default().drain(Drain::default().deadline(deadline))
}

/// Asserts that the peer closes with this code, and ends the connection once that is answered.
async fn assert_closed(raw: &mut Raw, code: u16) {
    assert_eq!(raw.closed().await.0, code);
    raw.send(Frame::close(code)).await;
    raw.end().await;
}
