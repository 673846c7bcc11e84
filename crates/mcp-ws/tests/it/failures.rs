//! What goes wrong: one line that says what to do, an exit code by kind, and no child left behind.

use rustix::process::Signal;

use crate::{Running, gone, run, server, text};

#[tokio::test]
async fn what_cannot_work_says_so_in_one_line() {
    for (arguments, code) in [
        (&["serve", "--", "/no/such/program"][..], 6),
        (&["serve", "--listen", "127.0.0.1:0", "--config", "/no/such/file"], 2),
        (&["serve", "--listen", "192.0.2.1:1", "--", "sh"], 2),
        (&["dial", "ws://127.0.0.1:1/mcp", "--", "no-such-program"], 6),
        (&["connect", "http://127.0.0.1/mcp"], 2),
        (&["connect", "127.0.0.1"], 2),
        (&["ping", "ws://127.0.0.1:1/mcp"], 3),
        (&["ping", "ws://127.0.0.1:1/mcp", "--bearer-file", "/no/such/file"], 2),
        (&["ping", "ws://127.0.0.1:1/mcp", "--ca", "/no/such/file"], 2),
        (&["ping", "ws://127.0.0.1:1/mcp", "--header", "x"], 2),
        (&["call", "ws://127.0.0.1:1/mcp", "t", "x"], 2),
    ] {
        let failed = run(arguments).await;
        let told = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(code), "{arguments:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{arguments:?}: {told}");
        assert!(told.starts_with("mcp-ws: ") && failed.stdout.is_empty(), "{arguments:?}: {told}");
    }
    // Those of the command line itself have their usage with them.
    assert_eq!(run(&["serve"]).await.status.code(), Some(2));
    assert_eq!(run(&["frobnicate"]).await.status.code(), Some(2));
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
