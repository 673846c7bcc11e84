//! The programs that are measured.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use mcp_ws_transport::{
    client::ReconnectPolicy,
    connect, serve,
    server::{Config, Limits, SessionConfig},
};
use rmcp::{
    RoleClient, ServiceExt,
    model::CallToolRequestParams,
    service::{Peer, RunningService},
};

use crate::{
    common::{Form, Result, adder::Adder, stock},
    proxy::Proxy,
};

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Ours,
    NotResumed,
    Stock,
    StockBest,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "mcp-ws-transport",
            Self::NotResumed => "mcp-ws-transport, not resumed",
            Self::Stock => "stock adaptor, by hand",
            Self::StockBest => "stock adaptor, best form, by hand",
        })
    }
}

impl Contender {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
    }

    /// Returns the form of the stock adaptor, if it is one.
    fn form(self) -> Option<Form> {
        match self {
            Self::Stock => Some(Form::Stock),
            Self::StockBest => Some(Form::Best),
            Self::Ours | Self::NotResumed => None,
        }
    }

    /// Serves on an address of its own choice, until the runtime ends.
    pub(crate) async fn serve(self) -> Result<SocketAddr> {
        let sessions = match self {
            Self::Ours => {
                let all = usize::MAX;
                Some(SessionConfig::default().max_sessions(all).max_bytes(all))
            }
            Self::NotResumed => None,
            Self::Stock => return stock::serve(|| Adder, Form::Stock).await,
            Self::StockBest => return stock::serve(|| Adder, Form::Best).await,
        };
        let limits = Limits::default().connections(usize::MAX);
        let config = Config::default().limits(limits).sessions(sessions);
        let server = serve("127.0.0.1:0", || Adder).config(config).await?;
        let addr = server.local_addr();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(server);
        });
        Ok(addr)
    }

    /// Measures the time of each reconnection.
    pub(crate) async fn measure(self, proxy: &Proxy, cuts: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(cuts);
        if let Some(form) = self.form() {
            let mut client = by_hand(proxy, form).await?;
            for _ in 0..cuts {
                let start = Instant::now();
                proxy.cut();
                while call(&client).await.is_err() {
                    client = by_hand(proxy, form).await?;
                }
                times.push(start.elapsed());
            }
            return Ok(times);
        }
        let brief = Duration::from_millis(1);
        let policy = ReconnectPolicy::default().first(Duration::ZERO).min(brief).max(brief);
        // Each connection counts as one that lasted: its successor is not waited for.
        let policy = policy.stable(Duration::ZERO);
        let client = ().serve(connect(proxy.url()).reconnect(policy).await?).await?;
        for _ in 0..cuts {
            let start = Instant::now();
            proxy.cut();
            // What was on its way when the connection was cut may be lost without resume.
            while let Err(error) = call(&client).await {
                if self == Self::Ours {
                    return Err(error);
                }
            }
            times.push(start.elapsed());
        }
        client.cancel().await?;
        Ok(times)
    }
}

async fn by_hand(proxy: &Proxy, form: Form) -> Result<RunningService<RoleClient, ()>> {
    Ok(().serve(stock::connect(proxy.addr(), form).await?).await?)
}

async fn call(client: &Peer<RoleClient>) -> Result<()> {
    let arguments = [("a".into(), 1.into()), ("b".into(), 2.into())].into_iter().collect();
    let call = CallToolRequestParams::new("add").with_arguments(arguments);
    let result = client.call_tool(call).await?;
    match result.structured_content {
        Some(content) if content["sum"] == 3 => Ok(()),
        other => Err(format!("1 + 2 is {other:?}").into()),
    }
}
