//! A server that dies and is started again, time after time, with calls in flight.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use mcp_ws_transport::{
    State, connect,
    event::{Event, Events},
    serve,
    server::{Config, Drain, Server},
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{RoleClient, ServiceError, ServiceExt, model::CallToolRequestParams, service::Peer};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::common::{
    counting::Counting, limit, ms, proxy::Proxy, reconnect_within, scale, tool_call, within,
};

/// A server with a runtime of its own, which can be killed at once.
struct KillableServer {
    runtime: Runtime,
    server: Server,
}

impl KillableServer {
    async fn new(counting: &Counting) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let counting = counting.clone();
        let config = Config::default().drain(Drain::default().deadline(Duration::ZERO));
        let serve = serve("127.0.0.1:0", move || counting.clone()).config(config);
        let server = runtime.spawn(serve.into_future()).await.unwrap().unwrap();
        Self { runtime, server }
    }

    /// Ends the server: killed, or with a Close for each client.
    async fn end(self, killed: bool) {
        if !killed {
            self.runtime.spawn(self.server.shutdown()).await.unwrap();
        }
        self.runtime.shutdown_background();
    }
}

fn count(number: i64, ms: u64) -> CallToolRequestParams {
    tool_call("count", json!({ "number": number, "ms": ms }))
}

/// Ends of calls.
#[derive(Debug, Default)]
struct Ends {
    answered: usize,
    not_sent: usize,
    unknown: usize,
}

impl Ends {
    /// Checks that what is said of the call is true.
    fn note(&mut self, number: i64, outcome: Result<String, ServiceError>, times: usize) {
        match outcome {
            Ok(text) => {
                self.answered += 1;
                assert_eq!((text, times), (number.to_string(), 1));
            }
            Err(ServiceError::McpError(error)) => {
                match error.data.as_ref().and_then(|data| data["reason"].as_str()) {
                    Some("not_sent") => {
                        self.not_sent += 1;
                        assert_eq!(times, 0, "{number} was executed");
                    }
                    Some("outcome_unknown") => {
                        self.unknown += 1;
                        assert!(times <= 1, "{number} was executed {times} times");
                    }
                    _ => panic!("{error:?}"),
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The outcome of a call, and when it was known.
async fn call(
    client: &Peer<RoleClient>,
    number: i64,
    ms: u64,
) -> (i64, Result<String, ServiceError>, Instant) {
    let outcome = within(Duration::from_secs(10), client.call_tool(count(number, ms))).await;
    let text = outcome.map(|result| result.content[0].as_text().unwrap().text.clone());
    (number, text, Instant::now())
}

/// The client has found the next server.
async fn restarted(events: &mut Events<Event>) {
    loop {
        match events.next().await.unwrap() {
            Event::Restarted { .. } => return,
            event @ (Event::Resumed { .. } | Event::Closed(_) | Event::Lagged(_)) => {
                panic!("{event:?}")
            }
            _ => {}
        }
    }
}

async fn of_many_restarts(resume: bool) {
    let rounds = scale(40, 1000) as i64;
    let counting = Counting::default();
    let mut server = KillableServer::new(&counting).await;
    let proxy = Proxy::new(server.server.local_addr()).await;
    let connect = reconnect_within(ms(20), connect(proxy.url())).resume(resume);
    let (mut events, mut state) = (connect.events(), connect.state());
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let (mut ends, mut slowest) = (Ends::default(), Duration::ZERO);
    for round in 0..rounds {
        let calls = (0..10).map(|lane| {
            let (client, ms) = (client.peer().clone(), random.random_range(0..30));
            // Some come when the server has gone.
            let begins = Duration::from_millis(random.random_range(0..20));
            tokio::spawn(async move {
                tokio::time::sleep(begins).await;
                call(&client, 10 * round + lane, ms).await
            })
        });
        let calls: Vec<_> = calls.collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
        let (killed, gap): (bool, bool) = (random.random(), random.random());
        let mut next = KillableServer::new(&counting).await;
        std::mem::swap(&mut next, &mut server);
        // It is there already, or it takes a while; whoever still got through to the old one in the
        // meantime might be told to come again in five seconds.
        let (address, nowhere) = (server.server.local_addr(), "127.0.0.1:1".parse().unwrap());
        *proxy.target.lock().unwrap() = if gap { nowhere } else { address };
        next.end(killed).await;
        if gap {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
        }
        let since = Instant::now();
        *proxy.target.lock().unwrap() = address;
        for outcome in join_all(calls).await {
            let (number, outcome, end) = outcome.unwrap();
            slowest = slowest.max(end.saturating_duration_since(since));
            ends.note(number, outcome, counting.times(number));
        }
        // And it goes on.
        within(Duration::from_secs(1), restarted(&mut events)).await;
        let (_, outcome, _) = call(&client, -1 - round, 0).await;
        assert_eq!(outcome.unwrap(), (-1 - round).to_string());
    }

    // It does not come back, and the client ends: what waits was never sent.
    server.end(true).await;
    let away = |state: &State| matches!(state, State::Reconnecting { .. });
    within(Duration::from_secs(1), state.wait_for(away)).await.unwrap();
    let calls: Vec<_> = (10 * rounds..10 * rounds + 10)
        .map(|number| {
            let client = client.peer().clone();
            tokio::spawn(async move { call(&client, number, 0).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let leaving = tokio::spawn(client.cancel());
    for outcome in join_all(calls).await {
        let (number, outcome, _) = outcome.unwrap();
        assert!(outcome.is_err());
        assert_eq!(counting.times(number), 0);
    }
    limit(leaving).await.unwrap().unwrap();

    println!(
        "figure: restarts, resume {resume}: {rounds}, {} calls answered, {} not sent, {} unknown; the \
         slowest ended {slowest:.1?} after the next server was there",
        ends.answered, ends.not_sent, ends.unknown
    );
    assert!(ends.answered > 0 && ends.unknown > 0, "{ends:?}");
    assert!(slowest <= Duration::from_secs(1), "{slowest:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(counting.0.lock().unwrap().values().all(|times| *times == 1), "executed twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_restarts_each_call_ends_once_and_truly() {
    of_many_restarts(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_restarts_with_a_session_that_is_gone_each_call_ends_once_and_truly() {
    of_many_restarts(true).await;
}
