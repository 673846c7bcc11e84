//! Warnings to operators.

use std::time::Duration;

use futures::StreamExt;
use mcp_ws_transport::{connect, event::Event, layer::correlation, transport};
use rmcp::{ServiceExt, model::InitializeResult};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::{
    LIMIT, Tools, host, listen,
    logs::Log,
    raw::{Frame, PING, PONG, Raw, accepted},
    scripted::{Link, client, immediate_reconnect, session},
    within,
};

fn lines(log: &Log, words: &str) -> Vec<String> {
    log.text().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
}

/// A balancer that cuts whatever is 30 s old has this effect.
#[tokio::test]
async fn connections_that_are_lost_at_the_same_age_are_told_once() {
    let (log, _capture) = Log::capture();
    within(100 * LIMIT, async {
        let (listener, url) = listen().await;
        let serving = async {
            let mut link = Link::new(&listener).await;
            link.open().await;
            let mut link = link.begins(session("s-1", "s", 0, false)).await;
            for told in [0, 0, 1, 1, 1] {
                // What there is to do is done before the clock is moved.
                link.raw.send(Frame::new(PING, "x")).await;
                while link.raw.next().await.unwrap().opcode != PONG {}
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(30)).await;
                tokio::time::resume();
                (link, _) = link.cut(&listener).await;
                link.raw.text(session("s-1", "s", link.received, true)).await;
                assert_eq!(lines(&log, "idle timeout on the way?").len(), told);
            }
            link
        };
        let dialling = client(url);
        let (client, link) = tokio::join!(dialling, serving);
        drop((client, link));
    })
    .await;
    let [line] = &lines(&log, "idle timeout on the way?")[..] else { panic!() };
    assert!(line.contains("WARN") && line.contains("age=30"), "{line}");
    assert!(line.contains("ping_interval"), "{line}");
}

/// The next connection, whose `initialize` is answered with `result`.
async fn initialized(listener: &TcpListener, result: &Value) -> Raw {
    let (stream, _) = listener.accept().await.unwrap();
    let mut raw = Raw::over(stream, false);
    let head = raw.head().await.unwrap();
    raw.write(accepted(&head, "Sec-WebSocket-Protocol: mcp\r\n")).await;
    let request = raw.receive().await;
    assert_eq!(request["method"], "initialize");
    raw.json(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
    assert_eq!(raw.receive().await["method"], "notifications/initialized");
    raw
}

/// The rest, which may be long and not for the log, is in the event.
#[tokio::test]
async fn of_a_server_that_came_back_as_another_the_name_and_the_versions_are_told() {
    let (log, _capture) = Log::capture();
    within(LIMIT, async {
        let (listener, url) = listen().await;
        let result = |version: &str| {
            json!({
                "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "calculator", "version": version, "title": "private" },
                "instructions": "private",
            })
        };
        let long = "7".repeat(10_000);
        let serving = async {
            drop(initialized(&listener, &result("1")).await);
            initialized(&listener, &result(&long)).await
        };
        let connect = immediate_reconnect(connect(url).resume(false));
        let mut events = connect.events();
        let dialling = async { ().serve(connect.await.unwrap()).await.unwrap() };
        let (client, raw) = tokio::join!(dialling, serving);
        let changed = loop {
            if let Event::Restarted { changed } = events.next().await.unwrap() {
                break changed;
            }
        };
        let expected: InitializeResult = serde_json::from_value(result(&long)).unwrap();
        assert_eq!(changed.as_deref(), Some(&expected));
        drop((client, raw));
    })
    .await;
    let [line] = &lines(&log, "came back as another")[..] else { panic!("{}", log.text()) };
    for told in ["WARN", "calculator", "777", "2025-11-25"] {
        assert!(line.contains(told), "{line}");
    }
    assert!(!line.contains("private") && line.len() < 1000, "{line}");
}

/// Many dropped notifications make one line in a while, without the content.
#[tokio::test]
async fn notifications_that_take_too_much_memory_are_told() {
    let (log, _capture) = Log::capture();
    within(LIMIT, async {
        let correlation = correlation::Config::default().max_inbound_memory(1 << 20);
        let layers = transport::Config::default().correlation(correlation);
        let (address, mut connections) = host(Tools::default(), layers).await;
        let mut raw = Raw::initialized(address).await;
        let params = json!({ "private": vec![json!({ "": 0 }); 2000] });
        for _ in 0..10 {
            let method = "acme/happened";
            raw.json(&json!({ "jsonrpc": "2.0", "method": method, "params": params })).await;
        }
        raw.ping().await;
        assert_eq!(connections.recv().await.unwrap().stats().refused, 10);
    })
    .await;
    let lines = lines(&log, "notification dropped");
    let warnings: Vec<_> = lines.iter().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 3, "{lines:?}");
    for line in lines {
        assert!(line.contains("max_inbound_memory") && !line.contains("private"), "{line}");
    }
}
