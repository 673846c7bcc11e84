//! The npm package in `js/`. There: `npm test`.

use crate::node::node;

#[tokio::test]
#[ignore = "needs Node.js and npm"]
async fn the_npm_package_ends_every_call_and_waits_as_it_says() {
    let tests = ["backoff", "package", "resume", "socket", "transport"];
    let files = tests.map(|name| format!("test/{name}.test.mjs"));
    node("js", ["--test".to_owned()].into_iter().chain(files)).await;
}
