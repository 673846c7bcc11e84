//! An agent that goes on while its server does not.
//!
//! ```sh
//! cargo run --example math -- serve --listen 127.0.0.1:8080        # stop it, and start it again
//! cargo run --example resilient_agent -- ws://127.0.0.1:8080/mcp   # in another terminal
//! ```
//!
//! It calls a tool ten times a second. Where only the connection is lost, its session is resumed, and no
//! call notices. Where the server is, the session goes with it: a call that had not been sent waits for
//! the next server; of a call that had been, nobody knows whether it was executed, and the agent decides
//! what to do. Adding does no harm twice, so this one asks again.

use std::{
    env,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use mcp_ws_transport::{connect, event::Event};
use rmcp::{
    Peer, RoleClient, ServiceError, ServiceExt,
    model::{CallToolRequestParams, CallToolResult},
    object,
};

/// What became of the calls so far.
#[derive(Default)]
struct Calls {
    made: AtomicU64,
    done: AtomicU64,
    repeated: AtomicU64,
    lost: AtomicU64,
}

impl Calls {
    fn show(&self, bar: &ProgressBar) {
        let [made, done, repeated, lost] =
            [&self.made, &self.done, &self.repeated, &self.lost].map(|count| count.load(Relaxed));
        let waiting = made.saturating_sub(done + lost);
        bar.set_length(made);
        bar.set_position(done);
        bar.set_message(format!(
            "{done} done, {waiting} waiting, {repeated} repeated, {lost} lost"
        ));
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8080/mcp".into());
    let connect = connect(&url);
    let mut events = connect.events();
    let agent = ().serve(connect.await?).await?;

    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("[{bar:30}] {msg}")?.progress_chars("=> "));
    let calls = Arc::new(Calls::default());
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = pace.tick() => {
                calls.show(&bar);
                let number = calls.made.fetch_add(1, Relaxed);
                tokio::spawn(call(agent.peer().clone(), number, calls.clone()));
            }
            event = events.next() => {
                let Some(event) = event else { break };
                bar.suspend(|| tell(&event));
                if let Event::Closed(error) = event {
                    return Err(error.into());
                }
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    bar.finish();
    calls.show(&bar);
    agent.cancel().await?;
    Ok(())
}

async fn call(server: Peer<RoleClient>, number: u64, calls: Arc<Calls>) {
    let mut outcome = add(&server, number).await;
    while outcome.as_ref().is_err_and(is_unknown) {
        calls.repeated.fetch_add(1, Relaxed);
        outcome = add(&server, number).await;
    }
    let count = if outcome.is_ok() { &calls.done } else { &calls.lost };
    count.fetch_add(1, Relaxed);
}

async fn add(server: &Peer<RoleClient>, number: u64) -> Result<CallToolResult, ServiceError> {
    let arguments = object!({ "a": number, "b": 1 });
    server.call_tool(CallToolRequestParams::new("add").with_arguments(arguments)).await
}

/// Whether nobody knows if the call was executed.
fn is_unknown(error: &ServiceError) -> bool {
    matches!(error, ServiceError::McpError(error)
        if error.data.as_ref().is_some_and(|data| data["reason"] == "outcome_unknown"))
}

fn tell(event: &Event) {
    match event {
        Event::Lost(cause) => println!("connection lost: {cause}"),
        Event::Failed { attempt, error, next } => {
            println!("attempt {attempt}: {error}; the next in {next:.1?}");
        }
        Event::Resumed { replayed } => println!("connected again, {replayed} messages sent again"),
        Event::Restarted { changed: None } => println!("connected again, in a new session"),
        Event::Restarted { changed: Some(answer) } => {
            println!(
                "connected again, to {} {}",
                answer.server_info.name, answer.server_info.version
            );
        }
        other => println!("{other:?}"),
    }
}
