//! `mcp-ws connect`: a WebSocket server as stdio, for hosts.

use std::{future::IntoFuture, io::Cursor, time::Duration};

use futures::FutureExt;
use mcp_ws_transport::{
    event::{Event, Events},
    relay::{self, Ended, Lines},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Stdin, stdin, stdout},
    sync::oneshot,
};

use crate::{
    example,
    failure::Failure,
    options::ClientOptions,
    stop::{Parent, Stop},
};

/// Bytes of the standard input that are read at once.
const INPUT: usize = 64 << 10;

/// Bytes of the standard input that are kept while the server is not there yet.
const MAX_INPUT: usize = 1 << 20;

/// Time that a host which has closed the standard input waits for a server that is not there yet.
const LINGER: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server, such as ws://127.0.0.1:8080/mcp or wss://example.com/mcp. One that is not there
    /// yet is waited for
    url: String,
    #[command(flatten)]
    client: ClientOptions,
}

/// Returns the end of `--help`.
pub(crate) fn help() -> String {
    let example = example("mcp-ws connect wss://example.com/mcp");
    format!(
        "It is the command that a host is given: the standard input and output carry MCP, and the \
         standard error what people should know. It makes a lost connection again, and ends when \
         the host closes its standard input.\n\n{example}"
    )
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let parent = Parent::new();
    let connect = args.client.connect::<relay::Client>(&args.url)?.retry_first();
    let mut events = connect.events();
    let mut input = BufReader::with_capacity(INPUT, stdin());
    let mut said = Vec::new();
    let transport = tokio::select! {
        transport = connect.into_future() => transport?,
        () = stop.asked() => return Ok(()),
        () = parent.gone() => return Ok(()),
        () = left_early(&mut input, &mut said) => return Ok(()),
    };
    let (told, was_told) = oneshot::channel();
    let told_twice = async {
        tokio::select! {
            () = stop.asked() => {}
            () = parent.gone() => {}
        }
        let _ = told.send(());
        stop.asked().await;
    };
    let input = Cursor::new(said).chain(input);
    let relay = relay::run(transport, Lines::new(input, stdout()));
    let ended = tokio::select! {
        ended = relay.run_with_shutdown(was_told.map(drop)) => ended,
        () = told_twice => return Ok(()),
    };
    match ended {
        Ended::EndBroken(why) => {
            tracing::info!(%why, "the host has left");
            Ok(())
        }
        Ended::PeerGone(reason) => Err(cause(&mut events).unwrap_or_else(|| reason.into())),
        _ => Ok(()),
    }
}

/// Keeps what the host has `said`, and resolves when it has closed the standard input: at once
/// where it said nothing, and else after the time that an answer may take.
async fn left_early(input: &mut BufReader<Stdin>, said: &mut Vec<u8>) {
    loop {
        let more = match input.fill_buf().await {
            Ok(more) if !more.is_empty() => more,
            _ => break,
        };
        if said.len() >= MAX_INPUT {
            return std::future::pending().await;
        }
        said.extend_from_slice(more);
        let read = more.len();
        input.consume(read);
    }
    if !said.is_empty() {
        tokio::time::sleep(LINGER).await;
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
