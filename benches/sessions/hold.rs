//! A process that holds sessions by a contender's own client.

use std::{net::SocketAddr, process, time::Duration};

use rmcp::{RoleClient, ServiceExt, service::RunningService};
use tokio::time::sleep;

use crate::{
    common::{
        Form, Result,
        machine::resident,
        server::{self, Process, Server},
        stock,
    },
    contender::{Contender, TOKEN},
};

impl Contender {
    /// Returns `true` if it has a client that holds a session.
    pub(crate) fn has_client(self) -> bool {
        matches!(self, Self::Ours | Self::Stock | Self::StockBest)
    }

    /// A process that calls [`run`].
    pub(crate) fn hold(self, server: &Server, sessions: usize, idle: Duration) -> Result<Process> {
        let (name, addr) = (self.name(), server.addr().to_string());
        let (sessions, idle) = (sessions.to_string(), idle.as_secs_f64().to_string());
        Process::this(&["--hold", &name, "--of", &addr, "--sessions", &sessions, "--idle", &idle])
    }
}

/// Opens `sessions` sessions, tells by how many KiB this process has grown for each, and holds them
/// until its standard input ends.
pub(crate) async fn run(
    contender: Contender,
    addr: SocketAddr,
    sessions: usize,
    idle: Duration,
) -> Result<()> {
    // The first costs what all of them share.
    let mut held = vec![open(contender, addr).await?];
    sleep(idle).await;
    let before = resident(process::id());
    for _ in 0..sessions {
        held.push(open(contender, addr).await?);
    }
    sleep(idle).await;
    let after = resident(process::id());
    let grown = before.zip(after).map_or(f64::NAN, |(before, after)| after - before);
    server::run(grown / sessions as f64, || {}).await?;
    drop(held);
    Ok(())
}

async fn open(contender: Contender, addr: SocketAddr) -> Result<RunningService<RoleClient, ()>> {
    Ok(match contender {
        Contender::Ours => {
            let connect = mcp_ws_transport::connect(format!("ws://{addr}/mcp")).bearer(TOKEN);
            ().serve(connect.await?).await?
        }
        Contender::Stock => ().serve(stock::connect(addr, Form::Stock).await?).await?,
        Contender::StockBest => ().serve(stock::connect(addr, Form::Best).await?).await?,
        other => return Err(format!("{other} has no client").into()),
    })
}
