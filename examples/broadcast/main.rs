//! A chat room: what one client says, all hear. Its messages have a framing of their own, with no
//! MCP in it:
//!
//! ```json
//! {"type":"chat","payload":"hello","timestamp":1682944496789}
//! {"type":"chat","payload":"hello","timestamp":1682944496789,"sender":"client-1"}
//! ```
//!
//! `cargo run --example broadcast -- --listen 127.0.0.1:8080`
//!
//! Clients connect to `/ws`; `POST /broadcast` says something to all of them. What comes without a
//! `timestamp` gets that of the server. A message has at most 64 KiB. Beyond that:
//!
//! - a `target` in a message sends it to one client alone, by the id that is the `sender` of what it says;
//! - `{"type":"subscribe","payload":["chat"],"timestamp":0}` asks for some types only, at most 64 of at most
//!   64 bytes each, `null` for all;
//! - `{"type":"whoami","payload":null,"timestamp":0}` is answered by a `you` with the own id;
//! - what is no message, or too much, is answered by an `error`, and reaches nobody.

mod client;
mod framing;
mod http;
mod message;
mod room;
#[path = "../common/stop.rs"]
mod stop;

use std::{error::Error, net::SocketAddr, sync::Arc};

use axum::{Router, routing::post};
use clap::Parser;
use futures::StreamExt;
use mcp_ws_transport::{
    layer::socket,
    server::{BearerTokens, Config, Registry, RegistryEvent},
    transport,
};

use self::{framing::RoomFraming, http::broadcast, message::MAX_MESSAGE, room::Room, stop::Stop};

/// Passes on what each client says to all others
#[derive(Parser)]
struct Args {
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A token that lets a client in; may be given several times. Without one, every client is
    /// accepted
    #[arg(long = "token", value_name = "TOKEN")]
    tokens: Vec<String>,
    /// How many messages per second of each client are passed on
    #[arg(long, value_name = "N", default_value_t = 20)]
    rate: usize,
}

// On one thread the notifications of a client are handled in their order.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut stop = Stop::new()?;
    let registry = Registry::default();
    let layers = transport::Config::default()
        .socket(socket::Config::default().max_message_size(MAX_MESSAGE));
    let config = Config::default().registry(registry.clone()).framing(RoomFraming).sessions(None);
    let mut config = config.transport(layers);
    if !args.tokens.is_empty() {
        config = config.authenticator(args.tokens.iter().cloned().collect::<BearerTokens>());
    }
    let mut events = registry.events();
    let room = Room { registry, clients: Arc::default(), rate: args.rate };
    let router = Router::new().route("/broadcast", post(broadcast)).with_state(room.clone());

    let service = room.clone();
    let serve = mcp_ws_transport::serve(args.listen, move || service.clone());
    let server = serve.config(config).path("/ws").fallback(router).await?;
    println!("listening on ws://{}/ws", server.local_addr());

    let forget = async {
        while let Some(event) = events.next().await {
            match event {
                RegistryEvent::Disconnected { connection, .. } => {
                    room.clients().remove(&connection.id());
                }
                RegistryEvent::Lagged(_) => {
                    room.clients().retain(|id, _| room.registry.get(*id).is_some());
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = forget => {}
        () = stop.asked() => {}
    }
    server.shutdown().await;
    Ok(())
}
