//! `mcp-ws serve`, and the commands that ask it.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{Running, gone, limit, mcp_ws, pid, run, server, text};

#[tokio::test]
async fn each_client_has_a_process_of_its_own_which_ends_with_it() {
    let (mut serve, url) = Running::serve(&[], server(&[])).await;
    let (first, second) = tokio::join!(pid(&url), pid(&url));
    assert_ne!(first, second);
    gone(&first).await;
    gone(&second).await;
    serve.signal(Signal::TERM);
    assert!(serve.ended().await.success());
}

#[tokio::test]
async fn tools_are_listed_and_called_and_the_server_is_pinged() {
    let (_serve, url) = Running::serve(&["--deflate"], server(&["chatty"])).await;
    let tools = run(&["tools", &url]).await;
    let lines = text(&tools.stdout);
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        ["pid a=… The process", "die", "fail", "refuse", "hang", "count gate=…"],
        "{tools:?}"
    );
    let tools = run(&["tools", &url, "--json", "--deflate"]).await;
    let list: Value = serde_json::from_slice(&tools.stdout).unwrap();
    assert_eq!(list[0]["name"], "pid");

    let called = run(&["call", &url, "pid", r#"{"a":1}"#, "--json"]).await;
    let result: Value = serde_json::from_slice(&called.stdout).unwrap();
    assert_eq!(result["content"][0]["type"], "text");
    let failed = run(&["call", &url, "fail"]).await;
    assert_eq!((failed.status.code(), text(&failed.stdout)), (Some(1), String::new()));
    assert_eq!(text(&failed.stderr), "mcp-ws: it failed\n");
    let failed = run(&["call", &url, "fail", "--json"]).await;
    let result: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((failed.status.code(), &result["isError"]), (Some(1), &true.into()));
    let refused = run(&["call", &url, "refuse"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    let unknown = run(&["call", &url, "pidd"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(
        text(&unknown.stderr),
        "mcp-ws: no tool \"pidd\"; the server has pid, die, fail, refuse, hang, count\n"
    );

    let ping = run(&["ping", &url, "--json"]).await;
    let told: Value = serde_json::from_slice(&ping.stdout).unwrap();
    assert_eq!(told["serverInfo"], json!({ "name": "sh", "version": "1" }));
    assert_eq!(told["protocolVersion"], "2025-06-18");
    let ping = run(&["ping", &url]).await;
    let lines = text(&ping.stdout);
    assert!(lines.starts_with("server        sh 1\n"), "{lines}");
    assert!(lines.contains("\ncompression   permessage-deflate"), "{lines}");
    assert_eq!(
        (&told["compresses"], &told["tls"], &told["resumes"]),
        (&json!(true), &json!(false), &json!(true))
    );
    let ping = run(&["ping", &url, "--json", "--no-resume"]).await;
    let told: Value = serde_json::from_slice(&ping.stdout).unwrap();
    assert_eq!((&told["subprotocol"], &told["resumes"]), (&json!("mcp"), &json!(false)));
    let (_plain, url) = Running::serve(&["--resume-window", "0"], server(&[])).await;
    let ping = run(&["ping", &url, "--json"]).await;
    let told: Value = serde_json::from_slice(&ping.stdout).unwrap();
    assert_eq!((&told["compresses"], &told["resumes"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn the_death_of_a_child_is_told_in_the_log_and_not_to_strangers() {
    let (mut serve, url) = Running::serve(&[], server(&["secret path"])).await;
    let died = run(&["call", &url, "die"]).await;
    assert_eq!(died.status.code(), Some(3));
    let told = text(&died.stderr);
    assert!(told.starts_with("mcp-ws: outcome unknown:"), "{told}");
    assert!(!told.contains("last words") && !told.contains("secret"), "{told}");
    let line = serve.logged("ended by itself").await;
    assert!(line.contains("exit status: 7"), "{line}");
    serve.logged("last words").await;
    // The next client is served as before.
    pid(&url).await;
}

#[tokio::test]
async fn nothing_is_said_to_a_reader_who_has_left() {
    let (_serve, url) = Running::serve(&[], server(&[])).await;
    for arguments in [&["tools", &*url][..], &["ping", &*url], &["call", &*url, "pid", "--json"]] {
        let mut command = mcp_ws(arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let running = command.stdout(writer).spawn().unwrap();
        let ended = limit(running.wait_with_output()).await.unwrap();
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.is_empty(), "{arguments:?}: {ended:?}");
    }
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let running = mcp_ws(["tools", &*url]).stdout(full).spawn().unwrap();
        let ended = limit(running.wait_with_output()).await.unwrap();
        assert_eq!(ended.status.code(), Some(2));
        let told = text(&ended.stderr);
        assert!(told.starts_with("mcp-ws: the standard output cannot be written"), "{told}");
    }
}

#[tokio::test]
async fn a_server_is_asked_to_initialize_first_and_for_what_it_is_where_it_refuses() {
    let (_old, old) = Running::serve(&[], server(&["strict"])).await;
    // It would refuse all else.
    pid(&old).await;
    let (_modern, modern) = Running::serve(&[], server(&["modern"])).await;
    pid(&modern).await;
}

/// Returns both sides of a terminal.
fn terminal() -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let far = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap());
    (near.into(), far.unwrap())
}

#[tokio::test]
async fn progress_is_a_line_on_a_terminal_that_goes_with_the_call() {
    use std::io::Read;

    let (_serve, url) = Running::serve(&[], server(&[])).await;
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let gate = format!("gate={}", fifo.display());
    let (mut near, far) = terminal();
    let mut command = mcp_ws(["call", &url, "count", &gate]);
    let running = command.stderr(far).spawn().unwrap();
    drop(command);
    let shown = tokio::task::spawn_blocking(move || {
        let (mut shown, mut buffer) = (String::new(), [0; 100]);
        let mut is_open = true;
        // The end of a terminal is an error.
        while let Ok(read @ 1..) = near.read(&mut buffer) {
            shown += str::from_utf8(&buffer[..read]).unwrap();
            if is_open && shown.contains("2/3 half done") {
                std::fs::write(&fifo, "\n").unwrap();
                is_open = false;
            }
        }
        shown
    });
    let ended = limit(running.wait_with_output()).await.unwrap();
    assert_eq!(text(&ended.stdout), "counted\n");
    let shown = limit(shown).await.unwrap();
    assert!(shown.ends_with("\r\x1b[K2/3 half done\r\x1b[K"), "{shown:?}");
    let called = run(&["call", &url, "count", "gate=/dev/null"]).await;
    assert!(called.status.success() && called.stderr.is_empty(), "{called:?}");
}

#[tokio::test]
async fn several_servers_are_served_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcpServers.json");
    let one = server(&[]);
    let entry = json!({ "command": one[0], "args": &one[1..], "env": { "A": "b" } });
    let servers = json!({ "one": entry, "two": entry, "off": { "url": "https://example.com" } });
    std::fs::write(&file, json!({ "mcpServers": servers }).to_string()).unwrap();
    let options = ["--config", file.to_str().unwrap(), "--health"];
    let (mut serve, first) = Running::serve(&options, Vec::new()).await;
    let second = serve.line().await.replace("listening on ", "");
    let mut urls = [first, second];
    urls.sort();
    assert!(urls[0].ends_with("/one") && urls[1].ends_with("/two"), "{urls:?}");
    for url in &urls {
        pid(url).await;
    }
    let elsewhere = run(&["ping", &urls[0].replace("/one", "/three")]).await;
    assert_eq!(elsewhere.status.code(), Some(3));
    let told = text(&elsewhere.stderr);
    assert!(told.contains("404"), "{told}");
}

#[tokio::test]
async fn a_client_without_the_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cr3t\n").unwrap();
    let file = file.to_str().unwrap();
    let (_serve, url) = Running::serve(&["--bearer-file", file], server(&[])).await;
    let refused = run(&["call", &url, "pid", "a=1"]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused.stderr));
    let told = text(&refused.stderr);
    assert!(told.lines().count() == 1 && told.contains("see --bearer-file"), "{told}");
    for shown in [
        ["--bearer", "s3cr3t"],
        ["--bearer-file", file],
        ["--header", "Authorization: Bearer s3cr3t"],
    ] {
        let called = run(&["call", &url, "pid", "a=1", shown[0], shown[1]]).await;
        assert!(called.status.success(), "{}", text(&called.stderr));
    }
    let wrong = run(&["ping", &url, "--bearer", "wr0ng"]).await;
    assert_eq!(wrong.status.code(), Some(4));
    assert!(!text(&wrong.stderr).contains("wr0ng"));
}

#[tokio::test]
async fn only_the_hosts_and_origins_that_are_named_are_served() {
    let options = ["--allow-host", "mcp.test", "--allow-origin", "https://app.test"];
    let (_serve, url) = Running::serve(&options, server(&[])).await;
    let (host, app) = ("Host: mcp.test", "Origin: https://app.test");
    for (headers, code) in
        [(&[][..], 4), (&[host], 0), (&[host, app], 0), (&[host, "Origin: https://other.test"], 4)]
    {
        let headers = headers.iter().flat_map(|header| ["--header", header]);
        let arguments: Vec<_> = ["ping", &url].into_iter().chain(headers).collect();
        let pinged = run(&arguments).await;
        assert_eq!(pinged.status.code(), Some(code), "{arguments:?}: {}", text(&pinged.stderr));
    }
}

/// Returns the status and the body of the answer to a `GET` with these header lines.
async fn get(address: &str, path: &str, headers: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    limit(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn health_is_told_to_those_who_may_connect() {
    let options = ["--health", "--bearer", "s3cr3t"];
    let (_serve, url) = Running::serve(&options, server(&[])).await;
    let address = url.strip_prefix("ws://").unwrap().strip_suffix("/mcp").unwrap();
    let mut host = Running::start(&["connect", &url, "--bearer", "s3cr3t"]);
    host.write(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
    assert_eq!(host.json().await["id"], 1);
    let known = "Authorization: Bearer s3cr3t\r\n";
    for (path, headers, status) in [
        ("/health", format!("Host: {address}\r\n{known}"), 200),
        ("/health", format!("Host: {address}\r\n"), 401),
        ("/health", format!("Host: elsewhere.test\r\n{known}"), 403),
        ("/other", format!("Host: {address}\r\n{known}"), 404),
    ] {
        let (found, body) = get(address, path, &headers).await;
        assert_eq!(found, status, "{path} {headers}: {body}");
        if status == 200 {
            let health: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(health["active"], 1, "{body}");
        }
    }
}

/// Neither by the one that serves, nor by those that connect.
#[tokio::test]
async fn no_token_is_logged_at_any_level() {
    const ALL: &str = "mcp_ws=trace,mcp_ws_transport=trace";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "canary-right\n").unwrap();
    let mut command =
        mcp_ws(["serve", "--listen", "127.0.0.1:0", "--bearer-file", file.to_str().unwrap(), "--"]);
    command.args(server(&[])).env("RUST_LOG", ALL);
    let mut serve = Running::spawn(command);
    let url = serve.line().await.replace("listening on ", "");
    let mut log = String::new();
    for token in ["canary-right", "canary-wrong"] {
        let mut call = mcp_ws(["call", &url, "pid", "a=1", "--bearer", token]);
        let called = call.stdin(Stdio::null()).env("RUST_LOG", ALL).output();
        log += &text(&limit(called).await.unwrap().stderr);
    }
    serve.signal(Signal::TERM);
    assert!(serve.ended().await.success());
    serve.errors.read_to_string(&mut log).await.unwrap();
    for event in
        ["connected", "connection ended", "refused: authentication required", "see --bearer-file"]
    {
        assert!(log.contains(event), "{event}: {log}");
    }
    assert!(!log.contains("canary"), "{log}");
}
