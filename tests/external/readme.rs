//! The README: its own server and client, made by its commands in an empty folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::process::Process;

const README: &str = include_str!("../../README.md");

/// Returns the code blocks of `language`, in order.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("\n```{language}\n");
    let blocks = README.split(fence.leak() as &str).skip(1);
    blocks.map(|block| block.split_once("\n```\n").unwrap().0)
}

/// Returns the folder in which this program was built: most of the dependencies are there.
fn target() -> PathBuf {
    let program = env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().to_owned()
}

/// Returns the folder of what is published, unpacked, or else that of the sources.
fn package_of_the_crate() -> String {
    env::var("MCP_WS_PACKAGE").unwrap_or(env!("CARGO_MANIFEST_DIR").into())
}

/// Runs `commands` in `folder`, as long as they succeed.
async fn shell(folder: &Path, commands: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-exc", commands]).current_dir(folder).env("CARGO_TARGET_DIR", target());
    let debug = env::var("CARGO_PROFILE_DEV_DEBUG").unwrap_or("line-tables-only".into());
    shell.env("CARGO_PROFILE_DEV_DEBUG", debug);
    // What cargo tells a test of its package is not for another package.
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
        shell.env_remove(name);
    }
    shell.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    let output = shell.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(Duration::from_secs(600), output).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
}

#[tokio::test]
#[ignore = "needs the package registry, a few minutes, and port 8080"]
async fn a_new_user_has_a_server_and_a_client_by_the_commands_of_the_readme() {
    let folder = env::temp_dir().join(format!("mcp-readme-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let commands = blocks("sh").find(|block| block.contains("cargo new")).unwrap();
    let here = format!("cargo add --path '{}' #", package_of_the_crate());
    assert!(commands.contains("\ncargo add mcp-ws-transport "), "{commands}");
    shell(&folder, &commands.replace("cargo add mcp-ws-transport ", &here)).await;

    let package = folder.join("calculator");
    let [server, client]: [&str; 2] = blocks("rust,no_run").collect::<Vec<_>>().try_into().unwrap();
    fs::create_dir_all(package.join("src/bin")).unwrap();
    fs::write(package.join("src/main.rs"), server).unwrap();
    fs::write(package.join("src/bin/client.rs"), client).unwrap();
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    fs::copy(lock, package.join("Cargo.lock")).unwrap();
    shell(&package, "cargo build").await;

    let programs = target().join("debug");
    let (_server, url) = Process::server(programs.join("calculator"), &[]).await;
    assert_eq!(url, "ws://127.0.0.1:8080/mcp");
    let mut client = Process::spawn(programs.join("client"), &[]);
    assert_eq!(client.line().await, "5 + 3 = 8");
    client.success().await;
    fs::remove_dir_all(&folder).unwrap();
}
