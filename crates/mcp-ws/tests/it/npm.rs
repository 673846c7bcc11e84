//! Servers from npm, asked directly and over both ends of the program: the answers are the same,
//! byte for byte.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{Running, limit, mcp_ws};

/// The command of a server from npm.
fn npm(server: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = npm_script(server, "dist/index.js");
    command.extend(arguments.iter().map(ToString::to_string));
    command
}

/// The command that runs a file of a package of MCP's.
fn npm_script(package: &str, file: &str) -> Vec<String> {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interop/node_modules");
    let script: PathBuf = modules.join("@modelcontextprotocol").join(package).join(file);
    assert!(script.exists(), "run `npm ci` in tests/interop first");
    vec!["node".to_owned(), script.canonicalize().unwrap().to_str().unwrap().to_owned()]
}

/// A host that asks a program one thing after the other.
struct Host {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Notifications that belong to no request.
    notifications: Vec<String>,
    /// The requests of the server, which come when a timer of its own says so.
    requests: Vec<String>,
}

impl Host {
    fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let input = process.stdin.take().unwrap();
        Self { _process: process, input, output, notifications: Vec::new(), requests: Vec::new() }
    }

    fn direct(command: &[String]) -> Self {
        let mut direct = Command::new(&command[0]);
        direct.args(&command[1..]).env_remove("RUST_LOG").env_remove("MCP_WS_BEARER");
        Self::start(direct)
    }

    async fn send(&mut self, message: &Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    /// Asks for something, answers what the server asks meanwhile, and returns the progress and
    /// the answer.
    async fn ask(&mut self, id: &Value, method: &str, params: Value) -> Vec<String> {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        let mut lines = Vec::new();
        loop {
            let line = timeout(Duration::from_secs(30), self.output.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("no answer to {method}")).unwrap().unwrap();
            let message: Value = serde_json::from_str(&line).unwrap();
            match (message["method"].as_str(), message.get("id")) {
                (Some("notifications/progress"), _) => lines.push(line),
                (Some(_), None) => self.notifications.push(line),
                (Some(asked), Some(asked_id)) => {
                    let answer = answer_to(asked);
                    self.send(&json!({ "jsonrpc": "2.0", "id": asked_id, "result": answer })).await;
                    self.requests.push(line);
                }
                (None, answered) => {
                    assert_eq!(answered, Some(id), "{line}");
                    lines.push(line);
                    return lines;
                }
            }
        }
    }

    /// Asks for all of this, by ids of every form that is usual.
    async fn ask_all(&mut self, requests: &[(&str, Value)]) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for (number, (method, params)) in requests.iter().enumerate() {
            let id =
                if number % 2 == 0 { json!(number) } else { json!(format!("request {number}")) };
            all.push(self.ask(&id, method, params.clone()).await);
            if *method == "initialize" {
                self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
                    .await;
            }
        }
        self.notifications.sort();
        all
    }
}

/// The answer of the host to what a server asks.
fn answer_to(method: &str) -> Value {
    match method {
        "roots/list" => json!({ "roots": [{ "uri": "file:///tmp/relayed", "name": "relayed" }] }),
        "sampling/createMessage" => {
            let content = json!({ "type": "text", "text": "sampled" });
            json!({ "model": "m", "role": "assistant", "content": content })
        }
        "elicitation/create" => json!({ "action": "accept", "content": { "name": "n" } }),
        _ => json!({}),
    }
}

/// Asks a server directly and over both ends, and compares what it says.
async fn compare(command: Vec<String>, requests: Vec<(&'static str, Value)>, asks_back: usize) {
    limit(async {
        let mut direct = Host::direct(&command);
        let expected = direct.ask_all(&requests).await;
        let (_serve, url) = Running::serve(&[], command).await;
        let mut relayed = Host::start(mcp_ws(["connect", &url]));
        let found = relayed.ask_all(&requests).await;
        for ((request, expected), found) in requests.iter().zip(&expected).zip(&found) {
            assert_eq!(found, expected, "{request:?}");
        }
        assert_eq!(relayed.notifications, direct.notifications);
        assert_eq!(relayed.requests, direct.requests);
        assert_eq!(direct.requests.len(), asks_back);
        println!("count: {} requests with the same answers", requests.len());
        println!("count: {asks_back} requests of a server, passed on");
    })
    .await;
}

fn initialize(capabilities: Value) -> (&'static str, Value) {
    let info = json!({ "name": "host", "version": "1" });
    let version = "2025-06-18";
    (
        "initialize",
        json!({ "protocolVersion": version, "capabilities": capabilities, "clientInfo": info }),
    )
}

fn call(tool: &str, arguments: Value) -> (&'static str, Value) {
    ("tools/call", json!({ "name": tool, "arguments": arguments }))
}

#[tokio::test]
#[ignore = "needs Node.js and the packages of tests/interop"]
async fn server_everything_says_the_same() {
    let long = json!({
        "name": "trigger-long-running-operation", "arguments": { "duration": 0.4, "steps": 4 },
        "_meta": { "progressToken": "token" },
    });
    let argument = json!({ "name": "department", "value": "E" });
    let prompt = json!({ "type": "ref/prompt", "name": "completable-prompt" });
    let requests = vec![
        initialize(json!({ "roots": { "listChanged": true }, "sampling": {}, "elicitation": {} })),
        ("ping", json!({})),
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        call("echo", json!({ "message": "héllo \u{1f600} \u{2028}" })),
        call("get-sum", json!({ "a": 0.1, "b": 0.2 })),
        call("get-annotated-message", json!({ "messageType": "error", "includeImage": true })),
        call("get-structured-content", json!({ "location": "Chicago" })),
        call("get-tiny-image", json!({})),
        call("get-resource-links", json!({ "count": 3 })),
        call("get-env", json!({})),
        ("tools/call", long),
        call("get-roots-list", json!({})),
        call("trigger-sampling-request", json!({ "prompt": "p", "maxTokens": 5 })),
        call("trigger-elicitation-request", json!({})),
        call("no-such-tool", json!({})),
        ("no/such/method", json!({ "x": [1.50, 1e2] })),
        ("prompts/get", json!({ "name": "simple-prompt" })),
        ("prompts/get", json!({ "name": "args-prompt", "arguments": { "city": "Bern" } })),
        ("completion/complete", json!({ "ref": prompt, "argument": argument })),
        ("resources/read", json!({ "uri": "demo://resource/static/document/architecture.md" })),
        ("logging/setLevel", json!({ "level": "error" })),
    ];
    assert!(requests.len() >= 22);
    compare(npm("server-everything", &["stdio"]), requests, 3).await;
}

#[tokio::test]
#[ignore = "needs Node.js and the packages of tests/interop"]
async fn server_filesystem_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let root = root.to_str().unwrap();
    let file = format!("{root}/a.txt");
    let edits = json!([{ "oldText": "two", "newText": "2" }]);
    let requests = vec![
        initialize(json!({})),
        ("tools/list", json!({})),
        call("list_allowed_directories", json!({})),
        call("write_file", json!({ "path": file, "content": "one\ntwo\r\nthree \u{0} \"é\"\n" })),
        call("read_text_file", json!({ "path": file })),
        call("read_text_file", json!({ "path": file, "head": 1 })),
        call("read_multiple_files", json!({ "paths": [file, format!("{root}/none")] })),
        call("list_directory", json!({ "path": root })),
        call("directory_tree", json!({ "path": root })),
        call("search_files", json!({ "path": root, "pattern": "*.txt" })),
        call("edit_file", json!({ "path": file, "edits": edits, "dryRun": true })),
        call("read_text_file", json!({ "path": "/etc/passwd" })),
    ];
    assert!(requests.len() >= 10);
    compare(npm("server-filesystem", &[root]), requests, 0).await;
}

/// Runs the command line of the MCP Inspector over `mcp-ws connect`, and returns what it prints.
async fn inspect(url: &str, arguments: &[&str]) -> Value {
    let mut inspector = npm_script("inspector-cli", "build/cli.js");
    inspector.push("--cli".into());
    inspector.extend([env!("CARGO_BIN_EXE_mcp-ws"), "connect", url].map(str::to_owned));
    inspector.extend(arguments.iter().map(ToString::to_string));
    let mut command = Command::new(&inspector[0]);
    let inspected =
        limit(command.args(&inspector[1..]).stdin(Stdio::null()).output()).await.unwrap();
    assert!(inspected.status.success(), "{inspected:?}");
    serde_json::from_slice(&inspected.stdout).unwrap_or_else(|_| panic!("{inspected:?}"))
}

#[tokio::test]
#[ignore = "needs Node.js and the packages of tests/interop"]
async fn the_inspector_lists_and_calls_the_tools_of_server_everything() {
    let (_serve, url) = Running::serve(&[], npm("server-everything", &["stdio"])).await;
    let list = inspect(&url, &["--method", "tools/list"]).await;
    let names: Vec<_> =
        list["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert!(names.contains(&&json!("echo")), "{names:?}");
    let call = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello"];
    let called = inspect(&url, &call).await;
    assert_eq!(called["content"], json!([{ "type": "text", "text": "Echo: hello" }]));
}

#[tokio::test]
#[ignore = "needs Node.js and the registry"]
async fn the_commands_of_the_readme_work_as_they_stand() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/run-readme");
    let mut command = Command::new("bash");
    command.kill_on_drop(true).args([
        script,
        "--any-port",
        "--program",
        env!("CARGO_BIN_EXE_mcp-ws"),
    ]);
    let done = timeout(Duration::from_secs(300), command.stdin(Stdio::null()).output()).await;
    let done = done.expect("a command that hangs").unwrap();
    assert!(done.status.success(), "{done:?}");
}
