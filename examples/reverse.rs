//! An MCP server that dials, and an MCP client that waits for it: what is behind a firewall can be
//! reached by nobody, but can call home.
//!
//! `cargo run --example reverse`
//!
//! runs both. Each alone:
//!
//! ```sh
//! cargo run --example reverse -- listen 127.0.0.1:8080
//! cargo run --example reverse -- dial ws://127.0.0.1:8080/mcp   # in other terminals
//! ```
//!
//! Stop the client and start it again: the servers come back to it.

use std::{env, process};

use mcp_ws_transport::{CatchPanic, accept, connect};
use rmcp::{
    RoleClient, ServiceExt, model::CallToolRequestParams, service::RunningService, tool,
    tool_router,
};
use tokio::net::{TcpListener, TcpStream};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The server, with nothing in it about who dials.
#[derive(Clone)]
struct Machine;

#[tool_router(server_handler)]
impl Machine {
    /// Which operating system runs here
    #[tool]
    async fn system(&self) -> String {
        format!("{} on {}", env::consts::OS, env::consts::ARCH)
    }

    /// The number of the process
    #[tool]
    async fn process(&self) -> String {
        process::id().to_string()
    }
}

/// Serves whoever waits at `url`, until that client leaves.
async fn dial(url: String) -> Result<(), Error> {
    CatchPanic::new(Machine).serve(connect(url).await?).await?.waiting().await?;
    Ok(())
}

/// Connects to the server that has dialled, and tries everything that it has.
async fn meet(stream: TcpStream) -> Result<RunningService<RoleClient, ()>, Error> {
    let from = stream.peer_addr()?;
    let client = ().serve(accept(stream).await?).await?;
    println!("{from} is a server");
    for tool in client.list_all_tools().await? {
        let result = client.call_tool(CallToolRequestParams::new(tool.name.clone())).await?;
        let text = result.content[0].as_text().map_or("", |text| &text.text);
        println!("{from} {}: {text}", tool.name);
    }
    Ok(client)
}

async fn listen(address: &str) -> Result<(), Error> {
    let listener = TcpListener::bind(address).await?;
    println!("waiting at ws://{}/mcp", listener.local_addr()?);
    loop {
        let (stream, from) = listener.accept().await?;
        tokio::spawn(async move {
            match meet(stream).await {
                Ok(client) => println!("{from} has left: {:?}", client.waiting().await),
                Err(error) => println!("{from}: {error}"),
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dial", url] => return dial(url.into()).await,
        ["listen", address] => return listen(address).await,
        [] => {}
        _ => return Err("usage: reverse [dial URL | listen ADDRESS]".into()),
    }

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = tokio::spawn(dial(format!("ws://{}/mcp", listener.local_addr()?)));
    let (stream, _) = listener.accept().await?;
    let client = meet(stream).await?;
    client.cancel().await?;
    server.await?
}
