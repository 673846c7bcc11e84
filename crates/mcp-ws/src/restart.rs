//! [`Restarting`]: the end of a relay whose child is started again when it has ended by itself.
//!
//! | state | what the client says | what the child says | goes on to |
//! |---|---|---|---|
//! | `Running` | is written | is passed on | `Waiting`, when the child has ended; `Unwritable`, when it cannot be written to |
//! | `Unwritable`: the child may have answered before | waits | is passed on | `Waiting`, when the child has ended, or after 2 s |
//! | `Waiting` for the time of the backoff | waits | | `Starting` |
//! | `Starting`, once there is room for a process | waits | | `Initializing`; `Running`, where the client has not initialized |
//! | `Initializing`: the client's `initialize` is repeated | waits | is passed on, but for the answer | `Running`; `Waiting`, when the child has ended or refuses; `Over` after 30 s |
//! | `Over`: it has ended too often, or does not answer | is refused | | |
//!
//! A relay which has too much to write reads no more, so the states in which it cannot write are
//! driven by writing as well; what the child says meanwhile is kept.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt, future::BoxFuture};
use mcp_ws_transport::{decode::Malformed, relay::RawMessage};
use rmcp::model::{JsonRpcMessage, RequestId};
use tokio::time::{Instant, Sleep, sleep};

use crate::{child::Child, conversation::Conversation};

/// Times that a child is started again within [`WINDOW`].
const MAX_RESTARTS: usize = 5;

const WINDOW: Duration = Duration::from_secs(60);

/// Wait before the first of those times, which doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Time that a child has to answer the `initialize` that is repeated.
const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time in which the rest of a child is read that cannot be written to any more.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages of the child that are kept while nobody reads them.
const MAX_KEPT: usize = 64;

/// Function that starts a child.
pub(crate) type Start = Box<dyn Fn() -> BoxFuture<'static, io::Result<Child>> + Send>;

/// State of the child; see the [module](self).
enum State {
    Running(Child),
    Unwritable {
        child: Child,
        deadline: Pin<Box<Sleep>>,
    },
    Waiting(Pin<Box<Sleep>>),
    Starting(BoxFuture<'static, io::Result<Child>>),
    Initializing {
        child: Child,
        id: RequestId,
        deadline: Pin<Box<Sleep>>,
    },
    /// The reason why no other child is started.
    Over(String),
}

/// End of a relay over one child after the other, for one client.
pub(crate) struct Restarting {
    /// Name in the log.
    name: String,
    start: Start,
    state: State,
    conversation: Conversation,
    /// Messages for the client that wait, of this side or of the child.
    told: VecDeque<Result<RawMessage, Malformed>>,
    /// Steps that have added to those since the client was last told all.
    kept: usize,
    /// Times at which the child was started again, within [`WINDOW`].
    restarts: VecDeque<Instant>,
    /// `true` while something that this side has written of its own is not flushed.
    is_unflushed: bool,
    /// Whoever waits to write.
    writer: Option<Waker>,
}

impl Restarting {
    /// Creates the end over a running `child`, whose successors are made by `start`.
    pub(crate) fn new(name: String, child: Child, start: Start) -> Self {
        Self {
            name,
            start,
            state: State::Running(child),
            conversation: Conversation::default(),
            told: VecDeque::new(),
            kept: 0,
            restarts: VecDeque::new(),
            is_unflushed: false,
            writer: None,
        }
    }

    /// Tells the client what has ended with its child, for the reason `why`, and waits before the
    /// next is started.
    fn on_end(&mut self, why: &str) {
        self.told.extend(self.conversation.on_end().into_iter().map(Ok));
        let now = Instant::now();
        self.restarts.retain(|at| now.duration_since(*at) < WINDOW);
        let before = self.restarts.len();
        if before >= MAX_RESTARTS {
            return self.give_up(too_often(why));
        }
        self.restarts.push_back(now);
        let wait = FIRST_WAIT * (1 << before);
        tracing::warn!(
            "{}: started again in {wait:?} ({} of {MAX_RESTARTS})",
            self.name,
            before + 1
        );
        self.state = State::Waiting(Box::pin(sleep(wait)));
    }

    fn give_up(&mut self, why: String) {
        tracing::error!("{}: {why}", self.name);
        self.go_on(State::Over(why));
    }

    /// Reads the rest of the running child, which cannot be written to.
    fn on_unwritable(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Over(String::new()));
        self.state = match state {
            State::Running(child) => {
                tracing::info!("{}: reads no more", self.name);
                State::Unwritable { child, deadline: Box::pin(sleep(DRAIN_TIMEOUT)) }
            }
            state => state,
        };
    }

    /// Goes on to a state in which messages are written, or refused.
    fn go_on(&mut self, state: State) {
        self.state = state;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Initializes a child that was started, if its client has initialized.
    fn on_started(&mut self, mut child: Child) {
        let Some(initialize) = self.conversation.initialize() else {
            return self.go_on(State::Running(child));
        };
        let id = initialize.id.clone();
        if let Err(error) = child.start_send_unpin(JsonRpcMessage::Request(initialize)) {
            tracing::warn!(%error, "{}: `initialize` is not repeated", self.name);
            return self.on_end("it cannot be written to");
        }
        self.is_unflushed = true;
        self.state =
            State::Initializing { child, id, deadline: Box::pin(sleep(INITIALIZE_TIMEOUT)) };
    }

    /// Goes on with a child that has answered the repeated `initialize`.
    fn on_initialized(&mut self, is_error: bool) {
        if is_error {
            tracing::warn!("{}: refuses the `initialize` that is repeated", self.name);
            return self.on_end("it refuses the `initialize` that is repeated");
        }
        let state = std::mem::replace(&mut self.state, State::Over(String::new()));
        let State::Initializing { mut child, .. } = state else { return self.state = state };
        if let Some(initialized) = self.conversation.initialized() {
            self.is_unflushed = true;
            if let Err(error) = child.start_send_unpin(initialized) {
                tracing::debug!(%error, "{}: not told that it is initialized", self.name);
            }
        }
        self.go_on(State::Running(child));
    }

    /// Flushes what this side has written of its own.
    fn poll_flush_own(&mut self, cx: &mut Context<'_>) {
        let (State::Running(child) | State::Initializing { child, .. }) = &mut self.state else {
            return;
        };
        // The end of a child that does not read is seen by reading.
        if self.is_unflushed && child.poll_flush_unpin(cx).is_ready() {
            self.is_unflushed = false;
        }
    }

    /// Drives the states in which there is nothing to pass on. Ready when another is reached.
    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Waiting(timer) => {
                ready!(timer.as_mut().poll(cx));
                self.state = State::Starting((self.start)());
            }
            State::Starting(starting) => match ready!(starting.poll_unpin(cx)) {
                Ok(child) => self.on_started(child),
                Err(error) => {
                    tracing::warn!("{}: cannot be started: {error}", self.name);
                    self.on_end(&format!("it cannot be started: {error}"));
                }
            },
            State::Unwritable { deadline, .. } => {
                ready!(deadline.as_mut().poll(cx));
                self.on_end("it reads no more");
            }
            State::Initializing { deadline, .. } => {
                ready!(deadline.as_mut().poll(cx));
                self.give_up(format!("no answer to `initialize` within {INITIALIZE_TIMEOUT:?}"));
            }
            State::Running(_) | State::Over(_) => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// Reads what the child says. Ready when that was something, or its end.
    fn poll_child(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (State::Running(child)
        | State::Unwritable { child, .. }
        | State::Initializing { child, .. }) = &mut self.state
        else {
            return Poll::Pending;
        };
        match ready!(child.poll_next_unpin(cx)) {
            Some(said) => self.on_said(said),
            None => self.on_end("its output has ended"),
        }
        Poll::Ready(())
    }

    /// Tells the client what the child has said, but for the answer to the repeated `initialize`.
    fn on_said(&mut self, said: Result<RawMessage, Malformed>) {
        if let State::Initializing { id, .. } = &self.state
            && let Some(is_error) = answer(&said, id)
        {
            return self.on_initialized(is_error);
        }
        self.told.push_back(match said {
            Ok(message) => Ok(self.conversation.on_child(message)),
            Err(malformed) => {
                self.conversation.on_malformed(&malformed);
                Err(malformed)
            }
        });
    }

    /// Drives the state by one step. Ready when there may be another.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flush_own(cx);
        if self.poll_child(cx).is_ready() {
            return Poll::Ready(());
        }
        self.poll_start(cx)
    }

    /// Drives the state where nobody may be reading. Ready when there may be another step.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.kept >= MAX_KEPT {
            return self.poll_start(cx);
        }
        let before = self.told.len();
        ready!(self.poll_step(cx));
        if self.told.len() > before {
            self.kept += 1;
            // Whoever does read may have looked before.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(())
    }
}

impl Stream for Restarting {
    type Item = Result<RawMessage, Malformed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(said) = self.told.pop_front() {
                return Poll::Ready(Some(said));
            }
            self.kept = 0;
            if let State::Over(_) = self.state {
                return Poll::Ready(None);
            }
            ready!(self.poll_step(cx));
        }
    }
}

impl Sink<RawMessage> for Restarting {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Running(child) => {
                    if ready!(child.poll_ready_unpin(cx)).is_ok() {
                        return Poll::Ready(Ok(()));
                    }
                    self.on_unwritable();
                }
                State::Over(why) => return Poll::Ready(Err(io::Error::other(why.clone()))),
                State::Unwritable { .. }
                | State::Waiting(_)
                | State::Starting(_)
                | State::Initializing { .. } => {
                    if self.poll_unread(cx).is_pending() {
                        self.writer = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn start_send(mut self: Pin<&mut Self>, message: RawMessage) -> io::Result<()> {
        let Some(message) = self.conversation.on_client(message) else { return Ok(()) };
        match &mut self.state {
            State::Running(child) => child.start_send_unpin(message),
            _ => Ok(()),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Running(child) = &mut self.state
            && ready!(child.poll_flush_unpin(cx)).is_err()
        {
            self.on_unwritable();
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Running(child) | State::Initializing { child, .. } => child.poll_close_unpin(cx),
            State::Unwritable { .. } | State::Waiting(_) | State::Starting(_) | State::Over(_) => {
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// Returns whether a child refuses the `repeated` request, if what it has `said` is the answer. An
/// answer without an id is: the child was asked nothing else.
fn answer(said: &Result<RawMessage, Malformed>, repeated: &RequestId) -> Option<bool> {
    match said {
        Ok(JsonRpcMessage::Response(response)) if response.id == *repeated => {
            Some(response.result.result().is_err())
        }
        Ok(JsonRpcMessage::Error(error)) if error.id.as_ref().is_none_or(|id| id == repeated) => {
            Some(true)
        }
        Err(malformed) => {
            let is_answer = malformed.is_response()
                && malformed.id.as_ref().is_none_or(|id| id == repeated)
                || malformed.answers.contains(repeated);
            is_answer.then_some(true)
        }
        _ => None,
    }
}

/// Returns the reason for not starting a child again, which has ended last for the reason `why`.
fn too_often(why: &str) -> String {
    let (times, seconds) = (MAX_RESTARTS + 1, WINDOW.as_secs());
    format!("has ended {times} times within {seconds} s, now because {why}: not started again")
}

#[cfg(all(test, unix))]
mod tests {
    use futures::future::poll_fn;
    use mcp_ws_transport::relay::parse;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{child::Program, guard::Guard};

    #[test]
    fn an_answer_to_what_is_repeated_may_have_no_id_or_be_unreadable() {
        let repeated = RequestId::String("r".into());
        for (said, expected) in [
            (r#"{"jsonrpc":"2.0","id":"r","result":{}}"#, Some(false)),
            (r#"{"jsonrpc":"2.0","id":"r","error":{"code":1,"message":"m"}}"#, Some(true)),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}"#, Some(true)),
            (r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#, Some(true)),
            (r#"{"jsonrpc":"2.0","id":"r","result":{},"error":5}"#, Some(true)),
            (r#"[{"jsonrpc":"2.0","id":"r","result":{}}]"#, Some(true)),
            (r#"{"jsonrpc":"2.0","id":"s","result":{}}"#, None),
            (r#"{"jsonrpc":"2.0","id":"s","error":{"code":1,"message":"m"}}"#, None),
            (r#"{"jsonrpc":"2.0","id":"r","method":"m"}"#, None),
            (r#"{"jsonrpc":"2.0","id":"r","method":5}"#, None),
            ("Server started", None),
        ] {
            assert_eq!(answer(&parse(said), &repeated), expected, "{said}");
        }
    }

    /// Starts a shell with this script.
    fn shell(script: &str) -> io::Result<Child> {
        let command = ["sh", "-c", script].map(str::to_owned);
        let program = Program::of(&command).expect("a program");
        program.start(&Guard::start()?, &TaskTracker::new(), None)
    }

    #[tokio::test]
    async fn the_next_child_is_started_and_initialized_while_nobody_reads() {
        const NEXT: &str = r#"for _ in 1 2 3; do echo '{"jsonrpc":"2.0","method":"n"}'; done
            read -r line
            echo '{"jsonrpc":"2.0","id":"initialize of child 1","result":{}}'
            cat >/dev/null"#;
        let answer = r#"read -r line; echo '{"jsonrpc":"2.0","id":1,"result":{}}'"#;
        let start: Start = Box::new(|| async { shell(NEXT) }.boxed());
        let mut end = Restarting::new("test".into(), shell(answer).expect("a child"), start);
        let run = async {
            let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
            end.send(parse(initialize).expect("a message")).await.expect("sent");
            end.next().await.expect("an answer").expect("a message");
            // What is written to nobody begins it.
            while end.conversation.initialize().is_some_and(|initialize| {
                initialize.id == RequestId::String("initialize of child 0".into())
            }) {
                let message = r#"{"jsonrpc":"2.0","id":2,"method":"m"}"#;
                end.send(parse(message).expect("a message")).await.expect("sent");
                tokio::task::yield_now().await;
            }
            poll_fn(|cx| end.poll_ready_unpin(cx)).await.expect("ready");
            assert!(matches!(end.state, State::Running(_)));
            // The end of the request, and what the child has said.
            assert_eq!(end.told.len(), 4);
        };
        timeout(Duration::from_secs(20), run).await.expect("a test that hangs");
    }
}
