//! Messages that are carried without being decoded.

mod drain;
mod ends;
mod forms;
mod full;
mod hosted_clients;
mod lost_links;
mod verbatim;

use std::net::SocketAddr;

use mcp_ws_transport::{
    connect,
    relay::{self, Ended, Lines},
    server::{Config, Server},
};
use rmcp::model::Extensions;
use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split,
    },
    sync::mpsc,
    task::JoinHandle,
};

use crate::common::raw::{Raw, initialize};

/// The other side of an end: a program with standard streams.
struct Program {
    output: BufReader<ReadHalf<DuplexStream>>,
    input: WriteHalf<DuplexStream>,
}

type StdioEnd = Lines<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// An end, and the program that it leads to.
fn program() -> (StdioEnd, Program) {
    let (near, far) = duplex(64 << 10);
    let (reader, writer) = split(near);
    let (output, input) = split(far);
    (Lines::new(reader, writer), Program { output: BufReader::new(output), input })
}

/// A host and a server for stdio, each behind one end of a relay.
struct Relayed {
    host: Program,
    server: Program,
    relaying: JoinHandle<Ended>,
    listening: Server<relay::Server>,
}

/// Creates a relay between a host and a server.
async fn relayed() -> Relayed {
    let (listening, address, mut programs) = serve_programs(Config::default()).await;
    let transport = connect::<relay::Client>(format!("ws://{address}/mcp")).await.unwrap();
    let (end, host) = program();
    let relaying = tokio::spawn(async move { relay::run(transport, end).await });
    let (server, _) = programs.recv().await.unwrap();
    Relayed { host, server, relaying, listening }
}

impl Program {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).await.unwrap();
        assert_eq!(line.pop(), Some('\n'), "{line:?}");
        line
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn write(&mut self, line: impl AsRef<str>) {
        self.input.write_all(format!("{}\n", line.as_ref()).as_bytes()).await.unwrap();
    }

    /// Waits until nothing more comes.
    async fn end(&mut self) {
        let mut rest = String::new();
        assert_eq!(self.output.read_line(&mut rest).await.unwrap(), 0, "{rest}");
    }

    /// Answers `initialize`, as a server, and waits until the client is done with it.
    async fn answer_initialize(&mut self) {
        let request = self.json().await;
        assert_eq!(request["method"], "initialize");
        let info = json!({ "name": "program", "version": "1" });
        let result =
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info });
        self.write(json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }).to_string())
            .await;
        assert_eq!(self.json().await["method"], "notifications/initialized");
    }

    /// Initializes, as a client.
    async fn initialize(&mut self) {
        self.write(initialize("2025-06-18").to_string()).await;
        assert!(self.json().await["result"].is_object());
        self.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    }
}

/// Starts a server with this configuration, a client, and the program behind its session.
async fn serve_client(config: Config<relay::Server>) -> (Server<relay::Server>, Raw, Program) {
    let (server, address, mut programs) = serve_programs(config).await;
    let client = Raw::dial(address).await;
    let (program, _) = programs.recv().await.unwrap();
    (server, client, program)
}

impl Raw {
    /// Initializes MCP with the program behind the server.
    async fn initialize_program(&mut self, program: &mut Program) {
        self.json(&initialize("init")).await;
        let (answer, ()) = tokio::join!(
            async {
                let answer = self.receive().await;
                self.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
                    .await;
                answer
            },
            program.answer_initialize()
        );
        assert!(answer["result"].is_object(), "{answer}");
    }
}

/// The programs of a server as they start, and what they know of their clients.
type Programs = mpsc::UnboundedReceiver<(Program, Extensions)>;

/// A server with a program behind each session.
async fn serve_programs(
    config: Config<relay::Server>,
) -> (Server<relay::Server>, SocketAddr, Programs) {
    let (sender, programs) = mpsc::unbounded_channel();
    let server = relay::serve("127.0.0.1:0", move |extensions| {
        let (end, program) = program();
        let _ = sender.send((program, extensions));
        async move { Ok(end) }
    });
    let server = server.config(config).await.unwrap();
    let address = server.local_addr();
    (server, address, programs)
}
