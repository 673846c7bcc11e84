//! Who is measured.

use std::{fmt, net::SocketAddr, sync::Arc};

use clap::ValueEnum;
use mcp_ws_transport::server::{Config, Resumption};
use rmcp::{ServiceExt, transport::StreamableHttpClientTransport};

use crate::{
    common::{Result, http, server::Server, stock},
    load::{Load, Sample},
    raw,
    service::{Adder, Client, Handler},
};

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Raw,
    Ours,
    Plain,
    Stock,
    Http,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Raw => "raw tungstenite",
            Self::Ours => "mcp-ws-transport",
            Self::Plain => "mcp-ws-transport, no resume",
            Self::Stock => "stock adaptor",
            Self::Http => "streamable HTTP",
        })
    }
}

impl Contender {
    /// Serves on an address of its own choice, until the runtime ends.
    pub(crate) async fn serve(self) -> Result<SocketAddr> {
        match self {
            Self::Raw => raw::serve().await,
            Self::Ours | Self::Plain => {
                let resumption = (self == Self::Ours).then(Resumption::default);
                let config = Config::default().resumption(resumption);
                let serve = mcp_ws_transport::serve("127.0.0.1:0", Adder::new);
                let server = serve.config(config).await?;
                let addr = server.local_addr();
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(server);
                });
                Ok(addr)
            }
            Self::Stock => stock::serve(Adder::new).await,
            Self::Http => http::serve(Adder::new).await,
        }
    }

    /// `None` if it has no such case.
    pub(crate) async fn measure(self, server: &Server, load: Load) -> Result<Option<Sample>> {
        let addr = server.addr();
        let client: Client = match self {
            Self::Raw => return raw::measure(addr, load).await,
            Self::Ours | Self::Plain => {
                let connect = mcp_ws_transport::connect(format!("ws://{addr}/mcp"));
                let connect = connect.resume(self == Self::Ours);
                Handler::default().serve(connect.await?).await?
            }
            Self::Stock => Handler::default().serve(stock::connect(addr).await?).await?,
            Self::Http => {
                let url = format!("http://{addr}/mcp");
                Handler::default().serve(StreamableHttpClientTransport::from_uri(url)).await?
            }
        };
        let client = Arc::new(client);
        let sample = load.measure(&client).await?;
        if let Some(client) = Arc::into_inner(client) {
            client.cancel().await?;
        }
        Ok(Some(sample))
    }
}
