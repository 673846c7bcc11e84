//! The page of the `math` example in a real browser. In `tests/interop`:
//!
//! ```sh
//! node page.mjs [--screenshots DIR] ../../target/debug/examples/math serve
//! ```

use crate::{node::node, process::math};

#[tokio::test]
#[ignore = "needs chromium, chromedriver, Node.js and the packages of tests/interop/package.json"]
async fn the_page_calculates_in_a_browser_and_comes_back_after_a_restart() {
    let deflate = cfg!(feature = "deflate").then_some("--deflate".as_ref());
    let arguments = ["page.mjs".as_ref(), math().await.as_os_str(), "serve".as_ref()];
    node("tests/interop", arguments.into_iter().chain(deflate)).await;
}
