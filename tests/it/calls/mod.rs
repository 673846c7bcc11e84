//! Requests, their handlers and their answers.

mod backpressure;
mod both_ways;
mod cancel_safety;
mod extensions;
mod handlers;
mod lifecycles;
mod ordering;
mod panics;
mod toolbox;
mod wakeup;

use mcp_ws_transport::{WebSocketTransport, accept, connect};
use rmcp::{RoleClient, RoleServer};

use crate::common::listen;

/// MCP role that dials.
#[derive(Debug, Clone, Copy)]
enum Dials {
    Client,
    Server,
}

/// Connects a client and a server. Returns their ends of the connection.
async fn connect_ends(
    dials: Dials,
) -> (WebSocketTransport<RoleClient>, WebSocketTransport<RoleServer>) {
    let (listener, url) = listen().await;
    let accepted = async { listener.accept().await.unwrap().0 };
    match dials {
        Dials::Client => {
            let accepting = async { accept(accepted.await).await.unwrap() };
            tokio::join!(async { connect(url).await.unwrap() }, accepting)
        }
        Dials::Server => {
            let accepting = async { accept(accepted.await).await.unwrap() };
            tokio::join!(accepting, async { connect(url).await.unwrap() })
        }
    }
}
