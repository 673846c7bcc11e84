//! A chat: what one says to the server, the server tells all the others.
//!
//! ```sh
//! cargo run --example chat                                        # three who talk to each other
//! cargo run --example chat -- serve 127.0.0.1:8080                # or people, each in a terminal:
//! cargo run --example chat -- join ws://127.0.0.1:8080/mcp ann
//! ```
//!
//! Any MCP client may join at `/mcp?mcp_session_id=SECRET&name=ann`: it has the tools `say`, `history` and
//! `who`, and hears the others by `notifications/message`. Who loses the connection comes back to the session
//! by that id. What is said meanwhile a client of this crate gets by itself, where it may resume; who may not
//! asks for the history, as ben does.
#![allow(deprecated)] // Logging is, in the newest MCP; it is also what clients show to people.

mod client;
mod line;
mod network;
mod notifications;
mod room;
mod server;
#[path = "../common/stop.rs"]
mod stop;

use std::env;

use futures::StreamExt;
use mcp_ws_transport::server::RegistryEvent;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::watch,
};

use self::{client::Client, line::Error, network::relay, server::serve_room, stop::Stop};

// On one thread, notifications are handled in the order in which they arrive.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demonstrate().await,
        ["serve", address] => {
            let mut stop = Stop::new()?;
            let server = serve_room(address).await?;
            println!("join ws://{}/mcp NAME", server.local_addr());
            stop.asked().await;
            server.shutdown().await;
            Ok(())
        }
        ["join", url, name] => talk(&*Client::join(url, name, true).await?).await,
        _ => Err("usage: chat [serve ADDRESS | join URL NAME]".into()),
    }
}

async fn demonstrate() -> Result<(), Error> {
    let server = serve_room("127.0.0.1:0").await?;
    let url = format!("ws://{}/mcp", server.local_addr());
    let mut events = server.registry().events();
    let is_up = watch::Sender::new(true);
    let ann = Client::join(&url, "ann", true).await?;
    let ben = relay(server.local_addr(), is_up.subscribe()).await?;
    let ben = Client::join(&ben, "ben", false).await?;
    let eve = Client::join(&url, "eve", true).await?;

    ann.say("Who is here?").await?;
    ben.received("Who is here?").await;
    ben.say("I am. Tell me, wh-").await?;
    eve.received("I am. Tell me, wh-").await;
    is_up.send_replace(false);
    while !matches!(events.next().await, Some(RegistryEvent::Detached(_)) | None) {}
    ann.who().await?;
    ann.say("Ben?").await?;
    eve.say("We meet at eight.").await?;
    is_up.send_replace(true);
    ben.received("We meet at eight.").await;
    ben.say("I was cut off. At eight, then.").await?;
    ann.received("I was cut off. At eight, then.").await;
    eve.received("I was cut off. At eight, then.").await;
    ann.who().await?;
    drop([ann, ben, eve]);
    server.shutdown().await;
    Ok(())
}

/// Says every line that is typed.
async fn talk(client: &Client) -> Result<(), Error> {
    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = typed.next_line().await? {
        let outcome = match &*line {
            "/who" => client.who().await,
            text => client.say(text).await,
        };
        outcome.unwrap_or_else(|error| println!("[{}] {error}", client.name));
    }
    Ok(())
}
