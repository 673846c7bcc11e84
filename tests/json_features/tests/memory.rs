//! Memory of a message once decoded, where the features of serde_json make its values larger. The
//! heap is counted, so there is one test only.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../common/raw.rs"]
mod raw;

use std::{alloc::System, time::Duration};

use cap::Cap;
use mcp_ws_transport::serve;
use raw::Raw;
use rmcp::ServerHandler;
use serde_json::Value;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// The most that a server decodes, by default, and the largest message that it reads.
const DECODED: usize = 32 << 20;
const MESSAGE: usize = 4 << 20;

#[derive(Clone)]
struct Nothing;

impl ServerHandler for Nothing {}

/// A request with a list of `count` of these values.
fn dense(method: &str, unit: &str, count: usize) -> String {
    let list = vec![unit; count].join(",");
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"none","arguments":{{"a":[{list}]}}}}}}"#
    )
}

#[tokio::test]
async fn a_message_takes_no_more_than_it_may() {
    assert!(size_of::<Value>() > 32, "preserve_order is off");
    let limit = Duration::from_secs(300);
    tokio::time::timeout(limit, async {
        let server = serve("127.0.0.1:0", || Nothing).await.unwrap();
        let before = HEAP.allocated();
        for unit in ["0", "[]", "{}", r#"{"":0}"#, r#"{"a":0,"b":0,"c":0}"#] {
            for method in ["acme/x", "tools/call"] {
                // The most that is decoded of this.
                let mut count = MESSAGE / (unit.len() + 1) - 100;
                loop {
                    let mut raw = Raw::initialized(server.local_addr()).await;
                    raw.text(dense(method, unit, count)).await;
                    let answer = raw.receive().await;
                    let Some(size) = answer["error"]["data"]["decoded_bytes"].as_u64() else {
                        break;
                    };
                    count = (count as f64 * DECODED as f64 / size as f64 * 0.99) as usize;
                }
                let peak = HEAP.max_allocated() - before;
                println!("{count} times {unit} in {method}: {} MiB", peak >> 20);
                assert!(peak <= DECODED + 4 * MESSAGE, "{unit}: {peak}");
            }
        }
    })
    .await
    .expect("it hangs");
}
