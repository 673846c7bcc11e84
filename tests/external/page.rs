//! The page of the `math` example in a real browser, and the module that it uses on its own. In
//! `tests/interop`:
//!
//! ```sh
//! node page.mjs [--screenshots DIR] ../../target/debug/examples/math serve
//! node --test mcp-ws.test.mjs
//! ```

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::process::math;

/// Runs Node in `tests/interop`.
async fn node<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let mut node = Command::new("node");
    node.args(arguments).current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(200), node.output()).await.unwrap().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}; {out}{err}", output.status);
}

#[tokio::test]
#[ignore = "needs chromium, chromedriver and Node"]
async fn the_page_calculates_in_a_browser_and_comes_back_after_a_restart() {
    let deflate = cfg!(feature = "deflate").then_some("--deflate".as_ref());
    let arguments = ["page.mjs".as_ref(), math().await.as_os_str(), "serve".as_ref()];
    node(arguments.into_iter().chain(deflate)).await;
}

#[tokio::test]
#[ignore = "needs Node"]
async fn the_module_of_the_page_ends_every_call_and_waits_as_it_says() {
    node(["--test", "mcp-ws.test.mjs"]).await;
}
