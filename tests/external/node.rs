//! Node.js, for the tests that are written for it.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::process::math;

/// Runs Node in a folder of the repository, with the path of the `math` example in `MATH`. It succeeds within 200 s.
pub(crate) async fn node<A: AsRef<OsStr>>(folder: &str, arguments: impl IntoIterator<Item = A>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut node = Command::new("node");
    node.args(arguments).env("MATH", math().await);
    node.current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(200), node.output()).await.unwrap().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}; {out}{err}", output.status);
}
