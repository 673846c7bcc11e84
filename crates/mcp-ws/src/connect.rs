//! `mcp-ws connect`: a WebSocket server as stdio, for hosts.

use std::future::IntoFuture;

use mcp_ws_transport::{
    event::{Event, Events},
    relay::{self, Ended, Lines},
};
use tokio::io::{AsyncBufReadExt, BufReader, stdin, stdout};

use crate::{
    failure::{Failure, Kind},
    options::ClientOptions,
    stop::{Stop, parent_gone},
};

/// Bytes of the standard input that are read at once.
const INPUT: usize = 64 << 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server, such as ws://127.0.0.1:8080/mcp or wss://example.com/mcp. One that is not there
    /// yet is waited for
    url: String,
    #[command(flatten)]
    client: ClientOptions,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let connect = args.client.connect::<relay::Client>(&args.url)?.retry_first();
    let mut events = connect.events();
    let mut input = BufReader::with_capacity(INPUT, stdin());
    let transport = tokio::select! {
        transport = connect.into_future() => transport?,
        () = stop.asked() => return Ok(()),
        () = parent_gone() => return Ok(()),
        () = left_at_once(&mut input) => return Ok(()),
    };
    let told_to_stop = async {
        tokio::select! {
            () = stop.asked() => {}
            () = parent_gone() => {}
        }
    };
    let relay = relay::run(transport, Lines::new(input, stdout()));
    match relay.run_with_shutdown(told_to_stop).await {
        Ended::EndFinished => Ok(()),
        Ended::EndBroken(why) => {
            Err(Failure::new(Kind::Connection, format!("the host has left: {why}")))
        }
        Ended::PeerGone(reason) => Err(cause(&mut events).unwrap_or_else(|| reason.into())),
        _ => Ok(()),
    }
}

/// Resolves when the host closes the standard input without having said anything.
async fn left_at_once(input: &mut BufReader<tokio::io::Stdin>) {
    match input.fill_buf().await {
        Ok(said) if !said.is_empty() => std::future::pending().await,
        _ => {}
    }
}

/// Returns why a connection did not come back, if an event says so.
pub(crate) fn cause(events: &mut Events<Event>) -> Option<Failure> {
    use futures::{FutureExt, StreamExt};

    while let Some(Some(event)) = events.next().now_or_never() {
        if let Event::Closed(error) = event {
            return Some(error.into());
        }
    }
    None
}
