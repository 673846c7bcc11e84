//! Cost of a lost connection: the time until the next call is answered, and the memory of a session
//! without a connection.
//!
//! ```text
//! cargo bench --bench reconnect                  # all of it, under a minute
//! cargo bench --bench reconnect -- --quick       # options: --help
//! ```
//!
//! | contender | when the connection is lost |
//! |---|---|
//! | `mcp-ws-transport` | dials again and resumes its session |
//! | `…, not resumed` | dials again and repeats `initialize`, as with a server that does not resume |
//! | `stock adaptor, by hand` | its service ends; a new one is made, which dials and says `initialize` |
//! | `…, best form, by hand` | the same with `TCP_NODELAY` and a read buffer of 4 KiB |
//!
//! All four run the same rmcp service over loopback, through the same proxy, in a process of their
//! own on the core of the client. **Time**: from before the proxy cuts the connection until a call
//! that is made at once is answered; by hand, until the first attempt succeeds. This crate's first
//! wait is set to zero, since otherwise its jitter (up to 1 s) is all that would be seen.
//! **Memory**: a number of raw clients open a session each and vanish; what the resident set of the
//! server has grown by is divided by their number.
//!
//! The exit code says whether the benchmark ran, never how fast.

#[path = "../common/mod.rs"]
mod common;
mod contender;
mod memory;
mod options;
mod proxy;
mod report;

use self::{
    common::{
        Result, Threads, machine, runtime,
        server::{self, Server},
    },
    options::Options,
    proxy::Proxy,
    report::Report,
};

fn main() -> Result<()> {
    let options = Options::from_args();
    if let Some(contender) = options.serve {
        return runtime()?.block_on(async { server::run(contender.serve().await?, || {}).await });
    }
    let core = machine::pin(options.pin)?;
    let machine = machine::describe(core, Threads::One);
    println!("{machine}\n");
    let mut report = Report::new(options.sessions());
    let servers = options
        .contenders()
        .map(|contender| Ok((contender, Server::start(contender, &[])?)))
        .collect::<Result<Vec<_>>>()?;
    let runtime = runtime()?;
    for _ in 0..options.rounds() {
        for (contender, server) in &servers {
            let times = runtime.block_on(async {
                let proxy = Proxy::new(server.addr()).await?;
                contender.measure(&proxy, options.cuts()).await
            })?;
            report.add(*contender, times);
        }
    }
    drop(servers);
    for _ in 0..options.rounds() {
        report.memory(runtime.block_on(memory::measure(options.sessions()))?);
    }
    print!("{report}");
    if let Some(file) = &options.json {
        report.records(machine).write(file)?;
    }
    Ok(())
}
