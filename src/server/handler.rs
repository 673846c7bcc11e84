//! What stands between rmcp's loop and a service: a handler that panics ends its own call, and those
//! that run are counted.

use std::{
    any::Any,
    borrow::Cow,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::FutureExt;
use rmcp::{
    ErrorData, Service,
    model::ProtocolVersion,
    service::{NotificationContext, RequestContext},
};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::role::Hosted;
use crate::layer::correlation::UNAVAILABLE;

/// The handlers of one connection that run.
#[derive(Debug, Default)]
pub(super) struct Handlers {
    running: AtomicUsize,
    /// Those of them that end by themselves.
    calls: AtomicUsize,
    /// No more are begun.
    draining: AtomicBool,
    idle: Notify,
    cut: CancellationToken,
}

impl Handlers {
    /// Whether none runs now.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Acquire) == 0
    }

    /// Lets no more begin, and resolves when those that run have ended. Those that go on until
    /// somebody stops them are not waited for.
    pub(super) async fn drained(&self) {
        self.draining.store(true, Ordering::Release);
        while !self.is_idle() {
            self.idle.notified().await;
        }
    }

    /// Drops all that run, wherever they are.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    fn begin(&self, limit: usize, is_call: bool) -> Result<Running<'_>, ErrorData> {
        let refusal = |reason: &str, message: &'static str| {
            ErrorData::new(UNAVAILABLE, message, Some(json!({ "reason": reason })))
        };
        if self.draining.load(Ordering::Acquire) {
            return Err(refusal("stopping", "the server is stopping"));
        }
        let running = Running { handlers: self, is_call };
        self.calls.fetch_add(is_call.into(), Ordering::AcqRel);
        if self.running.fetch_add(1, Ordering::AcqRel) >= limit {
            return Err(refusal("too_many_requests", "too many requests in flight"));
        }
        Ok(running)
    }
}

/// Counts as long as it lives.
struct Running<'a> {
    handlers: &'a Handlers,
    is_call: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.handlers.running.fetch_sub(1, Ordering::AcqRel);
        if self.is_call && self.handlers.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.handlers.idle.notify_one();
        }
    }
}

/// A service whose handlers are watched.
pub(super) struct Watched<S> {
    service: S,
    handlers: Arc<Handlers>,
    /// How many may run. A request that was cancelled no longer counts as in flight, but its handler
    /// does as long as it runs.
    limit: usize,
}

impl<S> Watched<S> {
    pub(super) fn new(service: S, handlers: Arc<Handlers>, limit: usize) -> Self {
        Self { service, handlers, limit }
    }
}

impl<R: Hosted, S: Service<R>> Service<R> for Watched<S> {
    async fn handle_request(
        &self,
        request: R::PeerReq,
        context: RequestContext<R>,
    ) -> Result<R::Resp, ErrorData> {
        let _running = self.handlers.begin(self.limit, !R::is_open_ended(&request))?;
        let handler =
            AssertUnwindSafe(async { self.service.handle_request(request, context).await });
        tokio::select! {
            biased;
            outcome = handler.catch_unwind() => outcome.unwrap_or_else(|panic| {
                tracing::error!(panic = words(&*panic), "a handler panicked");
                Err(ErrorData::internal_error("the handler panicked", None))
            }),
            () = self.handlers.cut.cancelled() => {
                Err(ErrorData::internal_error("the connection has ended", None))
            }
        }
    }

    fn handle_notification(
        &self,
        notification: R::PeerNot,
        context: NotificationContext<R>,
    ) -> impl Future<Output = Result<(), ErrorData>> + Send + '_ {
        self.service.handle_notification(notification, context)
    }

    fn get_info(&self) -> R::Info {
        self.service.get_info()
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.service.supported_protocol_versions()
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not in words")
}
