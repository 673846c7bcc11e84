//! [`run`]: a relay between a transport and an end.

use std::{
    fmt,
    future::{Future, IntoFuture, pending, poll_fn},
    pin::{Pin, pin},
    time::Duration,
};

use futures::future::{Either, select};

use super::{
    end::End,
    pump::{Ended, Pump},
    role::RelayRole,
};
use crate::{
    close::{CloseCode, CloseReason},
    transport::WebSocketTransport,
};

/// Returns how long an end that has no more to say may wait for its answers: 30 s for an MCP
/// client, no time for a server, which has ended.
pub(crate) fn linger<R: RelayRole>() -> Duration {
    if R::IS_CLIENT { Duration::from_secs(30) } else { Duration::ZERO }
}

/// Carries messages between `transport` and `end`, both ways and in order, until one of them ends.
///
/// Await the result, or set options first. It resolves with the cause once both are closed.
pub fn run<R: RelayRole, E: End>(transport: WebSocketTransport<R>, end: E) -> Run<R, E> {
    Run { transport, end, linger: linger::<R>() }
}

/// Relay to be run; see [`run`].
///
/// | what happens | what follows |
/// |---|---|
/// | the end has no more to say | its requests are answered first, those of the peer with an error; then the WebSocket is closed |
/// | the end cannot be written | what it still says is passed on, for 2 s at most; then the same |
/// | the WebSocket ends, and does not come back | each request of the end is answered with an error; then the end is closed |
#[must_use = "nothing is carried until this is awaited"]
pub struct Run<R: RelayRole, E> {
    transport: WebSocketTransport<R>,
    end: E,
    linger: Duration,
}

impl<R: RelayRole, E> Run<R, E> {
    /// Sets how long an end that has no more to say may wait for its answers: 30 s if it is an MCP
    /// client, not at all if it is a server.
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time;
        self
    }
}

impl<R: RelayRole, E: End> Run<R, E> {
    /// Runs the relay until `signal` resolves, which is as if the end had no more to say.
    pub async fn run_with_shutdown(self, signal: impl Future<Output = ()>) -> Ended {
        let mut pump = Pump::new(self.transport, self.end, (), self.linger);
        let ended = match select(pin!(poll_fn(|cx| pump.poll(cx))), pin!(signal)).await {
            Either::Left((ended, _)) => Some(ended),
            Either::Right(_) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                pump.finish();
                poll_fn(|cx| pump.poll(cx)).await
            }
        };
        pump.close(close_reason::<R>(&ended)).await;
        ended
    }
}

impl<R: RelayRole, E: End> IntoFuture for Run<R, E> {
    type Output = Ended;
    type IntoFuture = Pin<Box<dyn Future<Output = Ended> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run_with_shutdown(pending()))
    }
}

impl<R: RelayRole, E> fmt::Debug for Run<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// Returns the reason to close the WebSocket with; `None` where its default will do.
pub(crate) fn close_reason<R: RelayRole>(ended: &Ended) -> Option<CloseReason> {
    let has_left = !R::IS_CLIENT && !matches!(ended, Ended::PeerGone(_));
    has_left.then(|| CloseReason::new(CloseCode::Internal, "the MCP server has ended"))
}
