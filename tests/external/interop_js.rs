//! The npm package in `js/`: by itself, under the TypeScript SDK, and against other servers. The packages that this
//! needs are installed as `interop` says. In `js` and in `tests/interop`:
//!
//! ```sh
//! npm test
//! MATH=../../target/debug/examples/math node --test sdk.test.mjs browser.test.mjs
//! npx tsc --project types
//! ```

use std::{fs, path::Path};

use crate::node::node;

#[tokio::test]
#[ignore = "needs Node.js and npm"]
async fn the_npm_package_ends_every_call_and_waits_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("js/test");
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let files = names.filter(|name| name.ends_with(".test.mjs")).map(|name| format!("test/{name}"));
    node("js", ["--test".to_owned()].into_iter().chain(files)).await;
}

#[tokio::test]
#[ignore = "needs Node.js, Python and the packages of tests/interop"]
async fn the_typescript_sdk_over_the_npm_package_meets_three_servers_and_a_line_that_is_cut() {
    node("tests/interop", ["--test", "sdk.test.mjs"]).await;
}

#[tokio::test]
#[ignore = "needs chromium, chromedriver, Node.js, Python and the packages of tests/interop"]
async fn the_npm_package_does_the_same_in_a_browser() {
    node("tests/interop", ["--test", "browser.test.mjs"]).await;
}

#[tokio::test]
#[ignore = "needs Node.js and the packages of tests/interop/package.json"]
async fn the_types_of_the_npm_package_fit_both_sdks() {
    node("tests/interop", ["node_modules/typescript/bin/tsc", "--project", "types"]).await;
}
