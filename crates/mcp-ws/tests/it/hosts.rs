//! The snippets of the page for hosts, started as the hosts start them.

use std::fs;

use serde_json::Value;

use crate::{Running, mcp_ws, server};

#[tokio::test]
async fn what_the_page_says_to_hosts_starts_a_bridge() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/guide/hosts.md");
    let page = fs::read_to_string(page).unwrap();
    let options = ["--bearer", "TOKEN"];
    let (_serve, url) = Running::serve(&options, server(&[])).await;
    let mut tried = 0;
    for block in page.split("```json\n").skip(1) {
        let json = block.split("```").next().unwrap();
        let config: Value =
            serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        let servers = config.get("mcpServers").or(config.get("servers")).unwrap();
        for entry in servers.as_object().unwrap().values() {
            assert_eq!(entry["command"], "mcp-ws");
            let arguments =
                entry["args"].as_array().unwrap().iter().map(|argument| {
                    argument.as_str().unwrap().replace("wss://example.com/mcp", &url)
                });
            let mut command = mcp_ws(arguments);
            for (name, value) in entry["env"].as_object().unwrap() {
                command.env(name, value.as_str().unwrap().replace("${input:token}", "TOKEN"));
            }
            let mut bridge = Running::spawn(command);
            bridge.write(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
            assert_eq!(bridge.json().await["id"], 1);
            tried += 1;
        }
    }
    assert_eq!(tried, 2);
}
