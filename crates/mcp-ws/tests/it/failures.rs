//! What goes wrong: one line that says what to do, an exit code by kind, and no child left behind.

use std::{net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use mcp_ws_transport::{WebSocketTransport, connect, layer::correlation, relay, transport};
use rmcp::model::JsonRpcMessage;
use rustix::process::Signal;

use crate::{Running, gone, limit, mcp_ws, run, server, text};

/// A file without a certificate.
const THIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/failures.rs");

#[tokio::test]
async fn what_cannot_work_says_so_in_one_line() {
    for (arguments, code) in [
        (&["serve", "--", "/no/such/program"][..], 6),
        (&["serve", "--listen", "127.0.0.1:0", "--config", "/no/such/file"], 2),
        (&["serve", "--listen", "192.0.2.1:1", "--", "sh"], 2),
        (&["serve", "--listen", "127.0.0.1:0", "--allow-host", "a b", "--", "sh"], 2),
        (&["serve", "--listen", "127.0.0.1:0", "--allow-origin", "a", "--", "sh"], 2),
        (&["serve", "--listen", "127.0.0.1:0", "--trusted-proxy", "a", "--", "sh"], 2),
        (&["dial", "ws://127.0.0.1:1/mcp", "--", "no-such-program"], 6),
        (&["connect", "http://127.0.0.1/mcp"], 2),
        (&["connect", "127.0.0.1"], 2),
        (&["ping", "ws://127.0.0.1:1/mcp"], 3),
        (&["ping", "ws://127.0.0.1:1/mcp", "--bearer-file", "/no/such/file"], 2),
        (&["ping", "ws://127.0.0.1:1/mcp", "--ca", "/no/such/file"], 2),
        (&["ping", "ws://127.0.0.1:1/mcp", "--header", "x"], 2),
        (&["ping", "ws://192.0.2.1/mcp", "--proxy", "http://127.0.0.1:1"], 3),
        (&["ping", "ws://192.0.2.1/mcp", "--proxy", "ftp://127.0.0.1"], 2),
        (&["ping", "ws://127.0.0.1:1/mcp", "--client-cert", "/none", "--client-key", "/none"], 2),
        (&["ping", "wss://127.0.0.1:1/mcp", "--ca", THIS], 2),
        (&["connect", "wss://127.0.0.1:1/mcp", "--client-cert", THIS, "--client-key", THIS], 2),
        (&["call", "ws://127.0.0.1:1/mcp", "t", "x"], 2),
    ] {
        let failed = run(arguments).await;
        let told = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(code), "{arguments:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{arguments:?}: {told}");
        assert!(told.starts_with("mcp-ws: ") && failed.stdout.is_empty(), "{arguments:?}: {told}");
        let option = arguments.iter().rfind(|argument| argument.starts_with("--allow-"));
        assert!(option.is_none_or(|option| told.contains(option)), "{arguments:?}: {told}");
    }
    // Those of the command line itself have their usage with them.
    assert_eq!(run(&["serve"]).await.status.code(), Some(2));
    assert_eq!(run(&["frobnicate"]).await.status.code(), Some(2));
    assert_eq!(run(&["serve", "--max-sessions", "0", "--", "sh"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let (_deaf, deaf) = Running::serve(&[], server(&["deaf"])).await;
    let (_mute, mute) = Running::serve(&[], server(&["mute"])).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("ws://{}/mcp", silent.local_addr().unwrap());
    let run = |arguments: Vec<&str>, seconds: u64, what: &'static str| {
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        arguments.extend(["--timeout".to_owned(), seconds.to_string()]);
        async move {
            let failed = run(&arguments).await;
            let told = text(&failed.stderr);
            assert_eq!(failed.status.code(), Some(3), "{arguments:?}: {told}");
            assert_eq!(told.lines().count(), 1, "{arguments:?}: {told}");
            let what = what.replace("SECONDS", &seconds.to_string());
            assert!(told.contains(&what), "{arguments:?}: {told}");
        }
    };
    // The time is that of all steps: what is there has to come to the last of them.
    let (soon, later) = (1, 5);
    let initialize = "no answer to `initialize` within SECONDS s";
    tokio::join!(
        run(vec!["ping", &silent], soon, "within SECONDS"),
        run(vec!["tools", &silent], soon, "within SECONDS"),
        run(vec!["ping", &deaf], later, initialize),
        run(vec!["tools", &deaf], later, initialize),
        run(vec!["call", &deaf, "pid"], later, initialize),
        run(vec!["ping", &mute], later, "no answer to `ping` within SECONDS s"),
        run(vec!["tools", &mute], later, "no answer to `tools/list` within SECONDS s"),
        run(vec!["call", &mute, "pid"], later, "no answer to `tools/list` within SECONDS s"),
    );
    let (_serve, url) = Running::serve(&[], server(&[])).await;
    run(vec!["call", &url, "hang"], later, "outcome unknown: no response within SECONDSs").await;
}

/// Starts a proxy that says one after the other on each connection, each in answer to something.
/// Returns its address.
async fn proxy(answers: &'static [&'static [u8]]) -> SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            for answer in answers {
                let _ = stream.read(&mut [0; 1 << 10]).await;
                let _ = stream.write_all(answer).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_is_told_from_one_that_does_not_get_there() {
    const WANTED: &[u8] =
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    const LOST: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
    const NO_METHOD: &[u8] = &[5, 0xff];
    const BY_PASSWORD: &[u8] = &[5, 2];
    const RIGHT: &[u8] = &[1, 0];
    const WRONG: &[u8] = &[1, 1];
    const UNREACHABLE: &[u8] = &[5, 4, 0, 1, 0, 0, 0, 0, 0, 0];
    for (by, answers, code) in [
        ("http://u:p@", &[WANTED][..], 4),
        ("http://u:p@", &[LOST], 3),
        ("socks5h://", &[NO_METHOD], 4),
        ("socks5h://u:p@", &[BY_PASSWORD, WRONG], 4),
        ("socks5h://u:p@", &[BY_PASSWORD, RIGHT, UNREACHABLE], 3),
    ] {
        let proxy = format!("{by}{}", proxy(answers).await);
        let failed = run(&["ping", "ws://192.0.2.1/mcp", "--proxy", &proxy]).await;
        let told = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(code), "{proxy}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[tokio::test]
async fn the_readme_has_the_exit_codes_of_the_help() {
    let help = text(&run(&["--help"]).await.stdout);
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    let told = codes.lines().filter_map(|line| line.trim().split_once("  "));
    let told: Vec<_> = told.map(|(code, meaning)| format!("| {code} | {meaning} |")).collect();
    assert_eq!(told.len(), 7, "{help}");
    let (_, table) =
        include_str!("../../README.md").split_once("| exit code | |\n|--:|---|\n").unwrap();
    let listed: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(listed, told);
}

/// Starts a server whose child has started another, and returns the ids of both.
async fn with_grandchild(how: &[&str]) -> (Running, Running, String, String) {
    let (mut serve, url) = Running::serve(&[], server(how)).await;
    let mut host = Running::start(&["connect", &url]);
    host.write(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pid"}}"#).await;
    let answer = host.json().await;
    let child = answer["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    let line = serve.logged("child ").await;
    let grandchild = line.trim().rsplit(' ').next().unwrap().to_owned();
    (serve, host, child, grandchild)
}

#[tokio::test]
async fn a_child_that_forks_and_ignores_signals_is_ended_with_its_session() {
    let (_serve, mut host, child, grandchild) = with_grandchild(&["stubborn", "forking"]).await;
    host.input = None;
    assert!(host.ended().await.success());
    gone(&child).await;
    gone(&grandchild).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_server_that_is_killed() {
    let (mut serve, _host, child, grandchild) = with_grandchild(&["stubborn", "forking"]).await;
    serve.signal(Signal::KILL);
    assert!(!serve.ended().await.success());
    gone(&child).await;
    gone(&grandchild).await;
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_its_children() {
    let (mut serve, mut host, child, grandchild) = with_grandchild(&["forking"]).await;
    serve.signal(Signal::TERM);
    assert!(serve.ended().await.success());
    gone(&child).await;
    gone(&grandchild).await;
    host.input = None;
    host.ended().await;
}

#[tokio::test]
async fn what_has_left_a_child_with_its_streams_holds_nobody_up() {
    let (mut serve, mut host, child, daemon) = with_grandchild(&["leaving"]).await;
    host.write(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"die"}}"#).await;
    let answer = host.json().await;
    assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{answer}");
    gone(&child).await;
    serve.signal(Signal::TERM);
    assert!(serve.ended().await.success());
    let daemon = rustix::process::Pid::from_raw(daemon.parse().unwrap()).unwrap();
    rustix::process::kill_process(daemon, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_child_is_not_told_the_token() {
    let mut arguments =
        ["-v", "serve", "--listen", "127.0.0.1:0", "--"].map(str::to_owned).to_vec();
    arguments.extend(server(&["telling"]));
    let mut command = mcp_ws(&arguments);
    command.env("MCP_WS_BEARER", "s3cr3t");
    let mut serve = Running::spawn(command);
    let line = serve.line().await;
    let url = line.strip_prefix("listening on ").unwrap();
    let mut host = Running::start(&["connect", url, "--bearer", "s3cr3t"]);
    host.write(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
    assert_eq!(host.json().await["id"], 1);
    let told = serve.logged("token: ").await;
    assert!(told.contains("token: none"), "{told}");
}

#[tokio::test]
async fn children_that_are_being_ended_count() {
    let options = ["--max-sessions", "1", "--resume-window", "0"];
    let (mut serve, url) = Running::serve(&options, server(&["stubborn"])).await;
    for _ in 0..4 {
        let mut host = Running::start(&["connect", &url]);
        host.write(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
        assert_eq!(host.json().await["id"], 1);
        host.input = None;
        assert!(host.ended().await.success());
    }
    let (mut started, mut stopped) = (0, 0);
    while stopped < 4 {
        let line = serve.logged(": st").await;
        started += usize::from(line.contains(": started"));
        stopped += usize::from(line.contains(": stopped"));
        assert!(started - stopped <= 2, "{started} started, {stopped} stopped");
    }
}

/// A client whose requests are not kept back where the server has too many.
async fn client(url: &str) -> WebSocketTransport<relay::Client> {
    let correlation = correlation::Config::default().retry_refused(false);
    let config = transport::Config::default().correlation(correlation);
    connect(url).transport(config).no_reconnect().await.unwrap()
}

#[tokio::test]
async fn a_child_that_never_reads_has_no_more_than_may_be_kept_for_it() {
    let (serve, url) = Running::serve(&[], server(&["deaf"])).await;
    let client = client(&url).await.into_sink_stream();
    let params = "x".repeat(1 << 20);
    let (mut sink, mut stream) = client.split();
    let sending = tokio::spawn(async move {
        for id in 0..100 {
            let text =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m","params":["{params}"]}}"#);
            sink.send(relay::parse(text).unwrap()).await.unwrap();
        }
        sink
    });
    for _ in 0..30 {
        let refused = limit(stream.next()).await.unwrap();
        let JsonRpcMessage::Response(refused) = refused else { panic!("{refused:?}") };
        let error = refused.result.result().unwrap_err();
        assert!(error.contains("too_many_requests"), "{error}");
    }
    let _sink = limit(sending).await.unwrap();
    #[cfg(target_os = "linux")]
    assert!(serve.peak() < 200 << 10, "{} KiB", serve.peak());
}

#[tokio::test]
async fn a_child_that_floods_waits_for_its_client_and_goes_with_it() {
    let (mut serve, url) = Running::serve(&["--resume-window", "0"], server(&["flooding"])).await;
    let mut client = client(&url).await.into_sink_stream();
    let mut read = 0;
    // Slowly, and then not at all.
    while read < 200 {
        assert!(limit(client.next()).await.is_some());
        read += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    #[cfg(target_os = "linux")]
    assert!(serve.peak() < 64 << 10, "{} KiB", serve.peak());
    drop(client);
    serve.logged("stopped").await;
}
