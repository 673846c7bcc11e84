//! `math serve`: the server, until it is told to stop.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use crate::service::Math;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

pub(crate) async fn run(args: Args) -> crate::Result {
    let stop = stop_signal()?;
    let math = Math::new();
    let server = mcp_ws_transport::serve(args.listen, move || math.clone())
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;

    let mut stdout = io::stdout();
    writeln!(stdout, "listening on ws://{}/mcp", server.local_addr())?;
    stdout.flush()?;

    stop.await;
    server.shutdown().await;
    Ok(())
}

/// SIGINT and SIGTERM are caught from the call on, not from the first poll.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(windows)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}
