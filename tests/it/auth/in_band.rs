//! Authentication within the connection: whoever has not authenticated reaches no service, and does
//! not stay.

use std::{
    future::IntoFuture,
    time::{Duration, Instant},
};

use mcp_ws_transport::{
    Error, accept,
    error::LinkError,
    server::{AuthError, BearerTokens, Config, Credentials, Identity, Limits},
};
use rmcp::{RoleServer, ServiceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::common::{
    Tools,
    handshake::{Recorder, try_upgrade, upgrade},
    limit,
    raw::{Frame, PING, PONG, Raw, initialize, upgrade_request},
    within,
};

fn config() -> Config {
    let tokens = BearerTokens::default().token("s3cr3t", Identity::new("alice"));
    Config::default().authenticator(tokens).in_band_authentication().sessions(None)
}

fn authenticate(id: &str, token: impl Into<Value>) -> Value {
    let params = json!({ "token": token.into() });
    json!({ "jsonrpc": "2.0", "id": id, "method": "authenticate", "params": params })
}

fn is_refused(answer: &Value, id: &str) -> bool {
    answer["id"] == id && answer["error"]["code"] == -32001
}

#[tokio::test]
async fn until_it_succeeds_nothing_reaches_the_service() {
    limit(async {
        let recorder = Recorder::default();
        let (server, address) = recorder.start_server(config()).await;
        let mut raw = upgrade(address, "").await;
        for request in [
            initialize("init"),
            json!({ "jsonrpc": "2.0", "id": "init", "method": "ping" }),
            json!({ "jsonrpc": "2.0", "id": "init", "method": "Authenticate" }),
            json!({ "jsonrpc": "2.0", "id": "init", "method": "server/discover" }),
            crate::common::call("init", "wait", json!({})),
        ] {
            let answer = raw.ask(&request).await;
            assert!(is_refused(&answer, "init"), "{request}: {answer}");
            assert_eq!(answer["error"]["message"], "Authentication required");
        }
        for silent in [
            json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
            json!({ "jsonrpc": "2.0", "method": "authenticate", "params": { "token": "s3cr3t" } }),
            json!({ "jsonrpc": "2.0", "id": 7, "result": {} }),
        ] {
            raw.json(&silent).await;
        }
        raw.send(Frame::new(PING, "x")).await;
        assert_eq!(raw.next().await, Some(Frame::new(PONG, "x")));
        assert_eq!((recorder.seen().len(), server.registry().list().len()), (0, 0));

        let answer = raw.ask(&authenticate("auth", "s3cr3t")).await;
        assert_eq!(answer["result"], json!({ "authenticated": true }), "{answer}");
        raw.initialize().await;
        raw.ping().await;
        let seen = recorder.seen();
        assert_eq!(seen[0].method, "initialize");
        assert!(seen.iter().all(|seen| seen.identity == Some(Identity::new("alice"))), "{seen:?}");
        let connection = seen[0].connection.as_ref().unwrap();
        assert_eq!(connection.identity().unwrap().subject(), "alice");

        // Once more is for the service, which knows no such method, and changes nothing.
        let again = raw.ask(&authenticate("again", "wrong")).await;
        assert_eq!(again["error"]["code"], -32600, "{again}");
        raw.ping().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_sent_right_behind_it_is_served() {
    limit(async {
        let recorder = Recorder::default();
        let (_server, address) = recorder.start_server(config()).await;
        let mut raw = upgrade(address, "").await;
        let mut bytes = Vec::new();
        for message in [authenticate("auth", "s3cr3t"), initialize("init")] {
            bytes.extend(Frame::text(message.to_string()).bytes(true));
        }
        raw.write(bytes).await;
        assert_eq!(raw.receive().await["id"], "auth");
        assert_eq!(raw.receive().await["result"]["protocolVersion"], "2025-11-25");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_token_is_an_error_and_the_end() {
    limit(async {
        let recorder = Recorder::default();
        let config = Config::default().in_band_authentication().authenticator(
            |credentials: Credentials| async move {
                match credentials.token.as_ref().map(|token| token.as_str()) {
                    Some("forbidden") => Err(AuthError::Forbidden),
                    Some("panic") => panic!("a bug"),
                    _ => Err(AuthError::Unauthorized),
                }
            },
        );
        let (server, address) = recorder.start_server(config).await;
        for (token, code) in [
            (json!("wrong"), 4401),
            (json!(""), 4401),
            (json!(null), 4401),
            (json!(17), 4401),
            (json!(["s3cr3t"]), 4401),
            (json!("\u{0}\r\n\u{1f600}"), 4401),
            (json!("x".repeat(3 << 10)), 4401),
            (json!("forbidden"), 4403),
            (json!("panic"), 1013),
        ] {
            let mut raw = upgrade(address, "").await;
            // Whatever comes behind it is not served any more.
            raw.json(&authenticate("auth", token)).await;
            raw.json(&initialize("init")).await;
            assert!(is_refused(&raw.receive().await, "auth"));
            assert_eq!(raw.closed().await.0, code);
        }
        for (params, code) in [
            (json!(null), -32001),
            (json!({ "Token": "s3cr3t" }), -32001),
            (json!([]), -32600),
            (json!("s3cr3t"), -32600),
        ] {
            let mut raw = upgrade(address, "").await;
            let mut request = authenticate("auth", "");
            request["params"] = params;
            let answer = raw.ask(&request).await;
            assert_eq!(answer["error"]["code"], code, "{request}: {answer}");
        }
        assert_eq!((recorder.seen().len(), server.registry().health().total), (0, 0));
    })
    .await;
}

/// More than a token takes is not read; how much that is may be set.
#[tokio::test]
async fn a_large_message_before_it_is_refused() {
    limit(async {
        let recorder = Recorder::default();
        let (server, address) = recorder.start_server(config()).await;
        for request in [
            authenticate("auth", "x".repeat(4 << 10)),
            crate::common::call("1", "echo", json!({ "text": "x".repeat(4 << 10) })),
        ] {
            let mut raw = upgrade(address, "").await;
            raw.json(&request).await;
            let (code, reason) = raw.closed().await;
            assert_eq!(code, 1009);
            assert_eq!(reason, "before authentication a message has at most 4096 bytes");
        }
        assert_eq!(server.registry().health().rejected_by["unauthorized"], 2);

        let long = "x".repeat(60 << 10);
        let tokens = BearerTokens::default().token(long.clone(), Identity::new("alice"));
        let config = Config::default().authenticator(tokens).in_band_authentication();
        let (_server, address) =
            recorder.start_server(config.max_unauthenticated_message_size(64 << 10)).await;
        let mut raw = upgrade(address, "").await;
        raw.ask(&authenticate("auth", long)).await;
        raw.initialize().await;
        // And then as large as ever.
        let text = "x".repeat(100 << 10);
        let answer = raw.ask(&crate::common::call("1", "echo", json!({ "text": text }))).await;
        assert_eq!(crate::common::text_of(&answer).len(), text.len());
    })
    .await;
}

/// A variable that is not set gives an empty token, to the server or to an authenticator that
/// compares by itself.
#[tokio::test]
async fn an_empty_token_lets_nobody_in() {
    limit(async {
        let list = BearerTokens::default().token("", Identity::new("root"));
        let listed = Config::default().authenticator(list);
        let collected = Config::default().authenticator(BearerTokens::from_iter([""]));
        let compared = Config::default().authenticator(|credentials: Credentials| async move {
            let token = credentials.token.filter(|token| token.is(""));
            token.map(|_| Identity::new("root")).ok_or(AuthError::Unauthorized)
        });
        for config in [listed, collected, compared] {
            let recorder = Recorder::default();
            let (_server, address) = recorder.start_server(config.in_band_authentication()).await;
            let mut raw = upgrade(address, "").await;
            raw.json(&authenticate("auth", "")).await;
            raw.json(&initialize("init")).await;
            let answer = raw.receive().await;
            assert!(is_refused(&answer, "auth"), "{answer}");
            assert_eq!(raw.closed().await.0, 4401);
            assert_eq!(recorder.seen().len(), 0);
        }
    })
    .await;
}

/// A request with a token that is wrong is refused as ever; so is one for a page that may not
/// connect.
#[tokio::test]
async fn it_is_for_those_without_a_token() {
    limit(async {
        let (_server, address) = Recorder::default().start_server(config()).await;
        for (lines, status) in [
            ("Authorization: Bearer wrong\r\n", 401),
            ("Sec-WebSocket-Protocol: mcp.auth.wrong\r\n", 401),
            ("Origin: http://evil.example\r\n", 403),
        ] {
            assert_eq!(try_upgrade(address, lines).await.0.status(), status, "{lines}");
        }
        let mut raw = upgrade(address, "Authorization: Bearer s3cr3t\r\n").await;
        raw.initialize().await;
    })
    .await;
}

#[tokio::test]
async fn who_does_not_try_is_closed_at_the_deadline() {
    limit(async {
        let recorder = Recorder::default();
        let time = Duration::from_millis(500);
        let (server, address) = recorder.start_server(config().handshake_timeout(time)).await;
        let start = Instant::now();
        let mut silent = upgrade(address, "").await;
        let mut busy = upgrade(address, "").await;
        let asking = async {
            // Neither requests nor pings put it off.
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                busy.send(Frame::new(PING, "")).await;
                busy.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
            }
        };
        tokio::select! {
            () = asking => {}
            (code, _) = silent.closed() => assert_eq!(code, 1008),
        }
        let (code, reason) = busy.closed().await;
        assert_eq!((code, reason.contains("authenticated")), (1008, true), "{reason}");
        assert!((400..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert_eq!(recorder.seen().len(), 0);
        assert_eq!(server.registry().health().rejected_by["timed_out"], 2);
    })
    .await;
}

/// A slow authenticator is not the client's fault. It has a time of its own, after which the client
/// is told to come again.
#[tokio::test]
async fn the_deadline_is_for_the_client_alone() {
    limit(async {
        let time = Duration::from_millis(600);
        let config = Config::default().in_band_authentication().handshake_timeout(time);
        let config = config.authenticator(|credentials: Credentials| async move {
            let token = credentials.token.ok_or(AuthError::Unauthorized)?;
            match token.as_str() {
                "never" => std::future::pending().await,
                _ => tokio::time::sleep(Duration::from_millis(400)).await,
            }
            Ok(Identity::new("alice"))
        });
        let (server, address) = Recorder::default().start_server(config).await;
        for token in ["slow", "never"] {
            let mut raw = upgrade(address, "").await;
            tokio::time::sleep(Duration::from_millis(400)).await;
            let start = Instant::now();
            let answer = raw.ask(&authenticate("auth", token)).await;
            if token == "slow" {
                assert_eq!(answer["result"]["authenticated"], true, "{answer}");
                raw.initialize().await;
                raw.ping().await;
            } else {
                assert!(is_refused(&answer, "auth"), "{answer}");
                let (code, reason) = raw.closed().await;
                assert_eq!((code, reason.contains("not available")), (1013, true), "{reason}");
                assert!(
                    (500..5000).contains(&start.elapsed().as_millis()),
                    "{:?}",
                    start.elapsed()
                );
            }
        }
        let refused = server.registry().health().rejected_by;
        assert_eq!(refused.into_iter().collect::<Vec<_>>(), [("unavailable", 1)]);
    })
    .await;
}

/// A flood of requests, of which none is executed and none keeps the others from authenticating.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_before_it_harms_nobody() {
    limit(async {
        let recorder = Recorder::default();
        let time = Duration::from_secs(2);
        let (_server, address) = recorder.start_server(config().handshake_timeout(time)).await;
        let mut flood = upgrade(address, "").await;
        let chunk = Frame::text(crate::common::call(1, "wait", json!({})).to_string()).bytes(true);
        let flooding = tokio::spawn(async move {
            let chunk = chunk.repeat(100);
            while flood.try_write(&chunk).await.is_ok() {}
        });
        for _ in 0..10 {
            let start = Instant::now();
            let mut good = upgrade(address, "").await;
            good.ask(&authenticate("auth", "s3cr3t")).await;
            good.initialize().await;
            assert!(start.elapsed() < time, "{:?}", start.elapsed());
        }
        // It reads nothing, and is cut for all that.
        within(Duration::from_secs(10), flooding).await.unwrap();
        assert!(recorder.seen().iter().all(|seen| seen.method != "tools/call"));
    })
    .await;
}

#[tokio::test]
async fn unauthenticated_clients_take_up_no_place_but_their_own() {
    limit(async {
        let recorder = Recorder::default();
        let limits = Limits::default().connections(1).handshakes(3);
        let (server, address) = recorder.start_server(config().limits(limits)).await;
        let mut unknown = Vec::new();
        for _ in 0..3 {
            unknown.push(upgrade(address, "").await);
        }
        let known = "Authorization: Bearer s3cr3t\r\n";
        let mut alice = upgrade(address, known).await;
        alice.initialize().await;

        // The place is taken, for whoever comes and for who has come before.
        let (head, _) = try_upgrade(address, known).await;
        assert_eq!((head.status(), head.get("retry-after")), (503, Some("5")));
        let mut client = unknown.pop().unwrap();
        client.ask(&authenticate("auth", "s3cr3t")).await;
        assert_eq!(client.closed().await.0, 1013);

        // And free again when it is given back.
        drop(alice);
        while !server.registry().list().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut client = unknown.pop().unwrap();
        client.ask(&authenticate("auth", "s3cr3t")).await;
        client.initialize().await;
    })
    .await;
}

#[tokio::test]
async fn one_unauthenticated_client_too_many_and_the_oldest_leaves() {
    limit(async {
        let limits = Limits::default().handshakes(2);
        let (server, address) = Recorder::default().start_server(config().limits(limits)).await;
        let mut first = upgrade(address, "").await;
        let mut others = Vec::new();
        for _ in 0..2 {
            let mut other = upgrade(address, "").await;
            let refused =
                other.ask(&json!({ "jsonrpc": "2.0", "id": "1", "method": "ping" })).await;
            assert!(is_refused(&refused, "1"));
            others.push(other);
        }
        assert_eq!(first.closed().await.0, 1013);
        assert_eq!(server.registry().health().rejected_by["evicted"], 1);
        let mut last = others.pop().unwrap();
        last.ask(&authenticate("auth", "s3cr3t")).await;
        last.initialize().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_tells_unauthenticated_clients_too() {
    limit(async {
        let stop = CancellationToken::new();
        let recorder = Recorder::default();
        let (server, address) =
            recorder.start_server(config().cancellation_token(stop.clone())).await;
        let mut raw = upgrade(address, "").await;
        raw.ask(&json!({ "jsonrpc": "2.0", "id": "1", "method": "ping" })).await;
        stop.cancel();
        assert_eq!(raw.closed().await.0, 1012);
        within(Duration::from_secs(5), server.shutdown()).await;
    })
    .await;
}

#[tokio::test]
async fn accept_does_it_too() {
    limit(async {
        for (token, is_right) in [("s3cr3t", true), ("wrong", false)] {
            let (near, far) = crate::common::pair().await;
            let accepting =
                tokio::spawn(accept::<RoleServer, _>(far).config(config()).into_future());
            let mut raw = Raw::over(near, true);
            let address = raw.stream.peer_addr().unwrap();
            raw.write(upgrade_request(address, "")).await;
            assert_eq!(raw.head().await.unwrap().status(), 101);
            let answer = raw.ask(&authenticate("auth", token)).await;
            assert_eq!(answer["result"]["authenticated"] == true, is_right, "{answer}");
            if is_right {
                let mut transport = accepting.await.unwrap().unwrap();
                let identity: Option<&Identity> = transport.extensions().get();
                assert_eq!(identity.unwrap().subject(), "alice");
            } else {
                assert_eq!(raw.closed().await.0, 4401);
                drop(raw);
                let error = accepting.await.unwrap().unwrap_err();
                assert!(matches!(error, Error::Link(LinkError::Closed(_))), "{error:?}");
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_answer_is_told_so() {
    limit(async {
        let (near, far) = tokio::io::duplex(512);
        let config = config().handshake_timeout(Duration::from_secs(2));
        let accepting = tokio::spawn(accept::<RoleServer, _>(far).config(config).into_future());
        let mut raw = Raw::over(near, true);
        raw.write(upgrade_request("127.0.0.1:1".parse().unwrap(), "")).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);
        raw.json(&authenticate(&"i".repeat(2000), "s3cr3t")).await;
        let error = accepting.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("the answer to authenticate was not taken within 2s"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn accept_tells_the_subprotocol_and_answers_a_second_attempt() {
    limit(async {
        let (near, far) = crate::common::pair().await;
        let accepting = tokio::spawn(accept::<RoleServer, _>(far).config(config()).into_future());
        let mut raw = Raw::over(near, true);
        let address = raw.stream.peer_addr().unwrap();
        raw.write(upgrade_request(address, "Sec-WebSocket-Protocol: mcp\r\n")).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);
        let answer = raw.ask(&authenticate("auth", "s3cr3t")).await;
        assert_eq!(answer["result"]["authenticated"], true, "{answer}");
        let transport = accepting.await.unwrap().unwrap();
        assert_eq!(transport.subprotocol(), Some("mcp"));
        let serving = tokio::spawn(async { Tools::default().serve(transport).await.unwrap() });
        raw.initialize().await;
        let _running = serving.await.unwrap();
        let again = raw.ask(&authenticate("again", "s3cr3t")).await;
        assert_eq!(again["error"]["code"], -32600, "{again}");
        assert_eq!(again["error"]["message"], "already authenticated");
    })
    .await;
}

/// Whether they have sent a request or not, all unauthenticated clients share the slots.
#[tokio::test]
async fn unauthenticated_clients_of_all_kinds_share_the_slots() {
    limit(async {
        let limits = Limits::default().handshakes(5);
        let (server, address) = Recorder::default().start_server(config().limits(limits)).await;
        let mut unknown = Vec::new();
        for _ in 0..5 {
            unknown.push(upgrade(address, "").await);
        }
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        for client in &mut unknown {
            assert_eq!(
                client.closed().await,
                (1013, "too many unauthenticated clients".to_owned())
            );
        }
        assert_eq!(server.registry().health().rejected_by["evicted"], 5);
    })
    .await;
}
