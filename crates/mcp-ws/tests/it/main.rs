//! The program, with real children, hosts and servers.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bridge;
mod connect;
mod documents;
mod failures;
mod hosts;
mod npm;
mod restart;
mod serve;
mod tls;

use std::{
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Longer than any test takes, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

async fn limit<T>(test: impl Future<Output = T>) -> T {
    timeout(LIMIT, test).await.expect("a test that hangs")
}

/// The command line of the server for tests, which does `how`.
fn server(how: &[&str]) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/server.sh");
    ["sh", script].iter().chain(how).map(ToString::to_string).collect()
}

fn mcp_ws<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(arguments: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-ws"));
    command.args(arguments).kill_on_drop(true).env_remove("RUST_LOG").env_remove("MCP_WS_BEARER");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end, with nothing on its standard input.
async fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    limit(mcp_ws(arguments).stdin(Stdio::null()).output()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The program while it runs.
struct Running {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    errors: BufReader<ChildStderr>,
}

impl Running {
    fn start<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Self {
        Self::spawn(mcp_ws(arguments))
    }

    fn spawn(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let errors = BufReader::new(process.stderr.take().unwrap());
        Self { input: process.stdin.take(), output, errors, process }
    }

    /// Starts `serve` with these options and this command, and returns its first URL too.
    async fn serve(options: &[&str], command: Vec<String>) -> (Self, String) {
        let mut arguments = vec!["-v".to_owned(), "serve".to_owned()];
        arguments.extend(options.iter().map(ToString::to_string));
        if !options.contains(&"--listen") {
            arguments.extend(["--listen".to_owned(), "127.0.0.1:0".to_owned()]);
        }
        if !command.is_empty() {
            arguments.push("--".into());
            arguments.extend(command);
        }
        let mut running = Self::start(&arguments);
        let line = running.line().await;
        let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        let url = url.to_owned();
        (running, url)
    }

    async fn line(&mut self) -> String {
        match limit(self.output.next_line()).await.unwrap() {
            Some(line) => line,
            None => {
                let mut errors = String::new();
                self.errors.read_to_string(&mut errors).await.unwrap();
                panic!("no more output: {errors}")
            }
        }
    }

    async fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn write(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        input.write_all(b"\n").await.unwrap();
    }

    /// Waits until a line with this text is in the log, and returns the line.
    async fn logged(&mut self, what: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let read = limit(self.errors.read_line(&mut line)).await.unwrap();
            assert!(read > 0, "{what} is not in the log: {seen}");
            if line.contains(what) {
                return line;
            }
            seen += &line;
        }
    }

    /// The most memory that it has taken, in KiB.
    #[cfg(target_os = "linux")]
    fn peak(&self) -> usize {
        let status = format!("/proc/{}/status", self.process.id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(self.process.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        limit(self.process.wait()).await.unwrap()
    }
}

/// Waits until the process with this id has ended.
async fn gone(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let ended = async {
        // One that is not reaped yet has ended too.
        while rustix::process::test_kill_process(pid).is_ok()
            && !is_zombie(pid.as_raw_nonzero().get())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), ended)
        .await
        .unwrap_or_else(|_| panic!("{pid:?} is still there"));
}

fn is_zombie(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Calls the tool `pid` of the server at `url`.
async fn pid(url: &str) -> String {
    let called = run(&["call", url, "pid", "a=1"]).await;
    assert!(called.status.success(), "{}", text(&called.stderr));
    text(&called.stdout).trim().to_owned()
}
