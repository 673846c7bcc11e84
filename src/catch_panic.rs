//! [`CatchPanic`]: a panic of a handler as the error of its request.

use std::{
    any::Any,
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use futures::{
    FutureExt,
    future::{self, Either},
};
use pin_project_lite::pin_project;
use rmcp::{
    ErrorData, Service,
    model::ProtocolVersion,
    service::{NotificationContext, RequestContext, ServiceRole},
};

use crate::layer::correlation::slots::HandlerSlot;

/// A service that answers a request whose handler panics with `-32603`.
///
/// rmcp runs each handler in a task of its own. If that panics, rmcp gives the request no answer,
/// and a client's [deadlines](crate::layer::correlation::Config::deadline) are suspended meanwhile.
/// The transport answers a second later, with `-32603`, where the handler still had the extensions
/// of its context; one that has dropped or moved them is never answered. This wrapper logs the
/// panic at ERROR, answers the request at once, and all else goes on. The peer is not told what the
/// panic said.
///
/// [`serve`](crate::server::serve), [`WebSocketService`](crate::server::WebSocketService) and
/// [`ToolClient`](crate::client::ToolClient) contain it. It is for services that you run yourself,
/// in either MCP role, whichever side dials:
///
/// ```no_run
/// use mcp_ws_transport::{CatchPanic, connect};
/// use rmcp::{ClientHandler, ServiceExt};
///
/// struct Handler;
/// # // What the server asks of this client.
/// impl ClientHandler for Handler {}
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = connect("wss://example.com/mcp").await?;
/// let client = CatchPanic::new(Handler).serve(transport).await?;
/// # drop(client); Ok(()) }
/// ```
///
/// Where the program is built with `panic = "abort"`, no panic can be caught.
#[derive(Debug, Clone, Default)]
pub struct CatchPanic<S> {
    service: S,
}

impl<S> CatchPanic<S> {
    /// Creates a wrapper around an rmcp `service`, such as a `ClientHandler` or a `ServerHandler`.
    pub const fn new(service: S) -> Self {
        Self { service }
    }

    /// Returns a reference to the service inside.
    pub const fn get_ref(&self) -> &S {
        &self.service
    }

    /// Returns the service inside.
    pub fn into_inner(self) -> S {
        self.service
    }
}

/// Returns futures that are `Send` where those of the service are.
impl<R: ServiceRole, S: Service<R>> Service<R> for CatchPanic<S> {
    fn handle_request(
        &self,
        request: R::PeerReq,
        mut context: RequestContext<R>,
    ) -> impl Future<Output = Result<R::Resp, ErrorData>> + '_ {
        // The service must not keep the slot beyond its handler.
        let place = context.extensions.remove::<HandlerSlot>();
        let call = AssertUnwindSafe(|| self.service.handle_request(request, context));
        match catch_unwind(call) {
            Ok(handler) => Either::Left(Catching { handler, _place: place }),
            Err(panic) => Either::Right(future::ready(Err(panicked(&*panic)))),
        }
    }

    async fn handle_notification(
        &self,
        notification: R::PeerNot,
        mut context: NotificationContext<R>,
    ) -> Result<(), ErrorData> {
        let _place = context.extensions.remove::<HandlerSlot>();
        let handler = AssertUnwindSafe(async move {
            self.service.handle_notification(notification, context).await
        });
        handler.catch_unwind().await.unwrap_or_else(|panic| {
            tracing::error!(panic = message(&*panic), "a handler of notifications panicked");
            Ok(())
        })
    }

    fn get_info(&self) -> R::Info {
        self.service.get_info()
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.service.supported_protocol_versions()
    }
}

pin_project! {
    /// Future of a handler that may panic.
    struct Catching<F> {
        #[pin]
        handler: F,
        _place: Option<HandlerSlot>,
    }
}

impl<T, F: Future<Output = Result<T, ErrorData>>> Future for Catching<F> {
    type Output = Result<T, ErrorData>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handler = self.project().handler;
        catch_unwind(AssertUnwindSafe(|| handler.poll(cx)))
            .unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))))
    }
}

/// Logs a panic, and returns the error for the peer.
fn panicked(panic: &(dyn Any + Send)) -> ErrorData {
    tracing::error!(panic = message(panic), "a handler panicked");
    ErrorData::internal_error("the handler panicked", None)
}

/// Returns the message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not in words")
}
