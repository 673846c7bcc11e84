//! Stop of a server: calls in flight are finished, everyone is told, and nothing is left.
//!
//! With `MCP_WS_FULL` set, with as many clients and as long calls as a large server has.

use std::time::Instant;

use futures::{StreamExt, future::join_all};
use mcp_ws_transport::{
    CloseCode, CloseReason,
    server::{Config, Drain, Registry, RegistryEvent},
};
use serde_json::json;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{assert_closed, deadline};
use crate::common::{
    Tools, assert_tasks_left, call,
    handshake::try_upgrade,
    limit, ms,
    raw::{Frame, Raw},
    scale, serve_tools, text_of, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_answered_and_everyone_told() {
    let (clients, time) = (scale(50, 200), scale(500, 2000) as u64);
    limit(async {
        let tools = Tools::default();
        // Half a second for all of them.
        let pace = Drain::default().closes_per_second(2 * clients as u32);
        let (server, address) = serve_tools(&tools, Config::default().drain(pace)).await;
        let registry = server.registry().clone();
        let mut raws = Vec::new();
        for _ in 0..clients {
            raws.push(Raw::initialized(address).await);
        }
        for raw in &mut raws {
            for id in 0..4 {
                raw.json(&call(id, "sleep", json!({ "ms": time }))).await;
            }
        }
        tools.begun(4 * clients).await;
        let start = Instant::now();
        let clients = join_all(raws.iter_mut().map(async |raw| {
            for _ in 0..4 {
                assert_eq!(text_of(&raw.receive().await), "slept");
            }
            let (code, _) = raw.closed().await;
            let at = start.elapsed();
            raw.send(Frame::close(code)).await;
            raw.end().await;
            (code, at)
        }));
        let late = async {
            sleep(ms(100)).await;
            try_upgrade(address, "").await.0
        };
        let ((), late, ends) = tokio::join!(server.shutdown(), late, clients);
        assert_eq!((late.status(), late.get("retry-after")), (503, Some("5")), "{late:?}");
        assert!(start.elapsed() < ms(time + 2000), "{:?}", start.elapsed());
        assert!(ends.iter().all(|(code, _)| *code == 1012), "{ends:?}");
        println!(
            "figure: {} clients, {} calls answered, done after {:.1?}",
            ends.len(),
            4 * ends.len(),
            start.elapsed()
        );
        TcpStream::connect(address).await.unwrap_err();
        assert!(registry.list().is_empty());
        assert_tasks_left(0).await;
    })
    .await;
}

/// The closes of idle connections are spread over the time that `closes_per_second` gives.
#[tokio::test]
async fn closes_are_spread() {
    limit(async {
        let pace = Drain::default().closes_per_second(50);
        let (server, address) = serve_tools(&Tools::default(), Config::default().drain(pace)).await;
        let mut raws = Vec::new();
        for _ in 0..40 {
            raws.push(Raw::initialized(address).await);
        }
        let start = Instant::now();
        let clients = join_all(raws.iter_mut().map(async |raw| {
            assert_closed(raw, 1012).await;
            start.elapsed()
        }));
        let ((), mut ends) = tokio::join!(server.shutdown(), clients);
        ends.sort();
        let most = (0..ends.len())
            .map(|first| ends[first..].iter().take_while(|at| **at < ends[first] + ms(100)).count())
            .max();
        assert!(most <= Some(9), "{ends:?}");
        assert!(ends[39] > ms(700) && ends[39] < ms(1200), "{ends:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlasts_the_deadline_is_answered_with_an_error() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, deadline(ms(1000))).await;
        let mut raw = Raw::initialized(address).await;
        raw.json(&call(7, "uncancellable", json!({}))).await;
        tools.begun(1).await;
        let start = Instant::now();
        let client = async {
            // Once its turn has come, nothing more is begun.
            let refused = loop {
                let answer = raw.ask(&call(8, "echo", json!({}))).await;
                if answer["error"].is_object() {
                    break answer;
                }
                sleep(ms(5)).await;
            };
            assert_eq!(refused["error"]["data"]["reason"], "stopping", "{refused}");
            let answer = raw.receive().await;
            assert_eq!(answer["id"], 7, "{answer}");
            assert_eq!(answer["error"]["code"], -32000, "{answer}");
            assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{answer}");
            assert_closed(&mut raw, 1012).await;
        };
        tokio::join!(server.shutdown(), client);
        let took = start.elapsed();
        assert!(took >= ms(1000) && took < ms(5000), "{took:?}");
        assert_eq!(*tools.started.borrow(), 1);
        assert_tasks_left(0).await;
    })
    .await;
}

/// Clients that read nothing, that do not answer the Close, or that leave, in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_holds_up_a_drain() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, deadline(ms(1000))).await;
        let mute = Raw::initialized(address).await;
        let mut stuffed = Raw::initialized(address).await;
        for id in 0..20 {
            stuffed.json(&call(id, "big", json!({ "size": 1 << 20 }))).await;
        }
        let mut busy = Raw::initialized(address).await;
        busy.json(&call(1, "uncancellable", json!({}))).await;
        let mut quits = Raw::initialized(address).await;
        quits.json(&call(1, "uncancellable", json!({}))).await;
        let mut resets = Raw::initialized(address).await;
        resets.json(&call(1, "uncancellable", json!({}))).await;
        tools.begun(3).await;
        let start = Instant::now();
        let clients = async {
            sleep(ms(50)).await;
            resets.reset();
            close_first(&mut quits).await;
        };
        tokio::join!(server.shutdown(), clients);
        let took = start.elapsed();
        assert!(took < ms(2600), "{took:?}");
        assert_tasks_left(0).await;
        drop((mute, stuffed, busy));
    })
    .await;
}

/// Closes from the client's side.
async fn close_first(raw: &mut Raw) {
    raw.send(Frame::close(1000)).await;
    assert_eq!(raw.closed().await.0, 1000);
}

#[tokio::test]
async fn a_connection_can_be_disconnected_during_a_drain() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, Config::default()).await;
        let registry = server.registry().clone();
        let mut events = registry.events();
        let mut raw = Raw::initialized(address).await;
        raw.json(&call(1, "wait", json!({}))).await;
        tools.begun(1).await;
        let client = async {
            sleep(ms(50)).await;
            let connection = registry.list().remove(0);
            assert!(connection.disconnect(CloseReason::new(CloseCode::Policy, "enough")));
            assert_eq!(raw.closed().await, (1008, "enough".to_owned()));
            raw.send(Frame::close(1008)).await;
        };
        within(ms(5000), async { tokio::join!(server.shutdown(), client) }).await;
        assert!(matches!(events.next().await, Some(RegistryEvent::Connected(_))));
        let Some(RegistryEvent::Disconnected { reason, .. }) = events.next().await else {
            panic!()
        };
        assert_eq!(u16::from(reason.code), 1008);
        assert_tasks_left(0).await;
    })
    .await;
}

#[tokio::test]
async fn dropping_the_server_drains_too() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        raw.json(&call(1, "sleep", json!({ "ms": 200 }))).await;
        tools.begun(1).await;
        drop(server);
        assert_eq!(try_upgrade(address, "").await.0.status(), 503);
        assert_eq!(text_of(&raw.receive().await), "slept");
        assert_closed(&mut raw, 1012).await;
        assert_tasks_left(0).await;
        TcpStream::connect(address).await.unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn a_signal_drains() {
    limit(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tools, signal) = (Tools::default(), CancellationToken::new());
        let service = tools.clone();
        let serve = mcp_ws_transport::server::serve_on(listener, move || service.clone());
        let client = async {
            let mut raw = Raw::initialized(address).await;
            raw.json(&call(1, "sleep", json!({ "ms": 200 }))).await;
            tools.begun(1).await;
            signal.cancel();
            assert_eq!(text_of(&raw.receive().await), "slept");
            assert_closed(&mut raw, 1012).await;
        };
        let (served, ()) = tokio::join!(serve.serve_with_shutdown(signal.cancelled()), client);
        served.unwrap();
        assert_tasks_left(0).await;
    })
    .await;
}

/// One configuration for two servers: each stops for itself, and the token stops both.
#[tokio::test]
async fn of_two_servers_with_one_configuration_one_can_stop() {
    limit(async {
        let (registry, token) = (Registry::default(), CancellationToken::new());
        let config = Config::default().registry(registry.clone()).cancellation_token(token.clone());
        let (one, first) = serve_tools(&Tools::default(), config.clone()).await;
        let (_two, second) = serve_tools(&Tools::default(), config).await;
        let (mut near, mut far) = (Raw::initialized(first).await, Raw::initialized(second).await);
        assert_eq!(registry.list().len(), 2);
        tokio::join!(one.shutdown(), assert_closed(&mut near, 1012));
        far.ping().await;
        assert_eq!(registry.health().active, 1);
        token.cancel();
        assert_closed(&mut far, 1012).await;
    })
    .await;
}

#[tokio::test]
async fn a_mounted_service_is_closed_when_its_last_connection_is() {
    limit(async {
        let (tools, token) = (Tools::default(), CancellationToken::new());
        let service = tools.clone();
        let config = Config::default().cancellation_token(token.clone());
        let mcp =
            mcp_ws_transport::server::WebSocketService::new(move || Ok(service.clone()), config)
                .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().route_service("/mcp", mcp.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut raw = Raw::initialized(address).await;
        raw.json(&call(1, "sleep", json!({ "ms": 300 }))).await;
        tools.begun(1).await;
        assert!(timeout(ms(20), mcp.closed()).await.is_err());
        token.cancel();
        assert!(timeout(ms(20), mcp.closed()).await.is_err());
        assert_eq!(try_upgrade(address, "").await.0.status(), 503);
        let client = async {
            assert_eq!(text_of(&raw.receive().await), "slept");
            assert_closed(&mut raw, 1012).await;
        };
        within(ms(1000), async { tokio::join!(mcp.closed(), client) }).await;
    })
    .await;
}
