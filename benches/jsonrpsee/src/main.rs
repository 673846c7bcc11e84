//! jsonrpsee's WebSocket server and client: the tools of the benchmark as plain methods, without
//! MCP.
//!
//! `serve THREADS` writes the address that it serves on, and serves until its standard input ends.
//! `call THREADS ADDR METHOD CONNECTIONS IN_FLIGHT SENT ANSWERED SECONDS` calls, and writes mean,
//! p50 (µs) and calls/s. THREADS is `one` or `all`.

use std::{
    env, io, process,
    str::FromStr,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use jsonrpsee::{
    RpcModule,
    core::{client::ClientT, params::ArrayParams},
    server::{ServerBuilder, ServerConfig},
    types::ErrorObjectOwned,
    ws_client::{WsClient, WsClientBuilder},
};
use serde_json::Value;
use tokio::runtime::Builder;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Above what the benchmark needs, so that no limit is what is measured.
const MANY: usize = 1 << 20;

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let role: String = next(&mut args)?;
    let mut builder = match next::<String>(&mut args)?.as_str() {
        "all" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build()?;
    match role.as_str() {
        "serve" => runtime.block_on(serve()),
        _ => runtime.block_on(Load::parse(&mut args)?.run()),
    }
}

fn next<T: FromStr>(args: &mut impl Iterator<Item = String>) -> Result<T>
where
    Error: From<T::Err>,
{
    Ok(args.next().ok_or("an argument is missing")?.parse()?)
}

async fn serve() -> Result<()> {
    let config = ServerConfig::builder().max_connections(MANY as u32).set_tcp_no_delay(true);
    let server = ServerBuilder::with_config(config.build()).build("127.0.0.1:0").await?;
    let addr = server.local_addr()?;
    let mut module = RpcModule::new(());
    module.register_async_method("add", |params, _, _| async move {
        let (a, b): (i64, i64) = params.parse()?;
        Ok::<_, ErrorObjectOwned>(a + b)
    })?;
    module.register_async_method("text", |params, _, _| async move {
        let (_, bytes): (String, usize) = params.parse()?;
        Ok::<_, ErrorObjectOwned>(text(bytes).to_owned())
    })?;
    let handle = server.start(module);
    println!("{addr}");
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    handle.stopped().await;
    Ok(())
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    "All that a tool has to say, line by line, is text like this.\n".repeat(1 << 15)
});

/// Returns so much text, at most 2 MB.
fn text(bytes: usize) -> &'static str {
    &TEXT[..bytes]
}

struct Load {
    addr: String,
    method: String,
    connections: usize,
    in_flight: usize,
    text: &'static str,
    answered: usize,
    duration: Duration,
}

impl Load {
    fn parse(args: &mut impl Iterator<Item = String>) -> Result<Self> {
        Ok(Self {
            addr: next(args)?,
            method: next(args)?,
            connections: next(args)?,
            in_flight: next(args)?,
            text: text(next(args)?),
            answered: next(args)?,
            duration: Duration::try_from_secs_f64(next(args)?)?,
        })
    }

    async fn run(self) -> Result<()> {
        let load = Arc::new(self);
        let mut clients = Vec::with_capacity(load.connections);
        for _ in 0..load.connections {
            let client =
                WsClientBuilder::new().max_concurrent_requests(MANY).set_tcp_no_delay(true);
            clients.push(Arc::new(client.build(format!("ws://{}", load.addr)).await?));
        }
        load.clone().calls(&clients, load.duration / 5).await?;
        let start = Instant::now();
        let mut times = load.clone().calls(&clients, load.duration).await?;
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        times.sort_unstable_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        println!("{mean} {} {rate}", times[times.len() / 2]);
        Ok(())
    }

    /// Makes calls for `duration`; returns what each took, in µs.
    async fn calls(
        self: Arc<Self>,
        clients: &[Arc<WsClient>],
        duration: Duration,
    ) -> Result<Vec<f64>> {
        let end = Instant::now() + duration;
        let callers = clients.iter().flat_map(|client| {
            (0..self.in_flight).map(|_| tokio::spawn(self.clone().caller(client.clone(), end)))
        });
        let times = try_join_all(callers).await?.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(times.concat())
    }

    async fn caller(self: Arc<Self>, client: Arc<WsClient>, end: Instant) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(1 << 12);
        let mut last = Instant::now();
        loop {
            self.call(&client, times.len()).await?;
            let now = Instant::now();
            times.push((now - last).as_secs_f64() * 1e6);
            last = now;
            if now >= end {
                return Ok(times);
            }
        }
    }

    async fn call(&self, client: &WsClient, n: usize) -> Result<()> {
        let mut params = ArrayParams::new();
        if self.method == "add" {
            params.insert(n)?;
            params.insert(1)?;
        } else {
            params.insert(self.text)?;
            params.insert(self.answered)?;
        }
        let answer: Value = client.request(&self.method, params).await?;
        let right = match &answer {
            Value::String(text) => text.len() == self.answered,
            sum => *sum == n + 1,
        };
        if right {
            Ok(())
        } else {
            Err(format!("{} is answered with {answer}", self.method).into())
        }
    }
}
