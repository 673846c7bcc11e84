//! Programs that a test runs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::{
        OnceCell,
        mpsc::{UnboundedReceiver, unbounded_channel},
    },
    time::timeout,
};

use crate::common::limit;

/// A child process that is killed when it is dropped.
pub struct Process {
    pub child: Child,
    pub stdout: Lines<BufReader<ChildStdout>>,
    /// Lines of the standard error, which is read whether or not anybody asks for them.
    errors: UnboundedReceiver<String>,
}

impl Process {
    pub fn spawn(program: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let mut child = Command::new(program.as_ref())
            .args(arguments)
            .env("RUST_LOG", "mcp_ws_transport=debug")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()));
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let (lines, errors) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, stdout, errors }
    }

    /// A server, once it has printed the URL on which it listens.
    pub async fn server(program: impl AsRef<Path>, arguments: &[&str]) -> (Self, String) {
        let mut server = Self::spawn(program, arguments);
        let line = server.line().await;
        let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        let url = url.to_owned();
        (server, url)
    }

    /// The next line of the standard output.
    pub async fn line(&mut self) -> String {
        match limit(self.stdout.next_line()).await.unwrap() {
            Some(line) => line,
            None => panic!("no more output; {}", self.errors().await),
        }
    }

    pub async fn json<T: for<'a> Deserialize<'a>>(&mut self) -> T {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Returns the next reason for which the `math` server logs that a connection ended.
    pub async fn end_reason(&mut self) -> String {
        let line = self.logged("connection ended").await;
        let (_, reason) = line.split_once(" reason=\"").unwrap();
        reason.split_once("\" ").unwrap().0.to_owned()
    }

    pub async fn errors(&mut self) -> String {
        let mut text = String::new();
        while let Some(line) = limit(self.errors.recv()).await {
            text += &line;
            text.push('\n');
        }
        text
    }

    /// Sends SIGTERM.
    pub async fn terminate(&self) {
        self.signal("-TERM").await;
    }

    pub async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(limit(Command::new("kill").args([signal, &id]).status()).await.unwrap().success());
    }

    /// Returns the next line of the standard error that has `text` in it.
    pub async fn logged(&mut self, text: &str) -> String {
        loop {
            let line = limit(self.errors.recv()).await;
            let line = line.unwrap_or_else(|| panic!("{text:?} was not logged"));
            if line.contains(text) {
                return line;
            }
        }
    }

    pub async fn success(&mut self) {
        let status = limit(self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}; {}", self.errors().await);
    }
}

/// The `math` example, which cargo does not build for a single test.
pub async fn math() -> &'static Path {
    static MATH: OnceCell<PathBuf> = OnceCell::const_new();
    MATH.get_or_init(build_math).await
}

async fn build_math() -> PathBuf {
    example("math").await
}

/// The example of this name.
pub async fn example(name: &str) -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut build = Command::new(cargo);
    build.args(["build", "--example", name, "--message-format", "json"]);
    if cfg!(feature = "deflate") {
        build.args(["--features", "deflate"]);
    }
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    // Build scripts that look at what cargo tells a test about its package would run again.
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
        build.env_remove(name);
    }
    build.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).kill_on_drop(true);
    let built = timeout(Duration::from_secs(600), build.output()).await.unwrap().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8(built.stdout).unwrap();
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| Some(message["executable"].as_str()?.into()))
        .unwrap_or_else(|| panic!("the executable of the example `{name}`"))
}
