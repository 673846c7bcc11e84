//! The programs that are measured.

use std::{fmt, net::SocketAddr, path::Path, process::Command};

use clap::ValueEnum;
use mcp_ws_transport::server::{BearerTokens, Config, Identity, Limits, Registry};

use crate::{
    common::{Form, Result, adder::Adder, http, server::Server, stock},
    raw,
};

/// Token of the clients of this crate's server.
pub(crate) const TOKEN: &str = "a-token-of-some-length-0123456789abcdef";

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Raw,
    Ours,
    Stock,
    StockBest,
    Http,
    TowerMcp,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw tungstenite",
            Self::Ours => "mcp-ws-transport",
            Self::Stock => "stock adaptor",
            Self::StockBest => "stock adaptor, best form",
            Self::Http => "streamable HTTP",
            Self::TowerMcp => "tower-mcp",
        })
    }
}

impl Contender {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
    }

    /// Starts its server, in a process of its own; that of tower-mcp is the program `tower_mcp`.
    pub(crate) fn start(self, tower_mcp: Option<&Path>) -> Result<Server> {
        match self {
            Self::TowerMcp => {
                let program = tower_mcp.ok_or("tower-mcp needs --tower-mcp")?;
                Server::spawn(&mut Command::new(program))
            }
            _ => Server::start(self, &[]),
        }
    }

    /// Serves on an address of its own choice, until the runtime ends.
    pub(crate) async fn serve(self) -> Result<SocketAddr> {
        match self {
            Self::Raw => raw::serve().await,
            Self::Ours => serve(Registry::default()).await,
            Self::Stock => stock::serve(|| Adder, Form::Stock).await,
            Self::StockBest => stock::serve(|| Adder, Form::Best).await,
            Self::Http => http::serve(|| Adder, Form::Stock).await,
            Self::TowerMcp => Err("tower-mcp is a program of its own".into()),
        }
    }
}

/// Starts this crate's server, whose connections are in `registry`.
pub(crate) async fn serve(registry: Registry) -> Result<SocketAddr> {
    let tokens = BearerTokens::default().token(TOKEN, Identity::new("bench"));
    let config = Config::default()
        .authenticator(tokens)
        .limits(Limits::default().connections(usize::MAX))
        .registry(registry);
    let server = mcp_ws_transport::serve("127.0.0.1:0", || Adder).config(config).await?;
    let addr = server.local_addr();
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(server);
    });
    Ok(addr)
}
