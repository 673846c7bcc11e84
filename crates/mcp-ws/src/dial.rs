//! `mcp-ws dial`: a stdio server that dials out, as devices do.

use std::future::IntoFuture;

use futures::{
    FutureExt,
    future::{Either, ready},
};
use mcp_ws_transport::relay::{self, Ended};
use tokio_util::task::TaskTracker;

use crate::{
    child::Program,
    connect::cause,
    example,
    failure::{Failure, Kind},
    guard::Guard,
    options::ClientOptions,
    restart::Restarting,
    stop::Stop,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The endpoint to dial, which is the MCP client, such as wss://example.com/mcp?token=…
    url: String,
    #[command(flatten)]
    client: ClientOptions,
    /// Start the command again where it ends, as often as 5 times within 60 s, and initialize it as
    /// the client has. What was in flight ends with an error
    #[arg(long)]
    restart: bool,
    /// The command of the server, and its arguments, behind `--`
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Returns the end of `--help`.
pub(crate) fn help() -> String {
    let example = example("mcp-ws dial wss://example.com/mcp -- ./server");
    format!(
        "It waits for an endpoint that is not there yet, starts the command once it is, and makes a \
         lost connection again. It ends with the command, and with the connection where another \
         makes no sense.\n\n{example}"
    )
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let program = Program::of(&args.command)?;
    program.check()?;
    let guard = Guard::start()?;
    let connect = args.client.connect::<relay::Server>(&args.url)?.retry_first();
    let mut events = connect.events();
    let transport = tokio::select! {
        transport = connect.into_future() => transport?,
        () = stop.asked() => return Ok(()),
    };
    let children = TaskTracker::new();
    let child = program.start(&guard, &children, None).map_err(|error| {
        Failure::new(Kind::Command, format!("{:?} cannot be started: {error}", program.command))
    })?;
    let end = if args.restart {
        let (name, children) = (program.name.clone(), children.clone());
        let again = move || ready(program.start(&guard, &children, None)).boxed();
        Either::Right(Restarting::new(name, child, Box::new(again)))
    } else {
        Either::Left(child)
    };
    let mut was_stopped = false;
    let told_to_stop = async {
        stop.asked().await;
        was_stopped = true;
    };
    let ended = relay::run(transport, end).run_with_shutdown(told_to_stop).await;
    children.close();
    tokio::select! {
        () = children.wait() => {}
        () = stop.asked() => {}
    }
    match ended {
        Ended::EndFinished if was_stopped => Ok(()),
        Ended::PeerGone(reason) => Err(cause(&mut events).unwrap_or_else(|| reason.into())),
        Ended::EndBroken(why) => {
            Err(Failure::new(Kind::Command, format!("the command has ended: {why}")))
        }
        _ => Err(Failure::new(Kind::Command, "the command has ended")),
    }
}
