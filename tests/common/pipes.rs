//! [`Pipes`]: connections that are made within the process.

use std::{io, net::SocketAddr};

use mcp_ws_transport::server::Listener;
use tokio::{io::DuplexStream, sync::mpsc::UnboundedReceiver};

/// Listener that accepts what is sent on a channel.
#[derive(Debug)]
pub struct Pipes(pub UnboundedReceiver<DuplexStream>);

impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        match self.0.recv().await {
            Some(pipe) => Ok((pipe, None)),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
