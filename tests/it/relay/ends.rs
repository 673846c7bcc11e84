//! Relays that end: every request is answered, and both sides are closed.

use std::{
    convert::Infallible,
    future::IntoFuture,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{Sink, Stream};
use mcp_ws_transport::{
    CloseCode, State, WebSocketTransport, connect,
    decode::Malformed,
    relay::{self, Ended, RawMessage},
    server::Config,
};
use serde_json::{Value, json};

use super::{Relayed, StdioEnd, program, relayed, serve_client, serve_programs};
use crate::common::{
    limit, listen,
    raw::{Frame, Raw},
    within,
};

/// The transport of a client, and the raw server at its other end.
async fn client_and_raw() -> (WebSocketTransport<relay::Client>, Raw) {
    let (listener, url) = listen().await;
    let accepting = async { Raw::upgraded(listener.accept().await.unwrap().0).await };
    let (transport, raw) = tokio::join!(connect(url).no_reconnect().into_future(), accepting);
    (transport.unwrap(), raw)
}

fn request(id: u64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "m" })
}

fn assert_ended(answer: &Value, id: u64, reason: &str) {
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32000)), "{answer}");
    assert_eq!(answer["error"]["data"]["reason"], reason, "{answer}");
}

#[tokio::test]
async fn a_program_that_dies_ends_the_calls_that_it_has_and_then_the_connection() {
    limit(async {
        let (_server, mut client, mut program) = serve_client(Config::default()).await;
        for id in 1..=3 {
            client.json(&request(id)).await;
            program.json().await;
        }
        program.write(json!({ "jsonrpc": "2.0", "id": 2, "result": 7 }).to_string()).await;
        drop(program);
        assert_eq!(client.receive().await["result"], 7);
        let ended = client.receive().await;
        assert_ended(&ended, 1, "outcome_unknown");
        assert_eq!(ended["error"]["message"], "the server behind this relay has ended");
        assert_ended(&client.receive().await, 3, "outcome_unknown");
        let (code, reason) = client.closed().await;
        assert_eq!((code, &*reason), (1011, "the MCP server has ended"));
    })
    .await;
}

#[tokio::test]
async fn a_program_that_cannot_be_made_closes_the_connection() {
    limit(async {
        let server = relay::serve("127.0.0.1:0", |_| async {
            Err::<StdioEnd, _>(io::Error::other("no such program"))
        });
        let server = server.await.unwrap();
        let mut client = Raw::dial(server.local_addr()).await;
        assert_eq!(client.closed().await.0, 1011);
    })
    .await;
}

#[tokio::test]
async fn a_program_that_is_not_made_in_time_is_no_fault_of_the_client() {
    limit(async {
        let server =
            relay::serve("127.0.0.1:0", |_| std::future::pending::<io::Result<StdioEnd>>());
        let config = Config::default().handshake_timeout(Duration::from_millis(50));
        let server = server.config(config).await.unwrap();
        let mut client = Raw::dial(server.local_addr()).await;
        client.json(&request(1)).await;
        let why = "the server behind this relay has not started";
        assert_eq!(client.closed().await, (1011, why.into()));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_program() {
    limit(async {
        let (server, mut client, mut program) = serve_client(Config::default()).await;
        client.initialize_program(&mut program).await;
        assert_eq!(server.registry().list().len(), 1);
        client.send(Frame::close(1000)).await;
        assert_eq!(client.closed().await.0, 1000);
        program.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_kept() {
    limit(async {
        let config = Config::default().handshake_timeout(Duration::from_millis(200));
        let (_server, mut client, mut program) = serve_client(config).await;
        assert_eq!(client.closed().await.0, 1008);
        program.end().await;
    })
    .await;
}

/// The time of a slow program does not count.
#[tokio::test]
async fn a_program_may_take_its_time_to_start() {
    limit(async {
        let config = Config::default().handshake_timeout(Duration::from_millis(50));
        let (_server, mut client, mut program) = serve_client(config).await;
        client.json(&request(1)).await;
        program.json().await;
        client.assert_silent(Duration::from_millis(500)).await;
        program.write(json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string()).await;
        assert_eq!(client.receive().await["id"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_done_gets_its_answers_first() {
    limit(async {
        let Relayed { mut host, mut server, relaying, listening: _listening, .. } = relayed().await;
        host.write(request(1).to_string()).await;
        server.json().await;
        server.write(request(9).to_string()).await;
        assert_eq!(host.json().await["id"], 9);
        tokio::io::AsyncWriteExt::shutdown(&mut host.input).await.unwrap();
        // Nobody answers the server any more, and nothing keeps it from answering.
        assert_ended(&server.json().await, 9, "outcome_unknown");
        server.write(request(10).to_string()).await;
        assert_ended(&server.json().await, 10, "not_sent");
        server.write(json!({ "jsonrpc": "2.0", "id": 1, "result": 7 }).to_string()).await;
        assert_eq!(host.json().await["result"], 7);
        host.end().await;
        assert_eq!(relaying.await.unwrap(), Ended::EndFinished);
        server.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_host_waits_for_a_silent_server_no_longer_than_it_may() {
    limit(async {
        let (_server, address, mut programs) = serve_programs(Config::default()).await;
        let transport = connect::<relay::Client>(format!("ws://{address}/mcp")).await.unwrap();
        let (end, mut host) = program();
        let run = relay::run(transport, end).linger(Duration::from_millis(50));
        let relaying = tokio::spawn(async move { run.await });
        let (_silent, _) = programs.recv().await.unwrap();
        host.write(request(1).to_string()).await;
        tokio::io::AsyncWriteExt::shutdown(&mut host.input).await.unwrap();
        assert_eq!(within(Duration::from_secs(10), relaying).await.unwrap(), Ended::EndFinished);
    })
    .await;
}

#[tokio::test]
async fn each_request_of_a_host_is_answered_when_the_connection_ends() {
    limit(async {
        let (transport, mut server) = client_and_raw().await;
        let (end, mut host) = program();
        let relaying = tokio::spawn(async move { relay::run(transport, end).await });
        for id in 1..=3 {
            host.write(request(id).to_string()).await;
            assert_eq!(server.receive().await["id"], id);
        }
        server.send(Frame::close(1011)).await;
        for id in 1..=3 {
            assert_ended(&host.json().await, id, "outcome_unknown");
        }
        host.end().await;
        let Ended::PeerGone(reason) = relaying.await.unwrap() else { panic!() };
        assert_eq!(reason.code, CloseCode::Internal);
    })
    .await;
}

#[tokio::test]
async fn rubbish_is_skipped_and_whoever_waits_is_told() {
    limit(async {
        let (_server, mut client, mut program) = serve_client(Config::default()).await;
        client.json(&request(1)).await;
        client.json(&request(2)).await;
        program.json().await;
        program.json().await;
        for rubbish in ["Server started on port 3000", "{\"a\":", "\u{1b}[32m", "[]", ""] {
            program.write(rubbish).await;
        }
        program.write(r#"{"jsonrpc":"2.0","id":1,"result":NaN}"#).await;
        program.write(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#).await;
        let unreadable = client.receive().await;
        assert_eq!(unreadable["id"], 1);
        assert_eq!(unreadable["error"]["data"]["reason"], "unreadable", "{unreadable}");
        assert_eq!(client.receive().await["result"], json!({}));
        // A request of the program itself, which has to know that nobody gets it.
        program.write(r#"{"jsonrpc":"2.0","id":8,"method":7}"#).await;
        let refused = program.json().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(8), &json!(-32600)));
    })
    .await;
}

/// An end that takes nothing and says what it is told.
struct Deaf(tokio::sync::mpsc::UnboundedReceiver<Result<RawMessage, Malformed>>);

impl Stream for Deaf {
    type Item = Result<RawMessage, Malformed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

impl Sink<RawMessage> for Deaf {
    type Error = Infallible;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn start_send(self: Pin<&mut Self>, _: RawMessage) -> Result<(), Infallible> {
        panic!("it was not ready")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn an_end_that_takes_nothing_keeps_nobody_from_being_answered() {
    limit(async {
        let (transport, mut server) = client_and_raw().await;
        let (says, said) = tokio::sync::mpsc::unbounded_channel();
        let relaying =
            tokio::spawn(
                async move { relay::run(transport, Deaf(said)).linger(Duration::ZERO).await },
            );
        for id in 0..2000 {
            server.json(&request(id)).await;
        }
        // Its pings are answered, and what it asks too much is refused.
        server.send(Frame::new(crate::common::raw::PING, "?")).await;
        let mut refused = 0;
        while refused < 2000 - 1024 {
            let frame = server.next().await.unwrap();
            if frame.opcode == crate::common::raw::TEXT {
                let answer: Value = serde_json::from_slice(&frame.payload).unwrap();
                assert_eq!(answer["error"]["data"]["reason"], "too_many_requests", "{answer}");
                refused += 1;
            }
        }
        drop(says);
        for id in 0..1024 {
            assert_ended(&server.receive().await, id, "outcome_unknown");
        }
        assert_eq!(relaying.await.unwrap(), Ended::EndFinished);
    })
    .await;
}

#[tokio::test]
async fn of_two_requests_with_one_id_the_second_is_refused() {
    limit(async {
        let (transport, mut server) = client_and_raw().await;
        let (end, mut host) = program();
        let _relaying = tokio::spawn(async move { relay::run(transport, end).await });
        host.write(request(1).to_string()).await;
        assert_eq!(server.receive().await["id"], 1);
        host.write(request(1).to_string()).await;
        let refused = host.json().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(1), &json!(-32600)));
        server.json(&json!({ "jsonrpc": "2.0", "id": 1, "result": "of the first" })).await;
        assert_eq!(host.json().await["result"], "of the first");
    })
    .await;
}

#[tokio::test]
async fn a_program_that_writes_before_it_reads_on_is_read() {
    limit(async {
        let (_server, mut client, mut program) = serve_client(Config::default()).await;
        let large = "x".repeat(1 << 20);
        for id in 0..4 {
            client
                .json(&json!({ "jsonrpc": "2.0", "id": id, "method": "m", "params": [large] }))
                .await;
        }
        let working = tokio::spawn(async move {
            for id in 0..4 {
                assert_eq!(program.json().await["id"], id);
                let result = "y".repeat(1 << 20);
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
                program.write(answer.to_string()).await;
            }
            program
        });
        for id in 0..4 {
            assert_eq!(client.receive().await["id"], id);
        }
        working.await.unwrap();
    })
    .await;
}

/// An end that panics when it is asked for a message.
struct Panicking(StdioEnd);

impl Stream for Panicking {
    type Item = Result<RawMessage, Malformed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(Pin::new(&mut self.0).poll_next(cx));
        assert!(!matches!(item, Some(Err(_))), "rubbish");
        Poll::Ready(item)
    }
}

impl Sink<RawMessage> for Panicking {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: RawMessage) -> io::Result<()> {
        Pin::new(&mut self.0).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        panic!("it has panicked before")
    }
}

#[tokio::test]
async fn an_end_that_panics_ends_its_connection_alone() {
    limit(async {
        let (sender, mut programs) = tokio::sync::mpsc::unbounded_channel();
        let server = relay::serve("127.0.0.1:0", move |_| {
            let (end, program) = program();
            let _ = sender.send(program);
            async move { Ok(Panicking(end)) }
        });
        let server = server.await.unwrap();
        let mut other = Raw::dial(server.local_addr()).await;
        let mut others = programs.recv().await.unwrap();
        let mut client = Raw::dial(server.local_addr()).await;
        let mut program = programs.recv().await.unwrap();
        client.json(&request(1)).await;
        program.json().await;
        program.write("rubbish").await;
        let answer = client.receive().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32603)));
        assert_eq!(client.closed().await.0, 1011);
        program.end().await;
        other.json(&request(1)).await;
        others.json().await;
        others.write(json!({ "jsonrpc": "2.0", "id": 1, "result": 7 }).to_string()).await;
        assert_eq!(other.receive().await["result"], 7);
        server.shutdown().await;
    })
    .await;
}

/// An end that says what it is told, and takes and drops all that it gets.
struct Rubbish {
    malformed: Malformed,
    left: Arc<AtomicUsize>,
}

impl Stream for Rubbish {
    type Item = Result<RawMessage, Malformed>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Poll::Ready(Some(Err(self.malformed.clone()))),
            Err(_) => Poll::Pending,
        }
    }
}

impl Sink<RawMessage> for Rubbish {
    type Error = Infallible;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, _: RawMessage) -> Result<(), Infallible> {
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn rubbish_is_read_no_faster_than_the_errors_for_it_go_out() {
    // More errors than the queue and the sockets take.
    const ALL: usize = 3_000;
    limit(async {
        let (transport, mut server) = client_and_raw().await;
        let state = transport.state();
        let mut malformed = relay::parse(r#"{"jsonrpc":"2.0","id":1,"result":NaN}"#).unwrap_err();
        malformed.error.message = "x".repeat(10_000).into();
        let left = Arc::new(AtomicUsize::new(ALL));
        let end = Rubbish { malformed, left: left.clone() };
        let _relaying = tokio::spawn(async move { relay::run(transport, end).await });
        loop {
            let before = left.load(SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            if before == left.load(SeqCst) {
                break;
            }
        }
        assert!((1..ALL).contains(&left.load(SeqCst)), "{left:?} of {ALL} are not read");
        assert!(matches!(*state.borrow(), State::Connected), "{:?}", *state.borrow());
        // What the server takes makes room for more.
        for _ in 0..ALL {
            let told = server.receive().await;
            assert_eq!(told["error"]["data"]["reason"], "unreadable", "{told}");
        }
        assert_eq!(left.load(SeqCst), 0);
    })
    .await;
}
