//! A client that loses its connection makes another, and no call is lost in silence.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use mcp_ws_transport::{
    CloseCode, CloseReason, Error, State,
    client::{Connect, ReconnectPolicy},
    connect,
    error::HandshakeError,
    event::Event,
    server::{BearerTokens, Config, Drain, Identity, Server},
};
use proptest::{
    prelude::Rng,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    service::{Peer, RunningService},
};
use serde_json::json;
use tokio::sync::watch;

use crate::common::{
    Tools,
    counting::Counting,
    limit, listen, ms,
    proxy::{Faults, Proxy},
    raw::{Frame, PING, PONG, Raw},
    reconnect_within, scale,
    scripted::{Link, session},
    serve_tools, tool_call, within,
};

type Client = RunningService<RoleClient, ()>;

/// Sets short waits, and that no session is resumed.
fn without_resume(connect: Connect<RoleClient>) -> Connect<RoleClient> {
    reconnect_within(ms(20), connect).resume(false)
}

async fn client(url: &str) -> Client {
    ().serve(without_resume(connect(url)).await.unwrap()).await.unwrap()
}

async fn echo(client: &Peer<RoleClient>, text: &str) -> Result<String, ServiceError> {
    let result = client.call_tool(tool_call("echo", json!({ "text": text }))).await?;
    Ok(result.content[0].as_text().unwrap().text.clone())
}

/// Returns the reason why a call has no result.
fn reason(error: &ServiceError) -> String {
    let ServiceError::McpError(error) = error else { panic!("{error}") };
    let data = error.data.as_ref().unwrap_or_else(|| panic!("{error}"));
    data["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn calls_go_on_over_the_next_connection() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let proxy = Proxy::new(address).await;
        let connect = without_resume(connect(proxy.url()));
        let (mut state, mut events) = (connect.state(), connect.events());
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        for round in 0..5 {
            let text = round.to_string();
            assert_eq!(echo(&client, &text).await.unwrap(), text);
            proxy.cut();
            state.wait_for(|state| matches!(state, State::Reconnecting { .. })).await.unwrap();
            assert!(matches!(events.next().await, Some(Event::Lost(_))));
            // This one waits for the next connection.
            assert_eq!(echo(&client, &text).await.unwrap(), text);
            let event = events.next().await;
            assert!(matches!(event, Some(Event::Restarted { changed: None })), "{event:?}");
        }
        assert_eq!(proxy.dials.load(SeqCst), 6);
        client.cancel().await.unwrap();
        assert!(matches!(events.next().await, Some(Event::Closed(_))));
        assert!(events.next().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_call_that_was_sent_ends_with_the_connection() {
    limit(async {
        let tools = Tools::default();
        let (_server, address) = serve_tools(&tools, Config::default()).await;
        let proxy = Proxy::new(address).await;
        let client = client(&proxy.url()).await;
        let waiting = {
            let client = client.clone();
            tokio::spawn(async move { client.call_tool(tool_call("wait", json!({}))).await })
        };
        tools.begun(1).await;
        let cut = Instant::now();
        proxy.cut();
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(reason(&error), "outcome_unknown");
        assert!(cut.elapsed() < Duration::from_secs(1));
        assert_eq!(echo(&client, "on").await.unwrap(), "on");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    limit(async {
        let tools = Tools::default();
        let config = || Config::default().drain(Drain::default().deadline(Duration::ZERO));
        let (first, address) = serve_tools(&tools, config()).await;
        let proxy = Proxy::new(address).await;
        let client = client(&proxy.url()).await;
        assert_eq!(echo(&client, "a").await.unwrap(), "a");
        first.shutdown().await;
        let (_second, address) = serve_tools(&tools, config()).await;
        *proxy.target.lock().unwrap() = address;
        assert_eq!(echo(&client, "b").await.unwrap(), "b");
    })
    .await;
}

/// The longest wait until a next attempt, of all that are told from now on.
fn longest(mut state: watch::Receiver<State>) -> Arc<Mutex<Duration>> {
    let longest = Arc::<Mutex<Duration>>::default();
    let noted = longest.clone();
    tokio::spawn(async move {
        while state.changed().await.is_ok() {
            if let State::Reconnecting { next, .. } = *state.borrow_and_update() {
                let mut longest = noted.lock().unwrap();
                *longest = next.max(*longest);
            }
        }
    });
    longest
}

#[tokio::test]
async fn waits_do_not_grow_over_connections_that_work() {
    limit(async {
        for resume in [true, false] {
            let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
            let proxy = Proxy::new(address).await;
            let first = Duration::from_millis(20);
            let connect = connect(proxy.url()).reconnect(ReconnectPolicy::default().first(first));
            let connect = connect.resume(resume);
            let (mut state, longest) = (connect.state(), longest(connect.state()));
            let client = ().serve(connect.await.unwrap()).await.unwrap();
            for round in 0..10 {
                let text = round.to_string();
                assert_eq!(echo(&client, &text).await.unwrap(), text);
                proxy.cut();
                state.wait_for(|state| matches!(state, State::Reconnecting { .. })).await.unwrap();
            }
            assert_eq!(echo(&client, "on").await.unwrap(), "on");
            let longest = *longest.lock().unwrap();
            assert!(!longest.is_zero() && longest <= first, "{resume}: {longest:?}");
        }
    })
    .await;
}

/// A session that is resumed, pings and pongs are no messages.
#[tokio::test]
async fn waits_grow_where_every_connection_is_dropped_before_it_has_carried_anything() {
    limit(async {
        let (listener, url) = listen().await;
        let first = Duration::from_millis(1);
        let policy = ReconnectPolicy::default().first(first).min(Duration::from_millis(20));
        let connect = connect(url).reconnect(policy);
        let longest = longest(connect.state());
        let serving = async {
            let mut link = Link::new(&listener).await;
            link.open().await;
            link.begins(session("s-1", "s", 0, false)).await
        };
        let dialling = async { ().serve(connect.await.unwrap()).await.unwrap() };
        let (client, mut link) = tokio::join!(dialling, serving);
        for _ in 0..7 {
            let next;
            (next, _) = link.cut(&listener).await;
            link = next;
            // It resumes, and that is all.
            link.raw.text(session("s-1", "s", link.received, true)).await;
            link.raw.send(Frame::new(PING, "x")).await;
            while link.raw.next().await.unwrap().opcode != PONG {}
        }
        let longest = *longest.lock().unwrap();
        assert!(longest > 5 * first, "{longest:?}");
        drop(client);
    })
    .await;
}

/// An answer to `initialize` does not show that a server works.
#[tokio::test]
async fn a_server_that_begins_and_ends_time_and_again_is_left_alone_for_longer_and_longer() {
    limit(async {
        let (listener, url) = listen().await;
        let policy =
            ReconnectPolicy::default().first(Duration::ZERO).min(Duration::from_millis(100));
        let client = connect(url).reconnect(policy).resume(false);
        let client = async { ().serve(client.await.unwrap()).await.unwrap() };
        let begun = AtomicUsize::new(0);
        let serving = async {
            loop {
                let mut raw = Raw::upgraded(listener.accept().await.unwrap().0).await;
                raw.answer_initialize().await;
                begun.fetch_add(1, SeqCst);
            }
        };
        let waiting = async {
            let client = client.await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            client
        };
        let client = tokio::select! {
            client = waiting => client,
            never = serving => never,
        };
        let begun = begun.into_inner();
        assert!((2..20).contains(&begun), "{begun} connections");
        drop(client);
    })
    .await;
}

/// The server's registry closes all with this code.
async fn closed_with(server: &Server, code: CloseCode) {
    for connection in server.registry().list() {
        connection.disconnect(CloseReason::new(code, "so"));
    }
}

#[tokio::test]
async fn who_is_told_that_it_is_not_wanted_stays_away() {
    limit(async {
        for code in [1000, 1008, 4401, 4403, 4409] {
            let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
            let proxy = Proxy::new(address).await;
            let connect = without_resume(connect(proxy.url()));
            let mut state = connect.state();
            let client = ().serve(connect.await.unwrap()).await.unwrap();
            closed_with(&server, code.into()).await;
            let closed = |state: &State| matches!(state, State::Closed(reason) if u16::from(reason.code) == code);
            within(Duration::from_secs(1), state.wait_for(closed)).await.unwrap();
            within(Duration::from_secs(1), client.waiting()).await.unwrap();
            assert_eq!(proxy.dials.load(SeqCst), 1, "{code}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_that_is_meant_is_the_end() {
    limit(async {
        let (_open, open) = serve_tools(&Tools::default(), Config::default()).await;
        let tokens = BearerTokens::default().token("right", Identity::new("someone"));
        let config = Config::default().authenticator(tokens);
        let (_shut, shut) = serve_tools(&Tools::default(), config).await;
        let proxy = Proxy::new(open).await;
        let connect = without_resume(connect(proxy.url()));
        let mut events = connect.events();
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        *proxy.target.lock().unwrap() = shut;
        proxy.cut();
        assert!(matches!(events.next().await, Some(Event::Lost(_))));
        let end = within(Duration::from_secs(1), events.next()).await;
        let Some(Event::Closed(Error::Handshake(HandshakeError::Refused(refusal)))) = end else {
            panic!("{end:?}");
        };
        assert_eq!(refusal.status, 401);
        assert_eq!(proxy.dials.load(SeqCst), 2);
        within(Duration::from_secs(1), client.waiting()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_token_is_asked_for_at_every_attempt_and_once_more_where_it_is_refused() {
    limit(async {
        let tokens = BearerTokens::default().token("right", Identity::new("someone"));
        let config = Config::default().authenticator(tokens);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let proxy = Proxy::new(address).await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let token = move |request: mcp_ws_transport::client::TokenRequest| {
            let mut asked = noted.lock().unwrap();
            asked.push(request.refused);
            let token = match asked.len() {
                1 | 3 => "stale",
                _ => "right",
            };
            async move { Ok::<_, String>(token.to_owned()) }
        };
        let connect = without_resume(connect(proxy.url()).bearer_provider(token));
        let (mut events, mut state) = (connect.events(), connect.state());
        let mut lost = async || {
            let away = |state: &State| matches!(state, State::Reconnecting { .. });
            state.wait_for(away).await.unwrap();
        };
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [false, true]);

        proxy.cut();
        lost().await;
        assert_eq!(echo(&client, "a").await.unwrap(), "a");
        assert_eq!(*asked.lock().unwrap(), [false, true, false, true]);

        // The server has had enough of the token: another is asked for at once.
        closed_with(&server, CloseCode::Unauthorized).await;
        lost().await;
        assert_eq!(echo(&client, "b").await.unwrap(), "b");
        assert_eq!(asked.lock().unwrap()[4..], [true]);

        closed_with(&server, CloseCode::Unauthorized).await;
        within(Duration::from_secs(2), client.waiting()).await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 5, "one refresh, no more");
        let end = events
            .by_ref()
            .filter(|event| futures::future::ready(matches!(event, Event::Closed(Error::Link(_)))));
        assert!(Box::pin(end).next().await.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_new_connection_can_be_asked_for() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let proxy = Proxy::new(address).await;
        let connect = without_resume(connect::<RoleClient>(proxy.url()));
        let mut events = connect.events();
        let transport = connect.await.unwrap();
        let reconnect_handle = transport.reconnect_handle().unwrap();
        let client = ().serve(transport).await.unwrap();
        for dials in 2..4 {
            reconnect_handle.reconnect();
            while !matches!(events.next().await.unwrap(), Event::Restarted { .. }) {}
            assert_eq!(proxy.dials.load(SeqCst), dials);
            assert_eq!(echo(&client, "a").await.unwrap(), "a");
        }
    })
    .await;
}

#[tokio::test]
async fn once_is_once() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let proxy = Proxy::new(address).await;
        let client = ().serve(connect(proxy.url()).no_reconnect().await.unwrap()).await.unwrap();
        proxy.cut();
        within(Duration::from_secs(1), client.waiting()).await.unwrap();
        assert_eq!(proxy.dials.load(SeqCst), 1);
    })
    .await;
}

#[tokio::test]
async fn a_close_does_not_wait_for_a_server_that_is_away() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let connect = without_resume(connect(format!("ws://{address}/mcp")));
        let mut state = connect.state();
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        server.shutdown().await;
        state.wait_for(|state| matches!(state, State::Reconnecting { .. })).await.unwrap();
        let waiting = {
            let client = client.clone();
            tokio::spawn(async move { echo(&client, "a").await })
        };
        tokio::task::yield_now().await;
        within(Duration::from_secs(1), client.cancel()).await.unwrap();
        assert!(within(Duration::from_secs(1), waiting).await.unwrap().is_err());
    })
    .await;
}

/// Connections are cut after a random number of bytes, ten calls in flight: each ends soon after
/// the loss, with its own answer or with an error that is true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_cuts_each_call_ends_once_and_truly() {
    let cuts = scale(100, 1000);
    let counting = Counting::default();
    let service = counting.clone();
    let server = mcp_ws_transport::serve("127.0.0.1:0", move || service.clone()).await.unwrap();
    let proxy = Proxy::new(server.local_addr()).await;
    proxy.faults(Faults { cut_after: Some(3000), ..Faults::default() });
    let client = client(&proxy.url()).await;
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let (not_sent, unknown, slowest) =
        (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Duration::ZERO));
    let mut next = 0;
    for cut in 0..cuts {
        // Enough for the handshake and some of what follows.
        let bytes = 1500 + random.next_u32() as usize % 6000;
        proxy.faults(Faults { cut_after: Some(bytes), reset: cut % 2 == 0, ..Faults::default() });
        let calls = (0..10).map(|lane| {
            let number = next + lane;
            let (client, counting) = (&client, &counting);
            let (not_sent, unknown, slowest) = (&not_sent, &unknown, &slowest);
            async move {
                let began = Instant::now();
                let call = client.call_tool(tool_call("count", json!({ "number": number })));
                let outcome = within(Duration::from_secs(10), call).await;
                let times = counting.times(number);
                match outcome {
                    Ok(result) => {
                        let text = &result.content[0].as_text().unwrap().text;
                        assert_eq!((text, times), (&number.to_string(), 1));
                    }
                    Err(error) => match &*reason(&error) {
                        "not_sent" => {
                            not_sent.fetch_add(1, SeqCst);
                            assert_eq!(times, 0, "{number} was executed");
                        }
                        "outcome_unknown" => {
                            unknown.fetch_add(1, SeqCst);
                            assert!(times <= 1);
                        }
                        other => panic!("{other}"),
                    },
                }
                let mut slowest = slowest.lock().unwrap();
                *slowest = slowest.max(began.elapsed());
            }
        });
        futures::future::join_all(calls).await;
        next += 10;
    }
    let dials = proxy.dials.load(SeqCst);
    let slowest = slowest.into_inner().unwrap();
    println!(
        "figure: cuts: {next} calls over {dials} connections, {not_sent:?} not sent, {unknown:?} unknown; \
         the slowest took {slowest:.1?}"
    );
    assert!(dials > cuts / 10 && unknown.load(SeqCst) > 0, "{dials} {unknown:?}");
    assert!(slowest <= Duration::from_secs(1), "{slowest:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(counting.0.lock().unwrap().values().all(|times| *times == 1), "executed twice");
}

/// The server takes the token at the upgrade, and says at once that it is not good enough.
#[tokio::test]
async fn a_server_that_never_has_enough_of_new_tokens_is_left_alone() {
    limit(async {
        let tokens = BearerTokens::default().token("right", Identity::new("someone"));
        let config = Config::default().authenticator(tokens);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let registry = server.registry().clone();
        tokio::spawn(async move {
            let mut events = registry.events();
            while let Some(event) = events.next().await {
                if let mcp_ws_transport::server::RegistryEvent::Connected(connection) = event {
                    connection.disconnect(CloseReason::new(CloseCode::Unauthorized, "another"));
                }
            }
        });
        let proxy = Proxy::new(address).await;
        let token = |_| async { Ok::<_, String>("right".to_owned()) };
        let connect = without_resume(connect::<RoleClient>(proxy.url()).bearer_provider(token));
        let mut state = connect.state();
        let _ = ().serve(connect.await.unwrap()).await;
        let closed = |state: &State| matches!(state, State::Closed(_));
        within(Duration::from_secs(2), state.wait_for(closed)).await.unwrap();
        assert_eq!(proxy.dials.load(SeqCst), 2);
    })
    .await;
}
