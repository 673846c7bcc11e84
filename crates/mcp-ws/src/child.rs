//! [`Program`] and [`Child`]: an MCP server on standard streams, as the end of a relay.
//!
//! | what happens | what becomes of the child |
//! |---|---|
//! | the relay ends, and the [`Child`] is dropped | its standard input is closed; 2 s later SIGTERM; 2 s later SIGKILL |
//! | it ends by itself | its status and the last lines of its standard error are logged, and its process group is ended |
//! | this process ends, however that may be | the [guard](crate::guard) ends its process group |

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    path::PathBuf,
    pin::Pin,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use mcp_ws_transport::{
    decode::Malformed,
    relay::{Lines, RawMessage},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{OwnedSemaphorePermit, oneshot},
    task::{JoinHandle, coop::has_budget_remaining},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    failure::{Failure, Kind, one_line},
    group::Group,
    guard::Guard,
};

/// Time after each step of stopping a child.
const GRACE: Duration = Duration::from_secs(2);

/// Lines of the standard error that are logged with the end of a child.
const TAIL_LINES: usize = 10;

/// Time in which those may arrive once the child has ended.
const TAIL_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes of such a line that are logged as one, at most.
const MAX_LINE: u64 = 4 << 10;

/// Command of an MCP server that speaks by its standard streams.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Name in the log.
    pub(crate) name: String,
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) folder: Option<PathBuf>,
}

impl Program {
    /// Creates the program that a command line names: the command first, then its arguments.
    pub(crate) fn of(command_line: &[String]) -> Result<Self, Failure> {
        let [command, arguments @ ..] = command_line else {
            return Err(Failure::usage("no command"));
        };
        Ok(Self {
            name: command.rsplit(['/', '\\']).next().unwrap_or(command).to_owned(),
            command: command.clone(),
            arguments: arguments.to_vec(),
            environment: BTreeMap::new(),
            folder: None,
        })
    }

    /// Fails if there is no such command to be started.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let error = match self.find() {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let what = format!("{:?} cannot be started: {error}", self.command);
        Err(Failure::new(Kind::Command, what))
    }

    /// Returns the file of the command, which on Windows may be an `npx.cmd` for `npx`.
    fn find(&self) -> io::Result<PathBuf> {
        let folder = self.folder.as_deref().unwrap_or(".".as_ref());
        let path =
            self.environment.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH"));
        let found = which::which_in(&self.command, path, folder);
        // The child has another folder.
        std::path::absolute(found.map_err(io::Error::other)?)
    }

    /// Starts a child, over which `guard` watches, and which is supervised by one of `tasks`. The
    /// `permit` is given back when it has ended, with all of its process group.
    pub(crate) fn start(
        &self,
        guard: &Guard,
        tasks: &TaskTracker,
        permit: Option<OwnedSemaphorePermit>,
    ) -> io::Result<Child> {
        let mut command = Command::new(self.find()?);
        // The token of this process is not for the server, which might tell it.
        command.args(&self.arguments).env_remove("MCP_WS_BEARER").envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.kill_on_drop(true);
        #[cfg(unix)]
        command.arg0(&self.command).process_group(0);
        let mut process = command.spawn()?;
        let group = Group::of(&process);
        guard.watch(group);
        let streams = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(io::Error::other("no standard streams"));
        };
        let label = format!("{} {}", self.name, process.id().unwrap_or_default());
        tracing::info!("{label}: started");
        let tail = Tail::default();
        let mut logging = tokio::spawn(log_stderr(stderr, label.clone(), tail.clone()));
        let (left, has_left) = oneshot::channel();
        let (over, ended) = oneshot::channel();
        let guard = guard.clone();
        tasks.spawn(async move {
            supervise(process, group, has_left, &label, (&tail, &mut logging)).await;
            // What has left the group may hold the standard streams open for ever.
            logging.abort();
            guard.forget(group);
            drop::<oneshot::Sender<()>>(over);
            drop(permit);
        });
        Ok(Child { lines: Lines::new(stdout, stdin), ended: Some(ended), left: Some(left) })
    }
}

/// Standard streams of a running child, which is stopped when they are dropped.
pub(crate) struct Child {
    lines: Lines<ChildStdout, ChildStdin>,
    /// Resolves when the process has ended, with all of its group; `None` once that is known.
    ended: Option<oneshot::Receiver<()>>,
    /// Told when the process has closed its output, and dropped when the relay has ended.
    left: Option<oneshot::Sender<()>>,
}

impl Stream for Child {
    type Item = Result<RawMessage, Malformed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Before the lines: all that the process has written is in the pipe when it has ended.
        let has_ended = match &mut self.ended {
            Some(ended) => ended.poll_unpin(cx).is_ready(),
            None => true,
        };
        if has_ended {
            self.ended = None;
        }
        match self.lines.poll_next_unpin(cx) {
            Poll::Ready(None) => {
                if let Some(left) = self.left.take() {
                    let _ = left.send(());
                }
                Poll::Ready(None)
            }
            Poll::Pending if has_ended && has_budget_remaining() => Poll::Ready(None),
            line => line,
        }
    }
}

impl Sink<RawMessage> for Child {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lines.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: RawMessage) -> io::Result<()> {
        self.lines.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lines.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lines.poll_close_unpin(cx)
    }
}

/// The last lines that a child has written on its standard error.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Logs what a child writes on its standard error.
async fn log_stderr(stderr: ChildStderr, label: String, tail: Tail) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stderr).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = one_line(&String::from_utf8_lossy(&line));
        tracing::info!("{label}: {line}");
        tail.add(line);
    }
}

/// Waits for the end of a child, and stops it when the relay has ended. `has_left` resolves then,
/// without a value where its [`Child`] was dropped before it had closed its output.
async fn supervise(
    mut process: tokio::process::Child,
    group: Group,
    has_left: oneshot::Receiver<()>,
    label: &str,
    (tail, logging): (&Tail, &mut JoinHandle<()>),
) {
    let (status, is_by_itself) = tokio::select! {
        status = process.wait() => (Some(status), true),
        left = has_left => (timeout(GRACE, process.wait()).await.ok(), left.is_ok()),
    };
    if let Some(status) = status.as_ref().filter(|_| is_by_itself) {
        // Until it has closed its standard error, which what it has started may hold open.
        let _ = timeout(TAIL_TIMEOUT, logging).await;
        tracing::warn!("{label}: ended by itself, {}{tail}", describe(status));
    } else if status.is_none() {
        tracing::info!("{label}: still there, SIGTERM");
        group.terminate();
        if timeout(GRACE, process.wait()).await.is_err() {
            tracing::warn!("{label}: still there, SIGKILL");
            group.kill();
            let _ = process.start_kill();
            let _ = process.wait().await;
        }
    }
    // What it has started itself may still be there.
    if group.is_alive() {
        group.terminate();
        let mut waited = Duration::ZERO;
        while group.is_alive() && waited < GRACE {
            let step = Duration::from_millis(20);
            tokio::time::sleep(step).await;
            waited += step;
        }
        group.kill();
    }
    tracing::info!("{label}: stopped");
}

fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
