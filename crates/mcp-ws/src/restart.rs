//! [`Restarting`]: the end of a relay whose child is started again when it has ended by itself.
//!
//! | state | what the client says | what the child says | goes on to |
//! |---|---|---|---|
//! | `Running` | is written | is passed on | `Waiting`, when the child has ended |
//! | `Waiting` for the time of the backoff | waits | | `Starting` |
//! | `Starting`, once there is room for a process | waits | | `Initializing`; `Running`, where the client has not initialized |
//! | `Initializing`: the client's `initialize` is repeated | waits | is passed on, but for the answer | `Running`; `Waiting`, when the child has ended or refuses; `Over` after 30 s |
//! | `Over`: it has ended too often | is refused | | |

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
const MOST: usize = 5;

const WINDOW: Duration = Duration::from_secs(60);

/// Wait before the first of those times, which doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Time that a child has to answer the `initialize` that is repeated.
const INITIALIZE: Duration = Duration::from_secs(30);

/// Function that starts a child.
pub(crate) type Start = Box<dyn Fn() -> BoxFuture<'static, io::Result<Child>> + Send>;

/// State of the child; see the [module](self).
enum State {
    Running(Child),
    Waiting(Pin<Box<Sleep>>),
    Starting(BoxFuture<'static, io::Result<Child>>),
    Initializing { child: Child, id: RequestId, deadline: Pin<Box<Sleep>> },
    Over,
}

/// End of a relay over one child after the other, for one client.
pub(crate) struct Restarting {
    /// Name in the log.
    name: String,
    start: Start,
    state: State,
    conversation: Conversation,
    /// Messages of this side for the client.
    told: VecDeque<RawMessage>,
    /// Times at which the child was started again, within [`WINDOW`].
    restarts: VecDeque<Instant>,
    /// Whether this side has written something of its own that is not flushed.
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
            restarts: VecDeque::new(),
            is_unflushed: false,
            writer: None,
        }
    }

    /// Tells the client what has ended with its child, and waits before the next is started.
    fn on_end(&mut self) {
        self.told.extend(self.conversation.on_end());
        let now = Instant::now();
        self.restarts.retain(|at| now.duration_since(*at) < WINDOW);
        let before = self.restarts.len();
        if before >= MOST {
            tracing::error!("{}: {}", self.name, too_often());
            return self.give_up();
        }
        self.restarts.push_back(now);
        let wait = FIRST_WAIT * (1 << before);
        tracing::warn!("{}: started again in {wait:?} ({} of {MOST})", self.name, before + 1);
        self.state = State::Waiting(Box::pin(sleep(wait)));
    }

    fn give_up(&mut self) {
        self.go_on(State::Over);
    }

    /// Goes on to a state in which messages are written, or refused.
    fn go_on(&mut self, state: State) {
        self.state = state;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Has a child that was started initialized, if its client has.
    fn on_started(&mut self, mut child: Child) {
        let Some(initialize) = self.conversation.initialize() else {
            return self.go_on(State::Running(child));
        };
        let id = initialize.id.clone();
        if let Err(error) = child.start_send_unpin(JsonRpcMessage::Request(initialize)) {
            tracing::warn!(%error, "{}: `initialize` is not repeated", self.name);
            return self.on_end();
        }
        self.is_unflushed = true;
        self.state = State::Initializing { child, id, deadline: Box::pin(sleep(INITIALIZE)) };
    }

    /// Goes on with a child that has answered the repeated `initialize`.
    fn on_initialized(&mut self, is_error: bool) {
        let State::Initializing { mut child, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return;
        };
        if is_error {
            tracing::warn!("{}: refuses the `initialize` that is repeated", self.name);
            return self.on_end();
        }
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
                    self.on_end();
                }
            },
            State::Initializing { deadline, .. } => {
                ready!(deadline.as_mut().poll(cx));
                tracing::error!("{}: no answer to `initialize` within {INITIALIZE:?}", self.name);
                self.give_up();
            }
            State::Running(_) | State::Over => return Poll::Pending,
        }
        Poll::Ready(())
    }
}

impl Stream for Restarting {
    type Item = Result<RawMessage, Malformed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.told.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            self.poll_flush_own(cx);
            let (child, repeated) = match &mut self.state {
                State::Running(child) => (child, None),
                State::Initializing { child, id, .. } => (child, Some(id.clone())),
                State::Over => return Poll::Ready(None),
                State::Waiting(_) | State::Starting(_) => {
                    ready!(self.poll_start(cx));
                    continue;
                }
            };
            match child.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => match answer(&message, repeated.as_ref()) {
                    Some(is_error) => self.on_initialized(is_error),
                    None => return Poll::Ready(Some(Ok(self.conversation.on_child(message)))),
                },
                Poll::Ready(Some(Err(malformed))) => {
                    self.conversation.on_malformed(&malformed);
                    return Poll::Ready(Some(Err(malformed)));
                }
                Poll::Ready(None) => self.on_end(),
                Poll::Pending => ready!(self.poll_start(cx)),
            }
        }
    }
}

impl Sink<RawMessage> for Restarting {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Running(child) => {
                if ready!(child.poll_ready_unpin(cx)).is_ok() {
                    return Poll::Ready(Ok(()));
                }
                // It reads no more.
                self.on_end();
                cx.waker().wake_by_ref();
            }
            State::Over => return Poll::Ready(Err(io::Error::other(too_often()))),
            State::Waiting(_) | State::Starting(_) | State::Initializing { .. } => {}
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
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
            self.on_end();
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Running(child) | State::Initializing { child, .. } => child.poll_close_unpin(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Returns whether `message` is an error, if it is the answer to the `repeated` request.
fn answer(message: &RawMessage, repeated: Option<&RequestId>) -> Option<bool> {
    let repeated = repeated?;
    match message {
        JsonRpcMessage::Response(response) if response.id == *repeated => {
            Some(response.result.result().is_err())
        }
        JsonRpcMessage::Error(error) if error.id.as_ref() == Some(repeated) => Some(true),
        _ => None,
    }
}

fn too_often() -> String {
    format!("has ended {} times within {} s: not started again", MOST + 1, WINDOW.as_secs())
}
