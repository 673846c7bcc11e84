//! The transport for the Python SDK 2.x that the migration guide shows. It needs, in
//! `tests/interop`:
//!
//! ```sh
//! python3 -m venv .venv2 && .venv2/bin/pip install --requirement requirements-2.txt
//! ```

use std::{fs, path::Path};

use mcp_ws_transport::server::Config;

use crate::{
    common::{Tools, limit, serve_tools},
    guide::block_of,
    process::Process,
};

/// Calls a tool whose answer is larger than the client would take by default.
const CHECK: &str = r#"

async def check(url):
    async with Client(websocket(url)) as client:
        result = await client.call_tool("big", {"size": 3_000_000})
        print(len(result.content[0].text))


import sys
anyio.run(check, sys.argv[1])
"#;

#[tokio::test]
#[ignore = "needs the Python SDK 2.x: see the top of this file"]
async fn the_transport_of_the_guide_takes_large_answers() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let guide = include_str!("../../src/guide/migration.md");
        let file = std::env::temp_dir().join(format!("mcp-guide-{}.py", std::process::id()));
        fs::write(&file, block_of(guide, "python") + CHECK).unwrap();
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/.venv2/bin/python");
        let url = format!("ws://{address}/mcp");
        let mut client = Process::spawn(python, &[file.to_str().unwrap(), &url]);
        assert_eq!(client.line().await, "3000000");
        client.success().await;
        fs::remove_file(&file).unwrap();
    })
    .await;
}
