//! [`RelayHost`]: a relay on each connection.

use std::{future::poll_fn, io, mem, panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use rmcp::{
    ErrorData,
    model::{Extensions, JsonRpcMessage, JsonRpcRequest, RequestId},
};
use serde_json::json;
use tokio::{sync::Notify, time::timeout_at};

use super::{
    handlers::{HandlerGuard, RunningHandlers, closed_before_answer},
    host::{Control, Host, Running, made_or_internal},
};
use crate::{
    close::{CloseCode, CloseReason},
    decode::method::Method,
    relay::{
        end::End,
        message::{RawMessage, RawRequest},
        pump::{Gate, Pump, name_of_end},
        role::RelayRole,
        run::{close_reason, linger},
    },
    transport::WebSocketTransport,
};

/// Host that carries the messages of each connection to an end and back.
pub(in crate::server) struct RelayHost<F> {
    factory: F,
}

impl<F> RelayHost<F> {
    /// Creates the host with the ends that `factory` makes.
    pub(in crate::server) fn new(factory: F) -> Self {
        Self { factory }
    }
}

impl<R, F, M, E> Host<R> for RelayHost<F>
where
    R: RelayRole,
    F: Fn(Extensions) -> M + Send + Sync,
    M: Future<Output = io::Result<E>> + Send,
    E: End,
{
    fn start(
        &self,
        mut transport: WebSocketTransport<R>,
        control: Control,
    ) -> BoxFuture<'_, Result<Running, CloseReason>> {
        Box::pin(async move {
            // No message carries them: nobody would look at them there.
            let extensions = mem::take(transport.extensions());
            let Control { handlers, stop, has_initialize, deadline } = control;
            let making = AssertUnwindSafe(async { (self.factory)(extensions).await });
            let made = timeout_at(deadline, making.catch_unwind()).await;
            let end = made_or_internal(made.map_err(|_| not_made_in_time::<R>())?)?;
            let initialized = Arc::new(Notify::new());
            let gate = HostedGate::<R>::new(handlers.clone(), initialized.clone());
            let mut pump = Pump::new(transport, end, gate, linger::<R>());
            let mut running = Box::pin(async move {
                let carrying = AssertUnwindSafe(poll_fn(|cx| pump.poll(cx))).catch_unwind();
                let reason = tokio::select! {
                    biased;
                    ended = carrying => match ended {
                        Ok(ended) => close_reason::<R>(&ended),
                        Err(_) => {
                            tracing::error!("the end of a relay panicked");
                            pump.answer_all(&panicked::<R>());
                            Some(CloseCode::Internal.into())
                        }
                    },
                    () = handlers.aborted() => {
                        pump.answer_all(&closed_before_answer());
                        None
                    }
                    () = stop.cancelled() => None,
                };
                pump.close(reason).await;
            });
            if has_initialize {
                tokio::select! {
                    () = &mut running => {
                        let reason = "the MCP server has ended before it was initialized";
                        return Err(CloseReason::new(CloseCode::Internal, reason));
                    }
                    () = initialized.notified() => {}
                }
            }
            Ok(running as Running)
        })
    }
}

/// Builds the error for a request whose answer was awaited of an end that has panicked.
fn panicked<R: RelayRole>() -> ErrorData {
    let message = format!("the {} behind this relay panicked", name_of_end::<R>());
    ErrorData::internal_error(message, Some(json!({ "reason": "outcome_unknown" })))
}

/// Returns the reason to close a connection with whose end is not made in time.
fn not_made_in_time<R: RelayRole>() -> CloseReason {
    let end = name_of_end::<R>();
    tracing::error!("the factory of a relay has made no {end} within the handshake timeout");
    CloseReason::new(CloseCode::Internal, format!("the {end} behind this relay has not started"))
}

/// Gate of a relay on a server, which lets nothing more begin once it drains.
struct HostedGate<R> {
    handlers: Arc<RunningHandlers>,
    /// Requests that stay open until they are ended, which no drain waits for.
    open_ended: Vec<(RequestId, HandlerGuard)>,
    initialized: Arc<Notify>,
    role: std::marker::PhantomData<fn() -> R>,
}

impl<R: RelayRole> HostedGate<R> {
    fn new(handlers: Arc<RunningHandlers>, initialized: Arc<Notify>) -> Self {
        Self { handlers, open_ended: Vec::new(), initialized, role: std::marker::PhantomData }
    }

    /// Records a request. In the lifecycle without `initialize` its sender shows by any other than
    /// `ping` that it is there.
    fn note_request(&self, method: Method) {
        if !matches!(method, Method::Initialize | Method::Ping) {
            self.initialized.notify_one();
        }
    }

    /// Counts a request no longer among those that stay open.
    fn end(&mut self, id: &RequestId) {
        self.open_ended.retain(|(open, _)| open != id);
    }
}

impl<R: RelayRole> Gate for HostedGate<R> {
    fn admit(&mut self, request: &JsonRpcRequest<RawRequest>) -> Result<(), ErrorData> {
        let is_open_ended = R::method_of_peer(&request.request) == Method::SubscriptionsListen;
        let guard = self.handlers.begin(is_open_ended)?;
        if is_open_ended {
            self.open_ended.push((request.id.clone(), guard));
        }
        Ok(())
    }

    fn note_inbound(&mut self, message: &RawMessage) {
        match message {
            JsonRpcMessage::Request(request) => {
                self.note_request(R::method_of_peer(&request.request));
            }
            JsonRpcMessage::Notification(notification) => {
                let notification = &notification.notification;
                if R::is_initialized_by_peer(notification) {
                    self.initialized.notify_one();
                }
                if let Some(id) = R::cancelled_by_peer(notification) {
                    self.end(id);
                }
            }
            _ => {}
        }
    }

    fn note_outbound(&mut self, message: &RawMessage) {
        match message {
            JsonRpcMessage::Notification(notification)
                if R::is_initialized(&notification.notification) =>
            {
                self.initialized.notify_one();
            }
            JsonRpcMessage::Response(response) => self.end(&response.id),
            JsonRpcMessage::Error(error) => {
                if let Some(id) = &error.id {
                    self.end(id);
                }
            }
            JsonRpcMessage::Request(request) if R::IS_CLIENT => {
                self.note_request(R::method_of(&request.request));
            }
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => {}
        }
    }
}
