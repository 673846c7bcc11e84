//! `--restart`: a child that ends within its session is started again.

use mcp_ws_transport::accept;
use rmcp::{RoleClient, ServiceExt, model::CallToolRequestParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{Running, gone, limit, run, server, text};

fn kill(pid: &str) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

fn call(id: u32, tool: &str) -> String {
    let params = json!({ "name": tool });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

/// Asks for the process of the server.
async fn pid(host: &mut Running, id: u32) -> String {
    host.write(&call(id, "pid")).await;
    let answer = host.json().await;
    assert_eq!(answer["id"], id, "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn a_child_that_is_killed_within_a_session_is_started_again() {
    let (mut serve, url) = Running::serve(&["--restart"], server(&["strict"])).await;
    let mut host = Running::start(&["connect", &url]);
    let info = json!({ "name": "h", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info });
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    host.write(&initialize.to_string()).await;
    assert_eq!(host.json().await["id"], 0);
    host.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let mut before = pid(&mut host, 1).await;
    for id in [10, 20, 30] {
        host.write(&call(id, "hang")).await;
        serve.logged(": hanging").await;
        kill(&before);
        let error = host.json().await;
        assert_eq!(error["id"], id, "{error}");
        assert_eq!(error["error"]["data"]["reason"], "outcome_unknown", "{error}");
        let after = pid(&mut host, id + 1).await;
        assert_ne!(after, before);
        gone(&before).await;
        before = after;
    }
    host.input = None;
    // The answers to `initialize` that were repeated are for nobody.
    assert_eq!(limit(host.output.next_line()).await.unwrap(), None);
    assert!(host.ended().await.success());
    gone(&before).await;
}

#[tokio::test]
async fn a_request_of_a_child_that_is_killed_is_cancelled_and_its_answer_is_not_for_the_next() {
    let (_serve, url) = Running::serve(&["--restart"], server(&["asking"])).await;
    let mut host = Running::start(&["connect", &url]);
    let first = host.json().await;
    assert_eq!((&first["id"], &first["method"]), (&1.into(), &"roots/list".into()));
    let before = pid(&mut host, 1).await;
    kill(&before);
    let cancelled = host.json().await;
    assert_eq!(cancelled["method"], "notifications/cancelled", "{cancelled}");
    assert_eq!(cancelled["params"]["requestId"], first["id"], "{cancelled}");
    let second = host.json().await;
    assert_eq!(second["method"], "roots/list", "{second}");
    assert_ne!(second["id"], first["id"]);
    for (asked, root) in [(&first, "first"), (&second, "second")] {
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "root": root } });
        host.write(&answer.to_string()).await;
    }
    let told = host.json().await;
    assert_eq!(
        told["params"]["got"],
        json!({ "jsonrpc": "2.0", "id": 1, "result": { "root": "second" } })
    );
}

#[tokio::test]
async fn what_a_child_says_after_it_has_read_its_last_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let (mut serve, url) = Running::serve(&["--restart"], server(&[])).await;
    let mut host = Running::start(&["connect", &url]);
    let params = json!({ "name": "shut", "arguments": { "gate": gate } });
    let shut = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    host.write(&shut.to_string()).await;
    serve.logged(": shut").await;
    host.write(&call(2, "pid")).await;
    serve.logged("reads no more").await;
    std::fs::write(&gate, "\n").unwrap();
    let answer = host.json().await;
    assert_eq!((&answer["id"], &answer["result"]), (&1.into(), &json!({})), "{answer}");
    let lost = host.json().await;
    assert_eq!(lost["id"], 2, "{lost}");
    assert_eq!(lost["error"]["data"]["reason"], "outcome_unknown", "{lost}");
    pid(&mut host, 3).await;
}

#[tokio::test]
async fn a_child_that_refuses_to_be_initialized_again_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"read -r line
        if [ -e "$0" ]; then
            echo '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}'
            cat >/dev/null
        else
            echo >"$0"
            echo '{"jsonrpc":"2.0","id":0,"result":{}}'
        fi"#;
    let marker = folder.path().join("marker");
    let command = ["sh", "-c", script, marker.to_str().unwrap()].map(str::to_owned).to_vec();
    let (mut serve, url) = Running::serve(&["--restart"], command).await;
    let mut host = Running::start(&["connect", &url]);
    host.write(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"h","version":"1"}}}"#).await;
    assert_eq!(host.json().await["id"], 0);
    let told = serve.logged("not started again").await;
    assert!(told.contains("because it refuses the `initialize`"), "{told}");
}

#[tokio::test]
async fn a_child_that_always_ends_is_started_five_times_again() {
    let command = ["sh", "-c", "echo last words >&2; exit 3"].map(str::to_owned).to_vec();
    let (mut serve, url) = Running::serve(&["--restart"], command).await;
    let failed = run(&["tools", &url]).await;
    assert_eq!(failed.status.code(), Some(3), "{failed:?}");
    assert_eq!(text(&failed.stderr).lines().count(), 1, "{failed:?}");
    let (mut started, mut told) = (0, String::new());
    while !told.contains("has ended 6 times within 60 s") {
        told = serve.logged("sh").await;
        started += usize::from(told.contains(": started\n"));
    }
    assert!((6..=12).contains(&started), "{started}");
}

#[tokio::test]
async fn a_server_that_dials_out_is_started_again_too() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
        let arguments = ["dial", "--restart", &url, "--"].map(str::to_owned).into_iter();
        let mut dial = Running::start(&arguments.chain(server(&["strict"])).collect::<Vec<_>>());
        let (stream, _) = listener.accept().await.unwrap();
        let client = ().serve(accept::<RoleClient, _>(stream).await.unwrap()).await.unwrap();
        for _ in 0..5 {
            client.call_tool(CallToolRequestParams::new("die")).await.unwrap_err();
            client.call_tool(CallToolRequestParams::new("pid")).await.unwrap();
        }
        client.call_tool(CallToolRequestParams::new("die")).await.unwrap_err();
        assert_eq!(dial.ended().await.code(), Some(6));
        dial.logged("has ended 6 times within 60 s").await;
        assert_eq!(dial.logged("mcp-ws:").await, "mcp-ws: the command has ended\n");
    })
    .await;
}
