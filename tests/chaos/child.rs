//! Servers and clients, as processes that end with this one.

use std::{
    fs::OpenOptions,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

/// Time in which a server begins to listen, and in which it stops.
const LIMIT: Duration = Duration::from_secs(60);

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// It ends when this is closed.
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts a command line with further arguments. Its standard error is appended to `log`.
    fn new(command: &[String], arguments: &[String], stdout: Stdio, log: &Path) -> Self {
        let log = OpenOptions::new().append(true).create(true).open(log).unwrap();
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        Self { child, _stdin: stdin }
    }

    pub fn client(command: &[String], arguments: &[String], log: &Path) -> Self {
        Self::new(command, arguments, Stdio::null(), log)
    }

    /// Starts a server. Returns its process and its address, which it prints when it listens.
    pub async fn server(
        command: &[String],
        arguments: &[String],
        log: &Path,
    ) -> (Self, SocketAddr) {
        let mut process = Self::new(command, arguments, Stdio::piped(), log);
        let mut lines = BufReader::new(process.child.stdout.take().unwrap()).lines();
        let address = timeout(LIMIT, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("a server that listens");
                if let Some(address) = line.strip_prefix("listening on ") {
                    return address.parse().unwrap();
                }
            }
        });
        let address = address.await.expect("a server that listens");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        (process, address)
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Ends it at once: SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to end by SIGTERM, and waits until it has. Returns what is wrong with that.
    #[cfg(unix)]
    pub async fn terminate(&mut self) -> Option<String> {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        match timeout(LIMIT, self.ended()).await {
            Ok(status) => (!status.success()).then(|| format!("a server stops with {status}")),
            Err(_) => Some(format!("a server does not stop within {LIMIT:?}")),
        }
    }

    /// Ends it at once, as there is no signal for more.
    #[cfg(not(unix))]
    pub async fn terminate(&mut self) -> Option<String> {
        self.kill().await;
        None
    }
}

/// Waits until the process that has started this one has ended.
pub async fn orphaned() {
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
}

/// Logs what `RUST_LOG` asks for, and nothing by default.
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
