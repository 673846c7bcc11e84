//! The server of a round: writes down what it executes.

use std::{
    fs::{File, OpenOptions},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use mcp_ws_transport::{
    serve,
    server::{Config, Drain},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
};
use tokio::time::sleep;

use crate::{child, client, journal};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// File to which the number of each call is appended before it is executed.
    #[arg(long)]
    journal: PathBuf,
}

/// A service whose tool `journal` writes down its `number`, waits for `ms` milliseconds, and returns
/// `text`, `repeat` times.
#[derive(Debug, Clone)]
struct Journal(Arc<File>);

impl ServerHandler for Journal {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let number = |name: &str| arguments[name].as_u64().unwrap();
        journal::append(&self.0, &number("number").to_string());
        sleep(Duration::from_millis(number("ms"))).await;
        let text = arguments["text"].as_str().unwrap().repeat(number("repeat") as usize);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

pub async fn main(arguments: Arguments) -> ExitCode {
    child::log();
    let file = OpenOptions::new().append(true).create(true).open(arguments.journal).unwrap();
    let journal = Journal(Arc::new(file));
    // It compresses for those who ask for that.
    let config = Config::default()
        .handshake_timeout(client::HANDSHAKE)
        .transport(client::layers(cfg!(feature = "deflate"), false))
        .drain(Drain::default().deadline(Duration::from_secs(5)));
    let server = serve("127.0.0.1:0", move || journal.clone()).config(config).await.unwrap();
    // Before anyone can send the signal.
    let stop = termination();
    println!("listening on {}", server.local_addr());
    tokio::select! {
        () = stop => server.shutdown().await,
        () = child::orphaned() => {}
    }
    // Not held up by the thread that reads the standard input.
    std::process::exit(0)
}

/// Returns what waits for SIGTERM.
#[cfg(unix)]
fn termination() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminations = signal(SignalKind::terminate()).unwrap();
    async move {
        terminations.recv().await;
    }
}

#[cfg(not(unix))]
fn termination() -> impl Future<Output = ()> {
    std::future::pending()
}
