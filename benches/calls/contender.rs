//! The programs that are measured.

use std::{net::SocketAddr, path::Path, process::Command, sync::Arc};

use mcp_ws_transport::server::{Config, Limits, SessionConfig};
use rmcp::ServiceExt;

use crate::{
    cases::{Case, Contender},
    common::{Form, Result, http, server::Server, stock},
    jsonrpsee,
    load::{Load, Sample},
    memory,
    options::Options,
    raw::{self, Peer},
    service::{self, Adder, Client, Handler},
};

/// A contender whose server runs.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    pub(crate) contender: Contender,
    /// None of those that need no process of its own.
    server: Option<Server>,
    options: &'a Options,
}

impl Contender {
    /// Starts its server, in a process of its own.
    pub(crate) fn start(self, options: &Options) -> Result<Running<'_>> {
        let missing = || format!("{self} needs --{}", self.name());
        let server = match self {
            Self::Rmcp | Self::RmcpJson => None,
            Self::TowerMcp => {
                let program = options.tower_mcp.as_ref().ok_or_else(missing)?;
                Some(Server::spawn(Command::new(program).arg(options.threads.name()))?)
            }
            Self::Jsonrpsee => {
                let program = options.jsonrpsee.as_ref().ok_or_else(missing)?;
                Some(Server::spawn(Command::new(program).args(["serve", options.threads.name()]))?)
            }
            _ => Some(Server::start(self, &["--threads", options.threads.name()])?),
        };
        Ok(Running { contender: self, server, options })
    }

    /// Serves on an address of its own choice, until the runtime ends.
    pub(crate) async fn serve(self) -> Result<SocketAddr> {
        let addr = match self {
            Self::Raw => raw::serve().await?,
            Self::Ours | Self::Plain => {
                let sessions = (self == Self::Ours).then(SessionConfig::default);
                let config = Config::default()
                    .sessions(sessions)
                    .limits(Limits::default().connections(usize::MAX));
                let serve = mcp_ws_transport::serve("127.0.0.1:0", Adder::new);
                let server = serve.config(config).await?;
                let addr = server.local_addr();
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(server);
                });
                addr
            }
            Self::Stock => stock::serve(Adder::new, Form::Stock).await?,
            Self::StockBest => stock::serve(Adder::new, Form::Best).await?,
            Self::Http => http::serve(Adder::new, Form::Stock).await?,
            Self::HttpBest => http::serve(Adder::new, Form::Best).await?,
            Self::Rmcp | Self::RmcpJson | Self::Jsonrpsee | Self::TowerMcp => {
                return Err(format!("{self} is not served by this program").into());
            }
        };
        service::relay_to(move || Box::pin(self.connect(addr)));
        Ok(addr)
    }

    pub(crate) async fn connect(self, addr: SocketAddr) -> Result<Client> {
        let handler = Handler::default();
        Ok(match self {
            Self::Ours | Self::Plain => {
                let connect = mcp_ws_transport::connect(format!("ws://{addr}/mcp"));
                handler.serve(connect.resume(self == Self::Ours).await?).await?
            }
            Self::Stock => handler.serve(stock::connect(addr, Form::Stock).await?).await?,
            Self::StockBest => handler.serve(stock::connect(addr, Form::Best).await?).await?,
            Self::Http => handler.serve(http::connect(addr, Form::Stock)).await?,
            Self::HttpBest => handler.serve(http::connect(addr, Form::Best)).await?,
            _ => return Err(format!("{self} has no rmcp client over TCP").into()),
        })
    }

    /// Returns `true` if it has such a case.
    fn has(self, case: Case) -> bool {
        match self {
            Self::TowerMcp => case == Case::Server,
            Self::Raw | Self::Jsonrpsee => {
                !matches!(case, Case::Server | Case::Progress | Case::Relay)
            }
            Self::Rmcp | Self::RmcpJson => !matches!(case, Case::Server | Case::Relay),
            Self::Http | Self::HttpBest => case != Case::Server,
            Self::Ours | Self::Plain | Self::Stock | Self::StockBest => true,
        }
    }
}

impl Running<'_> {
    fn addr(&self) -> Result<SocketAddr> {
        self.server.as_ref().map(Server::addr).ok_or_else(|| "no server".into())
    }

    /// `None` if the contender has no such case.
    pub(crate) async fn measure(&self, load: Load) -> Result<Option<Sample>> {
        if !self.contender.has(load.case) {
            return Ok(None);
        }
        let pid = self.server.as_ref().map(|server| server.pid());
        match (self.contender, load.case, pid) {
            (Contender::Raw, _, Some(pid)) => {
                let url = format!("ws://{}/", self.addr()?);
                return raw::measure(&url, Peer::Echo, pid, load).await.map(Some);
            }
            (contender, Case::Server, Some(pid)) => {
                let path = match contender {
                    Contender::Ours | Contender::Plain => "mcp",
                    _ => "",
                };
                let url = format!("ws://{}/{path}", self.addr()?);
                return raw::measure(&url, Peer::Mcp, pid, load).await.map(Some);
            }
            (Contender::Jsonrpsee, ..) => {
                let program = self.options.jsonrpsee.as_deref().unwrap_or(Path::new(""));
                return jsonrpsee::measure(program, self.options.threads, self.addr()?, load).await;
            }
            _ => {}
        }
        let mut clients = Vec::with_capacity(load.connections);
        for _ in 0..load.connections {
            clients.push(Arc::new(self.connect().await?));
        }
        let sample = load.measure(pid, &clients).await?;
        for client in clients {
            if let Some(client) = Arc::into_inner(client) {
                client.cancel().await?;
            }
        }
        Ok(Some(sample))
    }

    async fn connect(&self) -> Result<Client> {
        match self.contender {
            Contender::Rmcp => memory::connect(false).await,
            Contender::RmcpJson => memory::connect(true).await,
            contender => contender.connect(self.addr()?).await,
        }
    }
}
