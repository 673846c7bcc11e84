//! Who is measured.

use std::{fmt, net::SocketAddr, process::Command};

use clap::ValueEnum;
use mcp_ws_transport::server::{BearerTokens, Config, Identity, Limits};

use crate::{
    common::{Result, http, server::Server, stock},
    options::Options,
    raw,
    service::Adder,
};

/// What the clients of this crate's server show.
pub(crate) const TOKEN: &str = "a-token-of-some-length-0123456789abcdef";

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Raw,
    Ours,
    Stock,
    Http,
    TowerMcp,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw tungstenite",
            Self::Ours => "mcp-ws-transport",
            Self::Stock => "stock adaptor",
            Self::Http => "streamable HTTP",
            Self::TowerMcp => "tower-mcp",
        })
    }
}

impl Contender {
    /// Its server, in a process of its own.
    pub(crate) fn start(self, options: &Options) -> Result<Server> {
        match self {
            Self::TowerMcp => {
                let program = options.tower_mcp.as_ref().ok_or("tower-mcp needs --tower-mcp")?;
                Server::spawn(&mut Command::new(program))
            }
            _ => Server::start(self),
        }
    }

    /// Serves on an address of its own choice, until the runtime ends.
    pub(crate) async fn serve(self) -> Result<SocketAddr> {
        match self {
            Self::Raw => raw::serve().await,
            Self::Ours => {
                let tokens = BearerTokens::default().token(TOKEN, Identity::new("bench"));
                let config = Config::default()
                    .authenticator(tokens)
                    .limits(Limits::default().connections(usize::MAX));
                let server =
                    mcp_ws_transport::serve("127.0.0.1:0", || Adder).config(config).await?;
                let addr = server.local_addr();
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(server);
                });
                Ok(addr)
            }
            Self::Stock => stock::serve(|| Adder).await,
            Self::Http => http::serve(|| Adder).await,
            Self::TowerMcp => Err("tower-mcp is a program of its own".into()),
        }
    }
}
