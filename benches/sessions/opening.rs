//! The time until a session is there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rmcp::{
    RoleClient,
    model::{JsonRpcMessage, ServerResult},
    transport::Transport,
};

use crate::{
    common::{
        Form, Result,
        figures::median,
        script::{self, Script},
        stock,
    },
    contender::{Contender, TOKEN},
    raw,
    report::Question,
    session::Session,
};

/// The client that opens the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Own,
    Bare,
}

impl Client {
    pub(crate) fn question(self) -> Question {
        match self {
            Self::Own => Question::OpeningOwn,
            Self::Bare => Question::OpeningBare,
        }
    }

    /// The median in µs of the openings, one after the other. `None` if there is no such
    /// client.
    pub(crate) async fn measure(
        self,
        contender: Contender,
        addr: SocketAddr,
        openings: usize,
    ) -> Result<Option<f64>> {
        let script = Script::new()?;
        let mut times = Vec::with_capacity(openings);
        for opening in 0..openings + openings / 5 {
            let time = match (self, contender) {
                (Self::Bare, _) => bare(contender, addr, &script).await?,
                (Self::Own, Contender::Ours) => ours(addr).await?,
                (Self::Own, Contender::Stock) => stock(addr, Form::Stock).await?,
                (Self::Own, Contender::StockBest) => stock(addr, Form::Best).await?,
                (Self::Own, _) => return Ok(None),
            };
            if opening >= openings / 5 {
                times.push(time.as_secs_f64() * 1e6);
            }
            // Lets the server clear away.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(median(times.into_iter()))
    }
}

async fn bare(contender: Contender, addr: SocketAddr, script: &Script) -> Result<Duration> {
    let start = Instant::now();
    let mut session = Session::connect(contender, addr, raw::config()).await?;
    session.initialize(script).await?;
    Ok(start.elapsed())
}

async fn ours(addr: SocketAddr) -> Result<Duration> {
    let start = Instant::now();
    let url = format!("ws://{addr}/mcp");
    let mut transport = mcp_ws_transport::connect(url).bearer(TOKEN).await?;
    initialize(&mut transport).await?;
    Ok(start.elapsed())
}

async fn stock(addr: SocketAddr, form: Form) -> Result<Duration> {
    let start = Instant::now();
    let mut transport = stock::connect(addr, form).await?;
    initialize(&mut transport).await?;
    Ok(start.elapsed())
}

async fn initialize(transport: &mut impl Transport<RoleClient>) -> Result<()> {
    transport.send(script::initialize()).await?;
    match transport.receive().await {
        Some(JsonRpcMessage::Response(response))
            if matches!(response.result, ServerResult::InitializeResult(_)) =>
        {
            Ok(())
        }
        other => Err(format!("initialize is answered with {other:?}").into()),
    }
}
