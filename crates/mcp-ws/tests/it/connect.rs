//! `mcp-ws connect`, as a host sees it.

use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::{Running, gone, limit, mcp_ws, server, text};

const PING: &str = r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#;

#[tokio::test]
async fn the_standard_output_carries_messages_alone_and_ends_with_the_input() {
    let (_serve, url) = Running::serve(&[], server(&["chatty"])).await;
    let mut host = Running::start(&["-vv", "connect", &url]);
    host.write(PING).await;
    assert_eq!(host.line().await, r#"{"jsonrpc":"2.0","id":"a","result":{}}"#);
    host.write("rubbish").await;
    let error = host.json().await;
    assert_eq!(error["error"]["code"], -32700, "{error}");
    host.write(PING).await;
    host.input = None;
    // What was asked before the end is answered.
    assert_eq!(host.line().await, r#"{"jsonrpc":"2.0","id":"a","result":{}}"#);
    assert_eq!(limit(host.output.next_line()).await.unwrap(), None);
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn half_a_line_at_the_end_is_told_and_nothing_worse() {
    let (_serve, url) = Running::serve(&[], server(&[])).await;
    let mut host = Running::start(&["connect", &url]);
    host.input.as_mut().unwrap().write_all(br#"{"jsonrpc":"2.0","id":1,"met"#).await.unwrap();
    host.input = None;
    assert_eq!(host.json().await["error"]["code"], -32700);
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn a_line_of_a_hundred_mebibytes_is_refused_and_the_next_is_not() {
    let (_serve, url) = Running::serve(&[], server(&[])).await;
    let mut host = Running::start(&["connect", &url]);
    let input = host.input.as_mut().unwrap();
    input.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":""#).await.unwrap();
    let piece = "x".repeat(1 << 20);
    for _ in 0..100 {
        input.write_all(piece.as_bytes()).await.unwrap();
    }
    host.write("\"}}").await;
    let refused = host.json().await;
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&1.into(), &(-32600).into()),
        "{refused}"
    );
    host.write(PING).await;
    assert_eq!(host.json().await["id"], "a");
    #[cfg(target_os = "linux")]
    assert!(host.peak() < 64 << 10, "{} KiB", host.peak());
}

#[tokio::test]
async fn it_waits_for_its_server_and_goes_on_with_the_next() {
    // Where nobody else is given the port meanwhile.
    let ip = if cfg!(target_os = "linux") { "127.0.0.2" } else { "127.0.0.1" };
    let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut host = Running::start(&["connect", &format!("ws://{address}/mcp")]);
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"h","version":"1"}}}"#;
    host.write(initialize).await;
    host.logged("not connected yet").await;
    let options = ["--listen", &address, "--allow-host", ip];
    let (mut serve, _) = Running::serve(&options, server(&[])).await;
    assert_eq!(host.json().await["id"], 0);
    host.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    host.write(PING).await;
    assert_eq!(host.json().await["id"], "a");

    serve.signal(Signal::KILL);
    serve.ended().await;
    host.logged("connection lost").await;
    host.write(PING).await;
    let (_serve, _) = Running::serve(&options, server(&[])).await;
    let answer = host.json().await;
    assert_eq!(answer["id"], "a", "{answer}");
    assert!(answer["result"].is_object(), "{answer}");
}

#[tokio::test]
async fn a_host_that_leaves_before_the_server_is_there_is_not_waited_for() {
    let mut host = Running::start(&["connect", "ws://127.0.0.1:1/mcp"]);
    host.logged("not connected yet").await;
    host.input = None;
    assert!(host.ended().await.success());
    let mut host = Running::start(&["connect", "ws://127.0.0.1:1/mcp"]);
    host.logged("not connected yet").await;
    host.signal(Signal::TERM);
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn a_host_that_reads_no_more_has_left() {
    let (_serve, url) = Running::serve(&[], server(&[])).await;
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = mcp_ws(["connect", &url]);
    let mut host = command.stdout(writer).spawn().unwrap();
    drop((reader, command));
    let mut input = host.stdin.take().unwrap();
    input.write_all(format!("{PING}\n").as_bytes()).await.unwrap();
    let ended = limit(host.wait_with_output()).await.unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn a_standard_error_that_nobody_reads_changes_nothing() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let mut command = mcp_ws(["-vv", "serve", "--listen", "127.0.0.1:0", "--"]);
    command.args(server(&["chatty", "words"])).stderr(closed());
    let mut serve = command.spawn().unwrap();
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let line = limit(lines.next_line()).await.unwrap().unwrap();
    let url = line.strip_prefix("listening on ").unwrap();
    let mut command = mcp_ws(["-vv", "connect", url]);
    let mut host = command.stderr(closed()).spawn().unwrap();
    let mut input = host.stdin.take().unwrap();
    input.write_all(format!("rubbish\n{PING}\n").as_bytes()).await.unwrap();
    drop(input);
    let ended = limit(host.wait_with_output()).await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(text(&ended.stdout).lines().count(), 2, "{ended:?}");
    let id = rustix::process::Pid::from_raw(serve.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert!(limit(serve.wait()).await.unwrap().success());
    let mut command = mcp_ws(["ping", "ws://127.0.0.1:1/mcp"]);
    let failed = limit(command.stderr(closed()).status()).await.unwrap();
    assert_eq!(failed.code(), Some(3));
}

#[tokio::test]
async fn a_host_that_is_killed_is_outlived_by_nobody() {
    let (_serve, url) = Running::serve(&[], server(&[])).await;
    for (url, says) in [("ws://127.0.0.1:1/mcp", "not connected yet"), (&url, r#""id":"a""#)] {
        let script = r#"exec 3<&0; "$0" connect "$1" <&3 2>&1 & echo $!; exec sleep 1000"#;
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_mcp-ws"), url]).kill_on_drop(true);
        let mut host = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Open for as long as the test wants: its end is not what tells.
        let mut input = host.stdin.take().unwrap();
        input.write_all(format!("{PING}\n").as_bytes()).await.unwrap();
        let mut output = BufReader::new(host.stdout.take().unwrap()).lines();
        let mut line = async || limit(output.next_line()).await.unwrap().unwrap();
        let pid = line().await;
        let told = line().await;
        assert!(told.contains(says), "{told}");
        host.kill().await.unwrap();
        gone(&pid).await;
    }
}
