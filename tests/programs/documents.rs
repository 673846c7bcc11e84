//! The messages of each source system, played to the programs that serve them.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    common::{
        limit,
        raw::{BINARY, Frame, Head, KEY, Raw},
    },
    process::{Process, example, math},
};

/// A program that listens, and where.
struct Program {
    process: Process,
    address: SocketAddr,
}

impl Program {
    async fn math(options: &[&str]) -> Self {
        let arguments = [&["serve", "--listen", "127.0.0.1:0"], options].concat();
        Self::of(Process::server(math().await, &arguments).await)
    }

    async fn broadcast(options: &[&str]) -> Self {
        let arguments = [&["--listen", "127.0.0.1:0"], options].concat();
        Self::of(Process::server(example("broadcast").await, &arguments).await)
    }

    fn of((process, url): (Process, String)) -> Self {
        let address = url.split('/').nth(2).unwrap().parse().unwrap();
        Self { process, address }
    }

    async fn send(&self, request: String) -> (Head, Raw) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw::over(stream, true);
        raw.write(request).await;
        (limit(raw.head()).await.unwrap(), raw)
    }

    /// The status and body of the answer to a `POST` of `body`.
    async fn post(&self, path: &str, more: &str, body: &str) -> (u16, Value) {
        self.post_as("application/json", path, more, body).await
    }

    async fn post_as(&self, kind: &str, path: &str, more: &str, body: &str) -> (u16, Value) {
        let (address, length) = (self.address, body.len());
        let (head, mut raw) = self
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\n\
                 Content-Length: {length}\r\n{more}\r\n{body}"
            ))
            .await;
        let length = head.get("content-length").unwrap().parse().unwrap();
        let body = limit(raw.body(length)).await;
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        (head.status(), body)
    }

    async fn get(&self, path: &str) -> Head {
        let address = self.address;
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await.0
    }

    async fn try_upgrade(&self, path: &str, more: &str) -> (Head, Raw) {
        let address = self.address;
        self.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
             {more}\r\n"
        ))
        .await
    }

    async fn upgrade(&self, path: &str) -> Raw {
        let (head, raw) = self.try_upgrade(path, "").await;
        assert_eq!(head.status(), 101, "{head:?}");
        raw
    }

    async fn agent(&self) -> String {
        let (status, agent) = self.post("/agent", "", r#"{"name":"MathAgent"}"#).await;
        assert_eq!(status, 200, "{agent}");
        agent["agentId"].as_str().unwrap().to_owned()
    }
}

/// Returns the answer to the text `message`.
async fn ask(raw: &mut Raw, message: &str) -> Value {
    raw.text(message).await;
    limit(raw.receive()).await
}

/// Takes out the time of a message, which is that of an envelope.
fn timeless(mut message: Value) -> Value {
    let timestamp = message.as_object_mut().unwrap().remove("timestamp").expect("a timestamp");
    let timestamp = timestamp.as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(timestamp).is_ok(), "{timestamp}");
    message
}

fn sum() -> Value {
    json!({"result": 8, "operation": "add", "a": 5, "b": 3})
}

#[tokio::test]
async fn the_math_demo_has_agents_over_http_and_envelopes() {
    let program = Program::math(&[]).await;
    let page = program.get("/").await;
    assert_eq!((page.status(), page.get("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(program.get("/mcp-ws.js").await.status(), 200);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, at) in [("js/src", "/src"), ("examples/math/page", "/page")] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".js") {
                let module = program.get(&format!("{at}/{name}")).await;
                let kind = module.get("content-type");
                assert_eq!((module.status(), kind), (200, Some("text/javascript; charset=utf-8")));
            }
        }
    }

    let agent = program.agent().await;
    let request = json!({"method": "add", "params": {"a": 5, "b": 3}});
    let body = json!({"agentId": agent, "request": request}).to_string();
    assert_eq!(program.post("/mcp", "", &body).await, (200, sum()));

    let mut socket = program.upgrade(&format!("/agent/{agent}/websocket")).await;
    let add = r#"{"type":"mcp_request","request":{"method":"add","params":{"a":5,"b":3}}}"#;
    let answer = json!({"type": "mcp_response", "result": sum()});
    assert_eq!(timeless(ask(&mut socket, add).await), answer);
    let add = r#"{"type":"mcp_request","request":{"method":"add","params":{"a":5,"b":3}},"requestId":"3f2504e0-4f89-41d3-9a0c-0305e82c3301"}"#;
    let answer = json!({
        "type": "mcp_response", "result": sum(),
        "requestId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    });
    assert_eq!(timeless(ask(&mut socket, add).await), answer);
    let add = r#"{"type":"mcp_request","request":{"method":"add","params":{"a":5,"b":3}},"timestamp":"2023-05-01T12:34:56.789Z"}"#;
    assert_eq!(timeless(ask(&mut socket, add).await)["result"], sum());
    let general = r#"{"type":"ping","payload":{},"timestamp":"2023-05-01T12:34:56.789Z"}"#;
    assert_eq!(timeless(ask(&mut socket, general).await), json!({"type": "pong"}));

    // The agent remembers, whoever asks.
    drop(socket);
    let mut other = program.upgrade(&format!("/agent/{agent}/websocket")).await;
    let history = r#"{"type":"mcp_request","request":{"method":"history"}}"#;
    let history = ask(&mut other, history).await;
    assert_eq!(history["result"]["history"].as_array().unwrap().len(), 4, "{history}");
}

#[tokio::test]
async fn what_an_agent_cannot_be_asked_is_an_error_and_its_connection_lives() {
    let program = Program::math(&[]).await;
    let agent = program.agent().await;
    let path = format!("/agent/{agent}/websocket");
    let (mut socket, mut other) = (program.upgrade(&path).await, program.upgrade(&path).await);
    for (message, code, id) in [
        ("not JSON", -32700, None),
        (r#"{"request":{"method":"add"}}"#, -32600, None),
        (r#"{"type":"mcp_request"}"#, -32600, None),
        (r#"{"type":"hello","requestId":"x"}"#, -32600, Some("x")),
        (r#"{"type":"mcp_request","request":{"method":"add"},"requestId":"x"}"#, -32602, Some("x")),
        (
            r#"{"type":"mcp_request","request":{"method":"nope"},"requestId":"x"}"#,
            -32602,
            Some("x"),
        ),
        (
            r#"{"type":"mcp_request","request":{"method":"divide","params":{"a":1,"b":0}},"requestId":"x"}"#,
            -32000,
            Some("x"),
        ),
    ] {
        let mut answer = timeless(ask(&mut socket, message).await);
        let error = answer["error"].take();
        assert_eq!(error["code"], code, "{message}");
        assert!(error["message"].is_string());
        let mut expected = json!({"type": "error", "error": null});
        if let Some(id) = id {
            expected["requestId"] = id.into();
        }
        assert_eq!(answer, expected, "{message}");
    }
    let add = r#"{"type":"mcp_request","request":{"method":"add","params":{"a":5,"b":3}}}"#;
    socket.send(Frame::new(BINARY, add)).await;
    assert_eq!(limit(socket.receive()).await["result"], sum());
    assert_eq!(ask(&mut other, add).await["result"], sum());
    socket.text(" ".repeat(5 << 20)).await;
    assert_eq!(limit(socket.closed()).await.0, 1009);
    assert_eq!(ask(&mut other, add).await["result"], sum());

    assert_eq!(program.try_upgrade("/agent/nobody/websocket", "").await.0.status(), 404);
    for (body, status) in [
        (json!({"agentId": "nobody", "request": {"method": "add"}}), 404),
        (
            json!({"agentId": agent, "request": {"method": "divide", "params": {"a": 1, "b": 0}}}),
            400,
        ),
        (json!({"agentId": agent, "request": {"method": "acme/x"}}), 400),
        (json!({"agentId": agent}), 400),
    ] {
        let (got, answer) = program.post("/mcp", "", &body.to_string()).await;
        assert_eq!(got, status, "{body}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    let evil = "Origin: https://evil.example\r\n";
    assert_eq!(program.post("/agent", evil, "{}").await.0, 403);
}

#[tokio::test]
async fn the_standalone_server_has_its_duties() {
    let program = Program::math(&["--token", "s3cr3t", "--max-connections", "1"]).await;
    assert_eq!(program.get("/ws").await.status(), 426);
    let mut socket = program.upgrade("/ws").await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":5,"b":3}}}"#;
    let answer = ask(&mut socket, call).await;
    let error = json!({"code": -32001, "message": "Authentication required"});
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "error": error}));
    let authenticate =
        r#"{"jsonrpc":"2.0","id":2,"method":"authenticate","params":{"token":"s3cr3t"}}"#;
    assert_eq!(ask(&mut socket, authenticate).await["result"], json!({"authenticated": true}));
    socket.initialize().await;
    assert_eq!(ask(&mut socket, call).await["result"]["structuredContent"], sum());
    socket.send(Frame::new(BINARY, call)).await;
    assert_eq!(limit(socket.receive()).await["id"], 1);
    for (message, code, id) in [
        (r#"{"jsonrpc":"1.0","id":3,"method":"ping"}"#, -32600, json!(3)),
        ("not JSON", -32700, Value::Null),
    ] {
        let answer = ask(&mut socket, message).await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id));
    }

    let mut late = program.upgrade("/ws").await;
    assert_eq!(limit(late.closed()).await, (1013, "Server at capacity".to_owned()));
    program.process.terminate().await;
    assert_eq!(limit(socket.closed()).await, (1000, "Server shutting down".to_owned()));
}

#[tokio::test]
async fn the_guides_tools_are_called_after_a_first_message() {
    let program = Program::math(&["--token", "s3cr3t"]).await;
    let mut socket = program.upgrade("/mcp-ws").await;
    let call = r#"{"id":"req_1682944496789_k3j2h1g0f","name":"add","parameters":{"a":5,"b":3}}"#;
    let early = ask(&mut socket, call).await;
    let id = "req_1682944496789_k3j2h1g0f";
    assert_eq!(early, json!({"id": id, "error": {"message": "Authentication required"}}));
    let authenticated = ask(&mut socket, r#"{"id":"auth","token":"s3cr3t"}"#).await;
    assert_eq!(authenticated, json!({"id": "auth", "success": true}));
    assert_eq!(ask(&mut socket, call).await, json!({"id": id, "results": sum()}));
    let pong = ask(&mut socket, r#"{"messageType":"ping","timestamp":1682944496789}"#).await;
    assert_eq!(pong["messageType"], "pong");
    assert!(pong["timestamp"].is_i64());
    for (message, error) in [
        (r#"{"id":"x","name":"web_search","parameters":{}}"#, "tool not found"),
        (r#"{"id":"x","name":"divide","parameters":{"a":1,"b":0}}"#, "division by zero"),
        (r#"{"id":"x"}"#, "`name` is missing or no string"),
    ] {
        let answer = ask(&mut socket, message).await;
        assert_eq!(answer, json!({"id": "x", "error": {"message": error}}));
    }
    assert_eq!(ask(&mut socket, "not JSON").await["id"], Value::Null);
    let again = ask(&mut socket, r#"{"id":"auth","token":"s3cr3t"}"#).await;
    assert_eq!((&again["success"], &again["id"]), (&json!(false), &json!("auth")));
    assert_eq!(ask(&mut socket, call).await["results"], sum());

    let mut anonymous = program.upgrade("/mcp-ws").await;
    assert_eq!(ask(&mut anonymous, r#"{"id":"auth","token":"anonymous"}"#).await["success"], true);
    assert_eq!(ask(&mut anonymous, call).await["results"], sum());
    let power = r#"{"id":"x","name":"power","parameters":{"a":5,"b":3}}"#;
    let refused = json!({"id": "x", "error": {"message": "not for anonymous clients"}});
    assert_eq!(ask(&mut anonymous, power).await, refused);

    let mut wrong = program.upgrade("/mcp-ws").await;
    let refused = ask(&mut wrong, r#"{"id":"auth","token":"wrong"}"#).await;
    let error = json!({"message": "Authentication failed"});
    assert_eq!(refused, json!({"id": "auth", "success": false, "error": error}));
    assert_eq!(limit(wrong.closed()).await.0, 1008);
}

#[tokio::test]
async fn what_one_client_says_all_hear() {
    let program = Program::broadcast(&["--rate", "10"]).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(program.upgrade("/ws").await);
    }
    let hello = r#"{"type":"chat","payload":{"text":"hello"},"timestamp":1682944496789}"#;
    all[0].text(hello).await;
    let mut expected: Value = serde_json::from_str(hello).unwrap();
    expected["sender"] = "client-1".into();
    for client in &mut all {
        assert_eq!(limit(client.receive()).await, expected);
    }
    let (status, reached) = program.post("/broadcast", "", hello).await;
    assert_eq!((status, reached), (202, json!({"reached": 3})));
    for client in &mut all {
        assert_eq!(limit(client.receive()).await, serde_json::from_str::<Value>(hello).unwrap());
    }

    // What is no message is for its sender to know.
    for wrong in [
        "rubbish",
        "[]",
        r#"["chat",1,1]"#,
        r#"{"type":"error","payload":1,"timestamp":1}"#,
        r#"{"type":"chat"}"#,
        r#"{"type":7,"payload":1,"timestamp":1}"#,
        r#"{"type":"chat","payload":1,"timestamp":"now"}"#,
        r#"{"type":"","payload":1,"timestamp":1}"#,
    ] {
        let error = ask(&mut all[0], wrong).await;
        assert_eq!(error["type"], "error", "{wrong}");
        assert!(error["payload"]["message"].is_string() && error["timestamp"].is_i64());
    }
    assert_eq!(program.post("/broadcast", "", "{}").await.0, 400);

    let you = ask(&mut all[1], r#"{"type":"whoami","payload":null,"timestamp":0}"#).await;
    assert_eq!((&you["type"], &you["payload"]), (&json!("you"), &json!("client-2")));
    all[1].text(r#"{"type":"subscribe","payload":["news"],"timestamp":0}"#).await;
    // Its own answer shows that this has arrived.
    ask(&mut all[1], r#"{"type":"whoami","payload":null,"timestamp":0}"#).await;
    all[0].text(hello).await;
    let news = r#"{"type":"news","payload":1,"timestamp":1,"target":"client-2"}"#;
    limit(all[0].receive()).await;
    all[0].text(news).await;
    let told = limit(all[1].receive()).await;
    assert_eq!(told, json!({"type": "news", "payload": 1, "timestamp": 1, "sender": "client-1"}));
    for nobody in ["client-9", "client-+2", "2", ""] {
        let nobody = json!({"type": "news", "payload": 1, "timestamp": 1, "target": nobody});
        assert_eq!(ask(&mut all[0], &nobody.to_string()).await["type"], "error", "{nobody}");
    }

    // Who has left is not missed, and who says too much is not received.
    drop(all.remove(1));
    for _ in 0..30 {
        all[1].text(hello).await;
    }
    let mut received = Vec::new();
    for _ in 0..30 {
        received.push(limit(all[1].receive()).await["type"].clone());
    }
    let errors = received.iter().filter(|kind| **kind == "error").count();
    assert!((1..=20).contains(&errors), "{received:?}");
}

#[tokio::test]
async fn a_room_may_require_a_token() {
    let program = Program::broadcast(&["--token", "s3cr3t"]).await;
    assert_eq!(program.try_upgrade("/ws", "").await.0.status(), 401);
    let offer = "Sec-WebSocket-Protocol: mcp.auth.s3cr3t\r\n";
    assert_eq!(program.try_upgrade("/ws", offer).await.0.status(), 101);
    let said = r#"{"type":"chat","payload":1,"timestamp":1}"#;
    assert_eq!(program.post("/broadcast", "", said).await.0, 401);
    let bearer = "Authorization: Bearer s3cr3t\r\n";
    assert_eq!(program.post("/broadcast", bearer, said).await.0, 202);
}

/// Content types, and whether they are JSON.
const TYPES: [(&str, bool); 7] = [
    ("application/json", true),
    ("Application/JSON", true),
    ("application/json; charset=utf-8", true),
    ("APPLICATION/JSON ;charset=utf-8", true),
    ("application/jsonp", false),
    ("application/x-json", false),
    ("text/plain; application/json", false),
];

#[tokio::test]
async fn the_type_of_a_body_is_read_as_http_has_it() {
    let (math, room) = (Program::math(&[]).await, Program::broadcast(&[]).await);
    for (kind, is_json) in TYPES {
        let status = |yes: u16| if is_json { yes } else { 415 };
        let agent = math.post_as(kind, "/agent", "", "{}").await;
        assert_eq!(agent.0, status(200), "{kind}: {}", agent.1);
        let said = r#"{"type":"chat","payload":1,"timestamp":1}"#;
        let told = room.post_as(kind, "/broadcast", "", said).await;
        assert_eq!(told.0, status(202), "{kind}: {}", told.1);
    }
}

/// Whoever asks gets an agent, which remembers what is calculated for it: of this, too, no more
/// than little.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_agent_that_is_not_connected_takes_little() {
    let program = Program::math(&[]).await;
    let resident = || {
        let id = program.process.child.id().unwrap();
        let pages = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    };
    let sum = json!({"type": "mcp_request", "request": {
        "method": "sum", "params": {"numbers": vec![1; 475]},
    }})
    .to_string();
    let mut before = 0;
    for agent in 0..50 {
        // The first ones show what a connection takes once.
        if agent == 10 {
            before = resident();
        }
        let id = program.agent().await;
        let mut socket = program.upgrade(&format!("/agent/{id}/websocket")).await;
        for _ in 0..100 {
            let answer = ask(&mut socket, &sum).await;
            assert_eq!(answer["result"]["result"], 475);
        }
    }
    let growth = resident().saturating_sub(before) / 40;
    println!("{growth} KiB for each");
    assert!(growth <= 64, "{growth} KiB for each");
}

/// A client that makes many agents makes its own go, and nobody else's.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn agents_are_shared_out_by_address() {
    let program = Program::math(&[]).await;
    let make = async |from: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut raw = Raw::over(socket.connect(program.address).await.unwrap(), true);
        raw.write(format!(
            "POST /agent HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\n\r\n{{}}",
            program.address
        ))
        .await;
        let head = limit(raw.head()).await.unwrap();
        let body = limit(raw.body(head.get("content-length").unwrap().parse().unwrap())).await;
        let agent: Value = serde_json::from_str(&body).unwrap();
        agent["agentId"].as_str().unwrap().to_owned()
    };
    let status = async |agent: &str| {
        let (head, _raw) = program.try_upgrade(&format!("/agent/{agent}/websocket"), "").await;
        head.status()
    };
    let (other, first) = (make([127, 0, 0, 2]).await, make([127, 0, 0, 1]).await);
    let connected = make([127, 0, 0, 1]).await;
    let mut socket = program.upgrade(&format!("/agent/{connected}/websocket")).await;
    let history = r#"{"type":"mcp_request","request":{"method":"history"}}"#;
    ask(&mut socket, history).await;
    for _ in 0..1000 {
        make([127, 0, 0, 1]).await;
    }
    assert_eq!(status(&first).await, 404);
    assert_eq!(status(&connected).await, 101);
    assert_eq!(status(&other).await, 101);
}

#[tokio::test]
async fn the_time_of_what_is_said_is_the_servers_where_it_is_not_given() {
    let program = Program::broadcast(&[]).await;
    let mut client = program.upgrade("/ws").await;
    let said = r#"{"type":"chat","payload":1}"#;
    let before = chrono::Utc::now().timestamp_millis();
    assert_eq!(program.post("/broadcast", "", said).await.0, 202);
    client.text(said).await;
    for _ in 0..2 {
        let received = limit(client.receive()).await;
        let time = received["timestamp"].as_i64().unwrap();
        assert!((before..=chrono::Utc::now().timestamp_millis()).contains(&time), "{received}");
    }
}

#[tokio::test]
async fn a_room_keeps_little_of_what_is_asked_of_it() {
    let program = Program::broadcast(&[]).await;
    let mut client = program.upgrade("/ws").await;
    let subscribe = |types: Vec<String>| {
        json!({"type": "subscribe", "payload": types, "timestamp": 0}).to_string()
    };
    let types = |count: usize| (0..count).map(|number| format!("{number:0>64}")).collect();
    for too_much in [subscribe(types(65)), subscribe(vec!["x".repeat(65)])] {
        let error = ask(&mut client, &too_much).await;
        assert_eq!(error["type"], "error");
        assert!(error["payload"]["message"].as_str().unwrap().contains("64"), "{error}");
    }
    client.text(subscribe(types(64))).await;
    let whoami = r#"{"type":"whoami","payload":null,"timestamp":0}"#;
    assert_eq!(ask(&mut client, whoami).await["type"], "you");
    client.text(subscribe(vec![String::new(); 30_000])).await;
    assert_eq!(limit(client.closed()).await.0, 1009);
    let large = json!({"type": "chat", "payload": "x".repeat(70_000), "timestamp": 0}).to_string();
    assert_eq!(program.post("/broadcast", "", &large).await.0, 413);
}

#[tokio::test]
async fn a_room_that_is_stopped_tells_everybody() {
    for signal in ["-TERM", "-INT"] {
        let mut program = Program::broadcast(&[]).await;
        let mut client = program.upgrade("/ws").await;
        program.process.signal(signal).await;
        assert_eq!(limit(client.closed()).await.0, 1012);
        client.send(Frame::close(1012)).await;
        program.process.success().await;
    }
}
