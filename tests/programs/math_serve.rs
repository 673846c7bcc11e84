//! The options of `math serve`, from outside.

use std::{fs, io::ErrorKind, net::SocketAddr, path::PathBuf, time::Duration};

use mcp_ws_transport::connect;
use rcgen::{CertificateParams, KeyPair};
use rmcp::ServiceExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::{
    common::{limit, raw::Raw},
    process::{Process, math},
};

async fn serve(options: &[&str]) -> (Process, String) {
    let arguments = [&["serve", "--listen", "127.0.0.1:0"], options].concat();
    Process::server(math().await, &arguments).await
}

/// Returns what `math call` prints, or its error.
async fn call(url: &str, options: &[&str]) -> Result<Value, String> {
    let arguments = [&["call", url, "add", "5", "3"], options].concat();
    let mut call = Process::spawn(math().await, &arguments);
    match limit(call.child.wait()).await.unwrap().success() {
        true => Ok(call.json().await),
        false => Err(call.errors().await),
    }
}

fn sum() -> Value {
    json!({"result": 8, "operation": "add", "a": 5, "b": 3})
}

fn address(url: &str) -> SocketAddr {
    url.split('/').nth(2).unwrap().parse().unwrap()
}

/// The answer to a request with these headers.
async fn request(url: &str, target: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address(url)).await.unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    limit(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

async fn health(url: &str) -> Value {
    health_for(url, "").await
}

/// The figures that are told to a request of these further lines.
async fn health_for(url: &str, more: &str) -> Value {
    let headers = format!("Host: {}\r\n{more}", address(url));
    let answer = request(url, "/health", &headers).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("application/json"), "{head}");
    serde_json::from_str(body).unwrap()
}

/// The status of an upgrade for a page of `origin`, at `host`, which is refused.
async fn status(url: &str, host: &str, origin: &str) -> String {
    let headers = format!(
        "Host: {host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    request(url, "/mcp", &headers).await.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn any_of_the_tokens_lets_in_and_health_tells_who_was() {
    let (mut server, url) = serve(&["--token", "one", "--token", "two"]).await;
    for token in ["one", "two"] {
        assert_eq!(call(&url, &["--bearer", token]).await, Ok(sum()));
    }
    for options in [&[][..], &["--bearer", "three"]] {
        let error = call(&url, options).await.unwrap_err();
        assert!(error.contains("401"), "{error}");
    }
    let rejected = request(&url, "/health", &format!("Host: {}\r\n", address(&url))).await;
    assert!(rejected.starts_with("HTTP/1.1 401 "), "{rejected}");
    let health = health_for(&url, "Authorization: Bearer one\r\n").await;
    for (figure, expected) in [("active", 0), ("total", 2), ("rejected", 3), ("tool_calls", 2)] {
        assert_eq!(health[figure], expected, "{figure} in {health}");
    }
    server.terminate().await;
    server.success().await;
}

#[tokio::test]
async fn hosts_and_origins_are_those_that_are_allowed() {
    let host = "math.example.com";
    let page = "https://app.example.com";
    let (_server, url) =
        serve(&["--token", "t", "--allow-host", host, "--allow-origin", page]).await;
    // Whoever may ask has no token, and is told so.
    assert_eq!(status(&url, host, page).await, "401");
    assert_eq!(status(&url, host, "https://math.example.com").await, "401");
    assert_eq!(status(&url, host, "https://evil.example").await, "403");
    assert_eq!(status(&url, "localhost", page).await, "403");
    assert!(call(&url, &["--bearer", "t"]).await.unwrap_err().contains("403"));
}

/// Whatever it serves besides WebSockets, it serves to the same hosts, origins and clients.
#[tokio::test]
async fn every_door_is_guarded() {
    let (mut server, url) = serve(&["--token", "t"]).await;
    let own = format!("Host: {}\r\n", address(&url));
    let token = "Authorization: Bearer t\r\n";
    let json = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let status = async |method: &str, target: &str, headers: &str| {
        let body = if method == "POST" { "{}" } else { "" };
        let mut stream = TcpStream::connect(address(&url)).await.unwrap();
        let head =
            format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n{body}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        limit(stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap().to_owned()
    };
    let agent = "/agent/nobody/websocket";
    let endpoints = [
        ("POST", "/mcp", "400"),
        ("POST", "/agent", "200"),
        ("GET", agent, "404"),
        ("GET", "/health", "200"),
    ];
    for (method, target, open) in endpoints {
        let lines = if method == "POST" { json } else { "" };
        let refused = status(method, target, &format!("{own}{lines}")).await;
        assert_eq!(refused, "401", "{target} without a token");
        let wrong = "Authorization: Bearer wrong\r\n";
        assert_eq!(
            status(method, target, &format!("{own}{lines}{wrong}")).await,
            "401",
            "{target}"
        );
        assert_eq!(status(method, target, &format!("{own}{lines}{token}")).await, open, "{target}");
    }
    for (method, target) in [("GET", "/"), ("GET", "/mcp-ws.js")] {
        assert_eq!(status(method, target, &own).await, "200", "{target}");
    }
    for (method, target) in [
        ("POST", "/mcp"),
        ("POST", "/agent"),
        ("GET", agent),
        ("GET", "/health"),
        ("GET", "/"),
        ("GET", "/mcp-ws.js"),
    ] {
        let lines = if method == "POST" { json } else { "" };
        let elsewhere = format!("Host: evil.example\r\n{lines}{token}");
        assert_eq!(status(method, target, &elsewhere).await, "403", "{target} of another host");
        let page = format!("{own}{lines}{token}Origin: https://evil.example\r\n");
        assert_eq!(status(method, target, &page).await, "403", "{target} for another page");
    }
    // Who started it is told what would let them in.
    for hint in ["--allow-host", "--allow-origin"] {
        server.logged(hint).await;
    }
}

#[tokio::test]
async fn no_more_connect_than_may() {
    let (_server, url) = serve(&["--max-connections", "1"]).await;
    let client = ().serve(connect(&url).await.unwrap()).await.unwrap();
    assert_eq!(health(&url).await["active"], 1);
    assert!(call(&url, &[]).await.unwrap_err().contains("503"));
    client.cancel().await.unwrap();
    // The place is free when the server has seen the client leave.
    limit(async { while health(&url).await["active"] != 0 {} }).await;
    assert_eq!(call(&url, &[]).await, Ok(sum()));
}

/// Returns what a program prints, or its error.
async fn output(arguments: &[&str]) -> Result<String, String> {
    let mut process = Process::spawn(math().await, arguments);
    let status = limit(process.child.wait()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = limit(process.stdout.next_line()).await.unwrap() {
        lines.push(line);
    }
    if status.success() { Ok(lines.join("\n")) } else { Err(process.errors().await) }
}

#[tokio::test]
async fn it_says_where_its_page_is() {
    let (mut server, url) = serve(&[]).await;
    let line = server.line().await;
    let page = format!("http://{}/", address(&url));
    assert!(line.contains(&page), "{line}");
    assert!(request(&url, "/", &format!("Host: {}\r\n", address(&url))).await.contains("<title>"));
}

#[tokio::test]
async fn tools_are_listed_and_told_to_whoever_asks_for_another() {
    let (_server, url) = serve(&[]).await;
    let tools = output(&["call", &url]).await.unwrap();
    let lines: Vec<_> = tools.lines().collect();
    assert_eq!(lines.len(), 7, "{tools}");
    assert!(lines[0].starts_with("add a b") && lines[0].ends_with("a + b"), "{tools}");
    for more in [&[][..], &["--repeat", "3"]] {
        let unknown = [&["call", &url, "modulo", "5", "3"], more].concat();
        let error = output(&unknown).await.unwrap_err();
        let known = if more.is_empty() { "add, divide, multiply" } else { "add, subtract and" };
        assert!(error.contains("modulo") && error.contains(known), "{error}");
    }
    // A tool that fails is none that is unknown.
    let error = output(&["call", &url, "divide", "5", "0"]).await.unwrap_err();
    assert!(error.ends_with("error: division by zero\n"), "{error}");
    let error = output(&["call", &url, "add", "5"]).await.unwrap_err();
    assert!(error.contains("missing field"), "{error}");
}

#[tokio::test]
async fn a_call_repeated_at_a_server_without_the_tool_names_those_it_has() {
    let server =
        mcp_ws_transport::serve("127.0.0.1:0", crate::common::Tools::default).await.unwrap();
    let url = format!("ws://{}/mcp", server.local_addr());
    let error = output(&["call", &url, "add", "5", "3", "--repeat", "3"]).await.unwrap_err();
    assert!(error.contains("the server has none"), "{error}");
}

#[cfg(feature = "deflate")]
#[tokio::test]
async fn a_call_offers_compression_where_it_is_told_to() {
    for (option, offered) in [(Some("--deflate"), true), (None, false)] {
        let (listener, url) = crate::common::listen().await;
        let arguments = [Some("call"), Some(&*url), Some("add"), option];
        let arguments: Vec<_> = arguments.into_iter().flatten().collect();
        let _call = Process::spawn(math().await, &arguments);
        let (stream, _) = limit(listener.accept()).await.unwrap();
        let head = limit(Raw::over(stream, false).head()).await.unwrap();
        let offer = head.get("sec-websocket-extensions").unwrap_or_default();
        assert_eq!(offer.starts_with("permessage-deflate"), offered, "{head:?}");
    }
    let (_server, url) = serve(&["--deflate"]).await;
    assert_eq!(call(&url, &["--deflate"]).await, Ok(sum()));
}

/// One client that keeps every file descriptor busy, with requests that nobody has to authenticate
/// for.
#[tokio::test]
async fn who_takes_all_descriptors_keeps_nobody_out() {
    let math = math().await.to_str().unwrap();
    let limited = "ulimit -n 64 && exec \"$0\" \"$@\"";
    let arguments = ["-c", limited, math, "serve", "--listen", "127.0.0.1:0", "--token", "t"];
    let (mut server, url) = Process::server("sh", &arguments).await;
    let address = address(&url);
    let ask = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let flood = async {
        let mut clients = Vec::new();
        loop {
            // Those that were dropped come again.
            while clients.len() < 80 {
                let mut client = TcpStream::connect(address).await.unwrap();
                let _ = client.write_all(ask.as_bytes()).await;
                clients.push(client);
            }
            sleep(Duration::from_millis(100)).await;
            let mut answer = vec![0; 4096];
            clients.retain(|client| match client.try_read(&mut answer) {
                Ok(count) => count > 0 && client.try_write(ask.as_bytes()).is_ok(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
        }
    };
    let good = async {
        sleep(Duration::from_millis(500)).await;
        for _ in 0..5 {
            assert_eq!(call(&url, &["--bearer", "t"]).await, Ok(sum()));
        }
    };
    tokio::select! {
        () = flood => {}
        () = limit(good) => {}
    }
    server.logged("cannot accept").await;
    server.terminate().await;
    server.success().await;
}

/// The program asks for as many as its clients need, where that is allowed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_asks_for_descriptors() {
    let math = math().await.to_str().unwrap();
    let limited = "ulimit -S -n 64 && exec \"$0\" \"$@\"";
    let arguments = ["-c", limited, math, "serve", "--listen", "127.0.0.1:0"];
    let (server, _) = Process::server("sh", &arguments).await;
    let limits =
        fs::read_to_string(format!("/proc/{}/limits", server.child.id().unwrap())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let files: Vec<u64> = files.split_whitespace().flat_map(str::parse).collect();
    assert_eq!(files[0], files[1].min(4 * (1024 + 1024) + 64), "{files:?}");
}

/// A certificate on disk, as long as it is needed.
struct Certificate(PathBuf);

impl Certificate {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("math-serve-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let certificate = Self(directory);
        certificate.renew();
        certificate
    }

    fn renew(&self) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        fs::write(self.file("cert.pem"), certificate.pem()).unwrap();
        fs::write(self.file("key.pem"), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().unwrap()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn the_certificate_is_read_again_on_request_and_connections_stay() {
    let files = Certificate::new();
    let (cert, key) = (files.file("cert.pem"), files.file("key.pem"));
    let (mut server, url) = serve(&["--tls-cert", &cert, "--tls-key", &key]).await;
    assert!(url.starts_with("wss://"), "{url}");
    assert_eq!(call(&url, &["--ca", &cert]).await, Ok(sum()));
    let distrusted = call(&url, &[]).await.unwrap_err();
    assert!(distrusted.contains("`--ca`") && !distrusted.contains("Tls::"), "{distrusted}");

    let authorities = mcp_ws_transport::client::ClientTls::authorities(fs::read(&cert).unwrap());
    let stays = ().serve(connect(&url).tls(authorities).await.unwrap()).await.unwrap();
    fs::copy(&cert, files.file("old.pem")).unwrap();
    files.renew();
    server.signal("-HUP").await;
    server.logged("was read again").await;
    assert_eq!(call(&url, &["--ca", &cert]).await, Ok(sum()));
    assert!(call(&url, &["--ca", &files.file("old.pem")]).await.is_err());

    fs::write(&key, "no key").unwrap();
    server.signal("-HUP").await;
    server.logged("stays as it was").await;
    assert_eq!(call(&url, &["--ca", &cert]).await, Ok(sum()));
    assert_eq!(stays.list_all_tools().await.unwrap().len(), 7);
    server.terminate().await;
    server.success().await;
}

#[tokio::test]
async fn who_stops_it_twice_waits_for_no_client() {
    for second in ["-TERM", "-INT"] {
        let (mut server, url) = serve(&[]).await;
        let mut client = Raw::initialized(address(&url)).await;
        server.terminate().await;
        assert_eq!(client.closed().await.0, 1012);
        // The server would wait for the client's own Close frame.
        server.signal(second).await;
        let status = limit(server.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(1), "{status}");
        assert!(server.errors().await.contains("error: stopped before"));
    }
}

#[tokio::test]
async fn calls_go_on_when_the_server_is_started_again() {
    let (mut first, url) = serve(&[]).await;
    let calls = ["call", &url, "add", "1", "2", "--repeat", "2000", "--in-flight", "4"];
    let mut calls = Process::spawn(math().await, &calls);
    while health(&url).await["tool_calls"].as_u64().unwrap() < 100 {
        sleep(Duration::from_millis(1)).await;
    }
    first.child.kill().await.unwrap();
    let listen = address(&url).to_string();
    let _second = Process::server(math().await, &["serve", "--listen", &listen]).await;
    let summary: Value = calls.json().await;
    let [ok, unknown] = ["ok", "outcome_unknown"].map(|count| summary[count].as_u64().unwrap());
    assert_eq!(ok + unknown, 2000, "{summary}");
    assert!(unknown <= 4, "{summary}");
    assert_eq!(
        (&summary["reconnects"], &summary["restarted"]),
        (&json!(1), &json!(1)),
        "{summary}"
    );
    assert_eq!(limit(calls.child.wait()).await.unwrap().success(), unknown == 0);
}
