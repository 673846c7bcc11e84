//! [`GuardedService`]: a service whose running handlers are counted, and can be stopped.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::{self, BoxFuture};
use pin_project_lite::pin_project;
use rmcp::{
    ErrorData, Service,
    model::ProtocolVersion,
    service::{NotificationContext, RequestContext},
};
use serde_json::json;
use tokio::{
    sync::Notify,
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    catch_panic::CatchPanic,
    rpc_code::{TIMED_OUT, UNAVAILABLE},
    server::role::HostedRole,
};

/// Unit of [`RunningHandlers::running`] for a handler that ends by itself.
const ONE: u64 = 1;

/// Unit of [`RunningHandlers::running`] for a handler that runs until it is stopped.
const ONE_OPEN_ENDED: u64 = ONE | 1 << 32;

/// Handlers of one connection that run.
#[derive(Debug, Default)]
pub(in crate::server) struct RunningHandlers {
    /// Two counts that change at once: all in the lower half, open-ended ones in the upper.
    running: AtomicU64,
    /// `true` once no more may begin.
    draining: AtomicBool,
    idle: Notify,
    abort: CancellationToken,
    /// Time that each may take that ends by itself.
    timeout: Option<Duration>,
}

impl RunningHandlers {
    /// Creates an empty set of handlers, each of which may take as long as `timeout`.
    pub(in crate::server) fn within(timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { timeout, ..Self::default() })
    }

    /// Returns `true` if no handler runs that ends by itself.
    pub(in crate::server) fn is_idle(&self) -> bool {
        calls(self.running.load(SeqCst)) == 0
    }

    /// Lets no more begin, and resolves when all that run have ended but open-ended ones.
    pub(in crate::server) async fn drained(&self) {
        self.draining.store(true, SeqCst);
        while !self.is_idle() {
            self.idle.notified().await;
        }
    }

    /// Returns the number of running handlers that go on until they are stopped.
    pub(in crate::server) fn open_ended(&self) -> usize {
        open_ended(self.running.load(SeqCst))
    }

    /// Drops all running handlers, at whatever they wait for.
    pub(in crate::server) fn abort(&self) {
        self.abort.cancel();
    }

    /// Resolves when all that run are dropped.
    pub(super) async fn aborted(&self) {
        self.abort.cancelled().await;
    }

    /// Counts a handler that begins, and runs until it is stopped if it `is_open_ended`.
    ///
    /// # Errors
    /// The answer to its request, once no more may begin.
    pub(super) fn begin(self: &Arc<Self>, is_open_ended: bool) -> Result<HandlerGuard, ErrorData> {
        let one = if is_open_ended { ONE_OPEN_ENDED } else { ONE };
        self.running.fetch_add(one, SeqCst);
        let running = HandlerGuard { handlers: self.clone(), one };
        // Only now that it counts: `drained` may have found none just before.
        if self.draining.load(SeqCst) {
            return Err(refusal("stopping", "the server is stopping"));
        }
        Ok(running)
    }
}

fn all(running: u64) -> usize {
    (running & u64::from(u32::MAX)) as usize
}

fn open_ended(running: u64) -> usize {
    (running >> 32) as usize
}

/// Returns the number of handlers that end by themselves.
fn calls(running: u64) -> usize {
    all(running) - open_ended(running)
}

fn refusal(reason: &str, message: &'static str) -> ErrorData {
    ErrorData::new(UNAVAILABLE, message, Some(json!({ "reason": reason })))
}

/// Builds the error for a request that is not answered before the connection closes.
pub(super) fn closed_before_answer() -> ErrorData {
    refusal("outcome_unknown", "the connection was closed before the request was answered")
}

/// Guard of a counted handler: dropping it ends the count.
pub(super) struct HandlerGuard {
    handlers: Arc<RunningHandlers>,
    one: u64,
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        let before = self.handlers.running.fetch_sub(self.one, SeqCst);
        // `drained` sets the flag before it looks at the count.
        if self.handlers.draining.load(SeqCst) && calls(before - self.one) == 0 {
            self.handlers.idle.notify_one();
        }
    }
}

/// Service whose handlers are counted and can be stopped.
pub(in crate::server) struct GuardedService<S> {
    service: CatchPanic<S>,
    handlers: Arc<RunningHandlers>,
}

impl<S> GuardedService<S> {
    pub(in crate::server) fn new(service: S, handlers: Arc<RunningHandlers>) -> Self {
        Self { service: CatchPanic::new(service), handlers }
    }
}

impl<R: HostedRole, S: Service<R>> Service<R> for GuardedService<S> {
    fn handle_request(
        &self,
        request: R::PeerReq,
        context: RequestContext<R>,
    ) -> impl Future<Output = Result<R::Resp, ErrorData>> + Send + '_ {
        let is_open_ended = R::is_open_ended(&request);
        // Boxed: rmcp moves the future several times before it is polled.
        let handling: BoxFuture<'_, _> = match self.handlers.begin(is_open_ended) {
            Ok(running) => {
                let handler = self.service.handle_request(request, context);
                let time = self.handlers.timeout.filter(|_| !is_open_ended);
                let timer = time.map(|time| Box::pin(sleep(time)));
                Box::pin(HandlerFuture { handler, running, abort: None, timer })
            }
            Err(error) => Box::pin(future::ready(Err(error))),
        };
        handling
    }

    async fn handle_notification(
        &self,
        notification: R::PeerNot,
        context: NotificationContext<R>,
    ) -> Result<(), ErrorData> {
        tokio::select! {
            biased;
            outcome = self.service.handle_notification(notification, context) => outcome,
            () = self.handlers.abort.cancelled() => Ok(()),
        }
    }

    fn get_info(&self) -> R::Info {
        self.service.get_info()
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.service.supported_protocol_versions()
    }
}

pin_project! {
    /// Future of a handler that may be stopped.
    struct HandlerFuture<F> {
        #[pin]
        handler: F,
        running: HandlerGuard,
        // Made at the first poll that finds the handler pending.
        abort: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<T, F: Future<Output = Result<T, ErrorData>>> Future for HandlerFuture<F> {
    type Output = Result<T, ErrorData>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.handler.poll(cx) {
            return Poll::Ready(outcome);
        }
        if let Some(timer) = this.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            let data = json!({ "reason": "timed_out" });
            let what = "the request took too long";
            return Poll::Ready(Err(ErrorData::new(TIMED_OUT, what, Some(data))));
        }
        let abort = this
            .abort
            .get_or_insert_with(|| Box::pin(this.running.handlers.abort.clone().cancelled_owned()));
        ready!(abort.as_mut().poll(cx));
        Poll::Ready(Err(closed_before_answer()))
    }
}
