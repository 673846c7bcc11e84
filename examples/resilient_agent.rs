//! An agent that goes on while its server does not.
//!
//! ```sh
//! cargo run --example math -- serve --listen 127.0.0.1:8080        # stop it, and start it again
//! cargo run --example resilient_agent -- ws://127.0.0.1:8080/mcp   # in another terminal
//! ```
//!
//! It calls a tool ten times a second. Where only the connection is lost, its session is resumed,
//! and no call notices. Where the server is, the session goes with it: a call that had not been
//! sent waits for the next server; of a call that had been, nobody knows whether it was executed,
//! and the agent decides what to do. Adding does no harm twice, so this one asks again.

use std::{env, error::Error, time::Duration};

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use mcp_ws_transport::{connect, event::Event};
use rmcp::{
    ErrorData, Peer, RoleClient, ServiceError, ServiceExt, model::CallToolRequestParams, object,
};
use tokio::task::JoinSet;

/// Counts of the calls so far.
#[derive(Default)]
struct Calls {
    made: u64,
    done: u64,
    repeated: u64,
    failed: u64,
}

impl Calls {
    fn show(&self, bar: &ProgressBar) {
        let Self { made, done, repeated, failed } = self;
        bar.set_length(*made);
        bar.set_position(*done);
        bar.set_message(format!("{done} of {made} done, {repeated} repeated, {failed} failed"));
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
    let (mut calls, mut tasks) = (Calls::default(), JoinSet::new());
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = pace.tick() => {
                tasks.spawn(add(agent.peer().clone(), calls.made));
                calls.made += 1;
                calls.show(&bar);
            }
            Some(outcome) = tasks.join_next() => {
                let (repeated, is_done) = outcome?;
                calls.repeated += repeated;
                *(if is_done { &mut calls.done } else { &mut calls.failed }) += 1;
            }
            Some(event) = events.next() => {
                bar.suspend(|| print(&event));
                if let Event::Closed(error) = event {
                    return Err(error.into());
                }
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    bar.finish();
    agent.cancel().await?;
    Ok(())
}

/// Adds 1 to `number`, again while nobody knows whether it was done. Returns how often it was
/// repeated, and whether it is done.
async fn add(server: Peer<RoleClient>, number: u64) -> (u64, bool) {
    let mut repeated = 0;
    loop {
        let arguments = object!({ "a": number, "b": 1 });
        let call = CallToolRequestParams::new("add").with_arguments(arguments);
        match server.call_tool(call).await {
            Err(ServiceError::McpError(error)) if is_unknown(&error) => repeated += 1,
            outcome => return (repeated, outcome.is_ok()),
        }
    }
}

/// Returns `true` if nobody knows whether the call was executed.
fn is_unknown(error: &ErrorData) -> bool {
    error.data.as_ref().is_some_and(|data| data["reason"] == "outcome_unknown")
}

fn print(event: &Event) {
    match event {
        Event::Lost(cause) => println!("connection lost: {cause}"),
        Event::Failed { attempt, error, next } => {
            println!("attempt {attempt}: {error}; the next in {next:.1?}");
        }
        Event::Resumed { replayed } => println!("connected again, {replayed} messages sent again"),
        Event::Restarted { .. } => println!("connected again, in a new session"),
        other => println!("{other:?}"),
    }
}
